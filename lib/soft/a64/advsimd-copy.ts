import { elements, keepLow, replicate, vectorBytes } from './advsimd-lanes.js';
import type { Emitter, Val, VOperand } from './emitter.js';
import { type Row, row } from './row.js';

/** Advanced SIMD copy and modified immediate (Arm ARM DDI 0487 C4.1.97). */

/** log2 of the bytes of the element that imm5 names: the position of its lowest 1. */
export const elementSize = (imm5: number): number => 31 - Math.clz32(imm5 & -imm5);
/** The element's index: the bits above that 1. */
export const elementIndex = (imm5: number): number => imm5 >> (elementSize(imm5) + 1);

type Bytes = 1 | 2 | 4 | 8;
const bytesOf = (size: number): Bytes => (1 << size) as Bytes;

const shape = (size: number): string => `i${8 << size}x${16 >> size}`;

/** The element that imm5 names, zero-extended to i32 or i64. */
export const getElement = (e: Emitter, reg: VOperand, imm5: number): Val =>
  e.getElem(reg, bytesOf(elementSize(imm5)), elementIndex(imm5));

/** Whole registers are read and written: a partial store followed by a whole load stalls the host's processor. */
function insert(e: Emitter, reg: VOperand, imm5: number, value: Val): void {
  e.setV(reg, e.lane(`${shape(elementSize(imm5))}.replace_lane`, elementIndex(imm5), e.getV(reg), value));
}

/** The operand bits of a modified immediate, a:b:c:d:e:f:g:h. */
const byteOf = (f: { abc: number; defgh: number }): number => (f.abc << 5) | f.defgh;

/** AdvSIMDExpandImm (Arm ARM DDI 0487 J1.3, shared/functions/vector). */
export function advSimdExpandImm(op: number, cmode: number, imm8: number): bigint {
  switch (cmode >> 1) {
    case 0b000:
    case 0b001:
    case 0b010:
    case 0b011:
      return replicate64(2, imm8 << (8 * (cmode >> 1)));
    case 0b100:
      return replicate64(1, imm8);
    case 0b101:
      return replicate64(1, imm8 << 8);
    case 0b110:
      return replicate64(2, cmode & 1 ? (imm8 << 16) | 0xffff : (imm8 << 8) | 0xff);
    default: {
      if (cmode === 0b1110 && op === 0) return replicate64(0, imm8);
      if (cmode === 0b1110) {
        let out = 0n;
        for (let i = 0; i < 8; i++) if (imm8 & (1 << i)) out |= 0xffn << BigInt(8 * i);
        return out;
      }
      // A floating-point constant: a:NOT(b):b…b:cdefgh:0…, single precision in pairs or double precision.
      const sign = imm8 >> 7;
      const b = (imm8 >> 6) & 1;
      const fraction = imm8 & 0x3f;
      if (op === 0) return replicate64(2, (sign << 31) | ((b ^ 1) << 30) | (b ? 0x3e00_0000 : 0) | (fraction << 19));
      const exponent = b ? 0x3fc0n : 0x4000n;
      return (BigInt(sign) << 63n) | (exponent << 48n) | (BigInt(fraction) << 48n);
    }
  }
}

/** A half-precision constant, as VFPExpandImm makes it, in all four elements. */
function expandHalf(imm8: number): bigint {
  const b = (imm8 >> 6) & 1;
  return replicate64(1, ((imm8 >> 7) << 15) | ((b ^ 1) << 14) | (b ? 0x3000 : 0) | ((imm8 & 0x3f) << 6));
}

const replicate64 = (size: number, value: number): bigint => BigInt.asUintN(64, replicate(size, value));

interface Immediate {
  readonly Q: number;
  readonly abc: number;
  readonly cmode: number;
  readonly defgh: number;
}

/** What cmode means apart from the constant: a move, or ORR and BIC with the odd values below 0b1100. */
const isBitwise = (cmode: number): boolean => (cmode & 1) === 1 && cmode < 0b1100;

type ImmediatePattern = '0 Q 0 0111100000 abc:3# cmode:4# 01 defgh:5# Vd';
const immediate = (
  name: string,
  op: number,
  when: (f: Immediate) => boolean,
  value: (f: Immediate) => bigint,
  combine?: (e: Emitter, old: Val, imm: Val) => Val,
): Row =>
  row(
    name,
    `0 Q ${op} 0111100000 abc:3# cmode:4# 01 defgh:5# Vd` as ImmediatePattern,
    { when, imm: value },
    (e, { Q, Vd, imm }) => {
      const bits = e.op('i64x2.splat', imm);
      e.setV(Vd, keepLow(e, vectorBytes(Q), combine === undefined ? bits : combine(e, e.getV(Vd), bits)));
    },
  );

