/** Fills bytes with random ones, fit for keys. */
export type FillRandom = (into: Uint8Array<ArrayBuffer>) => unknown;

/** Web Crypto's, where the platform has no other. */
export const webRandom: FillRandom = (into) => crypto.getRandomValues(into);
