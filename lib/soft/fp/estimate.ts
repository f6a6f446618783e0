import { type Format, type FpContext, Fpsr, infinity, maxNormal, Rounding, roundingMode, zero } from './format.js';
import { bitLength, FpType, invalid, isNan, processNaN, unpack } from './unpack.js';

/** Reciprocal and reciprocal square root estimates of eight bits (Arm ARM DDI 0487 J1.3, shared/functions/float/fprecipestimate). */

/** RecipEstimate: of a in 256..511 (0.5 to 1 in steps of 1/512), in 256..511 (1 to 2 in steps of 1/256). */
function recipEstimate(a: number): number {
  const b = Math.floor(2 ** 19 / (a * 2 + 1));
  return (b + 1) >> 1;
}

/** RecipSqrtEstimate: of a in 128..511 (0.25 to 1 in steps of 1/512), in 256..511. */
function recipSqrtEstimate(a: number): number {
  const scaled = a < 256 ? a * 2 + 1 : ((a >> 1) * 2 + 1) * 2;
  let b = 512;
  while (scaled * (b + 1) * (b + 1) < 2 ** 28) b++;
  return (b + 1) >> 1;
}

/** UnsignedRecipEstimate (URECPE). */
export const unsignedRecip = (a: number): number =>
  a >>> 31 === 0 ? 0xffff_ffff : (recipEstimate(a >>> 23) << 23) >>> 0;

/** UnsignedRSqrtEstimate (URSQRTE). */
export const unsignedRsqrt = (a: number): number =>
  a >>> 30 === 0 ? 0xffff_ffff : (recipSqrtEstimate(a >>> 23) << 23) >>> 0;

/** A finite number's exponent field, below 0 for what a denormal would have, and its nine leading bits. */
function leading(fmt: Format, mantissa: bigint, exponent: number): { field: number; top: number } {
  const length = bitLength(mantissa);
  const shift = length - 9;
  const top = Number(shift >= 0 ? mantissa >> BigInt(shift) : mantissa << BigInt(-shift));
  return { field: exponent + length - 1 + fmt.bias, top };
}

/** FPRecipEstimate. */
export function recip(fmt: Format, a: bigint, ctx: FpContext): bigint {
  const u = unpack(fmt, a, ctx);
  if (isNan(u)) return processNaN(fmt, u, a, ctx);
  if (u.type === FpType.INFINITY) return zero(fmt, u.sign);
  if (u.type === FpType.ZERO) {
    ctx.fpsr |= Fpsr.DZC;
    return infinity(fmt, u.sign);
  }
  const { field, top } = leading(fmt, u.mantissa, u.exponent);
  if (field < -1) {
    // Below a quarter of the smallest normal number: the reciprocal overflows.
    const rounding = roundingMode(ctx);
    const toInfinity =
      rounding === Rounding.TIEEVEN ||
      (rounding === Rounding.POSINF && u.sign === 0) ||
      (rounding === Rounding.NEGINF && u.sign === 1);
    ctx.fpsr |= Fpsr.OFC | Fpsr.IXC;
    return toInfinity ? infinity(fmt, u.sign) : maxNormal(fmt, u.sign);
  }
  const resultField = 2 * fmt.bias - 1 - field;
  if (resultField <= 0 && (ctx.fpcr & fmt.flush) !== 0) {
    ctx.fpsr |= Fpsr.UFC;
    return zero(fmt, u.sign);
  }
  // Nine bits with the leading one; a denormal result takes it into its fraction.
  let fraction = BigInt(recipEstimate(top)) << BigInt(fmt.fractionBits - 8);
  if (resultField <= 0) fraction >>= BigInt(1 - resultField);
  return (
    zero(fmt, u.sign) | (BigInt(Math.max(resultField, 0)) << BigInt(fmt.fractionBits)) | (fraction & fmt.fractionMask)
  );
}

/** FPRSqrtEstimate. */
export function rsqrt(fmt: Format, a: bigint, ctx: FpContext): bigint {
  const u = unpack(fmt, a, ctx);
  if (isNan(u)) return processNaN(fmt, u, a, ctx);
  if (u.type === FpType.ZERO) {
    ctx.fpsr |= Fpsr.DZC;
    return infinity(fmt, u.sign);
  }
  if (u.sign === 1) return invalid(fmt, ctx);
  if (u.type === FpType.INFINITY) return 0n;
  const { field, top } = leading(fmt, u.mantissa, u.exponent);
  const estimate = recipSqrtEstimate((field & 1) === 0 ? top : top >> 1);
  const resultField = (3 * fmt.bias - 1 - field) >> 1;
  return (BigInt(resultField) << BigInt(fmt.fractionBits)) | (BigInt(estimate & 0xff) << BigInt(fmt.fractionBits - 8));
}

/** FPRecpX: the exponent inverted, for scaling. */
export function recpx(fmt: Format, a: bigint, ctx: FpContext): bigint {
  const u = unpack(fmt, a, ctx);
  if (isNan(u)) return processNaN(fmt, u, a, ctx);
  const field = (a >> BigInt(fmt.fractionBits)) & BigInt(fmt.maxField);
  const inverted = field === 0n ? BigInt(fmt.maxField - 1) : BigInt(fmt.maxField) ^ field;
  return zero(fmt, u.sign) | (inverted << BigInt(fmt.fractionBits));
}
