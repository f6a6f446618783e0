import { describe, expect, test } from '@jest/globals';
import * as soft from '#lib/soft/fp/softfloat.js';
import { DOUBLE, type FpContext, Fpcr, Fpsr, HALF, Rounding, SINGLE } from '#lib/soft/fp/softfloat.js';
import { Random } from '../../a64/random.ts';
import { bits32, bits64, double, numbers as draw, half, single } from './floats.ts';

const context = (fpcr = 0): FpContext => ({ fpcr, fpsr: 0 });
const numbers = (bytes: 2 | 4 | 8, seed: number): bigint[] => draw(bytes, new Random(seed));

describe('between formats', () => {
  test('double to single is Math.fround', () => {
    for (const a of numbers(8, 1)) {
      const ctx = context();
      const got = single(soft.convert(DOUBLE, SINGLE, a, ctx));
      expect(got).toBe(Math.fround(double(a)));
      if (Number.isFinite(got)) expect((ctx.fpsr & Fpsr.IXC) !== 0).toBe(got !== double(a));
    }
  });

  test('widening is exact and comes back', () => {
    for (const a of numbers(4, 2)) {
      const wide = soft.convert(SINGLE, DOUBLE, a, context());
      expect(double(wide)).toBe(single(a));
      if (!Number.isNaN(single(a))) expect(soft.convert(DOUBLE, SINGLE, wide, context())).toBe(a);
    }
    for (const a of numbers(2, 3)) {
      const wide = soft.convert(HALF, SINGLE, a, context());
      expect(single(wide)).toBe(half(a));
      if (!Number.isNaN(half(a))) expect(soft.convert(SINGLE, HALF, wide, context())).toBe(a);
    }
  });

  test('NaNs keep the top of their payload', () => {
    expect(soft.convert(SINGLE, DOUBLE, 0xff81_2345n, context())).toBe(0xfff8_2468_a000_0000n | (1n << 51n));
    expect(soft.convert(DOUBLE, HALF, 0x7ff4_0000_0000_0001n, context())).toBe(0x7f00n);
  });

  test('alternative half precision has no infinities and no NaNs', () => {
    const ctx = context(Fpcr.AHP);
    expect(soft.convert(HALF, SINGLE, 0x7fffn, ctx)).toBe(bits32(131008));
    expect(ctx.fpsr).toBe(0);
    expect(soft.convert(SINGLE, HALF, SINGLE.infinity, ctx)).toBe(0x7fffn);
    expect(soft.convert(SINGLE, HALF, bits32(1e9), ctx)).toBe(0x7fffn);
    expect(soft.convert(SINGLE, HALF, 0xffc0_0000n, ctx)).toBe(0x8000n);
    expect(ctx.fpsr).toBe(Fpsr.IOC);
  });

  test('rounding to odd keeps a trace of what is lost', () => {
    const above = bits64(1 + 2 ** -40);
    expect(soft.convert(DOUBLE, SINGLE, above, context(), Rounding.ODD)).toBe(bits32(1) + 1n);
    expect(soft.convert(DOUBLE, SINGLE, DOUBLE.maxNormal, context(), Rounding.ODD)).toBe(SINGLE.maxNormal);
  });
});

