import type { Emitter, VOperand } from './emitter.js';
import { type FpBytes, formatIndex } from './fp-emit.js';
import {
  absLanes,
  compareLanes,
  integralAsSet,
  integralLanes,
  type LaneBinary,
  type LaneUnary,
  negLanes,
  settle,
  sqrtLanes,
} from './fp-lane-ops.js';
import { isHostShape, load, pattern, type Shape, scalarOf, store, vectorOf } from './fp-lanes.js';
import { type BinaryName, binaryCode, type UnaryName, unaryCode } from './fp-operations.js';
import { fpLanes1, fpLanesEstimate, fpLanesZero } from './fp-vector-helpers.js';
import { type Row, row } from './row.js';

/** Advanced SIMD two-register miscellaneous, the floating-point half without conversions (Arm ARM DDI 0487 C4.1.97). */

export interface Operands {
  readonly Vd: VOperand;
  readonly Vn: VOperand;
}
export type Emit = (e: Emitter, s: Shape, f: Operands) => void;

/** An operation lane by lane. `host` does it where it can. */
function lanewise(name: UnaryName, host?: LaneUnary): Emit {
  return (e, s, f) => {
    const soft = (): void => {
      e.call(
        fpLanes1,
        e.i32(unaryCode(name, formatIndex(s.bytes))),
        e.i32(s.lanes),
        e.vAddress(f.Vd),
        e.vAddress(f.Vn),
      );
    };
    if (host === undefined || !isHostShape(s)) {
      soft();
      return;
    }
    const attempt = host(e, s, load(e, f.Vn, s));
    settle(e, attempt, (result) => store(e, f.Vd, s, result), soft);
  };
}

/** A comparison with zero. */
function compareZero(name: BinaryName, host: LaneBinary): Emit {
  return (e, s, f) => {
    const soft = (): void => {
      const op = e.i32(binaryCode(name, formatIndex(s.bytes)));
      e.call(fpLanesZero, op, e.i32(s.lanes), e.vAddress(f.Vd), e.vAddress(f.Vn));
    };
    if (!isHostShape(s)) {
      soft();
      return;
    }
    const attempt = host(e, s, load(e, f.Vn, s), e.v128(0n));
    settle(e, attempt, (result) => store(e, f.Vd, s, result), soft);
  };
}

/** FABS, FNEG. */
function sign(op: 'abs' | 'neg'): Emit {
  return (e, s, f) => {
    const v = load(e, f.Vn, s);
    if (isHostShape(s)) {
      store(e, f.Vd, s, op === 'abs' ? absLanes(e, s.bytes, v) : negLanes(e, s.bytes, v));
      return;
    }
    const bits = op === 'abs' ? 0x7fffn : 0x8000n;
    store(e, f.Vd, s, e.op(op === 'abs' ? 'v128.and' : 'v128.xor', v, pattern(e, 2, bits)));
  };
}

/** URECPE, URSQRTE. */
const estimate = (name: string, u: number, root: number): Row =>
  row(name, `0 Q ${u} 01110 10 10000 11100 10 Vn Vd` as '0 Q x 01110 10 10000 11100 10 Vn Vd', {}, (e, f) => {
    e.call(fpLanesEstimate, e.i32(root), e.i32(f.Q === 1 ? 4 : 2), e.vAddress(f.Vd), e.vAddress(f.Vn));
  });

const bytesOfSize = (sz: number): FpBytes => (sz === 1 ? 8 : 4);

/** The vector form on singles and doubles, and that on halves. */
export const vector = (name: string, u: number, a: number, opcode: string, emit: Emit, half = true): Row[] => [
  row(
    `${name} (vector)`,
    `0 Q ${u} 01110 ${a} sz 10000 ${opcode} 10 Vn Vd` as '0 Q x 01110 x sz 10000 xxxxx 10 Vn Vd',
    { when: (f) => f.sz === 0 || f.Q === 1 },
    (e, f) => emit(e, vectorOf(bytesOfSize(f.sz), f.Q), f),
  ),
  ...(half
    ? [
        row(
          `${name} (vector, half)`,
          `0 Q ${u} 01110 ${a} 111100 ${opcode} 10 Vn Vd` as '0 Q x 01110 x 111100 xxxxx 10 Vn Vd',
          {},
          (e, f) => emit(e, vectorOf(2, f.Q), f),
        ),
      ]
    : []),
];

export const scalar = (name: string, u: number, a: number, opcode: string, emit: Emit): Row[] => [
  row(
    `${name} (scalar, SIMD)`,
    `01 ${u} 11110 ${a} sz 10000 ${opcode} 10 Vn Vd` as '01 x 11110 x sz 10000 xxxxx 10 Vn Vd',
    {},
    (e, f) => emit(e, scalarOf(bytesOfSize(f.sz)), f),
  ),
  row(
    `${name} (scalar, SIMD, half)`,
    `01 ${u} 11110 ${a} 111100 ${opcode} 10 Vn Vd` as '01 x 11110 x 111100 xxxxx 10 Vn Vd',
    {},
    (e, f) => emit(e, scalarOf(2), f),
  ),
];

export const both = (name: string, u: number, a: number, opcode: string, emit: Emit): Row[] => [
  ...vector(name, u, a, opcode, emit),
  ...scalar(name, u, a, opcode, emit),
];

export const advsimdFpTwoMisc: readonly Row[] = [
  ...vector('FRINTN', 0, 0, '11000', lanewise('rintn', integralLanes('nearest'))),
  ...vector('FRINTM', 0, 0, '11001', lanewise('rintm', integralLanes('floor'))),
  ...vector('FRINT32Z', 0, 0, '11110', lanewise('rint32z'), false),
  ...vector('FRINT64Z', 0, 0, '11111', lanewise('rint64z'), false),

  ...both('FCMGT (zero)', 0, 1, '01100', compareZero('cmgt', compareLanes('gt'))),
  ...both('FCMEQ (zero)', 0, 1, '01101', compareZero('cmeq', compareLanes('eq'))),
  ...both('FCMLT (zero)', 0, 1, '01110', compareZero('cmlt', compareLanes('lt'))),
  ...vector('FABS', 0, 1, '01111', sign('abs')),
  ...vector('FRINTP', 0, 1, '11000', lanewise('rintp', integralLanes('ceil'))),
  ...vector('FRINTZ', 0, 1, '11001', lanewise('rintz', integralLanes('trunc'))),
  estimate('URECPE', 0, 0),
  ...both('FRECPE', 0, 1, '11101', lanewise('recpe')),
  ...scalar('FRECPX', 0, 1, '11111', lanewise('recpx')),

  ...vector('FRINTA', 1, 0, '11000', lanewise('rinta', integralLanes('away'))),
  ...vector('FRINTX', 1, 0, '11001', lanewise('rintx', integralAsSet(true))),
  ...vector('FRINT32X', 1, 0, '11110', lanewise('rint32x'), false),
  ...vector('FRINT64X', 1, 0, '11111', lanewise('rint64x'), false),

  ...both('FCMGE (zero)', 1, 1, '01100', compareZero('cmge', compareLanes('ge'))),
  ...both('FCMLE (zero)', 1, 1, '01101', compareZero('cmle', compareLanes('le'))),
  ...vector('FNEG', 1, 1, '01111', sign('neg')),
  ...vector('FRINTI', 1, 1, '11001', lanewise('rinti', integralAsSet(false))),
  estimate('URSQRTE', 1, 1),
  ...both('FRSQRTE', 1, 1, '11101', lanewise('rsqrte')),
  ...vector('FSQRT', 1, 1, '11111', lanewise('sqrt', sqrtLanes)),
];
