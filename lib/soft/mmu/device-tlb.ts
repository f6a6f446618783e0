import type { TlbRegime } from './tlb.js';

/** Pages, each with an entry for loads and one for stores. */
const PAGES = 64;
const INDEX_MASK = PAGES - 1;
const ENTRIES = PAGES * 2;
const PAGE_SHIFT = 12;
/** In the low half of an entry's virtual page, whose other low bits are the regime. */
const WRITE = 4;

/**
 * Translations of pages that are not RAM (or not for stores), which generated code never sees: an access to one leaves it, and
 * the MMU finds the physical page here without walking the guest's tables. Direct-mapped, by virtual page.
 */
export class DeviceTlb {
  /** The page with regime and WRITE in it, and the high half of its address; all ones where there is no entry. */
  readonly #pages = new Int32Array(ENTRIES * 2).fill(-1);
  /** Not of doubles, as long as no device is beyond 2 GiB: V8 would have to make integers of those at each access. */
  readonly #physical = new Array<number>(ENTRIES).fill(0);
  #used = false;

  /** The guest-physical page, or -1 where it is not known. */
  find(regime: TlbRegime, isWrite: boolean, lo: number, hi: number): number {
    const at = placeOf(lo) + (isWrite ? 1 : 0);
    const page = (lo & ~0xfff) | regime | (isWrite ? WRITE : 0);
    return this.#pages[at * 2] === page && this.#pages[at * 2 + 1] === (hi | 0) ? this.#physical[at]! : -1;
  }

  /** @param physical the guest-physical page */
  fill(regime: TlbRegime, isWrite: boolean, lo: number, hi: number, physical: number): void {
    const at = placeOf(lo) + (isWrite ? 1 : 0);
    this.#pages[at * 2] = (lo & ~0xfff) | regime | (isWrite ? WRITE : 0);
    this.#pages[at * 2 + 1] = hi;
    this.#physical[at] = integer(physical);
    this.#used = true;
  }

  /** Forgets a page, and those that share its place. */
  flushPage(lo: number): void {
    const at = placeOf(lo);
    this.#pages[at * 2] = -1;
    this.#pages[at * 2 + 2] = -1;
  }

  flush(): void {
    if (!this.#used) return;
    this.#used = false;
    this.#pages.fill(-1);
  }
}

/** An address as V8 computes fastest with it: below 2 GiB as an integer, however it was come by. */
export const integer = (address: number): number => (address < 0x8000_0000 ? address | 0 : address);

/** Where the entries of a page are. */
const placeOf = (lo: number): number => ((lo >>> PAGE_SHIFT) & INDEX_MASK) * 2;
