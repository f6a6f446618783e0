import {
  defaultNaN,
  type Format,
  type FpContext,
  Fpcr,
  Fpsr,
  HALF,
  infinity,
  maxNormal,
  Rounding as R,
  type Rounding,
  zero,
} from './format.js';

/** FPType. */
export const FpType = { ZERO: 0, FINITE: 1, INFINITY: 2, QNAN: 3, SNAN: 4 } as const;
export type FpType = (typeof FpType)[keyof typeof FpType];

/** A number taken apart: (-1)^sign * mantissa * 2^exponent, exactly; mantissa is 0 unless it is FINITE. */
export interface Unpacked {
  readonly type: FpType;
  readonly sign: 0 | 1;
  readonly mantissa: bigint;
  readonly exponent: number;
}

export const isNan = (u: Unpacked): boolean => u.type >= FpType.QNAN;

/**
 * FPUnpack (Arm ARM DDI 0487 J1.3, shared/functions/float/fpunpack): denormals become zero under FZ (and set IDC) or FZ16.
 * @param fpcr FPCR as this use sees it; conversions hide FZ16 and honour AHP
 */
export function unpack(fmt: Format, bits: bigint, ctx: FpContext, fpcr: number = ctx.fpcr & ~Fpcr.AHP): Unpacked {
  const sign = (bits & fmt.signBit) === 0n ? 0 : 1;
  const fraction = bits & fmt.fractionMask;
  const field = Number((bits >> BigInt(fmt.fractionBits)) & BigInt(fmt.maxField));
  if (field === 0) {
    if (fraction === 0n) return { type: FpType.ZERO, sign, mantissa: 0n, exponent: 0 };
    if ((fpcr & fmt.flush) !== 0) {
      if (fmt !== HALF) ctx.fpsr |= Fpsr.IDC;
      return { type: FpType.ZERO, sign, mantissa: 0n, exponent: 0 };
    }
    return { type: FpType.FINITE, sign, mantissa: fraction, exponent: fmt.minExponent - fmt.fractionBits };
  }
  if (field === fmt.maxField && !(fmt === HALF && (fpcr & Fpcr.AHP) !== 0)) {
    if (fraction === 0n) return { type: FpType.INFINITY, sign, mantissa: 0n, exponent: 0 };
    const type = (fraction & fmt.quietBit) === 0n ? FpType.SNAN : FpType.QNAN;
    return { type, sign, mantissa: 0n, exponent: 0 };
  }
  return {
    type: FpType.FINITE,
    sign,
    mantissa: fraction | (1n << BigInt(fmt.fractionBits)),
    exponent: field - fmt.bias - fmt.fractionBits,
  };
}

/** FPUnpackCV: for conversions between formats. */
export const unpackForConvert = (fmt: Format, bits: bigint, ctx: FpContext): Unpacked =>
  unpack(fmt, bits, ctx, ctx.fpcr & ~Fpcr.FZ16);

/** How many bits a positive integer has. */
export function bitLength(n: bigint): number {
  if (n <= 0xffff_ffffn) return 32 - Math.clz32(Number(n));
  if (n <= 0xffff_ffff_ffff_ffffn) return 64 - Math.clz32(Number(n >> 32n));
  const hex = n.toString(16);
  return (hex.length - 1) * 4 + 32 - Math.clz32(Number.parseInt(hex.charAt(0), 16));
}

/** FPProcessNaN: the quiet form of a NaN operand, or the default NaN under DN; a signalling one sets IOC. */
export function processNaN(fmt: Format, u: Unpacked, bits: bigint, ctx: FpContext): bigint {
  if (u.type === FpType.SNAN) ctx.fpsr |= Fpsr.IOC;
  return (ctx.fpcr & Fpcr.DN) !== 0 ? defaultNaN(fmt) : bits | fmt.quietBit;
}

/** FPProcessNaNs: the NaN that a two-operand operation gives, if one does: signalling before quiet, first before second. */
export function processNaNs(
  fmt: Format,
  u: Unpacked,
  a: bigint,
  v: Unpacked,
  b: bigint,
  ctx: FpContext,
): bigint | undefined {
  if (u.type === FpType.SNAN) return processNaN(fmt, u, a, ctx);
  if (v.type === FpType.SNAN) return processNaN(fmt, v, b, ctx);
  if (u.type === FpType.QNAN) return processNaN(fmt, u, a, ctx);
  if (v.type === FpType.QNAN) return processNaN(fmt, v, b, ctx);
  return undefined;
}