describe('to integers', () => {
  const HOST: readonly [Rounding, (v: number) => number][] = [
    [Rounding.ZERO, Math.trunc],
    [Rounding.POSINF, Math.ceil],
    [Rounding.NEGINF, Math.floor],
    [
      Rounding.TIEAWAY,
      (v) =>
        Math.sign(v) * Math.floor(Math.abs(v) + (Math.abs(v) < 2 ** 52 && Math.abs(v) !== 0.5 - 2 ** -54 ? 0.5 : 0)),
    ],
  ];

  test.each([32, 64] as const)('signed and unsigned, %i bits, saturating', (width) => {
    for (const [rounding, host] of HOST) {
      for (const a of numbers(8, 4)) {
        for (const unsigned of [false, true]) {
          const ctx = context();
          const got = soft.toFixed(DOUBLE, a, 0, unsigned, width, rounding, ctx);
          const low = unsigned ? 0n : -(1n << BigInt(width - 1));
          const high = low + (1n << BigInt(width)) - 1n;
          const v = double(a);
          const whole = Number.isNaN(v)
            ? 0n
            : v === Infinity
              ? high + 1n
              : v === -Infinity
                ? low - 1n
                : BigInt(host(v));
          const want = whole < low ? low : whole > high ? high : whole;
          if (got !== BigInt.asUintN(width, want)) throw new Error(`${v} by ${rounding}: ${got}, not ${want}`);
          const outside = Number.isNaN(v) || want !== whole;
          expect(ctx.fpsr).toBe(
            outside
              ? Fpsr.IOC
              : Number(want) === v || (BigInt(Math.trunc(v)) === want && Number.isInteger(v))
                ? 0
                : Fpsr.IXC,
          );
        }
      }
    }
  });

  test('fraction bits scale', () => {
    expect(soft.toFixed(DOUBLE, bits64(1.75), 2, false, 32, Rounding.ZERO, context())).toBe(7n);
    expect(soft.fromFixed(DOUBLE, -7n, 2, context())).toBe(bits64(-1.75));
  });

  test('FJCVTZS is ToInt32', () => {
    for (const a of numbers(8, 5)) {
      const v = double(a);
      const { result, exact } = soft.toInt32Js(DOUBLE, a, context());
      expect(result).toBe(v | 0);
      expect(exact).toBe(Object.is(v | 0, v));
    }
  });
});

describe('from integers', () => {
  test('rounds as JavaScript does', () => {
    const random = new Random(6);
    for (let n = 0; n < 2000; n++) {
      const value = BigInt.asIntN(64, random.u64() >> BigInt(random.below(64)));
      const ctx = context();
      expect(double(soft.fromFixed(DOUBLE, value, 0, ctx))).toBe(Number(value));
      expect((ctx.fpsr & Fpsr.IXC) !== 0).toBe(BigInt(Number(value)) !== value);
    }
  });
});

describe('to integral numbers', () => {
  test('in every direction', () => {
    for (const a of numbers(8, 7)) {
      const v = double(a);
      const of = (rounding: Rounding): number => double(soft.roundInt(DOUBLE, a, rounding, false, context()));
      expect(of(Rounding.ZERO)).toBe(Math.trunc(v));
      expect(of(Rounding.POSINF)).toBe(Math.ceil(v));
      expect(of(Rounding.NEGINF)).toBe(Math.floor(v));
    }
    const even = [0.5, 1.5, 2.5, -0.5, -2.5].map((v) =>
      double(soft.roundInt(DOUBLE, bits64(v), Rounding.TIEEVEN, false, context())),
    );
    expect(even).toEqual([0, 2, 2, -0, -2]);
  });

  test('FRINT32: what does not fit is the least integer, with IOC', () => {
    const ctx = context();
    expect(soft.roundIntN(DOUBLE, bits64(2 ** 31), Rounding.ZERO, 32, ctx)).toBe(bits64(-(2 ** 31)));
    expect(ctx.fpsr).toBe(Fpsr.IOC);
    expect(soft.roundIntN(DOUBLE, bits64(2 ** 31 - 0.5), Rounding.ZERO, 32, context())).toBe(bits64(2 ** 31 - 1));
  });
});

describe('estimates', () => {
  test('are within a part in 256', () => {
    for (const a of numbers(8, 8)) {
      const v = double(a);
      if (!Number.isFinite(v) || Math.abs(v) < 2 ** -1000 || Math.abs(v) > 2 ** 1000) continue;
      expect(Math.abs(double(soft.recip(DOUBLE, a, context())) * v - 1)).toBeLessThan(2 ** -8);
      if (v > 0) expect(Math.abs(double(soft.rsqrt(DOUBLE, a, context())) ** 2 * v - 1)).toBeLessThan(2 ** -7);
    }
    expect(soft.recip(SINGLE, bits32(1), context())).toBe(0x3f7f_8000n);
    expect(soft.rsqrt(SINGLE, bits32(1), context())).toBe(0x3f7f_8000n);
    expect(soft.unsignedRecip(0x8000_0000)).toBe(0xff80_0000);
    expect(soft.unsignedRsqrt(0x3fff_ffff)).toBe(0xffff_ffff);
  });
});
