import { keepLow, Lanes, replicate, vectorBytes } from './advsimd-lanes.js';
import { writeNarrow } from './advsimd-three-different.js';
import type { Val, VOperand } from './emitter.js';
import { type Row, row } from './row.js';

/**
 * Advanced SIMD shift by immediate, scalar and vector (Arm ARM DDI 0487 C4.1.97). immh:immb is 1 followed by the amount's bits, and
 * the position of that 1 is the element size: so each size is a row of its own, and the amount is data.
 */

/** How far to shift right: an amount from 1 to `bits - 1`, or all the way, which WebAssembly's shifts cannot. */
export interface RightShift {
  /** `undefined` for all the element's bits. */
  readonly by: Val | undefined;
  /** One less, where the last bit shifted out is wanted. */
  readonly less: Val;
}

/** A right shift of elements of `x`; `d` reads the destination's old value. */
type Right = (x: Lanes, n: Val, shift: RightShift, d: () => Val) => Val;
/** A left shift by 0 to `bits - 1`. */
type Left = (x: Lanes, n: Val, by: Val) => Val;

const shiftRight =
  (signed: boolean): Right =>
  (x, n, { by }) =>
    by !== undefined ? x.shr(signed, n, by) : signed ? x.sign(n) : x.zero;

const roundingShiftRight =
  (signed: boolean): Right =>
  (x, n, { less }) =>
    x.halve(signed, true, x.shr(signed, n, less));

const accumulate =
  (f: Right): Right =>
  (x, n, shift, d) =>
    x.add(d(), f(x, n, shift, d));

const shiftLeft: Left = (x, n, by) => x.shl(n, by);

/** SQSHL, UQSHL: saturates where shifting back does not give the source. */
const saturatingShiftLeft =
  (signed: boolean): Left =>
  (x, n, by) => {
    const r = x.shl(n, by);
    const over = x.op('ne', x.shr(signed, r, by), n);
    if (signed) return x.saturateSigned(over, n, r);
    x.saturated(over);
    return x.or(r, over);
  };

/** SQSHLU: a signed number to an unsigned one; negative ones become 0. */
const saturatingShiftLeftUnsigned: Left = (x, n, by) => {
  const r = x.shl(n, by);
  const negative = x.sign(n);
  const over = x.or(x.op('ne', x.shr(false, r, by), n), negative);
  x.saturated(over);
  return x.andNot(x.or(r, over), negative);
};

/** What is left of a wide element, shifted right, when it is made narrow. */
const narrowing =
  (rounding: boolean, fromSigned: boolean, saturateTo?: 'signed' | 'unsigned'): Right =>
  (x, n, shift) => {
    const { wider } = x;
    const shifted = (rounding ? roundingShiftRight(fromSigned) : shiftRight(fromSigned))(wider, n, shift, () => n);
    if (saturateTo === undefined) return x.narrow(shifted);
    // A logical shift has made the wide element positive, as good as signed, unless rounding carried into the sign again.
    return x.narrowSaturating(fromSigned || !rounding, saturateTo === 'signed', shifted);
  };

/** Fixed bits and field width of immh:immb, by size. */
const IMMEDIATE = ['0001 imm:3#', '001 imm:4#', '01 imm:5#', '1 imm:6#'] as const;

type Pattern = '0 Q 0 011110 0001 imm:3# 00000 1 Vn Vd';
type Amount = { readonly imm: number };

const pattern = (scalar: boolean, u: number, size: number, opcode: string): Pattern =>
  `${scalar ? `01 ${u} 111110` : `0 Q ${u} 011110`} ${IMMEDIATE[size]} ${opcode} 1 Vn Vd` as Pattern;

/** Where an instruction exists: element sizes as vectors and as scalars. */
interface Where {
  readonly vector: readonly number[];
  readonly scalar: readonly number[];
}
const ANY: Where = { vector: [0, 1, 2, 3], scalar: [0, 1, 2, 3] };
/** Scalar forms of 64 bits only. */
const D: Where = { vector: [0, 1, 2, 3], scalar: [3] };
const VECTOR_BHS: Where = { vector: [0, 1, 2], scalar: [] };
const NARROW: Where = { vector: [0, 1, 2], scalar: [0, 1, 2] };

/** What an instruction's body sees. */
interface Operands {
  readonly x: Lanes;
  /** Not there in a scalar form. */
  readonly Q: number | undefined;
  readonly n: Val;
  readonly d: () => Val;
  readonly Vd: VOperand;
  /** The amount, and one less than that of a right shift. */
  readonly by: Val;
  readonly less: Val;
  readonly imm: Val;
}

interface Shift {
  readonly name: string;
  readonly u: number;
  readonly opcode: string;
  readonly where: Where;
  readonly toLeft?: boolean;
  readonly when?: (r: Amount) => boolean;
  readonly imm?: (size: number) => (r: Amount) => bigint;
  readonly body: (operands: Operands) => void;
}

/** The rows of one instruction: one for each size, vector and scalar. */
function rows({ name, u, opcode, where, toLeft = false, when, imm, body }: Shift): Row[] {
  const make = (scalar: boolean, size: number): Row => {
    const amount = (r: Amount): number => (toLeft ? r.imm : (8 << size) - r.imm);
    return row(
      scalar ? `${name}, scalar` : name,
      pattern(scalar, u, size, opcode),
      {
        when: (r) => (scalar || size < 3 || r.Q === 1) && (when === undefined || when(r)),
        ops: { by: amount, less: (r) => (8 << size) - 1 - r.imm },
        ...(imm === undefined ? {} : { imm: imm(size) }),
      },
      (e, { Q, Vn, Vd, by, less, imm }) =>
        body({
          x: new Lanes(e, size),
          Q: scalar ? undefined : Q,
          n: e.getV(Vn),
          d: () => e.getV(Vd),
          Vd,
          by,
          less,
          imm,
        }),
    );
  };
  return [...where.vector.map((size) => make(false, size)), ...where.scalar.map((size) => make(true, size))];
}

