import { Decoder } from '../a64/decode.js';
import type { HelperEnv, HelperTable } from '../a64/helpers.js';
import { HELPERS } from '../a64/helper-table.js';
import { TABLE } from '../a64/table.js';
import { CodeCache } from '../jit/code-cache.js';
import { Interpreter } from '../jit/interpreter.js';
import { Wasm, type WasmMemory } from '../jit/webassembly.js';
import { PhysicalMap } from '../mmu/physical.js';
import type { Cpu, CpuHost, Machine, MachineMemory } from './cpu.js';
import { STATE, STATE_SIZE } from './layout.js';
import { Processor, TLB_AREA } from './processor.js';

const WASM_PAGE = 65536;
/** 4 GiB, less the last page: a 32-bit address plus an access size never wraps. */
const MAXIMUM_PAGES = 65535;
const PAGE = 4096;

/** The typed arrays over linear memory, renewed when it grows. */
class Views implements HelperEnv {
  u8!: Uint8Array;
  u16!: Uint16Array;
  u32!: Uint32Array;
  i32!: Int32Array;
  u64!: BigUint64Array;
  i64!: BigInt64Array;
  f32!: Float32Array;
  f64!: Float64Array;

  renew(buffer: ArrayBufferLike): void {
    this.u8 = new Uint8Array(buffer);
    this.u16 = new Uint16Array(buffer);
    this.u32 = new Uint32Array(buffer);
    this.i32 = new Int32Array(buffer);
    this.u64 = new BigUint64Array(buffer);
    this.i64 = new BigInt64Array(buffer);
    this.f32 = new Float32Array(buffer);
    this.f64 = new Float64Array(buffer);
  }
}

/** A range of linear memory that was given back. */
interface Hole {
  readonly address: number;
  readonly size: number;
}

/** The software machine of one VM: one linear memory with the RAM, the vCPUs' state and the decoded code in it. */
export class SoftMachine implements Machine {
  readonly #memory: WasmMemory;
  readonly views = new Views();
  readonly physical = new PhysicalMap();
  readonly code: CodeCache;
  readonly interpreter: Interpreter;
  readonly decoder: Decoder;
  readonly cpus: Processor[] = [];
  #current: Processor | undefined;
  #end = WASM_PAGE;
  #holes: Hole[] = [];
  readonly #maxMemory: number;
  #ramTotal = 0;

