import { broadcast } from './advsimd-copy.js';
import { Lanes, vectorBytes } from './advsimd-lanes.js';
import {
  accumulateLong,
  doublingMultiplyAccumulateLong,
  doublingMultiplyLong,
  type Long,
  multiplyLong,
} from './advsimd-three-different.js';
import {
  accumulate,
  type Binary,
  dotProduct,
  doublingMultiplyHigh,
  multiply,
  roundingDoublingMultiplyAccumulate,
} from './advsimd-three-same.js';
import type { Emitter, Val, VOperand } from './emitter.js';
import { type Row, row } from './row.js';

/**
 * Advanced SIMD vector and scalar by indexed element, the integer half (Arm ARM DDI 0487 C4.1.97): the three-same and
 * three-different operations with one element of `Vm` in every lane.
 */

interface Operands {
  /** Not there in a scalar form. */
  readonly Q: number | undefined;
  readonly Vn: VOperand;
  readonly Vd: VOperand;
  /** The element of Vm, in every lane. */
  readonly element: Val;
}
type Body = (e: Emitter, size: number, f: Operands) => void;

/** The row for one element size: 16-bit elements have three bits of index and V0 to V15, 32-bit ones two and all registers. */
function indexed(name: string, u: number, size: number, opcode: string, scalar: boolean, body: Body): Row {
  const pattern = `${scalar ? `01 ${u} 11111` : `0 Q ${u} 01111`} ${size === 1 ? '01 L M Vm:4' : '10 L Vm'} ${opcode} H 0 Vn Vd`;
  return row(
    scalar ? `${name}, scalar` : name,
    pattern as '0 Q 0 01111 01 L M Vm 0000 H 0 Vn Vd',
    {},
    (e, { Q, H, L, M, Vm, Vn, Vd }) => {
      const index = size === 1 ? (H << 2) | (L << 1) | M : (H << 1) | L;
      body(e, size, { Q: scalar ? undefined : Q, Vn, Vd, element: broadcast(e, size, index, e.getV(Vm)) });
    },
  );
}

const forms = (name: string, u: number, opcode: string, scalar: boolean, body: Body): Row[] =>
  [1, 2].flatMap((size) => [
    indexed(name, u, size, opcode, false, body),
    ...(scalar ? [indexed(name, u, size, opcode, true, body)] : []),
  ]);

/** An operation that keeps the element size. */
const same = (name: string, u: number, opcode: string, scalar: boolean, f: Binary): Row[] =>
  forms(name, u, opcode, scalar, (e, size, { Q, Vn, Vd, element }) => {
    const x = new Lanes(e, size);
    const bytes = Q === undefined ? 1 << size : vectorBytes(Q);
    x.write(
      Vd,
      bytes,
      f(x, e.getV(Vn), element, () => e.getV(Vd)),
    );
  });

/** An operation that doubles it. */
const long = (name: string, u: number, opcode: string, scalar: boolean, f: Long): Row[] =>
  forms(name, u, opcode, scalar, (e, size, { Q, Vn, Vd, element }) => {
    const x = new Lanes(e, size);
    x.write(
      Vd,
      Q === undefined ? 2 << size : 16,
      f(x, Q ?? 0, e.getV(Vn), element, () => e.getV(Vd)),
    );
  });

/** SDOT, UDOT: the element is four bytes. */
const dot = (name: string, u: number, signed: boolean): Row =>
  indexed(name, u, 2, '1110', false, (e, _size, { Q, Vn, Vd, element }) => {
    const x = new Lanes(e, 0);
    x.write(
      Vd,
      vectorBytes(Q ?? 0),
      dotProduct(signed)(x, e.getV(Vn), element, () => e.getV(Vd)),
    );
  });

export const advsimdByElement: readonly Row[] = [
  ...same('MUL (by element)', 0, '1000', false, multiply),
  ...same('MLA (by element)', 1, '0000', false, accumulate(multiply)),
  ...same('MLS (by element)', 1, '0100', false, accumulate(multiply, -1)),
  ...long('SMULL (by element)', 0, '1010', false, multiplyLong(true)),
  ...long('UMULL (by element)', 1, '1010', false, multiplyLong(false)),
  ...long('SMLAL (by element)', 0, '0010', false, accumulateLong(multiplyLong(true))),
  ...long('UMLAL (by element)', 1, '0010', false, accumulateLong(multiplyLong(false))),
  ...long('SMLSL (by element)', 0, '0110', false, accumulateLong(multiplyLong(true), -1)),
  ...long('UMLSL (by element)', 1, '0110', false, accumulateLong(multiplyLong(false), -1)),
  ...long('SQDMULL (by element)', 0, '1011', true, doublingMultiplyLong),
  ...long('SQDMLAL (by element)', 0, '0011', true, doublingMultiplyAccumulateLong(1)),
  ...long('SQDMLSL (by element)', 0, '0111', true, doublingMultiplyAccumulateLong(-1)),
  ...same('SQDMULH (by element)', 0, '1100', true, doublingMultiplyHigh(false)),
  ...same('SQRDMULH (by element)', 0, '1101', true, doublingMultiplyHigh(true)),
  ...same('SQRDMLAH (by element)', 1, '1101', true, roundingDoublingMultiplyAccumulate(1)),
  ...same('SQRDMLSH (by element)', 1, '1111', true, roundingDoublingMultiplyAccumulate(-1)),
  dot('SDOT (by element)', 0, true),
  dot('UDOT (by element)', 1, false),
];
