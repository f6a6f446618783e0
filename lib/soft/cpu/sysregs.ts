import { sysregIndex } from '../../kvm/registers.js';
import { BREAKPOINTS, CONTEXT_BREAKPOINTS, WATCHPOINTS } from './cpu.js';
import { Offset, SYSREG_SLOTS } from './layout.js';

/** How a system register behaves when the guest reads or writes it. */
export type SysregAccess =
  /** A word that EL1 reads and writes and nothing else depends on. */
  | 'plain'
  /** The same, and EL0 may read it too. */
  | 'plain-el0-read'
  /** The same, and EL0 may read and write it. */
  | 'plain-el0'
  /** Read-only to the guest, at EL1. */
  | 'constant'
  /** Writes have effects, or accesses have rules of their own (processor.ts). */
  | 'special';

export interface Sysreg {
  readonly name: string;
  readonly index: number;
  readonly access: SysregAccess;
  /** The value after reset. */
  readonly reset: bigint;
  /** Byte offset in the CPU state. */
  readonly offset: number;
}

const list: Sysreg[] = [];

function define(
  name: string,
  encoding: readonly [number, number, number, number, number],
  access: SysregAccess,
  reset = 0n,
): Sysreg {
  const reg: Sysreg = { name, index: sysregIndex(...encoding), access, reset, offset: Offset.SYSREG + list.length * 8 };
  list.push(reg);
  return reg;
}

const field = (value: bigint, lsb: bigint): bigint => value << lsb;

/** Identification registers: what this processor implements, and no more (Arm ARM DDI 0487 D23.2). */
const ID_VALUES: Readonly<Record<string, bigint>> = {
  // EL0 and EL1 in AArch64 only, FP and Advanced SIMD with half precision, the GIC's system registers, RAS, DIT, CSV2_3, CSV3.
  ID_AA64PFR0_EL1:
    0x11n |
    field(1n, 16n) |
    field(1n, 20n) |
    field(1n, 24n) |
    field(1n, 28n) |
    field(1n, 48n) |
    field(3n, 56n) |
    field(1n, 60n),
  // BTI, SSBS with MSR and MRS.
  ID_AA64PFR1_EL1: 1n | field(2n, 4n),
  // Armv8.2 debug.
  ID_AA64DFR0_EL1:
    8n |
    field(BigInt(BREAKPOINTS - 1), 12n) |
    field(BigInt(WATCHPOINTS - 1), 20n) |
    field(BigInt(CONTEXT_BREAKPOINTS - 1), 28n),
  // AES+PMULL, SHA1, SHA2+SHA512, CRC32, LSE, RDM, SHA3, DotProd, FHM, FlagM2, TLBI of ranges.
  ID_AA64ISAR0_EL1:
    field(2n, 4n) |
    field(1n, 8n) |
    field(2n, 12n) |
    field(1n, 16n) |
    field(2n, 20n) |
    field(1n, 28n) |
    field(1n, 32n) |
    field(1n, 44n) |
    field(1n, 48n) |
    field(2n, 52n) |
    field(2n, 56n),
  // DPB2, JSCVT, FCMA, LRCPC2, FRINTTS, SB.
  ID_AA64ISAR1_EL1: 2n | field(1n, 12n) | field(1n, 16n) | field(2n, 20n) | field(1n, 32n) | field(1n, 36n),
  // MOPS.
  ID_AA64ISAR2_EL1: field(1n, 16n),
  // 40-bit physical addresses, 16-bit ASIDs, granules of 4K, 16K and 64K.
  ID_AA64MMFR0_EL1: 2n | field(2n, 4n) | field(1n, 20n),
  // Hardware management of access flag and dirty state, hierarchical permission disables, LORegions, PAN with EPAN.
  ID_AA64MMFR1_EL1: 2n | field(1n, 12n) | field(1n, 16n) | field(3n, 20n),
  // CnP, UAO, IESB, 52-bit virtual addresses with a granule of 64K, LSE2, E0PD.
  ID_AA64MMFR2_EL1: 1n | field(1n, 4n) | field(1n, 12n) | field(1n, 16n) | field(1n, 32n) | field(1n, 60n),
};

