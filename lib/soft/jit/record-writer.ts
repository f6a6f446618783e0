import type { Decoder } from '../a64/decode.js';
import { fieldsOf, type Row, type WordFields, wordFields } from '../a64/row.js';
import { hasSpBase, UNDEFINED } from './handler.js';
import type { Handler, Interpreter } from './interpreter.js';
import { RecordPlan } from './record-plan.js';

const PAGE = 4096;

/** A handler, and how the records of its instructions are filled in. */
interface Way {
  readonly handler: Handler;
  readonly plan: RecordPlan;
}

/** What tells the handlers of a row apart, as masks of the instruction word, and those that were asked for so far. */
interface RowHandlers {
  readonly fields: WordFields;
  /** The static fields. */
  readonly statics: number;
  /** Of a load or store, the base register, which is all ones for SP; else 0. */
  readonly base: number;
  readonly isDirectBranch: boolean;
  /** By the static fields in place: for other bases or to other pages, for SP as the base, for branches within the page. */
  readonly usual: Map<number, Way>;
  readonly onSp: Map<number, Way>;
  readonly near: Map<number, Way>;
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
   * @param position byte offset of the instruction in its page; `undefined` where no other records of the page are there to branch to
   * @param at byte address of the record
   * @returns its handler, or `undefined` where the word is not allocated
   */
  write(
    word: number,
    position: number | undefined,
    u16: Uint16Array,
    u32: Uint32Array,
    at: number,
  ): Handler | undefined {
    const row = this.#decoder.decode(word);
    if (row === undefined) {
      u16[at >>> 1] = UNDEFINED;
      return undefined;
    }
    const known = this.#rows.get(row) ?? this.#add(row);
    const { fields } = known;
    fields.word = word;
    const isNear = known.isDirectBranch && position !== undefined && isInPage(position + Number(row.imm!(fields)));
    const isOnSp = known.base !== 0 && (word & known.base) === known.base;
    const ways = isNear ? known.near : isOnSp ? known.onSp : known.usual;
    const key = word & known.statics;
    let way = ways.get(key);
    if (way === undefined) {
      const handler = this.#interpreter.handler(row, fieldsOf(row, word), () => isNear);
      way = { handler, plan: new RecordPlan(row, handler.layout, handler.near) };
      ways.set(key, way);
    }
    const { handler, plan } = way;
    plan.write(fields, u16, u32, at);
    u16[at >>> 1] = handler.number;
    return handler;
  }

  #add(row: Row): RowHandlers {
    const fields = wordFields(row);
    fields.guarded = this.#guarded;
    const added: RowHandlers = {
      fields,
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

const isInPage = (offset: number): boolean => offset >= 0 && offset < PAGE;
