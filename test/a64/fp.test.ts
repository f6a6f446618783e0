import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { fp } from '#lib/soft/a64/fp.js';
import { createFpHelpers } from '#lib/soft/a64/fp-helpers.js';
import { fieldsOf, type Row } from '#lib/soft/a64/row.js';
import { casesOf, wordsOf } from './fp-cases.ts';
import { Random } from './fp-operands.ts';
import { QemuOracle } from './fp-oracle.ts';
import { RowRunner } from './fp-runner.ts';

/** States tried for each word. */
const PER_WORD = Number(process.env['FP_CASES'] ?? 400);
const hex = (v: bigint | number): string => `0x${v.toString(16)}`;

/** Bytes of a row's operands. */
function operandBytes(row: Row, word: number): 2 | 4 | 8 {
  const type = fieldsOf(row, word)['type'] ?? (word >>> 22) & 3;
  return type === 1 ? 8 : type === 3 ? 2 : 4;
}

describe('scalar floating point as qemu-aarch64 does it', () => {
  let oracle: QemuOracle;
  let runner: RowRunner;
  beforeAll(() => {
    oracle = new QemuOracle();
    runner = new RowRunner(fp, createFpHelpers);
  });
  afterAll(() => oracle?.close());

  test.each(fp.map((r) => [r.name, r] as const))('%s', (_name, row) => {
    const random = new Random(row.value);
    const cases = [...wordsOf(row, random)].flatMap((word) => {
      expect(runner.rowOf(word)).toBe(row);
      return casesOf(word, operandBytes(row, word), PER_WORD, random);
    });
    const expected = oracle.run(cases);
    const differing: string[] = [];
    cases.forEach((c, n) => {
      const got = runner.run(c);
      const want = expected[n]!;
      if (got.x0 === want.x0 && got.v0 === want.v0 && got.nzcv === want.nzcv && got.fpsr === want.fpsr) return;
      if (differing.length < 4) {
        const show = (o: typeof got): string => `x0=${hex(o.x0)} v0=${hex(o.v0)} nzcv=${hex(o.nzcv)} fpsr=${hex(o.fpsr)}`;
        differing.push(
          `${hex(c.word)} fpcr=${hex(c.fpcr)} fpsr=${hex(c.fpsr)} nzcv=${hex(c.nzcv)} x1=${hex(c.x1)} v=${c.v.map(hex).join(' ')}\n got ${show(got)}\nwant ${show(want)}`,
        );
      }
    });
    expect(differing).toEqual([]);
  });
});
