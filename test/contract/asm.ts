/** The few A64 instructions that guests of the contract suite are made of (Arm ARM DDI 0487 C6.2), as words. */

/** A register's number; 31 is XZR. */
type X = number;

export const movz = (rd: X, imm16: number, shift = 0): number =>
  (0xd2800000 | ((shift / 16) << 21) | (imm16 << 5) | rd) >>> 0;
export const movk = (rd: X, imm16: number, shift = 0): number =>
  (0xf2800000 | ((shift / 16) << 21) | (imm16 << 5) | rd) >>> 0;
/** Any 64-bit constant, in one to four instructions. */
export function mov(rd: X, value: number | bigint): number[] {
  const v = BigInt.asUintN(64, BigInt(value));
  const words = [movz(rd, Number(v & 0xffffn))];
  for (let shift = 16; shift < 64; shift += 16) {
    const part = Number((v >> BigInt(shift)) & 0xffffn);
    if (part !== 0) words.push(movk(rd, part, shift));
  }
  return words;
}
/** MOV (register): ORR rd, XZR, rm. */
export const movr = (rd: X, rm: X): number => (0xaa0003e0 | (rm << 16) | rd) >>> 0;
export const addReg = (rd: X, rn: X, rm: X): number => (0x8b000000 | (rm << 16) | (rn << 5) | rd) >>> 0;
export const addImm = (rd: X, rn: X, imm12: number): number => (0x91000000 | (imm12 << 10) | (rn << 5) | rd) >>> 0;

const SIZE = { 1: 0, 2: 1, 4: 2, 8: 3 } as const;
type Bytes = keyof typeof SIZE;
const memory = (opc: number, bytes: Bytes, rt: X, rn: X, offset: number): number =>
  ((SIZE[bytes] << 30) | 0x39000000 | (opc << 22) | ((offset / bytes) << 10) | (rn << 5) | rt) >>> 0;
/** STRB, STRH, STR Wt or STR Xt with an unsigned offset. */
export const store = (bytes: Bytes, rt: X, rn: X, offset = 0): number => memory(0, bytes, rt, rn, offset);
/** LDRB, LDRH, LDR Wt or LDR Xt. */
export const load = (bytes: Bytes, rt: X, rn: X, offset = 0): number => memory(1, bytes, rt, rn, offset);
/** LDRSB, LDRSH or LDRSW to Xt. */
export const loadSigned = (bytes: 1 | 2 | 4, rt: X, rn: X, offset = 0): number => memory(2, bytes, rt, rn, offset);
/** STRB Wt, [Xn], #1: no syndrome in an abort. */
export const storePost = (rt: X, rn: X): number => (0x38001400 | (rn << 5) | rt) >>> 0;

/** @param index op0:2 op1:3 CRn:4 CRm:4 op2:3 */
export const mrs = (rt: X, index: number): number => (0xd5300000 | ((index & 0x7fff) << 5) | rt) >>> 0;
export const msr = (index: number, rt: X): number => (0xd5100000 | ((index & 0x7fff) << 5) | rt) >>> 0;
/** DAIFClr and DAIFSet: bits D 8, A 4, I 2, F 1. */
export const daifClr = (bits: number): number => (0xd50340ff | (bits << 8)) >>> 0;
export const daifSet = (bits: number): number => (0xd50340df | (bits << 8)) >>> 0;

export const hvc = (imm16 = 0): number => (0xd4000002 | (imm16 << 5)) >>> 0;
export const smc = (imm16 = 0): number => (0xd4000003 | (imm16 << 5)) >>> 0;
export const NOP = 0xd503201f;
export const WFE = 0xd503205f;
export const WFI = 0xd503207f;
export const ISB = 0xd5033fdf;
export const ERET = 0xd69f03e0;
/** @param words how many instructions away, from this one */
export const b = (words: number): number => (0x14000000 | (words & 0x3ffffff)) >>> 0;
const testBit = (opcode: number, rt: X, bit: number, words: number): number =>
  (opcode | ((bit >> 5) << 31) | ((bit & 31) << 19) | ((words & 0x3fff) << 5) | rt) >>> 0;
export const tbz = (rt: X, bit: number, words: number): number => testBit(0x36000000, rt, bit, words);
export const tbnz = (rt: X, bit: number, words: number): number => testBit(0x37000000, rt, bit, words);
