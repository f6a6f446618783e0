import { MpState, SystemEvent, type VcpuExit } from '../../kvm/index.js';
import { SMCCC_VERSION } from './smccc.js';
import type { SoftVcpu } from './vcpu.js';
import { MPIDR_AFFINITY } from './vcpu-init.js';

/** Function identifiers (Power State Coordination Interface, DEN0022). Bit 30 makes the 64-bit form. */
const PSCI_VERSION = 0x8400_0000;
const CPU_SUSPEND = 0x8400_0001;
const CPU_OFF = 0x8400_0002;
const CPU_ON = 0x8400_0003;
const AFFINITY_INFO = 0x8400_0004;
const MIGRATE_INFO_TYPE = 0x8400_0006;
const SYSTEM_OFF = 0x8400_0008;
const SYSTEM_RESET = 0x8400_0009;
const PSCI_FEATURES = 0x8400_000a;
const SYSTEM_SUSPEND = 0x8400_000e;
const SYSTEM_RESET2 = 0x8400_0012;
const SYSTEM_OFF2 = 0x8400_0015;
const FN64 = 0x4000_0000;
/** The functions that have a 64-bit form. */
const HAS_FN64 = new Set([CPU_SUSPEND, CPU_ON, AFFINITY_INFO, SYSTEM_SUSPEND, SYSTEM_RESET2, SYSTEM_OFF2]);
/** KVM's identifiers of PSCI 0.1: CPU_OFF and CPU_ON. */
const KVM_CPU_OFF = 0x95c1_ba5f;
const KVM_CPU_ON = 0x95c1_ba60;

const SUCCESS = 0n;
const NOT_SUPPORTED = -1n;
const INVALID_PARAMETERS = -2n;
const ALREADY_ON = -4n;
const INTERNAL_FAILURE = -6n;

const AFFINITY_ON = 0n;
const AFFINITY_OFF = 1n;
/** No Trusted OS, or one that needs no migration. */
const TOS_NOT_PRESENT = 2n;
const VENDOR_RESET = 0x8000_0000;
const OFF_TYPE_HIBERNATE = 1;
/** KVM_SYSTEM_EVENT_RESET_FLAG_PSCI_RESET2 and KVM_SYSTEM_EVENT_SHUTDOWN_FLAG_PSCI_OFF2. */
const FLAG_PSCI_RESET2 = 1n;
const FLAG_PSCI_OFF2 = 1n;

/** Versions as KVM_REG_ARM_PSCI_VERSION has them: `major << 16 | minor`. */
export const PSCI_0_1 = 1n;
export const PSCI_0_2 = 2n;
export const PSCI_1_3 = 0x1_0003n;
/** Every version that KVM_REG_ARM_PSCI_VERSION takes where the vCPU has KVM_ARM_VCPU_PSCI_0_2. */
export const PSCI_VERSIONS: readonly bigint[] = [PSCI_0_2, 0x1_0000n, 0x1_0001n, 0x1_0002n, PSCI_1_3];

/** Whether {@link callPsci} is who answers this function. */
export const isPsci = (fn: number): boolean =>
  (fn >= PSCI_VERSION && fn < PSCI_VERSION + 0x20) ||
  (fn >= PSCI_VERSION + FN64 && fn < PSCI_VERSION + FN64 + 0x20) ||
  (fn >= KVM_CPU_OFF - 1 && fn <= KVM_CPU_ON + 1);

/** Answers a PSCI call (kernel: kvm_psci_call). @returns the exit that it makes, if it makes one */
export function callPsci(vcpu: SoftVcpu, fn: number): VcpuExit | undefined {
  const version = vcpu.psciVersion;
  if (version === PSCI_0_1) {
    vcpu.setResult(callVersion01(vcpu, fn));
    return undefined;
  }
  const wide = fn >= FN64 + PSCI_VERSION;
  const base = wide ? fn - FN64 : fn;
  if (wide && !HAS_FN64.has(base)) {
    vcpu.setResult(NOT_SUPPORTED);
    return undefined;
  }
  const arg = (n: number): bigint => (wide ? vcpu.cpu.getX(n) : vcpu.cpu.getX(n) & 0xffff_ffffn);
  switch (base) {
    case PSCI_VERSION:
      vcpu.setResult(version);
      return undefined;
    case CPU_SUSPEND:
      vcpu.setResult(SUCCESS);
      vcpu.halt();
      return undefined;
    case CPU_OFF:
      vcpu.setResult(SUCCESS);
      vcpu.powerOff();
      return undefined;
    case CPU_ON:
      vcpu.setResult(cpuOn(vcpu, arg(1), arg(2), arg(3)));
      return undefined;
    case AFFINITY_INFO:
      vcpu.setResult(affinityInfo(vcpu, arg(1), arg(2)));
      return undefined;
    case MIGRATE_INFO_TYPE:
      vcpu.setResult(TOS_NOT_PRESENT);
      return undefined;
    case SYSTEM_OFF:
      vcpu.setResult(INTERNAL_FAILURE);
      return systemEvent(vcpu, SystemEvent.SHUTDOWN, 0n);
    case SYSTEM_RESET:
      vcpu.setResult(INTERNAL_FAILURE);
      return systemEvent(vcpu, SystemEvent.RESET, 0n);
    default:
      return version >= 0x1_0000n ? callVersion1(vcpu, base, version, wide) : notSupported(vcpu);
  }
}

function notSupported(vcpu: SoftVcpu): undefined {
  vcpu.setResult(NOT_SUPPORTED);
}

