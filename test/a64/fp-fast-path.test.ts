import { describe, expect, test } from '@jest/globals';
import { advsimdFp } from '#lib/soft/a64/advsimd-fp.js';
import { fp } from '#lib/soft/a64/fp.js';
import { createFpHelpers } from '#lib/soft/a64/fp-helpers.js';
import { RowRunner } from './fp-runner.ts';

/** The exact helpers cost a hundred times the host's arithmetic: ordinary work must not meet them. */

const view = new DataView(new ArrayBuffer(8));
const bits = (value: number): bigint => {
  view.setFloat64(0, value);
  return view.getBigUint64(0);
};
const bits32 = (value: number): bigint => {
  view.setFloat32(0, value);
  return BigInt(view.getUint32(0));
};
const double = (value: bigint): number => {
  view.setBigUint64(0, BigInt.asUintN(64, value));
  return view.getFloat64(0);
};

const IXC = 0x10;
/** Runs a word on V0 = V3 = c, V1 = a, V2 = b, spread over all lanes; the helpers called, V0 and FPSR. */
function run(word: number, fpsr: number, a: bigint, b = 0n, c = 0n): { helpers: string[]; v0: bigint; fpsr: number } {
  const runner = new RowRunner([...fp, ...advsimdFp], createFpHelpers);
  const outcome = runner.run({ word, nzcv: 0, fpcr: 0, fpsr, x1: 7n, x2: 0n, v: [c, a, b, c] });
  return { helpers: [...runner.calls.keys()], v0: outcome.v0, fpsr: outcome.fpsr };
}
const pair = (value: number): bigint => bits(value) | (bits(value) << 64n);
const quad = (value: number): bigint => {
  const two = bits32(value) | (bits32(value) << 32n);
  return two | (two << 64n);
};

describe('with IXC set, ordinary numbers stay on the host', () => {
  test.each([
    ['fadd d0, d1, d2', 0x1e622820, 0.1 + 0.7],
    ['fsub d0, d1, d2', 0x1e623820, 0.1 - 0.7],
    ['fmul d0, d1, d2', 0x1e620820, 0.1 * 0.7],
    ['fdiv d0, d1, d2', 0x1e621820, 0.1 / 0.7],
    ['fnmul d0, d1, d2', 0x1e628820, -(0.1 * 0.7)],
    ['fsqrt d0, d1', 0x1e61c020, Math.sqrt(0.1)],
    ['fmax d0, d1, d2', 0x1e624820, 0.7],
    ['fminnm d0, d1, d2', 0x1e627820, 0.1],
    ['frintx d0, d1', 0x1e674020, 0],
    ['fmadd d0, d1, d2, d3', 0x1f420c20, 0.1 * 0.7 + 3],
  ])('%s', (_name, word, want) => {
    const { helpers, v0 } = run(word, IXC, bits(0.1), bits(0.7), bits(3));
    expect(helpers).toEqual([]);
    expect(double(v0)).toBeCloseTo(want, 15);
  });

  test.each([
    ['fadd v0.2d, v1.2d, v2.2d', 0x4e62d420, pair],
    ['fmul v0.2d, v1.2d, v2.2d', 0x6e62dc20, pair],
    ['fmla v0.2d, v1.2d, v2.2d', 0x4e62cc20, pair],
    ['fadd v0.4s, v1.4s, v2.4s', 0x4e22d420, quad],
    ['fdiv v0.4s, v1.4s, v2.4s', 0x6e22fc20, quad],
    ['fmla v0.4s, v1.4s, v2.4s', 0x4e22cc20, quad],
    ['fmla v0.2s, v1.2s, v2.2s', 0x0e22cc20, quad],
    ['fmls v0.4s, v1.4s, v2.s[1]', 0x4fa25020, quad],
    ['fcvtzs v0.4s, v1.4s', 0x4ea1b820, quad],
    ['scvtf v0.4s, v1.4s', 0x4e21d820, quad],
    ['fcmgt v0.2d, v1.2d, v2.2d', 0x6ee2e420, pair],
    ['faddp v0.4s, v1.4s, v2.4s', 0x6e22d420, quad],
    ['fmaxnmv s0, v1.4s', 0x6e30c820, quad],
  ])('%s', (_name, word, of) => {
    expect(run(word, IXC, of(0.1), of(0.7), of(3)).helpers).toEqual([]);
  });
});

