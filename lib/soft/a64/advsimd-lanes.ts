import { Offset } from '../cpu/layout.js';
import type { Emitter, Val, VOperand } from './emitter.js';

/**
 * The vocabulary that the Advanced SIMD rows are written in: operations on all lanes of a vector, for an element size given
 * as its logarithm (0: 8 bits … 3: 64 bits), and how results reach a V register and FPSR.QC.
 */

/** FPSR.QC: a saturating instruction has saturated (Arm ARM DDI 0487 C5.2.10). */
const FPSR_QC_BIT = 27;

const LOW_HALF = [0, 1, 2, 3, 4, 5, 6, 7];

/** `value` repeated in every element of `8 << size` bits. */
export function replicate(size: number, value: bigint | number): bigint {
  const bits = 8 << size;
  const element = BigInt.asUintN(bits, BigInt(value));
  let out = 0n;
  for (let i = 0; i < 128; i += bits) out |= element << BigInt(i);
  return out;
}

/** Byte lanes of a shuffle that gathers whole elements, by their indices. */
export const elements = (size: number, indices: readonly number[]): number[] =>
  indices.flatMap((i) => Array.from({ length: 1 << size }, (_, b) => (i << size) + b));

/**
 * Shuffle lanes of two vectors whose result element `i` is element `pick(i)` of the two put one after the other: 16 bytes of
 * each, or 8 where `q` is 0 (the result's high half is then anything).
 */
export function gather(size: number, q: number, pick: (i: number) => number): number[] {
  const each = (q === 1 ? 16 : 8) >> size;
  const indices = Array.from({ length: 16 >> size }, (_, i) => {
    const from = i < each ? pick(i) : 0;
    return from < each ? from : (16 >> size) + (from - each);
  });
  return elements(size, indices);
}

/** The low `bytes` of a vector; the rest is zero. */
export function keepLow(e: Emitter, bytes: number, v: Val): Val {
  if (bytes === 16) return v;
  if (bytes === 8) return lowHalves(e, v, e.v128(0n));
  return e.op('v128.and', v, e.v128((1n << BigInt(8 * bytes)) - 1n));
}

/** The low half of `a`, and that of `b` above it. */
export function lowHalves(e: Emitter, a: Val, b: Val): Val {
  return e.shuffle(a, b, [...LOW_HALF, ...LOW_HALF.map((i) => i + 16)]);
}

/** The bytes that a vector instruction works on: 16, or 8 where Q is 0. */
export const vectorBytes = (q: number): number => (q === 1 ? 16 : 8);

/** Lane operations at one element size, for one instruction. */
export class Lanes {
  readonly e: Emitter;
  /** log2 of the element's bytes. */
  readonly size: number;
  /** The element's bits. */
  readonly bits: number;
  readonly #saturated: Val[];

  constructor(e: Emitter, size: number, saturated: Val[] = []) {
    this.e = e;
    this.size = size;
    this.bits = 8 << size;
    this.#saturated = saturated;
  }

