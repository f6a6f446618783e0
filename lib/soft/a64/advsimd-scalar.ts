import { elementSize, getElement } from './advsimd-copy.js';
import { gather, keepLow, Lanes } from './advsimd-lanes.js';
import { shiftByRegister } from './advsimd-shift-reg.js';
import { doublingMultiplyAccumulateLong, doublingMultiplyLong, type Long } from './advsimd-three-different.js';
import {
  add,
  type Binary,
  doublingMultiplyHigh,
  equal,
  greater,
  greaterOrEqual,
  roundingDoublingMultiplyAccumulate,
  saturatingAdd,
  saturatingSub,
  subtract,
  test,
} from './advsimd-three-same.js';
import {
  absolute,
  addSignedToUnsigned,
  addUnsignedToSigned,
  compareZero,
  negate,
  saturatingNarrow,
  saturatingSign,
  type Unary,
} from './advsimd-two-misc.js';
import { type Row, row } from './row.js';

/**
 * Advanced SIMD scalar instructions, the integer half (Arm ARM DDI 0487 C4.1.97): the vector operations on the lowest element, with
 * zeros written above it. The scalar shifts by immediate and by-element forms stand with the vector ones.
 */

const ALL = [0, 1, 2, 3];
const D = [3];
const HS = [1, 2];
const BHS = [0, 1, 2];

type ThreeSame = '01 0 11110 size:2 1 Vm 00000 1 Vn Vd';

const binary = (name: string, u: number, opcode: string, sizes: readonly number[], f: Binary, extra = false): Row =>
  row(
    `${name}, scalar`,
    (extra
      ? `01 ${u} 11110 size:2 0 Vm 1${opcode} 1 Vn Vd`
      : `01 ${u} 11110 size:2 1 Vm ${opcode} 1 Vn Vd`) as ThreeSame,
    { when: (r) => sizes.includes(r.size) },
    (e, { size, Vn, Vm, Vd }) => {
      const x = new Lanes(e, size);
      x.write(
        Vd,
        1 << size,
        f(x, e.getV(Vn), e.getV(Vm), () => e.getV(Vd)),
      );
    },
  );

const long = (name: string, opcode: string, f: Long): Row =>
  row(
    `${name}, scalar`,
    `01 0 11110 size:2 1 Vm ${opcode} 00 Vn Vd` as '01 0 11110 size:2 1 Vm 0000 00 Vn Vd',
    { when: (r) => HS.includes(r.size) },
    (e, { size, Vn, Vm, Vd }) => {
      const x = new Lanes(e, size);
      x.write(
        Vd,
        2 << size,
        f(x, 0, e.getV(Vn), e.getV(Vm), () => e.getV(Vd)),
      );
    },
  );

type TwoMisc = '01 0 11110 size:2 10000 00000 10 Vn Vd';

const unary = (name: string, u: number, opcode: string, sizes: readonly number[], f: Unary): Row =>
  row(
    `${name}, scalar`,
    `01 ${u} 11110 size:2 10000 ${opcode} 10 Vn Vd` as TwoMisc,
    { when: (r) => sizes.includes(r.size) },
    (e, { size, Vn, Vd }) => {
      const x = new Lanes(e, size);
      x.write(
        Vd,
        1 << size,
        f(x, e.getV(Vn), () => e.getV(Vd)),
      );
    },
  );

const narrow = (name: string, u: number, opcode: string, f: Unary): Row =>
  row(
    `${name}, scalar`,
    `01 ${u} 11110 size:2 10000 ${opcode} 10 Vn Vd` as TwoMisc,
    { when: (r) => BHS.includes(r.size) },
    (e, { size, Vn, Vd }) => {
      const x = new Lanes(e, size);
      // What stands above the source must not saturate.
      const n = keepLow(e, 2 << size, e.getV(Vn));
      x.write(
        Vd,
        1 << size,
        f(x, n, () => n),
        16,
      );
    },
  );

