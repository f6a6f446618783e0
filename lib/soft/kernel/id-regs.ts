import { KvmError, sysregIndex } from '../../kvm/index.js';
import type { SoftVcpu } from './vcpu.js';

const MIDR = sysregIndex(3, 0, 0, 0, 0);
/** Says the PMU's version, in bits 11 to 8, where the VM's vCPUs have one. */
export const ID_AA64DFR0 = sysregIndex(3, 0, 0, 5, 0);
export const PMUVER_SHIFT = 8n;
const MPIDR = sysregIndex(3, 0, 0, 0, 5);
const REVIDR = sysregIndex(3, 0, 0, 0, 6);
const CLIDR = sysregIndex(3, 1, 0, 0, 1);
const AIDR = sysregIndex(3, 1, 0, 0, 7);
const CTR = sysregIndex(3, 3, 0, 0, 1);

/** A mask of four-bit fields, by their lowest bits. */
const fields = (...lowest: number[]): bigint => lowest.reduce((mask, bit) => mask | (0xfn << BigInt(bit)), 0n);

/**
 * The fields of the ID registers that a VM can be given less of: those where a lower number promises less
 * (kernel: `id_reg_desc` masks). A guest that is told less does not use it, so nothing else need change.
 */
const WRITABLE: ReadonlyMap<number, bigint> = new Map([
  // ID_AA64PFR0: CSV3, CSV2, DIT, RAS.
  [sysregIndex(3, 0, 0, 4, 0), fields(60, 56, 48, 28)],
  // ID_AA64PFR1: SSBS, BT.
  [sysregIndex(3, 0, 0, 4, 1), fields(4, 0)],
  // ID_AA64DFR0: PMUVer.
  [ID_AA64DFR0, fields(8)],
  // ID_AA64ISAR0: RNDR, TLB, TS, FHM, DP, SM4, SM3, SHA3, RDM, Atomic, CRC32, SHA2, SHA1, AES.
  [sysregIndex(3, 0, 0, 6, 0), fields(60, 56, 52, 48, 44, 40, 36, 32, 28, 20, 16, 12, 8, 4)],
  // ID_AA64ISAR1: LS64, XS, I8MM, DGH, BF16, SPECRES, SB, FRINTTS, LRCPC, FCMA, JSCVT, DPB.
  [sysregIndex(3, 0, 0, 6, 1), fields(60, 56, 52, 48, 44, 40, 36, 32, 20, 16, 12, 0)],
  // ID_AA64ISAR2: CSSC, RPRFM, BC, MOPS, RPRES, WFxT.
  [sysregIndex(3, 0, 0, 6, 2), fields(52, 48, 20, 16, 4, 0)],
  // ID_AA64MMFR0: ECV, FGT, ExS, BigEndEL0, SNSMem, BigEnd, ASIDBits, PARange.
  [sysregIndex(3, 0, 0, 7, 0), fields(60, 56, 44, 16, 12, 8, 4, 0)],
  // ID_AA64MMFR1: CMOW, TIDCP1, nTLBPA, AFP, HCX, ETS, TWED, XNX, SpecSEI, PAN, LO, HPDS, HAFDBS.
  [sysregIndex(3, 0, 0, 7, 1), fields(56, 52, 48, 44, 40, 36, 32, 28, 24, 20, 16, 12, 0)],
  // ID_AA64MMFR2: E0PD, EVT, BBM, TTL, FWB, IDS, AT, ST, CCIDX, IESB, LSM, UAO, CnP.
  [sysregIndex(3, 0, 0, 7, 2), fields(60, 56, 52, 48, 40, 36, 32, 28, 20, 12, 8, 4, 0)],
  // CTR_EL0: DIC, IDC, DminLine, IminLine.
  [CTR, (1n << 29n) | (1n << 28n) | fields(16, 0)],
]);

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

function writableMask(index: number, implementationIds: boolean): bigint {
  if (implementationIds && IMPLEMENTATION.has(index)) return IMPLEMENTATION.get(index)!;
  return WRITABLE.get(index) ?? 0n;
}

/** Whether every writable field of `value` promises no more than `limit` does, and every other bit is `limit`'s. */
function isWithin(value: bigint, limit: bigint, mask: bigint): boolean {
  if (((value ^ limit) & ~mask) !== 0n) return false;
  for (let bit = 0n; bit < 64n; bit += 4n) {
    const field = 0xfn << bit;
    if ((value & mask & field) > (limit & mask & field)) return false;
  }
  return true;
}

/**
 * KVM_SET_ONE_REG of an ID register (kernel: set_id_reg). What is set holds for all vCPUs of the VM, but for MPIDR_EL1, which
 * takes any value.
 * @throws KvmError EINVAL a value that promises what the processor has not; EBUSY a change after the first run
 */
export function setIdRegister(vcpu: SoftVcpu, index: number, value: bigint): void {
  const { vm } = vcpu;
  if (index === MPIDR) {
    vcpu.mpidr = value;
    return;
  }
  const current = vcpu.cpu.getSysreg(index)!;
  if (value === current) return;
  const limit = vm.idRegisterLimits.get(index) ?? current;
  const isImplementation = vm.implementationIds && IMPLEMENTATION.has(index);
  const mask = writableMask(index, vm.implementationIds);
  if (isImplementation ? (value & ~mask) !== 0n : !isWithin(value, limit, mask)) {
    throw new KvmError('EINVAL', 'KVM_SET_ONE_REG', `0x${value.toString(16)} promises what the processor has not`);
  }
  if (vm.hasRun) throw new KvmError('EBUSY', 'KVM_SET_ONE_REG', 'a vCPU ran');
  vm.idRegisterLimits.set(index, limit);
  vm.setIdRegister(index, value);
}

/**
 * KVM_ARM_GET_REG_WRITABLE_MASKS, range 0: op1 (0, 1 and 3), CRm 0 to 7, op2 of op0=3, CRn=0. As in the kernel, the
 * implementation's registers have theirs where KVM_CAP_ARM_WRITABLE_IMP_ID_REGS is not on, too.
 */
export function readWritableMasks(): BigUint64Array {
  const masks = new BigUint64Array(3 * 64);
  for (const index of [...WRITABLE.keys(), ...IMPLEMENTATION.keys()]) {
    const op1 = (index >> 11) & 7;
    masks[(op1 === 3 ? 2 : op1) * 64 + (index & 0x3f)] = writableMask(index, true);
  }
  return masks;
}