  /** The same for elements twice as wide. */
  get wider(): Lanes {
    return new Lanes(this.e, this.size + 1, this.#saturated);
  }
  get zero(): Val {
    return this.e.v128(0n);
  }
  /** Every element's sign bit: the least signed number. */
  get signBits(): Val {
    return this.splat(1n << BigInt(this.bits - 1));
  }
  /** The greatest signed number in every element. */
  get greatest(): Val {
    return this.splat((1n << BigInt(this.bits - 1)) - 1n);
  }

  /** A constant in every element. */
  splat(value: bigint | number): Val {
    return this.e.v128(replicate(this.size, value));
  }
  /** A lane-wise WebAssembly instruction of this shape: `op('add', a, b)`. */
  op(name: string, ...args: readonly Val[]): Val {
    return this.e.op(`i${this.bits}x${16 >> this.size}.${name}`, ...args);
  }

  // Whole vectors.

  and(a: Val, b: Val): Val {
    return this.e.op('v128.and', a, b);
  }
  /** a AND NOT b. */
  andNot(a: Val, b: Val): Val {
    return this.e.op('v128.andnot', a, b);
  }
  or(a: Val, b: Val): Val {
    return this.e.op('v128.or', a, b);
  }
  xor(a: Val, b: Val): Val {
    return this.e.op('v128.xor', a, b);
  }
  /** Bits of `a` where `mask` is 1, of `b` where it is 0. */
  choose(mask: Val, a: Val, b: Val): Val {
    return this.e.op('v128.bitselect', a, b, mask);
  }

  // Arithmetic.

  add(a: Val, b: Val): Val {
    return this.op('add', a, b);
  }
  sub(a: Val, b: Val): Val {
    return this.op('sub', a, b);
  }
  mul(a: Val, b: Val): Val {
    if (this.size > 0) return this.op('mul', a, b);
    // Even bytes are the low bytes of 16-bit products; odd ones are multiplied in place, 256 times too high.
    const { e } = this;
    const even = e.op('i16x8.mul', a, b);
    const odd = e.op('i16x8.mul', e.op('i16x8.shr_u', a, e.i32(8)), this.and(b, e.v128(replicate(1, 0xff00))));
    return this.or(this.and(even, e.v128(replicate(1, 0xff))), odd);
  }
  /** |a - b|, as an unsigned number. */
  distance(signed: boolean, a: Val, b: Val): Val {
    const s = signed ? 's' : 'u';
    return this.sub(this.op(`max_${s}`, a, b), this.op(`min_${s}`, a, b));
  }
  /** All ones where a > b. */
  greater(signed: boolean, a: Val, b: Val): Val {
    if (signed) return this.op('gt_s', a, b);
    if (this.size < 3) return this.op('gt_u', a, b);
    return this.op('gt_s', this.xor(a, this.signBits), this.xor(b, this.signBits));
  }
  /** All ones where a >= b. */
  greaterOrEqual(signed: boolean, a: Val, b: Val): Val {
    if (signed) return this.op('ge_s', a, b);
    if (this.size < 3) return this.op('ge_u', a, b);
    return this.op('ge_s', this.xor(a, this.signBits), this.xor(b, this.signBits));
  }

  // Shifts.

  shl(a: Val, by: number | Val): Val {
    return this.#shift('shl', a, by);
  }
  /** Shifts right by 0 to `bits - 1`. */
  shr(signed: boolean, a: Val, by: number | Val): Val {
    return this.#shift(signed ? 'shr_s' : 'shr_u', a, by);
  }
  #shift(name: string, a: Val, by: number | Val): Val {
    return by === 0 ? a : this.op(name, a, typeof by === 'number' ? this.e.i32(by) : by);
  }
  /** All ones where the element is negative. */
  sign(a: Val): Val {
    return this.shr(true, a, this.bits - 1);
  }
  /** A right shift by one that rounds to nearest, half up, without losing the carry. */
  halve(signed: boolean, rounding: boolean, a: Val): Val {
    const half = this.shr(signed, a, 1);
    return rounding ? this.add(half, this.and(a, this.splat(1))) : half;
  }

  // Saturation.

  /** Notes that elements where `mask` is not zero have saturated. */
  saturated(mask: Val): void {
    this.#saturated.push(mask);
  }
  /** Where `mask` is all ones, the greatest or least signed number, by the sign of `like`; elsewhere `value`. */
  saturateSigned(mask: Val, like: Val, value: Val): Val {
    this.saturated(mask);
    return this.choose(mask, this.xor(this.sign(like), this.greatest), value);
  }
  /** SignedSatQ or UnsignedSatQ of a + b. */
  addSaturating(signed: boolean, a: Val, b: Val): Val {
    const sum = this.add(a, b);
    if (this.size < 2) {
      const r = this.op(signed ? 'add_sat_s' : 'add_sat_u', a, b);
      this.saturated(this.xor(r, sum));
      return r;
    }
    if (signed) return this.saturateSigned(this.sign(this.and(this.xor(a, sum), this.xor(b, sum))), a, sum);
    const over = this.greater(false, a, sum);
    this.saturated(over);
    return this.or(sum, over);
  }
  /** SignedSatQ or UnsignedSatQ of a - b. */
  subSaturating(signed: boolean, a: Val, b: Val): Val {
    const difference = this.sub(a, b);
    if (this.size < 2) {
      const r = this.op(signed ? 'sub_sat_s' : 'sub_sat_u', a, b);
      this.saturated(this.xor(r, difference));
      return r;
    }
    if (signed) return this.saturateSigned(this.sign(this.and(this.xor(a, b), this.xor(a, difference))), a, difference);
    const under = this.greater(false, b, a);
    this.saturated(under);
    return this.andNot(difference, under);
  }

