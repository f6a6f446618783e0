import { sysregIndex } from '#lib/kvm/registers.js';
import { type Cpu, type CpuHost, CpuStop, type Machine, type MachineMemory } from '#lib/soft/cpu/cpu.js';
import { createMachine } from '#lib/soft/cpu/machine.js';
import type { CompilerThread } from '#lib/soft/index.js';
import { hvc, svc } from './a64.ts';

/** A machine with RAM, one vCPU and nothing else, for programs of a few words. */

export const RAM = 0x4000_0000;
/** Exceptions end in an HVC whose immediate says which vector was taken. */
export const VECTORS = RAM + 0x1_0000;
export const VECTOR_HVC = 0x8000;
/** Immediate of the SVC that ends a program at EL0. */
export const DONE = 0x7e57;
/** Programs are placed from here on, each in a page of its own. */
export const CODE = RAM + 0x2_0000;
/** RAM that programs may use as data. */
export const DATA = RAM + 0x40_0000;
/** Page tables. */
export const TABLES = RAM + 0x60_0000;
export const RAM_SIZE = 0x80_0000;

/** Registers by name, as indices. */
export const REG = {
  SCTLR_EL1: sysregIndex(3, 0, 1, 0, 0),
  CPACR_EL1: sysregIndex(3, 0, 1, 0, 2),
  TTBR0_EL1: sysregIndex(3, 0, 2, 0, 0),
  TTBR1_EL1: sysregIndex(3, 0, 2, 0, 1),
  TCR_EL1: sysregIndex(3, 0, 2, 0, 2),
  SPSR_EL1: sysregIndex(3, 0, 4, 0, 0),
  ELR_EL1: sysregIndex(3, 0, 4, 0, 1),
  SP_EL0: sysregIndex(3, 0, 4, 1, 0),
  ESR_EL1: sysregIndex(3, 0, 5, 2, 0),
  FAR_EL1: sysregIndex(3, 0, 6, 0, 0),
  PAR_EL1: sysregIndex(3, 0, 7, 4, 0),
  MAIR_EL1: sysregIndex(3, 0, 10, 2, 0),
  VBAR_EL1: sysregIndex(3, 0, 12, 0, 0),
  ISR_EL1: sysregIndex(3, 0, 12, 1, 0),
  DISR_EL1: sysregIndex(3, 0, 12, 1, 1),
  CNTKCTL_EL1: sysregIndex(3, 0, 14, 1, 0),
  MDSCR_EL1: sysregIndex(2, 0, 0, 2, 2),
  DAIF: sysregIndex(3, 3, 4, 2, 1),
  SPSEL: sysregIndex(3, 0, 4, 2, 0),
  CURRENT_EL: sysregIndex(3, 0, 4, 2, 2),
  PAN: sysregIndex(3, 0, 4, 2, 3),
  UAO: sysregIndex(3, 0, 4, 2, 4),
  DIT: sysregIndex(3, 3, 4, 2, 5),
  SSBS: sysregIndex(3, 3, 4, 2, 6),
  NZCV: sysregIndex(3, 3, 4, 2, 0),
  FPCR: sysregIndex(3, 3, 4, 4, 0),
  FPSR: sysregIndex(3, 3, 4, 4, 1),
  CTR_EL0: sysregIndex(3, 3, 0, 0, 1),
  DCZID_EL0: sysregIndex(3, 3, 0, 0, 7),
  TPIDR_EL0: sysregIndex(3, 3, 13, 0, 2),
  TPIDRRO_EL0: sysregIndex(3, 3, 13, 0, 3),
  SCXTNUM_EL0: sysregIndex(3, 3, 13, 0, 7),
  CNTVCT_EL0: sysregIndex(3, 3, 14, 0, 2),
} as const;

/** PSTATE, as in SPSR_EL1. */
export const EL0T = 0n;
export const EL1T = 4n;
export const EL1H = 5n;
export const MASKED = 0x3c0n;

/** Fields of an ESR. */
export const ecOf = (esr: bigint): number => Number(esr >> 26n);
export const issOf = (esr: bigint): number => Number(esr & 0x1ff_ffffn);

export interface Outcome {
  readonly stop: CpuStop;
  /** The program came to its end. */
  readonly done: boolean;
  /** Offset of the vector that was taken, or `undefined` where the program came to an HVC of its own. */
  readonly vector: number | undefined;
  readonly hvc: number;
  readonly ec: number;
  readonly iss: number;
  readonly esr: bigint;
  readonly elr: bigint;
  readonly spsr: bigint;
  readonly far: bigint;
}

