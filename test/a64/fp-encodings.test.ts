import { describe, expect, test } from '@jest/globals';
import { advsimdFp } from '#lib/soft/a64/advsimd-fp.js';
import { Decoder } from '#lib/soft/a64/decode.js';
import { fp } from '#lib/soft/a64/fp.js';
import { fieldsOf, type Row } from '#lib/soft/a64/row.js';
import { TABLE } from '#lib/soft/a64/table.js';
import { eachDisassembler, mayBeUndefined } from './disassemblers.ts';
import { Random } from './random.ts';

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

const hex = (word: number): string => (word >>> 0).toString(16).padStart(8, '0');

describe('floating-point rows', () => {
  // The whole table: a row must not be hidden by one of another file either.
  const decoder = new Decoder(TABLE);
  const ours = new Set(ROWS);

  function wordsOf(row: Row, random: Random, count: number): number[] {
    const out: number[] = [];
    for (let tries = 0; tries < 10_000 && out.length < count; tries++) {
      const word = ((random.u32() & ~row.mask) | row.value) >>> 0;
      if (decoder.decode(word) === row) out.push(word);
    }
    return out;
  }

  test('none is hidden by another, and none has another’s name', () => {
    const random = new Random();
    const hidden = ROWS.filter((row) => wordsOf(row, random, 1).length === 0).map((row) => row.name);
    expect({ seed: random.seed, hidden }).toEqual({ seed: random.seed, hidden: [] });
    expect(new Set(ROWS.map((r) => r.name)).size).toBe(ROWS.length);
  });

  eachDisassembler('against', (disassembler) => {
    test('each is what it says, with its registers', () => {
      const random = new Random();
      const cases = ROWS.flatMap((row) => wordsOf(row, random, 24).map((word) => ({ row, word })));
      const wrong: string[] = [];
      disassembler.disassemble(cases.map((c) => c.word)).forEach((text, i) => {
        const { row, word } = cases[i]!;
        if (text === undefined && mayBeUndefined(disassembler, row, word)) return;
        if (text === undefined || !fits(row, word, text))
          wrong.push(`${hex(word)} ${row.name}: ${text ?? 'undefined'}`);
      });
      expect({ seed: random.seed, wrong: wrong.slice(0, 20) }).toEqual({ seed: random.seed, wrong: [] });
    });

    test('near misses are decoded as it does, or not at all', () => {
      const random = new Random();
      const words = Array.from({ length: 40_000 }, () => {
        const row = random.pick(ROWS);
        const word = (random.u32() & ~row.mask) | row.value;
        return (word ^ (1 << random.below(32)) ^ (random.below(3) === 0 ? 1 << random.below(32) : 0)) >>> 0;
      });
      const wrong: string[] = [];
      disassembler.disassemble(words).forEach((text, i) => {
        const word = words[i]!;
        const row = decoder.decode(word);
        if (row !== undefined && ours.has(row)) {
          if (text === undefined && mayBeUndefined(disassembler, row, word)) return;
          if (text === undefined || !fits(row, word, text))
            wrong.push(`${hex(word)} ${row.name}: ${text ?? 'undefined'}`);
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
