import type { Emitter, VOperand } from './emitter.js';
import { type FpBytes, formatIndex } from './fp-emit.js';
import { mulAddLanes, productLanes } from './fp-lane-ops.js';
import { isHostShape, load, loadElement, type Shape, scalarOf, store, vectorOf } from './fp-lanes.js';
import { binaryCode, mulAddCode } from './fp-operations.js';
import { fpComplexMulAdd, fpLanes2, fpLanesMulAdd, fpLanesMulAddLong } from './fp-vector-helpers.js';
import { type Row, row } from './row.js';

/** Advanced SIMD by indexed element, the floating-point half: one element of `Vm` in every lane (Arm ARM DDI 0487 C4.1.97). */

interface Operands {
  readonly Vd: VOperand;
  readonly Vn: VOperand;
  readonly Vm: VOperand;
}
type Emit = (e: Emitter, s: Shape, index: number, f: Operands) => void;

/** FMUL, FMULX. */
function product(name: 'mul' | 'mulx'): Emit {
  return (e, s, index, f) => {
    const soft = (): void => {
      const op = e.i32(binaryCode(name, formatIndex(s.bytes)));
      e.call(fpLanes2, op, e.i32(s.lanes), e.i32(index), e.vAddress(f.Vd), e.vAddress(f.Vn), e.vAddress(f.Vm));
    };
    if (!isHostShape(s)) {
      soft();
      return;
    }
    const { result, sure } = productLanes('mul')(e, s, load(e, f.Vn, s), loadElement(e, f.Vm, s.bytes, index));
    e.if(sure, () => store(e, f.Vd, s, result), soft);
  };
}

/** FMLA, FMLS. */
function multiplyAdd(negate: boolean): Emit {
  return (e, s, index, f) => {
    const soft = (): void => {
      const op = e.i32(mulAddCode(negate, false, formatIndex(s.bytes)));
      e.call(fpLanesMulAdd, op, e.i32(s.lanes), e.i32(index), e.vAddress(f.Vd), e.vAddress(f.Vn), e.vAddress(f.Vm));
    };
    if (!isHostShape(s)) {
      soft();
      return;
    }
    const a = load(e, f.Vn, s);
    const { result, sure } = mulAddLanes(e, s, negate, load(e, f.Vd, s), a, loadElement(e, f.Vm, s.bytes, index));
    e.if(sure, () => store(e, f.Vd, s, result), soft);
  };
}

type HalfPattern = '0 Q x 01111 00 L M Vm 0000 H 0 Vn Vd';
type SinglePattern = '0 Q x 01111 10 L Vm 0000 H 0 Vn Vd';
type DoublePattern = '0 Q x 01111 11 0 Vm 0000 H 0 Vn Vd';

/** Halves have three bits of index and V0 to V15, singles two, doubles one. */
function indexed(name: string, u: number, opcode: string, scalar: boolean, emit: Emit): Row[] {
  const head = scalar ? `01 ${u} 11111` : `0 Q ${u} 01111`;
  const tail = `${opcode} H 0 Vn Vd`;
  const suffix = scalar ? 'by element, scalar' : 'by element';
  const shape = (bytes: FpBytes, q: number): Shape => (scalar ? scalarOf(bytes) : vectorOf(bytes, q));
  return [
    row(`${name} (${suffix}, half)`, `${head} 00 L M Vm:4 ${tail}` as HalfPattern, {}, (e, f) =>
      emit(e, shape(2, f.Q), (f.H << 2) | (f.L << 1) | f.M, f),
    ),
    row(`${name} (${suffix}, single)`, `${head} 10 L Vm ${tail}` as SinglePattern, {}, (e, f) =>
      emit(e, shape(4, f.Q), (f.H << 1) | f.L, f),
    ),
    row(
      `${name} (${suffix}, double)`,
      `${head} 11 0 Vm ${tail}` as DoublePattern,
      { when: (f) => scalar || f.Q === 1 },
      (e, f) => emit(e, shape(8, f.Q), f.H, f),
    ),
  ];
}

const both = (name: string, u: number, opcode: string, emit: Emit): Row[] => [
  ...indexed(name, u, opcode, false, emit),
  ...indexed(name, u, opcode, true, emit),
];

/** FMLAL, FMLSL: halves multiplied and added to singles. */
const multiplyAddLong = (name: string, u: number, opcode: string, negate: number, upper: number): Row =>
  row(
    `${name} (by element)`,
    `0 Q ${u} 01111 10 L M Vm:4 ${opcode} H 0 Vn Vd` as '0 Q x 01111 10 L M Vm xxxx H 0 Vn Vd',
    {},
    (e, f) => {
      const index = e.i32((f.H << 2) | (f.L << 1) | f.M);
      const lanes = e.i32(f.Q === 1 ? 4 : 2);
      e.call(
        fpLanesMulAddLong,
        e.i32(negate | (upper << 1)),
        lanes,
        index,
        e.vAddress(f.Vd),
        e.vAddress(f.Vn),
        e.vAddress(f.Vm),
      );
    },
  );

/** FCMLA: the index counts complex numbers; 64 bits hold two of halves, and one of singles, which has no such form. */
function complex(e: Emitter, bytes: FpBytes, q: number, rotation: number, index: number, f: Operands): void {
  const { lanes } = vectorOf(bytes, q);
  const op = e.i32(formatIndex(bytes) | (rotation << 2));
  e.call(fpComplexMulAdd, op, e.i32(lanes), e.i32(index), e.vAddress(f.Vd), e.vAddress(f.Vn), e.vAddress(f.Vm));
}

export const advsimdFpByElement: readonly Row[] = [
  ...both('FMLA', 0, '0001', multiplyAdd(false)),
  ...both('FMLS', 0, '0101', multiplyAdd(true)),
  ...both('FMUL', 0, '1001', product('mul')),
  ...both('FMULX', 1, '1001', product('mulx')),
  multiplyAddLong('FMLAL', 0, '0000', 0, 0),
  multiplyAddLong('FMLSL', 0, '0100', 1, 0),
  multiplyAddLong('FMLAL2', 1, '1000', 0, 1),
  multiplyAddLong('FMLSL2', 1, '1100', 1, 1),
  row(
    'FCMLA (by element, half)',
    '0 Q 1 01111 01 L Vm 0 rot:2 1 H 0 Vn Vd',
    { when: (f) => f.H === 0 || f.Q === 1 },
    (e, f) => {
      complex(e, 2, f.Q, f.rot, (f.H << 1) | f.L, f);
    },
  ),
  row('FCMLA (by element, single)', '0 1 1 01111 10 0 Vm 0 rot:2 1 H 0 Vn Vd', {}, (e, f) => {
    complex(e, 4, 1, f.rot, f.H, f);
  }),
];
