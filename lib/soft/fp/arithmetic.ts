import { convertNaN } from './convert.js';
import {
  type Format,
  type FpContext,
  Fpsr,
  HALF,
  infinity,
  neg,
  Rounding,
  roundingMode,
  SINGLE,
  zero,
} from './format.js';
import {
  bitLength,
  FpType,
  invalid,
  isNan,
  processNaN,
  processNaNs,
  round,
  roundSigned,
  type Unpacked,
  unpack,
} from './unpack.js';

/** Arithmetic on bit patterns (Arm ARM DDI 0487 J1.3, shared/functions/float): unsigned bigints of the format's width. */

const { ZERO, INFINITY, QNAN, SNAN } = FpType;

/** An integer multiple of 2^exponent. */
interface Scaled {
  readonly value: bigint;
  readonly exponent: number;
}

const signed = (u: Unpacked): bigint => (u.sign === 1 ? -u.mantissa : u.mantissa);

/**
 * The sum of two finite values: exact, unless one is too small to be more than a sticky bit in the other's rounding. Then it
 * is one, which keeps the integers short.
 */
function exactSum(a: Unpacked, b: Unpacked): Scaled {
  if (a.mantissa === 0n) return { value: signed(b), exponent: b.exponent };
  if (b.mantissa === 0n) return { value: signed(a), exponent: a.exponent };
  const [high, low] = a.exponent >= b.exponent ? [a, b] : [b, a];
  const shift = high.exponent - low.exponent;
  // 64 bits are more than any precision, and low may be as long as a product of two doubles.
  if (shift > 64 + 128) {
    const one = low.sign === 1 ? -1n : 1n;
    return { value: (signed(high) << 64n) + one, exponent: high.exponent - 64 };
  }
  return { value: (signed(high) << BigInt(shift)) + signed(low), exponent: low.exponent };
}

/** The exact product of two finite values. */
const exactProduct = (a: Unpacked, b: Unpacked): Unpacked => ({
  type: a.type === ZERO || b.type === ZERO ? ZERO : FpType.FINITE,
  sign: (a.sign ^ b.sign) as 0 | 1,
  mantissa: a.mantissa * b.mantissa,
  exponent: a.exponent + b.exponent,
});

function sum(fmt: Format, a: bigint, u: Unpacked, b: bigint, v: Unpacked, ctx: FpContext): bigint {
  if (u.type === INFINITY && v.type === INFINITY && u.sign !== v.sign) return invalid(fmt, ctx);
  if (u.type === INFINITY) return a;
  if (v.type === INFINITY) return b;
  if (u.type === ZERO && v.type === ZERO && u.sign === v.sign) return zero(fmt, u.sign);
  const { value, exponent } = exactSum(u, v);
  return roundSigned(fmt, value, exponent, roundingMode(ctx), ctx);
}

/** FPAdd. */
export function add(fmt: Format, a: bigint, b: bigint, ctx: FpContext): bigint {
  const u = unpack(fmt, a, ctx);
  const v = unpack(fmt, b, ctx);
  return processNaNs(fmt, u, a, v, b, ctx) ?? sum(fmt, a, u, b, v, ctx);
}

/** FPSub. */
export function sub(fmt: Format, a: bigint, b: bigint, ctx: FpContext): bigint {
  const u = unpack(fmt, a, ctx);
  const v = unpack(fmt, b, ctx);
  return processNaNs(fmt, u, a, v, b, ctx) ?? sum(fmt, a, u, neg(fmt, b), { ...v, sign: (v.sign ^ 1) as 0 | 1 }, ctx);
}

/** FPMul. */
export function mul(fmt: Format, a: bigint, b: bigint, ctx: FpContext): bigint {
  const u = unpack(fmt, a, ctx);
  const v = unpack(fmt, b, ctx);
  const nan = processNaNs(fmt, u, a, v, b, ctx);
  if (nan !== undefined) return nan;
  const sign = (u.sign ^ v.sign) as 0 | 1;
  if (u.type === INFINITY || v.type === INFINITY) {
    return u.type === ZERO || v.type === ZERO ? invalid(fmt, ctx) : infinity(fmt, sign);
  }
  if (u.type === ZERO || v.type === ZERO) return zero(fmt, sign);
  return round(fmt, sign, u.mantissa * v.mantissa, u.exponent + v.exponent, roundingMode(ctx), ctx);
}

/** The bit pattern of 2.0. */
const two = (fmt: Format): bigint => BigInt(fmt.bias + 1) << BigInt(fmt.fractionBits);

/** FPMulX: FPMul, but infinity times zero is 2. */
export function mulx(fmt: Format, a: bigint, b: bigint, ctx: FpContext): bigint {
  const u = unpack(fmt, a, ctx);
  const v = unpack(fmt, b, ctx);
  if ((u.type === INFINITY && v.type === ZERO) || (u.type === ZERO && v.type === INFINITY)) {
    return two(fmt) | zero(fmt, u.sign ^ v.sign);
  }
  return mul(fmt, a, b, ctx);
}

