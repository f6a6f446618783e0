/** The binary floating-point formats of A64 and the words that control their arithmetic (Arm ARM DDI 0487 A1.5). */

/** A binary interchange format, as numbers and as bit patterns. */
export interface Format {
  /** Width of the whole, in bits. */
  readonly bits: 16 | 32 | 64;
  /** Width of the exponent field. */
  readonly exponentBits: number;
  /** Width of the fraction field: the precision less one. */
  readonly fractionBits: number;
  /** The exponent field of 1.0. */
  readonly bias: number;
  /** The exponent of the smallest normal number. */
  readonly minExponent: number;
  /** The exponent field of infinities and NaNs. */
  readonly maxField: number;
  /** The bits of the fraction field. */
  readonly fractionMask: bigint;
  /** The sign bit. */
  readonly signBit: bigint;
  /** The top fraction bit, set in quiet NaNs. */
  readonly quietBit: bigint;
  /** Bit pattern of +infinity. */
  readonly infinity: bigint;
  /** Bit pattern of the largest finite number. */
  readonly maxNormal: bigint;
  /** The FPCR bit that flushes denormals of this format to zero: FZ or FZ16. */
  readonly flush: number;
}

function format(bits: 16 | 32 | 64, exponentBits: number, flush: number): Format {
  const fractionBits = bits - exponentBits - 1;
  const f = BigInt(fractionBits);
  const maxField = (1 << exponentBits) - 1;
  const infinity = BigInt(maxField) << f;
  const bias = maxField >> 1;
  return {
    bits,
    exponentBits,
    fractionBits,
    bias,
    minExponent: 1 - bias,
    maxField,
    fractionMask: (1n << f) - 1n,
    signBit: 1n << BigInt(bits - 1),
    quietBit: 1n << (f - 1n),
    infinity,
    maxNormal: infinity - 1n,
    flush,
  };
}

/** FPCR (Arm ARM DDI 0487 C5.2.8). The bits of features that are not there (AH, FIZ, NEP, exception traps) are RES0. */
export const Fpcr = {
  FZ16: 1 << 19,
  /** 0 to nearest, 1 towards plus infinity, 2 towards minus infinity, 3 towards zero. */
  RMODE: 3 << 22,
  RMODE_SHIFT: 22,
  FZ: 1 << 24,
  DN: 1 << 25,
  AHP: 1 << 26,
} as const;

/** FPSR's cumulative exception bits (Arm ARM DDI 0487 C5.2.9). */
export const Fpsr = {
  /** Invalid operation. */
  IOC: 1 << 0,
  /** Division by zero. */
  DZC: 1 << 1,
  /** Overflow. */
  OFC: 1 << 2,
  /** Underflow. */
  UFC: 1 << 3,
  /** Inexact. */
  IXC: 1 << 4,
  /** Input denormal. */
  IDC: 1 << 7,
} as const;

export const HALF: Format = format(16, 5, Fpcr.FZ16);
export const SINGLE: Format = format(32, 8, Fpcr.FZ);
export const DOUBLE: Format = format(64, 11, Fpcr.FZ);

/** FPRounding: the first four are FPCR.RMode's values. */
export const Rounding = {
  TIEEVEN: 0,
  POSINF: 1,
  NEGINF: 2,
  ZERO: 3,
  TIEAWAY: 4,
  ODD: 5,
} as const;
export type Rounding = (typeof Rounding)[keyof typeof Rounding];

/** What an operation reads and accumulates. */
export interface FpContext {
  /** FPCR. */
  fpcr: number;
  /** Exceptions so far: bits of {@link Fpsr}; operations only set bits. */
  fpsr: number;
}

/** FPRoundingMode(FPCR). */
export const roundingMode = (ctx: FpContext): Rounding => ((ctx.fpcr & Fpcr.RMODE) >>> Fpcr.RMODE_SHIFT) as Rounding;

/** FPZero(sign). */
export const zero = (fmt: Format, sign: number): bigint => (sign === 1 ? fmt.signBit : 0n);
/** FPInfinity(sign). */
export const infinity = (fmt: Format, sign: number): bigint => (sign === 1 ? fmt.signBit | fmt.infinity : fmt.infinity);
/** FPMaxNormal(sign). */
export const maxNormal = (fmt: Format, sign: number): bigint =>
  sign === 1 ? fmt.signBit | fmt.maxNormal : fmt.maxNormal;
/** FPDefaultNaN(). */
export const defaultNaN = (fmt: Format): bigint => fmt.infinity | fmt.quietBit;
/** FPNeg: also of a NaN. */
export const neg = (fmt: Format, a: bigint): bigint => a ^ fmt.signBit;
/** FPAbs: also of a NaN. */
export const abs = (fmt: Format, a: bigint): bigint => a & (fmt.signBit - 1n);
