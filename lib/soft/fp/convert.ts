import {
  abs,
  defaultNaN,
  type Format,
  type FpContext,
  Fpcr,
  Fpsr,
  HALF,
  infinity,
  Rounding,
  roundingMode,
  zero,
} from './format.js';
import { FpType, isNan, Lost, lost, processNaN, round, unpack, unpackForConvert } from './unpack.js';

/** Conversions between formats and to and from integers (Arm ARM DDI 0487 J1.3, shared/functions/float). */

/** FPConvertNaN: a NaN of one format as a quiet NaN of another, its fraction kept from the top. */
export function convertNaN(from: Format, to: Format, bits: bigint): bigint {
  const fraction = bits & (from.fractionMask >> 1n);
  const shift = to.fractionBits - from.fractionBits;
  const kept = shift >= 0 ? fraction << BigInt(shift) : fraction >> BigInt(-shift);
  return zero(to, (bits & from.signBit) === 0n ? 0 : 1) | defaultNaN(to) | kept;
}

/** FPConvert. @param rounding FPCR's unless given (FCVTXN rounds to odd) */
export function convert(
  from: Format,
  to: Format,
  bits: bigint,
  ctx: FpContext,
  rounding: Rounding = roundingMode(ctx),
): bigint {
  const alternative = to === HALF && (ctx.fpcr & Fpcr.AHP) !== 0;
  const u = unpackForConvert(from, bits, ctx);
  if (isNan(u)) {
    if (u.type === FpType.SNAN || alternative) ctx.fpsr |= Fpsr.IOC;
    if (alternative) return zero(to, u.sign);
    return (ctx.fpcr & Fpcr.DN) !== 0 ? defaultNaN(to) : convertNaN(from, to, bits);
  }
  if (u.type === FpType.INFINITY) {
    if (!alternative) return infinity(to, u.sign);
    ctx.fpsr |= Fpsr.IOC;
    return zero(to, u.sign) | (to.signBit - 1n);
  }
  if (u.type === FpType.ZERO) return zero(to, u.sign);
  return round(to, u.sign, u.mantissa, u.exponent, rounding, ctx, ctx.fpcr & ~Fpcr.FZ16);
}

/** A value rounded to an integer: the magnitude of (-1)^sign * mantissa * 2^exponent. */
function roundMagnitude(
  sign: 0 | 1,
  mantissa: bigint,
  exponent: number,
  rounding: Rounding,
): { int: bigint; exact: boolean } {
  if (exponent >= 0) return { int: mantissa << BigInt(exponent), exact: true };
  const int = mantissa >> BigInt(-exponent);
  const error = lost(mantissa, -exponent);
  let up = false;
  switch (rounding) {
    case Rounding.TIEEVEN:
      up = error === Lost.MORE || (error === Lost.HALF && (int & 1n) === 1n);
      break;
    case Rounding.TIEAWAY:
      up = error >= Lost.HALF;
      break;
    case Rounding.POSINF:
      up = error !== Lost.NOTHING && sign === 0;
      break;
    case Rounding.NEGINF:
      up = error !== Lost.NOTHING && sign === 1;
      break;
    default:
  }
  return { int: up ? int + 1n : int, exact: error === Lost.NOTHING };
}

/**
 * FPToFixed: saturates, with IOC, where the integer does not fit.
 * @returns the low `width` bits, unsigned
 */
export function toFixed(
  fmt: Format,
  bits: bigint,
  fractionBits: number,
  unsigned: boolean,
  width: number,
  rounding: Rounding,
  ctx: FpContext,
): bigint {
  const u = unpack(fmt, bits, ctx);
  const low = unsigned ? 0n : -(1n << BigInt(width - 1));
  const high = unsigned ? (1n << BigInt(width)) - 1n : (1n << BigInt(width - 1)) - 1n;
  if (isNan(u)) {
    ctx.fpsr |= Fpsr.IOC;
    return 0n;
  }
  let result = 0n;
  if (u.type === FpType.INFINITY) {
    result = u.sign === 1 ? low - 1n : high + 1n;
  } else if (u.type === FpType.FINITE) {
    const { int, exact } = roundMagnitude(u.sign, u.mantissa, u.exponent + fractionBits, rounding);
    result = u.sign === 1 ? -int : int;
    if (!exact && result >= low && result <= high) ctx.fpsr |= Fpsr.IXC;
  }
  if (result < low || result > high) {
    ctx.fpsr |= Fpsr.IOC;
    result = result < low ? low : high;
  }
  return BigInt.asUintN(width, result);
}