function callVersion1(vcpu: SoftVcpu, base: number, version: bigint, wide: boolean): VcpuExit | undefined {
  switch (base) {
    case PSCI_FEATURES:
      vcpu.setResult(features(vcpu, vcpu.argument32(1), version));
      return undefined;
    case SYSTEM_SUSPEND:
      if (!vcpu.vm.systemSuspend) return notSupported(vcpu);
      // User space reads the arguments and sets the results: it may refuse, or resume the vCPU where the guest asked.
      if (!wide) narrowArguments(vcpu);
      return vcpu.exitSystemEvent(SystemEvent.SUSPEND);
    case SYSTEM_RESET2: {
      if (version < 0x1_0001n) return notSupported(vcpu);
      const type = vcpu.argument32(1);
      if (type !== 0 && type < VENDOR_RESET) {
        vcpu.setResult(INVALID_PARAMETERS);
        return undefined;
      }
      // The arguments stay for user space to read.
      if (!wide) narrowArguments(vcpu);
      vcpu.cpu.setX(0, BigInt.asUintN(64, INTERNAL_FAILURE));
      return systemEvent(vcpu, SystemEvent.RESET, FLAG_PSCI_RESET2);
    }
    case SYSTEM_OFF2: {
      if (version < PSCI_1_3) return notSupported(vcpu);
      const type = vcpu.argument32(1);
      // Type 0 means hibernation too: PSCI 1.3 beta kernels passed it.
      const reserved = wide ? vcpu.cpu.getX(2) : BigInt(vcpu.argument32(2));
      if ((type !== 0 && type !== OFF_TYPE_HIBERNATE) || reserved !== 0n) {
        vcpu.setResult(INVALID_PARAMETERS);
        return undefined;
      }
      vcpu.setResult(INTERNAL_FAILURE);
      return systemEvent(vcpu, SystemEvent.SHUTDOWN, FLAG_PSCI_OFF2);
    }
    default:
      return notSupported(vcpu);
  }
}

/** The 32-bit forms take the low halves of X1 to X3 (kernel: kvm_psci_narrow_to_32bit). */
function narrowArguments(vcpu: SoftVcpu): void {
  for (let n = 1; n <= 3; n++) vcpu.cpu.setX(n, BigInt(vcpu.argument32(n)));
}

function features(vcpu: SoftVcpu, fn: number, version: bigint): bigint {
  if (fn === SMCCC_VERSION) return SUCCESS;
  const wide = fn >= FN64 + PSCI_VERSION;
  const base = wide ? fn - FN64 : fn;
  if (wide && !HAS_FN64.has(base)) return NOT_SUPPORTED;
  switch (base) {
    case PSCI_VERSION:
    case CPU_SUSPEND:
    case CPU_OFF:
    case CPU_ON:
    case AFFINITY_INFO:
    case MIGRATE_INFO_TYPE:
    case SYSTEM_OFF:
    case SYSTEM_RESET:
    case PSCI_FEATURES:
      return SUCCESS;
    case SYSTEM_SUSPEND:
      return vcpu.vm.systemSuspend ? SUCCESS : NOT_SUPPORTED;
    case SYSTEM_RESET2:
      return version >= 0x1_0001n ? SUCCESS : NOT_SUPPORTED;
    case SYSTEM_OFF2:
      return version >= PSCI_1_3 ? BigInt(OFF_TYPE_HIBERNATE) : NOT_SUPPORTED;
    default:
      return NOT_SUPPORTED;
  }
}

function callVersion01(vcpu: SoftVcpu, fn: number): bigint {
  if (fn === KVM_CPU_OFF) {
    vcpu.powerOff();
    return SUCCESS;
  }
  if (fn === KVM_CPU_ON) return cpuOn(vcpu, vcpu.cpu.getX(1), vcpu.cpu.getX(2), vcpu.cpu.getX(3));
  return NOT_SUPPORTED;
}

function cpuOn(vcpu: SoftVcpu, target: bigint, entry: bigint, context: bigint): bigint {
  if ((target & ~MPIDR_AFFINITY) !== 0n) return INVALID_PARAMETERS;
  const other = vcpu.vm.vcpuAt(target);
  if (other === undefined) return INVALID_PARAMETERS;
  if (other.mpState !== MpState.STOPPED) {
    return vcpu.psciVersion === PSCI_0_1 ? INVALID_PARAMETERS : ALREADY_ON;
  }
  other.powerOn(entry, context);
  return SUCCESS;
}

function affinityInfo(vcpu: SoftVcpu, target: bigint, lowestLevel: bigint): bigint {
  if ((target & ~MPIDR_AFFINITY) !== 0n || lowestLevel > 3n) return INVALID_PARAMETERS;
  // Aff3 is bits 39..32, with a gap below it.
  const ignored = lowestLevel === 0n ? 0n : lowestLevel === 3n ? 0xff_ffffn : (1n << (8n * lowestLevel)) - 1n;
  const mask = MPIDR_AFFINITY & ~ignored;
  let found = false;
  for (const other of vcpu.vm.vcpuList()) {
    if ((other.mpidr & mask) !== (target & mask)) continue;
    found = true;
    if (other.mpState !== MpState.STOPPED) return AFFINITY_ON;
  }
  return found ? AFFINITY_OFF : INVALID_PARAMETERS;
}

/** Every vCPU stops. Should user space run this one again, the call has failed: its result says so. */
function systemEvent(vcpu: SoftVcpu, type: SystemEvent, flags: bigint): VcpuExit {
  for (const other of vcpu.vm.vcpuList()) other.stop();
  return vcpu.exitSystemEvent(type, flags);
}
