import type { Emitter, Val } from './emitter.js';

/**
 * QARMA5, the block cipher behind pointer authentication, as ComputePAC uses it (Arm ARM DDI 0487 J1.1; R. Avanzi, "The QARMA
 * Block Cipher Family", 2016). A block is 16 cells of four bits; here a vector has one cell in each byte, cell 0 (bits 3..0)
 * first, so that a permutation is one shuffle and a table of 16 entries one swizzle.
 */

const ALPHA = 0xc0ac_29b7_c97c_50ddn;
const ROUND_CONSTANTS = [
  0n,
  0x1319_8a2e_0370_7344n,
  0xa409_3822_299f_31d0n,
  0x082e_fa98_ec4e_6c89n,
  0x4528_21e6_38d0_1377n,
] as const;

/** PACCellShuffle: cell n comes from cell SHUFFLE[n]. */
const SHUFFLE = [13, 6, 11, 0, 7, 12, 1, 10, 8, 3, 14, 5, 2, 9, 4, 15] as const;
/** PACSub. */
const SUBSTITUTION = [11, 6, 8, 15, 12, 0, 9, 14, 3, 7, 4, 5, 13, 2, 1, 10] as const;
/** TweakShuffle: cell n comes from cell TWEAK[n]; those of TWEAK_ROTATED go through TweakCellRot. */
const TWEAK = [4, 5, 6, 7, 11, 2, 3, 8, 12, 13, 14, 15, 0, 1, 10, 9] as const;
const TWEAK_ROTATED: readonly number[] = [2, 4, 7, 11, 12, 14, 15];

const inverse = (permutation: readonly number[]): number[] => permutation.map((_, n) => permutation.indexOf(n));
const table = (entry: (cell: number) => number): bigint =>
  Array.from({ length: 16 }, (_, n) => BigInt(entry(n)) << BigInt(n * 8)).reduce((a, b) => a | b);
/** Cells of a constant, one to a byte. */
const spread = (block: bigint): bigint => table((n) => Number((block >> BigInt(n * 4)) & 15n));

const SUB = table((n) => SUBSTITUTION[n]!);
const INVERSE_SUB = table((n) => inverse(SUBSTITUTION)[n]!);
const ROTATE_1 = table((n) => ((n << 1) | (n >> 3)) & 15);
const ROTATE_2 = table((n) => ((n << 2) | (n >> 2)) & 15);
const TWEAK_ROTATE = table((n) => (n >> 1) | (((n ^ (n >> 1)) & 1) << 3));
const TWEAK_MASK = table((n) => (TWEAK_ROTATED.includes(n) ? 0xff : 0));
const INVERSE_SHUFFLE = inverse(SHUFFLE);
/** The cells n places on. */
const turned = (by: number): number[] => Array.from({ length: 16 }, (_, n) => (n + by) & 15);

/** The cells of 64 bits, one to a byte. */
function cellsOf(e: Emitter, block: Val): Val {
  const nibbles = e.i64(0x0f0f_0f0f_0f0f_0f0fn);
  const even = e.op('i64x2.splat', e.and(block, nibbles));
  const odd = e.op('i64x2.splat', e.and(e.shrU(block, e.i64(4)), nibbles));
  return e.shuffle(even, odd, [0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23]);
}

/** The 64 bits of a block. */
function blockOf(e: Emitter, cells: Val): Val {
  const pairs = e.op('v128.or', cells, e.op('i16x8.shr_u', cells, e.i32(4)));
  const bytes = e.op('v128.and', pairs, e.v128(table((n) => (n % 2 === 0 ? 0xff : 0))));
  return e.lane('i64x2.extract_lane', 0, e.op('i8x16.narrow_i16x8_u', bytes, bytes));
}

/** ComputePAC(data, modifier, key0, key1) with QARMA5: all i64. */
export function computePac(e: Emitter, data: Val, modifier: Val, key0: Val, key1: Val): Val {
  const xor = (...values: readonly Val[]): Val => values.reduce((a, b) => e.op('v128.xor', a, b));
  const permute = (v: Val, cells: readonly number[]): Val => e.shuffle(v, v, cells);
  const look = (from: bigint, v: Val): Val => e.op('i8x16.swizzle', e.v128(from), v);
  // PACMult: each cell is the sum of the three others of its column, rotated by 1, 2 and 1.
  const mix = (v: Val): Val =>
    xor(look(ROTATE_1, xor(permute(v, turned(4)), permute(v, turned(12)))), look(ROTATE_2, permute(v, turned(8))));
  const nextTweak = (v: Val): Val => {
    const moved = permute(v, TWEAK);
    return e.op('v128.bitselect', look(TWEAK_ROTATE, moved), moved, e.v128(TWEAK_MASK));
  };

  const k0 = cellsOf(e, key0);
  const k1 = cellsOf(e, key1);
  // key0 rotated right by one, and its top bit added to its lowest.
  const central = cellsOf(e, e.xor(e.rotr(key0, e.i64(1)), e.shrU(key0, e.i64(63))));
  const tweaks = [cellsOf(e, modifier)];
  for (let i = 0; i < ROUND_CONSTANTS.length; i++) tweaks.push(nextTweak(tweaks[i]!));
  const middle = tweaks[ROUND_CONSTANTS.length]!;

  let v = cellsOf(e, e.xor(data, key0));
  ROUND_CONSTANTS.forEach((constant, i) => {
    v = xor(v, xor(k1, e.v128(spread(constant))), tweaks[i]!);
    if (i > 0) v = mix(permute(v, SHUFFLE));
    v = look(SUB, v);
  });
  v = look(SUB, mix(permute(xor(v, central, middle), SHUFFLE)));
  v = permute(xor(mix(permute(v, SHUFFLE)), k1), INVERSE_SHUFFLE);
  v = xor(permute(mix(look(INVERSE_SUB, v)), INVERSE_SHUFFLE), k0, middle);
  for (let i = ROUND_CONSTANTS.length - 1; i >= 0; i--) {
    v = look(INVERSE_SUB, v);
    if (i > 0) v = permute(mix(v), INVERSE_SHUFFLE);
    v = xor(v, xor(k1, e.v128(spread(ROUND_CONSTANTS[i]! ^ ALPHA))), tweaks[i]!);
  }
  return blockOf(e, xor(v, central));
}
