import type { Emitter, Val } from './emitter.js';

/**
 * Multiplication of polynomials over {0, 1} with an integer multiplier: the factors are spread over four masks, every fourth bit
 * in each, so that the carries of at most eight terms a column stay in the three columns that the mask leaves free.
 */
const HOLES = [0x1111_1111_1111_1111n, 0x2222_2222_2222_2222n, 0x4444_4444_4444_4444n, 0x8888_8888_8888_8888n];

/** The 64-bit product of two polynomials of 32 bits, each an i64. */
function multiply32(e: Emitter, a: Val, b: Val): Val {
  const low = (hole: bigint): Val => e.i64(hole & 0xffff_ffffn);
  const as = HOLES.map((h) => e.and(a, low(h)));
  const bs = HOLES.map((h) => e.and(b, low(h)));
  // Terms i and j contribute to the columns i + j modulo 4.
  const columns = HOLES.map((hole, column) => {
    const terms = as.map((x, i) => e.mul(x, bs[(column - i) & 3]!));
    return e.and(
      terms.reduce((x, y) => e.xor(x, y)),
      e.i64(hole),
    );
  });
  return columns.reduce((x, y) => e.or(x, y));
}

/** The 128-bit product of two polynomials of 64 bits, by Karatsuba's three multiplications. */
export function polynomialMultiply64(e: Emitter, a: Val, b: Val): Val {
  const mask = e.i64(0xffff_ffffn);
  const thirtyTwo = e.i64(32n);
  const [a0, a1] = [e.and(a, mask), e.shrU(a, thirtyTwo)];
  const [b0, b1] = [e.and(b, mask), e.shrU(b, thirtyTwo)];
  const low = multiply32(e, a0, b0);
  const high = multiply32(e, a1, b1);
  const middle = e.xor(e.xor(multiply32(e, e.xor(a0, a1), e.xor(b0, b1)), low), high);
  const r = e.op('i64x2.splat', e.xor(low, e.shl(middle, thirtyTwo)));
  return e.lane('i64x2.replace_lane', 1, r, e.xor(high, e.shrU(middle, thirtyTwo)));
}
