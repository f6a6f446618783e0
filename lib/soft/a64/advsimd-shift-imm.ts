import { Lanes, vectorBytes } from './advsimd-lanes.js';
import { writeNarrow } from './advsimd-three-different.js';
import type { Emitter, Val, VOperand } from './emitter.js';
import { type Row, type RowOptions, row } from './row.js';

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
type Left = (x: Lanes, n: Val, by: Val, d: () => Val) => Val;

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

const pattern = (q: string, u: number, size: number, opcode: string): Pattern =>
  `${q === '' ? `0 Q ${u} 011110` : `01 ${u} 111110`} ${IMMEDIATE[size]} ${opcode} 1 Vn Vd` as Pattern;

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

type Body = (e: Emitter, f: { Q: number | undefined; Vn: VOperand; Vd: VOperand }) => void;

/** The rows of one instruction: one for each size, vector and scalar. `body` sees no Q in a scalar form. */
function rows<O extends string>(
  name: string,
  u: number,
  opcode: string,
  where: Where,
  options: (size: number) => RowOptions<Pattern, O>,
  body: (size: number, f: Readonly<Record<O | 'imm', Val>>) => Body,
  vectorOf64NeedsQ = true,
): Row[] {
  const make = (scalar: boolean, size: number): Row => {
    const given = options(size);
    const allocated: RowOptions<Pattern, O>['when'] = (r) =>
      (scalar || !vectorOf64NeedsQ || size < 3 || r.Q === 1) && (given.when === undefined || given.when(r));
    return row(
      scalar ? `${name}, scalar` : name,
      pattern(scalar ? 'scalar' : '', u, size, opcode),
      { ...given, when: allocated },
      (e, f) => body(size, f as never)(e, { Q: scalar ? undefined : f.Q, Vn: f.Vn, Vd: f.Vd }),
    );
  };
  return [...where.vector.map((size) => make(false, size)), ...where.scalar.map((size) => make(true, size))];
}

/** Bytes of the result: a scalar's element, or the vector's. */
const bytes = (Q: number | undefined, size: number): number => (Q === undefined ? 1 << size : vectorBytes(Q));

/** A right shift by 1 to `bits`; the amount is `bits - imm`. */
function right(name: string, u: number, opcode: string, where: Where, f: Right): Row[] {
  const body =
    (shift: (f: Readonly<Record<string, Val>>, e: Emitter, size: number) => RightShift) =>
    (size: number, fields: Readonly<Record<string, Val>>): Body =>
    (e, { Q, Vn, Vd }) => {
      const x = new Lanes(e, size);
      x.write(
        Vd,
        bytes(Q, size),
        f(x, e.getV(Vn), shift(fields, e, size), () => e.getV(Vd)),
      );
    };
  const amounts = (size: number) => ({
    by: (r: Amount): number => (8 << size) - r.imm,
    less: (r: Amount): number => (8 << size) - r.imm - 1,
  });
  return [
    ...rows(
      name,
      u,
      opcode,
      where,
      () => ({ when: (r) => r.imm === 0 }),
      body((_, e, size) => ({ by: undefined, less: e.i32((8 << size) - 1) })),
    ),
    ...rows(
      name,
      u,
      opcode,
      where,
      (size) => ({ ops: amounts(size) }),
      body((r) => ({ by: r['by']!, less: r['less']! })),
    ),
  ];
}

/** A left shift by 0 to `bits - 1`: the amount is `imm`. */
const left = (name: string, u: number, opcode: string, where: Where, f: Left): Row[] =>
  rows(
    name,
    u,
    opcode,
    where,
    () => ({ ops: { by: (r: Amount): number => r.imm } }),
    (size, { by }) =>
      (e, { Q, Vn, Vd }) => {
        const x = new Lanes(e, size);
        x.write(
          Vd,
          bytes(Q, size),
          f(x, e.getV(Vn), by, () => e.getV(Vd)),
        );
      },
  );

/** SLI, SRI: the bits that the shift leaves free keep their old value; the constant is the mask of those, in every element. */
const inserting = (name: string, opcode: string, toLeft: boolean): Row[] =>
  rows(
    name,
    1,
    opcode,
    D,
    (size) => {
      const bits = 8 << size;
      return {
        ops: { by: (r: Amount): number => (toLeft ? r.imm : (bits - r.imm) & (bits - 1)) },
        imm: (r: Amount): bigint => {
          const low = (1n << BigInt(r.imm)) - 1n;
          const element = BigInt.asUintN(bits, toLeft ? low : ~low);
          let out = 0n;
          for (let i = 0; i < 64; i += bits) out |= element << BigInt(i);
          return out;
        },
      };
    },
    (size, { by, imm }) =>
      (e, { Q, Vn, Vd }) => {
        const x = new Lanes(e, size);
        const n = e.getV(Vn);
        const shifted = toLeft ? x.shl(n, by) : x.shr(false, n, by);
        x.write(Vd, bytes(Q, size), x.choose(e.op('i64x2.splat', imm), e.getV(Vd), shifted));
      },
  );

/** A right shift by 1 to the narrow element's bits that makes the elements narrow. */
const narrow = (name: string, u: number, opcode: string, where: Where, f: Right): Row[] =>
  rows(
    name,
    u,
    opcode,
    where,
    (size) => ({
      ops: {
        by: (r: Amount): number => (8 << size) - r.imm,
        less: (r: Amount): number => (8 << size) - r.imm - 1,
      },
    }),
    (size, shift) =>
      (e, { Q, Vn, Vd }) => {
        const x = new Lanes(e, size);
        const source = e.getV(Vn);
        const n = Q === undefined ? scalarSource(x, source) : source;
        const r = f(x, n, shift, () => n);
        if (Q === undefined) x.write(Vd, 1 << size, r, 16);
        else writeNarrow(e, x, Q, Vd, r);
      },
  );

/** A scalar of twice the width of `x`'s elements: what stands above it must not saturate. */
export function scalarSource(x: Lanes, v: Val): Val {
  const { e } = x;
  return x.size === 2
    ? e.shuffle(v, e.v128(0n), [0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23])
    : x.and(v, e.v128((1n << BigInt(2 * x.bits)) - 1n));
}

/** SSHLL, USHLL. */
const long = (name: string, u: number, signed: boolean): Row[] =>
  rows(
    name,
    u,
    '10100',
    VECTOR_BHS,
    () => ({ ops: { by: (r: Amount): number => r.imm } }),
    (size, { by }) =>
      (e, { Q, Vn, Vd }) => {
        const x = new Lanes(e, size);
        x.write(Vd, 16, x.wider.shl(x.extend(signed, Q ?? 0, e.getV(Vn)), by));
      },
  );

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
