import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { createFpHelpers } from '#lib/soft/a64/fp-helpers.js';
import { fieldsOf, type Row } from '#lib/soft/a64/row.js';
import { casesOf, wordsOf } from './fp-cases.ts';
import { Random } from './fp-operands.ts';
import { type FpCase, type FpOutcome, QemuOracle } from './fp-oracle.ts';
import { RowRunner } from './fp-runner.ts';

/** States tried for each row, over all its words. FP_CASES asks for more. */
const PER_ROW = Number(process.env.FP_CASES ?? 1500);
const hex = (v: bigint | number): string => `0x${v.toString(16)}`;

/** Bytes of the operands of an instruction, from its row's name and fields. */
function operandBytes(row: Row, word: number): 2 | 4 | 8 {
  const { type, sz, size } = fieldsOf(row, word);
  if (row.name.includes('half')) return row.name.includes('single to') ? 4 : row.name.includes('double to') ? 8 : 2;
  if (row.name.includes('double')) return row.name.includes('single to') ? 4 : 8;
  if (type !== undefined) return type === 1 ? 8 : type === 3 ? 2 : 4;
  if (row.name === 'FCVTL') return sz === 1 ? 4 : 2;
  if (row.name.startsWith('FCVTXN')) return 8;
  if (/^FML[AS]L/.test(row.name)) return 2;
  if (row.name.startsWith('FC') && size !== undefined) return size === 1 ? 2 : size === 2 ? 4 : 8;
  return sz === 1 ? 8 : 4;
}

/** Where QEMU 7.2 does not do what the Arm ARM says. */
function qemuIsWrong(row: Row, c: FpCase): boolean {
  const magnitude = c.v[1] & 0x7fff_ffff_ffff_ffffn;
  // By FPToFixedJS, and in later releases, a denormal that FZ flushes is not converted exactly.
  if (row.name === 'FJCVTZS') return (c.fpcr & (1 << 24)) !== 0 && magnitude > 0n && magnitude < 1n << 52n;
  // A negative 16-bit result is sign-extended to 32 bits.
  if (row.name === 'FCVTZS (scalar, SIMD, fixed-point, half)') return (c.v[1] & 0x8000n) !== 0n;
  return false;
}

/** Compares rows with qemu-aarch64, state for state. */
export function differential(title: string, rows: readonly Row[]): void {
  describe(title, () => {
    let oracle: QemuOracle;
    let runner: RowRunner;
    beforeAll(() => {
      oracle = new QemuOracle();
      runner = new RowRunner(rows, createFpHelpers);
    });
    afterAll(() => oracle?.close());

    test.each(rows.map((r) => [r.name, r] as const))('%s', (_name, row) => {
      const random = new Random(row.value);
      const words = [...wordsOf(row, random)];
      const count = Math.max(8, Math.ceil(PER_ROW / words.length));
      const cases = words
        .flatMap((word) => {
          expect(runner.rowOf(word)).toBe(row);
          return casesOf(word, operandBytes(row, word), count, random);
        })
        .filter((c) => !qemuIsWrong(row, c));
      const expected = oracle.run(cases);
      const differing: string[] = [];
      cases.forEach((c, n) => {
        const got = runner.run(c);
        const want = expected[n]!;
        if (got.x0 === want.x0 && got.v0 === want.v0 && got.nzcv === want.nzcv && got.fpsr === want.fpsr) return;
        if (differing.length < 4) differing.push(describeDifference(c, got, want));
      });
      expect(differing).toEqual([]);
    });
  });
}

function describeDifference(c: FpCase, got: FpOutcome, want: FpOutcome): string {
  const show = (o: FpOutcome): string => `x0=${hex(o.x0)} v0=${hex(o.v0)} nzcv=${hex(o.nzcv)} fpsr=${hex(o.fpsr)}`;
  const state = `fpcr=${hex(c.fpcr)} fpsr=${hex(c.fpsr)} nzcv=${hex(c.nzcv)} x1=${hex(c.x1)} v=${c.v.map(hex).join(' ')}`;
  return `${hex(c.word)} ${state}\n got ${show(got)}\nwant ${show(want)}`;
}
