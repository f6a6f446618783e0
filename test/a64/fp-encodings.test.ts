import { describe, expect, test } from '@jest/globals';
import { advsimdFp } from '#lib/soft/a64/advsimd-fp.js';
import { Decoder } from '#lib/soft/a64/decode.js';
import { fp } from '#lib/soft/a64/fp.js';
import { fieldsOf, type Row } from '#lib/soft/a64/row.js';
import { TABLE } from '#lib/soft/a64/table.js';
import { eachDisassembler } from './disassemblers.ts';
import { Random } from './random.ts';
import { hex, misfit, misfits, nearMiss, wordsOf } from './row-words.ts';

/** The encodings of the floating-point rows, scalar and vector, against those of binutils. */

const ROWS: readonly Row[] = [...fp, ...advsimdFp];

/** Whether binutils' text is an instruction of the row: the mnemonic, and every register in its place. */
function fits(row: Row, word: number, text: string): boolean {
  const base = (/^[A-Z0-9]+/.exec(row.name)?.[0] ?? '').toLowerCase();
  const [mnemonic = ''] = text.split(' ');
  if (mnemonic !== base && mnemonic !== `${base}2`) return false;
  const f = fieldsOf(row, word);
  const registers = [...text.matchAll(/\b[vbhsdq](\d+)\b/g)].map((m) => Number(m[1]));
  const general = [...text.matchAll(/\b(?:[wx](\d+)|[wx]zr)\b/g)].map((m) => Number(m[1] ?? 31));
  const expected = ['Vd', 'Vn', 'Vm', 'Va'].flatMap((name) => f[name] ?? []);
  // FMADD and the like name Va last, and so does the text.
  return (
    registers.join() === expected.join() && general.join() === ['Rd', 'Rn'].flatMap((name) => f[name] ?? []).join()
  );
}

/** A row that none of so many words decodes to is hidden. */
const TRIES = 10_000;

describe('floating-point rows', () => {
  // The whole table: a row must not be hidden by one of another file either.
  const decoder = new Decoder(TABLE);
  const ours = new Set(ROWS);

  test('none is hidden by another, and none has another’s name', () => {
    const random = new Random();
    const hidden = ROWS.filter((row) => wordsOf(decoder, row, random, 1, TRIES).length === 0).map((row) => row.name);
    expect({ seed: random.seed, hidden }).toEqual({ seed: random.seed, hidden: [] });
    expect(new Set(ROWS.map((r) => r.name)).size).toBe(ROWS.length);
  });

  eachDisassembler('against', (disassembler) => {
    test('each is what it says, with its registers', () => {
      const random = new Random();
      const cases = ROWS.flatMap((row) => wordsOf(decoder, row, random, 24, TRIES).map((word) => ({ row, word })));
      const wrong = misfits(disassembler, cases, fits);
      expect({ seed: random.seed, wrong: wrong.slice(0, 20) }).toEqual({ seed: random.seed, wrong: [] });
    });

    test('near misses are decoded as it does, or not at all', () => {
      const random = new Random();
      const words = Array.from({ length: 40_000 }, () => nearMiss(random.pick(ROWS), random));
      const wrong: string[] = [];
      disassembler.disassemble(words).forEach((text, i) => {
        const word = words[i]!;
        const row = decoder.decode(word);
        if (row !== undefined && ours.has(row)) {
          const found = misfit(disassembler, { row, word }, text, fits);
          if (found !== undefined) wrong.push(found);
        } else if (row === undefined && /^([fsu]cvt|fml|fm|fadd|fsub|fdiv|frint|frecp|frsqrt|fc)/.test(text ?? '')) {
          // SVE has the same mnemonics. binutils ignores bit 22 of FMLAL and FMLSL (vector), which is 0.
          if (/\bz\d/.test(text ?? '')) return;
          if (!/^fml[as]l2? v\d+\.[24]s, v\d+\.[24]h, v\d+\.[24]h$/.test(text ?? ''))
            wrong.push(`${hex(word)} not decoded: ${text}`);
        }
      });
      expect({ seed: random.seed, wrong: wrong.slice(0, 20) }).toEqual({ seed: random.seed, wrong: [] });
    });
  });
});
