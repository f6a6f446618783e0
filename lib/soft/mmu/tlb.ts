import type { HelperEnv } from '../a64/helpers.js';
import { FETCH_ENTRIES, FETCH_TABLE_SIZE, JUMP_TABLE, JUMPS_USED, PAGE_HAS_JUMPS } from '../jit/interpreter.js';
import { TLB_ENTRIES, TLB_INDEX_MASK, TLB_INDEX_SHIFT } from '../jit/lower.js';

const DATA_TABLE = TLB_ENTRIES * 16;
const FETCH_INDEX_MASK = (FETCH_ENTRIES - 1) << 4;
const PAGE_SHIFT = 12;

/** Translation regimes that have tables of their own: EL0 (and LDTR, STTR), EL1 with PSTATE.PAN, EL1 without. */
export const TlbRegime = { EL0: 0, EL1_PAN: 1, EL1: 2 } as const;
export type TlbRegime = (typeof TlbRegime)[keyof typeof TlbRegime];
const REGIMES = 3;
const DATA_TABLES = REGIMES * 2;

/** Loads remembered behind the load tables: as many pages as 64 MiB have. */
const EVICTED_ENTRIES = 16384;
const EVICTED_MASK = EVICTED_ENTRIES - 1;
/** Words of an entry: low half of the page's address with the regime in it, high half, linear address of the page. */
const EVICTED_WORDS = 3;

/** Bytes of a vCPU's tables: a load and a store table a regime, a fetch table an EL. */
export const TLB_AREA = DATA_TABLES * DATA_TABLE + 2 * FETCH_TABLE_SIZE;

/** Key of the piece of 2^shift bytes that an address is in, without the top byte. */
const pieceOf = (lo: number, hi: number, shift: number): number =>
  (hi & 0xff_ffff) * 2 ** (32 - shift) + (lo >>> shift);

/**
 * A vCPU's translation tables in linear memory, direct-mapped, where generated code looks first. An entry is the address of its
 * page (64 bits; all ones, which no page has, where it is empty), then for data what to add to the low half of an address to
 * get a linear one, and the page's linear address; for fetches the address of the page's decoded records.
 *
 * What falls out of a load table is kept in a larger one, which generated code does not see: to find it there is much cheaper
 * than to walk the guest's tables again. Stores have none, so that {@link Tlb.forgetStores} stays short.
 *
 * Entries have no ASID: each ASID has tables of its own, see {@link TlbContexts}.
 */
export class Tlb {
  readonly #env: HelperEnv;
  readonly #address: number;
  /** Tables that have entries, one bit each: only those need emptying. */
  #used = (1 << (DATA_TABLES + 2)) - 1;
  /** Pieces of 2 MiB and 1 GiB that blocks map: invalidating an address in one must take all of its entries. */
  readonly #blocks2M = new Set<number>();
  readonly #blocks1G = new Set<number>();
  /** Made when something first falls out of a table. */
  #evicted: Int32Array | undefined;
  #hasEvicted = false;
  /** There is an entry from a block of a larger granule: any invalidation takes everything. */
  #wideBlocks = false;

  constructor(env: HelperEnv, address: number) {
    this.#env = env;
    this.#address = address;
    // Zeroes are not empty entries.
    for (let el = 0; el < 2; el++) env.i32[(this.fetchTable(el) + JUMPS_USED) >>> 2] = 1;
    this.flush();
  }

  /** Linear address of a regime's load table; the store table follows it. */
  loadTable(regime: TlbRegime): number {
    return this.#address + regime * 2 * DATA_TABLE;
  }
  storeTable(regime: TlbRegime): number {
    return this.loadTable(regime) + DATA_TABLE;
  }
  fetchTable(el: number): number {
    return this.#address + DATA_TABLES * DATA_TABLE + el * FETCH_TABLE_SIZE;
  }

