import type { HelperEnv } from '../a64/helpers.js';
import { SECOND_ENTRIES, SECOND_INDEX_MASK, TLB_INDEX_SHIFT } from '../jit/lower.js';

const TABLE = SECOND_ENTRIES * 16;

/** Bytes of a vCPU's second level. */
export const SECOND_TLB_AREA = 2 * TABLE;

/** Bits of a key: the regime in the lowest two, where 3 is none, then a generation; an entry's page stands above. */
const REGIME_BITS = 2;
const GENERATIONS = 1 << (12 - REGIME_BITS);

const WORD_PAGE_SHIFT = 12;
/** Pages of linear memory. */
const LINEAR_PAGES = 1 << 20;
/**
 * A page's word in the index of stores: bits 31..12 of the virtual page last stored through, then the contexts that have it, then
 * whether there is another virtual page, in a second word, and whether there are more than these.
 */
const PAGE_MASK = 0xf_ffff;
const CONTEXT_SHIFT = 20;
const OTHER = 1 << 28;
const MORE = 1 << 29;

/** Who has translations here: all of one address space. */
export interface SecondTlbUser {
  /** A new key for its translations: older ones are gone. */
  generation(number: number): void;
}

/**
 * The second level of a vCPU's translation tables, shared by its address spaces: what has fallen out of a first-level table is
 * found here by a function of the interpreter's module, without a walk. An entry is the page's address with a key in its low 12
 * bits (64 bits; zero where it is empty), then the page's linear address. The key has the regime and a generation, so that an
 * address space forgets all of its entries by taking another generation.
 *
 * Whatever is in a first-level table was filled in here at the same time. So this level also knows through which pages one of RAM
 * was ever stored to.
 */
export class SecondTlb {
  readonly #env: HelperEnv;
  readonly #address: number;
  readonly #users: SecondTlbUser[] = [];
  #generation = 0;
  /** By page of linear memory; zero where no table has an entry to store to it. Only what is stored to is ever touched. */
  readonly #stores = new Int32Array(LINEAR_PAGES);
  readonly #otherStores = new Int32Array(LINEAR_PAGES);

  /** @param address linear address of SECOND_TLB_AREA zeroed bytes */
  constructor(env: HelperEnv, address: number) {
    this.#env = env;
    this.#address = address;
  }

  /** Linear address of the table for loads or stores. */
  table(write: boolean): number {
    return this.#address + (write ? TABLE : 0);
  }

  /** @returns the user's number */
  add(user: SecondTlbUser): number {
    this.renew(user);
    return this.#users.push(user) - 1;
  }

  /** Forgets a user's translations. */
  renew(user: SecondTlbUser): void {
    if (++this.#generation === GENERATIONS) {
      this.#env.u64.fill(0n, this.#address >>> 3, (this.#address + SECOND_TLB_AREA) >>> 3);
      this.#generation = 0;
      for (const other of this.#users) if (other !== user) other.generation(++this.#generation);
      this.#generation++;
    }
    user.generation(this.#generation);
  }

  /** What an entry has in the low bits of its page's address. */
  static key(regime: number, generation: number): number {
    return (generation << REGIME_BITS) | regime;
  }

  /** @param user the user's number @param page linear address of the page */
  fill(user: number, write: boolean, key: number, lo: number, hi: number, page: number): void {
    const { i32 } = this.#env;
    const at = (this.table(write) + ((lo >>> TLB_INDEX_SHIFT) & SECOND_INDEX_MASK)) >>> 2;
    i32[at] = (lo & ~0xfff) | key;
    i32[at + 1] = hi;
    i32[at + 2] = page;
    if (!write) return;
    const stores = this.#stores;
    const index = page >>> WORD_PAGE_SHIFT;
    const before = stores[index]!;
    const virtual = lo >>> WORD_PAGE_SHIFT;
    let others = before & (OTHER | MORE);
    if (before !== 0 && (before & PAGE_MASK) !== virtual) {
      // A kernel clears a page through one address and a program stores to it through another: two are told apart from many.
      if ((others & OTHER) !== 0 && this.#otherStores[index] !== virtual) others |= MORE;
      this.#otherStores[index] = before & PAGE_MASK;
      others |= OTHER;
    }
    stores[index] = (before & ~(PAGE_MASK | OTHER | MORE)) | virtual | (1 << (CONTEXT_SHIFT + user)) | others;
  }

  /** Forgets what may be the translation of a page, in all address spaces. */
  forgetPage(lo: number): void {
    const { i32 } = this.#env;
    const offset = (lo >>> TLB_INDEX_SHIFT) & SECOND_INDEX_MASK;
    for (const at of [(this.#address + offset) >>> 2, (this.#address + TABLE + offset) >>> 2]) {
      i32[at] = 0;
      i32[at + 1] = 0;
    }
  }

  /**
   * Forgets every translation through which a page of RAM could be stored to.
   * @param page its linear address
   * @param first forgets those of a user's first-level tables: all, or those of the virtual page whose bits 31..12 are given
   */
  forgetStores(page: number, first: (user: number, lo: number | undefined) => void): void {
    const stores = this.#stores;
    const index = page >>> WORD_PAGE_SHIFT;
    const word = stores[index]!;
    if (word === 0) return;
    stores[index] = 0;
    if ((word & MORE) !== 0) this.#forgetStores(page, word, undefined, first);
    else {
      this.#forgetStores(page, word, word & PAGE_MASK, first);
      if ((word & OTHER) !== 0) this.#forgetStores(page, word, this.#otherStores[index]!, first);
    }
  }

  /** @param virtual bits 31..12 of the virtual page whose entry it is; `undefined` looks at all */
  #forgetStores(
    page: number,
    word: number,
    virtual: number | undefined,
    first: (user: number, lo: number | undefined) => void,
  ): void {
    const { i32 } = this.#env;
    const wanted = page | 0;
    const lo = virtual === undefined ? undefined : virtual << WORD_PAGE_SHIFT;
    const table = this.table(true) >>> 2;
    const from = lo === undefined ? table : table + (((lo >>> TLB_INDEX_SHIFT) & SECOND_INDEX_MASK) >>> 2);
    const to = lo === undefined ? table + TABLE / 4 : from + 4;
    for (let at = from; at < to; at += 4) {
      if (i32[at + 2] !== wanted) continue;
      i32[at] = 0;
      i32[at + 1] = 0;
    }
    for (let user = 0; user < this.#users.length; user++)
      if ((word & (1 << (CONTEXT_SHIFT + user))) !== 0) first(user, lo);
  }
}
