import { Offset, STATE } from '../cpu/layout.js';
import { FLAG_OPERAND_WORDS, FLAG_OPERANDS, FLAG_STATES, isI64, wordsFrom } from './lazy-flags.js';
import { W } from './lower.js';
import { PureLowering } from './pure-function.js';
import { FunctionBody, type Signature } from './wasm-module.js';

/** The name under which the interpreter exports the function, and its signature. */
export const FLAGS_FUNCTION = 'flags';
export const FLAGS_SIGNATURE: Signature = { params: [], results: [] };

/** A function that makes the words of NZCV in the state from the operands that a region left there (Offset.FLAGS_FROM). */
export function flagsFunction(): FunctionBody {
  const body = new FunctionBody(0);
  const lowering = new PureLowering(body, []);
  const c = body.code;
  const load = (opcode: number, offset: number): void => {
    c.raw([W.I32_CONST, 0, opcode, 0]);
    c.u32(STATE + offset);
  };
  for (const variable of [...FLAG_OPERANDS.i32, ...FLAG_OPERANDS.i64]) variable.local = body.addLocal(variable.type);
  for (const state of FLAG_STATES) {
    load(W.I32_LOAD, Offset.FLAGS_FROM);
    c.raw([W.I32_CONST, state, W.I32_EQ, W.IF, W.VOID]);
    FLAG_OPERANDS[isI64(state) ? 'i64' : 'i32'].forEach(({ local }, n) => {
      load(isI64(state) ? W.I64_LOAD : W.I32_LOAD, FLAG_OPERAND_WORDS[n]!);
      c.u8(W.LOCAL_SET);
      c.u32(local);
    });
    lowering.lower(wordsFrom(state));
    c.u8(W.END);
  }
  c.raw([W.I32_CONST, 0, W.I32_CONST, 0, W.I32_STORE, 0]);
  c.u32(STATE + Offset.FLAGS_FROM);
  return body;
}
