/** Numbers of the Arm Architecture Reference Manual (DDI 0487) that several parts of the processor share. */

/** ESR_ELx.EC (D24.2.37). */
export const ExceptionClass = {
  UNKNOWN: 0x00,
  WFX: 0x01,
  FP: 0x07,
  BRANCH_TARGET: 0x0d,
  ILLEGAL_STATE: 0x0e,
  SVC64: 0x15,
  SYSREG: 0x18,
  INSTRUCTION_ABORT_LOWER: 0x20,
  INSTRUCTION_ABORT: 0x21,
  PC_ALIGNMENT: 0x22,
  DATA_ABORT_LOWER: 0x24,
  DATA_ABORT: 0x25,
  SP_ALIGNMENT: 0x26,
  /** Memory Copy and Memory Set (FEAT_MOPS). */
  MEMORY_COPY: 0x27,
  SERROR: 0x2f,
  /** Debug exceptions from a lower EL; from the same EL it is one more. */
  BREAKPOINT_LOWER: 0x30,
  SOFTWARE_STEP_LOWER: 0x32,
  WATCHPOINT_LOWER: 0x34,
  BRK64: 0x3c,
} as const;
export type ExceptionClass = (typeof ExceptionClass)[keyof typeof ExceptionClass];

/** Offset of an exception's vector in its group of four (D1.3.1). */
export const Vector = { SYNC: 0, IRQ: 0x80, FIQ: 0x100, SERROR: 0x180 } as const;
export type Vector = (typeof Vector)[keyof typeof Vector];

/** Offset of the group, by where the exception comes from. */
export const VectorGroup = { EL1T: 0, EL1H: 0x200, EL0: 0x400 } as const;

/** ESR_ELx.IL, and the bits of a Data Abort's ISS. */
export const Esr = { IL: 1 << 25, WNR: 1 << 6, CM: 1 << 8 } as const;

/** ISS of a Software Step exception: ISV says that EX is valid, EX that a Load-Exclusive was stepped. */
export const StepSyndrome = { ISV: 1 << 24, EX: 1 << 6 } as const;

/** Bits of SCTLR_EL1, by number (D24.2.175). */
export const Sctlr = {
  M: 0,
  A: 1,
  SA: 3,
  SA0: 4,
  nAA: 6,
  UMA: 9,
  DZE: 14,
  UCT: 15,
  nTWI: 16,
  nTWE: 18,
  WXN: 19,
  TSCXT: 20,
  /** Errors are synchronized at exceptions and returns. Physical ones are meant: those of a vCPU are virtual, and wait for no access. */
  IESB: 21,
  SPAN: 23,
  UCI: 26,
  EnDB: 13,
  EnDA: 27,
  MSCEn: 33,
  BT0: 35,
  BT1: 36,
  EnIB: 30,
  EnIA: 31,
  DSSBS: 44,
  EPAN: 57,
} as const;

/** ITD, SED, EOS, EIS, nTLSMD, LSMAOE: RES1 without AArch32 and FEAT_ExS. */
export const SCTLR_RES1 = (1n << 7n) | (1n << 8n) | (1n << 11n) | (1n << 22n) | (1n << 28n) | (1n << 29n);

const maskOf = (bits: readonly number[]): bigint => bits.reduce((mask, bit) => mask | (1n << BigInt(bit)), 0n);

/** What only a vCPU with pointer authentication can set. */
export const SCTLR_PAUTH = maskOf([Sctlr.EnDB, Sctlr.EnDA, Sctlr.EnIB, Sctlr.EnIA]);
/** C and I, which do nothing here but are the guest's to set, and every bit above but those. */
export const SCTLR_WRITABLE = maskOf([2, 12, ...Object.values(Sctlr)]) & ~SCTLR_PAUTH;

/** PSTATE.DAIF in its place in SPSR_EL1. */
export const Daif = { D: 1 << 9, A: 1 << 8, I: 1 << 7, F: 1 << 6, ALL: 0x3c0 } as const;

/** The rest of PSTATE in SPSR_EL1 (C5.2.19). */
export const Pstate = {
  BTYPE: 3 << 10,
  SSBS: 1 << 12,
  IL: 1 << 20,
  SS: 1 << 21,
  PAN: 1 << 22,
  UAO: 1 << 23,
  DIT: 1 << 24,
} as const;

/** AHP, DN, FZ, RMode, FZ16. Trapped floating-point exceptions are not implemented. */
export const FPCR_MASK = 0x07c8_0000n;
/** QC, IDC, IXC, UFC, OFC, DZC, IOC. */
export const FPSR_MASK = 0x0800_009fn;

/** TBID0 and TBID1 of TCR_EL1, which are there with pointer authentication only. */
export const TCR_TBID = (1n << 51n) | (1n << 52n);

/** ISS of a trapped MSR, MRS or SYS (Arm ARM DDI 0487 J1.1, AArch64.SystemAccessTrapSyndrome). */
export function accessSyndrome(word: number): number {
  const field = (lsb: number, width: number): number => (word >>> lsb) & ((1 << width) - 1);
  const op0 = field(19, 2);
  const op2 = field(5, 3);
  const op1 = field(16, 3);
  const crn = field(12, 4);
  const rt = field(0, 5);
  const crm = field(8, 4);
  const isRead = field(21, 1);
  return (op0 << 20) | (op2 << 17) | (op1 << 14) | (crn << 10) | (rt << 5) | (crm << 1) | isRead;
}
