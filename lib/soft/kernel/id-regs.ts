import { KvmError, sysregIndex } from '../../kvm/index.js';
import type { SoftVcpu } from './vcpu.js';

const MIDR = sysregIndex(3, 0, 0, 0, 0);
const PFR0 = sysregIndex(3, 0, 0, 4, 0);
/** Says the PMU's version, in bits 11 to 8, where the VM's vCPUs have one. */
export const ID_AA64DFR0 = sysregIndex(3, 0, 0, 5, 0);
export const PMUVER_SHIFT = 8n;
/** ID_AA64DFR0_EL1.DebugVer: Armv8 debug, the least there is. */
const DEBUG_V8 = 6;
const MPIDR = sysregIndex(3, 0, 0, 0, 5);
const REVIDR = sysregIndex(3, 0, 0, 0, 6);
const CLIDR = sysregIndex(3, 1, 0, 0, 1);
const AIDR = sysregIndex(3, 1, 0, 0, 7);
const CTR = sysregIndex(3, 3, 0, 0, 1);

/** A field of an ID register that a VM can be given with another value than the processor's (kernel: `struct arm64_ftr_bits`). */
interface Field {
  readonly lsb: number;
  readonly width: number;
  /** Whether `value` promises no more than `limit` does. Both are unsigned. */
  readonly allows: (value: number, limit: number) => boolean;
}

const field =
  (width: number, allows: Field['allows']) =>
  (...lowest: readonly number[]): Field[] =>
    lowest.map((lsb) => ({ lsb, width, allows }));
/** The lower a number, the less it promises. */
const lower = field(4, (value, limit) => value <= limit);
const bits = field(1, (value, limit) => value <= limit);
/** The same of numbers with a sign: 15 is "not there". */
const signed = field(4, (value, limit) => value << 28 <= limit << 28);
/** TGRAN*_2: 1 is "not there". */
const granule2 = field(4, (value, limit) => value === limit || value === 1);
/** L1Ip, where 2 (VIPT) promises less than 3 (PIPT), and the others are reserved. */
const cachePolicy = field(2, (value, limit) => value === limit || value === 2);

/**
 * The fields that a VM can be given less of: those of Linux 7.3, as a host without AArch32 says them by
 * KVM_ARM_GET_REG_WRITABLE_MASKS. A guest that is told less does not use it, so nothing else need change.
 */
const WRITABLE: ReadonlyMap<number, readonly Field[]> = new Map([
  // ID_AA64PFR0: CSV3, CSV2, RME, DIT, SEL2, RAS, GIC, EL3, EL2, EL1, EL0.
  [PFR0, lower(60, 56, 52, 48, 36, 28, 24, 12, 8, 4, 0)],
  // ID_AA64PFR1: DF2, CSV2_frac, RAS_frac, SSBS, BT.
  [sysregIndex(3, 0, 0, 4, 1), lower(56, 32, 12, 4, 0)],
  // ID_AA64PFR2: FPMR, GCIE, MTEFAR, MTESTOREONLY.
  [sysregIndex(3, 0, 0, 4, 2), lower(32, 12, 8, 4)],
  // ID_AA64ZFR0: of SVE, whatever a vCPU can be given.
  [sysregIndex(3, 0, 0, 4, 4), lower(56, 52, 48, 44, 40, 32, 24, 20, 16, 12, 4, 0)],
  // ID_AA64FPFR0: of FP8, the same.
  [sysregIndex(3, 0, 0, 4, 7), bits(31, 30, 29, 28, 27, 26, 15, 7, 6, 5, 4, 3, 2, 1, 0)],
  // ID_AA64DFR0: DoubleLock, WRPs, PMUVer, DebugVer.
  [ID_AA64DFR0, [...signed(36), ...lower(20, 8, 0)]],
  // ID_AA64ISAR0: RNDR, TLB, TS, FHM, DP, SM4, SM3, SHA3, RDM, Atomic, CRC32, SHA2, SHA1, AES.
  [sysregIndex(3, 0, 0, 6, 0), lower(60, 56, 52, 48, 44, 40, 36, 32, 28, 20, 16, 12, 8, 4)],
  // ID_AA64ISAR1: LS64, XS, I8MM, DGH, BF16, SPECRES, SB, FRINTTS, LRCPC, FCMA, JSCVT, DPB.
  [sysregIndex(3, 0, 0, 6, 1), lower(60, 56, 52, 48, 44, 40, 36, 32, 20, 16, 12, 0)],
  // ID_AA64ISAR2: all but pointer authentication (APA3, GPA3).
  [sysregIndex(3, 0, 0, 6, 2), lower(60, 56, 52, 48, 44, 40, 36, 32, 28, 24, 20, 16, 4, 0)],
  // ID_AA64ISAR3: four of what is newest.
  [sysregIndex(3, 0, 0, 6, 3), lower(28, 24, 16, 4)],
  // ID_AA64MMFR0: ECV, FGT, ExS, TGRAN16, BigEndEL0, SNSMem, BigEnd, PARange; TGRAN4, TGRAN64; TGRAN*_2.
  [sysregIndex(3, 0, 0, 7, 0), [...lower(60, 56, 44, 20, 16, 12, 8, 0), ...signed(28, 24), ...granule2(40, 36, 32)]],
  // ID_AA64MMFR1: ECBHB, CMOW, TIDCP1, nTLBPA, AFP, HCX, ETS, TWED, SpecSEI, PAN, LO, HPDS, HAFDBS.
  [sysregIndex(3, 0, 0, 7, 1), lower(60, 56, 52, 48, 44, 40, 36, 32, 24, 20, 16, 12, 0)],
  // ID_AA64MMFR2: E0PD, BBM, TTL, AT, ST, VARange, IESB, LSM, UAO, CnP.
  [sysregIndex(3, 0, 0, 7, 2), lower(60, 52, 48, 32, 28, 16, 12, 8, 4, 0)],
  // ID_AA64MMFR3: S1POE, S1PIE, SCTLRX, TCRX.
  [sysregIndex(3, 0, 0, 7, 3), lower(16, 8, 4, 0)],
  // ID_AA64MMFR4: NV_frac.
  [sysregIndex(3, 0, 0, 7, 4), lower(20)],
  // CTR_EL0: DIC, IDC, DminLine, L1Ip, IminLine.
  [CTR, [...bits(29, 28), ...lower(16, 0), ...cachePolicy(14)]],
]);

