import type { Emitter, Helper, Val, VOperand } from './emitter.js';
import { type FpBytes, formatIndex } from './fp-emit.js';
import { type Attempt, mulAddLanes, productLanes, settle } from './fp-lane-ops.js';
import { type HostShape, load, loadElement, store } from './fp-lanes.js';
import { binaryCode, mulAddCode } from './fp-operations.js';
import { fpComplexMulAdd, fpLanes2, fpLanesMulAdd, fpLanesMulAddLong } from './fp-vector-helpers.js';
import { type Row, row } from './row.js';

/** Advanced SIMD by indexed element, the floating-point half: one element of `Vm` in every lane (Arm ARM DDI 0487 C4.1.97). */

interface Operands {
  readonly Vd: VOperand;
  readonly Vn: VOperand;
  readonly Vm: VOperand;
}
/** The two kinds of operation: the helper that does every shape, its number for a format, and what the host does. */
interface Operation {
  readonly target: Helper;
  readonly code: (bytes: FpBytes) => number;
  readonly host: (e: Emitter, s: HostShape, f: Operands, element: Val) => Attempt;
}

/** FMUL, FMULX. */
const product = (name: 'mul' | 'mulx'): Operation => ({
  target: fpLanes2,
  code: (bytes) => binaryCode(name, formatIndex(bytes)),
  host: (e, s, f, element) => productLanes('mul')(e, s, load(e, f.Vn, s), element),
});

/** FMLA, FMLS. */
const multiplyAdd = (negate: boolean): Operation => ({
  target: fpLanesMulAdd,
  code: (bytes) => mulAddCode(negate, false, formatIndex(bytes)),
  host: (e, s, f, element) => mulAddLanes(e, s, negate, load(e, f.Vd, s), load(e, f.Vn, s), element),
});

const soft = (e: Emitter, operation: Operation, bytes: FpBytes, lanes: Val, index: Val, f: Operands): void => {
  const op = e.i32(operation.code(bytes));
  e.call(operation.target, op, lanes, index, e.vAddress(f.Vd), e.vAddress(f.Vn), e.vAddress(f.Vm));
};

function onHost(e: Emitter, operation: Operation, s: HostShape, index: number, f: Operands): void {
  settle(
    e,
    operation.host(e, s, f, loadElement(e, f.Vm, s.bytes, index)),
    (result) => store(e, f.Vd, s, result),
    () => soft(e, operation, s.bytes, e.i32(s.lanes), e.i32(index), f),
  );
}

type HalfPattern = '0 Q:1# x 01111 00 L:1# M:1# Vm 0000 H:1# 0 Vn Vd';
type SinglePattern = '0 Q x 01111 10 L Vm 0000 H 0 Vn Vd';
type DoublePattern = '0 Q x 01111 11 0 Vm 0000 H 0 Vn Vd';

/** H:L:M, the index of a half. */
const halfIndex = (f: { readonly H: number; readonly L: number; readonly M: number }): number =>
  (f.H << 2) | (f.L << 1) | f.M;

/** Halves have three bits of index and V0 to V15, singles two, doubles one. */
function indexed(name: string, u: number, opcode: string, scalar: boolean, operation: Operation): Row[] {
  const head = scalar ? `01 ${u} 11111` : `0 Q ${u} 01111`;
  const tail = `${opcode} H 0 Vn Vd`;
  const suffix = scalar ? 'by element, scalar' : 'by element';
  const shape = (bytes: 4 | 8, q: number): HostShape => ({ bytes, lanes: scalar ? 1 : (q === 1 ? 16 : 8) / bytes });
  return [
    row(
      `${name} (${suffix}, half)`,
      `${scalar ? head : `0 Q:1# ${u} 01111`} 00 L:1# M:1# Vm:4 ${opcode} H:1# 0 Vn Vd` as HalfPattern,
      { ops: { index: halfIndex, lanes: (f) => (scalar ? 1 : f.Q === 1 ? 8 : 4) } },
      (e, f) => soft(e, operation, 2, f.lanes, f.index, f),
    ),
    row(`${name} (${suffix}, single)`, `${head} 10 L Vm ${tail}` as SinglePattern, {}, (e, f) =>
      onHost(e, operation, shape(4, f.Q), (f.H << 1) | f.L, f),
    ),
    row(
      `${name} (${suffix}, double)`,
      `${head} 11 0 Vm ${tail}` as DoublePattern,
      { when: (f) => scalar || f.Q === 1 },
      (e, f) => onHost(e, operation, shape(8, f.Q), f.H, f),
    ),
  ];
}

const both = (name: string, u: number, opcode: string, operation: Operation): Row[] => [
  ...indexed(name, u, opcode, false, operation),
  ...indexed(name, u, opcode, true, operation),
];

/** FMLAL, FMLSL: halves multiplied and added to singles. */
const multiplyAddLong = (name: string, u: number, opcode: string, negate: number, upper: number): Row =>
  row(
    `${name} (by element)`,
    `0 Q:1# ${u} 01111 10 L:1# M:1# Vm:4 ${opcode} H:1# 0 Vn Vd` as '0 Q:1# x 01111 10 L:1# M:1# Vm xxxx H:1# 0 Vn Vd',
    { ops: { index: halfIndex, lanes: (f) => (f.Q === 1 ? 4 : 2) } },
    (e, f) => {
      const op = e.i32(negate | (upper << 1));
      e.call(fpLanesMulAddLong, op, f.lanes, f.index, e.vAddress(f.Vd), e.vAddress(f.Vn), e.vAddress(f.Vm));
    },
  );

export const advsimdFpByElement: readonly Row[] = [
  ...both('FMLA', 0, '0001', multiplyAdd(false)),
  ...both('FMLS', 0, '0101', multiplyAdd(true)),
  ...both('FMUL', 0, '1001', product('mul')),
  ...both('FMULX', 1, '1001', product('mulx')),
  multiplyAddLong('FMLAL', 0, '0000', 0, 0),
  multiplyAddLong('FMLSL', 0, '0100', 1, 0),
  multiplyAddLong('FMLAL2', 1, '1000', 0, 1),
  multiplyAddLong('FMLSL2', 1, '1100', 1, 1),
  // FCMLA's index counts complex numbers: 64 bits hold two of halves, and one of singles, which has no such form.
  row(
    'FCMLA (by element, half)',
    '0 Q:1# 1 01111 01 L:1# Vm 0 rot:2# 1 H:1# 0 Vn Vd',
    {
      when: (f) => f.H === 0 || f.Q === 1,
      ops: { op: (f) => 1 | (f.rot << 2), lanes: (f) => (f.Q === 1 ? 8 : 4), index: (f) => (f.H << 1) | f.L },
    },
    (e, f) => e.call(fpComplexMulAdd, f.op, f.lanes, f.index, e.vAddress(f.Vd), e.vAddress(f.Vn), e.vAddress(f.Vm)),
  ),
  row(
    'FCMLA (by element, single)',
    '0 1 1 01111 10 0 Vm 0 rot:2# 1 H:1# 0 Vn Vd',
    { ops: { op: (f) => 2 | (f.rot << 2) } },
    (e, f) => e.call(fpComplexMulAdd, f.op, e.i32(4), f.H, e.vAddress(f.Vd), e.vAddress(f.Vn), e.vAddress(f.Vm)),
  ),
];
