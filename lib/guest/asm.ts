/**
 * A small A64 assembler: one method an instruction, and labels. It has what bare-metal guests of this project use, in its
 * 64-bit forms (Arm ARM DDI 0487, C6.2). Registers are numbers, X0 to X30; 31 is XZR or SP, as the instruction has it.
 */

/** Register 31 where it reads as zero. */
export const XZR = 31;
/** Register 31 where it is the stack pointer. */
export const SP = 31;
/** The link register. */
export const LR = 30;

/** Condition codes (C1.2.4). */
export const Cond = {
  EQ: 0,
  NE: 1,
  HS: 2,
  LO: 3,
  MI: 4,
  PL: 5,
  VS: 6,
  VC: 7,
  HI: 8,
  LS: 9,
  GE: 10,
  LT: 11,
  GT: 12,
  LE: 13,
} as const;
export type Cond = (typeof Cond)[keyof typeof Cond];

/** System registers by name: op0, op1, CRn, CRm, op2 (D24, and GIC architecture IHI 0069 §12.2 for ICC_*). */
export const SYSTEM_REGISTERS = {
  MPIDR_EL1: [3, 0, 0, 0, 5],
  ESR_EL1: [3, 0, 5, 2, 0],
  ELR_EL1: [3, 0, 4, 0, 1],
  FAR_EL1: [3, 0, 6, 0, 0],
  VBAR_EL1: [3, 0, 12, 0, 0],
  CurrentEL: [3, 0, 4, 2, 2],
  CNTFRQ_EL0: [3, 3, 14, 0, 0],
  CNTV_TVAL_EL0: [3, 3, 14, 3, 0],
  CNTV_CTL_EL0: [3, 3, 14, 3, 1],
  CNTVCT_EL0: [3, 3, 14, 0, 2],
  ICC_PMR_EL1: [3, 0, 4, 6, 0],
  ICC_IAR1_EL1: [3, 0, 12, 12, 0],
  ICC_EOIR1_EL1: [3, 0, 12, 12, 1],
  ICC_SRE_EL1: [3, 0, 12, 12, 5],
  ICC_IGRPEN1_EL1: [3, 0, 12, 12, 7],
} as const satisfies Record<string, readonly [number, number, number, number, number]>;
export type SystemRegister = keyof typeof SYSTEM_REGISTERS;

/** A place where a label's address goes once it is known. */
interface Fixup {
  readonly at: number;
  readonly label: string;
  /** Puts the distance in bytes into the instruction. */
  readonly patch: (word: number, distance: number) => number;
}

/** @throws RangeError an operand that the instruction can't hold */
export class Assembler {
  #bytes = new Uint8Array(1024);
  #length = 0;
  readonly #labels = new Map<string, number>();
  readonly #fixups: Fixup[] = [];

  /** Bytes so far. */
  get offset(): number {
    return this.#length;
  }

