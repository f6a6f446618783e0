import type { Emitter, Val } from './emitter.js';
import { MIN_NORMAL, plain, ready, unflushed } from './fp-emit.js';
import { type Fused, fusedDouble, fusedSingles, twoProduct } from './fp-fused.js';
import {
  everyLane,
  finiteLanes,
  floats,
  type HostShape,
  ints,
  orderedLanes,
  pattern,
  spreadNumber,
  upperHalf,
  within,
} from './fp-lanes.js';

/** A vector operation on the host's lanes. */
export interface Attempt {
  readonly result: Val;
  /** Whether (i32) the result is the instruction's, its exceptions included. */
  readonly sure: Val;
  /** The same where it is not yet known: whether nothing was rounded off, so that IXC need not be set. Emits more when called. */
  readonly exact?: () => Val;
}

/** Takes the host's result where it may be taken, and otherwise calls the helper. */
export function settle(
  e: Emitter,
  { result, sure, exact }: Attempt,
  take: (result: Val) => void,
  soft: () => void,
): void {
  e.if(sure, () => take(result), exact === undefined ? soft : () => e.if(exact(), () => take(result), soft));
}

/** Two operands, of one shape, as vectors. */
export type LaneBinary = (e: Emitter, s: HostShape, a: Val, b: Val) => Attempt;
export type LaneUnary = (e: Emitter, s: HostShape, a: Val) => Attempt;

const signBit = (bytes: 4 | 8): bigint => 1n << BigInt(bytes * 8 - 1);
/** FPAbs of every lane, NaNs too. */
export const absLanes = (e: Emitter, bytes: 4 | 8, v: Val): Val =>
  e.op('v128.and', v, pattern(e, bytes, signBit(bytes) - 1n));
/** FPNeg of every lane, NaNs too. */
export const negLanes = (e: Emitter, bytes: 4 | 8, v: Val): Val =>
  e.op('v128.xor', v, pattern(e, bytes, signBit(bytes)));

/** FADD, FSUB and what is made of them: inexact results but no other exception where the result is finite. */
export const sumLanes =
  (op: 'add' | 'sub'): LaneBinary =>
  (e, s, a, b) => {
    const t = floats(s.bytes);
    const result = e.op(`${t}.${op}`, a, b);
    const exact = (): Val => {
      // What TwoSum says was lost; it is a NaN where the result is not finite.
      const part = e.op(`${t}.sub`, result, a);
      const lostA = e.op(`${t}.sub`, a, e.op(`${t}.sub`, result, part));
      const other = op === 'add' ? 'sub' : 'add';
      const error = e.op(`${t}.${op}`, lostA, e.op(`${t}.${other}`, b, part));
      return e.and(plain(e), everyLane(e, s.bytes, e.op(`${t}.eq`, error, e.v128(0n))));
    };
    return { result, sure: e.and(ready(e), everyLane(e, s.bytes, finiteLanes(e, s.bytes, result))), exact };
  };

/** FABD. */
export const differenceLanes: LaneBinary = (e, s, a, b) => {
  const difference = sumLanes('sub')(e, s, a, b);
  return { ...difference, result: absLanes(e, s.bytes, difference.result) };
};

/** Whether x * y is exactly `product`, by lane, where it is known: not near the ends of doubles. */
function isProduct(e: Emitter, bytes: 4 | 8, x: Val, y: Val, product: Val): Val {
  if (bytes === 8) {
    const back = twoProduct(e, x, y);
    const equal = e.op('v128.and', e.op('f64x2.eq', back.product, product), e.op('f64x2.eq', back.error, e.v128(0n)));
    return e.op('v128.and', equal, within(e, 8, product, 2 ** -900, 2 ** 1020));
  }
  // The product of two singles is exact in double.
  const half = (of: (v: Val) => Val): Val => {
    const wide = (v: Val): Val => e.op('f64x2.promote_low_f32x4', of(v));
    return e.op('f64x2.eq', e.op('f64x2.mul', wide(x), wide(y)), wide(product));
  };
  const low = half((v) => v);
  const high = half((v) => upperHalf(e, v));
  return e.shuffle(low, high, [0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27]);
}

/** FMUL, FDIV: a result that is neither tiny nor too great, or zero because an operand is. */
export const productLanes =
  (op: 'mul' | 'div'): LaneBinary =>
  (e, s, a, b) => {
    const t = floats(s.bytes);
    const result = e.op(`${t}.${op}`, a, b);
    const zero = e.v128(0n);
    const isZero = (v: Val): Val => e.op(`${t}.eq`, v, zero);
    const operand = op === 'mul' ? e.op('v128.or', isZero(a), isZero(b)) : isZero(a);
    const exactZero = e.op('v128.and', operand, isZero(result));
    const normal = within(e, s.bytes, result, MIN_NORMAL[s.bytes], Number.POSITIVE_INFINITY);
    const exact = (): Val => {
      const [x, product] = op === 'mul' ? [a, result] : [result, a];
      const known = e.op('v128.and', normal, isProduct(e, s.bytes, x, b, product));
      return e.and(plain(e), everyLane(e, s.bytes, e.op('v128.or', exactZero, known)));
    };
    return { result, sure: e.and(ready(e), everyLane(e, s.bytes, e.op('v128.or', normal, exactZero))), exact };
  };

