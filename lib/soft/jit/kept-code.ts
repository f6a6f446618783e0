import type { KeptReply } from './compiler-thread.js';
import { readShape, type Shape, shapeLength } from './kept-shape.js';
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

const HASH = 0x9e37_79b1;

/** Regions that were kept of earlier runs, for one machine: finds those that are right for a place. */
export class KeptCode {
  readonly #shapes: readonly Shape[];
  readonly #exports: Readonly<Record<string, unknown>>;
  readonly #used: Uint8Array;
  /** By {@link #hash}: the number of a region plus 1; 0 where there is none. And the next that has the same hash. */
  readonly #first: Uint16Array | Uint32Array;
  readonly #next: Uint32Array;
  readonly #shift: number;

  /** @throws whatever WebAssembly says of a module that is none of this engine's */
  constructor({ module, imports, shapes, used }: KeptReply, linkage: Linkage) {
    this.#exports = link(module, imports, linkage).exports;
    this.#used = used;
    const list: Shape[] = [];
    for (let at = 0; at < shapes.length; at += shapeLength(shapes, at)) list.push(readShape(shapes, at));
    this.#shapes = list;
    const bits = Math.ceil(Math.log2(list.length + 1)) + 3;
    this.#shift = 32 - bits;
    this.#first = new Uint32Array(1 << bits);
    this.#next = new Uint32Array(list.length);
    // The longest come first, because the last to be put in is the first to be found.
    const order = list.map((_, n) => n).sort((a, b) => list[a]!.positions.length - list[b]!.positions.length);
    for (const n of order) {
      const { positions, instructions, guarded } = list[n]!;
      const hash = this.#hash(positions[0]!, instructions[0]!, guarded);
      this.#next[n] = this.#first[hash]!;
      this.#first[hash] = n + 1;
    }
  }

  #hash(position: number, word: number, guarded: boolean): number {
    return Math.imul(word ^ Math.imul(position * 2 + (guarded ? 1 : 0), HASH), HASH) >>> this.#shift;
  }

  /**
   * The region of an entry.
   * @param position of the entry in the page, in instructions
   * @param u32 linear memory
   * @param page linear address of the page
   */
  find(position: number, guarded: boolean, u32: Uint32Array, page: number): KeptRegion | undefined {
    const start = page >>> 2;
    for (let n = this.#first[this.#hash(position, u32[start + position]!, guarded)]!; n !== 0; n = this.#next[n - 1]!) {
      const shape = this.#shapes[n - 1]!;
      if (shape.guarded !== guarded || shape.positions[0] !== position || !isThere(shape, u32, start)) continue;
      this.#used[n - 1] = 1;
      const { entries, positions } = shape;
      return { f: this.#exports[regionExport(n - 1)], entries, positions };
    }
    return undefined;
  }
}

/** Whether a page has all of a shape's instructions. @param start index of its first word */
function isThere({ instructions, positions }: Shape, u32: Uint32Array, start: number): boolean {
  for (let n = 0; n < instructions.length; n++) if (u32[start + positions[n]!] !== instructions[n]) return false;
  return true;
}
