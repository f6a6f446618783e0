import type { HelperEnv } from '../a64/helpers.js';
import { FETCH_ENTRIES, FETCH_TABLE_SIZE, JUMP_TABLE, JUMPS_USED, PAGE_HAS_JUMPS } from '../jit/interpreter.js';
import {
  TLB_ALIGNED_KEY,
  TLB_ENTRIES,
  TLB_INDEX_MASK,
  TLB_INDEX_SHIFT,
  TLB_KEY,
  TLB_OFFSET_BITS,
  TLB_SECOND,
  TLB_TABLE_SIZE,
} from '../jit/lower.js';
import { DeviceTlb } from './device-tlb.js';
import { SecondTlb, type SecondTlbUser } from './second-tlb.js';

const FETCH_INDEX_MASK = (FETCH_ENTRIES - 1) << 4;
const PAGE_SHIFT = 12;

/** Translation regimes that have tables of their own: EL0 (and LDTR, STTR), EL1 with PSTATE.PAN, EL1 without. */
export const TlbRegime = { EL0: 0, EL1_PAN: 1, EL1: 2 } as const;
export type TlbRegime = (typeof TlbRegime)[keyof typeof TlbRegime];
const REGIMES = 3;
/** What no entry of the second level is filled in for. */
const NO_REGIME = 3;
const DATA_TABLES = REGIMES * 2;

/** Fills that a data table remembers the places of: emptying it costs no more than they did, or is one sweep. */
const FILLS = 128;

/** Fetch tables: for each value of PSTATE.BTYPE one an EL. */
const FETCH_TABLES = 4 * 2;

/** Bytes of an address space's tables: a load and a store table a regime, and the fetch tables. */
export const TLB_AREA = DATA_TABLES * TLB_TABLE_SIZE + FETCH_TABLES * FETCH_TABLE_SIZE;

const ALL_ONES = 0xffff_ffff_ffff_ffffn;
/** Fills from an address to another, both multiples of 8. In memory that is shared V8 fills item by item, so the items are large. */
const fill = (env: HelperEnv, value: bigint, from: number, to: number): void => {
  env.u64.fill(value, from >>> 3, to >>> 3);
};

/** Key of the piece of 2^shift bytes that an address is in, without the top byte. */
const pieceOf = (lo: number, hi: number, shift: number): number =>
  (hi & 0xff_ffff) * 2 ** (32 - shift) + (lo >>> shift);

/**
 * The translation tables of one address space of a vCPU, in linear memory and direct-mapped, where generated code looks first.
 * An entry for data is the last address of its page (64 bits; zero, which is none, where it is empty), then what to add to the
 * low half of an address to get a linear one, and the page's linear address. An entry for fetches is the address of its page
 * (all ones where it is empty), then the address of the page's decoded records.
 *
 * Indirect branches look into the same fetch tables as everything else until a page is guarded (FEAT_BTI). From then on there is
 * a table more for each value of PSTATE.BTYPE, which only such branches see. It has the pages that are not guarded, and of the
 * others the starts of regions that such a branch was found to be allowed to; for the rest the MMU looks at the instruction.
 *
 * What falls out of a data table is still in the {@link SecondTlb}. Entries have no ASID: see {@link TlbContexts}.
 */
export class Tlb implements SecondTlbUser {
  readonly #env: HelperEnv;
  readonly #address: number;
  readonly #second: SecondTlb;
  /** This one's number there, and what its entries are told apart by. */
  readonly #user: number;
  #generation = 0;
  #aligned = false;
  /** Tables that have entries, one bit each: only those need emptying. */
  #used = 3 << DATA_TABLES;
  /** Guarded pages have been seen, and the tables for indirect branches are in use. */
  #guarded = false;
  /** How often each data table was filled, and where it was the first times. */
  readonly #fills = new Int32Array(DATA_TABLES);
  readonly #filled = new Int32Array(DATA_TABLES * FILLS);
  /** Pieces of 2 MiB and 1 GiB that blocks map: invalidating an address in one must take all of its entries. */
  readonly #blocks2M = new Set<number>();
  readonly #blocks1G = new Set<number>();
  /** What is not memory. Blocks that map such pages are noted as well. */
  readonly devices = new DeviceTlb();
  /** There is an entry from a block of a larger granule: any invalidation takes everything. */
  #wideBlocks = false;

