import { describe, expect, test } from '@jest/globals';
import * as soft from '#lib/soft/fp/softfloat.js';
import { DOUBLE, type Format, type FpContext, Fpcr, Fpsr, HALF, SINGLE } from '#lib/soft/fp/softfloat.js';
import { Random } from '../../a64/random.ts';
import { bits32, bits64, double, half, pairs, single } from './floats.ts';

type Binary = (fmt: Format, a: bigint, b: bigint, ctx: FpContext) => bigint;
const OPERATIONS: readonly [string, Binary, (a: number, b: number) => number][] = [
  ['add', soft.add, (a, b) => a + b],
  ['sub', soft.sub, (a, b) => a - b],
  ['mul', soft.mul, (a, b) => a * b],
  ['div', soft.div, (a, b) => a / b],
];
const context = (fpcr = 0): FpContext => ({ fpcr, fpsr: 0 });
const RMODES = { RN: 0, RP: 1 << 22, RM: 2 << 22, RZ: 3 << 22 };

/** The half nearest to a double, ties to even, by trying them all. */
const HALVES = Array.from({ length: 0x7c00 }, (_, i) => half(BigInt(i)));
function nearestHalf(value: number): bigint {
  const sign = value < 0 || Object.is(value, -0) ? 0x8000n : 0n;
  const magnitude = Math.abs(value);
  if (magnitude >= 65520) return sign | 0x7c00n;
  let low = 0;
  let high = HALVES.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (HALVES[middle]! <= magnitude) low = middle;
    else high = middle - 1;
  }
  const below = magnitude - HALVES[low]!;
  const above = (HALVES[low + 1] ?? 65536) - magnitude;
  const up = below > above || (below === above && (low & 1) === 1);
  return sign | BigInt(up ? low + 1 : low);
}

describe('arithmetic to nearest is JavaScript’s', () => {
  test.each(OPERATIONS)('%s of doubles', (_name, operation, host) => {
    for (const [a, b] of pairs(8, new Random(1))) {
      const want = host(double(a), double(b));
      const got = double(operation(DOUBLE, a, b, context()));
      if (!Object.is(got, want)) throw new Error(`${double(a)}, ${double(b)}: ${got}, not ${want}`);
    }
  });

  test.each(OPERATIONS)('%s of singles', (_name, operation, host) => {
    for (const [a, b] of pairs(4, new Random(2))) {
      // A double has more than twice the precision, so that rounding twice is rounding once.
      const want = Math.fround(host(single(a), single(b)));
      const got = single(operation(SINGLE, a, b, context()));
      if (!Object.is(got, want)) throw new Error(`${single(a)}, ${single(b)}: ${got}, not ${want}`);
    }
  });

  test.each(OPERATIONS.slice(0, 3))('%s of halves', (_name, operation, host) => {
    for (const [a, b] of pairs(2, new Random(3))) {
      const exact = host(half(a), half(b));
      const got = operation(HALF, a, b, context());
      if (Number.isNaN(exact)) expect(half(got)).toBeNaN();
      else if (got !== nearestHalf(exact))
        throw new Error(`${half(a)}, ${half(b)}: ${half(got)}, not ${exact} rounded`);
    }
  });

  test('square roots', () => {
    for (const [a] of pairs(8, new Random(4)))
      expect(double(soft.sqrt(DOUBLE, a, context()))).toBe(Math.sqrt(double(a)));
    for (const [a] of pairs(4, new Random(5))) {
      expect(single(soft.sqrt(SINGLE, a, context()))).toBe(Math.fround(Math.sqrt(single(a))));
    }
  });

  test('the greater and the less', () => {
    for (const [a, b] of pairs(8, new Random(6))) {
      expect(double(soft.max(DOUBLE, a, b, context()))).toBe(Math.max(double(a), double(b)));
      expect(double(soft.min(DOUBLE, a, b, context()))).toBe(Math.min(double(a), double(b)));
    }
  });

  test('comparisons', () => {
    for (const [a, b] of pairs(8, new Random(7))) {
      const [x, y] = [double(a), double(b)];
      const want = x === y ? 0b0110 : x < y ? 0b1000 : x > y ? 0b0010 : 0b0011;
      expect(soft.compare(DOUBLE, a, b, false, context())).toBe(want);
    }
  });
});

