import type { Emitter, Val, VOperand } from './emitter.js';
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
  isBelowInfinity,
  isNormal,
  MIN_NORMAL,
  plain,
  ready,
  softBinary,
  softUnary,
  underflowed,
  unflushed,
} from './fp-emit.js';
import { fusedDouble, fusedSingle } from './fp-fused.js';
import { fpMulAdd32, fpMulAdd64 } from './fp-helpers.js';
import { type BinaryName, mulAddCode } from './fp-operations.js';
import { type Row, row } from './row.js';

/** Floating-point data-processing, one, two and three sources (Arm ARM DDI 0487 C4.1.96). */

interface Operands {
  readonly type: number;
  readonly Vd: VOperand;
  readonly Vn: VOperand;
}
interface Operands2 extends Operands {
  readonly Vm: VOperand;
}

/** Trailing zeros of two doubles' bits: 53 together, and their product fits in a double. */
const fewBits = (e: Emitter, a: Val, b: Val): Val =>
  e.geU(e.add(e.op('i64.ctz', bitsOf(e, a)), e.op('i64.ctz', bitsOf(e, b))), e.i64(53));

type Arithmetic = 'add' | 'sub' | 'mul' | 'div';

/** Whether the host's result `r` of a op b, finite and not tiny, is exact. May say no where it is. */
function isExact(e: Emitter, op: Arithmetic, a: Val, b: Val, r: Val): Val {
  const t = a.type;
  if (op === 'add' || op === 'sub') {
    // Knuth's TwoSum: the error of a sum to nearest is a float, found by taking the sum apart again.
    const part = e.op(`${t}.sub`, r, a);
    const lostA = e.op(`${t}.sub`, a, e.op(`${t}.sub`, r, part));
    const error =
      op === 'add'
        ? e.op(`${t}.add`, lostA, e.op(`${t}.sub`, b, part))
        : e.op(`${t}.sub`, lostA, e.op(`${t}.add`, b, part));
    return e.op(`${t}.eq`, error, constant(e, t === 'f64' ? 8 : 4, 0));
  }
  const [x, y, product] = op === 'mul' ? [a, b, r] : [r, b, a];
  if (t === 'f32') {
    // The product of two singles is exact in double.
    const wide = e.op('f64.mul', e.op('f64.promote_f32', x), e.op('f64.promote_f32', y));
    return e.op('f64.eq', wide, e.op('f64.promote_f32', product));
  }
  if (op === 'mul') return fewBits(e, a, b);
  const back = e.and(
    e.op('f64.eq', e.op('f64.mul', r, b), a),
    e.op('f64.gt', e.op('f64.abs', a), e.f64(MIN_NORMAL[8])),
  );
  return e.and(back, fewBits(e, r, b));
}

/** The result is a zero that is exact because an operand is one. */
function isZero(e: Emitter, op: 'mul' | 'div', a: Val, b: Val, r: Val): Val {
  const zero = constant(e, a.type === 'f64' ? 8 : 4, 0);
  const eq = (v: Val): Val => e.op(`${a.type}.eq`, v, zero);
  return e.and(eq(r), op === 'mul' ? e.or(eq(a), eq(b)) : eq(a));
}

/** The result is a number, and nothing new is raised: an operand is infinite, or tiny results have set UFC and IXC before. */
function isSpecial(e: Emitter, a: Val, b: Val, r: Val): Val {
  const t = a.type;
  const infinity = constant(e, t === 'f64' ? 8 : 4, Number.POSITIVE_INFINITY);
  const isInfinite = (v: Val): Val => e.op(`${t}.eq`, e.op(`${t}.abs`, v), infinity);
  const infinite = e.and(e.or(isInfinite(a), isInfinite(b)), e.op(`${t}.eq`, r, r));
  return e.or(infinite, e.and(underflowed(e), isBelowInfinity(e, r)));
}