  /** @param address linear address of TLB_AREA zeroed bytes */
  constructor(env: HelperEnv, address: number, second: SecondTlb) {
    this.#env = env;
    this.#address = address;
    this.#second = second;
    for (let table = 0; table < DATA_TABLES; table++)
      env.u32[(this.#dataTable(table) + TLB_SECOND) >>> 2] = second.table((table & 1) === 1);
    this.#user = second.add(this);
    // Zeroes are not empty entries of a fetch table.
    for (let el = 0; el < 2; el++) env.i32[(this.fetchTable(el) + JUMPS_USED) >>> 2] = 1;
    this.flush();
  }

  #dataTable(table: number): number {
    return this.#address + table * TLB_TABLE_SIZE;
  }

  /** Linear address of a regime's load table; the store table follows it. */
  loadTable(regime: TlbRegime): number {
    return this.#dataTable(regime * 2);
  }
  storeTable(regime: TlbRegime): number {
    return this.#dataTable(regime * 2 + 1);
  }
  /** @param btype PSTATE.BTYPE of what is fetched */
  fetchTable(el: number, btype = 0): number {
    return this.#fetchTableAt(this.#guarded ? btype * 2 + el : el);
  }

  #fetchTableAt(table: number): number {
    return this.#address + DATA_TABLES * TLB_TABLE_SIZE + table * FETCH_TABLE_SIZE;
  }

  get guarded(): boolean {
    return this.#guarded;
  }

