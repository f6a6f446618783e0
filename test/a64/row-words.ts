import type { Decoder } from '#lib/soft/a64/decode.js';
import type { Row } from '#lib/soft/a64/row.js';
import { type Disassembler, mayBeUndefined } from './disassemblers.ts';
import type { Random } from './random.ts';

/** Instruction words of the table's rows, and whether a disassembler takes them for the same. */

export const hex = (word: number): string => (word >>> 0).toString(16).padStart(8, '0');

/** A word with the row's fixed bits; another row may have it. */
export const anyWordOf = (row: Row, random: Random): number => ((random.u32() & ~row.mask) | row.value) >>> 0;

/** A near miss: such a word with one or two bits turned over. */
export const nearMiss = (row: Row, random: Random): number =>
  (anyWordOf(row, random) ^ (1 << random.below(32)) ^ (random.below(3) === 0 ? 1 << random.below(32) : 0)) >>> 0;

/** Words that decode to the row: `count`, or as many as are among `tries`. */
export function wordsOf(decoder: Decoder, row: Row, random: Random, count: number, tries: number): number[] {
  const out: number[] = [];
  for (let n = 0; n < tries && out.length < count; n++) {
    const word = anyWordOf(row, random);
    if (decoder.decode(word) === row) out.push(word);
  }
  return out;
}

/** A word that decodes to a row. */
export interface RowWord {
  readonly row: Row;
  readonly word: number;
}

/** Whether a disassembler's text is an instruction of the row. */
export type Fits = (row: Row, word: number, text: string) => boolean;

/** What is wrong with the text of a word; `undefined` where nothing is. */
export function misfit(
  disassembler: Disassembler,
  { row, word }: RowWord,
  text: string | undefined,
  fits: Fits,
): string | undefined {
  const isRight = text === undefined ? mayBeUndefined(disassembler, row, word) : fits(row, word, text);
  return isRight ? undefined : `${hex(word)} ${row.name}: ${text ?? 'undefined'}`;
}

/** What is wrong with the texts of words. */
export function misfits(disassembler: Disassembler, cases: readonly RowWord[], fits: Fits): string[] {
  const texts = disassembler.disassemble(cases.map(({ word }) => word));
  return cases.flatMap((c, i) => misfit(disassembler, c, texts[i], fits) ?? []);
}
