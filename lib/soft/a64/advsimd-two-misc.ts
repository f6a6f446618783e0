import { elements, Lanes, replicate, vectorBytes } from './advsimd-lanes.js';
import { writeNarrow } from './advsimd-three-different.js';
import type { Val } from './emitter.js';
import { type Row, row } from './row.js';

/** Advanced SIMD two-register miscellaneous, the integer half (Arm ARM DDI 0487 C4.1.97). */

/** A lane-wise operation on one source; `d` reads the destination's old value. */
export type Unary = (x: Lanes, n: Val, d: () => Val) => Val;

/** REV16, REV32, REV64: elements in reverse within containers of `8 << container` bits. */
const reverse =
  (container: number): Unary =>
  (x, n) => {
    const flip = (1 << (container - x.size)) - 1;
    return x.e.shuffle(
      n,
      n,
      elements(
        x.size,
        Array.from({ length: 16 >> x.size }, (_, i) => i ^ flip),
      ),
    );
  };

/** Sums of neighbours, twice as wide. */
export const addLongPairwise =
  (signed: boolean): Unary =>
  (x, n) => {
    const { wider } = x;
    const s = signed ? 's' : 'u';
    if (x.size < 2) return wider.op(`extadd_pairwise_i${x.bits}x${16 >> x.size}_${s}`, n);
    if (!signed) return wider.add(wider.and(n, wider.splat(0xffff_ffffn)), wider.shr(false, n, 32));
    return wider.add(x.extend(true, 0, x.narrow(n)), x.extend(true, 0, x.narrowHigh(n)));
  };

/** Leading zeros of each half byte, and of 0..15 as such. */
const LEADING_ZEROS = table((i) => Math.clz32(i) - 28);
const reverseNibble = (i: number): number => ((i & 1) << 3) | ((i & 2) << 1) | ((i & 4) >> 1) | ((i & 8) >> 3);
const REVERSED_LOW = table((i) => reverseNibble(i) << 4);
const REVERSED_HIGH = table(reverseNibble);

function table(f: (i: number) => number): bigint {
  let out = 0n;
  for (let i = 0; i < 16; i++) out |= BigInt(f(i)) << BigInt(8 * i);
  return out;
}

const countLeadingZeros: Unary = (x, n) => {
  const { e } = x;
  if (x.size === 2) {
    let r = n;
    for (let i = 0; i < 4; i++) {
      r = e.lane('i32x4.replace_lane', i, r, e.op('i32.clz', e.lane('i32x4.extract_lane', i, n)));
    }
    return r;
  }
  const zeros = e.v128(LEADING_ZEROS);
  const high = e.op('i8x16.shr_u', n, e.i32(4));
  const inHigh = e.op('i8x16.swizzle', zeros, high);
  const inLow = e.op('i8x16.swizzle', zeros, x.and(n, e.v128(replicate(0, 15))));
  const bytes = e.op('i8x16.add', inHigh, x.and(inLow, e.op('i8x16.eq', high, x.zero)));
  if (x.size === 0) return bytes;
  const upper = x.shr(false, bytes, 8);
  return x.add(upper, x.and(x.and(bytes, x.splat(0xff)), x.op('eq', upper, x.splat(8))));
};

/** Bits after the first that equal it. */
const countLeadingSigns: Unary = (x, n, d) => x.sub(countLeadingZeros(x, x.xor(n, x.sign(n)), d), x.splat(1));

const reverseBits: Unary = (x, n) => {
  const { e } = x;
  const low = e.op('i8x16.swizzle', e.v128(REVERSED_LOW), x.and(n, e.v128(replicate(0, 15))));
  const high = e.op('i8x16.swizzle', e.v128(REVERSED_HIGH), e.op('i8x16.shr_u', n, e.i32(4)));
  return x.or(low, high);
};

/** Comparison with zero. */
export const compareZero =
  (name: string): Unary =>
  (x, n) =>
    x.op(name, n, x.zero);
export const absolute: Unary = (x, n) => x.op('abs', n);
export const negate: Unary = (x, n) => x.op('neg', n);

/** SQABS, SQNEG: the least number, which has no counterpart, becomes the greatest. */
export const saturatingSign =
  (name: 'abs' | 'neg'): Unary =>
  (x, n) => {
    const over = x.op('eq', n, x.signBits);
    x.saturated(over);
    return x.xor(x.op(name, n), over);
  };

/** SUQADD: an unsigned number added to a signed one; both are moved to where that is an unsigned addition. */
export const addUnsignedToSigned: Unary = (x, n, d) =>
  x.xor(x.addSaturating(false, x.xor(d(), x.signBits), n), x.signBits);
