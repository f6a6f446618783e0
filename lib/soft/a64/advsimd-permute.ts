import { gather, keepLow, vectorBytes } from './advsimd-lanes.js';
import { type Row, row } from './row.js';

/** Advanced SIMD extract, permute and table lookup (Arm ARM DDI 0487 C4.1.97). */

/** EXT: sixteen bytes (or eight) from byte `position` of the sources put one after the other. */
const extract = row(
  'EXT',
  '0 Q 101110000 Vm 0 imm4:4 0 Vn Vd',
  { when: (f) => f.Q === 1 || f.imm4 < 8 },
  (e, { Q, imm4, Vm, Vn, Vd }) => {
    const lanes = gather(0, Q, (i) => i + imm4);
    e.setV(Vd, keepLow(e, vectorBytes(Q), e.shuffle(e.getV(Vn), e.getV(Vm), lanes)));
  },
);

/**
 * ZIP, UZP and TRN.
 * @param pick the index of result element `i` in the first source's `count` elements followed by the second's
 */
const permute = (name: string, opcode: string, pick: (i: number, count: number) => number): Row =>
  row(
    name,
    `0 Q 001110 size:2 0 Vm 0 ${opcode} 10 Vn Vd` as '0 Q 001110 size:2 0 Vm 0 001 10 Vn Vd',
    { when: (f) => f.size < 3 || f.Q === 1 },
    (e, { Q, size, Vm, Vn, Vd }) => {
      const count = vectorBytes(Q) >> size;
      const lanes = gather(size, Q, (i) => pick(i, count));
      e.setV(Vd, keepLow(e, vectorBytes(Q), e.shuffle(e.getV(Vn), e.getV(Vm), lanes)));
    },
  );

const zip =
  (part: number) =>
  (i: number, count: number): number =>
    (i % 2) * count + ((part * count) >> 1) + (i >> 1);
const unzip =
  (part: number) =>
  (i: number): number =>
    2 * i + part;
const transpose =
  (part: number) =>
  (i: number, count: number): number =>
    (i % 2) * count + (i & ~1) + part;

export const advsimdPermute: readonly Row[] = [
  extract,
  permute('UZP1', '001', unzip(0)),
  permute('TRN1', '010', transpose(0)),
  permute('ZIP1', '011', zip(0)),
  permute('UZP2', '101', unzip(1)),
  permute('TRN2', '110', transpose(1)),
  permute('ZIP2', '111', zip(1)),
];
