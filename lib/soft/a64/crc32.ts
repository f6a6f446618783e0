import type { Emitter, Val } from './emitter.js';

/**
 * CRC32 and CRC32C without a table: a CRC is linear over GF(2), so the result is the exclusive OR of one constant for every
 * bit that is set in (CRC xor data). Four bits at a time: each of four 32-bit lanes turns its bit into a mask.
 */

/** Bit-reversed polynomials: what the CRC is shifted right with. */
export const CRC32_POLYNOMIAL = 0xedb88320;
export const CRC32C_POLYNOMIAL = 0x82f63b78;

/** `value` after `bits` steps of the CRC, nothing fed in. */
export function crcAdvance(value: number, bits: number, polynomial: number): number {
  let crc = value;
  for (let i = 0; i < bits; i++) crc = (crc >>> 1) ^ (crc & 1 ? polynomial : 0);
  return crc >>> 0;
}

/** The exclusive OR, as a v128 to be folded, of what bits 0 to `bits - 1` of `word` (i32) become `distance` steps later. */
function contributions(e: Emitter, word: Val, bits: number, distance: number, polynomial: number): Val {
  // Lane i has bit (31 - i) - 4 * step of the word on top.
  const lanes = e.op('i32x4.mul', e.op('i32x4.splat', word), e.v128((8n << 96n) | (4n << 64n) | (2n << 32n) | 1n));
  let sum: Val | undefined;
  for (let group = 0; group < bits; group += 4) {
    let constants = 0n;
    for (let lane = 0; lane < 4; lane++) {
      const bit = bits - 1 - group - lane;
      constants |= BigInt(crcAdvance((1 << bit) >>> 0, distance, polynomial)) << BigInt(32 * lane);
    }
    const shift = group + 32 - bits;
    const aligned = shift === 0 ? lanes : e.op('i32x4.shl', lanes, e.i32(shift));
    const term = e.op('v128.and', e.op('i32x4.shr_s', aligned, e.i32(31)), e.v128(constants));
    sum = sum === undefined ? term : e.op('v128.xor', sum, term);
  }
  return sum as Val;
}

/** The exclusive OR of the four lanes. */
function fold(e: Emitter, v: Val): Val {
  const halves = e.xor(e.lane('i64x2.extract_lane', 0, v), e.lane('i64x2.extract_lane', 1, v));
  return e.wrap(e.xor(halves, e.shrU(halves, e.i64(32))));
}

/**
 * The CRC of `bytes` bytes.
 * @param crc i32
 * @param data i32, or i64 for 8 bytes; what is above `bytes` is ignored
 */
export function crc32(e: Emitter, crc: Val, data: Val, bytes: 1 | 2 | 4 | 8, polynomial: number): Val {
  if (bytes === 8) {
    const low = contributions(e, e.xor(crc, e.wrap(data)), 32, 64, polynomial);
    const high = contributions(e, e.wrap(e.shrU(data, e.i64(32))), 32, 32, polynomial);
    return fold(e, e.op('v128.xor', low, high));
  }
  const sum = fold(e, contributions(e, e.xor(crc, data), bytes * 8, bytes * 8, polynomial));
  return bytes === 4 ? sum : e.xor(sum, e.shrU(crc, e.i32(bytes * 8)));
}
