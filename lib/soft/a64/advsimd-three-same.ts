import { gather, Lanes, vectorBytes } from './advsimd-lanes.js';
import { shiftByRegister } from './advsimd-shift-reg.js';
import type { Val } from './emitter.js';
import { type Row, row } from './row.js';

/**
 * Advanced SIMD three same (Arm ARM DDI 0487 C4.1.97): two vectors in, one of the same element size out. The meanings are exported:
 * the scalar and by-element forms are the same operations on other operands.
 */

/** A lane-wise operation on two sources; `d` reads the destination's old value. */
export type Binary = (x: Lanes, n: Val, m: Val, d: () => Val) => Val;

const halvingAdd =
  (signed: boolean): Binary =>
  (x, n, m) =>
    x.add(x.and(n, m), x.shr(signed, x.xor(n, m), 1));

const roundingHalvingAdd =
  (signed: boolean): Binary =>
  (x, n, m) =>
    !signed && x.size < 2 ? x.op('avgr_u', n, m) : x.sub(x.or(n, m), x.shr(signed, x.xor(n, m), 1));

/** (n - m) / 2 without the borrow: bit by bit, n - m is (n ^ m) - 2 (m & ~n). */
const halvingSub =
  (signed: boolean): Binary =>
  (x, n, m) =>
    x.sub(x.shr(signed, x.xor(n, m), 1), x.andNot(m, n));

const lane =
  (name: string): Binary =>
  (x, n, m) =>
    x.op(name, n, m);

const distance =
  (signed: boolean): Binary =>
  (x, n, m) =>
    x.distance(signed, n, m);

export const saturatingAdd =
  (signed: boolean): Binary =>
  (x, n, m) =>
    x.addSaturating(signed, n, m);
export const saturatingSub =
  (signed: boolean): Binary =>
  (x, n, m) =>
    x.subSaturating(signed, n, m);
export const greater =
  (signed: boolean): Binary =>
  (x, n, m) =>
    x.greater(signed, n, m);
export const greaterOrEqual =
  (signed: boolean): Binary =>
  (x, n, m) =>
    x.greaterOrEqual(signed, n, m);
export const equal: Binary = (x, n, m) => x.op('eq', n, m);
export const test: Binary = (x, n, m) => x.op('ne', x.and(n, m), x.zero);
export const add: Binary = (x, n, m) => x.add(n, m);
export const subtract: Binary = (x, n, m) => x.sub(n, m);
export const multiply: Binary = (x, n, m) => x.mul(n, m);

/** Adds the result of `f` to the destination, or subtracts it. */
export const accumulate =
  (f: Binary, sign: 1 | -1 = 1): Binary =>
  (x, n, m, d) => {
    const r = f(x, n, m, d);
    return sign === 1 ? x.add(d(), r) : x.sub(d(), r);
  };

/** SQDMULH, SQRDMULH: the high half of twice the product. It saturates only where both factors are the least number. */
export const doublingMultiplyHigh =
  (rounding: boolean): Binary =>
  (x, n, m) => {
    const over = x.and(x.op('eq', n, x.signBits), x.op('eq', m, x.signBits));
    x.saturated(over);
    if (x.size === 1 && rounding) return x.op('q15mulr_sat_s', n, m);
    const { wider } = x;
    const high = (half: number): Val => {
      const product = x.multiplyLong(true, half, n, m);
      const rounded = rounding ? wider.add(product, wider.splat(1n << BigInt(x.bits - 2))) : product;
      return wider.shr(true, rounded, x.bits - 1);
    };
    if (x.size === 1) return x.op('narrow_i32x4_s', high(0), high(1));
    return x.xor(x.narrow(high(0), high(1)), over);
  };

/** SQRDMLAH, SQRDMLSH: the destination, plus or minus twice the product's high half, rounded once and saturated. */
export const roundingDoublingMultiplyAccumulate =
  (sign: 1 | -1): Binary =>
  (x, n, m, d) => {
    const { wider } = x;
    const old = d();
    // One bit of headroom: everything is halved, so that destination and product share the wide element without overflow.
    const half = (h: number): Val => {
      const base = wider.add(wider.shl(x.extend(true, h, old), x.bits - 1), wider.splat(1n << BigInt(x.bits - 2)));
      const product = x.multiplyLong(true, h, n, m);
      return wider.shr(true, sign === 1 ? wider.add(base, product) : wider.sub(base, product), x.bits - 1);
    };
    const [low, high] = [half(0), half(1)];
    const kept = x.narrow(low, high);
    if (x.size === 1) {
      const r = x.op('narrow_i32x4_s', low, high);
      x.saturated(x.xor(r, kept));
      return r;
    }
    const top = x.narrowHigh(low, high);
    return x.saturateSigned(x.op('ne', top, x.sign(kept)), top, kept);
  };

