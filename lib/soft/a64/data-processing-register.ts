import { adds, addWithCarry, amount, subs } from './arithmetic.js';
import { CRC32_POLYNOMIAL, CRC32C_POLYNOMIAL, crc32 } from './crc32.js';
import type { Emitter, Val, XOperand } from './emitter.js';
import { logicalFlags } from './flags.js';
import { type Row, row } from './row.js';

/** Data processing, register (Arm ARM DDI 0487 C4.1.95), and the flag manipulation instructions (FEAT_FlagM, FEAT_FlagM2). */

type Binary = (e: Emitter, a: Val, b: Val) => Val;

/** ShiftReg: LSL, LSR, ASR, ROR. */
function shifted(e: Emitter, value: Val, shift: number, by: Val): Val {
  const n = amount(e, value, by);
  switch (shift) {
    case 0:
      return e.shl(value, n);
    case 1:
      return e.shrU(value, n);
    case 2:
      return e.shrS(value, n);
    default:
      return e.rotr(value, n);
  }
}

/** ExtendReg without its shift: UXTB, UXTH, UXTW, UXTX, SXTB, SXTH, SXTW, SXTX. */
export function extended(e: Emitter, sf: number, reg: XOperand, option: number): Val {
  if (sf === 0) {
    const w = e.getW(reg);
    switch (option) {
      case 0:
        return e.and(w, e.i32(0xff));
      case 1:
        return e.and(w, e.i32(0xffff));
      case 4:
        return e.op('i32.extend8_s', w);
      case 5:
        return e.op('i32.extend16_s', w);
      default:
        return w;
    }
  }
  switch (option) {
    case 0:
      return e.and(e.getX(reg), e.i64(0xff));
    case 1:
      return e.and(e.getX(reg), e.i64(0xffff));
    case 2:
      return e.extU(e.getW(reg));
    case 4:
      return e.op('i64.extend8_s', e.getX(reg));
    case 5:
      return e.op('i64.extend16_s', e.getX(reg));
    case 6:
      return e.extS(e.getW(reg));
    default:
      return e.getX(reg);
  }
}

const shiftAllocated = (f: { sf: number; imm6: number }): boolean => f.sf === 1 || f.imm6 < 32;
const arithmeticShiftAllocated = (f: { sf: number; shift: number; imm6: number }): boolean =>
  f.shift !== 3 && shiftAllocated(f);

/** The rows of a logical instruction: the plain register, then the shifted one. */
function logical(name: string, opc: string, n: string, combine: Binary, flags = false): Row[] {
  const finish = (e: Emitter, rd: XOperand, result: Val): void => {
    if (flags) logicalFlags(e, result);
    e.setR(rd, result);
  };
  return [
    row(`${name} (register)`, `sf ${opc as '00'} 01010 00 ${n as '0'} Rm 000000 Rn Rd`, {}, (e, f) => {
      finish(e, f.Rd, combine(e, e.getR(f.sf, f.Rn), e.getR(f.sf, f.Rm)));
    }),
    row(
      `${name} (shifted register)`,
      `sf ${opc as '00'} 01010 shift:2 ${n as '0'} Rm imm6:6# Rn Rd`,
      { when: shiftAllocated },
      (e, f) => {
        const a = e.getR(f.sf, f.Rn);
        finish(e, f.Rd, combine(e, a, shifted(e, e.getR(f.sf, f.Rm), f.shift, f.imm6)));
      },
    ),
  ];
}

/** The rows of an addition or subtraction: the plain register, then the shifted one. */
function addSubtract(name: string, op: string, combine: Binary): Row[] {
  return [
    row(`${name} (register)`, `sf ${op as '00'} 01011 00 0 Rm 000000 Rn Rd`, {}, (e, f) => {
      e.setR(f.Rd, combine(e, e.getR(f.sf, f.Rn), e.getR(f.sf, f.Rm)));
    }),
    row(
      `${name} (shifted register)`,
      `sf ${op as '00'} 01011 shift:2 0 Rm imm6:6# Rn Rd`,
      { when: arithmeticShiftAllocated },
      (e, f) => {
        const a = e.getR(f.sf, f.Rn);
        e.setR(f.Rd, combine(e, a, shifted(e, e.getR(f.sf, f.Rm), f.shift, f.imm6)));
      },
    ),
  ];
}

