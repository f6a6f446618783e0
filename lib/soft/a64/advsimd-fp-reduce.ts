import { alternate } from './advsimd-fp-three-same.js';
import type { Emitter, VOperand } from './emitter.js';
import { type FpBytes, formatIndex } from './fp-emit.js';
import { extremeLanes, type LaneBinary, settle, sumLanes } from './fp-lane-ops.js';
import { isHostShape, load, scalarOf, store, vectorOf } from './fp-lanes.js';
import { type BinaryName, binaryCode } from './fp-operations.js';
import { fpPairwise, fpReduce } from './fp-vector-helpers.js';
import { type Row, row } from './row.js';

/** Advanced SIMD across lanes and scalar pairwise, the floating-point half (Arm ARM DDI 0487 C4.1.97). */

interface Operands {
  readonly Vd: VOperand;
  readonly Vn: VOperand;
}

/** Of two elements. */
function pair(e: Emitter, bytes: FpBytes, name: BinaryName, host: LaneBinary, f: Operands): void {
  const soft = (): void => {
    const op = e.i32(binaryCode(name, formatIndex(bytes)));
    e.call(fpPairwise, op, e.i32(1), e.vAddress(f.Vd), e.vAddress(f.Vn), e.vAddress(f.Vn));
  };
  const s = vectorOf(bytes, bytes === 8 ? 1 : 0);
  if (!isHostShape(s)) {
    soft();
    return;
  }
  const n = load(e, f.Vn, s);
  const attempt = host(e, s, e.shuffle(n, n, alternate(s, 0)), e.shuffle(n, n, alternate(s, 1)));
  settle(e, attempt, (result) => store(e, f.Vd, scalarOf(bytes), result), soft);
}

const pairwise = (name: string, a: number, opcode: string, operation: BinaryName, host: LaneBinary): Row[] => [
  row(
    `${name} (scalar)`,
    `01 1 11110 ${a} sz 11000 ${opcode} 10 Vn Vd` as '01 1 11110 x sz 11000 xxxxx 10 Vn Vd',
    {},
    (e, f) => pair(e, f.sz === 1 ? 8 : 4, operation, host, f),
  ),
  row(
    `${name} (scalar, half)`,
    `01 0 11110 ${a} 0 11000 ${opcode} 10 Vn Vd` as '01 0 11110 x 0 11000 xxxxx 10 Vn Vd',
    {},
    (e, f) => pair(e, 2, operation, host, f),
  ),
];

/** Of all lanes: the least or greatest is the same in any order, unless there is a NaN. */
const across = (name: string, a: number, opcode: string, operation: BinaryName, op: 'max' | 'min'): Row[] => [
  row(name, `0 1 1 01110 ${a} 0 11000 ${opcode} 10 Vn Vd` as '0 1 1 01110 x 0 11000 xxxxx 10 Vn Vd', {}, (e, f) => {
    const soft = (): void => {
      e.call(fpReduce, e.i32(binaryCode(operation, formatIndex(4))), e.i32(4), e.vAddress(f.Vd), e.vAddress(f.Vn));
    };
    const n = e.getV(f.Vn);
    const s = { bytes: 4, lanes: 4 } as const;
    const host = extremeLanes(op);
    const first = host(e, s, n, e.shuffle(n, n, [4, 5, 6, 7, 4, 5, 6, 7, 12, 13, 14, 15, 12, 13, 14, 15]));
    const upper = e.shuffle(first.result, first.result, [8, 9, 10, 11, 8, 9, 10, 11, 8, 9, 10, 11, 8, 9, 10, 11]);
    const { result } = host(e, s, first.result, upper);
    e.if(first.sure, () => store(e, f.Vd, scalarOf(4), result), soft);
  }),
  row(
    `${name} (half)`,
    `0 Q 0 01110 ${a} 0 11000 ${opcode} 10 Vn Vd` as '0 Q 0 01110 x 0 11000 xxxxx 10 Vn Vd',
    {},
    (e, f) => {
      const { lanes } = vectorOf(2, f.Q);
      e.call(fpReduce, e.i32(binaryCode(operation, formatIndex(2))), e.i32(lanes), e.vAddress(f.Vd), e.vAddress(f.Vn));
    },
  ),
];

export const advsimdFpReduce: readonly Row[] = [
  ...pairwise('FMAXNMP', 0, '01100', 'maxnm', extremeLanes('max')),
  ...pairwise('FADDP', 0, '01101', 'add', sumLanes('add')),
  ...pairwise('FMAXP', 0, '01111', 'max', extremeLanes('max')),
  ...pairwise('FMINNMP', 1, '01100', 'minnm', extremeLanes('min')),
  ...pairwise('FMINP', 1, '01111', 'min', extremeLanes('min')),
  ...across('FMAXNMV', 0, '01100', 'maxnm', 'max'),
  ...across('FMAXV', 0, '01111', 'max', 'max'),
  ...across('FMINNMV', 1, '01100', 'minnm', 'min'),
  ...across('FMINV', 1, '01111', 'min', 'min'),
];
