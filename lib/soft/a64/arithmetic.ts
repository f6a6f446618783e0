import type { Emitter, Val } from './emitter.js';
import { addWithCarryFlags } from './flags.js';

/** Additions and subtractions with their flags, in the few operations each takes in WebAssembly. */

/** a + b, setting NZCV. */
export function adds(e: Emitter, a: Val, b: Val): Val {
  const result = e.add(a, b);
  addWithCarryFlags(e, a, b, result, e.ltU(result, a));
  return result;
}

/** a - b, setting NZCV. Overflow is where the operands' signs differ and the result's is not the first's: no inverted operand needed. */
export function subs(e: Emitter, a: Val, b: Val): Val {
  const result = e.sub(a, b);
  const r = result.type === 'i32' ? e.extS(result) : result;
  const overflow = e.and(e.xor(a, b), e.xor(a, result));
  e.setFlags(r, r, e.geU(a, b), overflow.type === 'i32' ? e.extS(overflow) : overflow);
  return result;
}

/** AddWithCarry(a, b, PSTATE.C), setting NZCV where `setFlags`. */
export function addWithCarry(e: Emitter, a: Val, b: Val, setFlags: boolean): Val {
  const carryIn = e.carry();
  const sum = e.add(a, b);
  const result = e.add(sum, a.type === 'i64' ? e.extU(carryIn) : carryIn);
  if (setFlags) addWithCarryFlags(e, a, b, result, e.or(e.ltU(sum, a), e.ltU(result, sum)));
  return result;
}

/** A small data field (i32) as a value of the type of `like`: a shift amount. */
export const amount = (e: Emitter, like: Val, n: Val): Val => (like.type === 'i64' ? e.extU(n) : n);