  /** Names the place where the next instruction goes. */
  label(name: string): this {
    if (this.#labels.has(name)) throw new RangeError(`the label ${name} is there twice`);
    this.#labels.set(name, this.#length);
    return this;
  }

  /** Fills with zeros up to a multiple of `to`, a power of two. */
  align(to: number): this {
    return this.zeros(-this.#length & (to - 1));
  }

  zeros(count: number): this {
    return this.data(new Uint8Array(count));
  }

  data(bytes: Uint8Array): this {
    if (this.#length + bytes.length > this.#bytes.length) {
      const grown = new Uint8Array(2 * (this.#length + bytes.length));
      grown.set(this.#bytes.subarray(0, this.#length));
      this.#bytes = grown;
    }
    this.#bytes.set(bytes, this.#length);
    this.#length += bytes.length;
    return this;
  }

  /** UTF-8 text and a NUL. */
  text(value: string): this {
    return this.data(new TextEncoder().encode(`${value}\0`));
  }

  /** A 32-bit little-endian word: an instruction by its encoding. */
  word(value: number): this {
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setUint32(0, value >>> 0, true);
    return this.data(bytes);
  }

  /** A 64-bit little-endian word. */
  quad(value: bigint): this {
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setBigUint64(0, BigInt.asUintN(64, value), true);
    return this.data(bytes);
  }

  /**
   * The finished bytes.
   * @throws RangeError a label that is nowhere, or too far away
   */
  assemble(): Uint8Array {
    const bytes = this.#bytes.slice(0, this.#length);
    const view = new DataView(bytes.buffer);
    for (const { at, label, patch } of this.#fixups) {
      const target = this.#labels.get(label);
      if (target === undefined) throw new RangeError(`the label ${label} is nowhere`);
      view.setUint32(at, patch(view.getUint32(at, true), target - at) >>> 0, true);
    }
    return bytes;
  }

  /** MOVZ Xd, #imm, LSL #shift */
  movz(rd: number, imm: number, shift: 0 | 16 | 32 | 48 = 0): this {
    return this.word(0xd2800000 | ((shift / 16) << 21) | (unsigned(imm, 16) << 5) | reg(rd));
  }

  /** MOVK Xd, #imm, LSL #shift */
  movk(rd: number, imm: number, shift: 0 | 16 | 32 | 48 = 0): this {
    return this.word(0xf2800000 | ((shift / 16) << 21) | (unsigned(imm, 16) << 5) | reg(rd));
  }

  /** Any 64-bit constant: MOVZ, and MOVKs for what is not zero. */
  constant(rd: number, value: number | bigint): this {
    const bits = BigInt.asUintN(64, BigInt(value));
    this.movz(rd, Number(bits & 0xffffn));
    for (const shift of [16, 32, 48] as const) {
      const half = Number((bits >> BigInt(shift)) & 0xffffn);
      if (half !== 0) this.movk(rd, half, shift);
    }
    return this;
  }

  /** MOV Xd, Xm (ORR). Not for SP. */
  mov(rd: number, rm: number): this {
    return this.word(0xaa0003e0 | (reg(rm) << 16) | reg(rd));
  }

  /** ADD Xd|SP, Xn|SP, #imm */
  addImm(rd: number, rn: number, imm: number): this {
    return this.word(0x91000000 | (unsigned(imm, 12) << 10) | (reg(rn) << 5) | reg(rd));
  }

  /** SUB Xd|SP, Xn|SP, #imm */
  subImm(rd: number, rn: number, imm: number): this {
    return this.word(0xd1000000 | (unsigned(imm, 12) << 10) | (reg(rn) << 5) | reg(rd));
  }

  /** CMP Xn|SP, #imm (SUBS) */
  cmpImm(rn: number, imm: number): this {
    return this.word(0xf100001f | (unsigned(imm, 12) << 10) | (reg(rn) << 5));
  }

  /** CMN Xn|SP, #imm (ADDS): compares with -imm */
  cmnImm(rn: number, imm: number): this {
    return this.word(0xb100001f | (unsigned(imm, 12) << 10) | (reg(rn) << 5));
  }

  /** ADD Xd, Xn, Xm */
  add(rd: number, rn: number, rm: number): this {
    return this.word(0x8b000000 | (reg(rm) << 16) | (reg(rn) << 5) | reg(rd));
  }

  /** UDIV Xd, Xn, Xm */
  udiv(rd: number, rn: number, rm: number): this {
    return this.word(0x9ac00800 | (reg(rm) << 16) | (reg(rn) << 5) | reg(rd));
  }

  /** MSUB Xd, Xn, Xm, Xa: Xa - Xn * Xm */
  msub(rd: number, rn: number, rm: number, ra: number): this {
    return this.word(0x9b008000 | (reg(rm) << 16) | (reg(ra) << 10) | (reg(rn) << 5) | reg(rd));
  }

  /** ORR Xd, Xn, Xm, LSL #shift */
  orr(rd: number, rn: number, rm: number, shift = 0): this {
    return this.word(0xaa000000 | (reg(rm) << 16) | (unsigned(shift, 6) << 10) | (reg(rn) << 5) | reg(rd));
  }

  /** LSR Xd, Xn, #shift (UBFM) */
  lsr(rd: number, rn: number, shift: number): this {
    return this.word(0xd340fc00 | (unsigned(shift, 6) << 16) | (reg(rn) << 5) | reg(rd));
  }

  /** UBFX Xd, Xn, #lsb, #width */
  ubfx(rd: number, rn: number, lsb: number, width: number): this {
    return this.word(
      0xd3400000 | (unsigned(lsb, 6) << 16) | (unsigned(lsb + width - 1, 6) << 10) | (reg(rn) << 5) | reg(rd),
    );
  }

  /** LDR Xt, [Xn|SP, #offset] */
  ldr(rt: number, rn: number, offset = 0): this {
    return this.word(0xf9400000 | (scaled(offset, 8) << 10) | (reg(rn) << 5) | reg(rt));
  }

  /** STR Xt, [Xn|SP, #offset] */
  str(rt: number, rn: number, offset = 0): this {
    return this.word(0xf9000000 | (scaled(offset, 8) << 10) | (reg(rn) << 5) | reg(rt));
  }

  /** LDR Wt, [Xn|SP, #offset] */
  ldrW(rt: number, rn: number, offset = 0): this {
    return this.word(0xb9400000 | (scaled(offset, 4) << 10) | (reg(rn) << 5) | reg(rt));
  }

  /** STR Wt, [Xn|SP, #offset] */
  strW(rt: number, rn: number, offset = 0): this {
    return this.word(0xb9000000 | (scaled(offset, 4) << 10) | (reg(rn) << 5) | reg(rt));
  }

  /** STRB Wt, [Xn|SP, #offset] */
  strb(rt: number, rn: number, offset = 0): this {
    return this.word(0x39000000 | (scaled(offset, 1) << 10) | (reg(rn) << 5) | reg(rt));
  }

  /** LDRB Wt, [Xn|SP], #step */
  ldrbPost(rt: number, rn: number, step: number): this {
    return this.word(0x38400400 | (signed(step, 9) << 12) | (reg(rn) << 5) | reg(rt));
  }

  /** STP Xt, Xt2, [Xn|SP, #offset]! */
  stpPre(rt: number, rt2: number, rn: number, offset: number): this {
    return this.word(0xa9800000 | (signed(offset / 8, 7) << 15) | (reg(rt2) << 10) | (reg(rn) << 5) | reg(rt));
  }

  /** LDP Xt, Xt2, [Xn|SP], #offset */
  ldpPost(rt: number, rt2: number, rn: number, offset: number): this {
    return this.word(0xa8c00000 | (signed(offset / 8, 7) << 15) | (reg(rt2) << 10) | (reg(rn) << 5) | reg(rt));
  }

  /** ADR Xd, label */
  adr(rd: number, label: string): this {
    return this.#toLabel(0x10000000 | reg(rd), label, (word, distance) => {
      const imm = signed(distance, 21);
      return word | ((imm & 3) << 29) | ((imm >> 2) << 5);
    });
  }

  /** B label */
  b(label: string): this {
    return this.#toLabel(0x14000000, label, (word, distance) => word | signed(distance / 4, 26));
  }

  /** BL label */
  bl(label: string): this {
    return this.#toLabel(0x94000000, label, (word, distance) => word | signed(distance / 4, 26));
  }

  /** B.cond label */
  bCond(cond: Cond, label: string): this {
    return this.#toLabel(0x54000000 | cond, label, (word, distance) => word | (signed(distance / 4, 19) << 5));
  }

  /** CBZ Xt, label */
  cbz(rt: number, label: string): this {
    return this.#toLabel(0xb4000000 | reg(rt), label, (word, distance) => word | (signed(distance / 4, 19) << 5));
  }

  /** CBNZ Xt, label */
  cbnz(rt: number, label: string): this {
    return this.#toLabel(0xb5000000 | reg(rt), label, (word, distance) => word | (signed(distance / 4, 19) << 5));
  }

  /** TBZ Xt, #bit, label */
  tbz(rt: number, bit: number, label: string): this {
    return this.#testBit(0x36000000, rt, bit, label);
  }

  /** TBNZ Xt, #bit, label */
  tbnz(rt: number, bit: number, label: string): this {
    return this.#testBit(0x37000000, rt, bit, label);
  }

  /** RET */
  ret(): this {
    return this.word(0xd65f03c0);
  }

  /** ERET */
  eret(): this {
    return this.word(0xd69f03e0);
  }

  /** MRS Xt, register */
  mrs(rt: number, register: SystemRegister): this {
    return this.word(0xd5200000 | systemRegister(register) | reg(rt));
  }

  /** MSR register, Xt */
  msr(register: SystemRegister, rt: number): this {
    return this.word(0xd5000000 | systemRegister(register) | reg(rt));
  }

  /** MSR DAIFSet, #mask (D 8, A 4, I 2, F 1) */
  daifSet(mask: number): this {
    return this.word(0xd50340df | (unsigned(mask, 4) << 8));
  }

  /** MSR DAIFClr, #mask */
  daifClr(mask: number): this {
    return this.word(0xd50340ff | (unsigned(mask, 4) << 8));
  }

  /** HVC #imm */
  hvc(imm = 0): this {
    return this.word(0xd4000002 | (unsigned(imm, 16) << 5));
  }

  /** NOP */
  nop(): this {
    return this.word(0xd503201f);
  }

  /** WFE */
  wfe(): this {
    return this.word(0xd503205f);
  }

  /** WFI */
  wfi(): this {
    return this.word(0xd503207f);
  }

  /** SEV */
  sev(): this {
    return this.word(0xd503209f);
  }

  /** DSB SY */
  dsb(): this {
    return this.word(0xd5033f9f);
  }

  /** ISB */
  isb(): this {
    return this.word(0xd5033fdf);
  }

  #testBit(opcode: number, rt: number, bit: number, label: string): this {
    const position = unsigned(bit, 6);
    const word = opcode | ((position >> 5) << 31) | ((position & 31) << 19) | reg(rt);
    return this.#toLabel(word, label, (base, distance) => base | (signed(distance / 4, 14) << 5));
  }

  #toLabel(word: number, label: string, patch: Fixup['patch']): this {
    this.#fixups.push({ at: this.#length, label, patch });
    return this.word(word);
  }
}

function reg(number: number): number {
  if (!Number.isInteger(number) || number < 0 || number > 31) throw new RangeError(`${number} is no register: 0 to 31`);
  return number;
}

function unsigned(value: number, bits: number): number {
  if (!Number.isInteger(value) || value < 0 || value >= 2 ** bits)
    throw new RangeError(`${value} does not fit ${bits} bits`);
  return value;
}

/** The two's complement of `value` in `bits` bits. */
function signed(value: number, bits: number): number {
  const half = 2 ** (bits - 1);
  if (!Number.isInteger(value) || value < -half || value >= half)
    throw new RangeError(`${value} does not fit ${bits} bits with a sign`);
  return value & (2 ** bits - 1);
}

function scaled(offset: number, size: number): number {
  return unsigned(offset / size, 12);
}

function systemRegister(name: SystemRegister): number {
  const [op0, op1, crn, crm, op2] = SYSTEM_REGISTERS[name];
  return (op0 << 19) | (op1 << 16) | (crn << 12) | (crm << 8) | (op2 << 5);
}