const extendAllocated = { when: (f: { imm3: number }): boolean => f.imm3 <= 4 };
const extendedOperand = (e: Emitter, f: { sf: number; Rm: XOperand; option: number; imm3: Val }): Val => {
  const value = extended(e, f.sf, f.Rm, f.option);
  return e.shl(value, amount(e, value, f.imm3));
};

interface ConditionalCompareFields {
  readonly nzcv: number;
}
/** The flags of a conditional compare whose condition fails, as the words that they are kept in. */
const failedFlags = {
  nv: (f: ConditionalCompareFields): number => f.nzcv << 12,
  z: (f: ConditionalCompareFields): number => (f.nzcv & 4 ? 0 : 1),
  c: (f: ConditionalCompareFields): number => (f.nzcv >> 1) & 1,
};

function conditionalCompare(
  e: Emitter,
  f: { sf: number; op: number; cond: number; nv: Val; z: Val; c: Val; Rn: XOperand },
  operand: () => Val,
): void {
  e.if(
    e.condition(f.cond),
    () => {
      const compare = f.op === 1 ? subs : adds;
      compare(e, e.getR(f.sf, f.Rn), operand());
    },
    () => {
      const nv = e.extU(f.nv);
      e.setFlags(e.shl(nv, e.i64(48)), e.extU(f.z), f.c, e.shl(nv, e.i64(51)));
    },
  );
}

const one = (e: Emitter, like: Val): Val => (like.type === 'i64' ? e.i64(1) : e.i32(1));
const zero = (e: Emitter, like: Val): Val => (like.type === 'i64' ? e.i64(0) : e.i32(0));

/** A conditional select; `otherwise` makes the second operand. */
function conditionalSelect(name: string, op: string, op2: string, otherwise: (e: Emitter, m: Val) => Val): Row {
  return row(name, `sf ${op as '0'} 0 11010100 Rm cond:4 0 ${op2 as '0'} Rn Rd`, {}, (e, f) => {
    const n = e.getR(f.sf, f.Rn);
    const m = otherwise(e, e.getR(f.sf, f.Rm));
    e.setR(f.Rd, f.cond >= 14 ? n : e.select(e.condition(f.cond), n, m));
  });
}

/** Swaps the fields of `width` bits in every pair of them. */
function swapFields(e: Emitter, v: Val, width: number, mask: bigint): Val {
  const constant = (value: bigint): Val => (v.type === 'i64' ? e.i64(value) : e.i32(Number(BigInt.asIntN(32, value))));
  const n = constant(BigInt(width));
  return e.or(e.and(e.shrU(v, n), constant(mask)), e.shl(e.and(v, constant(mask)), n));
}

const BYTES = 0x00ff00ff_00ff00ffn;

/** Reverses the bytes of each container of `bytes` bytes. */
function reverseBytes(e: Emitter, v: Val, bytes: 2 | 4 | 8): Val {
  if (bytes === 2) return swapFields(e, v, 8, BYTES);
  if (v.type === 'i32') {
    const low = e.and(e.rotr(v, e.i32(24)), e.i32(0x00ff00ff));
    return e.or(low, e.and(e.rotr(v, e.i32(8)), e.i32(0xff00ff00)));
  }
  const lanes = Array.from({ length: 16 }, (_, i) => i ^ (bytes - 1));
  const splat = e.op('i64x2.splat', v);
  return e.lane('i64x2.extract_lane', 0, e.shuffle(splat, splat, lanes));
}

function reverseBits(e: Emitter, v: Val): Val {
  const pairs = swapFields(e, swapFields(e, v, 1, 0x55555555_55555555n), 2, 0x33333333_33333333n);
  return reverseBytes(e, swapFields(e, pairs, 4, 0x0f0f0f0f_0f0f0f0fn), v.type === 'i64' ? 8 : 4);
}

/** Signed division, rounding towards zero; by zero is 0, and the one overflow gives the dividend. WebAssembly traps on both. */
function divideSigned(e: Emitter, a: Val, b: Val): Val {
  const quotient = e.variable(zero(e, a));
  e.if(
    e.op(`${a.type}.gt_u`, e.add(b, one(e, b)), one(e, b)),
    () => e.assign(quotient, e.op(`${a.type}.div_s`, a, b)),
    // The divisor is -1 or 0.
    () => e.assign(quotient, e.and(e.sub(zero(e, a), a), b)),
  );
  return e.read(quotient);
}

