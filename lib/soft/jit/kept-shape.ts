import type { Region } from './region.js';

/**
 * The shape of a kept region: everything that its function depends on. A row of 32-bit words: first those of {@link Word}, then the
 * instruction words, then, two in a word, their positions in the page, where the region may be entered, and which positions
 * devices have answered. The entry's instruction is the first.
 */
export interface Shape {
  readonly guarded: boolean;
  readonly instructions: Uint32Array;
  readonly positions: Uint16Array;
  readonly entries: Uint16Array;
  readonly devices: Uint16Array;
}

/** What is in the first words. */
const Word = {
  /** Words of the whole shape. */
  LENGTH: 0,
  /** Bytes of the region's code in the archive. */
  CODE: 1,
  GUARDED: 2,
  INSTRUCTIONS: 3,
  ENTRIES: 4,
  DEVICES: 5,
} as const;
const HEAD = 6;

const PAGE_INSTRUCTIONS = 1024;

const lengthOf = (instructions: number, halves: number): number => HEAD + instructions + ((halves + 1) >> 1);

/** The shape of a region as a row of words. */
export function shapeOf({ blocks, entries, devices }: Region, guarded: boolean): Uint32Array {
  const all = blocks.flatMap(({ index, instructions }) => instructions.map(({ word }, n) => ({ word, at: index + n })));
  const halves = [...all.map(({ at }) => at), ...entries, ...devices];
  const shape = new Uint32Array(lengthOf(all.length, halves.length));
  shape[Word.LENGTH] = shape.length;
  shape[Word.GUARDED] = guarded ? 1 : 0;
  shape[Word.INSTRUCTIONS] = all.length;
  shape[Word.ENTRIES] = entries.length;
  shape[Word.DEVICES] = devices.size;
  shape.set(
    all.map(({ word }) => word),
    HEAD,
  );
  new Uint16Array(shape.buffer, (HEAD + all.length) * 4).set(halves);
  return shape;
}

/** Reads the shape at a position of an array. */
export function readShape(words: Uint32Array, at: number): Shape {
  const count = words[at + Word.INSTRUCTIONS]!;
  const entryCount = words[at + Word.ENTRIES]!;
  const start = words.byteOffset + (at + HEAD + count) * 4;
  const halves = new Uint16Array(words.buffer, start, count + entryCount + words[at + Word.DEVICES]!);
  return {
    guarded: words[at + Word.GUARDED] === 1,
    instructions: words.subarray(at + HEAD, at + HEAD + count),
    positions: halves.subarray(0, count),
    entries: halves.subarray(count, count + entryCount),
    devices: halves.subarray(count + entryCount),
  };
}

export const shapeLength = (words: Uint32Array, at: number): number => words[at + Word.LENGTH]!;
export const codeLength = (shape: Uint32Array): number => shape[Word.CODE]!;

export function setCodeLength(shape: Uint32Array, bytes: number): void {
  shape[Word.CODE] = bytes;
}

/** Whether two shapes are the same: their functions are the same then. */
export const equalShapes = (a: Uint32Array, b: Uint32Array): boolean =>
  a.length === b.length && a.every((word, n) => word === b[n]);

/** A hash of what {@link equalShapes} compares. */
export function shapeHash(shape: Uint32Array): number {
  let hash = 0;
  for (let n = Word.GUARDED; n < shape.length; n++) hash = Math.imul(hash ^ shape[n]!, 0x9e37_79b1) ^ (hash >>> 15);
  return hash >>> 0;
}

/** How many instructions the shape at a position is of. */
export const shapeInstructions = (words: Uint32Array, at: number): number => words[at + Word.INSTRUCTIONS]!;

/** What a shape is looked for by: the position of its entry, its first instruction, and whether its page is guarded. */
export function shapeEntry(
  words: Uint32Array,
  halves: Uint16Array,
  at: number,
): { readonly position: number; readonly word: number; readonly guarded: boolean } {
  const instructions = words[at + Word.INSTRUCTIONS]!;
  const position = halves[(at + HEAD + instructions) << 1]!;
  return { position, word: words[at + HEAD]!, guarded: words[at + Word.GUARDED] === 1 };
}

/**
 * Whether a page is what a shape was compiled from, with the entry at a position.
 * @param halves the array of {@link words} in halves
 * @param u32 linear memory
 * @param start index of the page's first word in it
 */
export function isShapeAt(
  words: Uint32Array,
  halves: Uint16Array,
  at: number,
  position: number,
  guarded: boolean,
  u32: Uint32Array,
  start: number,
): boolean {
  const count = words[at + Word.INSTRUCTIONS]!;
  const first = at + HEAD;
  const positions = (first + count) << 1;
  if (halves[positions] !== position || (words[at + Word.GUARDED] === 1) !== guarded) return false;
  for (let n = 0; n < count; n++) if (u32[start + halves[positions + n]!] !== words[first + n]) return false;
  return true;
}

/** Whether there is a shape at a position, within the array, that can be read without looking any further. */
export function isShape(words: Uint32Array, at: number): boolean {
  if (at + HEAD > words.length) return false;
  const counts = [words[at + Word.INSTRUCTIONS]!, words[at + Word.ENTRIES]!, words[at + Word.DEVICES]!] as const;
  const [instructions, entryCount, deviceCount] = counts;
  if (counts.some((count) => count > PAGE_INSTRUCTIONS) || instructions === 0 || entryCount === 0) return false;
  const length = lengthOf(instructions, instructions + entryCount + deviceCount);
  if (words[at + Word.LENGTH] !== length || at + length > words.length || words[at + Word.GUARDED]! > 1) return false;
  const { positions, entries, devices } = readShape(words, at);
  return entries[0] === positions[0] && [positions, entries, devices].every((list) => list.every(isPosition));
}

const isPosition = (position: number): boolean => position < PAGE_INSTRUCTIONS;

/** Reads shapes that stand one behind the other. @returns `undefined` where that is not what the bytes are */
export function parseShapes(bytes: Uint8Array<ArrayBuffer>): Uint32Array<ArrayBuffer> | undefined {
  if (bytes.length % 4 !== 0 || bytes.byteOffset % 4 !== 0) return undefined;
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length >> 2);
  for (let at = 0; at < words.length; at += shapeLength(words, at)) if (!isShape(words, at)) return undefined;
  return words;
}