/** FADD, FSUB, FMUL, FDIV, and FNMUL as the negated FMUL. */
function arithmetic(op: Arithmetic, negated = false) {
  return (e: Emitter, f: Operands2): void => {
    const bytes = bytesOf(f.type);
    const name: BinaryName = negated ? 'nmul' : op;
    if (bytes === 2) {
      e.setScalar(f.Vd, 2, softBinary(e, name, 2, getBits(e, f.Vn, 2), getBits(e, f.Vm, 2)));
      return;
    }
    const a = getFloat(e, f.Vn, bytes);
    const b = getFloat(e, f.Vm, bytes);
    const r = e.op(`${hostType(bytes)}.${op}`, a, b);
    // A sum that is tiny is exact; a product or quotient may have underflowed.
    const good = op === 'add' || op === 'sub' ? isBelowInfinity(e, r) : isNormal(e, r);
    const fast = (): void => e.setScalar(f.Vd, bytes, negated ? e.op(`${hostType(bytes)}.neg`, r) : r);
    e.if(e.and(ready(e), good), fast, () => {
      const exact = e.and(good, isExact(e, op, a, b, r));
      const zero = op === 'mul' || op === 'div' ? e.or(exact, isZero(e, op, a, b, r)) : exact;
      const sure = e.or(zero, isSpecial(e, a, b, r));
      e.if(e.and(plain(e), sure), fast, () => {
        e.setScalar(f.Vd, bytes, softBinary(e, name, bytes, bitsOf(e, a), bitsOf(e, b)));
      });
    });
  };
}

/** FMAX, FMIN, FMAXNM, FMINNM: the same but for NaNs. */
function extreme(op: 'max' | 'min', name: BinaryName) {
  return (e: Emitter, f: Operands2): void => {
    const bytes = bytesOf(f.type);
    if (bytes === 2) {
      e.setScalar(f.Vd, 2, softBinary(e, name, 2, getBits(e, f.Vn, 2), getBits(e, f.Vm, 2)));
      return;
    }
    const t = hostType(bytes);
    const a = getFloat(e, f.Vn, bytes);
    const b = getFloat(e, f.Vm, bytes);
    const r = e.op(`${t}.${op}`, a, b);
    e.if(
      e.and(unflushed(e), e.op(`${t}.eq`, r, r)),
      () => e.setScalar(f.Vd, bytes, r),
      () => e.setScalar(f.Vd, bytes, softBinary(e, name, bytes, bitsOf(e, a), bitsOf(e, b))),
    );
  };
}

function sqrt(e: Emitter, f: Operands): void {
  const bytes = bytesOf(f.type);
  if (bytes === 2) {
    e.setScalar(f.Vd, 2, softUnary(e, 'sqrt', 2, getBits(e, f.Vn, 2)));
    return;
  }
  const t = hostType(bytes);
  const a = getFloat(e, f.Vn, bytes);
  const r = e.op(`${t}.sqrt`, a);
  const good = e.and(
    e.op(`${t}.gt`, a, constant(e, bytes, 0)),
    e.op(`${t}.lt`, a, constant(e, bytes, Number.POSITIVE_INFINITY)),
  );
  const fast = (): void => e.setScalar(f.Vd, bytes, r);
  e.if(e.and(ready(e), good), fast, () => {
    const squared = isExact(e, 'div', a, r, r);
    const sure = e.or(e.and(good, squared), e.op(`${t}.eq`, r, constant(e, bytes, 0)));
    e.if(e.and(plain(e), sure), fast, () => e.setScalar(f.Vd, bytes, softUnary(e, 'sqrt', bytes, bitsOf(e, a))));
  });
}

/** FABS, FNEG: of the sign alone, NaNs too. */
function sign(op: 'abs' | 'neg') {
  return (e: Emitter, f: Operands): void => {
    const bytes = bytesOf(f.type);
    const a = getBits(e, f.Vn, bytes);
    const bit = (n: bigint): Val => (bytes === 8 ? e.i64(n) : e.i32(Number(BigInt.asIntN(32, n))));
    const top = 1n << BigInt(bytes * 8 - 1);
    e.setScalar(f.Vd, bytes, op === 'abs' ? e.and(a, bit(top - 1n)) : e.xor(a, bit(top)));
  };
}