/** FMAX, FMIN, FMAXNM, FMINNM of numbers. */
export const extremeLanes =
  (op: 'max' | 'min'): LaneBinary =>
  (e, s, a, b) => {
    const result = e.op(`${floats(s.bytes)}.${op}`, a, b);
    return { result, sure: e.and(unflushed(e), everyLane(e, s.bytes, orderedLanes(e, s.bytes, result))) };
  };

/** Comparisons of numbers. */
export const compareLanes =
  (op: 'eq' | 'ge' | 'gt' | 'le' | 'lt', ofAbs = false): LaneBinary =>
  (e, s, a, b) => {
    const of = (v: Val): Val => (ofAbs ? absLanes(e, s.bytes, v) : v);
    return {
      result: e.op(`${floats(s.bytes)}.${op}`, of(a), of(b)),
      sure: e.and(unflushed(e), everyLane(e, s.bytes, orderedLanes(e, s.bytes, a, b))),
    };
  };

/** FSQRT of positive numbers and +0. */
export const sqrtLanes: LaneUnary = (e, s, a) => {
  const t = floats(s.bytes);
  // -0 is below 0 as an integer, and its own root; it is left to the helper.
  const positive = e.op(`${ints(s.bytes)}.ge_s`, a, e.v128(0n));
  const good = e.op('v128.and', positive, finiteLanes(e, s.bytes, a));
  const result = e.op(`${t}.sqrt`, a);
  const exact = (): Val => {
    const known = e.op('v128.or', isProduct(e, s.bytes, result, result, a), e.op(`${t}.eq`, a, e.v128(0n)));
    return e.and(plain(e), everyLane(e, s.bytes, e.op('v128.and', good, known)));
  };
  return { result, sure: e.and(ready(e), everyLane(e, s.bytes, good)), exact };
};

export type LaneRounding = 'nearest' | 'ceil' | 'floor' | 'trunc' | 'away';

/** Rounds every lane to an integral number. */
export function roundLanes(e: Emitter, bytes: 4 | 8, rounding: LaneRounding, a: Val): Val {
  const t = floats(bytes);
  if (rounding !== 'away') return e.op(`${t}.${rounding}`, a);
  const whole = e.op(`${t}.trunc`, a);
  const up = e.op(`${t}.ge`, e.op(`${t}.abs`, e.op(`${t}.sub`, a, whole)), spreadNumber(e, bytes, 0.5));
  const sign = e.op('v128.and', a, pattern(e, bytes, signBit(bytes)));
  const one = e.op('v128.or', sign, spreadNumber(e, bytes, 1));
  return e.op('v128.bitselect', e.op(`${t}.add`, whole, one), whole, up);
}

/** FRINTN, FRINTP, FRINTM, FRINTZ, FRINTA of numbers. */
export const integralLanes =
  (rounding: LaneRounding): LaneUnary =>
  (e, s, a) => ({
    result: roundLanes(e, s.bytes, rounding, a),
    sure: e.and(unflushed(e), everyLane(e, s.bytes, orderedLanes(e, s.bytes, a))),
  });

/** FRINTI, FRINTX of numbers, rounding to nearest; FRINTX with IXC set already, or of integral numbers. */
export const integralAsSet =
  (inexact: boolean): LaneUnary =>
  (e, s, a) => {
    const result = e.op(`${floats(s.bytes)}.nearest`, a);
    const ordered = e.and(plain(e), everyLane(e, s.bytes, orderedLanes(e, s.bytes, a)));
    if (!inexact) return { result, sure: ordered };
    const same = everyLane(e, s.bytes, e.op(`${floats(s.bytes)}.eq`, result, a));
    return { result, sure: e.and(ordered, e.or(ready(e), same)) };
  };

/** FMLA, FMLS: c + (-)a * b. */
export function mulAddLanes(e: Emitter, s: HostShape, negate: boolean, c: Val, a: Val, b: Val): Attempt {
  const x = negate ? negLanes(e, s.bytes, a) : a;
  const fused: Fused = s.bytes === 8 ? fusedDouble(e, x, b, c) : fusedSingles(e, x, b, c, s.lanes > 2);
  const all = (mask: Val): Val => e.op('i64x2.all_true', mask);
  return { result: fused.result, sure: e.and(all(fused.sure), e.or(ready(e), e.and(plain(e), all(fused.exact)))) };
}
