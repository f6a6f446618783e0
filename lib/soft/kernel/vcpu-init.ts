import { KvmError, TARGET_GENERIC_V8, VcpuFeature } from '../../kvm/index.js';

const SYSCALL = 'KVM_ARM_VCPU_INIT';
const bit = (feature: number): number => 1 << feature;

/** KVM_VCPU_VALID_FEATURES: every feature that Linux 7.3 has heard of. */
const KNOWN = bit(VcpuFeature.PMU_V3_STRICT + 1) - 1;
/** Pointer authentication, of addresses and generic: both or none. */
const PTRAUTH = bit(VcpuFeature.PTRAUTH_ADDRESS) | bit(VcpuFeature.PTRAUTH_GENERIC);
/** What this processor has. E2H0 restricts HAS_EL2 and means nothing without it, so the kernel takes it anywhere. */
const SUPPORTED =
  bit(VcpuFeature.POWER_OFF) |
  bit(VcpuFeature.PSCI_0_2) |
  bit(VcpuFeature.PMU_V3) |
  PTRAUTH |
  bit(VcpuFeature.HAS_EL2_E2H0);

/**
 * Checks KVM_ARM_VCPU_INIT's arguments (kernel: kvm_vcpu_set_target).
 * @param current the features that the VM's vCPUs already have; `undefined` before the first
 * @returns the features without POWER_OFF, which is not kept
 * @throws KvmError EINVAL target or features that are unsupported or not the VM's; ENOENT features that no kernel knows yet
 */
export function checkInit(target: number, features: number, current: number | undefined): number {
  if (target !== TARGET_GENERIC_V8) throw new KvmError('EINVAL', SYSCALL, `target ${target} is not GENERIC_V8 (5)`);
  if (!Number.isSafeInteger(features) || features < 0 || (features & ~KNOWN) !== 0 || features > 0xffff_ffff) {
    throw new KvmError('ENOENT', SYSCALL, `features 0x${features.toString(16)} are not all known`);
  }
  if ((features & ~SUPPORTED) !== 0) {
    throw new KvmError('EINVAL', SYSCALL, `features 0x${features.toString(16)} are not all supported`);
  }
  if ((features & PTRAUTH) !== 0 && (features & PTRAUTH) !== PTRAUTH) {
    throw new KvmError('EINVAL', SYSCALL, 'PTRAUTH_ADDRESS and PTRAUTH_GENERIC come together');
  }
  const kept = features & ~bit(VcpuFeature.POWER_OFF);
  if (current !== undefined && current !== kept) {
    throw new KvmError('EINVAL', SYSCALL, `the VM's vCPUs have features 0x${current.toString(16)}`);
  }
  return kept;
}

/** The affinity fields of MPIDR_EL1: Aff3, and Aff2.Aff1.Aff0. */
export const MPIDR_AFFINITY = 0xff_00ff_ffffn;

/** MPIDR_EL1 of a vCPU (kernel: reset_mpidr): four bits of Aff0, so that one ICC_SGI1R_EL1 reaches a cluster. */
export const affinityOf = (id: number): number => (id & 0xf) | (((id >> 4) & 0xff) << 8) | (((id >> 12) & 0xff) << 16);