/** Rounds half away from zero. */
export function roundAway(e: Emitter, a: Val): Val {
  const t = a.type;
  const one = constant(e, t === 'f64' ? 8 : 4, 1);
  const half = constant(e, t === 'f64' ? 8 : 4, 0.5);
  const whole = e.op(`${t}.trunc`, a);
  const up = e.op(`${t}.ge`, e.op(`${t}.abs`, e.op(`${t}.sub`, a, whole)), half);
  return e.select(up, e.op(`${t}.add`, whole, e.op(`${t}.copysign`, one, a)), whole);
}

type RoundName = 'rintn' | 'rintp' | 'rintm' | 'rintz' | 'rinta';
const HOST_ROUND: Readonly<Record<Exclude<RoundName, 'rinta'>, string>> = {
  rintn: 'nearest',
  rintp: 'ceil',
  rintm: 'floor',
  rintz: 'trunc',
};
/** A float rounded to an integral one, on the host. */
export const hostRound = (e: Emitter, name: RoundName, a: Val): Val =>
  name === 'rinta' ? roundAway(e, a) : e.op(`${a.type}.${HOST_ROUND[name]}`, a);

/** FRINTN, FRINTP, FRINTM, FRINTZ, FRINTA: no exception but for a signalling NaN. */
function roundTo(name: RoundName) {
  return (e: Emitter, f: Operands): void => {
    const bytes = bytesOf(f.type);
    if (bytes === 2) {
      e.setScalar(f.Vd, 2, softUnary(e, name, 2, getBits(e, f.Vn, 2)));
      return;
    }
    const a = getFloat(e, f.Vn, bytes);
    e.if(
      e.and(unflushed(e), e.op(`${hostType(bytes)}.eq`, a, a)),
      () => e.setScalar(f.Vd, bytes, hostRound(e, name, a)),
      () => e.setScalar(f.Vd, bytes, softUnary(e, name, bytes, bitsOf(e, a))),
    );
  };
}

/** FRINTI, FRINTX: as FPCR says; FRINTX sets IXC. */
function roundAsSet(name: 'rinti' | 'rintx') {
  return (e: Emitter, f: Operands): void => {
    const bytes = bytesOf(f.type);
    if (bytes === 2) {
      e.setScalar(f.Vd, 2, softUnary(e, name, 2, getBits(e, f.Vn, 2)));
      return;
    }
    const t = hostType(bytes);
    const a = getFloat(e, f.Vn, bytes);
    e.if(
      e.and(plain(e), e.op(`${t}.eq`, a, a)),
      () => {
        const r = e.op(`${t}.nearest`, a);
        if (name === 'rintx') inexactIf(e, e.op(`${t}.ne`, a, r));
        e.setScalar(f.Vd, bytes, r);
      },
      () => e.setScalar(f.Vd, bytes, softUnary(e, name, bytes, bitsOf(e, a))),
    );
  };
}

/** The multiply-adds: (negate addend) + (negate product) n * m. */
function mulAdd(negateProduct: boolean, negateAddend: boolean) {
  return (e: Emitter, f: Operands2 & { readonly Va: VOperand }): void => {
    const bytes: FpBytes = bytesOf(f.type);
    const op = e.i32(mulAddCode(negateProduct, negateAddend, formatIndex(bytes)));
    if (bytes === 2) {
      e.setScalar(f.Vd, 2, call(e, fpMulAdd32, op, getBits(e, f.Va, 2), getBits(e, f.Vn, 2), getBits(e, f.Vm, 2)));
      return;
    }
    const c = getFloat(e, f.Va, bytes);
    const a = getFloat(e, f.Vn, bytes);
    const b = getFloat(e, f.Vm, bytes);
    // As a vector of two equal lanes.
    const lanes = (v: Val, negated: boolean): Val => {
      const double = bytes === 8 ? v : e.op('f64.promote_f32', v);
      return e.op('f64x2.splat', negated ? e.op('f64.neg', double) : double);
    };
    const fused = (bytes === 8 ? fusedDouble : fusedSingle)(
      e,
      lanes(a, negateProduct),
      lanes(b, false),
      lanes(c, negateAddend),
    );
    const all = (mask: Val): Val => e.op('i64x2.all_true', mask);
    e.if(
      e.and(all(fused.sure), e.or(ready(e), e.and(plain(e), all(fused.exact)))),
      () => {
        const r = e.lane('f64x2.extract_lane', 0, fused.result);
        e.setScalar(f.Vd, bytes, bytes === 8 ? r : e.op('f32.demote_f64', r));
      },
      () => {
        const target = bytes === 8 ? fpMulAdd64 : fpMulAdd32;
        e.setScalar(f.Vd, bytes, call(e, target, op, bitsOf(e, c), bitsOf(e, a), bitsOf(e, b)));
      },
    );
  };
}

