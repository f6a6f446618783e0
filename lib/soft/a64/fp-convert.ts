import { Rounding } from '../fp/format.js';
import type { Emitter, Val, VOperand, XOperand } from './emitter.js';
import { hostRound } from './fp-arithmetic.js';
import {
  allocatedType,
  bitsOf,
  bytesOf,
  call,
  constant,
  type FpBytes,
  formatIndex,
  getBits,
  getFloat,
  hostType,
  inexactIf,
  isNormal,
  nearest,
  plain,
  ready,
  unflushed,
} from './fp-emit.js';
import { narrowSingles, widenHalves } from './fp-halves.js';
import { fpConvert, fpFromInt, fpFromUint, fpToInt, fpToInt32Js } from './fp-helpers.js';
import { convertCode, toIntCode } from './fp-operations.js';
import { type Row, row } from './row.js';

/** Conversions between floating-point formats, and between floating point and integers (Arm ARM DDI 0487 C4.1.96). */

/** A value's bits as the i64 that the conversion helpers take. */
const wide = (e: Emitter, v: Val): Val => (v.type === 'i32' ? e.extU(v) : v);

/** FCVT between half, single and double. */
function convert(e: Emitter, from: FpBytes, to: FpBytes, Vd: VOperand, Vn: VOperand): void {
  const soft = (bits: Val): Val => {
    const r = call(e, fpConvert, e.i32(convertCode(formatIndex(from), formatIndex(to))), wide(e, bits));
    return to === 8 ? r : e.wrap(r);
  };
  if (from === 2 || to === 2) {
    const a = getBits(e, Vn, from);
    if (from === 8 || to === 8) {
      e.setScalar(Vd, to, soft(a));
      return;
    }
    const { result, sure } = (from === 2 ? widenHalves : narrowSingles)(e, e.op('i32x4.splat', a));
    e.if(
      sure,
      () => e.setScalar(Vd, to, e.lane('i32x4.extract_lane', 0, result)),
      () => e.setScalar(Vd, to, soft(a)),
    );
    return;
  }
  const a = getFloat(e, Vn, from);
  if (from === 4) {
    const r = e.op('f64.promote_f32', a);
    e.if(
      e.and(unflushed(e), e.op('f32.eq', a, a)),
      () => e.setScalar(Vd, 8, r),
      () => e.setScalar(Vd, 8, soft(bitsOf(e, a))),
    );
    return;
  }
  const r = e.op('f32.demote_f64', a);
  const good = isNormal(e, r);
  const fast = (): void => e.setScalar(Vd, 4, r);
  e.if(e.and(ready(e), good), fast, () => {
    // Exact, zero included, but for a NaN or a denormal on either side.
    const exact = e.and(e.op('f64.eq', e.op('f64.promote_f32', r), a), e.or(good, e.op('f32.eq', r, e.f32(0))));
    e.if(e.and(plain(e), exact), fast, () => e.setScalar(Vd, 4, soft(bitsOf(e, a))));
  });
}

/** The bounds of the integers: converts exactly where low <= value < high. */
function bounds(unsigned: boolean, sf: number): { low: number; high: number } {
  const bits = sf === 1 ? 64 : 32;
  return unsigned ? { low: 0, high: 2 ** bits } : { low: -(2 ** (bits - 1)), high: 2 ** (bits - 1) };
}

const HOST_ROUNDING = {
  [Rounding.TIEEVEN]: 'rintn',
  [Rounding.POSINF]: 'rintp',
  [Rounding.NEGINF]: 'rintm',
  [Rounding.ZERO]: 'rintz',
  [Rounding.TIEAWAY]: 'rinta',
} as const;

interface ToInt {
  readonly sf: number;
  readonly type: number;
  readonly Rd: XOperand;
  readonly Vn: VOperand;
}

