import type { Decoder } from '../a64/decode.js';
import { fieldsOf, type Row } from '../a64/row.js';
import { fillRecord, hasSpBase, UNDEFINED } from './handler.js';
import type { Handler, Interpreter } from './interpreter.js';

/** What tells the handlers of a row apart, as masks of the instruction word, and those that were asked for so far. */
interface RowHandlers {
  /** The static fields. */
  readonly statics: number;
  /** Of a load or store, the base register, which is all ones for SP; else 0. */
  readonly base: number;
  readonly isDirectBranch: boolean;
  /** By the static fields in place: for other bases or to other pages, for SP as the base, for branches within the page. */
  readonly usual: Map<number, Handler>;
  readonly onSp: Map<number, Handler>;
  readonly near: Map<number, Handler>;
}

const maskOf = (row: Row, wanted: (field: Row['fields'][number]) => boolean): number =>
  row.fields.filter(wanted).reduce((mask, f) => mask | ((2 ** f.width - 1) << f.lsb), 0);

/**
 * Decodes instructions into records. The interpreter knows a handler by what its row says of the instruction's fields; here it
 * is found again by bits of the word.
 */
export class RecordWriter {
  readonly #decoder: Decoder;
  readonly #interpreter: Interpreter;
  readonly #guarded: number;
  readonly #rows = new Map<Row, RowHandlers>();

  /** @param guarded for instructions of guarded pages */
  constructor(decoder: Decoder, interpreter: Interpreter, guarded: boolean) {
    this.#decoder = decoder;
    this.#interpreter = interpreter;
    this.#guarded = guarded ? 1 : 0;
  }

  /**
   * Writes the record of an instruction.
   * @param near whether a direct branch by so many bytes stays among the records of its page
   * @param at byte address of the record
   * @returns its handler, or `undefined` where the word is not allocated
   */
  write(
    word: number,
    near: (imm: number) => boolean,
    u16: Uint16Array,
    u32: Uint32Array,
    at: number,
  ): Handler | undefined {
    const row = this.#decoder.decode(word);
    if (row === undefined) {
      u16[at >>> 1] = UNDEFINED;
      return undefined;
    }
    const raw = fieldsOf(row, word);
    raw.guarded = this.#guarded;
    const known = this.#rows.get(row) ?? this.#add(row);
    const isNear = known.isDirectBranch && near(Number(row.imm!(raw)));
    const isOnSp = known.base !== 0 && (word & known.base) === known.base;
    const handlers = isNear ? known.near : isOnSp ? known.onSp : known.usual;
    const key = word & known.statics;
    let handler = handlers.get(key);
    if (handler === undefined) {
      handler = this.#interpreter.handler(row, raw, () => isNear);
      handlers.set(key, handler);
    }
    fillRecord(handler.layout, row, raw, handler.near, u16, u32, at);
    u16[at >>> 1] = handler.number;
    return handler;
  }

  #add(row: Row): RowHandlers {
    const added: RowHandlers = {
      statics: maskOf(row, (f) => f.kind === 'static'),
      base: hasSpBase(row) ? maskOf(row, (f) => f.name === 'Rn') : 0,
      isDirectBranch: this.#interpreter.isDirectBranch(row),
      usual: new Map(),
      onSp: new Map(),
      near: new Map(),
    };
    this.#rows.set(row, added);
    return added;
  }
}
