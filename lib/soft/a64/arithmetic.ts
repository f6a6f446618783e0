import type { Emitter, Val } from './emitter.js';
import { addWithCarryFlags, FLAG_WORDS } from './flags.js';

/** Additions and subtractions with their flags, in the few operations each takes in WebAssembly. */

/** a + b, setting NZCV. */
export function adds(e: Emitter, a: Val, b: Val): Val {
  const result = e.add(a, b);
  e.flagsOf('add', a, b, () => FLAG_WORDS.add(e, a, b, result));
  return result;
}

/** a - b, setting NZCV. */
export function subs(e: Emitter, a: Val, b: Val): Val {
  const result = e.sub(a, b);
  e.flagsOf('sub', a, b, () => FLAG_WORDS.sub(e, a, b, result));
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
