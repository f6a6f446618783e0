import type { HelperEnv } from '../a64/helpers.js';
import type { Access } from '../cpu/access.js';
import { Sctlr, TCR_TBID } from '../cpu/architecture.js';
import type { DebugUnit } from '../cpu/debug.js';
import { ExitCode, Offset } from '../cpu/layout.js';
import type { CpuState } from '../cpu/state.js';
import { SR } from '../cpu/sysregs.js';
import type { CodeCache } from '../jit/code-cache.js';
import { RECORD_SHIFT } from '../jit/handler.js';
import type { Interpreter } from '../jit/interpreter.js';
import { EXACT } from '../jit/memory-functions.js';
import type { StepRecord } from '../jit/step-record.js';
import { alignmentOf, isOrdered, isZeroing } from './alignment.js';
import { isBreak, isLandingPad } from './branch-target.js';
import { integer } from './device-tlb.js';
import { usePage } from './page-states.js';
import type { PhysicalMap, RamRegion } from './physical.js';
import { type Tlb, TlbRegime } from './tlb.js';
import { TlbContexts } from './tlb-contexts.js';
import { FaultStatus, Translator } from './translate.js';

const PAGE = 4096;
/** CTR_EL0.DminLine. */
const CACHE_LINE = 64;

/** The size in what generated code says of an access. */
const SIZE_MASK = 0xff;

/** What the MMU needs of the machine. */
export interface MmuMachine {
  readonly views: HelperEnv;
  readonly physical: PhysicalMap;
  readonly code: CodeCache;
  readonly interpreter: Interpreter;
  readonly step: StepRecord;
}

/** A Data Abort or Instruction Abort, until it is taken. */
export interface Fault {
  /** DFSC or IFSC. */
  status: number;
  /** The address. */
  lo: number;
  hi: number;
  isWrite: boolean;
  /** ISS.CM: cache maintenance or address translation. */
  isMaintenance: boolean;
  /** Of an alignment fault: size of the access, 0 where it is one that must lie in 16 bytes. */
  bytes: number;
}

/** Memory as one vCPU's generated code sees it: what its translation tables do not answer comes here. */
export class Mmu {
  readonly #machine: MmuMachine;
  readonly #state: CpuState;
  readonly #access: Access;
  readonly #debug: DebugUnit;
  readonly translator: Translator;
  readonly contexts: TlbContexts;
  /** Behind ExitCode.DATA_ABORT and FETCH_ABORT. */
  readonly fault: Fault = { status: 0, lo: 0, hi: 0, isWrite: false, isMaintenance: false, bytes: 0 };
  /** The access behind ExitCode.MMIO crosses into a second page, so that no register can stand for what is at its address. */
  accessCrosses = false;
  /**
   * Every access must be aligned: SCTLR_EL1.A, or the MMU is off and all memory is Device-nGnRnE. Those that are not aligned to
   * their size do not go by the tables, so that each can be looked at.
   */
  #alignmentChecked = false;
  /** Alignment is not looked at: the instruction at PC, which is executed alone, was found to be within its rules. */
  #alignmentWaived = false;
  /** The same for the rule of atomic and ordered accesses, that they lie in an aligned 16 bytes. */
  #orderWaived = false;
  /** Loads are not watched: they are part of a store-exclusive, which architecturally only stores. */
  loadsUnwatched = false;
  #oneByOne = false;
  /** What {@link regimeSelected} was last done for. */
  #selectedLevel = -1;
  /** Puts {@link Access} to the host, where the vCPU's state is exact: the linear address of what was read, or 0 with EXIT set. */
  readonly #answer: () => number;

  /** @param area linear address of TLB_CONTEXTS_AREA bytes for the translation tables */
  constructor(
    machine: MmuMachine,
    state: CpuState,
    access: Access,
    debug: DebugUnit,
    area: number,
    answer: () => number,
  ) {
    this.#answer = answer;
    this.#machine = machine;
    this.#state = state;
    this.#access = access;
    this.#debug = debug;
    this.translator = new Translator(machine.physical, () => machine.views.u32);
    this.contexts = new TlbContexts(machine.views, area);
  }