/** CLIDR_EL1's fields: a vCPU can be given any caches. */
const CLIDR_BITS = (1n << 47n) - 1n;

/** MIDR, REVIDR and AIDR are the implementer's to choose where KVM_CAP_ARM_WRITABLE_IMP_ID_REGS is on. */
const IMPLEMENTATION: ReadonlyMap<number, bigint> = new Map([
  [MIDR, 0xffff_ffffn],
  [REVIDR, 0xffff_ffff_ffff_ffffn],
  [AIDR, 0xffff_ffff_ffff_ffffn],
]);

/** Whether the register says what the processor is, so that it is the VM's and not the vCPU's to change. */
export const isIdRegister = (index: number): boolean => {
  const op1 = (index >> 11) & 7;
  const crn = (index >> 7) & 0xf;
  return index >> 14 === 3 && crn === 0 && (op1 === 0 || index === CLIDR || index === AIDR || index === CTR);
};

const ones = (f: Field): bigint => ((1n << BigInt(f.width)) - 1n) << BigInt(f.lsb);
const writableMask = (index: number): bigint =>
  (WRITABLE.get(index) ?? []).reduce((mask, f) => mask | ones(f), IMPLEMENTATION.get(index) ?? 0n);

/** Whether every writable field of `value` promises no more than `limit` does, and every other bit is `limit`'s. */
function isWithin(index: number, value: bigint, limit: bigint): boolean {
  if (((value ^ limit) & ~writableMask(index)) !== 0n) return false;
  const get = (from: bigint, f: Field): number => Number((from & ones(f)) >> BigInt(f.lsb));
  return (WRITABLE.get(index) ?? []).every((f) => f.allows(get(value, f), get(limit, f)));
}

const nibble = (value: bigint, lsb: number): number => Number((value >> BigInt(lsb)) & 0xfn);

/** Whether the value is one that no VM can have, run or not: AArch64 EL0 and EL1, Armv8 debug, a known cache policy are always there. */
function isNever(index: number, value: bigint): boolean {
  if (index === PFR0) return nibble(value, 0) === 0 || nibble(value, 4) === 0;
  if (index === ID_AA64DFR0) return nibble(value, 0) < DEBUG_V8;
  return index === CTR && nibble(value, 12) >> 2 < 2;
}

/**
 * KVM_SET_ONE_REG of an ID register (kernel: set_id_reg). What is set holds for all vCPUs of the VM, but for MPIDR_EL1, which
 * takes any value, and CLIDR_EL1.
 * @throws KvmError EINVAL a value that promises what the processor has not; EBUSY a change after the first run
 */
export function setIdRegister(vcpu: SoftVcpu, index: number, asked: bigint): void {
  const { vm } = vcpu;
  if (index === MPIDR) {
    vcpu.mpidr = asked;
    return;
  }
  const invalid = (): KvmError =>
    new KvmError('EINVAL', 'KVM_SET_ONE_REG', `0x${asked.toString(16)} promises what the processor has not`);
  if (index === CLIDR) {
    if ((asked & ~CLIDR_BITS) !== 0n) throw invalid();
    vcpu.cpu.setSysreg(index, asked);
    return;
  }
  // A PMU that is the implementation's own was once said by mistake: it is taken for none.
  const isOwnPmu = index === ID_AA64DFR0 && nibble(asked, Number(PMUVER_SHIFT)) === 0xf;
  const value = isOwnPmu ? asked & ~(0xfn << PMUVER_SHIFT) : asked;
  if (isNever(index, value)) throw invalid();
  const current = vcpu.cpu.getSysreg(index)!;
  if (value === current) return;
  const ids = IMPLEMENTATION.get(index);
  if (ids !== undefined && !vm.implementationIds) throw invalid();
  if (vm.hasRun) throw new KvmError('EBUSY', 'KVM_SET_ONE_REG', 'a vCPU ran');
  const limit = vm.idRegisterLimits.get(index) ?? current;
  if (ids !== undefined ? (value & ~ids) !== 0n : !isWithin(index, value, limit)) throw invalid();
  vm.idRegisterLimits.set(index, limit);
  vm.setIdRegister(index, value);
}

/**
 * KVM_ARM_GET_REG_WRITABLE_MASKS, range 0: op1 (0, 1 and 3), CRm 0 to 7, op2 of op0=3, CRn=0. As in the kernel, the
 * implementation's registers have theirs where KVM_CAP_ARM_WRITABLE_IMP_ID_REGS is not on, too.
 */
export function readWritableMasks(): BigUint64Array {
  const masks = new BigUint64Array(3 * 64);
  const set = (index: number, mask: bigint): void => {
    const op1 = (index >> 11) & 7;
    masks[(op1 === 3 ? 2 : op1) * 64 + (index & 0x3f)] = mask;
  };
  for (const index of [...WRITABLE.keys(), ...IMPLEMENTATION.keys()]) set(index, writableMask(index));
  set(CLIDR, CLIDR_BITS);
  return masks;
}
