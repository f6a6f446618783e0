import type { Decoder } from '../a64/decode.js';
import type { Handler, Interpreter } from './interpreter.js';
import { RecordWriter } from './record-writer.js';

const PAGE = 4096;
/** Words remembered; each takes 24 bytes. A boot of Debian has 70,000, some of them a hundred times. */
const ENTRY_BITS = 16;
/** u32 words of an entry: the record, then the instruction word and what is known of it. */
const ENTRY_WORDS = 6;
const WORD = 4;
const KIND = 5;

/** What is known of a remembered word. 0 is an entry that holds none. */
const Kind = { ORDINARY: 1, ENDS: 2, UNDEFINED: 3, NEAR: 4, FAR: 5 } as const;

/**
 * Makes decoded records from instruction words. What a word decodes to is remembered: programs say the same few thousand words
 * again and again, and to look one up costs a fiftieth of decoding it.
 */
export class RecordCache {
  readonly #interpreter: Interpreter;
  readonly #writer: RecordWriter;
  readonly #entries = new Uint32Array((1 << ENTRY_BITS) * ENTRY_WORDS);
  readonly #halves = new Uint16Array(this.#entries.buffer);

  /** @param guarded for instructions of guarded pages */
  constructor(decoder: Decoder, interpreter: Interpreter, guarded: boolean) {
    this.#interpreter = interpreter;
    this.#writer = new RecordWriter(decoder, interpreter, guarded);
  }

  /**
   * Writes the record of an instruction, its handler's number last.
   * @param position byte offset of the instruction in its page: a direct branch within the page has another handler than one out of it
   * @param u32 linear memory
   * @param at byte address of the record
   * @returns whether a straight run of code ends here
   */
  write(word: number, position: number, u32: Uint32Array, at: number): boolean {
    const entries = this.#entries;
    const entry = (Math.imul(word, 0x9e37_79b1) >>> (32 - ENTRY_BITS)) * ENTRY_WORDS;
    let kind = entries[entry + KIND]!;
    if (kind === 0 || entries[entry + WORD] !== word || (kind >= Kind.NEAR && !this.#stands(entry, kind, position))) {
      kind = this.#decode(word, position, entry);
    }
    const to = at >>> 2;
    u32[to + 1] = entries[entry + 1]!;
    u32[to + 2] = entries[entry + 2]!;
    u32[to + 3] = entries[entry + 3]!;
    u32[to] = entries[entry]!;
    return kind !== Kind.ORDINARY;
  }

  /** Whether the entry of a direct branch is right for a position: byte 8 has the distance, in bytes where it is far. */
  #stands(entry: number, kind: number, position: number): boolean {
    const distance = this.#entries[entry + 2]! | 0;
    // A near branch counts in records, which are four times as long as instructions.
    const target = position + (kind === Kind.NEAR ? distance >> 2 : distance);
    return (target >= 0 && target < PAGE) === (kind === Kind.NEAR);
  }

  #decode(word: number, position: number, entry: number): number {
    const entries = this.#entries;
    const halves = this.#halves;
    entries.fill(0, entry, entry + WORD);
    entries[entry + WORD] = word;
    const handler = this.#writer.write(word, position, halves, entries, entry * 4);
    const kind = this.#kindOf(handler);
    entries[entry + KIND] = kind;
    return kind;
  }

  #kindOf(handler: Handler | undefined): number {
    if (handler === undefined) return Kind.UNDEFINED;
    if (this.#interpreter.isDirectBranch(handler.row)) return handler.near ? Kind.NEAR : Kind.FAR;
    return handler.row.ends ? Kind.ENDS : Kind.ORDINARY;
  }
}