  /** The translation tables in use. */
  get tlb(): Tlb {
    return this.contexts.current;
  }

  // What translations depend on.

  /** A register of the translation regime has changed. */
  regimeChanged(): void {
    const state = this.#state;
    const tcr = state.get64(SR.TCR_EL1.offset);
    this.translator.setRegime({
      enabled: state.sctlr(Sctlr.M),
      wxn: state.sctlr(Sctlr.WXN),
      epan: state.sctlr(Sctlr.EPAN),
      tcr: state.get32(Offset.PAUTH) === 0 ? tcr & ~TCR_TBID : tcr,
      ttbr0: state.get64(SR.TTBR0_EL1.offset),
      ttbr1: state.get64(SR.TTBR1_EL1.offset),
      mair: state.get64(SR.MAIR_EL1.offset),
    });
    this.#alignmentChecked = state.sctlr(Sctlr.A) || !state.sctlr(Sctlr.M);
    this.contexts.aligned = this.#alignmentChecked;
    this.contexts.select(this.#asid());
    this.regimeSelected();
  }

  /**
   * TTBR0_EL1 or TTBR1_EL1 has changed. Translations of the ASID stay, as they may in any TLB: who gives an ASID new tables
   * must invalidate it.
   */
  tablesChanged(): void {
    const state = this.#state;
    this.translator.setTables(state.get64(SR.TTBR0_EL1.offset), state.get64(SR.TTBR1_EL1.offset));
    this.contexts.select(this.#asid());
    this.regimeSelected();
  }

  /** The ASID in use: TCR_EL1.A1 says which TTBR has it, TCR_EL1.AS how many bits of it count. */
  #asid(): number {
    const state = this.#state;
    const tcr = state.get64(SR.TCR_EL1.offset);
    const ttbr = state.get64(((tcr >> 22n) & 1n) === 1n ? SR.TTBR1_EL1.offset : SR.TTBR0_EL1.offset);
    return this.asidOf(Number(ttbr >> 48n));
  }

  /** The bits of an ASID that count. */
  asidOf(asid: number): number {
    return ((this.#state.get64(SR.TCR_EL1.offset) >> 36n) & 1n) === 1n ? asid : asid & 0xff;
  }

  /** EL, PSTATE.PAN and UAO, each in a bit of its own. */
  #level(): number {
    const state = this.#state;
    return state.el | state.get32(Offset.PAN) | state.get32(Offset.UAO);
  }

  /** EL, PSTATE.PAN or UAO may have changed. Exceptions within EL1, and returns from them, mostly leave them as they are. */
  levelSelected(): void {
    if (this.#level() !== this.#selectedLevel) this.regimeSelected();
  }

  /** Points generated code at the tables for the EL, PSTATE.PAN and UAO of now, and tells it what is checked and trapped there. */
  regimeSelected(): void {
    const state = this.#state;
    const { tlb } = this;
    const { el } = state;
    this.#selectedLevel = this.#level();
    const regime = this.#regime(el === 0);
    state.set32(Offset.TLB_LOAD, tlb.loadTable(regime));
    state.set32(Offset.TLB_STORE, tlb.storeTable(regime));
    // LDTR and STTR act as EL0, unless PSTATE.UAO is set.
    const unprivileged = this.#regime(el === 0 || state.get32(Offset.UAO) === 0);
    state.set32(Offset.TLB_LOAD_EL0, tlb.loadTable(unprivileged));
    state.set32(Offset.TLB_STORE_EL0, tlb.storeTable(unprivileged));
    this.#fetchTablesSelected();
    const fpen = (state.get32(SR.CPACR_EL1.offset) >> 20) & 3;
    state.set32(Offset.FP_TRAP, fpen === 3 || (fpen === 1 && el === 1) ? 0 : 1);
    state.set32(Offset.ZVA_CHECKED, el === 0 || !state.sctlr(Sctlr.M) ? 1 : 0);
    state.set32(Offset.SP_MASK, state.sctlr(el === 0 ? Sctlr.SA0 : Sctlr.SA) ? 15 : 0);
  }

  #fetchTablesSelected(): void {
    const { tlb } = this;
    const { el } = this.#state;
    for (let btype = 0; btype < 4; btype++) {
      const table = this.#oneByOne ? this.#machine.step.emptyFetchTable : tlb.fetchTable(el, btype);
      this.#state.set32(Offset.TLB_FETCH + btype * 4, table);
    }
  }

  /** While set, generated code asks for every instruction. */
  set oneByOne(on: boolean) {
    this.#oneByOne = on;
    this.#fetchTablesSelected();
  }

  #regime(el0: boolean): TlbRegime {
    if (el0) return TlbRegime.EL0;
    return this.#state.get32(Offset.PAN) !== 0 ? TlbRegime.EL1_PAN : TlbRegime.EL1;
  }

  // Fetches.

  /** Fetch table miss. PC and BTYPE are in the state. Returns the address of its page's records, or 0 with EXIT set. */
  fetchMiss(): number {
    const state = this.#state;
    const { u32 } = this.#machine.views;
    const at = (state.base + Offset.PC) >>> 2;
    const lo = u32[at]!;
    const hi = u32[at + 1]!;
    if ((lo & 3) !== 0) return state.leave(ExitCode.PC_ALIGNMENT);
    const t = this.translator;
    if (t.ignoresTop(hi) && hi >> 24 !== (hi << 8) >> 31) {
      // A branch to a tagged address drops the tag (AArch64.BranchAddr).
      u32[at + 1] = (hi << 8) >> 8;
      return state.leave(ExitCode.REDIRECT);
    }
    const { el } = state;
    const { code, step, interpreter, physical } = this.#machine;
    const isBranch = state.get32(Offset.BTYPE) !== 0;
    if (isBranch && !this.#oneByOne) {
      // The page is not in the table of indirect branches, but may be known.
      const known = this.tlb.findFetch(el, lo, hi);
      if (known !== undefined) return this.#enter(known, lo, hi, code.isGuarded(known));
    }
    if (!t.walk(lo, hi, el === 0, true)) return this.#fetchAbort(t.status, lo, hi);
    const { result } = t;
    if (!(el === 0 ? result.execEl0 : result.execEl1))
      return this.#fetchAbort(FaultStatus.PERMISSION | result.level, lo, hi);
    if (!this.#recordUse(false)) return this.#fetchAbort(t.status, lo, hi);
    const region = physical.find(result.pa);
    if (region === undefined) return this.#fetchAbort(FaultStatus.EXTERNAL, lo, hi);
    if (!usePage(region, result.pa - region.base, false)) return this.#unresolved(result.pa);
    const { guarded } = result;
    const page = region.linear + (result.pa - region.base);
    const breaks = this.#debug.breaksInPage(lo, hi);
    if (breaks && this.#debug.breaksAt(lo, hi)) return this.#fetchAbort(FaultStatus.DEBUG, lo, hi);
    if (breaks || this.#oneByOne) {
      const word = u32[(page + (lo & 0xffc)) >>> 2]!;
      return this.#mayEnter(word, guarded) ? step.prepare(interpreter, word, guarded, lo) : 0;
    }
    this.#noteBlock(lo, hi);
    const slot = code.slotOf(page, guarded);
    if (guarded && !this.tlb.guarded) {
      this.tlb.guard();
      this.#fetchTablesSelected();
    }
    this.tlb.fillFetch(el, lo, hi, slot, 0);
    return isBranch ? this.#enter(slot, lo, hi, guarded) : slot;
  }

  /** An indirect branch comes to a page. @param slot address of its records */
  #enter(slot: number, lo: number, hi: number, guarded: boolean): number {
    const { code, views } = this.#machine;
    const state = this.#state;
    const btype = state.get32(Offset.BTYPE) >> 2;
    if (!guarded) this.tlb.fillFetch(state.el, lo, hi, slot, btype);
    else this.tlb.useFetchTable(state.el, btype);
    return this.#mayEnter(views.u32[(code.instructionAt(slot) + (lo & 0xffc)) >>> 2]!, guarded) ? slot : 0;
  }

  /** Whether the instruction at PC may be executed, with PSTATE.BTYPE as it is: if so, that is 0 from now on, else EXIT is set. */
  #mayEnter(word: number, guarded: boolean): boolean {
    const state = this.#state;
    const btype = state.get32(Offset.BTYPE) >> 2;
    // Their exceptions still say what BTYPE was; an illegal state comes before what the instruction is.
    if (btype === 0 || state.illegal || isBreak(word)) return true;
    const strict = state.sctlr(state.el === 0 ? Sctlr.BT0 : Sctlr.BT1);
    if (guarded && !isLandingPad(word, btype, strict)) {
      state.leave(ExitCode.BRANCH_TARGET);
      return false;
    }
    state.set32(Offset.BTYPE, 0);
    return true;
  }

  /** At a BRK: sets PSTATE.BTYPE to what it was, which is no longer in the state where generated code found the page by itself. */
  recoverBranchType(): void {
    const state = this.#state;
    const { u32 } = this.#machine.views;
    const at = (state.base + Offset.PC) >>> 2;
    const lo = u32[at]!;
    const fetched = state.get32(Offset.FETCHED);
    const slot = this.tlb.findFetch(state.el, lo, u32[at + 1]!, (fetched >> 2) & 3);
    if (slot !== undefined && fetched >>> RECORD_SHIFT === (slot >>> RECORD_SHIFT) + ((lo & 0xffc) >> 2))
      state.set32(Offset.BTYPE, fetched & 0b1100);
  }

  #noteBlock(lo: number, hi: number): void {
    const { level } = this.translator.result;
    // Level 0 is the MMU off.
    if (level !== 0 && level < 3) this.tlb.noteBlock(lo, hi, level, this.translator.granule(hi));
  }

