/**
 * DecodeBitMasks (Arm ARM DDI 0487 J1.3, aarch64/instrs/integer/bitmasks): the two 64-bit masks behind logical immediates and bitfield moves.
 * For 32-bit operations, use the low halves.
 */
export interface BitMasks {
  /** Where the rotated source shows: all of a logical immediate. */
  readonly wmask: bigint;
  /** Where a bitfield move takes its result from the source at all; elsewhere it keeps, clears or copies the sign. */
  readonly tmask: bigint;
}

const MASK64 = (1n << 64n) - 1n;
const ones = (n: number): bigint => (1n << BigInt(n)) - 1n;

/** `pattern`, `size` bits wide, repeated to 64 bits. */
function replicate(pattern: bigint, size: number): bigint {
  let out = pattern;
  for (let width = size; width < 64; width *= 2) out |= out << BigInt(width);
  return out & MASK64;
}

/**
 * @param immediate for a logical immediate, where all ones is not allocated
 * @returns undefined where the encoding is not allocated
 */
export function decodeBitMasks(n: number, imms: number, immr: number, immediate: boolean): BitMasks | undefined {
  const len = 31 - Math.clz32((n << 6) | (~imms & 0x3f));
  if (len < 1) return undefined;
  const size = 1 << len;
  const levels = size - 1;
  const s = imms & levels;
  const r = immr & levels;
  if (immediate && s === levels) return undefined;
  const element = ones(s + 1);
  const rotated = ((element >> BigInt(r)) | (element << BigInt(size - r))) & ones(size);
  return {
    wmask: replicate(rotated, size),
    tmask: replicate(ones(((s - r) & levels) + 1), size),
  };
}

/** By N, imms and immr, what was asked for so far: programs have a few hundred of them. */
const logicalImmediates = new Map<number, bigint | undefined>();
const bitfieldMasks = new Map<number, bigint>();

/** The value of a logical immediate, or undefined where it is not allocated for a register of 32 (`sf` 0) or 64 bits. */
export function logicalImmediate(sf: number, n: number, imms: number, immr: number): bigint | undefined {
  if (sf === 0 && n === 1) return undefined;
  const key = (n << 12) | (imms << 6) | immr;
  let value = logicalImmediates.get(key);
  if (value === undefined && !logicalImmediates.has(key)) {
    value = decodeBitMasks(n, imms, immr, true)?.wmask;
    logicalImmediates.set(key, value);
  }
  return value;
}

/** The bits of a bitfield move's result that come from the rotated source. */
export function bitfieldMask(n: number, imms: number, immr: number): bigint {
  const key = (n << 12) | (imms << 6) | immr;
  let mask = bitfieldMasks.get(key);
  if (mask === undefined) {
    const masks = decodeBitMasks(n, imms, immr, false);
    mask = masks === undefined ? 0n : masks.wmask & masks.tmask;
    bitfieldMasks.set(key, mask);
  }
  return mask;
}
