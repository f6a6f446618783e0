import type { Emitter, VOperand } from './emitter.js';
import { type FpBytes, formatIndex } from './fp-emit.js';
import {
  compareLanes,
  differenceLanes,
  extremeLanes,
  type LaneBinary,
  mulAddLanes,
  productLanes,
  settle,
  sumLanes,
} from './fp-lane-ops.js';
import { isHostShape, load, type Shape, scalarOf, store, vectorOf } from './fp-lanes.js';
import { type BinaryName, binaryCode, mulAddCode } from './fp-operations.js';
import {
  fpComplexAdd,
  fpComplexMulAdd,
  fpLanes2,
  fpLanesMulAdd,
  fpLanesMulAddLong,
  fpPairwise,
} from './fp-vector-helpers.js';
import { type Row, row } from './row.js';

/** Advanced SIMD three same, the floating-point half: vector, scalar, half precision and complex (Arm ARM DDI 0487 C4.1.97). */

interface Operands {
  readonly Vd: VOperand;
  readonly Vn: VOperand;
  readonly Vm: VOperand;
}
type Emit = (e: Emitter, s: Shape, f: Operands) => void;

/** An operation lane by lane. `host` does it where it can. */
function lanewise(name: BinaryName, host?: LaneBinary): Emit {
  return (e, s, f) => {
    const soft = (): void => {
      const op = e.i32(binaryCode(name, formatIndex(s.bytes)));
      e.call(fpLanes2, op, e.i32(s.lanes), e.i32(-1), e.vAddress(f.Vd), e.vAddress(f.Vn), e.vAddress(f.Vm));
    };
    if (host === undefined || !isHostShape(s)) {
      soft();
      return;
    }
    const attempt = host(e, s, load(e, f.Vn, s), load(e, f.Vm, s));
    settle(e, attempt, (result) => store(e, f.Vd, s, result), soft);
  };
}

/** FMLA, FMLS. */
function multiplyAdd(negate: boolean): Emit {
  return (e, s, f) => {
    const soft = (): void => {
      const op = e.i32(mulAddCode(negate, false, formatIndex(s.bytes)));
      e.call(fpLanesMulAdd, op, e.i32(s.lanes), e.i32(-1), e.vAddress(f.Vd), e.vAddress(f.Vn), e.vAddress(f.Vm));
    };
    if (!isHostShape(s)) {
      soft();
      return;
    }
    const attempt = mulAddLanes(e, s, negate, load(e, f.Vd, s), load(e, f.Vn, s), load(e, f.Vm, s));
    settle(e, attempt, (result) => store(e, f.Vd, s, result), soft);
  };
}

/** Lanes of a shuffle that takes every other element of two vectors of which `lanes` elements count. */
export function alternate(s: Shape, odd: number): number[] {
  const out: number[] = [];
  for (let i = 0; i < 16 / s.bytes; i++) {
    const pair = i % s.lanes;
    const from = pair < s.lanes / 2 ? 2 * pair : 16 / s.bytes + 2 * pair - s.lanes;
    for (let b = 0; b < s.bytes; b++) out.push((from + odd) * s.bytes + b);
  }
  return out;
}

/** An operation of neighbouring elements. */
function pairwise(name: BinaryName, host: LaneBinary): Emit {
  return (e, s, f) => {
    const soft = (): void => {
      const op = e.i32(binaryCode(name, formatIndex(s.bytes)));
      e.call(fpPairwise, op, e.i32(s.lanes), e.vAddress(f.Vd), e.vAddress(f.Vn), e.vAddress(f.Vm));
    };
    if (!isHostShape(s)) {
      soft();
      return;
    }
    const n = load(e, f.Vn, s);
    const m = load(e, f.Vm, s);
    const attempt = host(e, s, e.shuffle(n, m, alternate(s, 0)), e.shuffle(n, m, alternate(s, 1)));
    settle(e, attempt, (result) => store(e, f.Vd, s, result), soft);
  };
}

/** sz: single or double; double elements need 128 bits. */
const bytesOfSize = (sz: number): FpBytes => (sz === 1 ? 8 : 4);

/** The vector form on singles and doubles, and that on halves. `opcode` is the low three bits of the five that begin with 11. */
const vector = (name: string, u: number, a: number, opcode: string, emit: Emit): Row[] => [
  row(
    `${name} (vector)`,
    `0 Q ${u} 01110 ${a} sz 1 Vm 11${opcode} 1 Vn Vd` as '0 Q x 01110 x sz 1 Vm xxxxx 1 Vn Vd',
    { when: (f) => f.sz === 0 || f.Q === 1 },
    (e, f) => emit(e, vectorOf(bytesOfSize(f.sz), f.Q), f),
  ),
  row(
    `${name} (vector, half)`,
    `0 Q ${u} 01110 ${a} 10 Vm 00 ${opcode} 1 Vn Vd` as '0 Q x 01110 x 10 Vm 00 xxx 1 Vn Vd',
    {},
    (e, f) => emit(e, vectorOf(2, f.Q), f),
  ),
];

