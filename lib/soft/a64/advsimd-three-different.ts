import { Lanes, lowHalves } from './advsimd-lanes.js';
import { polynomialMultiply } from './advsimd-three-same.js';
import type { Val, VOperand } from './emitter.js';
import { polynomialMultiply64 } from './polynomial.js';
import { type Row, row } from './row.js';

/**
 * Advanced SIMD three different (Arm ARM DDI 0487 C4.1.97): sources and destination differ in element size. `x` has the narrow
 * elements; `half` says which half of a narrow source counts, as the "2" forms use the high one.
 */

/** An operation whose result has elements of `x.wider`; `d` reads the destination's old value. */
export type Long = (x: Lanes, half: number, n: Val, m: Val, d: () => Val) => Val;

const addLong =
  (signed: boolean): Long =>
  (x, half, n, m) =>
    x.wider.add(x.extend(signed, half, n), x.extend(signed, half, m));
const subLong =
  (signed: boolean): Long =>
  (x, half, n, m) =>
    x.wider.sub(x.extend(signed, half, n), x.extend(signed, half, m));
const addWide =
  (signed: boolean): Long =>
  (x, half, n, m) =>
    x.wider.add(n, x.extend(signed, half, m));
const subWide =
  (signed: boolean): Long =>
  (x, half, n, m) =>
    x.wider.sub(n, x.extend(signed, half, m));
const distanceLong =
  (signed: boolean): Long =>
  (x, half, n, m) =>
    x.extend(false, half, x.distance(signed, n, m));

export const multiplyLong =
  (signed: boolean): Long =>
  (x, half, n, m) =>
    x.multiplyLong(signed, half, n, m);

export const accumulateLong =
  (f: Long, sign: 1 | -1 = 1): Long =>
  (x, half, n, m, d) => {
    const r = f(x, half, n, m, d);
    return sign === 1 ? x.wider.add(d(), r) : x.wider.sub(d(), r);
  };

/** Twice the product; only that of the least number with itself saturates. */
export const doublingMultiplyLong: Long = (x, half, n, m) => {
  const { wider } = x;
  const product = x.multiplyLong(true, half, n, m);
  const over = wider.op('eq', product, wider.splat(1n << BigInt(wider.bits - 2)));
  x.saturated(over);
  return wider.xor(wider.shl(product, 1), over);
};

/** SQDMLAL, SQDMLSL: product and sum saturate one after the other. */
export const doublingMultiplyAccumulateLong =
  (sign: 1 | -1): Long =>
  (x, half, n, m, d) => {
    const r = doublingMultiplyLong(x, half, n, m, d);
    return sign === 1 ? x.wider.addSaturating(true, d(), r) : x.wider.subSaturating(true, d(), r);
  };

const polynomialLong: Long = (x, half, n, m) =>
  polynomialMultiply(x.wider, x.extend(false, half, n), x.extend(false, half, m));

/** The high halves of wide sums or differences. */
const highNarrow =
  (name: 'add' | 'sub', rounding: boolean) =>
  (x: Lanes, n: Val, m: Val): Val => {
    const { wider } = x;
    const r = wider.op(name, n, m);
    return x.narrowHigh(rounding ? wider.add(r, wider.splat(1n << BigInt(x.bits - 1))) : r);
  };

/** Writes a vector of narrow elements that stand in the low half of `v`: to the low half, or over the high one if `Q` is 1. */
export function writeNarrow(x: Lanes, Q: number, reg: VOperand, v: Val): void {
  x.write(reg, 16, Q === 1 ? lowHalves(x.e, x.e.getV(reg), v) : v);
}

type Pattern = '0 Q 0 01110 size:2 1 Vm 0000 00 Vn Vd';
const pattern = (u: number, opcode: string): Pattern => `0 Q ${u} 01110 size:2 1 Vm ${opcode} 00 Vn Vd` as Pattern;

const long = (name: string, u: number, opcode: string, sizes: readonly number[], f: Long): Row =>
  row(name, pattern(u, opcode), { when: (r) => sizes.includes(r.size) }, (e, { Q, size, Vn, Vm, Vd }) => {
    const x = new Lanes(e, size);
    x.write(
      Vd,
      16,
      f(x, Q, e.getV(Vn), e.getV(Vm), () => e.getV(Vd)),
    );
  });

const narrow = (name: string, u: number, opcode: string, f: (x: Lanes, n: Val, m: Val) => Val): Row =>
  row(name, pattern(u, opcode), { when: (r) => r.size < 3 }, (e, { Q, size, Vn, Vm, Vd }) => {
    const x = new Lanes(e, size);
    writeNarrow(x, Q, Vd, f(x, e.getV(Vn), e.getV(Vm)));
  });

const B = [0];
const HS = [1, 2];
const BHS = [0, 1, 2];

export const advsimdThreeDifferent: readonly Row[] = [
  long('SADDL', 0, '0000', BHS, addLong(true)),
  long('UADDL', 1, '0000', BHS, addLong(false)),
  long('SADDW', 0, '0001', BHS, addWide(true)),
  long('UADDW', 1, '0001', BHS, addWide(false)),
  long('SSUBL', 0, '0010', BHS, subLong(true)),
  long('USUBL', 1, '0010', BHS, subLong(false)),
  long('SSUBW', 0, '0011', BHS, subWide(true)),
  long('USUBW', 1, '0011', BHS, subWide(false)),
  narrow('ADDHN', 0, '0100', highNarrow('add', false)),
  narrow('RADDHN', 1, '0100', highNarrow('add', true)),
  narrow('SUBHN', 0, '0110', highNarrow('sub', false)),
  narrow('RSUBHN', 1, '0110', highNarrow('sub', true)),
  long('SABAL', 0, '0101', BHS, accumulateLong(distanceLong(true))),
  long('UABAL', 1, '0101', BHS, accumulateLong(distanceLong(false))),
  long('SABDL', 0, '0111', BHS, distanceLong(true)),
  long('UABDL', 1, '0111', BHS, distanceLong(false)),
  long('SMLAL (vector)', 0, '1000', BHS, accumulateLong(multiplyLong(true))),
  long('UMLAL (vector)', 1, '1000', BHS, accumulateLong(multiplyLong(false))),
  long('SMLSL (vector)', 0, '1010', BHS, accumulateLong(multiplyLong(true), -1)),
  long('UMLSL (vector)', 1, '1010', BHS, accumulateLong(multiplyLong(false), -1)),
  long('SMULL (vector)', 0, '1100', BHS, multiplyLong(true)),
  long('UMULL (vector)', 1, '1100', BHS, multiplyLong(false)),
  long('SQDMLAL (vector)', 0, '1001', HS, doublingMultiplyAccumulateLong(1)),
  long('SQDMLSL (vector)', 0, '1011', HS, doublingMultiplyAccumulateLong(-1)),
  long('SQDMULL (vector)', 0, '1101', HS, doublingMultiplyLong),
  long('PMULL', 0, '1110', B, polynomialLong),
  row('PMULL', '0 Q 0 01110 11 1 Vm 1110 00 Vn Vd', {}, (e, { Q, Vn, Vm, Vd }) => {
    e.setV(Vd, polynomialMultiply64(e, e.getElem(Vn, 8, Q), e.getElem(Vm, 8, Q)));
  }),
];
