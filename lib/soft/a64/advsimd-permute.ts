import { Offset } from '../cpu/layout.js';
import { gather, keepLow, replicate, vectorBytes } from './advsimd-lanes.js';
import type { VOperand } from './emitter.js';
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

/** The registers after Vn in a table, as operands: their offsets in the CPU state (the numbers wrap around at 31). */
const following =
  (n: number) =>
  (f: { Vn: number }): number =>
    Offset.V0 + ((f.Vn + n) & 31) * 16;

/** TBL, TBX: bytes looked up in one to four registers; an index past the table gives 0, or the destination's byte. */
const tableLookup = (name: string, keep: boolean): Row =>
  row(
    name,
    `0 Q 001110 000 Vm 0 len:2 ${keep ? 1 : 0} 00 Vn Vd` as '0 Q 001110 000 Vm 0 len:2 0 00 Vn Vd',
    { ops: { v1: following(1), v2: following(2), v3: following(3) } },
    (e, { Q, len, Vm, Vn, Vd }) => {
      const indices = e.getV(Vm);
      const tables: VOperand[] = [
        Vn,
        ...['v1', 'v2', 'v3'].slice(0, len).map((field) => ({ kind: 'v', field }) as const),
      ];
      // A swizzle gives 0 for an index past its sixteen bytes, so the parts can be combined without a comparison.
      const found = tables
        .map((table, i) => {
          const from = i === 0 ? indices : e.op('i8x16.sub', indices, e.v128(replicate(0, 16 * i)));
          return e.op('i8x16.swizzle', e.getV(table), from);
        })
        .reduce((a, b) => e.op('v128.or', a, b));
      if (!keep) e.setV(Vd, keepLow(e, vectorBytes(Q), found));
      else {
        const inside = e.op('i8x16.lt_u', indices, e.v128(replicate(0, 16 * tables.length)));
        e.setV(Vd, keepLow(e, vectorBytes(Q), e.op('v128.bitselect', found, e.getV(Vd), inside)));
      }
    },
  );

export const advsimdPermute: readonly Row[] = [
  extract,
  tableLookup('TBL', false),
  tableLookup('TBX', true),
  permute('UZP1', '001', unzip(0)),
  permute('TRN1', '010', transpose(0)),
  permute('ZIP1', '011', zip(0)),
  permute('UZP2', '101', unzip(1)),
  permute('TRN2', '110', transpose(1)),
  permute('ZIP2', '111', zip(1)),
];
