import type { Decoder } from '../a64/decode.js';
import type { Helper, Stmt } from '../a64/emitter.js';
import { fieldsOf, type Row } from '../a64/row.js';
import { emitRow, isSpBased, staticsOf } from './handler.js';
import { type FlagEffect, flagEffect } from './lazy-flags.js';
import { helpersOf, memoryAccesses } from './linkage.js';
import { operandReader, type RawFields } from './operands.js';
import { type WordUse, wordUse } from './word-use.js';

/** An instruction word as the compiler wants it. */
export interface Instruction {
  readonly word: number;
  readonly row: Row;
  readonly meaning: Meaning;
  /** Operands by field, as {@link operandReader} gives them for reading and for writing. */
  readonly reads: Readonly<Record<string, number>>;
  readonly writes: Readonly<Record<string, number>>;
  readonly imm: bigint | number | undefined;
  /** A load or store with SP as its base. */
  readonly isSpBased: boolean;
  /** If it writes SP, it adds a multiple of 16 to it. */
  readonly movesSpBy16: boolean;
}

/** What an instruction does whatever its operands are. Instructions share it; the lowering leaves it as it was. */
export interface Meaning {
  readonly program: readonly Stmt[];
  /** The same where SP is known to be aligned. */
  readonly spAligned: readonly Stmt[];
  /** Whether it may be part of a region. */
  readonly allowed: boolean;
  /** What a module with it must import. */
  readonly helpers: readonly Helper[];
  readonly memoryFunctions: readonly string[];
  /** What it does with NZCV. */
  readonly flags: FlagEffect;
  readonly words: WordUse;
  readonly end: 'none' | 'branch' | 'conditional' | 'call' | 'return' | 'indirect' | 'leave';
}

/** Words remembered at most. */
const MAX_WORDS = 1 << 15;

/** Decodes for the compiler, and remembers: regions overlap, and programs say the same words again and again. */
export class Instructions {
  readonly #decoder: Decoder;
  readonly #byWord = new Map<number, Instruction | undefined>();
  readonly #guarded = new Map<number, Instruction | undefined>();
  readonly #meanings = new Map<Row, Map<string, Meaning>>();

  constructor(decoder: Decoder) {
    this.#decoder = decoder;
  }

  /** The instruction, or `undefined` where the word is not allocated. @param guarded its page is guarded */
  of(word: number, guarded: boolean): Instruction | undefined {
    const byWord = guarded ? this.#guarded : this.#byWord;
    let found = byWord.get(word);
    if (found !== undefined || byWord.has(word)) return found;
    if (byWord.size >= MAX_WORDS) byWord.clear();
    const row = this.#decoder.decode(word);
    if (row !== undefined) {
      const raw = fieldsOf(row, word);
      raw.guarded = guarded ? 1 : 0;
      const reads: Record<string, number> = {};
      const writes: Record<string, number> = {};
      const names = row.fields.filter((f) => f.kind === 'data' || f.kind === 'static').map((f) => f.name);
      for (const name of [...names, ...Object.keys(row.ops)]) reads[name] = operandReader(row, name)(raw);
      for (const { name, kind } of row.fields) {
        if (kind === 'data' || kind === 'static') continue;
        reads[name] = operandReader(row, `${name}.r`)(raw);
        writes[name] = operandReader(row, `${name}.w`)(raw);
      }
      const spBased = isSpBased(row, raw);
      found = {
        word,
        row,
        meaning: this.#meaning(row, raw, spBased),
        reads,
        writes,
        imm: row.imm?.(raw),
        isSpBased: spBased,
        movesSpBy16: movesSpBy16(row, raw, spBased),
      };
    }
    byWord.set(word, found);
    return found;
  }

  #meaning(row: Row, raw: RawFields, spBased: boolean): Meaning {
    let byKey = this.#meanings.get(row);
    if (byKey === undefined) {
      byKey = new Map();
      this.#meanings.set(row, byKey);
    }
    const key = staticsOf(row, raw) + (spBased ? 'sp' : '');
    let meaning = byKey.get(key);
    if (meaning === undefined) {
      const { body } = emitRow(row, raw);
      meaning = examine(row, body, spBased ? emitRow(row, raw, true).body : body);
      byKey.set(key, meaning);
    }
    return meaning;
  }
}

/** Whether an instruction that writes SP adds a multiple of 16 to it: ADD and SUB (immediate), and accesses with write-back. */
function movesSpBy16(row: Row, raw: RawFields, spBased: boolean): boolean {
  if (raw.Rn !== 31 || !(spBased || /^(ADD|SUB) \(immediate\)/.test(row.name))) return false;
  const step = row.imm?.(raw) ?? row.ops.offset?.(raw);
  return step !== undefined && (Number(BigInt.asIntN(64, BigInt(step))) & 15) === 0;
}

function examine(row: Row, program: readonly Stmt[], spAligned: readonly Stmt[]): Meaning {
  const end = endOf(row, program.at(-1));
  const helpers = [...new Map([...helpersOf(program)].map((h) => [h.name, h])).values()];
  // What ends a run of code without branching leaves for the machine, and MSR (immediate) changes which stack pointer SP is.
  const allowed =
    (!row.ends || end !== 'none') && row.name !== 'MSR (immediate)' && !program.some((s) => s.k === 'exit');
  const flags = flagEffect(program);
  const words = wordUse(program);
  return {
    program,
    spAligned,
    allowed,
    flags,
    words,
    helpers,
    memoryFunctions: [...new Set(memoryAccesses(program))],
    end,
  };
}

/** How the code goes on behind an instruction whose program ends so. */
function endOf(row: Row, last: Stmt | undefined): Meaning['end'] {
  if (last?.k === 'jump') return last.cond !== undefined ? 'conditional' : row.name === 'BL' ? 'call' : 'branch';
  // A return needs no landing pad.
  if (last?.k === 'jumpTo') return last.btype === undefined ? 'return' : 'indirect';
  // Changed code must be seen behind it.
  return row.name === 'ISB' ? 'leave' : 'none';
}