/** PMUL, PMULL: the product of polynomials over {0, 1}, as much of it as the lane holds; `m` has at most eight bits. */
export function polynomialMultiply(x: Lanes, n: Val, m: Val): Val {
  let sum = x.zero;
  for (let bit = 0; bit < 8; bit++) {
    const one = x.splat(1 << bit);
    const term = x.and(x.op('eq', x.and(m, one), one), x.shl(n, bit));
    sum = bit === 0 ? term : x.xor(sum, term);
  }
  return sum;
}

/** SDOT, UDOT: four products of bytes summed into each 32-bit element. `x` has 8-bit lanes. */
export const dotProduct =
  (signed: boolean): Binary =>
  (x, n, m, d) => {
    const s = signed ? 's' : 'u';
    const words = x.wider.wider;
    const pairs = (half: number): Val => words.op(`extadd_pairwise_i16x8_${s}`, x.multiplyLong(signed, half, n, m));
    const [low, high] = [pairs(0), pairs(1)];
    return words.add(d(), words.add(words.narrow(low, high), words.narrowHigh(low, high)));
  };

/** An operation on neighbours: the pairs of `n`, then those of `m`. */
const pairwise =
  (name: string): Pairwise =>
  (x, q, n, m) =>
    x.op(
      name,
      x.e.shuffle(
        n,
        m,
        gather(x.size, q, (i) => 2 * i),
      ),
      x.e.shuffle(
        n,
        m,
        gather(x.size, q, (i) => 2 * i + 1),
      ),
    );
type Pairwise = (x: Lanes, q: number, n: Val, m: Val) => Val;

/** Element sizes that an instruction has. */
const B = [0];
const HS = [1, 2];
const BHS = [0, 1, 2];
const ALL = [0, 1, 2, 3];

type Pattern = '0 Q 0 01110 size:2 1 Vm 00000 1 Vn Vd';
const pattern = (u: number, opcode: string): Pattern => `0 Q ${u} 01110 size:2 1 Vm ${opcode} 1 Vn Vd` as Pattern;

/** An allocated size; 64-bit elements come in pairs only. */
const allocated =
  (sizes: readonly number[]) =>
  (f: { Q: number; size: number }): boolean =>
    sizes.includes(f.size) && (f.size < 3 || f.Q === 1);

const binary = (name: string, u: number, opcode: string, sizes: readonly number[], f: Binary): Row =>
  row(name, pattern(u, opcode), { when: allocated(sizes) }, (e, { Q, size, Vn, Vm, Vd }) => {
    const x = new Lanes(e, size);
    x.write(
      Vd,
      vectorBytes(Q),
      f(x, e.getV(Vn), e.getV(Vm), () => e.getV(Vd)),
    );
  });

const pairs = (name: string, u: number, opcode: string, sizes: readonly number[], f: Pairwise): Row =>
  row(name, pattern(u, opcode), { when: allocated(sizes) }, (e, { Q, size, Vn, Vm, Vd }) => {
    const x = new Lanes(e, size);
    x.write(Vd, vectorBytes(Q), f(x, Q, e.getV(Vn), e.getV(Vm)));
  });

/** Bitwise operations: the size field is part of the opcode. */
const bitwise = (name: string, u: number, size: string, f: Binary): Row =>
  row(
    name,
    `0 Q ${u} 01110 ${size} 1 Vm 00011 1 Vn Vd` as '0 Q 0 01110 00 1 Vm 00011 1 Vn Vd',
    {},
    (e, { Q, Vn, Vm, Vd }) => {
      const x = new Lanes(e, 0);
      x.write(
        Vd,
        vectorBytes(Q),
        f(x, e.getV(Vn), e.getV(Vm), () => e.getV(Vd)),
      );
    },
  );

/** Three same extra (C4.1.97): the accumulating instructions of FEAT_RDM and FEAT_DotProd. */
const extra = (name: string, u: number, opcode: string, sizes: readonly number[], f: Binary, lanes = 0): Row =>
  row(
    name,
    `0 Q ${u} 01110 size:2 0 Vm 1 ${opcode} 1 Vn Vd` as '0 Q 0 01110 size:2 0 Vm 1 0000 1 Vn Vd',
    { when: (r) => sizes.includes(r.size) },
    (e, { Q, size, Vn, Vm, Vd }) => {
      const x = new Lanes(e, size - lanes);
      x.write(
        Vd,
        vectorBytes(Q),
        f(x, e.getV(Vn), e.getV(Vm), () => e.getV(Vd)),
      );
    },
  );