const oneSource = (name: string, opcode: string, emit: (e: Emitter, f: Operands) => void, when = allocatedType): Row =>
  row(name, `00011110 type:2 1 ${opcode} 10000 Vn Vd` as '00011110 type:2 1 xxxxxx 10000 Vn Vd', { when }, emit);

const twoSource = (name: string, opcode: string, emit: (e: Emitter, f: Operands2) => void): Row =>
  row(
    name,
    `00011110 type:2 1 Vm ${opcode} 10 Vn Vd` as '00011110 type:2 1 Vm xxxx 10 Vn Vd',
    { when: allocatedType },
    emit,
  );

const threeSource = (name: string, o1: number, o0: number, emit: ReturnType<typeof mulAdd>): Row =>
  row(
    name,
    `00011111 type:2 ${o1} Vm ${o0} Va Vn Vd` as '00011111 type:2 x Vm x Va Vn Vd',
    { when: allocatedType },
    emit,
  );

/** FRINT32X and the like have no half-precision form. */
const singleOrDouble = (f: { readonly type: number }): boolean => f.type < 2;
const roundToSize = (name: 'rint32z' | 'rint32x' | 'rint64z' | 'rint64x') => (e: Emitter, f: Operands) => {
  const bytes = bytesOf(f.type);
  e.setScalar(f.Vd, bytes, softUnary(e, name, bytes, getBits(e, f.Vn, bytes)));
};

export const fpArithmetic: readonly Row[] = [
  oneSource('FABS (scalar)', '000001', sign('abs')),
  oneSource('FNEG (scalar)', '000010', sign('neg')),
  oneSource('FSQRT (scalar)', '000011', sqrt),
  oneSource('FRINTN (scalar)', '001000', roundTo('rintn')),
  oneSource('FRINTP (scalar)', '001001', roundTo('rintp')),
  oneSource('FRINTM (scalar)', '001010', roundTo('rintm')),
  oneSource('FRINTZ (scalar)', '001011', roundTo('rintz')),
  oneSource('FRINTA (scalar)', '001100', roundTo('rinta')),
  oneSource('FRINTX (scalar)', '001110', roundAsSet('rintx')),
  oneSource('FRINTI (scalar)', '001111', roundAsSet('rinti')),
  oneSource('FRINT32Z (scalar)', '010000', roundToSize('rint32z'), singleOrDouble),
  oneSource('FRINT32X (scalar)', '010001', roundToSize('rint32x'), singleOrDouble),
  oneSource('FRINT64Z (scalar)', '010010', roundToSize('rint64z'), singleOrDouble),
  oneSource('FRINT64X (scalar)', '010011', roundToSize('rint64x'), singleOrDouble),

  twoSource('FMUL (scalar)', '0000', arithmetic('mul')),
  twoSource('FDIV (scalar)', '0001', arithmetic('div')),
  twoSource('FADD (scalar)', '0010', arithmetic('add')),
  twoSource('FSUB (scalar)', '0011', arithmetic('sub')),
  twoSource('FMAX (scalar)', '0100', extreme('max', 'max')),
  twoSource('FMIN (scalar)', '0101', extreme('min', 'min')),
  twoSource('FMAXNM (scalar)', '0110', extreme('max', 'maxnm')),
  twoSource('FMINNM (scalar)', '0111', extreme('min', 'minnm')),
  twoSource('FNMUL (scalar)', '1000', arithmetic('mul', true)),

  threeSource('FMADD', 0, 0, mulAdd(false, false)),
  threeSource('FMSUB', 0, 1, mulAdd(true, false)),
  threeSource('FNMADD', 1, 0, mulAdd(true, true)),
  threeSource('FNMSUB', 1, 1, mulAdd(false, true)),
];
