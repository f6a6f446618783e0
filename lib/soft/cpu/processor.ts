import { sysregIndex } from '../../kvm/registers.js';
import { fieldsOf } from '../a64/row.js';
import { FETCH_ENTRIES } from '../jit/interpreter.js';
import { TLB_ENTRIES, TLB_INDEX_MASK, TLB_INDEX_SHIFT } from '../jit/lower.js';
import { FaultStatus, Translator } from '../mmu/translate.js';
import { type Cpu, type CpuAccess, type CpuHost, CpuStop } from './cpu.js';
import { ExitCode, Offset, STATE, STATE_SIZE } from './layout.js';
import type { SoftMachine } from './machine.js';
import { PSEUDO, SR, SYSREGS, sysregByIndex } from './sysregs.js';

const DATA_TABLE = TLB_ENTRIES * 16;
const FETCH_TABLE = FETCH_ENTRIES * 16;
/** Translation regimes that have tables of their own: EL0, EL1 with PSTATE.PAN, EL1 without. */
const REGIMES = 3;
/** Bytes of a vCPU's translation tables: a load and a store table a regime, a fetch table an EL. */
export const TLB_AREA = REGIMES * 2 * DATA_TABLE + 2 * FETCH_TABLE;
const FETCH_INDEX_MASK = (FETCH_ENTRIES - 1) << 4;

/** ESR_ELx.EC (Arm ARM DDI 0487 D24.2.37). */
export const ExceptionClass = {
  UNKNOWN: 0x00,
  WFX: 0x01,
  FP: 0x07,
  ILLEGAL_STATE: 0x0e,
  SVC64: 0x15,
  SYSREG: 0x18,
  INSTRUCTION_ABORT_LOWER: 0x20,
  INSTRUCTION_ABORT: 0x21,
  PC_ALIGNMENT: 0x22,
  DATA_ABORT_LOWER: 0x24,
  DATA_ABORT: 0x25,
  SP_ALIGNMENT: 0x26,
  SERROR: 0x2f,
  BRK64: 0x3c,
} as const;

/** Vector offsets for the kind of exception. */
const Vector = { SYNC: 0, IRQ: 0x80, FIQ: 0x100, SERROR: 0x180 } as const;

const SCTLR = { M: 1n << 0n, UMA: 1n << 9n, DZE: 1n << 14n, UCT: 1n << 15n, nTWI: 1n << 16n, nTWE: 1n << 18n, WXN: 1n << 19n, SPAN: 1n << 23n, UCI: 1n << 26n, DSSBS: 1n << 44n } as const;

const DAIF = { D: 1 << 9, A: 1 << 8, I: 1 << 7, F: 1 << 6, ALL: 0x3c0 } as const;
const IL = 1 << 20;
const PAN = 1 << 22;
const UAO = 1 << 23;
const DIT = 1 << 24;
const SSBS = 1 << 12;

/** One vCPU's registers, exceptions and translations. Its state is at STATE while it is the one that runs, else in its own area. */
export class Processor implements Cpu {
  readonly #machine: SoftMachine;
  readonly #host: CpuHost;
  /** Where the state rests and, after it, the translation tables. */
  readonly area: number;
  /** Where the state is now. */
  base: number;
  readonly #tables: number;
  readonly #translator: Translator;
  readonly access: CpuAccess = { ipa: 0, va: 0n, isWrite: false, isv: false, size: 0, signExtend: false, sf: false, srt: 0, value: 0n, isFetch: false };
  hvcImmediate = 0;
  #retired = 0;
  #given = 0;
  #stolen = 0;
  #irq = false;
  #fiq = false;
  #serror: bigint | undefined;
  #running = false;
  /** What a DATA_ABORT or FETCH_ABORT exit is about. */
  #faultStatus = 0;
  #faultLo = 0;
  #faultHi = 0;
  #faultWrite = false;
  #faultCacheMaintenance = false;
  /** 2 MiB pieces of the address space that are mapped by blocks: invalidating one of their pages must take the whole block. */
  readonly #blocks = new Set<number>();
  #wideGranule = false;

  constructor(machine: SoftMachine, host: CpuHost, area: number) {
    this.#machine = machine;
    this.#host = host;
    this.area = area;
    this.base = area;
    this.#tables = area + STATE_SIZE;
    this.#translator = new Translator(machine.physical, () => machine.views.u32);
    for (const r of SYSREGS) if (r.access === 'constant' || r.name === 'CTR_EL0' || r.name === 'DCZID_EL0') this.#set64(r.offset, r.reset);
    this.reset();
  }

  // State words.