export const advsimdThreeSame: readonly Row[] = [
  bitwise('AND (vector)', 0, '00', (x, n, m) => x.and(n, m)),
  bitwise('BIC (vector, register)', 0, '01', (x, n, m) => x.andNot(n, m)),
  bitwise('ORR (vector, register)', 0, '10', (x, n, m) => x.or(n, m)),
  bitwise('ORN (vector)', 0, '11', (x, n, m) => x.or(n, x.e.op('v128.not', m))),
  bitwise('EOR (vector)', 1, '00', (x, n, m) => x.xor(n, m)),
  bitwise('BSL', 1, '01', (x, n, m, d) => x.choose(d(), n, m)),
  bitwise('BIT', 1, '10', (x, n, m, d) => x.choose(m, n, d())),
  bitwise('BIF', 1, '11', (x, n, m, d) => x.choose(m, d(), n)),

  binary('ADD (vector)', 0, '10000', ALL, add),
  binary('SUB (vector)', 1, '10000', ALL, subtract),
  binary('CMEQ (register)', 1, '10001', ALL, equal),
  binary('CMTST', 0, '10001', ALL, test),
  binary('CMGT (register)', 0, '00110', ALL, greater(true)),
  binary('CMHI (register)', 1, '00110', ALL, greater(false)),
  binary('CMGE (register)', 0, '00111', ALL, greaterOrEqual(true)),
  binary('CMHS (register)', 1, '00111', ALL, greaterOrEqual(false)),

  binary('SMAX', 0, '01100', BHS, lane('max_s')),
  binary('UMAX', 1, '01100', BHS, lane('max_u')),
  binary('SMIN', 0, '01101', BHS, lane('min_s')),
  binary('UMIN', 1, '01101', BHS, lane('min_u')),
  pairs('SMAXP', 0, '10100', BHS, pairwise('max_s')),
  pairs('UMAXP', 1, '10100', BHS, pairwise('max_u')),
  pairs('SMINP', 0, '10101', BHS, pairwise('min_s')),
  pairs('UMINP', 1, '10101', BHS, pairwise('min_u')),
  pairs('ADDP (vector)', 0, '10111', ALL, pairwise('add')),

  binary('SHADD', 0, '00000', BHS, halvingAdd(true)),
  binary('UHADD', 1, '00000', BHS, halvingAdd(false)),
  binary('SRHADD', 0, '00010', BHS, roundingHalvingAdd(true)),
  binary('URHADD', 1, '00010', BHS, roundingHalvingAdd(false)),
  binary('SHSUB', 0, '00100', BHS, halvingSub(true)),
  binary('UHSUB', 1, '00100', BHS, halvingSub(false)),
  binary('SQADD', 0, '00001', ALL, saturatingAdd(true)),
  binary('UQADD', 1, '00001', ALL, saturatingAdd(false)),
  binary('SQSUB', 0, '00101', ALL, saturatingSub(true)),
  binary('UQSUB', 1, '00101', ALL, saturatingSub(false)),
  binary('SABD', 0, '01110', BHS, distance(true)),
  binary('UABD', 1, '01110', BHS, distance(false)),
  binary('SABA', 0, '01111', BHS, accumulate(distance(true))),
  binary('UABA', 1, '01111', BHS, accumulate(distance(false))),

  binary('SSHL', 0, '01000', ALL, shiftByRegister(true, false, false)),
  binary('USHL', 1, '01000', ALL, shiftByRegister(false, false, false)),
  binary('SQSHL (register)', 0, '01001', ALL, shiftByRegister(true, false, true)),
  binary('UQSHL (register)', 1, '01001', ALL, shiftByRegister(false, false, true)),
  binary('SRSHL', 0, '01010', ALL, shiftByRegister(true, true, false)),
  binary('URSHL', 1, '01010', ALL, shiftByRegister(false, true, false)),
  binary('SQRSHL', 0, '01011', ALL, shiftByRegister(true, true, true)),
  binary('UQRSHL', 1, '01011', ALL, shiftByRegister(false, true, true)),

  binary('MUL (vector)', 0, '10011', BHS, multiply),
  binary('MLA (vector)', 0, '10010', BHS, accumulate(multiply)),
  binary('MLS (vector)', 1, '10010', BHS, accumulate(multiply, -1)),
  binary('PMUL', 1, '10011', B, polynomialMultiply),
  binary('SQDMULH (vector)', 0, '10110', HS, doublingMultiplyHigh(false)),
  binary('SQRDMULH (vector)', 1, '10110', HS, doublingMultiplyHigh(true)),

  extra('SQRDMLAH (vector)', 1, '0000', HS, roundingDoublingMultiplyAccumulate(1)),
  extra('SQRDMLSH (vector)', 1, '0001', HS, roundingDoublingMultiplyAccumulate(-1)),
  extra('SDOT (vector)', 0, '0010', [2], dotProduct(true), 2),
  extra('UDOT (vector)', 1, '0010', [2], dotProduct(false), 2),
];
