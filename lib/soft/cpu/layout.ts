/**
 * Where things are in the engine's linear memory. The state of the vCPU that runs now is always at {@link STATE}, so that
 * generated code has its addresses as constants; the state of the others is kept elsewhere and copied in when they run.
 */
export const STATE = 0x400;
/** Pages of linear memory at most: 4 GiB, less the last page, so that a 32-bit address plus an access size never wraps. */
export const MAXIMUM_PAGES = 65535;

/** Byte offsets from {@link STATE}. Words are 64 bits wide unless said otherwise. */
export const Offset = {
  /** X0..X30. */
  X: 0,
  /** Reads as zero. */
  ZR: 31 * 8,
  /** The stack pointer in use. */
  SP: 32 * 8,
  /** Where writes to XZR go. */
  DISCARD: 33 * 8,
  /** Flags, see Emitter.setFlags. `C` is 32 bits. */
  N: 34 * 8,
  Z: 35 * 8,
  V: 36 * 8,
  C: 37 * 8,
  /**
   * 32 bits: what NZCV are to be made from, a FlagState, where one region has left them to the next; the words above then have the
   * operands. 0, which is nothing, wherever anybody but regions can see it.
   */
  FLAGS_FROM: 37 * 8 + 4,
  PC: 38 * 8,
  /** 32 bits: instructions left of the budget; below 0 ends the run. */
  BUDGET: 39 * 8,
  /** 32 bits: why generated code wants to leave; 0 is not at all ({@link ExitCode}). */
  EXIT: 39 * 8 + 4,
  /** 32 bits: what goes with EXIT. */
  DETAIL: 40 * 8,
  /** 32 bits: address of the load table and of the store table of the translation regime in use. */
  TLB_LOAD: 41 * 8,
  TLB_STORE: 41 * 8 + 4,
  /** 32 bits: the same for unprivileged accesses (LDTR, STTR). */
  TLB_LOAD_EL0: 42 * 8,
  TLB_STORE_EL0: 42 * 8 + 4,
  /** 32 bits: PSTATE.BTYPE times 4. Generated code has it in a local, and leaves it here where it left before the branch's target. */
  BTYPE: 43 * 8,
  /** 32 bits: 0 or 1. */
  EL: 43 * 8 + 4,
  /** Exclusive monitor: the virtual address (all ones: open), and the 128 bits that were read. */
  MONITOR_ADDRESS: 44 * 8,
  MONITOR_SIZE: 45 * 8,
  MONITOR_DATA: 46 * 8,
  /** Scratch for values that pass between generated code and TypeScript, 128 bits, 16-byte aligned. */
  SCRATCH: 48 * 8,
  /** PSTATE.DAIF in bits 9..6 (32 bits), PSTATE.SP in bit 0 (32 bits). */
  DAIF: 50 * 8,
  SPSEL: 50 * 8 + 4,
  /** 32 bits each: PSTATE.PAN in bit 22, UAO in bit 23, DIT in bit 24, SSBS in bit 12, as in SPSR_EL1. */
  PAN: 51 * 8,
  UAO: 51 * 8 + 4,
  DIT: 52 * 8,
  SSBS: 52 * 8 + 4,
  /** FPCR and FPSR, 32 bits each. */
  FPCR: 53 * 8,
  FPSR: 53 * 8 + 4,
  /** 32 bits: an interrupt input is asserted and not masked, or an SError is: look at the next chance. */
  ATTENTION: 54 * 8,
  /** 32 bits: FP&SIMD is trapped at the current EL (CPACR_EL1.FPEN). */
  FP_TRAP: 54 * 8 + 4,
  /** 32 bits: the bits of SP that must be zero where it is the base of an access: 15, or 0 (SCTLR_EL1.SA, .SA0). */
  SP_MASK: 55 * 8,
  /** 32 bits: the event register that WFE waits for, 0 or 1. */
  EVENT: 55 * 8 + 4,
  /** 32 bits: pointer authentication: 1 where the vCPU has it, 2, 4, 8 and 16 where keys IA, IB, DA and DB are enabled. */
  PAUTH: 56 * 8,
  /**
   * The layout of pointers to instructions, and to data: which bits an extension or a PAC fills in the lower half of the address
   * space, which in the upper, and the bit by which AddPAC tells the halves apart.
   */
  PAC_INSTRUCTION: 57 * 8,
  PAC_DATA: 60 * 8,
  /** 32 bits: DC ZVA has rules to be looked at: those of EL0, or of Device memory where the MMU is off. */
  ZVA_CHECKED: 63 * 8,
  /** V0..V31, 16 bytes each. */
  V0: 64 * 8,
  /** 32 bits each: addresses of the fetch tables, by PSTATE.BTYPE. */
  TLB_FETCH: 128 * 8,
  /** 32 bits: the record that was fetched last, and in its low bits what BTYPE was on the way there; 0 in each new run. */
  FETCHED: 130 * 8,
  /** System registers held as plain words, one each. */
  SYSREG: 132 * 8,
} as const;

/** How many system registers the state has room for. */
export const SYSREG_SLOTS = 256;
/** Bytes of one vCPU's state. */
export const STATE_SIZE = Offset.SYSREG + SYSREG_SLOTS * 8;

/** Why generated code left, in `Offset.EXIT`. */
export const ExitCode = {
  NONE: 0,
  /** The budget is spent, or somebody wants attention. */
  BUDGET: 1,
  /** The instruction is done; PC must be advanced past it and everything that depends on the state looked up anew. */
  RESYNC: 2,
  /** TypeScript has changed PC (an exception was taken, ERET): look everything up anew. */
  REDIRECT: 3,
  /** UNDEFINED at PC. */
  UNDEFINED: 4,
  SVC: 5,
  HVC: 6,
  SMC: 7,
  BRK: 8,
  WFI: 9,
  WFE: 10,
  /** ERET; DETAIL is 1 where the address to return to is in SCRATCH and not in ELR_EL1. */
  ERET: 11,
  /** A data abort that TypeScript has described. */
  DATA_ABORT: 12,
  /** An access that no RAM backs. */
  MMIO: 13,
  /** PC is not 4-byte aligned. */
  PC_ALIGNMENT: 14,
  /** An instruction abort that TypeScript has described. */
  FETCH_ABORT: 15,
  /** An access trapped by CPACR_EL1.FPEN. */
  FP_TRAP: 16,
  /** HLT. */
  HLT: 17,
  /** SP is not 16-byte aligned and SCTLR_ELx.SA says it must be. */
  SP_ALIGNMENT: 18,
  /** A trapped system instruction. */
  SYSREG_TRAP: 19,
  /** An indirect branch to what is no landing pad in a guarded page. */
  BRANCH_TARGET: 20,
  /** An access to RAM that may not be used: {@link MachineMemory.protect}. */
  MEMORY_FAULT: 21,
  /** A memory copy or set has something left to do: DETAIL is a CopyDetail. */
  COPY: 22,
  /** One that was prepared for another option, or ill: DETAIL is the ISS. */
  WRONG_COPY: 23,
  /** ESB, with something pending. */
  ERROR_BARRIER: 24,
} as const;
export type ExitCode = (typeof ExitCode)[keyof typeof ExitCode];