  /** @param page linear address of the page */
  fillData(regime: TlbRegime, write: boolean, lo: number, hi: number, page: number): void {
    const table = regime * 2 + (write ? 1 : 0);
    this.#used |= 1 << table;
    const { i32 } = this.#env;
    const at = (this.#address + table * DATA_TABLE + ((lo >>> TLB_INDEX_SHIFT) & TLB_INDEX_MASK)) >>> 2;
    const virtual = lo & ~0xfff;
    if (!write && i32[at] !== -1 && (i32[at] !== virtual || i32[at + 1] !== (hi | 0))) {
      this.#keep(regime, i32[at]!, i32[at + 1]!, i32[at + 3]!);
    }
    i32[at] = virtual;
    i32[at + 1] = hi;
    i32[at + 2] = page - virtual;
    i32[at + 3] = page;
  }

  #keep(regime: TlbRegime, virtual: number, hi: number, page: number): void {
    this.#evicted ??= new Int32Array(EVICTED_ENTRIES * EVICTED_WORDS).fill(-1);
    this.#hasEvicted = true;
    const at = ((virtual >>> PAGE_SHIFT) & EVICTED_MASK) * EVICTED_WORDS;
    this.#evicted[at] = virtual | regime;
    this.#evicted[at + 1] = hi;
    this.#evicted[at + 2] = page;
  }

