import { type Lanes, replicate } from './advsimd-lanes.js';
import type { Binary } from './advsimd-three-same.js';
import type { Val } from './emitter.js';

/**
 * Shifts of each element by its own amount, which WebAssembly does not have (Arm ARM DDI 0487: SSHL, USHL and their rounding
 * and saturating kin). The amount is the signed low byte of the other source's element: left where positive, right where negative.
 */

/** Shifts each element by the low bits of its element of `by`: amounts from 0 to `bits - 1`. */
function shiftEach(x: Lanes, name: 'shl' | 'shr_s' | 'shr_u', a: Val, by: Val): Val {
  const { e, size, bits } = x;
  if (size >= 2) {
    const shape = size === 2 ? 'i32x4' : 'i64x2';
    let r = a;
    for (let i = 0; i < 16 >> size; i++) {
      const shifted = e.op(
        `i${bits}.${name}`,
        e.lane(`${shape}.extract_lane`, i, a),
        e.lane(`${shape}.extract_lane`, i, by),
      );
      r = e.lane(`${shape}.replace_lane`, i, r, shifted);
    }
    return r;
  }
  // A barrel shifter: a step for each bit of the amount.
  let r = a;
  for (let step = 1; step < bits; step *= 2) {
    const bit = x.splat(step);
    r = x.choose(x.op('eq', x.and(by, bit), bit), x.op(name, r, e.i32(step)), r);
  }
  return r;
}

/** The meaning of SSHL, USHL, SRSHL, URSHL, SQSHL, UQSHL, SQRSHL and UQRSHL (register). */
export const shiftByRegister =
  (signed: boolean, rounding: boolean, saturating: boolean): Binary =>
  (x, n, m) => {
    const { e, bits } = x;
    // Amounts are worked out in bytes, then cleared of what stands above them in their elements.
    const lowByte = (v: Val): Val => (x.size === 0 ? v : x.and(v, x.splat(0xff)));
    const left = lowByte(m);
    const negative = x.size === 0 ? x.sign(m) : x.greater(true, left, x.splat(127));

    // Left by `left`: nothing remains of the element from `bits` on.
    const inRange = x.greater(true, x.splat(bits), x.size === 0 ? x.and(m, x.splat(127)) : left);
    const shifted = x.and(shiftEach(x, 'shl', n, left), inRange);

    // Right by one less than the amount, -m - 1 = ~m, so that the last bit shifted out is still there for rounding.
    const less = e.op('v128.not', m);
    const most = e.v128(replicate(0, bits - 1));
    const right = lowByte(e.op('i8x16.min_u', less, most));
    let almost = shiftEach(x, signed ? 'shr_s' : 'shr_u', n, right);
    if (!signed) almost = x.and(almost, x.op('eq', lowByte(less), right));
    const halved = x.halve(signed, rounding, almost);

    if (!saturating) return x.choose(negative, halved, shifted);
    const back = shiftEach(x, signed ? 'shr_s' : 'shr_u', shifted, left);
    const over = x.andNot(x.op('ne', back, n), negative);
    if (signed) return x.choose(negative, halved, x.saturateSigned(over, n, shifted));
    x.saturated(over);
    return x.choose(negative, halved, x.or(shifted, over));
  };
