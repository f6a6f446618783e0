import * as soft from '../fp/softfloat.js';
import { DOUBLE, Rounding } from '../fp/softfloat.js';
import { binaryOf, formatOf, fpAccess, mulAddOf, toIntOf, unaryOf } from './fp-operations.js';
import { createFpVectorHelpers } from './fp-vector-helpers.js';
import { type HelperEnv, type HelperTable, helper } from './helpers.js';

/** The exact paths of floating point, in TypeScript: what the generated code calls where the host's arithmetic will not do. */

/** (op, a): a one-operand operation of 16 or 32 bits, and of 64. */
export const fpUnary32 = helper('fpUnary32', 'ii:i');
export const fpUnary64 = helper('fpUnary64', 'il:l');
/** (op, a, b) */
export const fpBinary32 = helper('fpBinary32', 'iii:i');
export const fpBinary64 = helper('fpBinary64', 'ill:l');
/** (op, addend, a, b) */
export const fpMulAdd32 = helper('fpMulAdd32', 'iiii:i');
export const fpMulAdd64 = helper('fpMulAdd64', 'illl:l');
/** (format | signalling << 2, a, b): NZCV in bits 31..28 */
export const fpCompare32 = helper('fpCompare32', 'iii:i');
export const fpCompare64 = helper('fpCompare64', 'ill:i');
/** (op, a): between formats */
export const fpConvert = helper('fpConvert', 'il:l');
/** (op, fraction bits, a): to an integer */
export const fpToInt = helper('fpToInt', 'iil:l');
/** (format, fraction bits, a): from a signed integer, and from an unsigned one */
export const fpFromInt = helper('fpFromInt', 'iil:l');
export const fpFromUint = helper('fpFromUint', 'iil:l');
/** (a): FJCVTZS. PSTATE.Z in bit 32, the result below it. */
export const fpToInt32Js = helper('fpToInt32Js', 'l:l');

/** The helpers of floating point, scalar and vector. */
export function createFpHelpers(env: HelperEnv): HelperTable {
  const { run } = fpAccess(env);
  const u32 = (a: number): bigint => BigInt(a >>> 0);
  const u64 = (a: bigint): bigint => BigInt.asUintN(64, a);
  const compare = (op: number, a: bigint, b: bigint): number =>
    run((ctx) => soft.compare(formatOf(op), a, b, (op & 4) !== 0, ctx)) << 28;
  return {
    ...createFpVectorHelpers(env),
    fpUnary32: (op: number, a: number) => Number(run((ctx) => unaryOf(op)(formatOf(op), u32(a), ctx))),
    fpUnary64: (op: number, a: bigint) => run((ctx) => unaryOf(op)(DOUBLE, u64(a), ctx)),
    fpBinary32: (op: number, a: number, b: number) =>
      Number(run((ctx) => binaryOf(op)(formatOf(op), u32(a), u32(b), ctx))),
    fpBinary64: (op: number, a: bigint, b: bigint) => run((ctx) => binaryOf(op)(DOUBLE, u64(a), u64(b), ctx)),
    fpMulAdd32: (op: number, addend: number, a: number, b: number) =>
      Number(run((ctx) => mulAddOf(op, u32(addend), u32(a), u32(b), ctx))),
    fpMulAdd64: (op: number, addend: bigint, a: bigint, b: bigint) =>
      run((ctx) => mulAddOf(op, u64(addend), u64(a), u64(b), ctx)),
    fpCompare32: (op: number, a: number, b: number) => compare(op, u32(a), u32(b)),
    fpCompare64: (op: number, a: bigint, b: bigint) => compare(op, u64(a), u64(b)),
    fpConvert: (op: number, a: bigint) =>
      run((ctx) =>
        soft.convert(
          formatOf(op),
          formatOf(op >> 2),
          u64(a),
          ctx,
          (op & 16) !== 0 ? Rounding.ODD : soft.roundingMode(ctx),
        ),
      ),
    fpToInt: (op: number, fractionBits: number, a: bigint) => run((ctx) => toIntOf(op, fractionBits, u64(a), ctx)),
    fpFromInt: (op: number, fractionBits: number, a: bigint) =>
      run((ctx) => soft.fromFixed(formatOf(op), a, fractionBits, ctx)),
    fpFromUint: (op: number, fractionBits: number, a: bigint) =>
      run((ctx) => soft.fromFixed(formatOf(op), u64(a), fractionBits, ctx)),
    fpToInt32Js: (a: bigint) => {
      const { result, exact } = run((ctx) => soft.toInt32Js(DOUBLE, u64(a), ctx));
      return BigInt(result >>> 0) | (exact ? 1n << 32n : 0n);
    },
  };
}