// op0=3, op1=0, CRn=0, CRm=1..7: the ID space. Registers of AArch32 and unallocated ones read as zero.
const ID_NAMES: Readonly<Record<string, string>> = {
  '1,0': 'ID_PFR0_EL1',
  '1,1': 'ID_PFR1_EL1',
  '1,2': 'ID_DFR0_EL1',
  '1,3': 'ID_AFR0_EL1',
  '1,4': 'ID_MMFR0_EL1',
  '1,5': 'ID_MMFR1_EL1',
  '1,6': 'ID_MMFR2_EL1',
  '1,7': 'ID_MMFR3_EL1',
  '2,0': 'ID_ISAR0_EL1',
  '2,1': 'ID_ISAR1_EL1',
  '2,2': 'ID_ISAR2_EL1',
  '2,3': 'ID_ISAR3_EL1',
  '2,4': 'ID_ISAR4_EL1',
  '2,5': 'ID_ISAR5_EL1',
  '2,6': 'ID_MMFR4_EL1',
  '2,7': 'ID_ISAR6_EL1',
  '3,0': 'MVFR0_EL1',
  '3,1': 'MVFR1_EL1',
  '3,2': 'MVFR2_EL1',
  '3,4': 'ID_PFR2_EL1',
  '3,5': 'ID_DFR1_EL1',
  '3,6': 'ID_MMFR5_EL1',
  '4,0': 'ID_AA64PFR0_EL1',
  '4,1': 'ID_AA64PFR1_EL1',
  '4,2': 'ID_AA64PFR2_EL1',
  '4,4': 'ID_AA64ZFR0_EL1',
  '4,5': 'ID_AA64SMFR0_EL1',
  '4,7': 'ID_AA64FPFR0_EL1',
  '5,0': 'ID_AA64DFR0_EL1',
  '5,1': 'ID_AA64DFR1_EL1',
  '5,4': 'ID_AA64AFR0_EL1',
  '5,5': 'ID_AA64AFR1_EL1',
  '6,0': 'ID_AA64ISAR0_EL1',
  '6,1': 'ID_AA64ISAR1_EL1',
  '6,2': 'ID_AA64ISAR2_EL1',
  '6,3': 'ID_AA64ISAR3_EL1',
  '7,0': 'ID_AA64MMFR0_EL1',
  '7,1': 'ID_AA64MMFR1_EL1',
  '7,2': 'ID_AA64MMFR2_EL1',
  '7,3': 'ID_AA64MMFR3_EL1',
  '7,4': 'ID_AA64MMFR4_EL1',
};
for (let crm = 1; crm <= 7; crm++) {
  for (let op2 = 0; op2 <= 7; op2++) {
    const name = ID_NAMES[`${crm},${op2}`] ?? `ID_RES_C0_C${crm}_${op2}`;
    define(name, [3, 0, 0, crm, op2], 'constant', ID_VALUES[name] ?? 0n);
  }
}