describe('rounding modes', () => {
  test.each(OPERATIONS)(
    '%s: down and up enclose the exact result, one unit apart where it is inexact',
    (_name, operation) => {
      for (const [a, b] of pairs(8, new Random(8))) {
        const ctx = context(RMODES.RM);
        const down = double(operation(DOUBLE, a, b, ctx));
        const up = double(operation(DOUBLE, a, b, context(RMODES.RP)));
        const near = double(operation(DOUBLE, a, b, context(RMODES.RN)));
        const cut = double(operation(DOUBLE, a, b, context(RMODES.RZ)));
        if (Number.isNaN(near)) {
          expect([down, up, cut]).toEqual([Number.NaN, Number.NaN, Number.NaN]);
          continue;
        }
        const inexact = (ctx.fpsr & Fpsr.IXC) !== 0;
        expect([down, up]).toContain(near === 0 ? near + 0 || near : near);
        expect(Math.abs(cut)).toBe(Math.min(Math.abs(down), Math.abs(up)));
        if (!inexact) {
          expect(down).toBe(up === 0 ? down : up);
          continue;
        }
        // Neighbouring doubles have neighbouring bits, counted from zero in each sign.
        const rank = (v: number): bigint => (v < 0 || Object.is(v, -0) ? -(bits64(v) & ~(1n << 63n)) : bits64(v));
        expect(rank(up) - rank(down)).toBe(1n);
      }
    },
  );

  test('a sum of opposites is +0, and -0 rounding down', () => {
    const one = bits64(1);
    expect(soft.add(DOUBLE, one, bits64(-1), context())).toBe(0n);
    expect(soft.add(DOUBLE, one, bits64(-1), context(RMODES.RM))).toBe(bits64(-0));
  });
});

describe('multiply-add', () => {
  test('rounds once', () => {
    const e = 2 ** -52;
    const got = soft.mulAdd(DOUBLE, bits64(-1), bits64(1 + e), bits64(1 - e), context());
    expect(double(got)).toBe(-(e * e));
  });

  test('is the sum where the product is exact, and the product where nothing is added', () => {
    for (const [a, b] of pairs(4, new Random(9))) {
      const wide = (v: bigint): bigint => bits64(single(v));
      const product = single(a) * single(b);
      const got = double(soft.mulAdd(DOUBLE, wide(b), wide(a), wide(b), context()));
      expect(got).toBe(product + single(b));
      const alone = soft.mulAdd(DOUBLE, bits64(-0), a << 32n, b << 32n, context());
      const want = double(a << 32n) * double(b << 32n);
      expect(double(alone)).toBe(want === 0 && Object.is(double(alone), 0) ? 0 : want);
    }
  });

  test('infinity times zero is invalid, even with a quiet NaN to add', () => {
    const ctx = context();
    expect(soft.mulAdd(SINGLE, 0x7fc0_1234n, 0x7f80_0000n, 0n, ctx)).toBe(0x7fc0_0000n);
    expect(ctx.fpsr).toBe(Fpsr.IOC);
  });
});

describe('NaNs', () => {
  const signalling = 0x7f80_0001n;
  const quiet = 0xffc0_0002n;

  test('a signalling NaN goes before a quiet one, the first before the second, and becomes quiet', () => {
    const ctx = context();
    expect(soft.add(SINGLE, quiet, signalling, ctx)).toBe(0x7fc0_0001n);
    expect(ctx.fpsr).toBe(Fpsr.IOC);
    expect(soft.mul(SINGLE, quiet, 0x7fc0_0003n, context())).toBe(quiet);
    expect(soft.mulAdd(SINGLE, 0x7fc0_0007n, quiet, 0x7fc0_0003n, context())).toBe(0x7fc0_0007n);
  });

  test('DN makes every one the default NaN', () => {
    expect(soft.add(SINGLE, quiet, bits32(1), context(Fpcr.DN))).toBe(0x7fc0_0000n);
    expect(soft.convert(SINGLE, DOUBLE, quiet, context(Fpcr.DN))).toBe(0x7ff8_0000_0000_0000n);
  });

  test('maximum and minimum numbers prefer a number to a quiet NaN, and only to that', () => {
    expect(soft.maxNum(SINGLE, quiet, bits32(-5), context())).toBe(bits32(-5));
    expect(soft.minNum(SINGLE, bits32(-5), quiet, context())).toBe(bits32(-5));
    expect(soft.maxNum(SINGLE, bits32(1), signalling, context())).toBe(0x7fc0_0001n);
    expect(soft.max(SINGLE, quiet, bits32(-5), context())).toBe(quiet);
  });
});

