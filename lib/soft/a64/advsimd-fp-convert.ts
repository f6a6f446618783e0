import { Rounding } from '../fp/format.js';
import { both, type Emit } from './advsimd-fp-two-misc.js';
import type { Emitter, Val, VOperand } from './emitter.js';
import { formatIndex, inexactIf, MIN_NORMAL, nearest, plain, ready, unflushed } from './fp-emit.js';
import { narrowSingles, widenHalves } from './fp-halves.js';
import { type LaneRounding, roundLanes } from './fp-lane-ops.js';
import {
  everyLane,
  floats,
  type HostShape,
  isHostShape,
  load,
  orderedLanes,
  type Shape,
  scalarOf,
  spreadNumber,
  store,
  vectorOf,
  within,
} from './fp-lanes.js';
import { convertCode, toIntCode } from './fp-operations.js';
import { fpLanesFromInt, fpLanesToInt, fpLengthen, fpNarrow } from './fp-vector-helpers.js';
import { type Row, row } from './row.js';

/** Advanced SIMD conversions: to and from integers and fixed point, and between formats (Arm ARM DDI 0487 C4.1.97). */

interface Operands {
  readonly Vd: VOperand;
  readonly Vn: VOperand;
}

/** Whether some lane of a mask is set, as 0 or 1. */
const someLane = (e: Emitter, mask: Val): Val => e.op('v128.any_true', mask);

/** Two doubles' worth of lanes, each by a scalar operation. */
function eachDouble(e: Emitter, v: Val, from: 'f64x2' | 'i64x2', to: 'f64x2' | 'i64x2', op: string): Val {
  const low = e.op(op, e.lane(`${from}.extract_lane`, 0, v));
  const high = e.op(op, e.lane(`${from}.extract_lane`, 1, v));
  return e.lane(`${to}.replace_lane`, 1, e.op(`${to}.splat`, low), high);
}

function hostToInt(e: Emitter, s: HostShape, unsigned: boolean, whole: Val): Val {
  const sign = unsigned ? 'u' : 's';
  return s.bytes === 4
    ? e.op(`i32x4.trunc_sat_f32x4_${sign}`, whole)
    : eachDouble(e, whole, 'f64x2', 'i64x2', `i64.trunc_sat_f64_${sign}`);
}

function hostFromInt(e: Emitter, s: HostShape, unsigned: boolean, a: Val): Val {
  const sign = unsigned ? 'u' : 's';
  return s.bytes === 4
    ? e.op(`f32x4.convert_i32x4_${sign}`, a)
    : eachDouble(e, a, 'i64x2', 'f64x2', `f64.convert_i64_${sign}`);
}

const bounds = (s: Shape, unsigned: boolean): { low: number; high: number } => {
  const bits = s.bytes * 8;
  return unsigned ? { low: 0, high: 2 ** bits } : { low: -(2 ** (bits - 1)), high: 2 ** (bits - 1) };
};

const HOST_ROUNDING = {
  [Rounding.TIEEVEN]: 'nearest',
  [Rounding.POSINF]: 'ceil',
  [Rounding.NEGINF]: 'floor',
  [Rounding.ZERO]: 'trunc',
  [Rounding.TIEAWAY]: 'away',
} as const satisfies Record<number, LaneRounding>;

/** FCVT{N,P,M,Z,A}{S,U}. @param scale 2 to the number of fraction bits, in every lane */
function toInt(
  e: Emitter,
  s: Shape,
  f: Operands,
  rounding: keyof typeof HOST_ROUNDING,
  unsigned: boolean,
  fractionBits: Val,
  scale?: Val,
): void {
  const soft = (): void => {
    const op = e.i32(toIntCode(formatIndex(s.bytes), unsigned, (s.bytes * 8) as 16 | 32 | 64, rounding));
    e.call(fpLanesToInt, op, e.i32(s.lanes), fractionBits, e.vAddress(f.Vd), e.vAddress(f.Vn));
  };
  if (!isHostShape(s)) {
    soft();
    return;
  }
  const t = floats(s.bytes);
  const a = load(e, f.Vn, s);
  const scaled = scale === undefined ? a : e.op(`${t}.mul`, a, scale);
  const whole = roundLanes(e, s.bytes, HOST_ROUNDING[rounding], scaled);
  const { low, high } = bounds(s, unsigned);
  const fits = e.op(
    'v128.and',
    e.op(`${t}.ge`, whole, spreadNumber(e, s.bytes, low)),
    e.op(`${t}.lt`, whole, spreadNumber(e, s.bytes, high)),
  );
  e.if(
    e.and(unflushed(e), everyLane(e, s.bytes, fits)),
    () => {
      inexactIf(e, someLane(e, e.op(`${t}.ne`, whole, scaled)));
      store(e, f.Vd, s, hostToInt(e, s, unsigned, whole));
    },
    soft,
  );
}