  #get32(offset: number): number {
    return this.#machine.views.i32[(this.base + offset) >> 2]!;
  }
  #set32(offset: number, value: number): void {
    this.#machine.views.i32[(this.base + offset) >> 2] = value;
  }
  #get64(offset: number): bigint {
    return this.#machine.views.u64[(this.base + offset) >> 3]!;
  }
  #set64(offset: number, value: bigint): void {
    this.#machine.views.u64[(this.base + offset) >> 3] = value;
  }

  // Reset.

  reset(): void {
    const { u8 } = this.#machine.views;
    const kept = SYSREGS.filter((r) => r.access === 'constant' || r === SR.CTR_EL0 || r === SR.DCZID_EL0).map((r) => [r.offset, this.#get64(r.offset)] as const);
    u8.fill(0, this.base, this.base + STATE_SIZE);
    for (const r of SYSREGS) this.#set64(r.offset, r.reset);
    for (const [offset, value] of kept) this.#set64(offset, value);
    this.#set64(Offset.MONITOR_ADDRESS, 0xffff_ffff_ffff_ffffn);
    this.#irq = false;
    this.#fiq = false;
    this.#serror = undefined;
    this.setPstate(0x3c5n);
    this.#regimeChanged();
  }

  // Registers.

  getX(n: number): bigint {
    return this.#get64(Offset.X + n * 8);
  }
  setX(n: number, value: bigint): void {
    this.#set64(Offset.X + n * 8, value);
  }
  getPc(): bigint {
    return this.#get64(Offset.PC);
  }
  setPc(value: bigint): void {
    this.#set64(Offset.PC, value);
  }
  getV(n: number): bigint {
    const at = Offset.V0 + n * 16;
    return this.#get64(at) | (this.#get64(at + 8) << 64n);
  }
  setV(n: number, value: bigint): void {
    const at = Offset.V0 + n * 16;
    this.#set64(at, BigInt.asUintN(64, value));
    this.#set64(at + 8, BigInt.asUintN(64, value >> 64n));
  }

  getPstate(): bigint {
    const { i64 } = this.#machine.views;
    const at = (offset: number): bigint => i64[(this.base + offset) >> 3]!;
    let nzcv = 0;
    if (at(Offset.N) < 0n) nzcv |= 8;
    if (at(Offset.Z) === 0n) nzcv |= 4;
    if (this.#get32(Offset.C) !== 0) nzcv |= 2;
    if (at(Offset.V) < 0n) nzcv |= 1;
    const el = this.#get32(Offset.EL);
    const low =
      (el << 2) | this.#get32(Offset.SPSEL) | this.#get32(Offset.DAIF) | this.#get32(Offset.PAN) | this.#get32(Offset.UAO) | this.#get32(Offset.DIT) | this.#get32(Offset.SSBS);
    return BigInt(((nzcv << 28) | low) >>> 0);
  }

  setPstate(value: bigint): void {
    const bits = Number(value & 0xffff_ffffn);
    this.#bankSp();
    this.#set64(Offset.N, bits & 0x8000_0000 ? 1n << 63n : 0n);
    this.#set64(Offset.Z, bits & 0x4000_0000 ? 0n : 1n);
    this.#set32(Offset.C, (bits >>> 29) & 1);
    this.#set64(Offset.V, bits & 0x1000_0000 ? 1n << 63n : 0n);
    this.#set32(Offset.DAIF, bits & DAIF.ALL);
    this.#set32(Offset.PAN, bits & PAN);
    this.#set32(Offset.UAO, bits & UAO);
    this.#set32(Offset.DIT, bits & DIT);
    this.#set32(Offset.SSBS, bits & SSBS);
    this.#set32(Offset.EL, (bits >> 2) & 1);
    this.#set32(Offset.SPSEL, bits & 1);
    this.#unbankSp();
    this.#regimeSelected();
  }

  /** Where the stack pointer in use is kept while another is in use. */
  #spBank(): number {
    return this.#get32(Offset.SPSEL) !== 0 ? SR.SP_EL1.offset : SR.SP_EL0.offset;
  }
  #bankSp(): void {
    this.#set64(this.#spBank(), this.#get64(Offset.SP));
  }
  #unbankSp(): void {
    this.#set64(Offset.SP, this.#get64(this.#spBank()));
  }

  getSpEl1(): bigint {
    return this.#get32(Offset.SPSEL) !== 0 ? this.#get64(Offset.SP) : this.#get64(SR.SP_EL1.offset);
  }
  setSpEl1(value: bigint): void {
    this.#set64(this.#get32(Offset.SPSEL) !== 0 ? Offset.SP : SR.SP_EL1.offset, value);
  }

  sysregs(): readonly number[] {
    return [...SYSREGS.map((r) => r.index), PSEUDO.FPCR, PSEUDO.FPSR];
  }

  getSysreg(index: number): bigint | undefined {
    if (index === PSEUDO.FPCR) return BigInt(this.#get32(Offset.FPCR) >>> 0);
    if (index === PSEUDO.FPSR) return BigInt(this.#get32(Offset.FPSR) >>> 0);
    const reg = sysregByIndex(index);
    if (reg === undefined) return undefined;
    if (reg === SR.SP_EL0 && this.#get32(Offset.SPSEL) === 0) return this.#get64(Offset.SP);
    if (reg === SR.SP_EL1) return this.getSpEl1();
    if (reg === SR.CCSIDR_EL1) return this.#ccsidr();
    return this.#get64(reg.offset);
  }

  setSysreg(index: number, value: bigint): boolean {
    if (index === PSEUDO.FPCR) this.#set32(Offset.FPCR, Number(BigInt.asIntN(32, value & FPCR_MASK)));
    else if (index === PSEUDO.FPSR) this.#set32(Offset.FPSR, Number(BigInt.asIntN(32, value & FPSR_MASK)));
    else {
      const reg = sysregByIndex(index);
      if (reg === undefined) return false;
      if (reg === SR.SP_EL0 && this.#get32(Offset.SPSEL) === 0) this.#set64(Offset.SP, value);
      else if (reg === SR.SP_EL1) this.setSpEl1(value);
      else {
        this.#set64(reg.offset, value);
        this.#sysregChanged(index);
      }
    }
    return true;
  }

  #sysregChanged(index: number): void {
    switch (index) {
      case SR.SCTLR_EL1.index:
      case SR.TCR_EL1.index:
      case SR.TTBR0_EL1.index:
      case SR.TTBR1_EL1.index:
        this.#regimeChanged();
        return;
      case SR.CPACR_EL1.index:
        this.#regimeSelected();
        return;
      default:
    }
  }

  #ccsidr(): bigint {
    // Geometry by level and kind, as CSSELR_EL1 selects: 32 KiB L1 data, 48 KiB L1 instruction, 1 MiB unified L2.
    switch (this.#get64(SR.CSSELR_EL1.offset) & 0xfn) {
      case 0n:
        return 0x701f_e00an;
      case 1n:
        return 0x201f_e012n;
      case 2n:
        return 0x703f_e07an;
      default:
        return 0n;
    }
  }

  // Translation.

  /** Registers that translations depend on have changed. */
  #regimeChanged(): void {
    const sctlr = this.#get64(SR.SCTLR_EL1.offset);
    const tcr = this.#get64(SR.TCR_EL1.offset);
    this.#translator.setRegime({
      enabled: (sctlr & SCTLR.M) !== 0n,
      wxn: (sctlr & SCTLR.WXN) !== 0n,
      tcr,
      ttbr0: this.#get64(SR.TTBR0_EL1.offset),
      ttbr1: this.#get64(SR.TTBR1_EL1.offset),
      mair: this.#get64(SR.MAIR_EL1.offset),
    });
    this.#wideGranule = ((tcr >> 14n) & 3n) !== 0n || ((tcr >> 30n) & 3n) !== 2n;
    this.flushTlb();
    this.#regimeSelected();
  }

  /** Points generated code at the tables for the EL and PSTATE.PAN of now. */
  #regimeSelected(): void {
    const el = this.#get32(Offset.EL);
    const load = (regime: number): number => this.#tables + regime * 2 * DATA_TABLE;
    const regime = el === 0 ? 0 : this.#get32(Offset.PAN) !== 0 ? 1 : 2;
    this.#set32(Offset.TLB_LOAD, load(regime));
    this.#set32(Offset.TLB_STORE, load(regime) + DATA_TABLE);
    // LDTR and STTR act as EL0, unless PSTATE.UAO is set.
    const unprivileged = el === 1 && this.#get32(Offset.UAO) !== 0 ? regime : 0;
    this.#set32(Offset.TLB_LOAD_EL0, load(unprivileged));
    this.#set32(Offset.TLB_STORE_EL0, load(unprivileged) + DATA_TABLE);
    this.#set32(Offset.TLB_FETCH, this.#fetchTable(el));
    const fpen = Number((this.#get64(SR.CPACR_EL1.offset) >> 20n) & 3n);
    this.#set32(Offset.FP_TRAP, fpen === 3 || (fpen === 1 && el === 1) ? 0 : 1);
  }

  #fetchTable(el: number): number {
    return this.#tables + REGIMES * 2 * DATA_TABLE + el * FETCH_TABLE;
  }

  /** Forgets every translation. */
  flushTlb(): void {
    this.#machine.views.u8.fill(0xff, this.#tables, this.#tables + TLB_AREA);
    this.#blocks.clear();
  }

  /** Forgets the translations of one page, by virtual address bits 55..12. */
  #flushPage(lo: number, hi: number): void {
    if (this.#wideGranule || this.#blocks.has(blockKey(lo, hi))) {
      this.flushTlb();
      return;
    }
    const { i32 } = this.#machine.views;
    const data = (lo >>> TLB_INDEX_SHIFT) & TLB_INDEX_MASK;
    for (let table = 0; table < REGIMES * 2; table++) {
      const at = (this.#tables + table * DATA_TABLE + data) >> 2;
      i32[at] = -1;
      i32[at + 1] = -1;
    }
    const fetch = (lo >>> 8) & FETCH_INDEX_MASK;
    for (let el = 0; el < 2; el++) {
      const at = (this.#fetchTable(el) + fetch) >> 2;
      i32[at] = -1;
      i32[at + 1] = -1;
    }
  }

  /** Forgets every translation through which a page of RAM could be stored to. */
  forgetStores(page: number): void {
    const { i32 } = this.#machine.views;
    for (let regime = 0; regime < REGIMES; regime++) {
      const table = (this.#tables + regime * 2 * DATA_TABLE + DATA_TABLE) >> 2;
      for (let at = table; at < table + TLB_ENTRIES * 4; at += 4) {
        if (i32[at + 3] === page) {
          i32[at] = -1;
          i32[at + 1] = -1;
          i32[at + 3] = -1;
        }
      }
    }
  }

  /** Fetch table miss: PC is in the state. */
  fetchMiss(): number {
    const { u32, i32 } = this.#machine.views;
    const lo = u32[(STATE + Offset.PC) >> 2]!;
    const hi = u32[(STATE + Offset.PC + 4) >> 2]!;
    if ((lo & 3) !== 0) return this.#leave(ExitCode.PC_ALIGNMENT);
    const el = this.#get32(Offset.EL);
    const t = this.#translator;
    if (!t.walk(lo, hi, el === 0)) return this.#fetchAbort(t.status, lo, hi);
    const { result } = t;
    if (!(el === 0 ? result.execEl0 : result.execEl1)) return this.#fetchAbort(FaultStatus.PERMISSION | result.level, lo, hi);
    const region = this.#machine.physical.find(result.pa);
    if (region === undefined) return this.#fetchAbort(FaultStatus.EXTERNAL, lo, hi);
    this.#noteBlock(lo, hi);
    const slot = this.#machine.code.slotOf(region.linear + (result.pa - region.base));
    const at = (this.#fetchTable(el) + ((lo >>> 8) & FETCH_INDEX_MASK)) >> 2;
    i32[at] = lo & ~0xfff;
    i32[at + 1] = hi;
    i32[at + 2] = slot;
    return slot;
  }

  #noteBlock(lo: number, hi: number): void {
    const { level } = this.#translator.result;
    if (level !== 0 && level < 3) this.#blocks.add(blockKey(lo, hi));
  }

  #leave(code: number): 0 {
    this.#set32(Offset.EXIT, code);
    return 0;
  }

  #fetchAbort(status: number, lo: number, hi: number): 0 {
    this.#faultStatus = status;
    this.#faultLo = lo;
    this.#faultHi = hi;
    return this.#leave(ExitCode.FETCH_ABORT);
  }

  #dataAbort(status: number, lo: number, hi: number, write: boolean): 0 {
    this.#faultStatus = status;
    this.#faultLo = lo;
    this.#faultHi = hi;
    this.#faultWrite = write;
    this.#faultCacheMaintenance = false;
    return this.#leave(ExitCode.DATA_ABORT);
  }

  loadMiss(lo: number, hi: number, info: number): number {
    const bytes = info & 0xff;
    const offset = lo & 0xfff;
    if (offset + bytes <= 4096) {
      const page = this.#dataPage(lo, hi, bytes, false, info > 0xff);
      return page === 0 ? 0 : page + offset;
    }
    // Two pages: put the value together in SCRATCH.
    const first = this.#dataPage(lo, hi, bytes, false, info > 0xff);
    if (first === 0) return 0;
    const [lo2, hi2] = nextPage(lo, hi);
    const second = this.#dataPage(lo2, hi2, bytes, false, info > 0xff);
    if (second === 0) return 0;
    const { u8 } = this.#machine.views;
    const split = 4096 - offset;
    const scratch = STATE + Offset.SCRATCH;
    u8.copyWithin(scratch, first + offset, first + 4096);
    u8.copyWithin(scratch + split, second, second + bytes - split);
    return scratch;
  }

  storeMiss(lo: number, hi: number, info: number): number {
    const bytes = info & 0xff;
    const offset = lo & 0xfff;
    const scratch = STATE + Offset.SCRATCH;
    if (offset + bytes <= 4096) {
      const page = this.#dataPage(lo, hi, bytes, true, info > 0xff);
      return page === 0 ? 0 : page + offset;
    }
    const first = this.#dataPage(lo, hi, bytes, true, info > 0xff);
    if (first === 0) return 0;
    const [lo2, hi2] = nextPage(lo, hi);
    const second = this.#dataPage(lo2, hi2, bytes, true, info > 0xff);
    if (second === 0) return 0;
    const { u8 } = this.#machine.views;
    const split = 4096 - offset;
    u8.copyWithin(first + offset, scratch, scratch + split);
    u8.copyWithin(second, scratch + split, scratch + bytes);
    return scratch;
  }

  /** The linear address of the page that a data access goes to, and its table entry filled in; 0 after EXIT was set. */
  #dataPage(lo: number, hi: number, bytes: number, write: boolean, unprivileged: boolean): number {
    const el = this.#get32(Offset.EL);
    const el0 = el === 0 || (unprivileged && this.#get32(Offset.UAO) === 0);
    const t = this.#translator;
    if (!t.walk(lo, hi, el0)) return this.#dataAbort(t.status, lo, hi, write);
    const { result } = t;
    const pan = !el0 && this.#get32(Offset.PAN) !== 0 && result.readEl0;
    const mayRead = el0 ? result.readEl0 : result.readEl1 && !pan;
    const mayWrite = el0 ? result.writeEl0 : result.writeEl1 && !pan;
    if (!(write ? mayWrite : mayRead)) return this.#dataAbort(FaultStatus.PERMISSION | result.level, lo, hi, write);
    const machine = this.#machine;
    const region = machine.physical.find(result.pa);
    if (region === undefined || (write && region.readonly)) return this.#mmio(lo, hi, bytes, write);
    const offset = result.pa - region.base;
    const page = region.linear + offset;
    if (write) {
      if (machine.code.tracks(page)) machine.code.written(page);
      const clean = region.clean;
      if (clean !== undefined && clean[offset / 4096] === 1) {
        clean[offset / 4096] = 0;
        region.onDirty?.(result.pa / 4096);
      }
    }
    this.#noteBlock(lo, hi);
    const { i32 } = machine.views;
    const regime = el0 ? 0 : this.#get32(Offset.PAN) !== 0 ? 1 : 2;
    const at = (this.#tables + regime * 2 * DATA_TABLE + (write ? DATA_TABLE : 0) + ((lo >>> TLB_INDEX_SHIFT) & TLB_INDEX_MASK)) >> 2;
    i32[at] = lo & ~0xfff;
    i32[at + 1] = hi;
    i32[at + 2] = (page - (lo & ~0xfff)) | 0;
    i32[at + 3] = page;
    return page;
  }

  #mmio(lo: number, hi: number, bytes: number, write: boolean): 0 {
    const a = this.access;
    a.ipa = this.#translator.result.pa + (lo & 0xfff);
    a.va = (BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0);
    a.size = bytes;
    a.isWrite = write;
    a.isFetch = false;
    return this.#leave(ExitCode.MMIO);
  }

  /** Fills in the syndrome of {@link access} from the instruction at PC. */
  #describeAccess(): void {
    const a = this.access;
    const word = this.#currentWord();
    const row = word === undefined ? undefined : this.#machine.decoder.decode(word);
    const syndrome = row?.syndrome === undefined ? undefined : row.syndrome(fieldsOf(row, word!));
    if (syndrome === undefined) {
      a.isv = false;
      return;
    }
    a.isv = true;
    a.size = syndrome.size;
    a.signExtend = syndrome.signExtend;
    a.sf = syndrome.sf;
    a.srt = syndrome.srt;
    if (a.isWrite) a.value = syndrome.srt === 31 ? 0n : this.getX(syndrome.srt) & MASKS[syndrome.size]!;
  }

  /** The instruction word at PC, which has just been fetched. */
  #currentWord(): number | undefined {
    const { u32 } = this.#machine.views;
    const lo = u32[(this.base + Offset.PC) >> 2]!;
    const hi = u32[(this.base + Offset.PC + 4) >> 2]!;
    if (!this.#translator.walk(lo, hi, this.#get32(Offset.EL) === 0)) return undefined;
    const { pa } = this.#translator.result;
    const region = this.#machine.physical.find(pa);
    return region === undefined ? undefined : u32[(region.linear + (pa - region.base) + (lo & 0xffc)) >> 2];
  }

  completeRead(value: bigint): void {
    const a = this.access;
    if (a.srt !== 31) {
      const bits = a.size * 8;
      let v = BigInt.asUintN(bits, value);
      if (a.signExtend) v = BigInt.asUintN(a.sf ? 64 : 32, BigInt.asIntN(bits, v));
      this.setX(a.srt, v);
    }
    this.skipInstruction();
  }

  skipInstruction(): void {
    this.#advance();
    this.#retired++;
  }

  #advance(): void {
    this.setPc(BigInt.asUintN(64, this.getPc() + 4n));
  }

  // Running.

  get instructions(): number {
    return this.#running ? this.#retired + this.#given - this.#stolen - this.#get32(Offset.BUDGET) : this.#retired;
  }

  requestStop(): void {
    if (!this.#running) return;
    const left = this.#get32(Offset.BUDGET);
    if (left < 0) return;
    this.#stolen += left + 1;
    this.#set32(Offset.BUDGET, -1);
  }

  run(budget: number): CpuStop {
    const machine = this.#machine;
    machine.activate(this);
    this.#given = budget;
    this.#stolen = 0;
    this.#set32(Offset.BUDGET, budget);
    this.#running = true;
    try {
      return this.#loop();
    } finally {
      this.#retired = this.instructions;
      this.#running = false;
    }
  }

  #loop(): CpuStop {
    const { interpreter } = this.#machine;
    for (;;) {
      this.#takeInterrupts();
      this.#set32(Offset.EXIT, ExitCode.NONE);
      interpreter.run();
      switch (this.#get32(Offset.EXIT)) {
        case ExitCode.BUDGET:
          return CpuStop.BUDGET;
        case ExitCode.RESYNC:
          this.#advance();
          this.#count();
          break;
        case ExitCode.REDIRECT:
          break;
        case ExitCode.UNDEFINED:
        case ExitCode.HLT:
          this.injectUndefined();
          break;
        case ExitCode.SVC:
          this.#advance();
          this.#count();
          this.#exception(Vector.SYNC, ExceptionClass.SVC64, this.#get32(Offset.DETAIL) & 0xffff);
          break;
        case ExitCode.HVC:
        case ExitCode.SMC: {
          if (this.#get32(Offset.EL) === 0) {
            this.injectUndefined();
            break;
          }
          this.hvcImmediate = this.#get32(Offset.DETAIL) & 0xffff;
          if (this.#get32(Offset.EXIT) === ExitCode.SMC) return CpuStop.SMC;
          this.#advance();
          this.#count();
          return CpuStop.HVC;
        }
        case ExitCode.BRK:
          this.#exception(Vector.SYNC, ExceptionClass.BRK64, this.#get32(Offset.DETAIL) & 0xffff);
          break;
        case ExitCode.WFI:
          if (this.#trapWait(SCTLR.nTWI, 0)) break;
          this.#advance();
          this.#count();
          if (this.interruptPending) break;
          return CpuStop.WFI;
        case ExitCode.WFE:
          if (this.#trapWait(SCTLR.nTWE, 1)) break;
          this.#advance();
          this.#count();
          return CpuStop.WFE;
        case ExitCode.ERET:
          this.#eret();
          break;
        case ExitCode.DATA_ABORT:
          this.#takeDataAbort();
          break;
        case ExitCode.FETCH_ABORT:
          this.#takeFetchAbort();
          break;
        case ExitCode.MMIO:
          this.#describeAccess();
          return CpuStop.MMIO;
        case ExitCode.PC_ALIGNMENT:
          this.#set64(SR.FAR_EL1.offset, this.getPc());
          this.#exception(Vector.SYNC, ExceptionClass.PC_ALIGNMENT, 0);
          break;
        case ExitCode.SP_ALIGNMENT:
          this.#exception(Vector.SYNC, ExceptionClass.SP_ALIGNMENT, 0);
          break;
        case ExitCode.FP_TRAP:
          // CV = 1, COND = 0b1110: what an AArch64 instruction reports.
          this.#exception(Vector.SYNC, ExceptionClass.FP, 0x1e0_0000);
          break;
        case ExitCode.SYSREG_TRAP:
          this.#exception(Vector.SYNC, ExceptionClass.SYSREG, this.#get32(Offset.DETAIL) | (((this.#currentWord() ?? 31) & 31) << 5));
          break;
        default:
          throw new Error(`the processor left its code for no known reason (${this.#get32(Offset.EXIT)})`);
      }
    }
  }

  /** Counts an instruction that ended generated code. */
  #count(): void {
    const left = this.#get32(Offset.BUDGET);
    this.#set32(Offset.BUDGET, left - 1);
  }

  #trapWait(control: bigint, isWfe: number): boolean {
    if (this.#get32(Offset.EL) !== 0 || (this.#get64(SR.SCTLR_EL1.offset) & control) !== 0n) return false;
    this.#exception(Vector.SYNC, ExceptionClass.WFX, 0x1e0_0000 | isWfe);
    return true;
  }

  // Exceptions.

  /** Takes an exception to EL1 (Arm ARM DDI 0487 D1.3.5, AArch64.TakeException). PC is the preferred return address. */
  #exception(kind: number, ec: number, iss: number): void {
    const spsr = this.getPstate();
    const from = this.#get32(Offset.EL);
    const spsel = this.#get32(Offset.SPSEL);
    this.#set64(SR.ELR_EL1.offset, this.getPc());
    this.#set64(SR.SPSR_EL1.offset, spsr);
    if (kind === Vector.SYNC || kind === Vector.SERROR) this.#set64(SR.ESR_EL1.offset, (BigInt(ec) << 26n) | BigInt(IL << 5) | BigInt(iss >>> 0));
    const sctlr = this.#get64(SR.SCTLR_EL1.offset);
    this.#bankSp();
    this.#set32(Offset.EL, 1);
    this.#set32(Offset.SPSEL, 1);
    this.#unbankSp();
    this.#set32(Offset.DAIF, DAIF.ALL);
    if ((sctlr & SCTLR.SPAN) === 0n) this.#set32(Offset.PAN, PAN);
    this.#set32(Offset.UAO, 0);
    this.#set32(Offset.SSBS, (sctlr & SCTLR.DSSBS) !== 0n ? SSBS : 0);
    this.#regimeSelected();
    const vector = from === 0 ? 0x400 : spsel === 1 ? 0x200 : 0;
    this.setPc((this.#get64(SR.VBAR_EL1.offset) & ~0x7ffn) + BigInt(vector + kind));
  }

  #eret(): void {
    if (this.#get32(Offset.EL) === 0) {
      this.injectUndefined();
      return;
    }
    this.#count();
    const spsr = this.#get64(SR.SPSR_EL1.offset);
    const elr = this.#get64(SR.ELR_EL1.offset);
    this.#set64(Offset.MONITOR_ADDRESS, 0xffff_ffff_ffff_ffffn);
    const mode = Number(spsr & 0x1fn);
    if (mode === 0b00000 || mode === 0b00100 || mode === 0b00101) {
      this.setPstate(spsr);
      this.setPc(this.#branchTarget(elr));
      if ((spsr & BigInt(IL)) === 0n) return;
    } else {
      // An illegal return keeps the EL and stack pointer and sets PSTATE.IL.
      const keep = (BigInt(this.#get32(Offset.EL)) << 2n) | BigInt(this.#get32(Offset.SPSEL));
      this.setPstate((spsr & ~0x1fn) | keep);
      this.setPc(elr);
    }
    this.#exception(Vector.SYNC, ExceptionClass.ILLEGAL_STATE, 0);
  }

  /** A branch target with its ignored top byte made a sign extension (AArch64.BranchAddr). */
  #branchTarget(pc: bigint): bigint {
    const hi = Number((pc >> 32n) & 0xffff_ffffn);
    if (!this.#translator.ignoresTop(hi)) return pc;
    return BigInt.asUintN(64, BigInt.asIntN(56, pc));
  }

  #takeDataAbort(): void {
    const lower = this.#get32(Offset.EL) === 0;
    this.#set64(SR.FAR_EL1.offset, (BigInt(this.#faultHi >>> 0) << 32n) | BigInt(this.#faultLo >>> 0));
    const iss = this.#faultStatus | (this.#faultWrite ? 1 << 6 : 0) | (this.#faultCacheMaintenance ? 1 << 8 : 0);
    this.#exception(Vector.SYNC, lower ? ExceptionClass.DATA_ABORT_LOWER : ExceptionClass.DATA_ABORT, iss);
  }

  #takeFetchAbort(): void {
    const lower = this.#get32(Offset.EL) === 0;
    this.#set64(SR.FAR_EL1.offset, (BigInt(this.#faultHi >>> 0) << 32n) | BigInt(this.#faultLo >>> 0));
    this.#exception(Vector.SYNC, lower ? ExceptionClass.INSTRUCTION_ABORT_LOWER : ExceptionClass.INSTRUCTION_ABORT, this.#faultStatus);
  }

  #takeInterrupts(): void {
    if (this.#get32(Offset.ATTENTION) === 0) return;
    const masked = this.#get32(Offset.DAIF);
    if (this.#serror !== undefined && (masked & DAIF.A) === 0) {
      const iss = this.#serror;
      this.#serror = undefined;
      this.#attention();
      this.#exception(Vector.SERROR, ExceptionClass.SERROR, Number(iss & 0x1ff_ffffn));
    } else if (this.#fiq && (masked & DAIF.F) === 0) this.#exception(Vector.FIQ, 0, 0);
    else if (this.#irq && (masked & DAIF.I) === 0) this.#exception(Vector.IRQ, 0, 0);
  }

  #attention(): void {
    const any = this.#irq || this.#fiq || this.#serror !== undefined;
    this.#set32(Offset.ATTENTION, any ? 1 : 0);
    // A newly asserted input ends the budget, so that the interrupt is taken at the next branch.
    if (any && this.#running) this.requestStop();
  }

  setIrq(level: boolean): void {
    if (level === this.#irq) return;
    this.#irq = level;
    this.#attention();
  }
  setFiq(level: boolean): void {
    if (level === this.#fiq) return;
    this.#fiq = level;
    this.#attention();
  }
  get interruptPending(): boolean {
    return this.#irq || this.#fiq || this.#serror !== undefined;
  }
  injectSerror(esrIss: bigint): void {
    this.#serror = esrIss;
    this.#attention();
  }
  get serrorPending(): boolean {
    return this.#serror !== undefined;
  }
  injectUndefined(): void {
    this.#exception(Vector.SYNC, ExceptionClass.UNKNOWN, 0);
  }
  injectExternalAbort(): void {
    const a = this.access;
    this.#faultLo = Number(a.va & 0xffff_ffffn);
    this.#faultHi = Number(a.va >> 32n);
    this.#faultStatus = FaultStatus.EXTERNAL;
    this.#faultWrite = a.isWrite;
    this.#faultCacheMaintenance = false;
    if (a.isFetch) this.#takeFetchAbort();
    else this.#takeDataAbort();
  }

  alignmentFault(va: bigint, write: boolean): void {
    this.#dataAbort(FaultStatus.ALIGNMENT, Number(va & 0xffff_ffffn), Number((va >> 32n) & 0xffff_ffffn), write);
  }

  // System instructions.

  mrs(index: number): bigint {
    const el = this.#get32(Offset.EL);
    const op1 = (index >> 11) & 7;
    switch (index) {
      case PSEUDO.DAIF:
        if (el === 0 && (this.#get64(SR.SCTLR_EL1.offset) & SCTLR.UMA) === 0n) return this.#sysregTrap(index, true);
        return BigInt(this.#get32(Offset.DAIF));
      case PSEUDO.DIT:
        return BigInt(this.#get32(Offset.DIT));
      case PSEUDO.SSBS:
        return BigInt(this.#get32(Offset.SSBS));
      case SR.CTR_EL0.index:
        if (el === 0 && (this.#get64(SR.SCTLR_EL1.offset) & SCTLR.UCT) === 0n) return this.#sysregTrap(index, true);
        return this.#get64(SR.CTR_EL0.offset);
      case SR.DCZID_EL0.index: {
        // DZP says that DC ZVA is not permitted at this EL.
        const dzp = el === 0 && (this.#get64(SR.SCTLR_EL1.offset) & SCTLR.DZE) === 0n ? 0x10n : 0n;
        return this.#get64(SR.DCZID_EL0.offset) | dzp;
      }
      case SR.SCXTNUM_EL0.index:
        return this.#get64(SR.SCXTNUM_EL0.offset);
      case PSEUDO.MDCCSR_EL0:
        if (el === 0) break;
        return 0n;
      default:
    }
    if (el === 0 && this.#timerTrapped(index)) return this.#sysregTrap(index, true);
    // What is left of the op1 = 3 space is readable at EL0 as the kernel half says; the rest is EL1's.
    if (el !== 0 || op1 === 3) {
      const own = el !== 0 ? this.#mrsEl1(index) : undefined;
      const value = own ?? this.#host.readSysreg(index);
      if (value !== undefined) return value;
    }
    this.#set32(Offset.EXIT, ExitCode.UNDEFINED);
    return 0n;
  }

  #mrsEl1(index: number): bigint | undefined {
    switch (index) {
      case PSEUDO.CURRENT_EL:
        return 4n;
      case PSEUDO.SPSEL:
        return BigInt(this.#get32(Offset.SPSEL));
      case PSEUDO.PAN:
        return BigInt(this.#get32(Offset.PAN));
      case PSEUDO.UAO:
        return BigInt(this.#get32(Offset.UAO));
      case PSEUDO.ISR_EL1:
        return BigInt((this.#irq ? 0x80 : 0) | (this.#fiq ? 0x40 : 0) | (this.#serror !== undefined ? 0x100 : 0));
      case PSEUDO.MDRAR_EL1:
      case PSEUDO.OSDTRRX_EL1:
      case PSEUDO.OSDTRTX_EL1:
      case PSEUDO.DBGPRCR_EL1:
      case PSEUDO.DBGCLAIMCLR_EL1:
      case PSEUDO.DBGAUTHSTATUS_EL1:
        return 0n;
      case PSEUDO.DBGCLAIMSET_EL1:
        return 0xffn;
      case SR.SP_EL1.index:
        return undefined;
      default: {
        const reg = sysregByIndex(index);
        if (reg === SR.CCSIDR_EL1) return this.#ccsidr();
        return reg?.access === 'special' && reg !== SR.SP_EL0 ? this.#get64(reg.offset) : undefined;
      }
    }
  }

  msr(index: number, value: bigint): void {
    const el = this.#get32(Offset.EL);
    const op1 = (index >> 11) & 7;
    const unsigned = BigInt.asUintN(64, value);
    switch (index) {
      case PSEUDO.FPCR:
      case PSEUDO.FPSR:
        if (this.#get32(Offset.FP_TRAP) !== 0) {
          this.#set32(Offset.EXIT, ExitCode.FP_TRAP);
          return;
        }
        this.setSysreg(index, unsigned);
        return;
      case PSEUDO.DAIF:
        if (el === 0 && (this.#get64(SR.SCTLR_EL1.offset) & SCTLR.UMA) === 0n) {
          this.#sysregTrap(index, false);
          return;
        }
        this.#set32(Offset.DAIF, Number(unsigned) & DAIF.ALL);
        if (this.#get32(Offset.ATTENTION) !== 0) this.#set32(Offset.EXIT, ExitCode.RESYNC);
        return;
      case PSEUDO.DIT:
        this.#set32(Offset.DIT, Number(unsigned & BigInt(DIT)));
        return;
      case PSEUDO.SSBS:
        this.#set32(Offset.SSBS, Number(unsigned & BigInt(SSBS)));
        return;
      case SR.SCXTNUM_EL0.index:
        this.#set64(SR.SCXTNUM_EL0.offset, unsigned);
        return;
      default:
    }
    if (el === 0 && this.#timerTrapped(index)) {
      this.#sysregTrap(index, false);
      return;
    }
    if (el !== 0 || op1 === 3) {
      if (el !== 0 && this.#msrEl1(index, unsigned)) return;
      if (this.#host.writeSysreg(index, unsigned)) {
        if (this.#get32(Offset.ATTENTION) !== 0) this.#set32(Offset.EXIT, ExitCode.RESYNC);
        return;
      }
    }
    this.#set32(Offset.EXIT, ExitCode.UNDEFINED);
  }

  #msrEl1(index: number, value: bigint): boolean {
    switch (index) {
      case PSEUDO.SPSEL:
        this.#bankSp();
        this.#set32(Offset.SPSEL, Number(value & 1n));
        this.#unbankSp();
        return true;
      case PSEUDO.PAN:
        this.#set32(Offset.PAN, Number(value & BigInt(PAN)));
        this.#regimeSelected();
        return true;
      case PSEUDO.UAO:
        this.#set32(Offset.UAO, Number(value & BigInt(UAO)));
        this.#regimeSelected();
        return true;
      case PSEUDO.OSLAR_EL1:
        this.#set64(SR.OSLSR_EL1.offset, 0x8n | ((value & 1n) << 1n));
        return true;
      case PSEUDO.OSDTRRX_EL1:
      case PSEUDO.OSDTRTX_EL1:
      case PSEUDO.DBGPRCR_EL1:
      case PSEUDO.DBGCLAIMSET_EL1:
      case PSEUDO.DBGCLAIMCLR_EL1:
        return true;
      case SR.SP_EL1.index:
      case SR.CTR_EL0.index:
      case SR.DCZID_EL0.index:
      case SR.CCSIDR_EL1.index:
        return false;
      default: {
        const reg = sysregByIndex(index);
        if (reg?.access !== 'special' || reg === SR.SP_EL0) return false;
        const old = this.#get64(reg.offset);
        if (old === value) return true;
        this.#set64(reg.offset, reg === SR.SCTLR_EL1 ? value | SCTLR_RES1 : value);
        this.#sysregChanged(index);
        // Where the next instruction comes from may have changed too.
        this.#set32(Offset.EXIT, ExitCode.RESYNC);
        return true;
      }
    }
  }

  /** Whether CNTKCTL_EL1 keeps a generic timer register from EL0 (Arm ARM DDI 0487 D13.8.24). */
  #timerTrapped(index: number): boolean {
    if (index >> 7 !== CNT_SPACE) return false;
    const allowed = Number(this.#get64(SR.CNTKCTL_EL1.offset));
    const crm = (index >> 3) & 15;
    const op2 = index & 7;
    if (crm === 2) return (allowed & 0x200) === 0;
    if (crm === 3) return (allowed & 0x100) === 0;
    if (crm !== 0) return false;
    if (op2 === 0) return (allowed & 3) === 0;
    return (allowed & (op2 === 2 || op2 === 6 ? 2 : 1)) === 0;
  }

  /** A trapped MRS, MSR or SYS reports what it was (ISS for EC 0x18); Rt is added when the exception is taken. */
  #sysregTrap(index: number, isRead: boolean): bigint {
    const op0 = (index >> 14) & 3;
    const iss = (op0 << 20) | ((index & 7) << 17) | (((index >> 11) & 7) << 14) | (((index >> 7) & 15) << 10) | (((index >> 3) & 15) << 1) | (isRead ? 1 : 0);
    this.#set32(Offset.DETAIL, iss);
    this.#set32(Offset.EXIT, ExitCode.SYSREG_TRAP);
    return 0n;
  }

  /** MSR (immediate): PSTATE fields. @param which op1 << 3 | op2 */
  pstateImmediate(which: number, value: number): void {
    if (which === 0b011_110 || which === 0b011_111) {
      // DAIFSet and DAIFClr at EL0.
      if ((this.#get64(SR.SCTLR_EL1.offset) & SCTLR.UMA) === 0n) {
        this.#sysregTrap(PSEUDO.DAIF, false);
        return;
      }
      const bits = value << 6;
      const daif = this.#get32(Offset.DAIF);
      this.#set32(Offset.DAIF, which === 0b011_110 ? daif | bits : daif & ~bits);
      return;
    }
    const el0Allowed = which === 0b011_001 || which === 0b011_010;
    if (this.#get32(Offset.EL) === 0 && !el0Allowed) {
      this.#set32(Offset.EXIT, ExitCode.UNDEFINED);
      return;
    }
    const on = (value & 1) !== 0;
    switch (which) {
      case 0b000_011:
        this.#set32(Offset.UAO, on ? UAO : 0);
        this.#regimeSelected();
        return;
      case 0b000_100:
        this.#set32(Offset.PAN, on ? PAN : 0);
        this.#regimeSelected();
        return;
      case 0b000_101:
        this.#bankSp();
        this.#set32(Offset.SPSEL, on ? 1 : 0);
        this.#unbankSp();
        return;
      case 0b011_001:
        this.#set32(Offset.SSBS, on ? SSBS : 0);
        return;
      case 0b011_010:
        this.#set32(Offset.DIT, on ? DIT : 0);
        return;
      default:
        this.#set32(Offset.EXIT, ExitCode.UNDEFINED);
    }
  }

  sys(index: number, value: bigint): void {
    const op1 = (index >> 11) & 7;
    const crn = (index >> 7) & 15;
    const crm = (index >> 3) & 15;
    const op2 = index & 7;
    const el = this.#get32(Offset.EL);
    const va = BigInt.asUintN(64, value);
    if (el === 0) {
      // EL0 has DC CVAU, CVAC, CVAP, CVADP, CIVAC, IC IVAU with SCTLR_EL1.UCI, and DC ZVA with DZE.
      if (op1 !== 3 || crn !== 7) {
        this.#set32(Offset.EXIT, ExitCode.UNDEFINED);
        return;
      }
      const zva = crm === 4 && op2 === 1;
      if ((this.#get64(SR.SCTLR_EL1.offset) & (zva ? SCTLR.DZE : SCTLR.UCI)) === 0n) {
        this.#sysregTrap(index, false);
        return;
      }
    }
    if (crn === 7 && (crm === 8 || crm === 9) && op1 === 0) this.#addressTranslate(crm, op2, va);
    else if (crn === 8 && op1 === 0) this.#tlbi(crm, op2, va);
    else if (crn === 7 && CACHE_OPS.has(index)) this.#cacheMaintenance(index, va);
    else this.#set32(Offset.EXIT, ExitCode.UNDEFINED);
  }

  /** Caches are coherent: maintenance by address only checks that the address may be used. */
  #cacheMaintenance(index: number, va: bigint): void {
    if (!CACHE_OPS_BY_ADDRESS.has(index)) return;
    const lo = Number(va & 0xffff_ffffn);
    const hi = Number(va >> 32n);
    const el0 = this.#get32(Offset.EL) === 0;
    const t = this.#translator;
    const mapped = t.walk(lo, hi, el0);
    if (mapped && (!el0 || t.result.readEl0)) return;
    this.#dataAbort(mapped ? FaultStatus.PERMISSION | t.result.level : t.status, lo, hi, true);
    this.#faultCacheMaintenance = true;
  }

  #tlbi(crm: number, op2: number, value: bigint): void {
    const byAddress = op2 === 1 || op2 === 3 || op2 === 5 || op2 === 7;
    if ((crm === 3 || crm === 7 || crm === 1) && byAddress) {
      const page = value & 0xfff_ffff_ffffn;
      const lo = Number((page << 12n) & 0xffff_ffffn);
      const hi = Number((page >> 20n) & 0xff_ffffn);
      for (const cpu of crm === 7 ? [this] : this.#machine.cpus) cpu.#flushPage(lo, hi);
    } else if (crm === 3 || crm === 7 || crm === 1) {
      if (op2 !== 0 && op2 !== 2) this.#set32(Offset.EXIT, ExitCode.UNDEFINED);
      else for (const cpu of crm === 7 ? [this] : this.#machine.cpus) cpu.flushTlb();
    } else this.#set32(Offset.EXIT, ExitCode.UNDEFINED);
  }

  /** AT S1E1R, S1E1W, S1E0R, S1E0W, S1E1RP, S1E1WP: the result goes to PAR_EL1. */
  #addressTranslate(crm: number, op2: number, va: bigint): void {
    const withPan = crm === 9;
    if (op2 > (withPan ? 1 : 3)) {
      this.#set32(Offset.EXIT, ExitCode.UNDEFINED);
      return;
    }
    const el0 = op2 >= 2;
    const write = (op2 & 1) === 1;
    const t = this.#translator;
    const ok = t.walk(Number(va & 0xffff_ffffn), Number(va >> 32n), el0);
    let status = ok ? -1 : t.status;
    if (ok) {
      const r = t.result;
      const pan = withPan && this.#get32(Offset.PAN) !== 0 && r.readEl0;
      const allowed = write ? (el0 ? r.writeEl0 : r.writeEl1 && !pan) : el0 ? r.readEl0 : r.readEl1 && !pan;
      if (!allowed) status = FaultStatus.PERMISSION | r.level;
    }
    if (status >= 0) {
      // F, the fault status, and bit 11 which is RES1.
      this.#set64(SR.PAR_EL1.offset, 1n | (BigInt(status) << 1n) | (1n << 11n));
      return;
    }
    const attr = t.result.attr < 0 ? 0n : (this.#get64(SR.MAIR_EL1.offset) >> BigInt(t.result.attr * 8)) & 0xffn;
    const shareability = t.result.attr < 0 ? 2n : BigInt(t.result.shareability);
    this.#set64(SR.PAR_EL1.offset, BigInt(t.result.pa) | (attr << 56n) | (shareability << 7n) | (1n << 11n));
  }
}

const MASKS: Readonly<Record<number, bigint>> = { 1: 0xffn, 2: 0xffffn, 4: 0xffff_ffffn, 8: 0xffff_ffff_ffff_ffffn };
/** op0 = 3, op1 = 3, CRn = 14 of a system register's index. */
const CNT_SPACE = sysregIndex(3, 3, 14, 0, 0) >> 7;
const FPCR_MASK = 0x07f7_0000n;
const FPSR_MASK = 0x0800_009fn;
/** Bits of SCTLR_EL1 that read as one, given the features that are there. */
const SCTLR_RES1 = (1n << 7n) | (1n << 8n) | (1n << 11n) | (1n << 20n) | (1n << 22n) | (1n << 28n) | (1n << 29n);

const dc = (op1: number, crm: number, op2: number): number => sysregIndex(1, op1, 7, crm, op2);
/** IC IALLUIS, IALLU, IVAU; DC IVAC, ISW, CSW, CISW, ZVA (its permission), CVAC, CVAU, CIVAC, CVAP, CVADP. */
const CACHE_OPS: ReadonlySet<number> = new Set([
  dc(0, 1, 0), dc(0, 5, 0), dc(3, 5, 1), dc(0, 6, 1), dc(0, 6, 2), dc(0, 10, 2), dc(0, 14, 2), dc(3, 4, 1), dc(3, 10, 1), dc(3, 11, 1), dc(3, 14, 1), dc(3, 12, 1), dc(3, 13, 1),
]);
const CACHE_OPS_BY_ADDRESS: ReadonlySet<number> = new Set([dc(3, 5, 1), dc(0, 6, 1), dc(3, 10, 1), dc(3, 11, 1), dc(3, 14, 1), dc(3, 12, 1), dc(3, 13, 1)]);

/** Key of the 2 MiB piece that an address is in, without the top byte. */
const blockKey = (lo: number, hi: number): number => (hi & 0xff_ffff) * 2048 + (lo >>> 21);

function nextPage(lo: number, hi: number): [number, number] {
  const next = ((lo & ~0xfff) + 4096) >>> 0;
  return [next | 0, next === 0 ? (hi + 1) | 0 : hi];
}

