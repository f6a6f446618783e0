import { Decoder } from '../a64/decode.js';
import { HELPERS } from '../a64/helper-table.js';
import type { HelperEnv, HelperTable } from '../a64/helpers.js';
import { TABLE } from '../a64/table.js';
import { CodeCache } from '../jit/code-cache.js';
import type { CompilerThread } from '../jit/compiler-thread.js';
import { COUNTERS_SIZE, Interpreter } from '../jit/interpreter.js';
import { useInterpreterImage } from '../jit/interpreter-image.js';
import { prebuilt } from '../jit/prebuilt.js';
import { regionName } from '../jit/region-name.js';
import { STEP_AREA, StepRecord } from '../jit/step-record.js';
import { PhysicalMap } from '../mmu/physical.js';
import { Syndromes } from './access.js';
import type { Cpu, CpuHost, Machine, MachineMemory } from './cpu.js';
import { STATE, STATE_SIZE } from './layout.js';
import { LinearMemory } from './linear-memory.js';
import { pointerAuthFunctions } from './pointer-auth.js';
import { CPU_AREA, Processor } from './processor.js';
import { RamBlock, type RamOwner } from './ram-block.js';
import { WORK_BETWEEN_LOOKS, Work } from './work.js';

const PAGE = 4096;
/** Linear memory that RAM may not take: for decoded code and vCPUs. */
const RESERVED = 128 * 1024 * 1024;

export interface MachineOptions {
  /** Bytes of RAM at most; what 32-bit linear memory holds (about 3.8 GiB) if not given. */
  readonly maxMemory?: number;
  /**
   * How often a branch target is reached before its region is compiled. Counters have 16 bits: beyond 65,536, branches are counted
   * and nothing is compiled; what another run kept is used all the same. `undefined` for an interpreter that counts nothing.
   */
  readonly threshold?: number | undefined;
  /** Compiles for this machine, which closes it; without, the machine compiles between two runs. */
  readonly compiler?: CompilerThread | undefined;
}

/** Branches to a place before it is compiled. Measured on boots and shell loads: with less, V8 compiles more than is gained. */
const DEFAULT_THRESHOLD = 8192;
/** The same where another thread compiles. */
const THREAD_THRESHOLD = 4096;
/** The branch counters stand behind the running vCPU's state: being first, they do so in each machine. */
const COUNTERS = 65536;
/** How branches are counted where another thread compiles: the interpreter that is worth making ahead. */
export const THREAD_COUNTING = { counters: COUNTERS, threshold: THREAD_THRESHOLD };

/** The software machine of one VM: one linear memory with the RAM, the vCPUs' state and the decoded code in it. */
export class SoftMachine implements Machine, RamOwner {
  readonly #linear = new LinearMemory();
  readonly physical = new PhysicalMap();
  readonly code: CodeCache;
  #interpreter: Interpreter | undefined;
  readonly #makeInterpreter: () => Interpreter;
  readonly #compiler: CompilerThread | undefined;
  #closed = false;
  readonly step: StepRecord;
  readonly decoder: Decoder;
  readonly syndromes: Syndromes;
  readonly cpus: Processor[] = [];
  #current: Processor | undefined;
  #work = 0;
  /** Changes when something is changed that compiled code, once entered, does not look at again: a vCPU's PC and PSTATE, code, where it is mapped. */
  changes = 0;
  /** Area of the first vCPU that was destroyed, for the objects of all of them. */
  #graveyard: number | undefined;
  readonly #maxMemory: number;
  #ramTotal = 0;

