import { Offset, STATE } from '../cpu/layout.js';
import * as soft from '../fp/softfloat.js';
import { DOUBLE, type Format, type FpContext, HALF, Rounding, SINGLE } from '../fp/softfloat.js';
import type { HelperEnv } from './helpers.js';

/** Floating-point operations as numbers, by which generated code names them to the helpers. */

/** A format as helpers name it: the binary logarithm of its bytes. */
export type FormatIndex = 1 | 2 | 3;
const FORMATS: readonly (Format | undefined)[] = [undefined, HALF, SINGLE, DOUBLE];

type Unary = (fmt: Format, a: bigint, ctx: FpContext) => bigint;
type Binary = (fmt: Format, a: bigint, b: bigint, ctx: FpContext) => bigint;

/** A comparison's result as an element: all ones or zero. */
const mask = (fmt: Format, holds: boolean): bigint => (holds ? fmt.signBit * 2n - 1n : 0n);
/** FPCompareEQ: only signalling NaNs are invalid. */
const cmeq: Binary = (fmt, a, b, ctx) => mask(fmt, soft.compare(fmt, a, b, false, ctx) === 0b0110);
/** FPCompareGE: every NaN is invalid. N = V, and not unordered, which is C and V without N. */
const cmge: Binary = (fmt, a, b, ctx) => mask(fmt, (soft.compare(fmt, a, b, true, ctx) & 0b1001) === 0);
const cmgt: Binary = (fmt, a, b, ctx) => mask(fmt, soft.compare(fmt, a, b, true, ctx) === 0b0010);
const ofAbs =
  (op: Binary): Binary =>
  (fmt, a, b, ctx) =>
    op(fmt, soft.abs(fmt, a), soft.abs(fmt, b), ctx);

const BINARY = {
  add: soft.add,
  sub: soft.sub,
  mul: soft.mul,
  div: soft.div,
  nmul: soft.nmul,
  max: soft.max,
  min: soft.min,
  maxnm: soft.maxNum,
  minnm: soft.minNum,
  mulx: soft.mulx,
  abd: (fmt, a, b, ctx) => soft.abs(fmt, soft.sub(fmt, a, b, ctx)),
  recps: soft.recipStep,
  rsqrts: soft.rsqrtStep,
  cmeq,
  cmge,
  cmgt,
  cmle: (fmt, a, b, ctx) => cmge(fmt, b, a, ctx),
  cmlt: (fmt, a, b, ctx) => cmgt(fmt, b, a, ctx),
  acge: ofAbs(cmge),
  acgt: ofAbs(cmgt),
} as const satisfies Record<string, Binary>;
export type BinaryName = keyof typeof BINARY;

/** FPRoundInt in a given rounding mode. */
const rint =
  (rounding: Rounding): Unary =>
  (fmt, a, ctx) =>
    soft.roundInt(fmt, a, rounding, false, ctx);
/** FPRoundIntN, towards zero or as FPCR says. */
const rintN =
  (size: 32 | 64, towardsZero: boolean): Unary =>
  (fmt, a, ctx) =>
    soft.roundIntN(fmt, a, towardsZero ? Rounding.ZERO : soft.roundingMode(ctx), size, ctx);

const UNARY = {
  sqrt: soft.sqrt,
  rintn: rint(Rounding.TIEEVEN),
  rintp: rint(Rounding.POSINF),
  rintm: rint(Rounding.NEGINF),
  rintz: rint(Rounding.ZERO),
  rinta: rint(Rounding.TIEAWAY),
  rintx: (fmt, a, ctx) => soft.roundInt(fmt, a, soft.roundingMode(ctx), true, ctx),
  rinti: (fmt, a, ctx) => soft.roundInt(fmt, a, soft.roundingMode(ctx), false, ctx),
  rint32z: rintN(32, true),
  rint32x: rintN(32, false),
  rint64z: rintN(64, true),
  rint64x: rintN(64, false),
  recpe: soft.recip,
  rsqrte: soft.rsqrt,
  recpx: soft.recpx,
} as const satisfies Record<string, Unary>;
export type UnaryName = keyof typeof UNARY;