const scalar = (name: string, u: number, a: number, opcode: string, emit: Emit): Row[] => [
  row(
    `${name} (scalar, SIMD)`,
    `01 ${u} 11110 ${a} sz 1 Vm 11${opcode} 1 Vn Vd` as '01 x 11110 x sz 1 Vm xxxxx 1 Vn Vd',
    {},
    (e, f) => emit(e, scalarOf(bytesOfSize(f.sz)), f),
  ),
  row(
    `${name} (scalar, SIMD, half)`,
    `01 ${u} 11110 ${a} 10 Vm 00 ${opcode} 1 Vn Vd` as '01 x 11110 x 10 Vm 00 xxx 1 Vn Vd',
    {},
    (e, f) => emit(e, scalarOf(2), f),
  ),
];

const both = (name: string, u: number, a: number, opcode: string, emit: Emit): Row[] => [
  ...vector(name, u, a, opcode, emit),
  ...scalar(name, u, a, opcode, emit),
];

/** FMLAL, FMLSL: halves multiplied and added to singles. */
const multiplyAddLong = (name: string, u: number, a: number, opcode: string, upper: number): Row =>
  row(
    `${name} (vector)`,
    `0 Q ${u} 01110 ${a} 01 Vm ${opcode} 1 Vn Vd` as '0 Q x 01110 x 01 Vm xxxxx 1 Vn Vd',
    {},
    (e, f) => {
      const lanes = e.i32(f.Q === 1 ? 4 : 2);
      e.call(
        fpLanesMulAddLong,
        e.i32(a | (upper << 1)),
        lanes,
        e.i32(-1),
        e.vAddress(f.Vd),
        e.vAddress(f.Vn),
        e.vAddress(f.Vm),
      );
    },
  );

/** Complex numbers of halves, singles or, in 128 bits, doubles. */
const complexSize = (f: { readonly size: number; readonly Q: number }): boolean =>
  f.size !== 0 && (f.size !== 3 || f.Q === 1);
const complexOps = {
  // The size field is the format's number.
  op: (f: { readonly size: number; readonly rot: number }): number => f.size | (f.rot << 2),
  lanes: (f: { readonly size: number; readonly Q: number }): number => (f.Q === 1 ? 16 : 8) >> f.size,
};

export const advsimdFpThreeSame: readonly Row[] = [
  ...vector('FMAXNM', 0, 0, '000', lanewise('maxnm', extremeLanes('max'))),
  ...vector('FMLA', 0, 0, '001', multiplyAdd(false)),
  ...vector('FADD', 0, 0, '010', lanewise('add', sumLanes('add'))),
  // The host's product is also FMULX's, but for infinity times zero, which is not sure.
  ...both('FMULX', 0, 0, '011', lanewise('mulx', productLanes('mul'))),
  ...both('FCMEQ', 0, 0, '100', lanewise('cmeq', compareLanes('eq'))),
  ...vector('FMAX', 0, 0, '110', lanewise('max', extremeLanes('max'))),
  ...both('FRECPS', 0, 0, '111', lanewise('recps')),

  ...vector('FMINNM', 0, 1, '000', lanewise('minnm', extremeLanes('min'))),
  ...vector('FMLS', 0, 1, '001', multiplyAdd(true)),
  ...vector('FSUB', 0, 1, '010', lanewise('sub', sumLanes('sub'))),
  ...vector('FMIN', 0, 1, '110', lanewise('min', extremeLanes('min'))),
  ...both('FRSQRTS', 0, 1, '111', lanewise('rsqrts')),

  ...vector('FMAXNMP', 1, 0, '000', pairwise('maxnm', extremeLanes('max'))),
  ...vector('FADDP', 1, 0, '010', pairwise('add', sumLanes('add'))),
  ...vector('FMUL', 1, 0, '011', lanewise('mul', productLanes('mul'))),
  ...both('FCMGE', 1, 0, '100', lanewise('cmge', compareLanes('ge'))),
  ...both('FACGE', 1, 0, '101', lanewise('acge', compareLanes('ge', true))),
  ...vector('FMAXP', 1, 0, '110', pairwise('max', extremeLanes('max'))),
  ...vector('FDIV', 1, 0, '111', lanewise('div', productLanes('div'))),

  ...vector('FMINNMP', 1, 1, '000', pairwise('minnm', extremeLanes('min'))),
  ...both('FABD', 1, 1, '010', lanewise('abd', differenceLanes)),
  ...both('FCMGT', 1, 1, '100', lanewise('cmgt', compareLanes('gt'))),
  ...both('FACGT', 1, 1, '101', lanewise('acgt', compareLanes('gt', true))),
  ...vector('FMINP', 1, 1, '110', pairwise('min', extremeLanes('min'))),

  multiplyAddLong('FMLAL', 0, 0, '11101', 0),
  multiplyAddLong('FMLSL', 0, 1, '11101', 0),
  multiplyAddLong('FMLAL2', 1, 0, '11001', 1),
  multiplyAddLong('FMLSL2', 1, 1, '11001', 1),

  row('FCMLA', '0 Q:1# 1 01110 size:2# 0 Vm 110 rot:2# 1 Vn Vd', { when: complexSize, ops: complexOps }, (e, f) => {
    e.call(fpComplexMulAdd, f.op, f.lanes, e.i32(-1), e.vAddress(f.Vd), e.vAddress(f.Vn), e.vAddress(f.Vm));
  }),
  row('FCADD', '0 Q:1# 1 01110 size:2# 0 Vm 111 rot:1# 01 Vn Vd', { when: complexSize, ops: complexOps }, (e, f) => {
    e.call(fpComplexAdd, f.op, f.lanes, e.vAddress(f.Vd), e.vAddress(f.Vn), e.vAddress(f.Vm));
  }),
];