  /** The page that a load's table has lost to another: its linear address, and it is back in the table; 0 where it is not known. */
  findEvicted(regime: TlbRegime, lo: number, hi: number): number {
    const evicted = this.#evicted;
    if (!this.#hasEvicted || evicted === undefined) return 0;
    const at = ((lo >>> PAGE_SHIFT) & EVICTED_MASK) * EVICTED_WORDS;
    if (evicted[at] !== ((lo & ~0xfff) | regime) || evicted[at + 1] !== (hi | 0)) return 0;
    const page = evicted[at + 2]! >>> 0;
    this.fillData(regime, false, lo, hi, page);
    return page;
  }

  /** @param slot address of the page's records */
  fillFetch(el: number, lo: number, hi: number, slot: number): void {
    this.#used |= 1 << (DATA_TABLES + el);
    const { i32 } = this.#env;
    const at = (this.fetchTable(el) + ((lo >>> 8) & FETCH_INDEX_MASK)) >>> 2;
    i32[at] = lo & ~0xfff;
    i32[at + 1] = hi;
    i32[at + 2] = slot;
  }

  /** The records of the page that an instruction was just fetched from, or `undefined` where its entry is gone. */
  findFetch(el: number, lo: number, hi: number): number | undefined {
    const { i32, u32 } = this.#env;
    const at = (this.fetchTable(el) + ((lo >>> 8) & FETCH_INDEX_MASK)) >>> 2;
    return i32[at] === (lo & ~0xfff) && i32[at + 1] === (hi | 0) ? u32[at + 2] : undefined;
  }

  /** The page, as two halves, that is fetched from these records and at which EL; `undefined` where no entry says. */
  virtualPageOf(slot: number): { readonly el: number; readonly lo: number; readonly hi: number } | undefined {
    const { i32, u32 } = this.#env;
    // What runs at EL1 is looked for first: EL0 has a table of its own.
    for (let el = 1; el >= 0; el--) {
      const table = this.fetchTable(el) >>> 2;
      for (let at = table; at < table + FETCH_ENTRIES * 4; at += 4) {
        if (i32[at] !== -1 && u32[at + 2] === slot) return { el, lo: u32[at]!, hi: u32[at + 1]! };
      }
    }
    return undefined;
  }

  /** Remembers that an entry comes from a block. @param granule log2 of the granule */
  noteBlock(lo: number, hi: number, level: number, granule: number): void {
    if (granule !== 12) this.#wideBlocks = true;
    else if (level === 2) this.#blocks2M.add(pieceOf(lo, hi, 21));
    else this.#blocks1G.add(pieceOf(lo, hi, 30));
  }

  /** Forgets every translation. */
  flush(): void {
    const { u8 } = this.#env;
    for (let table = 0; table < DATA_TABLES; table++) {
      if ((this.#used & (1 << table)) === 0) continue;
      const at = this.#address + table * DATA_TABLE;
      u8.fill(0xff, at, at + DATA_TABLE);
    }
    for (let el = 0; el < 2; el++) {
      if ((this.#used & (1 << (DATA_TABLES + el))) === 0) continue;
      this.#forgetJumps(el);
      u8.fill(0xff, this.fetchTable(el), this.fetchTable(el) + JUMP_TABLE);
    }
    this.#used = 0;
    if (this.#hasEvicted) this.#evicted?.fill(-1);
    this.#hasEvicted = false;
    this.#wideBlocks = false;
    if (this.#blocks2M.size > 0) this.#blocks2M.clear();
    if (this.#blocks1G.size > 0) this.#blocks1G.clear();
  }

  /**
   * Forgets the translations of one page of 2^granule bytes, whatever the top byte of its address, and more if a block maps it.
   * @returns whether a fetch table lost an entry
   */
  flushPage(lo: number, hi: number, granule: number): boolean {
    const inBlock =
      this.#wideBlocks || this.#blocks2M.has(pieceOf(lo, hi, 21)) || this.#blocks1G.has(pieceOf(lo, hi, 30));
    if (inBlock) {
      this.flush();
      return true;
    }
    const { i32 } = this.#env;
    const first = (lo >>> granule) << granule;
    let fetched = false;
    for (let n = 0; n < 1 << (granule - PAGE_SHIFT); n++) {
      const page = first + (n << PAGE_SHIFT);
      const data = (page >>> TLB_INDEX_SHIFT) & TLB_INDEX_MASK;
      // It may be another page's, which is then walked to again.
      if (this.#evicted !== undefined) this.#evicted[((page >>> PAGE_SHIFT) & EVICTED_MASK) * EVICTED_WORDS] = -1;
      for (let table = 0; table < DATA_TABLES; table++) {
        const at = (this.#address + table * DATA_TABLE + data) >>> 2;
        i32[at] = -1;
        i32[at + 1] = -1;
      }
      const fetch = (page >>> 8) & FETCH_INDEX_MASK;
      for (let el = 0; el < 2; el++) {
        const at = (this.fetchTable(el) + fetch) >>> 2;
        if (i32[at] !== -1) fetched = true;
        // Its entry may have been taken by another page since regions of this one were met.
        if (i32[at + PAGE_HAS_JUMPS / 4] === 1) this.#forgetJumps(el);
        i32[at] = -1;
        i32[at + 1] = -1;
      }
    }
    return fetched;
  }

  /** Forgets where regions start. */
  forgetJumps(): void {
    for (let el = 0; el < 2; el++) if ((this.#used & (1 << (DATA_TABLES + el))) !== 0) this.#forgetJumps(el);
  }

  #forgetJumps(el: number): void {
    const { i32, u8 } = this.#env;
    const table = this.fetchTable(el);
    const used = (table + JUMPS_USED) >>> 2;
    if (i32[used] === 0) return;
    i32[used] = 0;
    u8.fill(0xff, table + JUMP_TABLE, table + JUMPS_USED);
    for (let at = table >>> 2; at < (table + JUMP_TABLE) >>> 2; at += 4) i32[at + PAGE_HAS_JUMPS / 4] = 0;
  }

  /** Forgets every translation through which a page of RAM could be stored to. @param page its linear address */
  forgetStores(page: number): void {
    const { i32 } = this.#env;
    const wanted = page | 0;
    for (let regime = 0; regime < REGIMES; regime++) {
      if ((this.#used & (1 << (regime * 2 + 1))) === 0) continue;
      const table = this.storeTable(regime as TlbRegime) >>> 2;
      for (let at = table; at < table + TLB_ENTRIES * 4; at += 4) {
        if (i32[at + 3] === wanted) {
          i32[at] = -1;
          i32[at + 1] = -1;
          i32[at + 3] = -1;
        }
      }
    }
  }
}