const BINARY_NAMES = Object.keys(BINARY) as BinaryName[];
const BINARY_OPS: readonly Binary[] = Object.values(BINARY);
const UNARY_NAMES = Object.keys(UNARY) as UnaryName[];
const UNARY_OPS: readonly Unary[] = Object.values(UNARY);

/** The number by which helpers know an operation on a format. */
export const binaryCode = (name: BinaryName, fmt: FormatIndex): number => BINARY_NAMES.indexOf(name) * 4 + fmt;
export const unaryCode = (name: UnaryName, fmt: FormatIndex): number => UNARY_NAMES.indexOf(name) * 4 + fmt;
/** The number of a multiply-add: bit 2 negates the product, bit 3 the addend. */
export const mulAddCode = (negateProduct: boolean, negateAddend: boolean, fmt: FormatIndex): number =>
  fmt | (negateProduct ? 4 : 0) | (negateAddend ? 8 : 0);
/** The number of a conversion to an integer: format, unsigned (bit 2), 64 bits wide (bit 3), 16 bits wide (bit 4), rounding (bits 7..5). */
export const toIntCode = (fmt: FormatIndex, unsigned: boolean, width: 16 | 32 | 64, rounding: Rounding): number =>
  fmt | (unsigned ? 4 : 0) | (width === 64 ? 8 : width === 16 ? 16 : 0) | (rounding << 5);
/** The number of a conversion between formats; bit 4 rounds to odd. */
export const convertCode = (from: FormatIndex, to: FormatIndex, odd = false): number =>
  from | (to << 2) | (odd ? 16 : 0);

/** A helper call's view of FPCR and FPSR. */
export interface FpAccess {
  /** Runs one operation with FPCR as it is, and accumulates its exceptions into FPSR. */
  run<T>(operation: (ctx: FpContext) => T): T;
}

export function fpAccess(env: HelperEnv): FpAccess {
  const fpcr = (STATE + Offset.FPCR) >>> 2;
  const fpsr = (STATE + Offset.FPSR) >>> 2;
  const ctx: FpContext = { fpcr: 0, fpsr: 0 };
  return {
    run(operation) {
      ctx.fpcr = env.u32[fpcr] ?? 0;
      ctx.fpsr = 0;
      const result = operation(ctx);
      if (ctx.fpsr !== 0) env.u32[fpsr] = (env.u32[fpsr] ?? 0) | ctx.fpsr;
      return result;
    },
  };
}

/** The format in the low two bits of an operation's number. */
export function formatOf(op: number): Format {
  const fmt = FORMATS[op & 3];
  if (fmt === undefined) throw new RangeError(`floating-point operation ${op} names no format`);
  return fmt;
}
/** The two-operand operation of a number. */
export function binaryOf(op: number): Binary {
  const operation = BINARY_OPS[op >> 2];
  if (operation === undefined) throw new RangeError(`no floating-point operation has the number ${op}`);
  return operation;
}
/** The one-operand operation of a number. */
export function unaryOf(op: number): Unary {
  const operation = UNARY_OPS[op >> 2];
  if (operation === undefined) throw new RangeError(`no floating-point operation has the number ${op}`);
  return operation;
}

/** FPMulAdd with the negations that {@link mulAddCode} names. */
export function mulAddOf(op: number, addend: bigint, a: bigint, b: bigint, ctx: FpContext): bigint {
  const fmt = formatOf(op);
  return soft.mulAdd(
    fmt,
    (op & 8) !== 0 ? soft.neg(fmt, addend) : addend,
    (op & 4) !== 0 ? soft.neg(fmt, a) : a,
    b,
    ctx,
  );
}

/** FPToFixed as {@link toIntCode} names it. */
export function toIntOf(op: number, fractionBits: number, a: bigint, ctx: FpContext): bigint {
  const width = (op & 8) !== 0 ? 64 : (op & 16) !== 0 ? 16 : 32;
  return soft.toFixed(formatOf(op), a, fractionBits, (op & 4) !== 0, width, (op >> 5) as Rounding, ctx);
}