/** The default NaN, with IOC. */
export function invalid(fmt: Format, ctx: FpContext): bigint {
  ctx.fpsr |= Fpsr.IOC;
  return defaultNaN(fmt);
}

/** What an inexact integer quotient lost: nothing, less than half a unit, half a unit, more. */
export const Lost = { NOTHING: 0, LESS: 1, HALF: 2, MORE: 3 } as const;
export type Lost = (typeof Lost)[keyof typeof Lost];

/** What dropping the low `shift` bits of `n` loses. */
export function lost(n: bigint, shift: number): Lost {
  if (shift <= 0) return Lost.NOTHING;
  const rest = BigInt.asUintN(shift, n);
  if (rest === 0n) return Lost.NOTHING;
  const half = 1n << BigInt(shift - 1);
  return rest < half ? Lost.LESS : rest === half ? Lost.HALF : Lost.MORE;
}

/**
 * FPRoundBase (Arm ARM DDI 0487 J1.3, shared/functions/float/fpround): the nearest representable value by `rounding`, with its exceptions.
 * @param mantissa positive; the value is mantissa * 2^exponent. Where the true value is not an integer multiple, the lowest bit must be
 *   sticky and stand at least two places below the precision
 * @param fpcr FPCR as this use sees it: arithmetic hides AHP, conversions hide FZ16
 */
export function round(
  fmt: Format,
  sign: 0 | 1,
  mantissa: bigint,
  exponent: number,
  rounding: Rounding,
  ctx: FpContext,
  fpcr: number = ctx.fpcr & ~Fpcr.AHP,
): bigint {
  const top = exponent + bitLength(mantissa) - 1;
  if (top < fmt.minExponent && (fpcr & fmt.flush) !== 0) {
    // UFC is set here even for an exact result, and never with IXC.
    ctx.fpsr |= Fpsr.UFC;
    return zero(fmt, sign);
  }
  let field = Math.max(top - fmt.minExponent + 1, 0);
  const shift = (field === 0 ? fmt.minExponent : top) - fmt.fractionBits - exponent;
  let int = shift > 0 ? mantissa >> BigInt(shift) : mantissa << BigInt(-shift);
  let error: Lost = lost(mantissa, shift);
  // Underflow is tininess before rounding together with a loss.
  if (field === 0 && error !== Lost.NOTHING) ctx.fpsr |= Fpsr.UFC;
  let up = false;
  let overflowToInfinity = true;
  switch (rounding) {
    case R.TIEEVEN:
      up = error === Lost.MORE || (error === Lost.HALF && (int & 1n) === 1n);
      break;
    case R.TIEAWAY:
      up = error >= Lost.HALF;
      break;
    case R.POSINF:
      up = error !== Lost.NOTHING && sign === 0;
      overflowToInfinity = sign === 0;
      break;
    case R.NEGINF:
      up = error !== Lost.NOTHING && sign === 1;
      overflowToInfinity = sign === 1;
      break;
    default:
      overflowToInfinity = false;
      if (rounding === R.ODD && error !== Lost.NOTHING) int |= 1n;
  }
  if (up) {
    int += 1n;
    if (int === 1n << BigInt(fmt.fractionBits)) field = Math.max(field, 1);
    if (int === 1n << BigInt(fmt.fractionBits + 1)) {
      field++;
      int >>= 1n;
    }
  }
  let result = (BigInt(field) << BigInt(fmt.fractionBits)) | (int & fmt.fractionMask) | zero(fmt, sign);
  if (fmt === HALF && (fpcr & Fpcr.AHP) !== 0) {
    if (field > fmt.maxField) {
      ctx.fpsr |= Fpsr.IOC;
      return zero(fmt, sign) | (fmt.signBit - 1n);
    }
  } else if (field >= fmt.maxField) {
    result = overflowToInfinity ? infinity(fmt, sign) : maxNormal(fmt, sign);
    ctx.fpsr |= Fpsr.OFC;
    error = Lost.LESS;
  }
  if (error !== Lost.NOTHING) ctx.fpsr |= Fpsr.IXC;
  return result;
}

/** Rounds a signed value; an exact zero has the sign that a sum of opposites has. */
export function roundSigned(fmt: Format, value: bigint, exponent: number, rounding: Rounding, ctx: FpContext): bigint {
  if (value === 0n) return zero(fmt, rounding === R.NEGINF ? 1 : 0);
  return value < 0n ? round(fmt, 1, -value, exponent, rounding, ctx) : round(fmt, 0, value, exponent, rounding, ctx);
}