  constructor(options: { maxMemory?: number } = {}) {
    this.#maxMemory = options.maxMemory ?? Number.POSITIVE_INFINITY;
    this.#memory = new Wasm.Memory({ initial: 1, maximum: MAXIMUM_PAGES, shared: true });
    this.views.renew(this.#memory.buffer);
    this.decoder = new Decoder(TABLE);
    this.code = new CodeCache(
      this.views,
      this.decoder,
      (bytes) => {
        const address = this.#take(bytes);
        if (address === undefined) throw new Error('no room for decoded code');
        return address;
      },
      (page) => {
        for (const cpu of this.cpus) cpu.forgetStores(page);
      },
      () => {
        for (const cpu of this.cpus) cpu.flushTlb();
      },
    );
    const host = {
      fetchMiss: () => this.#current!.fetchMiss(),
      decodeMiss: (record: number) => this.code.decode(record),
      loadMiss: (lo: number, hi: number, info: number) => this.#current!.loadMiss(lo, hi, info),
      storeMiss: (lo: number, hi: number, info: number) => this.#current!.storeMiss(lo, hi, info),
    };
    const helpers: Record<string, (...args: never[]) => number | bigint | undefined> = {
      mrs: (index: number) => this.#current!.mrs(index),
      msr: (index: number, value: bigint) => this.#current!.msr(index, value) as undefined,
      sys: (index: number, value: bigint) => this.#current!.sys(index, value) as undefined,
      pstate: (which: number, value: number) => this.#current!.pstateImmediate(which, value) as undefined,
      alignmentFault: (va: bigint, isWrite: number) => this.#current!.alignmentFault(va, isWrite !== 0) as undefined,
    };
    for (const create of HELPERS) Object.assign(helpers, create(this.views));
    this.interpreter = new Interpreter(TABLE, this.#memory, MAXIMUM_PAGES, true, host, helpers as HelperTable);
    this.code.interpreter = this.interpreter;
  }

  /** Takes zeroed linear memory, in whole WebAssembly pages. */
  #take(bytes: number): number | undefined {
    const size = Math.ceil(bytes / WASM_PAGE) * WASM_PAGE;
    const hole = this.#holes.find((h) => h.size >= size);
    if (hole !== undefined) {
      this.#holes = this.#holes.filter((h) => h !== hole);
      if (hole.size > size) this.#holes.push({ address: hole.address + size, size: hole.size - size });
      this.views.u8.fill(0, hole.address, hole.address + size);
      return hole.address;
    }
    const address = this.#end;
    if (address + size > MAXIMUM_PAGES * WASM_PAGE) return undefined;
    try {
      this.#memory.grow(size / WASM_PAGE);
    } catch {
      return undefined;
    }
    this.#end += size;
    this.views.renew(this.#memory.buffer);
    return address;
  }

  #give(address: number, bytes: number): void {
    this.#holes.push({ address, size: Math.ceil(bytes / WASM_PAGE) * WASM_PAGE });
  }

  get available(): number {
    // Leaves room for decoded code and vCPUs.
    const room = MAXIMUM_PAGES * WASM_PAGE - this.#end - 128 * 1024 * 1024;
    return Math.max(0, Math.min(room, this.#maxMemory - this.#ramTotal));
  }

  allocate(size: number): MachineMemory | undefined {
    if (size > this.available) return undefined;
    const address = this.#take(size);
    if (address === undefined) return undefined;
    this.#ramTotal += size;
    const memory = new RamBlock(this, address, size, () => {
      this.#ramTotal -= size;
      this.#give(address, size);
    });
    return memory;
  }

  bytesAt(address: number, size: number): Uint8Array {
    return new Uint8Array(this.#memory.buffer, address, size);
  }

  map(gpa: number, size: number, memory: MachineMemory, offset: number, readonly: boolean, onDirty?: (gfn: number) => void): void {
    const linear = (memory as RamBlock).address + offset;
    this.physical.add({
      base: gpa,
      end: gpa + size,
      linear,
      readonly,
      clean: onDirty === undefined ? undefined : new Uint8Array(size / PAGE).fill(1),
      onDirty,
    });
    this.#flushTlbs();
  }

  unmap(gpa: number, size: number): void {
    this.physical.remove(gpa, gpa + size);
    this.#flushTlbs();
  }

  rearm(gpa: number, size: number): void {
    const region = this.physical.find(gpa);
    if (region?.clean === undefined) return;
    region.clean.fill(1, (gpa - region.base) / PAGE, (gpa - region.base + size) / PAGE);
    this.#flushTlbs();
  }

  #flushTlbs(): void {
    for (const cpu of this.cpus) cpu.flushTlb();
  }

  createCpu(host: CpuHost): Cpu {
    const area = this.#take(STATE_SIZE + TLB_AREA);
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
    this.#give(processor.area, STATE_SIZE + TLB_AREA);
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
    this.cpus.length = 0;
    this.#holes = [];
  }
}

class RamBlock implements MachineMemory {
  readonly #machine: SoftMachine;
  readonly address: number;
  readonly size: number;
  readonly bytes: Uint8Array;
  readonly #release: () => void;
  #freed = false;

  constructor(machine: SoftMachine, address: number, size: number, release: () => void) {
    this.#machine = machine;
    this.address = address;
    this.size = size;
    this.bytes = machine.bytesAt(address, size);
    this.#release = release;
  }

  invalidate(offset: number, length: number): void {
    if (length === 0) return;
    const first = Math.floor((this.address + offset) / PAGE) * PAGE;
    for (let page = first; page < this.address + offset + length; page += PAGE) this.#machine.code.written(page);
  }

  free(): void {
    if (this.#freed) return;
    this.#freed = true;
    this.invalidate(0, this.size);
    this.#release();
  }
}

/** A machine for one VM. @param options.maxMemory bytes of RAM at most; what 32-bit linear memory holds (about 3.8 GiB) if not given */
export function createMachine(options: { maxMemory?: number } = {}): Machine {
  return new SoftMachine(options);
}