/** FCVT{N,P,M,Z,A}{S,U}. @param scale 2 to the number of fraction bits, a double */
function toInt(
  e: Emitter,
  f: ToInt,
  rounding: keyof typeof HOST_ROUNDING,
  unsigned: boolean,
  fractionBits: Val = e.i32(0),
  scale?: Val,
): void {
  const bytes = bytesOf(f.type);
  const soft = (bits: Val): Val => {
    const op = e.i32(toIntCode(formatIndex(bytes), unsigned, f.sf === 1 ? 64 : 32, rounding));
    const r = call(e, fpToInt, op, fractionBits, wide(e, bits));
    return f.sf === 1 ? r : e.wrap(r);
  };
  if (bytes === 2) {
    e.setR(f.Rd, soft(getBits(e, f.Vn, 2)));
    return;
  }
  const t = hostType(bytes);
  const a = getFloat(e, f.Vn, bytes);
  // Scaling by a power of two is exact: upwards there is only overflow, which is out of bounds below.
  const scaled = scale === undefined ? a : e.op(`${t}.mul`, a, t === 'f64' ? scale : e.op('f32.demote_f64', scale));
  const whole = hostRound(e, HOST_ROUNDING[rounding], scaled);
  const { low, high } = bounds(unsigned, f.sf);
  const fits = e.and(e.op(`${t}.ge`, whole, constant(e, bytes, low)), e.op(`${t}.lt`, whole, constant(e, bytes, high)));
  e.if(
    e.and(fits, unflushed(e)),
    () => {
      inexactIf(e, e.op(`${t}.ne`, whole, scaled));
      e.setR(f.Rd, e.op(`${f.sf === 1 ? 'i64' : 'i32'}.trunc_sat_${t}_${unsigned ? 'u' : 's'}`, whole));
    },
    () => e.setR(f.Rd, soft(bitsOf(e, a))),
  );
}

interface FromInt {
  readonly sf: number;
  readonly type: number;
  readonly Rn: XOperand;
  readonly Vd: VOperand;
}

/** SCVTF, UCVTF. @param scale 2 to minus the number of fraction bits, a double */
function fromInt(e: Emitter, f: FromInt, unsigned: boolean, fractionBits: Val = e.i32(0), scale?: Val): void {
  const bytes = bytesOf(f.type);
  const soft = (source: Val): Val => {
    const whole = source.type === 'i64' ? source : unsigned ? e.extU(source) : e.extS(source);
    const r = call(e, unsigned ? fpFromUint : fpFromInt, e.i32(formatIndex(bytes)), fractionBits, whole);
    return bytes === 8 ? r : e.wrap(r);
  };
  const a = e.getR(f.sf, f.Rn);
  if (bytes === 2) {
    e.setScalar(f.Vd, 2, soft(a));
    return;
  }
  const t = hostType(bytes);
  const u = unsigned ? 'u' : 's';
  const int = f.sf === 1 ? 'i64' : 'i32';
  const r = e.op(`${t}.convert_${int}_${u}`, a);
  const scaled = (): Val =>
    scale === undefined ? r : e.op(`${t}.mul`, r, t === 'f64' ? scale : e.op('f32.demote_f64', scale));
  if (bytes === 8 && f.sf === 0) {
    // Always exact. Zero is +0 in every rounding mode.
    e.setScalar(f.Vd, 8, scaled());
    return;
  }
  e.if(
    nearest(e),
    () => {
      // Rounded up to the first number past the integers, it would come back saturated, and look exact.
      const { high } = bounds(unsigned, f.sf);
      const back = e.ne(e.op(`${int}.trunc_sat_${t}_${u}`, r), a);
      inexactIf(e, e.or(back, e.op(`${t}.eq`, r, constant(e, bytes, high))));
      e.setScalar(f.Vd, bytes, scaled());
    },
    () => e.setScalar(f.Vd, bytes, soft(a)),
  );
}

/** The bits of the double 2^n. */
const power = (n: number): bigint => BigInt(1023 + n) << 52n;
/** The fixed-point forms' `scale` field holds 64 less the number of fraction bits; 32-bit integers have at most 32. */
const fixedPoint = (f: { readonly sf: number; readonly type: number; readonly scale: number }): boolean =>
  allocatedType(f) && (f.sf === 1 || f.scale >= 32);
const fractionBits = (f: { readonly scale: number }): number => 64 - f.scale;
const asDouble = (e: Emitter, bits: Val): Val => e.op('f64.reinterpret_i64', bits);

