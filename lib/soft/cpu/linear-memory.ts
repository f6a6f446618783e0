import type { HelperEnv } from '../a64/helpers.js';
import { Wasm, type WasmMemory } from '../jit/webassembly.js';
import { MAXIMUM_PAGES } from './layout.js';

const WASM_PAGE = 65536;

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

/** A range that was given back. */
interface Hole {
  address: number;
  size: number;
}

const wholePages = (bytes: number): number => Math.ceil(bytes / WASM_PAGE) * WASM_PAGE;

/** The engine's linear memory: who has which range of it. Its first page is the running vCPU's state. */
export class LinearMemory {
  readonly memory: WasmMemory;
  readonly views = new Views();
  #end = WASM_PAGE;
  /** In ascending order, with something in use between any two. */
  #holes: Hole[] = [];

  constructor() {
    this.memory = new Wasm.Memory({ initial: 1, maximum: MAXIMUM_PAGES, shared: true });
    this.views.renew(this.memory.buffer);
  }

  /** Takes zeroed memory. `undefined` where there is no room, or the host gives none. */
  take(bytes: number): number | undefined {
    const size = wholePages(bytes);
    const hole = this.#holes.find((h) => h.size >= size);
    if (hole !== undefined) {
      const { address } = hole;
      hole.address += size;
      hole.size -= size;
      this.#holes = this.#holes.filter((h) => h.size > 0);
      this.views.u64.fill(0n, address >>> 3, (address + size) >>> 3);
      return address;
    }
    const address = this.#end;
    if (address + size > MAXIMUM_PAGES * WASM_PAGE) return undefined;
    try {
      this.memory.grow(size / WASM_PAGE);
    } catch {
      return undefined;
    }
    this.#end += size;
    this.views.renew(this.memory.buffer);
    return address;
  }

  /** Gives back what {@link take} gave. */
  give(address: number, bytes: number): void {
    const at = this.#holes.findIndex((h) => h.address > address);
    this.#holes.splice(at < 0 ? this.#holes.length : at, 0, { address, size: wholePages(bytes) });
    const merged: Hole[] = [];
    for (const hole of this.#holes) {
      const last = merged.at(-1);
      if (last !== undefined && last.address + last.size === hole.address) last.size += hole.size;
      else merged.push(hole);
    }
    this.#holes = merged;
  }

  /** Bytes that one {@link take} can still give, if `reserve` bytes stay for others. */
  largest(reserve: number): number {
    const unused = Math.max(0, MAXIMUM_PAGES * WASM_PAGE - this.#end - reserve);
    return this.#holes.reduce((most, hole) => Math.max(most, hole.size), unused);
  }

  bytesAt(address: number, size: number): Uint8Array {
    return new Uint8Array(this.memory.buffer, address, size);
  }
}