  constructor(options: MachineOptions = {}) {
    const threshold =
      'threshold' in options
        ? options.threshold
        : options.compiler === undefined
          ? DEFAULT_THRESHOLD
          : THREAD_THRESHOLD;
    this.#maxMemory = options.maxMemory ?? Number.POSITIVE_INFINITY;
    const counters = threshold === undefined ? undefined : this.#linear.take(COUNTERS_SIZE);
    this.decoder = new Decoder(TABLE);
    this.syndromes = new Syndromes(this.decoder);
    const stepArea = this.#linear.take(STEP_AREA);
    if (stepArea === undefined) throw new Error('no room for decoded code');
    this.step = new StepRecord(this.views, this.decoder, stepArea);
    this.code = new CodeCache(
      this.views,
      this.decoder,
      (bytes) => this.#linear.take(bytes),
      (page) => {
        for (const cpu of this.cpus) cpu.mmu.contexts.forgetStores(page);
      },
      () => {
        this.changes++;
        for (const cpu of this.cpus) cpu.mmu.contexts.forgetJumps();
      },
      () => {
        this.flushTlbs();
      },
      (page, records, index) =>
        regionName(this.#current?.mmu.contexts.current.virtualPageOf(records), this.physical.addressOf(page), index),
    );
    const host = {
      fetchMiss: () => {
        this.worked(Work.CALL);
        return this.#current!.mmu.fetchMiss();
      },
      decodeMiss: (record: number) => {
        this.code.decode(record >>> 0);
        this.worked(Work.DECODE);
      },
      hot: (record: number) => {
        if (this.step.holds(record >>> 0)) return;
        this.worked(this.code.hot(record >>> 0) ? Work.COMPILE : Work.CALL);
      },
      loadMiss: (lo: number, hi: number, info: number) => this.#current!.mmu.loadMiss(lo, hi, info),
      storeMiss: (lo: number, hi: number, info: number) => this.#current!.mmu.storeMiss(lo, hi, info),
    };
    this.#compiler = options.compiler;
    this.#makeInterpreter = () => {
      const interpreter = new Interpreter(
        TABLE,
        this.#linear.memory,
        host,
        this.#helpers(),
        counters === undefined || threshold === undefined ? undefined : { counters, threshold },
      );
      this.code.link(interpreter, options.compiler);
      return interpreter;
    };
    // It takes a fifth of a start to make. By then who builds a VM has its files read, by other threads, into the RAM.
    queueMicrotask(() => {
      if (!this.#closed) void this.interpreter;
    });
  }

  /** Made when the caller has done what it was about, or when it is first needed. */
  get interpreter(): Interpreter {
    this.#interpreter ??= this.#makeInterpreter();
    return this.#interpreter;
  }

  /** What instructions call. */
  #helpers(): HelperTable {
    const helpers: Record<string, (...args: never[]) => number | bigint | undefined> = {
      mrs: (index: number) => this.#current!.mrs(index),
      msr: (index: number, value: bigint) => this.#current!.msr(index, value) as undefined,
      sys: (index: number, lo: number, hi: number) => this.#current!.sys(index, lo, hi) as undefined,
      pstate: (which: number, value: number) => this.#current!.pstateImmediate(which, value) as undefined,
      sendEvent: () => {
        for (const cpu of this.cpus) cpu.sendEvent();
        return undefined;
      },
      alignmentFault: (va: bigint, isWrite: number) =>
        this.#current!.mmu.alignmentFault(va, isWrite !== 0) as undefined,
    };
    Object.assign(helpers, pointerAuthFunctions());
    for (const create of HELPERS) Object.assign(helpers, create(this.views));
    const made = prebuilt();
    if (made !== undefined) useInterpreterImage(TABLE, made.interpreter);
    return helpers as HelperTable;
  }

  /** What the compiler has done since the machine was made: regions compiled, and times that a kept one was put to use. */
  get stats(): { readonly regions: number; readonly reused: number } {
    return { regions: this.code.compiled, reused: this.code.reused };
  }

  get views(): HelperEnv {
    return this.#linear.views;
  }