export interface Options {
  /** See MachineOptions.threshold: 1 compiles whatever is branched to twice. */
  readonly threshold?: number | undefined;
  readonly compiler?: CompilerThread;
  readonly host?: Partial<CpuHost>;
  readonly ram?: number;
  /** The MMU is on and everything is Normal memory, where it is; without, all of it is Device memory, where nothing may be misaligned. */
  readonly normal?: boolean;
}

/** Where the table for that is, if nowhere else: two pages. */
const FLAT = RAM + 0x8000;
/** T0SZ, no walks by TTBR1_EL1, 40-bit addresses. */
const FLAT_TCR = 25n | (1n << 23n) | (25n << 16n) | (2n << 32n);
const NORMAL_BLOCK = 0x701n;
const EL0_BLOCK = NORMAL_BLOCK | (1n << 6n);

/**
 * Turns the MMU on, with the first 8 GiB mapped in blocks where they are, as Normal memory.
 * @param write64 stores to memory
 * @param at address of two pages for the tables
 * @param el0 EL0 may access all but the 4 MiB of RAM where programs are, and EL1 may execute only there; else all is EL1's
 */
export function mapFlat(cpu: Cpu, write64: (pa: number, value: bigint) => void, at: number, el0 = true): void {
  const data = el0 ? EL0_BLOCK : NORMAL_BLOCK;
  for (let n = 0; n < 8; n++) write64(at + n * 8, n === 1 ? BigInt(at + 0x1000) | 3n : (BigInt(n) << 30n) | data);
  for (let n = 0; n < 512; n++)
    write64(at + 0x1000 + n * 8, BigInt(RAM + n * 0x20_0000) | (n < (DATA - RAM) / 0x20_0000 ? NORMAL_BLOCK : data));
  cpu.setSysreg(REG.MAIR_EL1, MAIR);
  cpu.setSysreg(REG.TCR_EL1, FLAT_TCR);
  cpu.setSysreg(REG.TTBR0_EL1, BigInt(at));
  cpu.setSysreg(REG.SCTLR_EL1, cpu.getSysreg(REG.SCTLR_EL1)! | 1n);
}

export class BareMetal {
  readonly machine: Machine;
  readonly memory: MachineMemory;
  readonly cpu: Cpu;
  readonly #normal: boolean;
  readonly #view: DataView;
  #nextCode = CODE;

  constructor(options: Options = {}) {
    this.machine = createMachine({ threshold: options.threshold, compiler: options.compiler });
    const size = options.ram ?? RAM_SIZE;
    this.memory = this.machine.allocate(size)!;
    this.machine.map(RAM, size, this.memory, 0, false);
    const { bytes } = this.memory;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    this.#normal = options.normal ?? false;
    this.cpu = this.createCpu(options.host);
    for (let n = 0; n < 16; n++) this.write32(VECTORS + n * 0x80, hvc(VECTOR_HVC + n * 0x80));
  }