/** The registers that the processor itself looks at, by their architectural names. */
export const SR = {
  // An implementer of 0 (software) keeps the processor out of every erratum list.
  MIDR_EL1: define('MIDR_EL1', [3, 0, 0, 0, 0], 'constant', 0x000f_0e11n),
  MPIDR_EL1: define('MPIDR_EL1', [3, 0, 0, 0, 5], 'constant', 0x8000_0000n),
  REVIDR_EL1: define('REVIDR_EL1', [3, 0, 0, 0, 6], 'constant'),
  // What KVM resets it to.
  SCTLR_EL1: define('SCTLR_EL1', [3, 0, 1, 0, 0], 'special', 0x00c5_0078n),
  ACTLR_EL1: define('ACTLR_EL1', [3, 0, 1, 0, 1], 'plain'),
  CPACR_EL1: define('CPACR_EL1', [3, 0, 1, 0, 2], 'special'),
  TTBR0_EL1: define('TTBR0_EL1', [3, 0, 2, 0, 0], 'special'),
  TTBR1_EL1: define('TTBR1_EL1', [3, 0, 2, 0, 1], 'special'),
  TCR_EL1: define('TCR_EL1', [3, 0, 2, 0, 2], 'special'),
  APIAKeyLo_EL1: define('APIAKeyLo_EL1', [3, 0, 2, 1, 0], 'special'),
  APIAKeyHi_EL1: define('APIAKeyHi_EL1', [3, 0, 2, 1, 1], 'special'),
  APIBKeyLo_EL1: define('APIBKeyLo_EL1', [3, 0, 2, 1, 2], 'special'),
  APIBKeyHi_EL1: define('APIBKeyHi_EL1', [3, 0, 2, 1, 3], 'special'),
  APDAKeyLo_EL1: define('APDAKeyLo_EL1', [3, 0, 2, 2, 0], 'special'),
  APDAKeyHi_EL1: define('APDAKeyHi_EL1', [3, 0, 2, 2, 1], 'special'),
  APDBKeyLo_EL1: define('APDBKeyLo_EL1', [3, 0, 2, 2, 2], 'special'),
  APDBKeyHi_EL1: define('APDBKeyHi_EL1', [3, 0, 2, 2, 3], 'special'),
  APGAKeyLo_EL1: define('APGAKeyLo_EL1', [3, 0, 2, 3, 0], 'special'),
  APGAKeyHi_EL1: define('APGAKeyHi_EL1', [3, 0, 2, 3, 1], 'special'),
  SPSR_EL1: define('SPSR_EL1', [3, 0, 4, 0, 0], 'plain'),
  ELR_EL1: define('ELR_EL1', [3, 0, 4, 0, 1], 'plain'),
  SP_EL0: define('SP_EL0', [3, 0, 4, 1, 0], 'special'),
  SP_EL1: define('SP_EL1', [3, 4, 4, 1, 0], 'special'),
  AFSR0_EL1: define('AFSR0_EL1', [3, 0, 5, 1, 0], 'plain'),
  AFSR1_EL1: define('AFSR1_EL1', [3, 0, 5, 1, 1], 'plain'),
  ESR_EL1: define('ESR_EL1', [3, 0, 5, 2, 0], 'plain'),
  FAR_EL1: define('FAR_EL1', [3, 0, 6, 0, 0], 'plain'),
  PAR_EL1: define('PAR_EL1', [3, 0, 7, 4, 0], 'plain'),
  MAIR_EL1: define('MAIR_EL1', [3, 0, 10, 2, 0], 'special'),
  AMAIR_EL1: define('AMAIR_EL1', [3, 0, 10, 3, 0], 'plain'),
  DISR_EL1: define('DISR_EL1', [3, 0, 12, 1, 1], 'plain'),
  VBAR_EL1: define('VBAR_EL1', [3, 0, 12, 0, 0], 'plain'),
  CONTEXTIDR_EL1: define('CONTEXTIDR_EL1', [3, 0, 13, 0, 1], 'plain'),
  TPIDR_EL1: define('TPIDR_EL1', [3, 0, 13, 0, 4], 'plain'),
  SCXTNUM_EL1: define('SCXTNUM_EL1', [3, 0, 13, 0, 7], 'plain'),
  CNTKCTL_EL1: define('CNTKCTL_EL1', [3, 0, 14, 1, 0], 'plain'),
  CCSIDR_EL1: define('CCSIDR_EL1', [3, 1, 0, 0, 0], 'special'),
  CLIDR_EL1: define('CLIDR_EL1', [3, 1, 0, 0, 1], 'constant', 0x0a20_0023n),
  AIDR_EL1: define('AIDR_EL1', [3, 1, 0, 0, 7], 'constant'),
  CSSELR_EL1: define('CSSELR_EL1', [3, 2, 0, 0, 0], 'plain'),
  // PIPT, 64-byte lines, and neither DC CVAU nor IC IVAU needed: the machine sees every store to code.
  CTR_EL0: define('CTR_EL0', [3, 3, 0, 0, 1], 'special', 0xb444_c004n),
  // DC ZVA zeroes 64 bytes.
  DCZID_EL0: define('DCZID_EL0', [3, 3, 0, 0, 7], 'special', 4n),
  TPIDR_EL0: define('TPIDR_EL0', [3, 3, 13, 0, 2], 'plain-el0'),
  TPIDRRO_EL0: define('TPIDRRO_EL0', [3, 3, 13, 0, 3], 'plain-el0-read'),
  SCXTNUM_EL0: define('SCXTNUM_EL0', [3, 3, 13, 0, 7], 'special'),
  MDCCINT_EL1: define('MDCCINT_EL1', [2, 0, 0, 2, 0], 'plain'),
  MDSCR_EL1: define('MDSCR_EL1', [2, 0, 0, 2, 2], 'special'),
  OSECCR_EL1: define('OSECCR_EL1', [2, 0, 0, 6, 2], 'plain'),
  OSLSR_EL1: define('OSLSR_EL1', [2, 0, 1, 1, 4], 'constant', 0x8n),
  OSDLR_EL1: define('OSDLR_EL1', [2, 0, 1, 3, 4], 'special'),
} as const;

