/**
 * Register ids of KVM_GET_ONE_REG and KVM_SET_ONE_REG (`arch/arm64/include/uapi/asm/kvm.h`; api.rst 4.68):
 * `0x60S0_0000_GGGG_xxxx`, S the size as a power of two of bytes, G the group.
 */
const ARM64 = 0x6000_0000_0000_0000n;
const SIZE_SHIFT = 52n;
const U32 = ARM64 | (2n << SIZE_SHIFT);
const U64 = ARM64 | (3n << SIZE_SHIFT);
const U128 = ARM64 | (4n << SIZE_SHIFT);

/** KVM_REG_ARM_COPROC groups. */
export const RegGroup = { CORE: 0x10, DEMUX: 0x11, SYSREG: 0x13, FW: 0x14, SVE: 0x15, FW_FEAT_BMAP: 0x16 } as const;

const core = (size: bigint, offset: number): bigint => size | BigInt((RegGroup.CORE << 16) | (offset / 4));

/** A register id's size in bytes: 1 to 256. */
export const regSize = (id: bigint): number => 1 << Number((id >> SIZE_SHIFT) & 0xfn);
/** A register id's group, one of {@link RegGroup} for arm64. */
export const regGroup = (id: bigint): number => Number((id >> 16n) & 0xfffn);

/** The fields of a system register's encoding. */
export interface SysregEncoding {
  readonly op0: number;
  readonly op1: number;
  readonly crn: number;
  readonly crm: number;
  readonly op2: number;
}

/** The 16-bit form op0:2 op1:3 CRn:4 CRm:4 op2:3 that KVM's ids and elvisor's tables share. */
export const sysregIndex = (op0: number, op1: number, crn: number, crm: number, op2: number): number =>
  (op0 << 14) | (op1 << 11) | (crn << 7) | (crm << 3) | op2;

/** ARM64_SYS_REG(): the id of a 64-bit system register. */
export const sysregId = (op0: number, op1: number, crn: number, crm: number, op2: number): bigint =>
  U64 | BigInt((RegGroup.SYSREG << 16) | sysregIndex(op0, op1, crn, crm, op2));

/** Ids of the core registers, offsets in `struct kvm_regs`. */
export const Reg = {
  /** X0 to X30. */
  x: (n: number): bigint => core(U64, n * 8),
  /** SP_EL0. */
  SP: core(U64, 31 * 8),
  PC: core(U64, 32 * 8),
  PSTATE: core(U64, 33 * 8),
  SP_EL1: core(U64, 34 * 8),
  ELR_EL1: core(U64, 35 * 8),
  /** KVM_SPSR_EL1. */
  SPSR_EL1: core(U64, 36 * 8),
  SPSR_ABT: core(U64, 37 * 8),
  SPSR_UND: core(U64, 38 * 8),
  SPSR_IRQ: core(U64, 39 * 8),
  SPSR_FIQ: core(U64, 40 * 8),
  /** V0 to V31, 128 bits each. */
  v: (n: number): bigint => core(U128, 42 * 8 + n * 16),
  FPSR: core(U32, 42 * 8 + 32 * 16),
  FPCR: core(U32, 42 * 8 + 32 * 16 + 4),
  /** KVM_REG_ARM_FW_REG(n): firmware registers. */
  fw: (n: number): bigint => U64 | BigInt((RegGroup.FW << 16) | n),
  PSCI_VERSION: U64 | BigInt(RegGroup.FW << 16),
  SMCCC_ARCH_WORKAROUND_1: U64 | BigInt((RegGroup.FW << 16) | 1),
  SMCCC_ARCH_WORKAROUND_2: U64 | BigInt((RegGroup.FW << 16) | 2),
  SMCCC_ARCH_WORKAROUND_3: U64 | BigInt((RegGroup.FW << 16) | 3),
  /** KVM_REG_ARM_FW_FEAT_BMAP_REG(n): 0 STD, 1 STD_HYP, 2 VENDOR_HYP, 3 VENDOR_HYP_2. */
  fwFeatureBitmap: (n: number): bigint => U64 | BigInt((RegGroup.FW_FEAT_BMAP << 16) | n),
  /** CCSIDR_EL1 for a CSSELR value. */
  ccsidr: (csselr: number): bigint => U32 | BigInt((RegGroup.DEMUX << 16) | (csselr & 0xff)),
  /** KVM_REG_ARM_TIMER_CTL, _CNT and _CVAL. CNT and CVAL are swapped against the encoding rule; that is ABI. */
  TIMER_CTL: sysregId(3, 3, 14, 3, 1),
  TIMER_CVAL: sysregId(3, 3, 14, 0, 2),
  TIMER_CNT: sysregId(3, 3, 14, 3, 2),
  /** KVM_REG_ARM_PTIMER_* */
  PTIMER_CTL: sysregId(3, 3, 14, 2, 1),
  PTIMER_CVAL: sysregId(3, 3, 14, 2, 2),
  PTIMER_CNT: sysregId(3, 3, 14, 0, 1),
  SVE_VLS: ARM64 | (6n << SIZE_SHIFT) | 0x15ffffn,
} as const;