  createCpu(host: Partial<CpuHost> = {}): Cpu {
    const cpu = this.machine.createCpu({ readSysreg: () => undefined, writeSysreg: () => false, ...host });
    cpu.setSysreg(REG.VBAR_EL1, BigInt(VECTORS));
    cpu.setSysreg(REG.CPACR_EL1, 3n << 20n);
    if (this.#normal) mapFlat(cpu, (pa, value) => this.write64(pa, value), FLAT);
    return cpu;
  }

  // Memory, by guest-physical address. The host's stores to code must be told: see place().

  read32(pa: number): number {
    return this.#view.getUint32(pa - RAM, true);
  }
  write32(pa: number, value: number): void {
    this.#view.setUint32(pa - RAM, value, true);
  }
  read64(pa: number): bigint {
    return this.#view.getBigUint64(pa - RAM, true);
  }
  write64(pa: number, value: bigint): void {
    this.#view.setBigUint64(pa - RAM, BigInt.asUintN(64, value), true);
  }
  fill(pa: number, length: number, value: number): void {
    this.memory.bytes.fill(value, pa - RAM, pa - RAM + length);
  }

  /** Puts instructions at an address, or at the start of the next page for programs; returns the address. */
  place(words: readonly number[], at?: number): number {
    const pa = at ?? this.#nextCode;
    if (at === undefined) this.#nextCode += Math.ceil((words.length * 4) / 4096) * 4096;
    if (this.#nextCode > DATA) throw new Error('no room for another program');
    for (const [i, word] of words.entries()) this.write32(pa + i * 4, word);
    this.memory.invalidate(pa - RAM, words.length * 4);
    return pa;
  }

  /** As {@link Options.normal}, from now on. @param el0 see {@link mapFlat} */
  normalMemory(el0 = true): void {
    mapFlat(this.cpu, (pa, value) => this.write64(pa, value), FLAT, el0);
  }

  /** Runs until something but the end of a budget stops it. */
  run(limit = 100_000, cpu = this.cpu): CpuStop {
    for (let left = limit; left > 0; ) {
      const before = cpu.instructions;
      const stop = cpu.run(left);
      if (stop !== CpuStop.BUDGET) return stop;
      left -= Math.max(1, cpu.instructions - before);
    }
    return CpuStop.BUDGET;
  }

  /** Runs a program, followed by HVC #0 (SVC #{@link DONE} at EL0), to its end or first exception. */
  execute(
    words: readonly number[],
    options: { pstate?: bigint; x?: Readonly<Record<number, bigint | number>>; at?: number; cpu?: Cpu } = {},
  ): Outcome {
    const end = options.pstate !== undefined && (options.pstate & 0xfn) === EL0T ? svc(DONE) : hvc(0);
    return this.start(this.place([...words, end], options.at), options);
  }

  start(
    pc: number | bigint,
    options: { pstate?: bigint; x?: Readonly<Record<number, bigint | number>>; cpu?: Cpu } = {},
  ): Outcome {
    const { cpu = this.cpu } = options;
    cpu.setPstate(options.pstate ?? EL1H | MASKED);
    cpu.setPc(BigInt(pc));
    for (const [n, value] of Object.entries(options.x ?? {})) cpu.setX(Number(n), BigInt.asUintN(64, BigInt(value)));
    return this.outcome(this.run(100_000, cpu), cpu);
  }

  outcome(stop: CpuStop, cpu = this.cpu): Outcome {
    const get = (index: number): bigint => cpu.getSysreg(index)!;
    const taken = stop === CpuStop.HVC && (cpu.hvcImmediate & VECTOR_HVC) !== 0;
    const esr = get(REG.ESR_EL1);
    const byHvc = stop === CpuStop.HVC && cpu.hvcImmediate === 0;
    const bySvc = taken && cpu.hvcImmediate === VECTOR_HVC + 0x400 && esr === 0x5600_0000n + BigInt(DONE);
    return {
      stop,
      done: byHvc || bySvc,
      vector: taken ? cpu.hvcImmediate & 0x7ff : undefined,
      hvc: cpu.hvcImmediate,
      esr,
      ec: ecOf(esr),
      iss: issOf(esr),
      elr: get(REG.ELR_EL1),
      spsr: get(REG.SPSR_EL1),
      far: get(REG.FAR_EL1),
    };
  }

  sysreg(index: number): bigint {
    return this.cpu.getSysreg(index)!;
  }
}

/** What a leaf descriptor says beside its address. */
export interface Leaf {
  /** AP[2:1]: 0 EL1 read-write, 1 EL0 too, 2 EL1 read-only, 3 EL0 too. */
  readonly ap?: 0 | 1 | 2 | 3;
  readonly uxn?: boolean;
  readonly pxn?: boolean;
  readonly accessFlag?: boolean;
  readonly notGlobal?: boolean;
  /** GP. */
  readonly guarded?: boolean;
  /** Index into MAIR_EL1. */
  readonly attr?: number;
  readonly shareability?: number;
  /** A block at level 1 or 2, else a page. */
  readonly level?: 1 | 2 | 3;
  /** APTable, UXNTable, PXNTable of the tables that are made on the way, as bits 63..59 of their descriptors. */
  readonly table?: bigint;
}

/** log2 of the granule. */
export type Granule = 12 | 14 | 16;

/** Translation tables, built from the rules of the architecture and not from the walker's. */
export class PageTables {
  readonly #vm: BareMetal;
  readonly granule: Granule;
  readonly inputBits: number;
  /** The first level. */
  readonly level: number;
  readonly root: number;
  #next: number;

  /** @param base where tables are put, 64 KiB aligned */
  constructor(vm: BareMetal, base = TABLES, granule: Granule = 12, inputBits = 48) {
    this.#vm = vm;
    this.granule = granule;
    this.inputBits = inputBits;
    this.root = base;
    this.#next = base + 0x1_0000;
    let level = 3;
    while (this.shift(level) + granule - 3 < inputBits) level--;
    this.level = level;
    vm.fill(base, 0x1_0000, 0);
  }

  /** log2 of what an entry of a level spans. */
  shift(level: number): number {
    return this.granule + (3 - level) * (this.granule - 3);
  }

  #index(va: bigint, level: number): number {
    const bits = Math.min(this.granule - 3, this.inputBits - this.shift(level));
    return Number((va >> BigInt(this.shift(level))) & ((1n << BigInt(bits)) - 1n));
  }

  /** Address of the descriptor for `va` at a level, making the tables above it. */
  entry(va: bigint, level: number, table = 0n): number {
    let base = this.root;
    for (let l = this.level; l < level; l++) {
      const at = base + this.#index(va, l) * 8;
      let descriptor = this.#vm.read64(at);
      if ((descriptor & 3n) !== 3n) {
        descriptor = BigInt(this.#next) | 3n | table;
        this.#vm.fill(this.#next, 1 << this.granule, 0);
        this.#next += 1 << this.granule;
        this.#vm.write64(at, descriptor);
      }
      base = Number(descriptor & 0xffff_ffff_f000n);
    }
    return base + this.#index(va, level) * 8;
  }

  descriptor(pa: number | bigint, leaf: Leaf = {}): bigint {
    const level = leaf.level ?? 3;
    const bit = (on: boolean | undefined, n: bigint): bigint => (on === true ? 1n << n : 0n);
    return (
      BigInt(pa) |
      (level === 3 ? 3n : 1n) |
      (BigInt(leaf.attr ?? 0) << 2n) |
      (BigInt(leaf.ap ?? 0) << 6n) |
      (BigInt(leaf.shareability ?? 3) << 8n) |
      bit(leaf.accessFlag ?? true, 10n) |
      bit(leaf.notGlobal, 11n) |
      bit(leaf.guarded, 50n) |
      bit(leaf.pxn, 53n) |
      bit(leaf.uxn, 54n)
    );
  }

  /** Maps one page or block; returns the address of its descriptor. */
  map(va: bigint | number, pa: number | bigint, leaf: Leaf = {}): number {
    const at = this.entry(BigInt(va), leaf.level ?? 3, leaf.table ?? 0n);
    this.#vm.write64(at, this.descriptor(pa, leaf));
    return at;
  }

  /** Maps a range page by page. */
  mapRange(va: bigint | number, pa: number, size: number, leaf: Leaf = {}): void {
    const step = 2 ** this.shift(leaf.level ?? 3);
    for (let offset = 0; offset < size; offset += step) this.map(BigInt(va) + BigInt(offset), pa + offset, leaf);
  }
}

/** Attribute 0 Normal write-back, 1 Device-nGnRnE, 2 Normal non-cacheable. */
export const MAIR = 0x44_00ffn;
const TG0: Readonly<Record<Granule, bigint>> = { 12: 0n, 14: 2n, 16: 1n };
const TG1: Readonly<Record<Granule, bigint>> = { 12: 2n, 14: 1n, 16: 3n };
/** TCR_EL1 with 40-bit physical addresses. */
export const tcr = (granule: Granule = 12, t0sz = 16, t1sz = t0sz): bigint =>
  BigInt(t0sz) | (BigInt(t1sz) << 16n) | (TG0[granule] << 14n) | (TG1[granule] << 30n) | (2n << 32n);

/** SCTLR_EL1.M with what Linux sets beside it that matters here: SPAN, UCI, nTWE, nTWI, UCT, DZE, SA, SA0. */
export const SCTLR_ON = 0x04c5_c019n;

export interface MmuOptions {
  readonly granule?: Granule;
  readonly t0sz?: number;
  readonly tcr?: bigint;
  readonly sctlr?: bigint;
  readonly mair?: bigint;
}

/** A machine whose code, vectors and tables are mapped where they are, for EL1; data pages are the test's to map. */
export function withMmu(vm: BareMetal, options: MmuOptions = {}): PageTables {
  const { granule = 12, t0sz = 16 } = options;
  const tables = new PageTables(vm, TABLES, granule, 64 - t0sz);
  tables.mapRange(RAM, RAM, DATA - RAM);
  vm.cpu.setSysreg(REG.MAIR_EL1, options.mair ?? MAIR);
  vm.cpu.setSysreg(REG.TCR_EL1, options.tcr ?? tcr(granule, t0sz));
  vm.cpu.setSysreg(REG.TTBR0_EL1, BigInt(tables.root));
  vm.cpu.setSysreg(REG.TTBR1_EL1, BigInt(tables.root));
  vm.cpu.setSysreg(REG.SCTLR_EL1, options.sctlr ?? SCTLR_ON);
  return tables;
}
