/** Encodings of what the processor's tests execute (Arm ARM DDI 0487 C6.2), as words. Register 31 is XZR, or SP as a base. */

export const movz = (rd: number, imm16: number, shift = 0): number =>
  (0xd2800000 | ((shift / 16) << 21) | (imm16 << 5) | rd) >>> 0;
const movk = (rd: number, imm16: number, shift: number): number =>
  (0xf2800000 | ((shift / 16) << 21) | (imm16 << 5) | rd) >>> 0;
/** Any 64-bit constant, in four instructions. */
export const mov = (rd: number, value: number | bigint): number[] => {
  const part = (n: bigint): number => Number((BigInt.asUintN(64, BigInt(value)) >> (n * 16n)) & 0xffffn);
  return [movz(rd, part(0n)), movk(rd, part(1n), 16), movk(rd, part(2n), 32), movk(rd, part(3n), 48)];
};
export const addImm = (rd: number, rn: number, imm12: number): number =>
  (0x91000000 | (imm12 << 10) | (rn << 5) | rd) >>> 0;

const unsignedOffset = (opc: number, bytes: number, rt: number, rn: number, offset: number): number =>
  (((31 - Math.clz32(bytes)) << 30) | 0x39000000 | (opc << 22) | ((offset / bytes) << 10) | (rn << 5) | rt) >>> 0;
/** STRB, STRH, STR Wt, STR Xt, and their loads, [Xn, #offset]. */
export const store = (bytes: number, rt: number, rn: number, offset = 0): number =>
  unsignedOffset(0, bytes, rt, rn, offset);
export const load = (bytes: number, rt: number, rn: number, offset = 0): number =>
  unsignedOffset(1, bytes, rt, rn, offset);

/** @param index op0:2 op1:3 CRn:4 CRm:4 op2:3 */
export const mrs = (rt: number, index: number): number => (0xd5200000 | (index << 5) | rt) >>> 0;
export const msr = (index: number, rt: number): number => (0xd5000000 | (index << 5) | rt) >>> 0;
export const daifClr = (bits: number): number => msrImm(3, 7, bits);
export const daifSet = (bits: number): number => msrImm(3, 6, bits);
export const hvc = (imm16 = 0): number => (0xd4000002 | (imm16 << 5)) >>> 0;
export const smc = (imm16 = 0): number => (0xd4000003 | (imm16 << 5)) >>> 0;
export const NOP = 0xd503201f;
export const WFE = 0xd503205f;
export const WFI = 0xd503207f;
export const SEV = 0xd503209f;
export const SEVL = 0xd50320bf;
export const ESB = 0xd503221f;
export const ISB = 0xd5033fdf;
export const ERET = 0xd69f03e0;
/** @param words how many instructions away, from this one */
export const b = (words: number): number => (0x14000000 | (words & 0x3ffffff)) >>> 0;
export const bl = (words: number): number => (0x94000000 | (words & 0x3ffffff)) >>> 0;
export const add = (rd: number, rn: number, rm: number): number => (0x8b000000 | (rm << 16) | (rn << 5) | rd) >>> 0;
export const bne = (words: number): number => (0x54000001 | ((words & 0x7ffff) << 5)) >>> 0;
export const cbnz = (rt: number, words: number): number => (0xb5000000 | ((words & 0x7ffff) << 5) | rt) >>> 0;

export const svc = (imm16 = 0): number => (0xd4000001 | (imm16 << 5)) >>> 0;
export const brk = (imm16 = 0): number => (0xd4200000 | (imm16 << 5)) >>> 0;
export const YIELD = 0xd503203f;
export const UDF = 0;
export const DSB = 0xd5033f9f;
export const br = (rn: number): number => (0xd61f0000 | (rn << 5)) >>> 0;
export const blr = (rn: number): number => (0xd63f0000 | (rn << 5)) >>> 0;
export const RET = 0xd65f03c0;
export const ret = (rn: number): number => (0xd65f0000 | (rn << 5)) >>> 0;
/** MSR (immediate): op1 and op2 name the field. */
export const msrImm = (op1: number, op2: number, imm: number): number =>
  (0xd500401f | (op1 << 16) | (imm << 8) | (op2 << 5)) >>> 0;
export const msrPan = (imm: number): number => msrImm(0, 4, imm);
export const msrUao = (imm: number): number => msrImm(0, 3, imm);
export const msrSpSel = (imm: number): number => msrImm(0, 5, imm);
/** SYS #op1, CRn, CRm, #op2, Xt. */
export const sys = (op1: number, crn: number, crm: number, op2: number, rt = 31): number =>
  (0xd5080000 | (op1 << 16) | (crn << 12) | (crm << 8) | (op2 << 5) | rt) >>> 0;
