import type { Emitter, Val } from './emitter.js';
import { plain, ready } from './fp-emit.js';
import type { Attempt } from './fp-lane-ops.js';
import { everyLane, pattern } from './fp-lanes.js';

/** Conversions between half and single precision by integer arithmetic, four lanes at once: normal numbers and zeros. */

const SIGN = 0x8000n;
/** What a half's exponent field is short of a single's, in place: 127 - 15. */
const REBIAS = 112n << 23n;
/** Fraction bits that a single has more. */
const EXTRA = 13;

/** Halves, zero-extended in 32-bit lanes, as singles. Always exact. */
export function widenHalves(e: Emitter, halves: Val): Attempt {
  const and = (v: Val, bits: bigint): Val => e.op('v128.and', v, pattern(e, 4, bits));
  const zero = e.v128(0n);
  const exponent = and(halves, 0x7c00n);
  const magnitude = and(halves, 0x7fffn);
  const special = e.op('i32x4.eq', exponent, pattern(e, 4, 0x7c00n));
  const normal = e.op('v128.andnot', e.op('i32x4.ne', exponent, zero), special);
  const moved = e.op('i32x4.add', e.op('i32x4.shl', magnitude, e.i32(EXTRA)), pattern(e, 4, REBIAS));
  const sign = e.op('i32x4.shl', and(halves, SIGN), e.i32(16));
  return {
    result: e.op('v128.or', sign, e.op('v128.and', moved, normal)),
    sure: everyLane(e, 4, e.op('v128.or', normal, e.op('i32x4.eq', magnitude, zero))),
  };
}

/** Singles as halves, rounded to nearest, in 32-bit lanes. */
export function narrowSingles(e: Emitter, singles: Val): Attempt {
  const and = (v: Val, bits: bigint): Val => e.op('v128.and', v, pattern(e, 4, bits));
  const zero = e.v128(0n);
  const magnitude = and(singles, 0x7fff_ffffn);
  // From the least normal half to below what rounds to infinity.
  const inRange = e.op(
    'v128.and',
    e.op('i32x4.ge_s', magnitude, pattern(e, 4, 0x3880_0000n)),
    e.op('i32x4.lt_s', magnitude, pattern(e, 4, 0x477f_f000n)),
  );
  const moved = e.op('i32x4.sub', magnitude, pattern(e, 4, REBIAS));
  // Half of the last place less one, and one more where the last place is odd: ties go to even.
  const odd = and(e.op('i32x4.shr_u', moved, e.i32(EXTRA)), 1n);
  const up = e.op('i32x4.add', e.op('i32x4.add', moved, pattern(e, 4, 0xfffn)), odd);
  const rounded = e.op('i32x4.shr_u', up, e.i32(EXTRA));
  const sign = and(e.op('i32x4.shr_u', singles, e.i32(16)), SIGN);
  const exact = e.op('i32x4.eq', and(magnitude, 0x1fffn), zero);
  const fine = e.op('v128.or', inRange, e.op('i32x4.eq', magnitude, zero));
  return {
    result: e.op('v128.or', sign, e.op('v128.and', rounded, inRange)),
    sure: e.and(everyLane(e, 4, fine), e.or(ready(e), e.and(plain(e), everyLane(e, 4, exact)))),
  };
}