describe('exceptions', () => {
  const raised = (operation: (ctx: FpContext) => unknown, fpcr = 0): number => {
    const ctx = context(fpcr);
    operation(ctx);
    return ctx.fpsr;
  };
  const least = 1n;
  const [one, two, three, zero] = [bits64(1), bits64(2), bits64(3), 0n];
  const infinity = DOUBLE.infinity;

  test.each<[string, number, (ctx: FpContext) => unknown]>([
    ['1 / 3', Fpsr.IXC, (c) => soft.div(DOUBLE, one, three, c)],
    ['1 / 2', 0, (c) => soft.div(DOUBLE, one, two, c)],
    ['1 / 0', Fpsr.DZC, (c) => soft.div(DOUBLE, one, zero, c)],
    ['0 / 0', Fpsr.IOC, (c) => soft.div(DOUBLE, zero, zero, c)],
    ['infinity / 0', 0, (c) => soft.div(DOUBLE, infinity, zero, c)],
    ['infinity - infinity', Fpsr.IOC, (c) => soft.sub(DOUBLE, infinity, infinity, c)],
    ['0 * infinity', Fpsr.IOC, (c) => soft.mul(DOUBLE, zero, infinity, c)],
    ['0 * infinity, extended', 0, (c) => soft.mulx(DOUBLE, zero, infinity, c)],
    ['greatest + greatest', Fpsr.OFC | Fpsr.IXC, (c) => soft.add(DOUBLE, DOUBLE.maxNormal, DOUBLE.maxNormal, c)],
    ['least / 2', Fpsr.UFC | Fpsr.IXC, (c) => soft.div(DOUBLE, least, two, c)],
    ['least * 2', 0, (c) => soft.mul(DOUBLE, least, two, c)],
    ['least normal / 2', 0, (c) => soft.div(DOUBLE, 1n << 52n, two, c)],
    ['square root of -1', Fpsr.IOC, (c) => soft.sqrt(DOUBLE, bits64(-1), c)],
    ['square root of 2', Fpsr.IXC, (c) => soft.sqrt(DOUBLE, two, c)],
    ['square root of 4', 0, (c) => soft.sqrt(DOUBLE, bits64(4), c)],
    ['reciprocal estimate of 0', Fpsr.DZC, (c) => soft.recip(DOUBLE, zero, c)],
    ['compare quiet NaN', 0, (c) => soft.compare(DOUBLE, soft.defaultNaN(DOUBLE), one, false, c)],
    ['compare quiet NaN, signalling', Fpsr.IOC, (c) => soft.compare(DOUBLE, soft.defaultNaN(DOUBLE), one, true, c)],
  ])('%s', (_name, want, operation) => {
    expect(raised(operation)).toBe(want);
  });

  test('a tiny result underflows although rounding makes it normal', () => {
    const almost = (1n << 52n) - 1n;
    const ctx = context();
    // (2^-1022 - 2^-1074) * (1 + 2^-52) rounds up to 2^-1022.
    expect(soft.mul(DOUBLE, almost, one + 1n, ctx)).toBe(1n << 52n);
    expect(ctx.fpsr).toBe(Fpsr.UFC | Fpsr.IXC);
  });

  test('FZ flushes operands with IDC, and tiny results with UFC alone', () => {
    expect(raised((c) => soft.add(DOUBLE, least, one, c), Fpcr.FZ)).toBe(Fpsr.IDC);
    const ctx = context(Fpcr.FZ);
    expect(soft.div(DOUBLE, bits64(-(2 ** -1022)), two, ctx)).toBe(bits64(-0));
    expect(ctx.fpsr).toBe(Fpsr.UFC);
  });

  test('halves are flushed by FZ16 only, and without IDC', () => {
    expect(soft.add(HALF, 1n, 0n, context(Fpcr.FZ))).toBe(1n);
    const ctx = context(Fpcr.FZ16);
    expect(soft.add(HALF, 1n, 0n, ctx)).toBe(0n);
    expect(ctx.fpsr).toBe(0);
  });
});