export const TLBI_VMALLE1 = sys(0, 8, 7, 0);
export const TLBI_VMALLE1IS = sys(0, 8, 3, 0);
/** The operand of TLBI by VA. */
export const tlbiOperand = (va: bigint): bigint => (va >> 12n) & 0xfff_ffff_ffffn;
export const tlbiVae1 = (rt: number): number => sys(0, 8, 7, 1, rt);
export const tlbiVae1is = (rt: number): number => sys(0, 8, 3, 1, rt);
export const tlbiAside1 = (rt: number): number => sys(0, 8, 7, 2, rt);
export const tlbiVaale1is = (rt: number): number => sys(0, 8, 3, 7, rt);
export const dcZva = (rt: number): number => sys(3, 7, 4, 1, rt);
export const dcCvau = (rt: number): number => sys(3, 7, 11, 1, rt);
export const dcCvac = (rt: number): number => sys(3, 7, 10, 1, rt);
export const dcCivac = (rt: number): number => sys(3, 7, 14, 1, rt);
export const dcIvac = (rt: number): number => sys(0, 7, 6, 1, rt);
export const icIvau = (rt: number): number => sys(3, 7, 5, 1, rt);
/** LDTR Xt, [Xn] and STTR Xt, [Xn]. */
export const ldtr = (rt: number, rn: number): number => (0xf8400800 | (rn << 5) | rt) >>> 0;
export const sttr = (rt: number, rn: number): number => (0xf8000800 | (rn << 5) | rt) >>> 0;
/** LDR Xt, [Xn], #imm9 and STR Xt, [Xn, #imm9]!. */
export const ldrPost = (rt: number, rn: number, imm9: number): number =>
  (0xf8400400 | ((imm9 & 0x1ff) << 12) | (rn << 5) | rt) >>> 0;
export const strPre = (rt: number, rn: number, imm9: number): number =>
  (0xf8000c00 | ((imm9 & 0x1ff) << 12) | (rn << 5) | rt) >>> 0;
export const strPost = (rt: number, rn: number, imm9: number): number =>
  (0xf8000400 | ((imm9 & 0x1ff) << 12) | (rn << 5) | rt) >>> 0;
/** LDP and STP Xt, Xt2, [Xn]. */
export const ldp = (rt: number, rt2: number, rn: number): number => (0xa9400000 | (rt2 << 10) | (rn << 5) | rt) >>> 0;
export const stp = (rt: number, rt2: number, rn: number): number => (0xa9000000 | (rt2 << 10) | (rn << 5) | rt) >>> 0;
/** LDP Wt, Wt2, [Xn]. */
export const ldpW = (rt: number, rt2: number, rn: number): number => (0x29400000 | (rt2 << 10) | (rn << 5) | rt) >>> 0;
/** STP Xt, Xt2, [Xn, #-16]!. */
export const stpPre = (rt: number, rt2: number, rn: number): number =>
  (0xa9bf0000 | (rt2 << 10) | (rn << 5) | rt) >>> 0;
/** LDR Qt and STR Qt, [Xn]. */
export const ldrQ = (vt: number, rn: number): number => (0x3dc00000 | (rn << 5) | vt) >>> 0;
export const strQ = (vt: number, rn: number): number => (0x3d800000 | (rn << 5) | vt) >>> 0;
/** LD1 {Vt.16B}, [Xn] and LD1 {Vt.2D}, [Xn]. */
export const ld1b = (vt: number, rn: number): number => (0x4c407000 | (rn << 5) | vt) >>> 0;
export const ld1d = (vt: number, rn: number): number => (0x4c407c00 | (rn << 5) | vt) >>> 0;
/** LDAR Xt, [Xn]; LDXR Xt, [Xn]; STXR Ws, Xt, [Xn]; LDADD Xs, Xt, [Xn]. */
export const ldar = (rt: number, rn: number): number => (0xc8dffc00 | (rn << 5) | rt) >>> 0;
export const stlr = (rt: number, rn: number): number => (0xc89ffc00 | (rn << 5) | rt) >>> 0;
export const ldxr = (rt: number, rn: number): number => (0xc85f7c00 | (rn << 5) | rt) >>> 0;
export const stxr = (rs: number, rt: number, rn: number): number => (0xc8007c00 | (rs << 16) | (rn << 5) | rt) >>> 0;
export const ldadd = (rs: number, rt: number, rn: number): number => (0xf8200000 | (rs << 16) | (rn << 5) | rt) >>> 0;
/** FMOV D0, X0. */
export const FMOV_D0_X0 = 0x9e670000;
/** SUBS Xd, Xn, #imm12. */
export const subsImm = (rd: number, rn: number, imm12: number): number =>
  (0xf1000000 | (imm12 << 10) | (rn << 5) | rd) >>> 0;
/** The halves of a 64-bit value, as `Cpu.completeRead()` takes them. */
export const halves = (value: bigint): [lo: number, hi: number] => [
  Number(BigInt.asUintN(32, value)),
  Number(BigInt.asUintN(64, value) >> 32n),
];

/** Stages of a memory copy or set: prologue, main, epilogue. */
export const P = 0;
export const M = 1;
export const E = 2;
interface CopyRegisters {
  readonly rd: number;
  readonly rs: number;
  readonly rn: number;
  readonly options?: number;
}
/** CPYF*, or with `move` CPY*. */
export const cpy = (stage: number, move: boolean, { rd, rs, rn, options = 0 }: CopyRegisters): number =>
  (0x19000400 | (move ? 1 << 26 : 0) | (stage << 22) | (rs << 16) | (options << 12) | (rn << 5) | rd) >>> 0;
export const memset = (stage: number, { rd, rs, rn, options = 0 }: CopyRegisters): number =>
  (0x19c00400 | (rs << 16) | (stage << 14) | (options << 12) | (rn << 5) | rd) >>> 0;