/** FPNeg(FPMul): FNMUL. */
export const nmul = (fmt: Format, a: bigint, b: bigint, ctx: FpContext): bigint => neg(fmt, mul(fmt, a, b, ctx));

/** FPDiv. */
export function div(fmt: Format, a: bigint, b: bigint, ctx: FpContext): bigint {
  const u = unpack(fmt, a, ctx);
  const v = unpack(fmt, b, ctx);
  const nan = processNaNs(fmt, u, a, v, b, ctx);
  if (nan !== undefined) return nan;
  if (u.type === v.type && (u.type === INFINITY || u.type === ZERO)) return invalid(fmt, ctx);
  const sign = (u.sign ^ v.sign) as 0 | 1;
  if (u.type === INFINITY || v.type === ZERO) {
    if (u.type !== INFINITY) ctx.fpsr |= Fpsr.DZC;
    return infinity(fmt, sign);
  }
  if (u.type === ZERO || v.type === INFINITY) return zero(fmt, sign);
  // Enough quotient bits for the precision and two more, then a sticky bit.
  const shift = Math.max(0, fmt.fractionBits + 4 + bitLength(v.mantissa) - bitLength(u.mantissa));
  const n = u.mantissa << BigInt(shift);
  const q = n / v.mantissa;
  const sticky = q * v.mantissa === n ? 0n : 1n;
  return round(fmt, sign, (q << 1n) | sticky, u.exponent - v.exponent - shift - 1, roundingMode(ctx), ctx);
}

/** The integer square root, rounded down. */
function isqrt(n: bigint): bigint {
  let x = 1n << BigInt((bitLength(n) + 1) >> 1);
  for (;;) {
    const y = (x + n / x) >> 1n;
    if (y >= x) return x;
    x = y;
  }
}

/** FPSqrt. */
export function sqrt(fmt: Format, a: bigint, ctx: FpContext): bigint {
  const u = unpack(fmt, a, ctx);
  if (isNan(u)) return processNaN(fmt, u, a, ctx);
  if (u.type === ZERO) return zero(fmt, u.sign);
  if (u.sign === 1) return invalid(fmt, ctx);
  if (u.type === INFINITY) return infinity(fmt, 0);
  let shift = Math.max(0, 2 * (fmt.fractionBits + 4) - bitLength(u.mantissa));
  if (((u.exponent - shift) & 1) !== 0) shift++;
  const n = u.mantissa << BigInt(shift);
  const s = isqrt(n);
  const sticky = s * s === n ? 0n : 1n;
  return round(fmt, 0, (s << 1n) | sticky, (u.exponent - shift) / 2 - 1, roundingMode(ctx), ctx);
}

/** The part of FPMulAdd and FPMulAddH after the NaNs. `addend` and the result are of format `fmt`. */
function mulAddNumbers(fmt: Format, w: Unpacked, u: Unpacked, v: Unpacked, ctx: FpContext): bigint {
  const infP = u.type === INFINITY || v.type === INFINITY;
  const zeroP = u.type === ZERO || v.type === ZERO;
  const signP = (u.sign ^ v.sign) as 0 | 1;
  const infA = w.type === INFINITY;
  if ((infP && zeroP) || (infA && infP && w.sign !== signP)) return invalid(fmt, ctx);
  if (infA) return infinity(fmt, w.sign);
  if (infP) return infinity(fmt, signP);
  if (w.type === ZERO && zeroP && w.sign === signP) return zero(fmt, w.sign);
  const { value, exponent } = exactSum(w, exactProduct(u, v));
  return roundSigned(fmt, value, exponent, roundingMode(ctx), ctx);
}

const infinityTimesZero = (u: Unpacked, v: Unpacked): boolean =>
  (u.type === INFINITY && v.type === ZERO) || (u.type === ZERO && v.type === INFINITY);

/** FPMulAdd: addend + a * b with one rounding. */
export function mulAdd(fmt: Format, addend: bigint, a: bigint, b: bigint, ctx: FpContext): bigint {
  const w = unpack(fmt, addend, ctx);
  const u = unpack(fmt, a, ctx);
  const v = unpack(fmt, b, ctx);
  // Infinity times zero is invalid even where a quiet NaN is to be added to it.
  if (w.type === QNAN && infinityTimesZero(u, v)) return invalid(fmt, ctx);
  if (w.type === SNAN) return processNaN(fmt, w, addend, ctx);
  if (w.type === QNAN && u.type !== SNAN && v.type !== SNAN) return processNaN(fmt, w, addend, ctx);
  return processNaNs(fmt, u, a, v, b, ctx) ?? mulAddNumbers(fmt, w, u, v, ctx);
}

/** FPMulAddH: single-precision addend + the product of two halves (FMLAL). */
export function mulAddHalf(addend: bigint, a: bigint, b: bigint, ctx: FpContext): bigint {
  const w = unpack(SINGLE, addend, ctx);
  const u = unpack(HALF, a, ctx);
  const v = unpack(HALF, b, ctx);
  if (w.type === QNAN && infinityTimesZero(u, v)) return invalid(SINGLE, ctx);
  if (w.type === SNAN) return processNaN(SINGLE, w, addend, ctx);
  if (w.type === QNAN && u.type !== SNAN && v.type !== SNAN) return processNaN(SINGLE, w, addend, ctx);
  const nan = processNaNs(HALF, u, a, v, b, ctx);
  return nan === undefined ? mulAddNumbers(SINGLE, w, u, v, ctx) : convertNaN(HALF, SINGLE, nan);
}

