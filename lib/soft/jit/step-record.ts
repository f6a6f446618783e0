import type { Decoder } from '../a64/decode.js';
import type { HelperEnv } from '../a64/helpers.js';
import { RECORD_SHIFT, RECORD_SIZE } from './handler.js';
import { FETCH_TABLE_SIZE, type Interpreter, PAGE_END } from './interpreter.js';
import { RecordWriter } from './record-writer.js';

/** Bytes of linear memory that a {@link StepRecord} needs. */
export const STEP_AREA = FETCH_TABLE_SIZE + 2 * RECORD_SIZE;

/**
 * One decoded instruction that is not part of a page's records, and behind it the end of a page: the interpreter executes it
 * and looks for the next instruction anew. So instructions are executed one by one where each must be looked at before.
 */
export class StepRecord {
  readonly #env: HelperEnv;
  readonly #decoder: Decoder;
  readonly #record: number;
  /** For pages that are not guarded, and for those that are. */
  readonly #writers: [RecordWriter?, RecordWriter?] = [];
  /** Address of a fetch table that answers nothing: with it, every instruction is asked for. */
  readonly emptyFetchTable: number;

  /** @param area linear address of STEP_AREA bytes */
  constructor(env: HelperEnv, decoder: Decoder, area: number) {
    this.#env = env;
    this.#decoder = decoder;
    this.emptyFetchTable = area;
    env.u8.fill(0xff, area, area + FETCH_TABLE_SIZE);
    this.#record = area + FETCH_TABLE_SIZE;
  }

  /**
   * Decodes an instruction.
   * @param guarded its page is guarded
   * @param lo low half of its address
   * @returns the address that the records of its page would have
   */
  prepare(interpreter: Interpreter, word: number, guarded: boolean, lo: number): number {
    const { u16, u32 } = this.#env;
    const at = this.#record;
    const which = guarded ? 1 : 0;
    this.#writers[which] ??= new RecordWriter(this.#decoder, interpreter, guarded);
    this.#writers[which].write(word, undefined, u16, u32, at);
    u16[(at + RECORD_SIZE) >>> 1] = PAGE_END;
    return at - ((lo & 0xffc) << (RECORD_SHIFT - 2));
  }

  /** Whether a record is this one: it is never worth compiling. */
  holds(record: number): boolean {
    return record >= this.#record && record <= this.#record + RECORD_SIZE;
  }
}