/** FixedToFP: `value` / 2^`fractionBits`. @param value signed, or not negative for the unsigned forms */
export function fromFixed(fmt: Format, value: bigint, fractionBits: number, ctx: FpContext): bigint {
  if (value === 0n) return 0n;
  const sign = value < 0n ? 1 : 0;
  return round(fmt, sign, sign === 1 ? -value : value, -fractionBits, roundingMode(ctx), ctx);
}

/** FPToFixedJS: to a signed 32-bit integer modulo 2^32. `exact` is what FJCVTZS puts into PSTATE.Z. */
export function toInt32Js(fmt: Format, bits: bigint, ctx: FpContext): { result: number; exact: boolean } {
  const u = unpack(fmt, bits, ctx);
  if (isNan(u) || u.type === FpType.INFINITY) {
    ctx.fpsr |= Fpsr.IOC;
    return { result: 0, exact: false };
  }
  // -0, and a denormal that was flushed, are not what the integer 0 converts back to.
  if (u.type === FpType.ZERO) return { result: 0, exact: u.sign === 0 && abs(fmt, bits) === 0n };
  const { int, exact } = roundMagnitude(u.sign, u.mantissa, u.exponent, Rounding.ZERO);
  const value = u.sign === 1 ? -int : int;
  const fits = BigInt.asIntN(32, value) === value;
  if (!fits) ctx.fpsr |= Fpsr.IOC;
  else if (!exact) ctx.fpsr |= Fpsr.IXC;
  return { result: Number(BigInt.asIntN(32, value)), exact: fits && exact };
}

/** FPRoundInt: to an integral value of the same format. @param exact sets IXC where the value changes (FRINTX) */
export function roundInt(fmt: Format, bits: bigint, rounding: Rounding, exact: boolean, ctx: FpContext): bigint {
  const u = unpack(fmt, bits, ctx);
  if (isNan(u)) return processNaN(fmt, u, bits, ctx);
  if (u.type === FpType.INFINITY) return bits;
  if (u.type === FpType.ZERO) return zero(fmt, u.sign);
  const r = roundMagnitude(u.sign, u.mantissa, u.exponent, rounding);
  if (exact && !r.exact) ctx.fpsr |= Fpsr.IXC;
  return r.int === 0n ? zero(fmt, u.sign) : round(fmt, u.sign, r.int, 0, Rounding.ZERO, ctx);
}

/** FPRoundIntN: to an integral value that fits a signed integer of `size` bits; what does not fit gives the least one, with IOC. */
export function roundIntN(fmt: Format, bits: bigint, rounding: Rounding, size: 32 | 64, ctx: FpContext): bigint {
  const u = unpack(fmt, bits, ctx);
  const least = fmt.signBit | (BigInt(fmt.bias + size - 1) << BigInt(fmt.fractionBits));
  if (isNan(u) || u.type === FpType.INFINITY) {
    ctx.fpsr |= Fpsr.IOC;
    return least;
  }
  if (u.type === FpType.ZERO) return zero(fmt, u.sign);
  const r = roundMagnitude(u.sign, u.mantissa, u.exponent, rounding);
  const bound = 1n << BigInt(size - 1);
  if (u.sign === 1 ? r.int > bound : r.int >= bound) {
    ctx.fpsr |= Fpsr.IOC;
    return least;
  }
  if (!r.exact) ctx.fpsr |= Fpsr.IXC;
  return r.int === 0n ? zero(fmt, u.sign) : round(fmt, u.sign, r.int, 0, Rounding.ZERO, ctx);
}