/** FPRecipStepFused: 2 - a * b. */
export function recipStep(fmt: Format, a: bigint, b: bigint, ctx: FpContext): bigint {
  return step(fmt, a, b, 2n, 0, ctx);
}

/** FPRSqrtStepFused: (3 - a * b) / 2. */
export function rsqrtStep(fmt: Format, a: bigint, b: bigint, ctx: FpContext): bigint {
  return step(fmt, a, b, 3n, 1, ctx);
}

/** (constant - a * b) / 2^halvings; infinity times zero counts as zero. */
function step(fmt: Format, a: bigint, b: bigint, constant: bigint, halvings: number, ctx: FpContext): bigint {
  const negated = neg(fmt, a);
  const u = unpack(fmt, negated, ctx);
  const v = unpack(fmt, b, ctx);
  const nan = processNaNs(fmt, u, negated, v, b, ctx);
  if (nan !== undefined) return nan;
  const base: Unpacked = { type: FpType.FINITE, sign: 0, mantissa: constant, exponent: 0 };
  if (infinityTimesZero(u, v)) return round(fmt, 0, constant, -halvings, Rounding.TIEEVEN, ctx);
  if (u.type === INFINITY || v.type === INFINITY) return infinity(fmt, u.sign ^ v.sign);
  const { value, exponent } = exactSum(base, exactProduct(u, v));
  return roundSigned(fmt, value, exponent - halvings, roundingMode(ctx), ctx);
}

/** -1, 0 or 1 as a < b, a = b, a > b; not for NaNs. Zeros are equal. */
export function order(u: Unpacked, v: Unpacked): number {
  const rank = (w: Unpacked): number => (w.type === ZERO ? 0 : w.type === INFINITY ? 2 : 1) * (w.sign === 1 ? -1 : 1);
  const difference = rank(u) - rank(v);
  if (difference !== 0 || u.type !== FpType.FINITE) return Math.sign(difference);
  const { value } = exactSum(u, { ...v, sign: (v.sign ^ 1) as 0 | 1 });
  return value < 0n ? -1 : value > 0n ? 1 : 0;
}

function extreme(fmt: Format, a: bigint, b: bigint, greatest: boolean, ctx: FpContext): bigint {
  const u = unpack(fmt, a, ctx);
  const v = unpack(fmt, b, ctx);
  const nan = processNaNs(fmt, u, a, v, b, ctx);
  if (nan !== undefined) return nan;
  const o = order(u, v);
  const first = greatest ? o > 0 : o < 0;
  const w = first ? u : v;
  if (w.type === ZERO) return zero(fmt, greatest ? u.sign & v.sign : u.sign | v.sign);
  return first ? a : b;
}

/** FPMax. */
export const max = (fmt: Format, a: bigint, b: bigint, ctx: FpContext): bigint => extreme(fmt, a, b, true, ctx);
/** FPMin. */
export const min = (fmt: Format, a: bigint, b: bigint, ctx: FpContext): bigint => extreme(fmt, a, b, false, ctx);

function extremeNumber(fmt: Format, a: bigint, b: bigint, greatest: boolean, ctx: FpContext): bigint {
  // Flushing is left to FPMax; unpacking here is only to see the NaNs.
  const quiet: FpContext = { fpcr: 0, fpsr: 0 };
  const nanA = unpack(fmt, a, quiet).type === QNAN;
  const nanB = unpack(fmt, b, quiet).type === QNAN;
  const least = infinity(fmt, greatest ? 1 : 0);
  return extreme(fmt, nanA && !nanB ? least : a, nanB && !nanA ? least : b, greatest, ctx);
}

/** FPMaxNum: a quiet NaN loses against a number. */
export const maxNum = (fmt: Format, a: bigint, b: bigint, ctx: FpContext): bigint =>
  extremeNumber(fmt, a, b, true, ctx);
/** FPMinNum. */
export const minNum = (fmt: Format, a: bigint, b: bigint, ctx: FpContext): bigint =>
  extremeNumber(fmt, a, b, false, ctx);

/** FPCompare: NZCV in bits 3..0. @param signalling quiet NaNs set IOC too (FCMPE) */
export function compare(fmt: Format, a: bigint, b: bigint, signalling: boolean, ctx: FpContext): number {
  const u = unpack(fmt, a, ctx);
  const v = unpack(fmt, b, ctx);
  if (isNan(u) || isNan(v)) {
    if (signalling || u.type === SNAN || v.type === SNAN) ctx.fpsr |= Fpsr.IOC;
    return 0b0011;
  }
  const o = order(u, v);
  return o === 0 ? 0b0110 : o < 0 ? 0b1000 : 0b0010;
}
