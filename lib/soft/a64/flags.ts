import type { Emitter, Val } from './emitter.js';

/** An i32 or i64 as the i64 that carries its sign and its zeroness. */
const wide = (e: Emitter, v: Val): Val => (v.type === 'i32' ? e.extS(v) : v);

/**
 * NZCV of AddWithCarry(a, b, carry) = result (Arm ARM DDI 0487 J1.3); for a subtraction, `b` is the inverted operand.
 * @param carry i32 0 or 1: the carry out, which the caller knows the cheap way to
 */
export function addWithCarryFlags(e: Emitter, a: Val, b: Val, result: Val, carry: Val): void {
  const r = wide(e, result);
  e.setFlags(r, r, carry, wide(e, addOverflow(e, a, b, result)));
}

/** Negative where a + b overflows: the operands' signs are equal and the result's is not. */
export const addOverflow = (e: Emitter, a: Val, b: Val, result: Val): Val => e.and(e.xor(a, result), e.xor(b, result));

/** Negative where a - b overflows: the operands' signs differ and the result's is not the first's. */
export const subOverflow = (e: Emitter, a: Val, b: Val, result: Val): Val => e.and(e.xor(a, b), e.xor(a, result));

/** The words of NZCV of a + b = result, of a - b = result, and of a logical operation, where C and V are 0. */
export const FLAG_WORDS = {
  add: (e: Emitter, a: Val, b: Val, result: Val): void => addWithCarryFlags(e, a, b, result, e.ltU(result, a)),
  sub: (e: Emitter, a: Val, b: Val, result: Val): void => {
    const r = wide(e, result);
    e.setFlags(r, r, e.geU(a, b), wide(e, subOverflow(e, a, b, result)));
  },
  logical: (e: Emitter, result: Val): void => {
    const r = wide(e, result);
    e.setFlags(r, r, e.i32(0), e.i64(0n));
  },
} as const;

/** NZCV of a logical operation. */
export function logicalFlags(e: Emitter, result: Val): void {
  e.flagsOf('logical', result, result, () => FLAG_WORDS.logical(e, result));
}
