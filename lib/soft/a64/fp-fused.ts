import type { Emitter, Val } from './emitter.js';
import { MIN_NORMAL } from './fp-emit.js';
import { lowerHalves, pattern, spreadNumber, upperHalf, within } from './fp-lanes.js';

/**
 * Fused multiply-add from unfused double arithmetic, two lanes at once. WebAssembly has no fused operation of certain
 * result; the exact helper costs a microsecond, these a few nanoseconds.
 */

/** Lanes of a fused multiply-add, and masks of the lanes where it is to be trusted and where it is exact. */
export interface Fused {
  readonly result: Val;
  /** The result is right, finite, and was not tiny before rounding. */
  readonly sure: Val;
  /** Nothing was rounded off (may be unset where nothing was). */
  readonly exact: Val;
}

const add = (e: Emitter, a: Val, b: Val): Val => e.op('f64x2.add', a, b);
const sub = (e: Emitter, a: Val, b: Val): Val => e.op('f64x2.sub', a, b);
const mul = (e: Emitter, a: Val, b: Val): Val => e.op('f64x2.mul', a, b);
const and = (e: Emitter, a: Val, b: Val): Val => e.op('v128.and', a, b);
const or = (e: Emitter, a: Val, b: Val): Val => e.op('v128.or', a, b);
const isZero = (e: Emitter, a: Val): Val => e.op('f64x2.eq', a, e.v128(0n));

/** Knuth's TwoSum: a + b rounded, and what the rounding lost, exactly. */
function twoSum(e: Emitter, a: Val, b: Val): { sum: Val; error: Val } {
  const sum = add(e, a, b);
  const part = sub(e, sum, a);
  return { sum, error: add(e, sub(e, a, sub(e, sum, part)), sub(e, b, part)) };
}

/** Veltkamp's split into halves of 26 bits. */
function split(e: Emitter, a: Val): { high: Val; low: Val } {
  const scaled = mul(e, a, spreadNumber(e, 8, 2 ** 27 + 1));
  const high = sub(e, scaled, sub(e, scaled, a));
  return { high, low: sub(e, a, high) };
}

/** Dekker's TwoProduct: a * b rounded, and what the rounding lost, exactly, if nothing overflows or underflows. */
export function twoProduct(e: Emitter, a: Val, b: Val): { product: Val; error: Val } {
  const product = mul(e, a, b);
  const x = split(e, a);
  const y = split(e, b);
  const high = sub(e, mul(e, x.high, y.high), product);
  const middle = add(e, add(e, high, mul(e, x.high, y.low)), mul(e, x.low, y.high));
  return { product, error: add(e, middle, mul(e, x.low, y.low)) };
}

/** a + b rounded to odd: where bits are lost the last bit is 1, so that a later rounding to fewer bits sees them. */
function oddSum(e: Emitter, a: Val, b: Val): { sum: Val; error: Val } {
  const { sum, error } = twoSum(e, a, b);
  const one = pattern(e, 8, 1n);
  const even = e.op('i64x2.eq', and(e, sum, one), e.v128(0n));
  const adjust = and(e, e.op('f64x2.ne', error, e.v128(0n)), even);
  // Towards zero, which is one less as an integer, where the error has the other sign.
  const step = or(e, e.op('i64x2.shr_s', e.op('v128.xor', sum, error), e.i32(63)), one);
  return { sum: e.op('i64x2.add', sum, and(e, step, adjust)), error };
}

/** a * b + c of doubles (Boldo and Melquiond, "Emulation of FMA and correctly rounded sums", 2008). */
export function fusedDouble(e: Emitter, a: Val, b: Val, c: Val): Fused {
  const u = twoProduct(e, a, b);
  const t = twoSum(e, c, u.error);
  const v = twoSum(e, u.product, t.sum);
  const { sum: rest } = oddSum(e, t.error, v.error);
  const zeroProduct = and(e, isZero(e, u.product), or(e, isZero(e, a), isZero(e, b)));
  const result = e.op('v128.bitselect', add(e, u.product, c), add(e, v.sum, rest), zeroProduct);
  // Far enough from the ends that no intermediate has overflowed or underflowed. A zero is an exact one then.
  const product = or(e, zeroProduct, within(e, 8, u.product, 2 ** -900, 2 ** 1020));
  const range = or(e, isZero(e, result), within(e, 8, result, MIN_NORMAL[8], 2 ** 1021));
  return { result, sure: and(e, product, range), exact: or(e, zeroProduct, isZero(e, rest)) };
}

/** a * b + c of singles that have been promoted to double; the result is double too, to be demoted. */
export function fusedSingle(e: Emitter, a: Val, b: Val, c: Val): Fused {
  // The product is exact; the sum, rounded to odd, has more than the two extra bits that rounding it again needs.
  const { sum, error } = oddSum(e, mul(e, a, b), c);
  const overflow = 2 ** 128 - 2 ** 103;
  const below = 2 ** -126 * (1 - 2 ** -53);
  const sure = or(e, isZero(e, sum), within(e, 8, sum, below, overflow));
  const back = e.op('f64x2.promote_low_f32x4', e.op('f32x4.demote_f64x2_zero', sum));
  return { result: sum, sure, exact: and(e, isZero(e, error), e.op('f64x2.eq', back, sum)) };
}

const promote = (e: Emitter, v: Val): Val => e.op('f64x2.promote_low_f32x4', v);
const demote = (e: Emitter, v: Val): Val => e.op('f32x4.demote_f64x2_zero', v);

/** a * b + c of vectors of singles, 128 bits wide, or of which only the lower half counts. */
export function fusedSingles(e: Emitter, a: Val, b: Val, c: Val, wide: boolean): Fused {
  const low = fusedSingle(e, promote(e, a), promote(e, b), promote(e, c));
  if (!wide) return { ...low, result: demote(e, low.result) };
  const upper = (v: Val): Val => promote(e, upperHalf(e, v));
  const high = fusedSingle(e, upper(a), upper(b), upper(c));
  return {
    result: lowerHalves(e, demote(e, low.result), demote(e, high.result)),
    sure: and(e, low.sure, high.sure),
    exact: and(e, low.exact, high.exact),
  };
}
