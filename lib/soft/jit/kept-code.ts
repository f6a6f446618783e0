import type { KeptModuleReply, KeptPart } from './compiler-thread.js';
import { isShapeAt, readShape, shapeEntry, shapeInstructions, shapeLength } from './kept-shape.js';
import { type Linkage, link } from './linkage.js';
import { regionExport } from './region-compiler.js';

/** A kept region as a machine uses it. */
export interface KeptRegion {
  /** Its function. */
  readonly f: unknown;
  /** Positions in the page where it may be entered. */
  readonly entries: Uint16Array;
  /** Positions of all of its instructions. */
  readonly positions: Uint16Array;
}

/** Where a kept region was found whose part was not there yet. */
export interface Place {
  /** Linear address of the page. */
  readonly page: number;
  readonly guarded: boolean;
  /** Of the entry in the page, in instructions. */
  readonly position: number;
}

/** A part as a machine has it. */
interface Part {
  readonly id: number;
  readonly words: Uint32Array;
  readonly halves: Uint16Array;
  /** What its module exports, once it is there. */
  exports: Readonly<Record<string, unknown>> | undefined;
  /** Since it was asked for; `undefined` before. */
  waiting: Place[] | undefined;
  /** There is no module of it, or none that can be linked. */
  isLost: boolean;
}

interface Entry {
  readonly part: Part;
  /** Its number in the part, and where its shape is there. */
  readonly number: number;
  readonly at: number;
}

const HASH = 0x9e37_79b1;
const FIRST_BITS = 8;
/** Places at which a part is waited for, at most. */
const MAX_WAITING = 4096;

/**
 * Regions that were kept of earlier runs, for one machine: finds those that are right for a place. They are in parts, whose modules
 * are asked for when the first region of each is found.
 */
export class KeptCode {
  readonly #linkage: Linkage;
  readonly #request: (part: number) => void;
  readonly #parts = new Map<number, Part>();
  readonly #entries: Entry[] = [];
  /** By {@link #hash}: the number of an entry plus 1; 0 where there is none. And the next that has the same hash, which is no longer. */
  #first = new Uint32Array(1 << FIRST_BITS);
  #next = new Uint32Array(1 << FIRST_BITS);
  #shift = 32 - FIRST_BITS;

  /** @param request asks for the module of a part, which {@link arrived} is given then or later */
  constructor(linkage: Linkage, request: (part: number) => void) {
    this.#linkage = linkage;
    this.#request = request;
  }

  /** Has their regions be found, too. */
  add(parts: readonly KeptPart[]): void {
    const old = this.#entries.length;
    for (const { id, shapes } of parts) {
      const halves = new Uint16Array(shapes.buffer, shapes.byteOffset, shapes.length * 2);
      const part: Part = { id, words: shapes, halves, exports: undefined, waiting: undefined, isLost: false };
      this.#parts.set(id, part);
      for (let at = 0, number = 0; at < shapes.length; at += shapeLength(shapes, at), number++)
        this.#entries.push({ part, number, at });
    }
    const isCrowded = this.#entries.length * 4 > this.#first.length;
    if (isCrowded) this.#grow();
    for (let n = isCrowded ? 0 : old; n < this.#entries.length; n++) this.#insert(n);
  }

  #grow(): void {
    const bits = Math.ceil(Math.log2(this.#entries.length)) + 3;
    this.#shift = 32 - bits;
    this.#first = new Uint32Array(1 << bits);
    this.#next = new Uint32Array(1 << bits);
  }

  /** Puts an entry before those with the same hash that are shorter, because the first is found. */
  #insert(n: number): void {
    const { part, at } = this.#entries[n]!;
    const { position, word, guarded } = shapeEntry(part.words, part.halves, at);
    const length = shapeInstructions(part.words, at);
    const hash = this.#hash(position, word, guarded);
    let before = 0;
    let after = this.#first[hash]!;
    while (after !== 0 && this.#lengthOf(after - 1) > length) {
      before = after;
      after = this.#next[after - 1]!;
    }
    this.#next[n] = after;
    if (before === 0) this.#first[hash] = n + 1;
    else this.#next[before - 1] = n + 1;
  }

  #lengthOf(n: number): number {
    const { part, at } = this.#entries[n]!;
    return shapeInstructions(part.words, at);
  }

  #hash(position: number, word: number, guarded: boolean): number {
    return Math.imul(word ^ Math.imul(position * 2 + (guarded ? 1 : 0), HASH), HASH) >>> this.#shift;
  }

  /**
   * The region of an entry; `undefined`, too, where its part is not there yet.
   * @param position of the entry in the page, in instructions
   * @param u32 linear memory
   * @param page linear address of the page
   */
  find(position: number, guarded: boolean, u32: Uint32Array, page: number): KeptRegion | undefined {
    const start = page >>> 2;
    for (let n = this.#first[this.#hash(position, u32[start + position]!, guarded)]!; n !== 0; n = this.#next[n - 1]!) {
      const { part, number, at } = this.#entries[n - 1]!;
      if (part.isLost || !isShapeAt(part.words, part.halves, at, position, guarded, u32, start)) continue;
      if (part.exports === undefined) {
        this.#await(part, { page, guarded, position });
        return undefined;
      }
      const { entries, positions } = readShape(part.words, at);
      return { f: part.exports[regionExport(number)], entries, positions };
    }
    return undefined;
  }

  #await(part: Part, place: Place): void {
    if (part.waiting === undefined) {
      part.waiting = [];
      this.#request(part.id);
    }
    // Where it never comes, what is hot is compiled anew.
    if (part.waiting.length < MAX_WAITING) part.waiting.push(place);
  }

  /** Takes the module of a part. @returns where regions of it were found meanwhile, to be looked for again */
  arrived({ part: id, found }: KeptModuleReply): readonly Place[] {
    const part = this.#parts.get(id);
    if (part === undefined) return [];
    try {
      part.exports = found === undefined ? undefined : link(found.module, found.imports, this.#linkage).exports;
    } catch {
      // Not what this engine can use: it does without.
    }
    part.isLost = part.exports === undefined;
    const places = part.waiting ?? [];
    part.waiting = undefined;
    return places;
  }
}
