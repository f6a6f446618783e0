/** The lane cannot run here: a reason, not a failure. The process ends with status 77, as automake's tests do. */
export class Skip extends Error {}

export const SKIPPED = 77;