/** Writes a result of the source's element size: one element, or the vector. */
const writeSame = ({ x, Q, Vd }: Operands, value: Val): void =>
  x.write(Vd, Q === undefined ? 1 << x.size : vectorBytes(Q), value);

/** A right shift by 1 to `bits`; all the way is a row of its own. */
const right = (name: string, u: number, opcode: string, where: Where, f: Right): Row[] => [
  ...rows({
    name,
    u,
    opcode,
    where,
    when: (r) => r.imm === 0,
    body: (o) => writeSame(o, f(o.x, o.n, { by: undefined, less: o.x.e.i32(o.x.bits - 1) }, o.d)),
  }),
  ...rows({ name, u, opcode, where, body: (o) => writeSame(o, f(o.x, o.n, o, o.d)) }),
];

/** A left shift by 0 to `bits - 1`. */
const left = (name: string, u: number, opcode: string, where: Where, f: Left): Row[] =>
  rows({ name, u, opcode, where, toLeft: true, body: (o) => writeSame(o, f(o.x, o.n, o.by)) });

/** SLI, SRI: the bits that the shift leaves free keep their old value; the constant is the mask of those, in every element. */
const inserting = (name: string, opcode: string, toLeft: boolean): Row[] =>
  rows({
    name,
    u: 1,
    opcode,
    where: D,
    toLeft,
    imm: (size) => (r) => {
      const low = (1n << BigInt(r.imm)) - 1n;
      return BigInt.asUintN(64, replicate(size, toLeft ? low : ~low));
    },
    body: (o) => {
      // SRI by all the element's bits shifts by none instead: its mask lets nothing of that through.
      const shifted = toLeft ? o.x.shl(o.n, o.by) : o.x.shr(false, o.n, o.by);
      writeSame(o, o.x.choose(o.x.e.op('i64x2.splat', o.imm), o.d(), shifted));
    },
  });

/** A right shift by 1 to the narrow element's bits that makes the elements narrow. */
const narrow = (name: string, u: number, opcode: string, where: Where, f: Right): Row[] =>
  rows({
    name,
    u,
    opcode,
    where,
    body: (o) => {
      const { x, Q, Vd } = o;
      if (Q !== undefined) writeNarrow(x, Q, Vd, f(x, o.n, o, o.d));
      else x.write(Vd, 1 << x.size, f(x, keepLow(x.e, 2 << x.size, o.n), o, o.d), 16);
    },
  });

/** SSHLL, USHLL. */
const long = (name: string, u: number, signed: boolean): Row[] =>
  rows({
    name,
    u,
    opcode: '10100',
    where: VECTOR_BHS,
    toLeft: true,
    body: ({ x, Q, n, by, Vd }) => x.write(Vd, 16, x.wider.shl(x.extend(signed, Q ?? 0, n), by)),
  });

export const advsimdShiftImm: readonly Row[] = [
  ...right('SSHR', 0, '00000', D, shiftRight(true)),
  ...right('USHR', 1, '00000', D, shiftRight(false)),
  ...right('SSRA', 0, '00010', D, accumulate(shiftRight(true))),
  ...right('USRA', 1, '00010', D, accumulate(shiftRight(false))),
  ...right('SRSHR', 0, '00100', D, roundingShiftRight(true)),
  ...right('URSHR', 1, '00100', D, roundingShiftRight(false)),
  ...right('SRSRA', 0, '00110', D, accumulate(roundingShiftRight(true))),
  ...right('URSRA', 1, '00110', D, accumulate(roundingShiftRight(false))),
  ...inserting('SRI', '01000', false),
  ...left('SHL', 0, '01010', D, shiftLeft),
  ...inserting('SLI', '01010', true),
  ...left('SQSHLU', 1, '01100', ANY, saturatingShiftLeftUnsigned),
  ...left('SQSHL (immediate)', 0, '01110', ANY, saturatingShiftLeft(true)),
  ...left('UQSHL (immediate)', 1, '01110', ANY, saturatingShiftLeft(false)),
  ...narrow('SHRN', 0, '10000', VECTOR_BHS, narrowing(false, false)),
  ...narrow('RSHRN', 0, '10001', VECTOR_BHS, narrowing(true, false)),
  ...narrow('SQSHRUN', 1, '10000', NARROW, narrowing(false, true, 'unsigned')),
  ...narrow('SQRSHRUN', 1, '10001', NARROW, narrowing(true, true, 'unsigned')),
  ...narrow('SQSHRN', 0, '10010', NARROW, narrowing(false, true, 'signed')),
  ...narrow('UQSHRN', 1, '10010', NARROW, narrowing(false, false, 'unsigned')),
  ...narrow('SQRSHRN', 0, '10011', NARROW, narrowing(true, true, 'signed')),
  ...narrow('UQRSHRN', 1, '10011', NARROW, narrowing(true, false, 'unsigned')),
  ...long('SSHLL', 0, true),
  ...long('USHLL', 1, false),
];