/** USQADD: a signed number added to an unsigned one. */
export const addSignedToUnsigned: Unary = (x, n, d) =>
  x.xor(x.addSaturating(true, x.xor(d(), x.signBits), n), x.signBits);

/** XTN. */
const extractNarrow: Unary = (x, n) => x.narrow(n);
/** SQXTN, UQXTN, SQXTUN. */
export const saturatingNarrow =
  (fromSigned: boolean, toSigned: boolean): Unary =>
  (x, n) =>
    x.narrowSaturating(fromSigned, toSigned, n);

type Pattern = '0 Q 0 01110 size:2 10000 00000 10 Vn Vd';
const pattern = (u: number, opcode: string, size = 'size:2'): Pattern =>
  `0 Q ${u} 01110 ${size} 10000 ${opcode} 10 Vn Vd` as Pattern;

const unary = (name: string, u: number, opcode: string, sizes: readonly number[], f: Unary): Row =>
  row(
    name,
    pattern(u, opcode),
    { when: (r) => sizes.includes(r.size) && (r.size < 3 || r.Q === 1) },
    (e, { Q, size, Vn, Vd }) => {
      const x = new Lanes(e, size);
      x.write(
        Vd,
        vectorBytes(Q),
        f(x, e.getV(Vn), () => e.getV(Vd)),
      );
    },
  );

const narrow = (name: string, u: number, opcode: string, f: Unary): Row =>
  row(name, pattern(u, opcode), { when: (r) => r.size < 3 }, (e, { Q, size, Vn, Vd }) => {
    const x = new Lanes(e, size);
    writeNarrow(
      x,
      Q,
      Vd,
      f(x, e.getV(Vn), () => e.getV(Vd)),
    );
  });

const B = [0];
const BH = [0, 1];
const BHS = [0, 1, 2];
const ALL = [0, 1, 2, 3];

const accumulated =
  (f: Unary): Unary =>
  (x, n, d) =>
    x.wider.add(d(), f(x, n, d));

export const advsimdTwoMisc: readonly Row[] = [
  unary('REV64', 0, '00000', BHS, reverse(3)),
  unary('REV32 (vector)', 1, '00000', BH, reverse(2)),
  unary('REV16 (vector)', 0, '00001', B, reverse(1)),
  unary('SADDLP', 0, '00010', BHS, addLongPairwise(true)),
  unary('UADDLP', 1, '00010', BHS, addLongPairwise(false)),
  unary('SADALP', 0, '00110', BHS, accumulated(addLongPairwise(true))),
  unary('UADALP', 1, '00110', BHS, accumulated(addLongPairwise(false))),
  unary('SUQADD', 0, '00011', ALL, addUnsignedToSigned),
  unary('USQADD', 1, '00011', ALL, addSignedToUnsigned),
  unary('CLS (vector)', 0, '00100', BHS, countLeadingSigns),
  unary('CLZ (vector)', 1, '00100', BHS, countLeadingZeros),
  unary('CNT', 0, '00101', B, (x, n) => x.op('popcnt', n)),
  unary('NOT', 1, '00101', B, (x, n) => x.e.op('v128.not', n)),
  unary('RBIT (vector)', 1, '00101', [1], reverseBits),
  unary('SQABS', 0, '00111', ALL, saturatingSign('abs')),
  unary('SQNEG', 1, '00111', ALL, saturatingSign('neg')),
  unary('CMGT (zero)', 0, '01000', ALL, compareZero('gt_s')),
  unary('CMGE (zero)', 1, '01000', ALL, compareZero('ge_s')),
  unary('CMEQ (zero)', 0, '01001', ALL, compareZero('eq')),
  unary('CMLE (zero)', 1, '01001', ALL, compareZero('le_s')),
  unary('CMLT (zero)', 0, '01010', ALL, compareZero('lt_s')),
  unary('ABS', 0, '01011', ALL, absolute),
  unary('NEG (vector)', 1, '01011', ALL, negate),
  narrow('XTN', 0, '10010', extractNarrow),
  narrow('SQXTUN', 1, '10010', saturatingNarrow(true, false)),
  narrow('SQXTN', 0, '10100', saturatingNarrow(true, true)),
  narrow('UQXTN', 1, '10100', saturatingNarrow(false, false)),
  row('SHLL', pattern(1, '10011'), { when: (r) => r.size < 3 }, (e, { Q, size, Vn, Vd }) => {
    const x = new Lanes(e, size);
    x.write(Vd, 16, x.wider.shl(x.extend(false, Q, e.getV(Vn)), x.bits));
  }),
];