const numbered = (count: number, name: string, op2: number): Sysreg[] =>
  Array.from({ length: count }, (_, n) => define(`${name}${n}_EL1`, [2, 0, 0, n, op2], 'special'));
/** Breakpoints and watchpoints, by number. */
export const DEBUG_REGISTERS = {
  bvr: numbered(BREAKPOINTS, 'DBGBVR', 4),
  bcr: numbered(BREAKPOINTS, 'DBGBCR', 5),
  wvr: numbered(WATCHPOINTS, 'DBGWVR', 6),
  wcr: numbered(WATCHPOINTS, 'DBGWCR', 7),
} as const;
if (list.length > SYSREG_SLOTS) throw new Error('the CPU state has too few system register slots');

/** Every system register that the processor holds. */
export const SYSREGS: readonly Sysreg[] = list;

const byIndex = new Map(list.map((r) => [r.index, r]));

/** The register with that encoding, or `undefined`. */
export const sysregByIndex = (index: number): Sysreg | undefined => byIndex.get(index);

/** Whether the register is half of a key of pointer authentication: it is there where the vCPU has that. */
export const isPointerAuthKey = (index: number): boolean => index >= KEYS && index <= SR.APGAKeyHi_EL1.index;
const KEYS = SR.APIAKeyLo_EL1.index;

/** Encodings without a word of their own: parts of PSTATE, FPCR, FPSR and registers computed on reading. */
export const PSEUDO = {
  RNDR: sysregIndex(3, 3, 2, 4, 0),
  RNDRRS: sysregIndex(3, 3, 2, 4, 1),
  SPSEL: sysregIndex(3, 0, 4, 2, 0),
  CURRENT_EL: sysregIndex(3, 0, 4, 2, 2),
  PAN: sysregIndex(3, 0, 4, 2, 3),
  UAO: sysregIndex(3, 0, 4, 2, 4),
  ISR_EL1: sysregIndex(3, 0, 12, 1, 0),
  NZCV: sysregIndex(3, 3, 4, 2, 0),
  DAIF: sysregIndex(3, 3, 4, 2, 1),
  DIT: sysregIndex(3, 3, 4, 2, 5),
  SSBS: sysregIndex(3, 3, 4, 2, 6),
  FPCR: sysregIndex(3, 3, 4, 4, 0),
  FPSR: sysregIndex(3, 3, 4, 4, 1),
  OSLAR_EL1: sysregIndex(2, 0, 1, 0, 4),
  MDCCSR_EL0: sysregIndex(2, 3, 0, 1, 0),
  DBGDTR_EL0: sysregIndex(2, 3, 0, 4, 0),
  /** DBGDTRRX_EL0 to read, DBGDTRTX_EL0 to write. */
  DBGDTRXX_EL0: sysregIndex(2, 3, 0, 5, 0),
  MDRAR_EL1: sysregIndex(2, 0, 1, 0, 0),
  OSDTRRX_EL1: sysregIndex(2, 0, 0, 0, 2),
  OSDTRTX_EL1: sysregIndex(2, 0, 0, 3, 2),
  DBGPRCR_EL1: sysregIndex(2, 0, 1, 4, 4),
  DBGCLAIMSET_EL1: sysregIndex(2, 0, 7, 8, 6),
  DBGCLAIMCLR_EL1: sysregIndex(2, 0, 7, 9, 6),
  DBGAUTHSTATUS_EL1: sysregIndex(2, 0, 7, 14, 6),
} as const;
