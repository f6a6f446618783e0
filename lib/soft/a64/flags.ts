import type { Emitter, Val } from './emitter.js';

/** An i32 or i64 as the i64 that carries its sign and its zeroness. */
const wide = (e: Emitter, v: Val): Val => (v.type === 'i32' ? e.extS(v) : v);

/**
 * NZCV of AddWithCarry(a, b, carry) = result (Arm ARM DDI 0487 J1.3); for a subtraction, `b` is the inverted operand.
 * @param carry i32 0 or 1: the carry out, which the caller knows the cheap way to (`result < a` for ADDS, `a >= b` for SUBS)
 */
export function addWithCarryFlags(e: Emitter, a: Val, b: Val, result: Val, carry: Val): void {
  const r = wide(e, result);
  const overflow = e.and(e.xor(a, result), e.xor(b, result));
  e.setFlags(r, r, carry, wide(e, overflow));
}

/** NZCV of a logical operation: C and V are 0. */
export function logicalFlags(e: Emitter, result: Val): void {
  const r = wide(e, result);
  e.setFlags(r, r, e.i32(0), e.i64(0n));
}
