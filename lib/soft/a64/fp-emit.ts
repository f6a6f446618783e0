import { Offset } from '../cpu/layout.js';
import { Fpcr, Fpsr } from '../fp/format.js';
import type { Emitter, Helper, Val, VOperand } from './emitter.js';
import { fpBinary32, fpBinary64, fpUnary32, fpUnary64 } from './fp-helpers.js';
import { type BinaryName, binaryCode, type FormatIndex, type UnaryName, unaryCode } from './fp-operations.js';

/**
 * What the floating-point rows share. The host's arithmetic rounds to nearest and shows no exceptions, so its results are
 * taken where FPCR asks for nothing else and the operation cannot have raised what FPSR does not have yet; otherwise the
 * exact helper does the operation anew.
 */

/** Bytes of a scalar. */
export type FpBytes = 2 | 4 | 8;

/** The `ftype` field: 0 single, 1 double, 3 half. 2 is unallocated. */
export const bytesOf = (type: number): FpBytes => (type === 1 ? 8 : type === 0 ? 4 : 2);
export const allocatedType = (f: { readonly type: number }): boolean => f.type !== 2;
export const formatIndex = (bytes: FpBytes): FormatIndex => (bytes === 8 ? 3 : bytes === 4 ? 2 : 1);

/** The host's type of a single or double. */
export const hostType = (bytes: 4 | 8): 'f32' | 'f64' => (bytes === 8 ? 'f64' : 'f32');
export const constant = (e: Emitter, bytes: 4 | 8, value: number): Val => (bytes === 8 ? e.f64(value) : e.f32(value));
/** The smallest normal number. */
export const MIN_NORMAL: Readonly<Record<4 | 8, number>> = { 4: 2 ** -126, 8: 2 ** -1022 };

/** The bits of a float. */
export const bitsOf = (e: Emitter, v: Val): Val =>
  e.op(v.type === 'f64' ? 'i64.reinterpret_f64' : 'i32.reinterpret_f32', v);

/** Calls a helper that returns a value. */
export function call(e: Emitter, target: Helper, ...args: readonly Val[]): Val {
  const result = e.call(target, ...args);
  if (result === undefined) throw new Error(`the helper ${target.name} returns nothing`);
  return result;
}

const STRICT = Fpcr.RMODE | Fpcr.FZ;

/** FPCR asks for nothing the host does not do (rounding mode, flushing), and an inexact result changes nothing in FPSR. */
export function ready(e: Emitter): Val {
  // FPSR is the upper half of FPCR's word.
  const word = e.state('i64', Offset.FPCR);
  const inexact = BigInt(Fpsr.IXC) << 32n;
  return e.eq(e.and(word, e.i64(BigInt(STRICT) | inexact)), e.i64(inexact));
}
/** FPCR asks for nothing the host does not do. */
export const plain = (e: Emitter): Val => e.eqz(e.and(e.state('i32', Offset.FPCR), e.i32(STRICT)));
/** FPSR has UFC and IXC: a tiny result changes nothing in it. */
export function underflowed(e: Emitter): Val {
  const both = e.i32(Fpsr.UFC | Fpsr.IXC);
  return e.eq(e.and(e.state('i32', Offset.FPSR), both), both);
}
/** FPCR does not flush denormals. */
export const unflushed = (e: Emitter): Val => e.eqz(e.and(e.state('i32', Offset.FPCR), e.i32(Fpcr.FZ)));
/** FPCR rounds to nearest. */
export const nearest = (e: Emitter): Val => e.eqz(e.and(e.state('i32', Offset.FPCR), e.i32(Fpcr.RMODE)));

/** Sets FPSR.IXC if `cond`, 0 or 1, holds. */
export function inexactIf(e: Emitter, cond: Val): void {
  e.setState(Offset.FPSR, e.or(e.state('i32', Offset.FPSR), e.shl(cond, e.i32(4))));
}

/** |v| is below infinity: not for NaNs. */
export const isBelowInfinity = (e: Emitter, v: Val): Val =>
  e.op(
    `${v.type}.lt`,
    e.op(`${v.type}.abs`, v),
    v.type === 'f64' ? e.f64(Number.POSITIVE_INFINITY) : e.f32(Number.POSITIVE_INFINITY),
  );

/** v is finite and above the smallest normal number: so it was not tiny before rounding either. */
export function isNormal(e: Emitter, v: Val): Val {
  const bytes = v.type === 'f64' ? 8 : 4;
  const magnitude = e.op(`${v.type}.abs`, v);
  return e.and(
    e.op(`${v.type}.gt`, magnitude, constant(e, bytes, MIN_NORMAL[bytes])),
    e.op(`${v.type}.lt`, magnitude, constant(e, bytes, Number.POSITIVE_INFINITY)),
  );
}

/** A scalar's bits: i32, or i64 for doubles. */
export const getBits = (e: Emitter, reg: VOperand, bytes: FpBytes): Val => e.getElem(reg, bytes);
/** A single or double. */
export const getFloat = (e: Emitter, reg: VOperand, bytes: 4 | 8): Val => e.getElem(reg, bytes, 0, true);

/** The exact one-operand operation on bits. */
export const softUnary = (e: Emitter, name: UnaryName, bytes: FpBytes, a: Val): Val =>
  call(e, bytes === 8 ? fpUnary64 : fpUnary32, e.i32(unaryCode(name, formatIndex(bytes))), a);
/** The exact two-operand operation on bits. */
export const softBinary = (e: Emitter, name: BinaryName, bytes: FpBytes, a: Val, b: Val): Val =>
  call(e, bytes === 8 ? fpBinary64 : fpBinary32, e.i32(binaryCode(name, formatIndex(bytes))), a, b);