describe('without IXC, exact results stay on the host and raise nothing', () => {
  test.each([
    ['fadd d0, d1, d2', 0x1e622820, 3, 5, 8],
    ['fsub d0, d1, d2', 0x1e623820, 5, 5, 0],
    ['fmul d0, d1, d2', 0x1e620820, 1e6, 12345, 12345e6],
    ['fmul d0, d1, d2', 0x1e620820, 0, 5, 0],
    ['fdiv d0, d1, d2', 0x1e621820, 12345e6, 1e6, 12345],
    ['fsqrt d0, d1', 0x1e61c020, 144, 0, 12],
    ['fmadd d0, d1, d2, d3', 0x1f420c20, 3, 5, 115],
  ])('%s', (_name, word, a, b, want) => {
    const outcome = run(word, 0, bits(a), bits(b), bits(100));
    expect(outcome).toEqual({ helpers: [], v0: bits(want), fpsr: 0 });
  });

  test.each([
    ['fadd v0.4s, v1.4s, v2.4s', 0x4e22d420, quad, 12, 3, 15],
    ['fmul v0.4s, v1.4s, v2.4s', 0x6e22dc20, quad, 12, 3, 36],
    ['fdiv v0.4s, v1.4s, v2.4s', 0x6e22fc20, quad, 12, 3, 4],
    ['fmla v0.4s, v1.4s, v2.4s', 0x4e22cc20, quad, 12, 3, 136],
    ['fsub v0.2d, v1.2d, v2.2d', 0x4ee2d420, pair, 12, 3, 9],
    ['fmul v0.2d, v1.2d, v2.2d', 0x6e62dc20, pair, 12, 3, 36],
    ['fdiv v0.2d, v1.2d, v2.2d', 0x6e62fc20, pair, 12, 3, 4],
    ['fsqrt v0.2d, v1.2d', 0x6ee1f820, pair, 144, 0, 12],
    ['frintx v0.2d, v1.2d', 0x6e619820, pair, 12, 0, 12],
  ])('%s', (_name, word, of, a, b, want) => {
    expect(run(word, 0, of(a), of(b), of(100))).toEqual({ helpers: [], v0: of(want), fpsr: 0 });
  });

  test.each([
    ['fadd v0.2d, v1.2d, v2.2d', 0x4e62d420, pair],
    ['fdiv v0.4s, v1.4s, v2.4s', 0x6e22fc20, quad],
  ])('%s: one inexact lane is enough for the helper', (_name, word, of) => {
    const outcome = run(word, 0, of(1), of(2 ** -60) | bits(3));
    expect(outcome).toMatchObject({ helpers: ['fpLanes2'], fpsr: IXC });
  });

  test('an inexact one is left to the helper, which sets IXC', () => {
    const outcome = run(0x1e621820, 0, bits(1), bits(3));
    expect(outcome).toEqual({ helpers: ['fpBinary64'], v0: bits(1 / 3), fpsr: IXC });
  });

  test('conversions set it themselves', () => {
    // fcvtzs x0, d1
    expect(run(0x9e780020, 0, bits(2.5))).toMatchObject({ helpers: [], fpsr: IXC });
    expect(run(0x9e780020, 0, bits(-3))).toMatchObject({ helpers: [], fpsr: 0 });
    // scvtf s0, x1 with X1 = 7
    expect(run(0x9e220020, 0, 0n)).toEqual({ helpers: [], v0: bits32(7), fpsr: 0 });
  });
});
