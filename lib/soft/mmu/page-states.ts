import type { RamRegion } from './physical.js';

/** What stage 2 says of a page of RAM: bits of its byte in {@link RamPages.states}. */
export const PageState = {
  /** Nothing may be done with it. */
  NO_ACCESS: 1,
  /** It may not be stored to. */
  NO_STORE: 2,
  /** The access flag: a processor has used it since the bit was cleared. */
  YOUNG: 4,
} as const;

/** RAM as stage 2 knows it. */
export interface RamPages {
  /** One byte a page; `undefined` while every page may be used and nobody asks which are. */
  readonly states: Uint8Array | undefined;
}

/** Whether a page's byte lets it be used. */
export const isAllowed = (state: number, isWrite: boolean): boolean =>
  (state & (isWrite ? PageState.NO_ACCESS | PageState.NO_STORE : PageState.NO_ACCESS)) === 0;

/**
 * An access to a page of RAM, by an instruction or by the walk of the guest's tables.
 * @param offset of the page in the region @returns `false` where it is not allowed
 */
export function usePage(region: RamRegion, offset: number, isWrite: boolean): boolean {
  region.isUsed = true;
  const { states } = region.ram;
  if (states === undefined) return true;
  const page = region.firstPage + (offset >>> 12);
  const state = states[page]!;
  if (!isAllowed(state, isWrite)) return false;
  states[page] = state | PageState.YOUNG;
  return true;
}