function divideUnsigned(e: Emitter, a: Val, b: Val): Val {
  const quotient = e.variable(zero(e, a));
  const nonZero = b.type === 'i64' ? e.ne(b, e.i64(0)) : b;
  e.if(nonZero, () => e.assign(quotient, e.op(`${a.type}.div_u`, a, b)));
  return e.read(quotient);
}

/** The high 64 bits of an unsigned product. */
function multiplyHigh(e: Emitter, a: Val, b: Val): Val {
  const low = (v: Val): Val => e.and(v, e.i64(0xffff_ffff));
  const high = (v: Val): Val => e.shrU(v, e.i64(32));
  const al = low(a);
  const ah = high(a);
  const bl = low(b);
  const bh = high(b);
  const cross = e.add(e.mul(ah, bl), high(e.mul(al, bl)));
  const middle = e.add(e.mul(al, bh), low(cross));
  return e.add(e.add(e.mul(ah, bh), high(cross)), high(middle));
}

const twoSource = (name: string, opcode: string, combine: Binary): Row =>
  row(name, `sf 0 0 11010110 Rm ${opcode as '000000'} Rn Rd`, {}, (e, f) => {
    e.setR(f.Rd, combine(e, e.getR(f.sf, f.Rn), e.getR(f.sf, f.Rm)));
  });

const oneSource = (name: string, opcode: string, compute: (e: Emitter, n: Val) => Val): Row =>
  row(name, `sf 1 0 11010110 00000 ${opcode as '000000'} Rn Rd`, {}, (e, f) => {
    e.setR(f.Rd, compute(e, e.getR(f.sf, f.Rn)));
  });

function crcRows(name: string, c: '0' | '1', polynomial: number): Row[] {
  return [
    row(`${name}B, ${name}H, ${name}W`, `0 0 0 11010110 Rm 010 ${c} sz:2 Rn Rd`, { when: (f) => f.sz < 3 }, (e, f) => {
      e.setR(f.Rd, crc32(e, e.getW(f.Rn), e.getW(f.Rm), (1 << f.sz) as 1 | 2 | 4, polynomial));
    }),
    row(`${name}X`, `1 0 0 11010110 Rm 010 ${c} 11 Rn Rd`, {}, (e, f) => {
      e.setR(f.Rd, crc32(e, e.getW(f.Rn), e.getX(f.Rm), 8, polynomial));
    }),
  ];
}

/** (i32 * i32) + or - i64, the factors extended as `extend` says. */
const longMultiply = (name: string, u: '0' | '1', o0: '0' | '1'): Row =>
  row(name, `1 00 11011 ${u} 01 Rm ${o0} Ra Rn Rd`, {}, (e, f) => {
    const extend = (v: Val): Val => (u === '1' ? e.extU(v) : e.extS(v));
    const product = e.mul(extend(e.getW(f.Rn)), extend(e.getW(f.Rm)));
    const a = e.getX(f.Ra);
    e.setR(f.Rd, o0 === '1' ? e.sub(a, product) : e.add(a, product));
  });

const setFlagsFromBits = (name: string, sz: '0' | '1', bits: 8 | 16): Row =>
  row(name, `0 0 1 11010000 000000 ${sz} 0010 Rn 0 1101`, {}, (e, f) => {
    const top = e.shl(e.getX(f.Rn), e.i64(64 - bits));
    // Overflow is bit `bits` differing from the sign bit below it: shifted up, bit 63 of the next value.
    const above = e.shl(e.getX(f.Rn), e.i64(63 - bits));
    e.setFlags(top, top, e.carry(), e.xor(top, above));
  });