export const advsimdScalar: readonly Row[] = [
  row(
    'DUP (element), scalar',
    '01011110000 imm5:5 000001 Vn Vd',
    { when: (f) => (f.imm5 & 15) !== 0 },
    (e, { imm5, Vn, Vd }) => {
      e.setScalar(Vd, elementSize(imm5) === 3 ? 8 : 4, getElement(e, Vn, imm5));
    },
  ),
  row('ADDP (scalar)', '01 0 11110 11 11000 11011 10 Vn Vd', {}, (e, { Vn, Vd }) => {
    const x = new Lanes(e, 3);
    const n = e.getV(Vn);
    x.write(
      Vd,
      8,
      x.add(
        n,
        e.shuffle(
          n,
          n,
          gather(3, 1, (i) => 1 - i),
        ),
      ),
    );
  }),

  binary('ADD (vector)', 0, '10000', D, add),
  binary('SUB (vector)', 1, '10000', D, subtract),
  binary('CMEQ (register)', 1, '10001', D, equal),
  binary('CMTST', 0, '10001', D, test),
  binary('CMGT (register)', 0, '00110', D, greater(true)),
  binary('CMHI (register)', 1, '00110', D, greater(false)),
  binary('CMGE (register)', 0, '00111', D, greaterOrEqual(true)),
  binary('CMHS (register)', 1, '00111', D, greaterOrEqual(false)),
  binary('SQADD', 0, '00001', ALL, saturatingAdd(true)),
  binary('UQADD', 1, '00001', ALL, saturatingAdd(false)),
  binary('SQSUB', 0, '00101', ALL, saturatingSub(true)),
  binary('UQSUB', 1, '00101', ALL, saturatingSub(false)),
  binary('SSHL', 0, '01000', D, shiftByRegister(true, false, false)),
  binary('USHL', 1, '01000', D, shiftByRegister(false, false, false)),
  binary('SQSHL (register)', 0, '01001', ALL, shiftByRegister(true, false, true)),
  binary('UQSHL (register)', 1, '01001', ALL, shiftByRegister(false, false, true)),
  binary('SRSHL', 0, '01010', D, shiftByRegister(true, true, false)),
  binary('URSHL', 1, '01010', D, shiftByRegister(false, true, false)),
  binary('SQRSHL', 0, '01011', ALL, shiftByRegister(true, true, true)),
  binary('UQRSHL', 1, '01011', ALL, shiftByRegister(false, true, true)),
  binary('SQDMULH (vector)', 0, '10110', HS, doublingMultiplyHigh(false)),
  binary('SQRDMULH (vector)', 1, '10110', HS, doublingMultiplyHigh(true)),
  binary('SQRDMLAH (vector)', 1, '0000', HS, roundingDoublingMultiplyAccumulate(1), true),
  binary('SQRDMLSH (vector)', 1, '0001', HS, roundingDoublingMultiplyAccumulate(-1), true),

  long('SQDMLAL (vector)', '1001', doublingMultiplyAccumulateLong(1)),
  long('SQDMLSL (vector)', '1011', doublingMultiplyAccumulateLong(-1)),
  long('SQDMULL (vector)', '1101', doublingMultiplyLong),

  unary('SUQADD', 0, '00011', ALL, addUnsignedToSigned),
  unary('USQADD', 1, '00011', ALL, addSignedToUnsigned),
  unary('SQABS', 0, '00111', ALL, saturatingSign('abs')),
  unary('SQNEG', 1, '00111', ALL, saturatingSign('neg')),
  unary('CMGT (zero)', 0, '01000', D, compareZero('gt_s')),
  unary('CMGE (zero)', 1, '01000', D, compareZero('ge_s')),
  unary('CMEQ (zero)', 0, '01001', D, compareZero('eq')),
  unary('CMLE (zero)', 1, '01001', D, compareZero('le_s')),
  unary('CMLT (zero)', 0, '01010', D, compareZero('lt_s')),
  unary('ABS', 0, '01011', D, absolute),
  unary('NEG (vector)', 1, '01011', D, negate),
  narrow('SQXTUN', 1, '10010', saturatingNarrow(true, false)),
  narrow('SQXTN', 0, '10100', saturatingNarrow(true, true)),
  narrow('UQXTN', 1, '10100', saturatingNarrow(false, false)),
];
