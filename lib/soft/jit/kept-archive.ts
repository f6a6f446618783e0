import type { KeptModule } from './kept-module.js';
import { codeLength, equalShapes, isShape, setCodeLength, shapeHash, shapeLength, shapeOf } from './kept-shape.js';
import type { ImportedFunction } from './linkage.js';
import type { Region } from './region.js';
import { REGION_SIGNATURE, regionExport, regionModule } from './region-compiler.js';
import { TAIL_CALLS } from './tail-calls.js';
import {
  type ByteWriter,
  CALL_INDEX_SIZE,
  callIndex,
  type ModuleFunction,
  type PortableBody,
  setCallIndex,
  TYPE_BYTE,
} from './wasm-module.js';

/** A region that was compiled: what it was made from, and its function. */
export interface NewRegion {
  readonly region: Region;
  readonly guarded: boolean;
  readonly body: PortableBody;
  /** The function that the body calls by an index. */
  readonly importOf: (index: number) => ImportedFunction;
}

interface Kept {
  /** See {@link shapeOf}. */
  readonly shape: Uint32Array;
  /** See {@link encodeCode}. */
  readonly code: Uint8Array;
}

/** A number that two regions share that are the same, and hardly any others. */
export const regionHash = ({ region, guarded }: NewRegion): number => shapeHash(shapeOf(region, guarded));

/** What compiled code depends on besides the engine itself: what V8 can do. */
export const engineId = (): string => (TAIL_CALLS ? 'tail-calls' : '');

/** A body's code has in its first words: bytes of the body, calls, bytes of the branch hints. */
const CODE_HEAD = 3;
/** A call is its position times this, plus the number of the function in the archive. */
const MAX_IMPORTS = 1024;
const MAX_BODY = 2 ** 22;
/** u32 words before everything else: bytes of the imports, words of the shapes, bytes of the code. */
const HEAD = 3;

const padded = (bytes: number): number => (bytes + 3) & ~3;

/**
 * Regions that were compiled in this run or in earlier ones, to be used again wherever the same instructions are met. An archive is
 * good only for the very engine that made it.
 */
export class KeptArchive {
  readonly #imports: ImportedFunction[] = [];
  readonly #numbers = new Map<string, number>();
  readonly #regions: Kept[] = [];
  readonly #byHash = new Map<number, Kept[]>();
  #bytes = 0;

  /** Regions in it. */
  get size(): number {
    return this.#regions.length;
  }

  /** Bytes of them, about. */
  get bytes(): number {
    return this.#bytes;
  }

  /**
   * Adds a region, unless it is there already.
   * @returns whether it was added
   */
  add({ region, guarded, body, importOf }: NewRegion): boolean {
    if (body.bytes.length > MAX_BODY) return false;
    const calls: number[] = [];
    for (const at of body.calls) {
      const number = this.#numberOf(importOf(callIndex(body.bytes, at)));
      if (number >= MAX_IMPORTS) return false;
      calls.push(at * MAX_IMPORTS + number);
    }
    const shape = shapeOf(region, guarded);
    const code = encodeCode(body, calls);
    setCodeLength(shape, code.length);
    return this.#add({ shape, code });
  }

  #add(kept: Kept): boolean {
    const hash = shapeHash(kept.shape);
    const same = this.#byHash.get(hash);
    if (same?.some((k) => equalShapes(k.shape, kept.shape))) return false;
    if (same === undefined) this.#byHash.set(hash, [kept]);
    else same.push(kept);
    this.#regions.push(kept);
    this.#bytes += kept.shape.byteLength + kept.code.length;
    return true;
  }

  #numberOf(f: ImportedFunction): number {
    const known = this.#numbers.get(f.name);
    if (known !== undefined) return known;
    this.#numbers.set(f.name, this.#imports.length);
    return this.#imports.push(f) - 1;
  }

  /** Adds what another archive has and this one has not. */
  merge(other: KeptArchive): void {
    const numbers = other.#imports.map((f) => this.#numberOf(f));
    for (const { shape, code } of other.#regions) {
      const renumbered = code.slice();
      const words = new Uint32Array(renumbered.buffer);
      for (let n = CODE_HEAD; n < CODE_HEAD + words[1]!; n++)
        words[n] = words[n]! - (words[n]! % MAX_IMPORTS) + numbers[words[n]! % MAX_IMPORTS]!;
      this.#add({ shape: shape.slice(), code: renumbered });
    }
  }

  /** All functions in a module. */
  link(): KeptModule {
    const { module } = regionModule();
    const indices = this.#imports.map((f) => module.import(f));
    const shapes = new Uint32Array(this.#regions.reduce((sum, { shape }) => sum + shape.length, 0));
    let at = 0;
    this.#regions.forEach(({ shape, code }, n) => {
      module.builder.addFunction(REGION_SIGNATURE, new KeptFunction(code, indices), regionExport(n), 'guest');
      shapes.set(shape, at);
      at += shape.length;
    });
    return { bytes: module.build(), imports: module.imports, shapes };
  }

  /** The archive as bytes. */
  serialize(): Uint8Array<ArrayBuffer> {
    const kept = this.#regions;
    const imports = new TextEncoder().encode(JSON.stringify(this.#imports));
    const words = kept.reduce((sum, { shape }) => sum + shape.length, 0);
    const codes = kept.reduce((sum, { code }) => sum + code.length, 0);
    const out = new Uint8Array(HEAD * 4 + padded(imports.length) + words * 4 + codes);
    new Uint32Array(out.buffer, 0, HEAD).set([imports.length, words, codes]);
    out.set(imports, HEAD * 4);
    let at = HEAD * 4 + padded(imports.length);
    for (const { shape } of kept) {
      new Uint32Array(out.buffer, at, shape.length).set(shape);
      at += shape.byteLength;
    }
    for (const { code } of kept) {
      out.set(code, at);
      at += code.length;
    }
    return out;
  }

  /** Reads what {@link serialize} wrote. @returns `undefined` where that is not what the bytes are */
  static parse(bytes: Uint8Array<ArrayBuffer>): KeptArchive | undefined {
    const archive = new KeptArchive();
    if (bytes.byteOffset % 4 !== 0) return undefined;
    // Not what Node's Buffer makes of slice().
    const plain = new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length);
    return archive.#parse(plain) ? archive : undefined;
  }

  #parse(bytes: Uint8Array<ArrayBuffer>): boolean {
    if (bytes.length < HEAD * 4) return false;
    const [importBytes, words, codes] = new Uint32Array(bytes.buffer, bytes.byteOffset, HEAD) as unknown as [
      number,
      number,
      number,
    ];
    const shapesAt = HEAD * 4 + padded(importBytes);
    const codesAt = shapesAt + words * 4;
    if (codesAt + codes !== bytes.length) return false;
    const imports = parseImports(bytes.subarray(HEAD * 4, HEAD * 4 + importBytes));
    if (imports === undefined) return false;
    for (const [n, f] of imports.entries()) if (this.#numberOf(f) !== n) return false;
    const shapes = new Uint32Array(bytes.buffer, bytes.byteOffset + shapesAt, words);
    let at = codesAt;
    for (let s = 0; s < words; ) {
      if (!isShape(shapes, s)) return false;
      const shape = shapes.subarray(s, s + shapeLength(shapes, s));
      const code = bytes.subarray(at, at + codeLength(shape));
      if (!isCode(code, codeLength(shape), imports.length)) return false;
      this.#add({ shape, code });
      s += shape.length;
      at += code.length;
    }
    return at === bytes.length;
  }
}

