import type { WasmType } from './wasm-opcodes.js';

/** Value types in the binary format (WebAssembly Core Specification 2.0, 5.3.1). */
export const TYPE_BYTE: Readonly<Record<WasmType, number>> = { i32: 0x7f, i64: 0x7e, f32: 0x7d, f64: 0x7c, v128: 0x7b };

/** A growing byte sequence with the encodings of the WebAssembly binary format. */
export class ByteWriter {
  #bytes: Uint8Array;
  #length = 0;

  constructor(capacity = 256) {
    this.#bytes = new Uint8Array(capacity);
  }

  get length(): number {
    return this.#length;
  }

  /** The bytes written so far; valid until the next write. */
  get bytes(): Uint8Array {
    return this.#bytes.subarray(0, this.#length);
  }

  #room(count: number): void {
    if (this.#length + count <= this.#bytes.length) return;
    const grown = new Uint8Array(Math.max(this.#bytes.length * 2, this.#length + count));
    grown.set(this.#bytes.subarray(0, this.#length));
    this.#bytes = grown;
  }

  u8(value: number): void {
    if (this.#length === this.#bytes.length) this.#room(1);
    this.#bytes[this.#length++] = value;
  }

  raw(bytes: ArrayLike<number>): void {
    this.#room(bytes.length);
    this.#bytes.set(bytes, this.#length);
    this.#length += bytes.length;
  }

  /** Unsigned LEB128, up to 32 bits. */
  u32(value: number): void {
    let rest = value >>> 0;
    while (rest >= 0x80) {
      this.u8((rest & 0x7f) | 0x80);
      rest >>>= 7;
    }
    this.u8(rest);
  }

  /** Signed LEB128, 32 bits. */
  s32(value: number): void {
    let rest = value | 0;
    for (;;) {
      const byte = rest & 0x7f;
      rest >>= 7;
      if ((rest === 0 && (byte & 0x40) === 0) || (rest === -1 && (byte & 0x40) !== 0)) {
        this.u8(byte);
        return;
      }
      this.u8(byte | 0x80);
    }
  }

  /** Signed LEB128, 64 bits. */
  s64(value: bigint): void {
    let rest = BigInt.asIntN(64, value);
    if (rest >= -0x4000_0000n && rest < 0x4000_0000n) {
      this.s32(Number(rest));
      return;
    }
    for (;;) {
      const byte = Number(rest & 0x7fn);
      rest >>= 7n;
      if ((rest === 0n && (byte & 0x40) === 0) || (rest === -1n && (byte & 0x40) !== 0)) {
        this.u8(byte);
        return;
      }
      this.u8(byte | 0x80);
    }
  }

  name(text: string): void {
    const encoded = Uint8Array.from(text, (c) => c.charCodeAt(0));
    this.u32(encoded.length);
    this.raw(encoded);
  }
}

/** An entry of the code section, with its entry in the section of branch hints, if it has any. */
export interface ModuleFunction {
  readonly hasHints: boolean;
  /** Writes its branch hints, without the function's index. */
  writeHints(out: ByteWriter): void;
  write(out: ByteWriter): void;
}

/** A function body that can be put into other modules: what it calls has another index there. */
export interface PortableBody {
  /** The locals and the code. */
  readonly bytes: Uint8Array;
  /** Where the indices of the functions that it calls are, each {@link CALL_INDEX_SIZE} bytes long. */
  readonly calls: readonly number[];
  /** What {@link ModuleFunction.writeHints} writes; empty where there are none. */
  readonly hints: Uint8Array;
}

/** Bytes of a called function's index: LEB128 of a fixed length, so that another index takes its place. */
export const CALL_INDEX_SIZE = 2;
export const MAX_CALL_INDEX = 0x3fff;

export const callIndex = (bytes: Uint8Array, at: number): number => (bytes[at]! & 0x7f) | (bytes[at + 1]! << 7);

export function setCallIndex(bytes: Uint8Array, at: number, index: number): void {
  bytes[at] = (index & 0x7f) | 0x80;
  bytes[at + 1] = index >>> 7;
}

/** A function body: its locals and its code. Local indices count the parameters first. */
export class FunctionBody implements ModuleFunction {
  readonly code = new ByteWriter(512);
  /** Whether branches in {@link code} are expected to be taken, by their opcode's position there. */
  readonly #hints: { readonly at: number; readonly taken: boolean }[] = [];
  readonly #calls: number[] = [];
  readonly #locals: WasmType[] = [];
  readonly #params: number;

  constructor(params: number) {
    this.#params = params;
  }

  addLocal(type: WasmType): number {
    this.#locals.push(type);
    return this.#params + this.#locals.length - 1;
  }

  /** Says of the `if` or `br_if` that is written next whether its condition is expected to be true. */
  expect(taken: boolean): void {
    this.#hints.push({ at: this.code.length, taken });
  }

  /** Writes a call of the function with this index. */
  call(index: number): void {
    if (index > MAX_CALL_INDEX) throw new RangeError(`function ${index} is behind the last that can be called`);
    this.code.u8(0x10); // call
    this.#calls.push(this.code.length);
    this.code.raw([(index & 0x7f) | 0x80, index >>> 7]);
  }

  get hasHints(): boolean {
    return this.#hints.length > 0;
  }

  writeHints(out: ByteWriter): void {
    const start = this.#head().length;
    out.u32(this.#hints.length);
    for (const { at, taken } of this.#hints) {
      out.u32(start + at);
      out.u8(1);
      out.u8(taken ? 1 : 0);
    }
  }

  /** The body as it is, for other modules. */
  portable(): PortableBody {
    const out = new ByteWriter(this.code.length + 64);
    out.raw(this.#head().bytes);
    const start = out.length;
    out.raw(this.code.bytes);
    out.u8(0x0b);
    const hints = new ByteWriter();
    if (this.hasHints) this.writeHints(hints);
    const calls = this.#calls.map((at) => start + at);
    return { bytes: out.bytes.slice(), calls, hints: hints.bytes.slice() };
  }

  /** Writes the body as a code-section entry. */
  write(out: ByteWriter): void {
    const head = this.#head();
    out.u32(head.length + this.code.length + 1);
    out.raw(head.bytes);
    out.raw(this.code.bytes);
    out.u8(0x0b);
  }

  /** The declaration of the locals. */
  #head(): ByteWriter {
    const runs: [number, WasmType][] = [];
    for (const type of this.#locals) {
      const last = runs.at(-1);
      if (last !== undefined && last[1] === type) last[0]++;
      else runs.push([1, type]);
    }
    const head = new ByteWriter(runs.length * 3 + 4);
    head.u32(runs.length);
    for (const [count, type] of runs) {
      head.u32(count);
      head.u8(TYPE_BYTE[type]);
    }
    return head;
  }
}

export interface Signature {
  readonly params: readonly WasmType[];
  readonly results: readonly WasmType[];
}

/** Puts a module together. Imports come first, as the format wants: import everything before adding a function. */
export class ModuleBuilder {
  readonly #types: Signature[] = [];
  readonly #typeIndex = new Map<string, number>();
  readonly #imports = new ByteWriter();
  #importCount = 0;
  #importedFunctions = 0;
  readonly #functions: { type: number; body: ModuleFunction }[] = [];
  readonly #exports = new ByteWriter();
  #exportCount = 0;
  #tableSize: number | undefined;
  /** Functions that are in the table from the start: the first entry, and their indices. */
  #elements: { readonly start: number; readonly functions: readonly number[] } | undefined;
  readonly #names: [number, string][] = [];

  type(signature: Signature): number {
    const key = `${signature.params.join()}:${signature.results.join()}`;
    let index = this.#typeIndex.get(key);
    if (index === undefined) {
      index = this.#types.push(signature) - 1;
      this.#typeIndex.set(key, index);
    }
    return index;
  }

  #import(name: string): void {
    this.#imports.name('e');
    this.#imports.name(name);
    this.#importCount++;
  }

  /** Imports `e.memory`. */
  importMemory(maximumPages: number): void {
    this.#import('memory');
    this.#imports.u8(0x02);
    this.#imports.u8(0x03);
    this.#imports.u32(1);
    this.#imports.u32(maximumPages);
  }

  /** Imports `e.<name>`; returns its function index. */
  importFunction(name: string, signature: Signature): number {
    this.#import(name);
    this.#imports.u8(0x00);
    this.#imports.u32(this.type(signature));
    return this.#importedFunctions++;
  }

  /** Imports `e.table`, of so many funcrefs. */
  importTable(size: number): void {
    this.#import('table');
    this.#imports.u8(0x01);
    this.#imports.raw([0x70, 0x01]);
    this.#imports.u32(size);
    this.#imports.u32(size);
  }

  /** A funcref table of the module's own, exported as `table`. */
  addTable(size: number): void {
    this.#tableSize = size;
    this.#exports.name('table');
    this.#exports.u8(0x01);
    this.#exports.u32(0);
    this.#exportCount++;
  }

  /** Puts functions into consecutive entries of the table. @param start the first of them */
  fillTable(start: number, functions: readonly number[]): void {
    this.#elements = { start, functions };
  }

  /** @param name what profilers and stack traces call the function; `exportName` if not given */
  addFunction(signature: Signature, body: ModuleFunction, exportName?: string, name?: string): number {
    const index = this.#importedFunctions + this.#functions.push({ type: this.type(signature), body }) - 1;
    if (exportName !== undefined) {
      this.#exports.name(exportName);
      this.#exports.u8(0x00);
      this.#exports.u32(index);
      this.#exportCount++;
    }
    if (name !== undefined) this.#names.push([index, name]);
    return index;
  }

  build(): Uint8Array<ArrayBuffer> {
    const out = new ByteWriter(4096);
    out.raw([0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00]);
    const section = (id: number, write: (w: ByteWriter) => void): void => {
      const w = new ByteWriter(1024);
      write(w);
      out.u8(id);
      out.u32(w.length);
      out.raw(w.bytes);
    };
    section(1, (w) => {
      w.u32(this.#types.length);
      for (const { params, results } of this.#types) {
        w.u8(0x60);
        w.u32(params.length);
        for (const t of params) w.u8(TYPE_BYTE[t]);
        w.u32(results.length);
        for (const t of results) w.u8(TYPE_BYTE[t]);
      }
    });
    section(2, (w) => {
      w.u32(this.#importCount);
      w.raw(this.#imports.bytes);
    });
    section(3, (w) => {
      w.u32(this.#functions.length);
      for (const f of this.#functions) w.u32(f.type);
    });
    const tableSize = this.#tableSize;
    if (tableSize !== undefined) {
      section(4, (w) => {
        w.u32(1);
        w.u8(0x70);
        w.u8(0x01);
        w.u32(tableSize);
        w.u32(tableSize);
      });
    }
    section(7, (w) => {
      w.u32(this.#exportCount);
      w.raw(this.#exports.bytes);
    });
    const elements = this.#elements;
    if (elements !== undefined) {
      section(9, (w) => {
        w.u32(1);
        w.u8(0x00);
        w.u8(0x41); // i32.const
        w.s32(elements.start);
        w.u8(0x0b); // end
        w.u32(elements.functions.length);
        for (const index of elements.functions) w.u32(index);
      });
    }
    // Branch hinting, https://webassembly.github.io/branch-hinting; who does not know it skips the section.
    const hinted = this.#functions.map((f, i) => [f, i] as const).filter(([f]) => f.body.hasHints);
    if (hinted.length > 0) {
      section(0, (w) => {
        w.name('metadata.code.branch_hint');
        w.u32(hinted.length);
        for (const [f, i] of hinted) {
          w.u32(this.#importedFunctions + i);
          f.body.writeHints(w);
        }
      });
    }
    section(10, (w) => {
      w.u32(this.#functions.length);
      for (const f of this.#functions) f.body.write(w);
    });
    if (this.#names.length > 0) section(0, (w) => this.#writeNames(w));
    return out.bytes.slice();
  }

  /** The `name` section's function names (Core Specification 2.0, 7.4.1). */
  #writeNames(w: ByteWriter): void {
    const functions = new ByteWriter();
    functions.u32(this.#names.length);
    for (const [index, name] of this.#names) {
      functions.u32(index);
      functions.name(name);
    }
    w.name('name');
    w.u8(1);
    w.u32(functions.length);
    w.raw(functions.bytes);
  }
}