  /** A page is guarded: indirect branches get tables of their own, see {@link fetchTable}. */
  guard(): void {
    this.#guarded = true;
    const { i32 } = this.#env;
    for (let table = 2; table < FETCH_TABLES; table++) {
      const at = this.#fetchTableAt(table);
      fill(this.#env, ALL_ONES, at, at + JUMP_TABLE);
      this.#emptyJumps(at);
      i32[(at + JUMPS_USED) >>> 2] = 0;
    }
  }

  generation(number: number): void {
    this.#generation = number;
    this.#writeKeys();
  }

  /** Alignment is checked: only accesses that are aligned to their size may find entries. To be set where there are none. */
  set aligned(on: boolean) {
    this.#aligned = on;
    this.#writeKeys();
  }

  #writeKeys(): void {
    const { i32 } = this.#env;
    for (let table = 0; table < DATA_TABLES; table++) {
      const at = this.#dataTable(table);
      const key = SecondTlb.key(table >> 1, this.#generation);
      i32[(at + TLB_KEY) >>> 2] = this.#aligned ? SecondTlb.key(NO_REGIME, this.#generation) : key;
      i32[(at + TLB_ALIGNED_KEY) >>> 2] = this.#aligned ? key : 0;
    }
  }

  /** @param page linear address of the page */
  fillData(regime: TlbRegime, write: boolean, lo: number, hi: number, page: number): void {
    const table = regime * 2 + (write ? 1 : 0);
    this.#used |= 1 << table;
    this.#second.fill(this.#user, write, SecondTlb.key(regime, this.#generation), lo, hi, page);
    if (this.#aligned) return;
    const { i32 } = this.#env;
    const at = (this.#dataTable(table) + ((lo >>> TLB_INDEX_SHIFT) & TLB_INDEX_MASK)) >>> 2;
    const fills = this.#fills[table]!;
    if (fills < FILLS) {
      this.#filled[table * FILLS + fills] = at;
      this.#fills[table] = fills + 1;
    } else this.#fills[table] = FILLS + 1;
    i32[at] = lo | TLB_OFFSET_BITS;
    i32[at + 1] = hi;
    i32[at + 2] = page - (lo & ~TLB_OFFSET_BITS);
    i32[at + 3] = page;
  }

  /** @param slot address of the page's records @param btype the table */
  fillFetch(el: number, lo: number, hi: number, slot: number, btype: number): void {
    const table = this.useFetchTable(el, btype);
    const { i32 } = this.#env;
    const at = (table + ((lo >>> 8) & FETCH_INDEX_MASK)) >>> 2;
    i32[at] = lo & ~0xfff;
    i32[at + 1] = hi;
    i32[at + 2] = slot;
  }

  /** A fetch table that may get entries from now on, if only of regions. */
  useFetchTable(el: number, btype: number): number {
    this.#used |= 1 << (DATA_TABLES + (this.#guarded ? btype * 2 + el : el));
    return this.fetchTable(el, btype);
  }

  /**
   * The records of the page that an instruction was just fetched from, or `undefined` where its entry is gone.
   * @param btype the table
   */
  findFetch(el: number, lo: number, hi: number, btype = 0): number | undefined {
    const { i32, u32 } = this.#env;
    const at = (this.fetchTable(el, btype) + ((lo >>> 8) & FETCH_INDEX_MASK)) >>> 2;
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
    if ((this.#used & ((1 << DATA_TABLES) - 1)) !== 0) this.#second.renew(this);
    for (let table = 0; table < DATA_TABLES; table++) if ((this.#used & (1 << table)) !== 0) this.#empty(table);
    for (let table = 0; table < FETCH_TABLES; table++) {
      if ((this.#used & (1 << (DATA_TABLES + table))) === 0) continue;
      const at = this.#fetchTableAt(table);
      this.#forgetJumps(at);
      fill(this.#env, ALL_ONES, at, at + JUMP_TABLE);
    }
    this.#used = 0;
    this.devices.flush();
    this.#wideBlocks = false;
    if (this.#blocks2M.size > 0) this.#blocks2M.clear();
    if (this.#blocks1G.size > 0) this.#blocks1G.clear();
  }

  /** Empties a data table. */
  #empty(table: number): void {
    const { i32 } = this.#env;
    const fills = this.#fills[table]!;
    this.#fills[table] = 0;
    if (fills > FILLS) {
      fill(this.#env, 0n, this.#dataTable(table), this.#dataTable(table) + TLB_ENTRIES * 16);
      return;
    }
    for (let n = 0; n < fills; n++) {
      const at = this.#filled[table * FILLS + n]!;
      i32[at] = 0;
      i32[at + 1] = 0;
    }
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
      this.devices.flushPage(page);
      const data = (page >>> TLB_INDEX_SHIFT) & TLB_INDEX_MASK;
      for (let table = 0; table < DATA_TABLES; table++) {
        if ((this.#used & (1 << table)) === 0) continue;
        const at = (this.#dataTable(table) + data) >>> 2;
        i32[at] = 0;
        i32[at + 1] = 0;
      }
      const fetch = (page >>> 8) & FETCH_INDEX_MASK;
      for (let which = 0; which < (this.#guarded ? FETCH_TABLES : 2); which++) {
        const table = this.#fetchTableAt(which);
        const at = (table + fetch) >>> 2;
        if (i32[at] !== -1) fetched = true;
        // Its entry may have been taken by another page since regions of this one were met.
        if (i32[at + PAGE_HAS_JUMPS / 4] === 1) this.#forgetJumps(table);
        i32[at] = -1;
        i32[at + 1] = -1;
      }
    }
    return fetched;
  }

  /** Forgets where regions start. */
  forgetJumps(): void {
    for (let table = 0; table < FETCH_TABLES; table++) {
      if ((this.#used & (1 << (DATA_TABLES + table))) !== 0) this.#forgetJumps(this.#fetchTableAt(table));
    }
  }

  /** @param table linear address of a fetch table */
  #forgetJumps(table: number): void {
    const { i32 } = this.#env;
    const used = (table + JUMPS_USED) >>> 2;
    if (i32[used] === 0) return;
    i32[used] = 0;
    this.#emptyJumps(table);
    for (let at = table >>> 2; at < (table + JUMP_TABLE) >>> 2; at += 4) i32[at + PAGE_HAS_JUMPS / 4] = 0;
  }

  /** @param table linear address of a fetch table */
  #emptyJumps(table: number): void {
    const { i32 } = this.#env;
    const end = table + JUMPS_USED;
    fill(this.#env, ALL_ONES, table + JUMP_TABLE, end);
    // A branch may go to the address of all ones, and looks here in the first entry: what that holds must be another entry's.
    i32[(table + JUMP_TABLE) >>> 2] = 4;
    i32[(table + JUMP_TABLE + 4) >>> 2] = 0;
  }

  /**
   * Forgets translations through which a page of RAM could be stored to.
   * @param page its linear address @param lo only those of the virtual page whose bits 31..12 are given
   */
  forgetStores(page: number, lo?: number): void {
    const { i32 } = this.#env;
    const wanted = page | 0;
    const offset = lo === undefined ? 0 : (lo >>> TLB_INDEX_SHIFT) & TLB_INDEX_MASK;
    const count = lo === undefined ? TLB_ENTRIES : 1;
    for (let regime = 0; regime < REGIMES; regime++) {
      if ((this.#used & (1 << (regime * 2 + 1))) === 0) continue;
      const first = (this.storeTable(regime as TlbRegime) + offset) >>> 2;
      for (let at = first; at < first + count * 4; at += 4) {
        if (i32[at + 3] !== wanted) continue;
        i32[at] = 0;
        i32[at + 1] = 0;
      }
    }
  }
}