const fromInteger = (name: string, opcode: string, unsigned: boolean): readonly Row[] => [
  row(
    `${name} (scalar, integer)`,
    `sf 0 0 11110 type:2 1 00 ${opcode} 000000 Rn Vd` as 'sf 0 0 11110 type:2 1 00 xxx 000000 Rn Vd',
    { when: allocatedType },
    (e, f) => fromInt(e, f, unsigned),
  ),
  row(
    `${name} (scalar, fixed-point)`,
    `sf 0 0 11110 type:2 0 00 ${opcode} scale:6# Rn Vd` as 'sf 0 0 11110 type:2 0 00 xxx scale:6# Rn Vd',
    { when: fixedPoint, imm: (f) => power(-fractionBits(f)), ops: { fbits: fractionBits } },
    (e, f) => fromInt(e, f, unsigned, f.fbits, asDouble(e, f.imm)),
  ),
];

const toInteger = (
  name: string,
  rmode: string,
  opcode: string,
  rounding: keyof typeof HOST_ROUNDING,
  unsigned: boolean,
): Row =>
  row(
    name,
    `sf 0 0 11110 type:2 1 ${rmode} ${opcode} 000000 Vn Rd` as 'sf 0 0 11110 type:2 1 xx xxx 000000 Vn Rd',
    { when: allocatedType },
    (e, f) => toInt(e, f, rounding, unsigned),
  );

const toFixedPoint = (name: string, opcode: string, unsigned: boolean): Row =>
  row(
    name,
    `sf 0 0 11110 type:2 0 11 ${opcode} scale:6# Vn Rd` as 'sf 0 0 11110 type:2 0 11 xxx scale:6# Vn Rd',
    { when: fixedPoint, imm: (f) => power(fractionBits(f)), ops: { fbits: fractionBits } },
    (e, f) => toInt(e, f, Rounding.ZERO, unsigned, f.fbits, asDouble(e, f.imm)),
  );

const format = (name: string, type: string, from: FpBytes, opc: string, to: FpBytes): Row =>
  row(
    `FCVT (${name})`,
    `00011110 ${type} 1 0001 ${opc} 10000 Vn Vd` as '00011110 xx 1 0001 xx 10000 Vn Vd',
    {},
    (e, f) => convert(e, from, to, f.Vd, f.Vn),
  );

export const fpConvertRows: readonly Row[] = [
  format('single to double', '00', 4, '01', 8),
  format('single to half', '00', 4, '11', 2),
  format('double to single', '01', 8, '00', 4),
  format('double to half', '01', 8, '11', 2),
  format('half to single', '11', 2, '00', 4),
  format('half to double', '11', 2, '01', 8),

  ...fromInteger('SCVTF', '010', false),
  ...fromInteger('UCVTF', '011', true),
  toInteger('FCVTNS (scalar)', '00', '000', Rounding.TIEEVEN, false),
  toInteger('FCVTNU (scalar)', '00', '001', Rounding.TIEEVEN, true),
  toInteger('FCVTAS (scalar)', '00', '100', Rounding.TIEAWAY, false),
  toInteger('FCVTAU (scalar)', '00', '101', Rounding.TIEAWAY, true),
  toInteger('FCVTPS (scalar)', '01', '000', Rounding.POSINF, false),
  toInteger('FCVTPU (scalar)', '01', '001', Rounding.POSINF, true),
  toInteger('FCVTMS (scalar)', '10', '000', Rounding.NEGINF, false),
  toInteger('FCVTMU (scalar)', '10', '001', Rounding.NEGINF, true),
  toInteger('FCVTZS (scalar, integer)', '11', '000', Rounding.ZERO, false),
  toInteger('FCVTZU (scalar, integer)', '11', '001', Rounding.ZERO, true),
  toFixedPoint('FCVTZS (scalar, fixed-point)', '000', false),
  toFixedPoint('FCVTZU (scalar, fixed-point)', '001', true),

  row('FJCVTZS', '0 0 0 11110 01 1 11 110 000000 Vn Rd', {}, (e, f) => {
    const r = call(e, fpToInt32Js, getBits(e, f.Vn, 8));
    e.setR(f.Rd, e.wrap(r));
    // Z is 1 where the conversion was exact; N, C and V are 0.
    e.setFlags(e.i64(0n), e.xor(e.shrU(r, e.i64(32n)), e.i64(1n)), e.i32(0), e.i64(0n));
  }),
];