/** SCVTF, UCVTF. @param scale 2 to minus the number of fraction bits, in every lane */
function fromInt(e: Emitter, s: Shape, f: Operands, unsigned: boolean, fractionBits: Val, scale?: Val): void {
  const soft = (): void => {
    const op = e.i32(formatIndex(s.bytes) | (unsigned ? 4 : 0));
    e.call(fpLanesFromInt, op, e.i32(s.lanes), fractionBits, e.vAddress(f.Vd), e.vAddress(f.Vn));
  };
  if (!isHostShape(s)) {
    soft();
    return;
  }
  const t = floats(s.bytes);
  e.if(
    nearest(e),
    () => {
      const a = load(e, f.Vn, s);
      const r = hostFromInt(e, s, unsigned, a);
      // Rounded up to the first number past the integers, it would come back saturated, and look exact.
      const back = e.op(`i${s.bytes * 8}x${16 / s.bytes}.ne`, hostToInt(e, s, unsigned, r), a);
      const past = e.op(`${t}.eq`, r, spreadNumber(e, s.bytes, bounds(s, unsigned).high));
      inexactIf(e, someLane(e, e.op('v128.or', back, past)));
      store(e, f.Vd, s, scale === undefined ? r : e.op(`${t}.mul`, r, scale));
    },
    soft,
  );
}

const toInteger = (name: string, u: number, a: number, opcode: string, rounding: keyof typeof HOST_ROUNDING): Row[] =>
  both(name, u, a, opcode, (e, s, f) => toInt(e, s, f, rounding, u === 1, e.i32(0)));
const fromInteger = (name: string, u: number): Row[] => {
  const emit: Emit = (e, s, f) => fromInt(e, s, f, u === 1, e.i32(0));
  return both(name, u, 0, '11101', emit);
};

/** The fixed-point forms: immh:immb is 1 and then twice the element's bits less the number of fraction bits, below it. */
const SIZES = [
  { bytes: 8, name: 'double', fixed: '1', width: 6 },
  { bytes: 4, name: 'single', fixed: '01', width: 5 },
  { bytes: 2, name: 'half', fixed: '001', width: 4 },
] as const;

type FixedEmit = (e: Emitter, s: Shape, f: Operands, fractionBits: Val, scale: Val | undefined) => void;

/** @param power the sign of the scale's exponent */
function fixedPoint(name: string, u: number, opcode: string, power: 1 | -1, emit: FixedEmit): Row[] {
  return SIZES.flatMap(({ bytes, name: size, fixed, width }) => {
    const fraction = (f: { readonly imm: number }): number => 2 ** width - f.imm;
    const options = {
      imm: (f: { readonly imm: number }): bigint => BigInt(1023 + power * fraction(f)) << 52n,
      ops: { fbits: fraction },
    };
    const scaleOf = (e: Emitter, bits: Val): Val | undefined => {
      const double = e.op('f64x2.splat', e.op('f64.reinterpret_i64', bits));
      return bytes === 8
        ? double
        : bytes === 4
          ? e.op('f32x4.splat', e.op('f32.demote_f64', e.op('f64.reinterpret_i64', bits)))
          : undefined;
    };
    const tail = `${fixed} imm:${width}# ${opcode} 1 Vn Vd`;
    return [
      row(
        `${name} (vector, fixed-point, ${size})`,
        `0 Q ${u} 011110 ${tail}` as '0 Q x 011110 xxx imm:4# xxxxx 1 Vn Vd',
        { ...options, when: (f) => bytes !== 8 || f.Q === 1 },
        (e, f) => emit(e, vectorOf(bytes, f.Q), f, f.fbits, scaleOf(e, f.imm)),
      ),
      row(
        `${name} (scalar, SIMD, fixed-point, ${size})`,
        `01 ${u} 111110 ${tail}` as '01 x 111110 xxx imm:4# xxxxx 1 Vn Vd',
        options,
        (e, f) => emit(e, scalarOf(bytes), f, f.fbits, scaleOf(e, f.imm)),
      ),
    ];
  });
}