  get available(): number {
    return Math.max(0, Math.min(this.#linear.largest(RESERVED), this.#maxMemory - this.#ramTotal));
  }

  allocate(size: number): MachineMemory | undefined {
    if (!Number.isSafeInteger(size) || size <= 0 || size % PAGE !== 0) {
      throw new RangeError(`memory of ${size} bytes: give a positive multiple of ${PAGE}`);
    }
    if (size > this.available) return undefined;
    const address = this.#linear.take(size);
    if (address === undefined) return undefined;
    this.#ramTotal += size;
    return new RamBlock(this, address, size);
  }

  release(address: number, size: number): void {
    this.#ramTotal -= size;
    this.physical.removeBacking(address, size);
    this.flushTlbs();
    this.#linear.give(address, size);
  }

  get hasCode(): boolean {
    return this.code.pages > 0;
  }

  forgetCode(page: number): void {
    this.code.written(page);
  }

  bytesAt(address: number, size: number): Uint8Array {
    return this.#linear.bytesAt(address, size);
  }

  map(
    gpa: number,
    size: number,
    memory: MachineMemory,
    offset: number,
    readonly: boolean,
    onDirty?: (gfn: number) => void,
  ): void {
    const ram = memory as RamBlock;
    this.physical.add({
      base: gpa,
      end: gpa + size,
      linear: ram.address + offset,
      ram,
      firstPage: offset / PAGE,
      readonly,
      clean: onDirty === undefined ? undefined : new Uint8Array(size / PAGE).fill(1),
      onDirty,
      isUsed: false,
    });
    for (const cpu of this.cpus) cpu.mmu.contexts.flushDevices();
  }

  unmap(gpa: number, size: number): void {
    if (this.physical.remove(gpa, gpa + size)) this.flushTlbs();
  }

  rearm(gpa: number, size: number): void {
    const region = this.physical.find(gpa);
    if (region?.clean === undefined) return;
    region.clean.fill(1, (gpa - region.base) / PAGE, (gpa - region.base + size) / PAGE);
    this.flushTlbs();
  }

  flushTlbs(): void {
    this.changes++;
    for (const cpu of this.cpus) cpu.mmu.contexts.flush();
  }

  createCpu(host: CpuHost): Cpu {
    const area = this.#linear.take(CPU_AREA);
    if (area === undefined) throw new Error('no room for another vCPU');
    const cpu = new Processor(this, host, area);
    this.cpus.push(cpu);
    return cpu;
  }

  destroyCpu(cpu: Cpu): void {
    const processor = cpu as Processor;
    const index = this.cpus.indexOf(processor);
    if (index < 0) return;
    this.cpus.splice(index, 1);
    if (this.#current === processor) this.#current = undefined;
    const { area } = processor;
    if (this.#graveyard === undefined) this.#graveyard = area;
    else this.#linear.give(area, CPU_AREA);
    processor.retire(this.#graveyard);
  }

  /**
   * Counts what is done beside executing instructions, which the budget does not see. To be called outside compiled regions,
   * which have the budget to themselves, or where they have made the state exact.
   */
  worked(amount: number): void {
    this.#work += amount;
    if (this.#work < WORK_BETWEEN_LOOKS) return;
    this.#work = 0;
    const cpu = this.#current!;
    if (cpu.host.overdue?.() === true) cpu.requestStop();
  }

  /** Puts a vCPU's state where generated code works on it. */
  activate(cpu: Processor): void {
    const old = this.#current;
    if (old === cpu) return;
    const { u8 } = this.views;
    if (old !== undefined) {
      u8.copyWithin(old.area, STATE, STATE + STATE_SIZE);
      old.base = old.area;
    }
    u8.copyWithin(STATE, cpu.area, cpu.area + STATE_SIZE);
    cpu.base = STATE;
    this.#current = cpu;
  }

  close(): void {
    this.#current = undefined;
    this.#closed = true;
    this.#compiler?.close();
    for (const cpu of [...this.cpus]) this.destroyCpu(cpu);
  }
}

/** A machine for one VM. @param options.maxMemory bytes of RAM at most; what 32-bit linear memory holds (about 3.8 GiB) if not given */
export function createMachine(options: MachineOptions = {}): Machine {
  return new SoftMachine(options);
}