export const dataProcessingRegister: readonly Row[] = [
  row('MOV (register)', 'sf 01 01010 00 0 Rm 000000 11111 Rd', {}, (e, f) => e.setR(f.Rd, e.getR(f.sf, f.Rm))),
  ...logical('AND', '00', '0', (e, a, b) => e.and(a, b)),
  ...logical('BIC', '00', '1', (e, a, b) => e.and(a, e.not(b))),
  ...logical('ORR', '01', '0', (e, a, b) => e.or(a, b)),
  ...logical('ORN', '01', '1', (e, a, b) => e.or(a, e.not(b))),
  ...logical('EOR', '10', '0', (e, a, b) => e.xor(a, b)),
  ...logical('EON', '10', '1', (e, a, b) => e.xor(a, e.not(b))),
  ...logical('ANDS', '11', '0', (e, a, b) => e.and(a, b), true),
  ...logical('BICS', '11', '1', (e, a, b) => e.and(a, e.not(b)), true),

  row('CMP (register)', 'sf 1 1 01011 00 0 Rm 000000 Rn 11111', {}, (e, f) => {
    subs(e, e.getR(f.sf, f.Rn), e.getR(f.sf, f.Rm));
  }),
  ...addSubtract('ADD', '00', (e, a, b) => e.add(a, b)),
  ...addSubtract('ADDS', '01', adds),
  ...addSubtract('SUB', '10', (e, a, b) => e.sub(a, b)),
  ...addSubtract('SUBS', '11', subs),
  row('ADD (extended register)', 'sf 00 01011 00 1 Rm option:3 imm3:3# Rn|SP Rd|SP', extendAllocated, (e, f) => {
    const n = e.getR(f.sf, f.Rn);
    e.setR(f.Rd, e.add(n, extendedOperand(e, f)));
  }),
  row('ADDS (extended register)', 'sf 01 01011 00 1 Rm option:3 imm3:3# Rn|SP Rd', extendAllocated, (e, f) => {
    const n = e.getR(f.sf, f.Rn);
    e.setR(f.Rd, adds(e, n, extendedOperand(e, f)));
  }),
  row('SUB (extended register)', 'sf 10 01011 00 1 Rm option:3 imm3:3# Rn|SP Rd|SP', extendAllocated, (e, f) => {
    const n = e.getR(f.sf, f.Rn);
    e.setR(f.Rd, e.sub(n, extendedOperand(e, f)));
  }),
  row('SUBS (extended register)', 'sf 11 01011 00 1 Rm option:3 imm3:3# Rn|SP Rd', extendAllocated, (e, f) => {
    const n = e.getR(f.sf, f.Rn);
    e.setR(f.Rd, subs(e, n, extendedOperand(e, f)));
  }),

  row('ADC', 'sf 0 S 11010000 Rm 000000 Rn Rd', {}, (e, f) => {
    e.setR(f.Rd, addWithCarry(e, e.getR(f.sf, f.Rn), e.getR(f.sf, f.Rm), f.S === 1));
  }),
  row('SBC', 'sf 1 S 11010000 Rm 000000 Rn Rd', {}, (e, f) => {
    e.setR(f.Rd, addWithCarry(e, e.getR(f.sf, f.Rn), e.not(e.getR(f.sf, f.Rm)), f.S === 1));
  }),

  row('RMIF', '1 0 1 11010000 imm6:6# 00001 Rn 0 mask:4', {}, (e, f) => {
    const bits = e.shl(e.wrap(e.rotr(e.getX(f.Rn), e.extU(f.imm6))), e.i32(28));
    const mask = f.mask << 28;
    e.setNzcv(e.or(e.and(bits, e.i32(mask)), e.and(e.nzcv(), e.i32(~mask))));
  }),
  setFlagsFromBits('SETF8', '0', 8),
  setFlagsFromBits('SETF16', '1', 16),
  // The floating-point condition flags between Arm's form and the one other architectures use.
  row('XAFLAG', '1101010100 0 00 000 0100 0000 001 11111', {}, (e) => {
    const flags = e.nzcv();
    const z = e.and(e.shrU(flags, e.i32(30)), e.i32(1));
    const c = e.and(e.shrU(flags, e.i32(29)), e.i32(1));
    const neither = e.eqz(e.or(z, c));
    const both = e.and(z, c);
    // N = !C & !Z, Z = Z & C, C = C | Z, V = !C & Z.
    e.setFlags(
      e.extS(e.shl(neither, e.i32(31))),
      e.extU(e.xor(both, e.i32(1))),
      e.or(c, z),
      e.extS(e.shl(e.and(z, e.eqz(c)), e.i32(31))),
    );
  }),
  row('AXFLAG', '1101010100 0 00 000 0100 0000 010 11111', {}, (e) => {
    const flags = e.nzcv();
    const z = e.and(e.shrU(flags, e.i32(30)), e.i32(1));
    const c = e.and(e.shrU(flags, e.i32(29)), e.i32(1));
    const v = e.and(e.shrU(flags, e.i32(28)), e.i32(1));
    // N = 0, Z = Z | V, C = C & !V, V = 0.
    e.setFlags(e.i64(0), e.extU(e.eqz(e.or(z, v))), e.and(c, e.eqz(v)), e.i64(0));
  }),

  row('CCMN, CCMP (register)', 'sf op 1 11010010 Rm cond:4 00 Rn 0 nzcv:4#', { ops: failedFlags }, (e, f) => {
    conditionalCompare(e, f, () => e.getR(f.sf, f.Rm));
  }),
  row('CCMN, CCMP (immediate)', 'sf op 1 11010010 imm5:5# cond:4 10 Rn 0 nzcv:4#', { ops: failedFlags }, (e, f) => {
    conditionalCompare(e, f, () => (f.sf === 1 ? e.extU(f.imm5) : f.imm5));
  }),

  row('CSET', 'sf:1# 0 0 11010100 11111 cond:4 01 11111 Rd', { when: (f) => f.cond < 14 }, (e, f) => {
    e.setR(f.Rd, e.condition(f.cond ^ 1));
  }),
  conditionalSelect('CSEL', '0', '0', (_e, m) => m),
  conditionalSelect('CSINC', '0', '1', (e, m) => e.add(m, one(e, m))),
  conditionalSelect('CSINV', '1', '0', (e, m) => e.not(m)),
  conditionalSelect('CSNEG', '1', '1', (e, m) => e.sub(zero(e, m), m)),

  oneSource('RBIT', '000000', reverseBits),
  oneSource('REV16', '000001', (e, n) => reverseBytes(e, n, 2)),
  oneSource('REV, REV32', '000010', (e, n) => reverseBytes(e, n, 4)),
  row('REV (64-bit)', '1 1 0 11010110 00000 000011 Rn Rd', {}, (e, f) => {
    e.setR(f.Rd, reverseBytes(e, e.getX(f.Rn), 8));
  }),
  oneSource('CLZ', '000100', (e, n) => e.op(`${n.type}.clz`, n)),
  oneSource('CLS', '000101', (e, n) => e.sub(e.op(`${n.type}.clz`, e.xor(n, e.shrS(n, one(e, n)))), one(e, n))),

  twoSource('UDIV', '000010', divideUnsigned),
  twoSource('SDIV', '000011', divideSigned),
  twoSource('LSLV', '001000', (e, n, m) => e.shl(n, m)),
  twoSource('LSRV', '001001', (e, n, m) => e.shrU(n, m)),
  twoSource('ASRV', '001010', (e, n, m) => e.shrS(n, m)),
  twoSource('RORV', '001011', (e, n, m) => e.rotr(n, m)),
  ...crcRows('CRC32', '0', CRC32_POLYNOMIAL),
  ...crcRows('CRC32C', '1', CRC32C_POLYNOMIAL),

  row('MUL', 'sf 00 11011 000 Rm 0 11111 Rn Rd', {}, (e, f) => {
    e.setR(f.Rd, e.mul(e.getR(f.sf, f.Rn), e.getR(f.sf, f.Rm)));
  }),
  row('MADD', 'sf 00 11011 000 Rm 0 Ra Rn Rd', {}, (e, f) => {
    const product = e.mul(e.getR(f.sf, f.Rn), e.getR(f.sf, f.Rm));
    e.setR(f.Rd, e.add(e.getR(f.sf, f.Ra), product));
  }),
  row('MSUB', 'sf 00 11011 000 Rm 1 Ra Rn Rd', {}, (e, f) => {
    const product = e.mul(e.getR(f.sf, f.Rn), e.getR(f.sf, f.Rm));
    e.setR(f.Rd, e.sub(e.getR(f.sf, f.Ra), product));
  }),
  longMultiply('SMADDL', '0', '0'),
  longMultiply('SMSUBL', '0', '1'),
  longMultiply('UMADDL', '1', '0'),
  longMultiply('UMSUBL', '1', '1'),
  row('SMULH', '1 00 11011 010 Rm 0 xxxxx Rn Rd', {}, (e, f) => {
    const a = e.getX(f.Rn);
    const b = e.getX(f.Rm);
    // A negative factor counts 2^64 too much of the other one.
    const excess = e.add(e.and(e.shrS(a, e.i64(63)), b), e.and(e.shrS(b, e.i64(63)), a));
    e.setR(f.Rd, e.sub(multiplyHigh(e, a, b), excess));
  }),
  row('UMULH', '1 00 11011 110 Rm 0 xxxxx Rn Rd', {}, (e, f) => {
    e.setR(f.Rd, multiplyHigh(e, e.getX(f.Rn), e.getX(f.Rm)));
  }),
];