  // Changes of size. The narrow elements are those of this object, the wide ones those of `wider`.

  /** The low (half 0) or high (half 1) elements of `a`, extended to twice their width. */
  extend(signed: boolean, half: number, a: Val): Val {
    return this.wider.op(
      `extend_${half === 0 ? 'low' : 'high'}_i${this.bits}x${16 >> this.size}_${signed ? 's' : 'u'}`,
      a,
    );
  }
  /** Products, twice as wide, of the low or high elements. */
  multiplyLong(signed: boolean, half: number, a: Val, b: Val): Val {
    return this.wider.op(
      `extmul_${half === 0 ? 'low' : 'high'}_i${this.bits}x${16 >> this.size}_${signed ? 's' : 'u'}`,
      a,
      b,
    );
  }
  /** The low halves of the wide elements of `a`, then zeros or those of `b`. */
  narrow(a: Val, b: Val = this.zero): Val {
    return this.e.shuffle(
      a,
      b,
      gather(this.size, 1, (i) => 2 * i),
    );
  }
  /** The high halves of the wide elements of `a`, then zeros or those of `b`. */
  narrowHigh(a: Val, b: Val = this.zero): Val {
    return this.e.shuffle(
      a,
      b,
      gather(this.size, 1, (i) => 2 * i + 1),
    );
  }
  /** The wide elements of `a` saturated to narrow ones; the high half is zero. */
  narrowSaturating(fromSigned: boolean, toSigned: boolean, a: Val): Val {
    if (this.size === 2) return this.#narrow64(fromSigned, toSigned, a);
    const { e, wider } = this;
    // WebAssembly narrows signed elements; unsigned ones are first brought down to where that makes no difference.
    const source = fromSigned ? a : wider.op('min_u', a, wider.splat((1n << BigInt(this.bits)) - 1n));
    const r = this.op(`narrow_i${wider.bits}x${16 >> wider.size}_${toSigned ? 's' : 'u'}`, source, e.v128(0n));
    this.saturated(this.xor(fromSigned ? this.extend(toSigned, 0, r) : source, a));
    return r;
  }
  #narrow64(fromSigned: boolean, toSigned: boolean, a: Val): Val {
    const low = this.narrow(a);
    const high = this.narrowHigh(a);
    if (toSigned) return this.saturateSigned(this.op('ne', high, this.sign(low)), high, low);
    const out = this.op('ne', high, this.zero);
    this.saturated(out);
    const r = this.or(low, out);
    return fromSigned ? this.andNot(r, this.sign(high)) : r;
  }

  /**
   * Writes the low `bytes` of `value` to a V register, zeroes the rest, and sets FPSR.QC if an element there has saturated.
   * @param checked how many bytes of the noted masks count, where that is not `bytes`
   */
  write(reg: VOperand, bytes: number, value: Val, checked = bytes): void {
    const { e } = this;
    e.setV(reg, keepLow(e, bytes, value));
    const [first, ...rest] = this.#saturated;
    if (first === undefined) return;
    const mask = rest.reduce((a, b) => this.or(a, b), first);
    const hit =
      checked === 16
        ? e.op('v128.any_true', mask)
        : checked === 8
          ? e.ne(e.lane('i64x2.extract_lane', 0, mask), e.i64(0n))
          : e.ne(
              e.and(e.lane('i32x4.extract_lane', 0, mask), e.i32(checked === 4 ? -1 : (1 << (8 * checked)) - 1)),
              e.i32(0),
            );
    e.setState(Offset.FPSR, e.or(e.state('i32', Offset.FPSR), e.shl(hit, e.i32(FPSR_QC_BIT))));
  }
}