  #fetchAbort(status: number, lo: number, hi: number): 0 {
    if (status === FaultStatus.UNRESOLVED) return this.#unresolved(this.translator.unresolved);
    this.#setFault(status, lo, hi, false, false);
    return this.#state.leave(ExitCode.FETCH_ABORT);
  }

  /** The instruction at PC, which is the one that generated code left at; 0, which is UNDEFINED, where it can't be read any more. */
  currentWord(): number {
    const { u32 } = this.#machine.views;
    const at = (this.#state.base + Offset.PC) >>> 2;
    const lo = u32[at]!;
    const hi = u32[at + 1]!;
    const { el } = this.#state;
    // The table has what was executed, even if the page tables say something else by now.
    const slot = this.tlb.findFetch(el, lo, hi);
    if (slot !== undefined) return u32[(this.#machine.code.instructionAt(slot) + (lo & 0xffc)) >>> 2]!;
    if (!this.translator.walk(lo, hi, el === 0, true)) return 0;
    const { pa } = this.translator.result;
    const region = this.#machine.physical.find(pa);
    return region === undefined ? 0 : u32[(region.linear + (pa - region.base) + (lo & 0xffc)) >>> 2]!;
  }

  // Loads and stores.

  /** Load table miss: the linear address to load from, or 0 with EXIT set. @param info bytes, with UNPRIVILEGED or EXACT */
  loadMiss(lo: number, hi: number, info: number): number {
    if (info >= EXACT) return this.#exactMiss(lo, hi, info & SIZE_MASK, false);
    const bytes = info & SIZE_MASK;
    const offset = lo & 0xfff;
    this.accessCrosses = offset + bytes > PAGE;
    const first = this.#dataPage(lo, hi, lo, bytes, false, info > SIZE_MASK);
    if (first === 0) return 0;
    if (!this.accessCrosses) return first + offset;
    // Two pages: put the value together in SCRATCH.
    const [lo2, hi2] = nextPage(lo, hi);
    const second = this.#dataPage(lo2, hi2, lo, bytes, false, info > SIZE_MASK);
    if (second === 0) return 0;
    const { u8 } = this.#machine.views;
    const split = PAGE - offset;
    const scratch = this.#state.base + Offset.SCRATCH;
    u8.copyWithin(scratch, first + offset, first + PAGE);
    u8.copyWithin(scratch + split, second, second + bytes - split);
    return scratch;
  }

  /** Store table miss, with the value in SCRATCH: the linear address to store to (SCRATCH if the store is done), or 0 with EXIT set. */
  storeMiss(lo: number, hi: number, info: number): number {
    if (info >= EXACT) return this.#exactMiss(lo, hi, info & SIZE_MASK, true);
    const bytes = info & SIZE_MASK;
    const offset = lo & 0xfff;
    this.accessCrosses = offset + bytes > PAGE;
    const first = this.#dataPage(lo, hi, lo, bytes, true, info > SIZE_MASK);
    if (first === 0) return 0;
    if (!this.accessCrosses) return first + offset;
    const [lo2, hi2] = nextPage(lo, hi);
    const second = this.#dataPage(lo2, hi2, lo, bytes, true, info > SIZE_MASK);
    if (second === 0) return 0;
    const { u8 } = this.#machine.views;
    const split = PAGE - offset;
    const scratch = this.#state.base + Offset.SCRATCH;
    u8.copyWithin(first + offset, scratch, scratch + split);
    u8.copyWithin(second, scratch + split, scratch + bytes);
    return scratch;
  }

  /** A miss of what may be a device's register; the vCPU's state is exact, so that the device can be asked now. */
  #exactMiss(lo: number, hi: number, bytes: number, isWrite: boolean): number {
    const state = this.#state;
    if ((lo & (bytes - 1)) === 0) {
      const pa = this.tlb.devices.find(this.#regime(state.el === 0), isWrite, lo, hi);
      if (pa >= 0) {
        this.accessCrosses = false;
        this.#setAccess(pa, lo, hi, bytes, isWrite);
        return this.#answer();
      }
    }
    const at = isWrite ? this.storeMiss(lo, hi, bytes) : this.loadMiss(lo, hi, bytes);
    if (at !== 0 || state.get32(Offset.EXIT) !== ExitCode.MMIO) return at;
    state.set32(Offset.EXIT, ExitCode.NONE);
    return this.#answer();
  }

  /** The instruction at PC is an access to a device: it is worth preparing for. */
  noteDeviceAccess(): void {
    const { u32 } = this.#machine.views;
    const at = (this.#state.base + Offset.PC) >>> 2;
    const slot = this.tlb.findFetch(this.#state.el, u32[at]!, u32[at + 1]!);
    if (slot !== undefined) this.#machine.code.accessesDevice(slot + ((u32[at]! & 0xffc) << 2));
  }

  /**
   * The linear address of the page that a data access goes to, and its table entry filled in; 0 after EXIT was set.
   * @param start low half of the address of the whole access
   */
  #dataPage(lo: number, hi: number, start: number, bytes: number, isWrite: boolean, unprivileged: boolean): number {
    const state = this.#state;
    const misaligned = (start & (bytes - 1)) !== 0 && !this.#alignmentWaived;
    // Where the access is in its second page, it began in the first.
    const startHi = lo === 0 && start !== 0 ? (hi - 1) | 0 : hi;
    if (misaligned && this.#alignmentChecked) return this.#maybeMisaligned(start, startHi, bytes, isWrite);
    const el0 = state.el === 0 || (unprivileged && state.get32(Offset.UAO) === 0);
    // An aligned element is in order whatever the page's attributes are; DC ZVA and pairs have to be looked at.
    const isElement = bytes <= 8 && (start & (bytes - 1)) === 0;
    if (isElement) {
      const pa = this.tlb.devices.find(this.#regime(el0), isWrite, lo, hi);
      if (pa >= 0) return this.#mmio(pa, lo, hi, bytes, isWrite);
    }
    const t = this.translator;
    if (!t.walk(lo, hi, el0)) return this.dataAbort(t.status, lo, hi, isWrite);
    const { result } = t;
    const pan = !el0 && result.isUser && state.get32(Offset.PAN) !== 0;
    const mayRead = el0 ? result.readEl0 : result.readEl1 && !pan;
    const mayWrite = el0 ? result.writeEl0 : result.writeEl1 && !pan;
    if (!(isWrite ? mayWrite : mayRead)) return this.dataAbort(FaultStatus.PERMISSION | result.level, lo, hi, isWrite);
    const { pa, device } = result;
    if (device && (misaligned || (mayBeZeroing(lo, bytes, isWrite) && !this.#alignmentWaived)))
      return this.#maybeMisaligned(start, startHi, bytes, isWrite);
    if (!this.#recordUse(isWrite)) return this.dataAbort(t.status, lo, hi, isWrite);
    // A watchpoint comes before what is not memory, so that devices do not see the access.
    const watched = this.#debug.watchesPage(lo, hi);
    if (watched) {
      const size = lo === start ? Math.min(bytes, PAGE - (lo & 0xfff)) : (start + bytes) & 0xfff;
      if (this.#watchpoint(lo, hi, size, isWrite, el0)) return 0;
    }
    const machine = this.#machine;
    const region = machine.physical.find(pa);
    if (region === undefined || (isWrite && region.readonly)) {
      if (isElement && !watched) {
        if (result.level !== 3) this.#noteBlock(lo, hi);
        this.tlb.devices.fill(this.#regime(el0), isWrite, lo, hi, pa);
      }
      return this.#mmio(pa, lo, hi, bytes, isWrite);
    }
    const offset = pa - region.base;
    if (!usePage(region, offset, isWrite)) return this.#unresolved(pa);
    const page = region.linear + offset;
    if (isWrite) this.#noteStore(region, offset);
    // What must be looked at each time has no table entry.
    if (!device && !watched) {
      if (result.level !== 3) this.#noteBlock(lo, hi);
      this.tlb.fillData(this.#regime(el0), isWrite, lo, hi, page);
    }
    return page;
  }

  /** A page of RAM is about to be stored to. @param offset of the page in the region */
  #noteStore(region: RamRegion, offset: number): void {
    const { code } = this.#machine;
    const page = region.linear + offset;
    if (code.tracks(page)) code.written(page);
    const { clean } = region;
    if (clean !== undefined && clean[offset / PAGE] === 1) {
      clean[offset / PAGE] = 0;
      region.onDirty?.((region.base + offset) / PAGE);
    }
  }

  /**
   * Sets the access flag, and for a store the dirty state, in the descriptor of the last walk, where the hardware manages them
   * (FEAT_HAFDBS). @returns `false` where the table is in memory that can't be written: the translator's status says why
   */
  #recordUse(isWrite: boolean): boolean {
    const t = this.translator;
    const { table, descriptor, afterAccess, afterStore, level } = t.result;
    if (table === undefined) return true;
    const { u32 } = this.#machine.views;
    const updated = (isWrite ? afterStore : afterAccess) >>> 0;
    if (u32[descriptor >>> 2] === updated) return true;
    if (table.readonly) {
      t.status = FaultStatus.EXTERNAL_WALK | level;
      return false;
    }
    const offset = descriptor - table.linear;
    if (!usePage(table, offset, true)) {
      t.status = FaultStatus.UNRESOLVED;
      t.unresolved = table.base + offset;
      return false;
    }
    this.#noteStore(table, offset - (offset % PAGE));
    u32[descriptor >>> 2] = updated;
    return true;
  }

  /** Whether an access takes a Watchpoint exception. */
  #watchpoint(lo: number, hi: number, size: number, isWrite: boolean, el0: boolean): boolean {
    if (this.loadsUnwatched && !isWrite) return false;
    const at = this.#debug.watches(lo, hi, size, isWrite, el0);
    // The access does not leave its page, so the sum does not leave the low half.
    if (at >= 0) this.dataAbort(FaultStatus.DEBUG, lo + at, hi, isWrite);
    return at >= 0;
  }

  /** Whether every access to the page must be looked at. */
  isWatched(lo: number, hi: number): boolean {
    return this.#debug.watchesPage(lo, hi);
  }

  /** DC IVAC is watched as a store to its whole line. */
  watchInvalidation(lo: number, hi: number): void {
    const line = lo & -CACHE_LINE;
    if (this.#debug.watches(line, hi, CACHE_LINE, true, this.#state.el === 0) >= 0)
      this.maintenanceAbort(FaultStatus.DEBUG, lo, hi);
  }

  /**
   * Generated code does not say which instruction it is in the middle of. So what may be misaligned leaves it, and
   * {@link isAlignmentFault} looks at the instruction then.
   */
  #maybeMisaligned(lo: number, hi: number, bytes: number, isWrite: boolean): 0 {
    this.#setFault(FaultStatus.ALIGNMENT, lo, hi, isWrite, false);
    this.fault.bytes = bytes;
    return this.#state.leave(ExitCode.DATA_ABORT);
  }

  /** An atomic or ordered access does not lie in an aligned 16 bytes. */
  alignmentFault(va: bigint, isWrite: boolean): void {
    if (!this.#alignmentWaived && !this.#orderWaived)
      this.#maybeMisaligned(Number(va & 0xffff_ffffn), Number((va >> 32n) & 0xffff_ffffn), 0, isWrite);
  }

  /** Whether the alignment fault in {@link fault} is one for the instruction at PC; if not, {@link waiveAlignment} and execute it. */
  isAlignmentFault(): boolean {
    const { bytes, lo } = this.fault;
    const word = this.currentWord();
    if (bytes === 0) return this.#alignmentChecked || !(this.#state.sctlr(Sctlr.nAA) && isOrdered(word));
    return isZeroing(word) || (lo & (alignmentOf(word, bytes) - 1)) !== 0;
  }

  /** The next instruction is to be executed alone: see {@link waiveAlignment}. */
  get waives(): boolean {
    return this.#alignmentWaived || this.#orderWaived;
  }

  /** The instruction at PC was found to be within the rule that it seemed to break. Until {@link endWaiver}, that is not looked at. */
  waiveAlignment(): void {
    if (this.fault.bytes === 0) this.#orderWaived = true;
    else this.#alignmentWaived = true;
  }

  /** Alignment is looked at again. */
  endWaiver(): void {
    this.#alignmentWaived = false;
    this.#orderWaived = false;
  }

  #mmio(pa: number, lo: number, hi: number, bytes: number, isWrite: boolean): 0 {
    this.#setAccess(integer(pa), lo, hi, bytes, isWrite);
    return this.#state.leave(ExitCode.MMIO);
  }

  /** @param pa the guest-physical page */
  #setAccess(pa: number, lo: number, hi: number, bytes: number, isWrite: boolean): void {
    const a = this.#access;
    a.ipa = pa + (lo & 0xfff);
    a.vaLo = lo;
    a.vaHi = hi;
    a.size = bytes;
    a.isWrite = isWrite;
  }

  /** A page of RAM may not be used: nothing that the guest hears of. */
  #unresolved(pa: number): 0 {
    this.#access.ipa = pa - (pa % PAGE);
    return this.#state.leave(ExitCode.MEMORY_FAULT);
  }

  #setFault(status: number, lo: number, hi: number, isWrite: boolean, isMaintenance: boolean): void {
    const f = this.fault;
    f.status = status;
    f.lo = lo;
    f.hi = hi;
    f.isWrite = isWrite;
    f.isMaintenance = isMaintenance;
  }

  dataAbort(status: number, lo: number, hi: number, isWrite: boolean): 0 {
    if (status === FaultStatus.UNRESOLVED) return this.#unresolved(this.translator.unresolved);
    this.#setFault(status, lo, hi, isWrite, false);
    return this.#state.leave(ExitCode.DATA_ABORT);
  }

  /** A fault of cache maintenance or address translation by address, which counts as a write. */
  maintenanceAbort(status: number, lo: number, hi: number): void {
    if (status === FaultStatus.UNRESOLVED) {
      this.#unresolved(this.translator.unresolved);
      return;
    }
    this.#setFault(status, lo, hi, true, true);
    this.#state.leave(ExitCode.DATA_ABORT);
  }
}

/** The first of the stores of DC ZVA, which Device memory does not allow. */
const mayBeZeroing = (lo: number, bytes: number, isWrite: boolean): boolean =>
  isWrite && bytes === 16 && (lo & 63) === 0;

function nextPage(lo: number, hi: number): [number, number] {
  const next = ((lo & ~0xfff) + PAGE) >>> 0;
  return [next | 0, next === 0 ? (hi + 1) | 0 : hi];
}