/** FCVTL: the lower or, where Q is 1, the upper half's elements at twice their width. */
const lengthen = row('FCVTL', '0 Q 0 01110 0 sz 10000 10111 10 Vn Vd', {}, (e, f) => {
  const soft = (): void => {
    const op = f.sz === 1 ? convertCode(2, 3) : convertCode(1, 2);
    e.call(fpLengthen, e.i32(op), e.i32(f.Q), e.vAddress(f.Vd), e.vAddress(f.Vn));
  };
  const a = e.op('i64x2.splat', e.getElem(f.Vn, 8, f.Q));
  if (f.sz === 0) {
    const { result, sure } = widenHalves(e, e.op('i32x4.extend_low_i16x8_u', a));
    e.if(sure, () => e.setV(f.Vd, result), soft);
    return;
  }
  e.if(
    e.and(unflushed(e), everyLane(e, 4, orderedLanes(e, 4, a))),
    () => e.setV(f.Vd, e.op('f64x2.promote_low_f32x4', a)),
    soft,
  );
});

/** FCVTN, FCVTXN: doubles to singles or singles to halves, into the lower or, where Q is 1, the upper half. */
function narrow(e: Emitter, f: Operands & { readonly Q: number }, sz: number, odd: boolean): void {
  const soft = (): void => {
    const op = sz === 1 ? convertCode(3, 2, odd) : convertCode(2, 1, odd);
    e.call(fpNarrow, e.i32(op), e.i32(sz === 1 ? 2 : 4), e.i32(f.Q), e.vAddress(f.Vd), e.vAddress(f.Vn));
  };
  /** Writes the 64 bits at the bottom of `v`. */
  const put = (v: Val): void => {
    const bits = e.lane('i64x2.extract_lane', 0, v);
    if (f.Q === 1) e.setElem(f.Vd, 8, 1, bits);
    else e.setScalar(f.Vd, 8, bits);
  };
  if (odd) {
    soft();
    return;
  }
  const a = e.getV(f.Vn);
  if (sz === 0) {
    const { result, sure } = narrowSingles(e, a);
    // The lanes' lower halves, together.
    const gather = [0, 1, 4, 5, 8, 9, 12, 13];
    e.if(sure, () => put(e.shuffle(result, result, [...gather, ...gather])), soft);
    return;
  }
  const r = e.op('f32x4.demote_f64x2_zero', a);
  const back = e.op('f64x2.promote_low_f32x4', r);
  const zero = e.op('f64x2.eq', a, e.v128(0n));
  const normal = within(e, 8, back, MIN_NORMAL[4], Number.POSITIVE_INFINITY);
  const good = e.op('i64x2.all_true', e.op('v128.or', zero, normal));
  const exact = e.op('i64x2.all_true', e.op('f64x2.eq', back, a));
  e.if(e.and(good, e.or(ready(e), e.and(plain(e), exact))), () => put(r), soft);
}

export const advsimdFpConvert: readonly Row[] = [
  ...toInteger('FCVTNS', 0, 0, '11010', Rounding.TIEEVEN),
  ...toInteger('FCVTMS', 0, 0, '11011', Rounding.NEGINF),
  ...toInteger('FCVTAS', 0, 0, '11100', Rounding.TIEAWAY),
  ...fromInteger('SCVTF', 0),
  ...toInteger('FCVTPS', 0, 1, '11010', Rounding.POSINF),
  ...toInteger('FCVTZS', 0, 1, '11011', Rounding.ZERO),
  ...toInteger('FCVTNU', 1, 0, '11010', Rounding.TIEEVEN),
  ...toInteger('FCVTMU', 1, 0, '11011', Rounding.NEGINF),
  ...toInteger('FCVTAU', 1, 0, '11100', Rounding.TIEAWAY),
  ...fromInteger('UCVTF', 1),
  ...toInteger('FCVTPU', 1, 1, '11010', Rounding.POSINF),
  ...toInteger('FCVTZU', 1, 1, '11011', Rounding.ZERO),

  ...[0, 1].flatMap((u) => [
    ...fixedPoint(u === 1 ? 'UCVTF' : 'SCVTF', u, '11100', -1, (e, s, f, bits, scale) =>
      fromInt(e, s, f, u === 1, bits, scale),
    ),
    ...fixedPoint(u === 1 ? 'FCVTZU' : 'FCVTZS', u, '11111', 1, (e, s, f, bits, scale) =>
      toInt(e, s, f, Rounding.ZERO, u === 1, bits, scale),
    ),
  ]),

  lengthen,
  row('FCVTN', '0 Q 0 01110 0 sz 10000 10110 10 Vn Vd', {}, (e, f) => narrow(e, f, f.sz, false)),
  row('FCVTXN', '0 Q 1 01110 0 1 10000 10110 10 Vn Vd', {}, (e, f) => narrow(e, f, 1, true)),
  row('FCVTXN (scalar)', '01 1 11110 0 1 10000 10110 10 Vn Vd', {}, (e, f) => {
    const op = e.i32(convertCode(3, 2, true));
    e.call(fpNarrow, op, e.i32(1), e.i32(0), e.vAddress(f.Vd), e.vAddress(f.Vn));
  }),
];