/** The code of a region as the archive has it: words of {@link CODE_HEAD}, the calls, the body, and its branch hints. */
function encodeCode({ bytes, hints }: PortableBody, calls: readonly number[]): Uint8Array {
  const words = [bytes.length, calls.length, hints.length, ...calls];
  const code = new Uint8Array(words.length * 4 + padded(bytes.length + hints.length));
  new Uint32Array(code.buffer, 0, words.length).set(words);
  code.set(bytes, words.length * 4);
  code.set(hints, words.length * 4 + bytes.length);
  return code;
}

const wordsOf = (code: Uint8Array): Uint32Array => new Uint32Array(code.buffer, code.byteOffset, code.length >> 2);

/** Whether a piece of an archive is a region's code. What its instructions are, is for V8 to check. */
function isCode(code: Uint8Array, length: number, imports: number): boolean {
  if (code.length !== length || length % 4 !== 0 || length < CODE_HEAD * 4) return false;
  const words = wordsOf(code);
  const [body, calls, hints] = words as unknown as [number, number, number];
  if (body > MAX_BODY || calls > words.length || hints > length) return false;
  if ((CODE_HEAD + calls) * 4 + padded(body + hints) !== length) return false;
  return words.subarray(CODE_HEAD, CODE_HEAD + calls).every((call) => {
    const at = Math.floor(call / MAX_IMPORTS);
    return at + CALL_INDEX_SIZE <= body && call % MAX_IMPORTS < imports;
  });
}

const TYPES = Object.keys(TYPE_BYTE);

/** The functions that an archive's code imports. @returns `undefined` where the bytes are something else */
function parseImports(bytes: Uint8Array): readonly ImportedFunction[] | undefined {
  let list: unknown;
  try {
    list = JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    return undefined;
  }
  return Array.isArray(list) && list.length <= MAX_IMPORTS && list.every(isImport) ? list : undefined;
}

function isImport(value: unknown): value is ImportedFunction {
  if (typeof value !== 'object' || value === null) return false;
  const { kind, name, signature } = value as Partial<ImportedFunction>;
  const areTypes = (types: unknown): boolean => Array.isArray(types) && types.every((type) => TYPES.includes(type));
  const isNamed = (kind === 'helper' || kind === 'memory') && typeof name === 'string';
  return isNamed && areTypes(signature?.params) && areTypes(signature?.results);
}

/** A region's function, from the code that an archive has of it. */
class KeptFunction implements ModuleFunction {
  readonly #code: Uint8Array;
  readonly #indices: readonly number[];

  /** @param indices of the archive's imports in the module */
  constructor(code: Uint8Array, indices: readonly number[]) {
    this.#code = code;
    this.#indices = indices;
  }

  get hasHints(): boolean {
    return wordsOf(this.#code)[2] !== 0;
  }

  writeHints(out: ByteWriter): void {
    const [size, calls, hints] = wordsOf(this.#code) as unknown as [number, number, number];
    const start = (CODE_HEAD + calls) * 4 + size;
    out.raw(this.#code.subarray(start, start + hints));
  }

  write(out: ByteWriter): void {
    const words = wordsOf(this.#code);
    const [size, calls] = words as unknown as [number, number];
    const start = (CODE_HEAD + calls) * 4;
    const body = this.#code.slice(start, start + size);
    for (const call of words.subarray(CODE_HEAD, CODE_HEAD + calls))
      setCallIndex(body, Math.floor(call / MAX_IMPORTS), this.#indices[call % MAX_IMPORTS]!);
    out.u32(size);
    out.raw(body);
  }
}