const expand =
  (op: number) =>
  (f: Immediate): bigint =>
    advSimdExpandImm(op, f.cmode, byteOf(f));

export const advsimdCopy: readonly Row[] = [
  row(
    'DUP (element)',
    '0 Q 001110000 imm5:5 000001 Vn Vd',
    { when: (f) => (f.imm5 & 15) !== 0 && (elementSize(f.imm5) < 3 || f.Q === 1) },
    (e, { Q, imm5, Vn, Vd }) => {
      e.setV(Vd, keepLow(e, vectorBytes(Q), broadcast(e, elementSize(imm5), elementIndex(imm5), e.getV(Vn))));
    },
  ),
  row(
    'DUP (general)',
    '0 Q 001110000 imm5:5 000011 Rn Vd',
    { when: (f) => (f.imm5 & 15) !== 0 && (elementSize(f.imm5) < 3 || f.Q === 1) },
    (e, { Q, imm5, Rn, Vd }) => {
      const size = elementSize(imm5);
      e.setV(Vd, keepLow(e, vectorBytes(Q), e.op(`${shape(size)}.splat`, e.getR(size === 3 ? 1 : 0, Rn))));
    },
  ),
  row('INS (general)', '01001110000 imm5:5 000111 Rn Vd', { when: (f) => (f.imm5 & 15) !== 0 }, (e, { imm5, Rn, Vd }) =>
    insert(e, Vd, imm5, e.getR(elementSize(imm5) === 3 ? 1 : 0, Rn)),
  ),
  row(
    'INS (element)',
    '01101110000 imm5:5 0 imm4:4 1 Vn Vd',
    { when: (f) => (f.imm5 & 15) !== 0 },
    (e, { imm5, imm4, Vn, Vd }) => {
      const size = elementSize(imm5);
      insert(e, Vd, imm5, e.getElem(Vn, bytesOf(size), imm4 >> size));
    },
  ),
  row(
    'SMOV',
    '0 Q 001110000 imm5:5 001011 Vn Rd',
    { when: (f) => (f.imm5 & 3) !== 0 || ((f.imm5 & 7) === 4 && f.Q === 1) },
    (e, { Q, imm5, Vn, Rd }) => {
      const element = getElement(e, Vn, imm5);
      const bits = 8 << elementSize(imm5);
      const extended = bits === 32 ? element : e.op(`i32.extend${bits}_s`, element);
      e.setR(Rd, Q === 1 ? e.extS(extended) : extended);
    },
  ),
  row(
    'UMOV',
    '0 Q 001110000 imm5:5 001111 Vn Rd',
    { when: (f) => (f.Q === 0 ? (f.imm5 & 7) !== 0 : (f.imm5 & 15) === 8) },
    (e, { imm5, Vn, Rd }) => e.setR(Rd, getElement(e, Vn, imm5)),
  ),
  immediate('MOVI', 0, (f) => !isBitwise(f.cmode) && f.cmode !== 15, expand(0)),
  immediate('MOVI', 1, (f) => f.cmode === 14, expand(1)),
  immediate(
    'MVNI',
    1,
    (f) => !isBitwise(f.cmode) && f.cmode < 14,
    (f) => BigInt.asUintN(64, ~expand(1)(f)),
  ),
  immediate('FMOV (vector, immediate)', 0, (f) => f.cmode === 15, expand(0)),
  row(
    'FMOV (vector, immediate), half precision',
    '0 Q 0 0111100000 abc:3# 1111 11 defgh:5# Vd',
    { imm: (f) => expandHalf(byteOf(f)) },
    (e, { Q, Vd, imm }) => e.setV(Vd, keepLow(e, vectorBytes(Q), e.op('i64x2.splat', imm))),
  ),
  immediate('FMOV (vector, immediate)', 1, (f) => f.cmode === 15 && f.Q === 1, expand(1)),
  immediate(
    'ORR (vector, immediate)',
    0,
    (f) => isBitwise(f.cmode),
    expand(0),
    (e, old, imm) => e.op('v128.or', old, imm),
  ),
  immediate(
    'BIC (vector, immediate)',
    1,
    (f) => isBitwise(f.cmode),
    expand(1),
    (e, old, imm) => e.op('v128.andnot', old, imm),
  ),
];

/** Element `index` of `v` in every element. */
export function broadcast(e: Emitter, size: number, index: number, v: Val): Val {
  return e.shuffle(
    v,
    v,
    elements(
      size,
      Array.from({ length: 16 >> size }, () => index),
    ),
  );
}
