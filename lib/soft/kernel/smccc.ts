import { SmcccFilterAction, type VcpuExit } from '../../kvm/index.js';
import { ticksAt } from './clock.js';
import { callPsci, isPsci } from './psci.js';
import { PV_TIME_FEATURES, PV_TIME_ST } from './pvtime.js';
import { callTrng, isTrng } from './trng.js';
import type { SoftVcpu } from './vcpu.js';

/** Function identifiers (SMC Calling Convention, DEN0028; `include/linux/arm-smccc.h`). */
export const SMCCC_VERSION = 0x8000_0000;
const ARCH_FEATURES = 0x8000_0001;
const ARCH_WORKAROUND_2 = 0x8000_7fff;
const ARCH_WORKAROUND_1 = 0x8000_8000;
const ARCH_WORKAROUND_3 = 0x8000_3fff;
const VENDOR_UID = 0x8600_ff01;
const VENDOR_FEATURES = 0x8600_0000;
const VENDOR_PTP = 0x8600_0001;

const SUCCESS = 0n;
const NOT_SUPPORTED = -1n;
/** SMCCC_RET_NOT_REQUIRED: the mitigation is there without a call. */
const NOT_REQUIRED = -2n;
/** SMCCC_ARCH_WORKAROUND_RET_UNAFFECTED. */
const UNAFFECTED = 1n;
const VERSION_1_1 = 0x1_0001n;
/** 28b46fb6-2ec5-11e9-a9ca-4b564d003a74: KVM. */
const UID_KVM = [0xb66f_b428n, 0xe911_c52en, 0x564b_caa9n, 0x743a_004dn] as const;

/** Indices of the firmware bitmap registers (KVM_REG_ARM_*_BMAP). */
export const FwBitmap = { STD: 0, STD_HYP: 1, VENDOR_HYP: 2, VENDOR_HYP_2: 3 } as const;
const STD_TRNG = 1n;
const STD_HYP_PV_TIME = 1n;
const VENDOR_FEAT = 1n;
const VENDOR_PTP_BIT = 2n;
/** DISCOVER_IMPL_VER and DISCOVER_IMPL_CPUS, which user space answers by an SMCCC filter. */
const VENDOR_DISCOVER_IMPL = 3n;
/** What each bitmap may say. */
export const FW_BITMAP_VALID: readonly bigint[] = [
  STD_TRNG,
  STD_HYP_PV_TIME,
  VENDOR_FEAT | VENDOR_PTP_BIT,
  VENDOR_DISCOVER_IMPL,
];
/** What each bitmap says until it is set. */
export const FW_BITMAP_RESET: readonly bigint[] = [STD_TRNG, STD_HYP_PV_TIME, VENDOR_FEAT | VENDOR_PTP_BIT, 0n];

/** Answers an HVC or SMC by the SMC Calling Convention (kernel: kvm_smccc_call_handler). @returns the exit that it makes, if it makes one */
export function callSmccc(vcpu: SoftVcpu, smc: boolean): VcpuExit | undefined {
  // An SMC with an immediate is reserved (DEN0028 2.9); of an HVC KVM takes any.
  if (smc && vcpu.cpu.hvcImmediate !== 0) {
    vcpu.cpu.setX(0, BigInt.asUintN(64, NOT_SUPPORTED));
    return undefined;
  }
  const fn = vcpu.argument32(0);
  if (!smc && isWorkaround(fn)) {
    // Answered before anything else is saved, and so nothing else changes (kernel: hyp-entry.S).
    vcpu.cpu.setX(0, SUCCESS);
    return undefined;
  }
  switch (vcpu.vm.smcccFilter.action(fn)) {
    case SmcccFilterAction.FWD_TO_USER:
      return vcpu.exitHypercall(fn, smc);
    case SmcccFilterAction.DENY:
      vcpu.setResult(NOT_SUPPORTED);
      return undefined;
    default:
      break;
  }
  if (isPsci(fn)) return callPsci(vcpu, fn);
  answer(vcpu, fn);
  return undefined;
}

const isWorkaround = (fn: number): boolean =>
  fn === ARCH_WORKAROUND_1 || fn === ARCH_WORKAROUND_2 || fn === ARCH_WORKAROUND_3;

function answer(vcpu: SoftVcpu, fn: number): void {
  if (!isOffered(vcpu.vm.fwBitmaps, fn)) {
    vcpu.setResult(NOT_SUPPORTED);
    return;
  }
  if (isTrng(fn)) {
    callTrng(vcpu, fn);
    return;
  }
  switch (fn) {
    case SMCCC_VERSION:
      vcpu.setResult(VERSION_1_1);
      return;
    case ARCH_FEATURES:
      vcpu.setResult(archFeature(vcpu, vcpu.argument32(1)));
      return;
    case PV_TIME_FEATURES: {
      const asked = vcpu.argument32(1);
      const there = vcpu.stolenTime.enabled && (asked === PV_TIME_FEATURES || asked === PV_TIME_ST);
      vcpu.setResult(there ? SUCCESS : NOT_SUPPORTED);
      return;
    }
    case PV_TIME_ST:
      vcpu.setResult(vcpu.stolenTime.start() ?? NOT_SUPPORTED);
      return;
    case VENDOR_UID:
      vcpu.setResult(...UID_KVM);
      return;
    case VENDOR_FEATURES:
      vcpu.setResult(vcpu.vm.fwBitmaps[FwBitmap.VENDOR_HYP]!, 0n, vcpu.vm.fwBitmaps[FwBitmap.VENDOR_HYP_2]!, 0n);
      return;
    case VENDOR_PTP:
      answerPtp(vcpu);
      return;
    default:
      vcpu.setResult(NOT_SUPPORTED);
  }
}

/** Whether the firmware bitmaps let the guest call the function (kernel: kvm_smccc_test_fw_bmap). */
function isOffered(bitmaps: readonly bigint[], fn: number): boolean {
  const has = (bitmap: number, bit: bigint): boolean => (bitmaps[bitmap]! & bit) !== 0n;
  if (isTrng(fn)) return has(FwBitmap.STD, STD_TRNG);
  switch (fn) {
    case SMCCC_VERSION:
    case ARCH_FEATURES:
      return true;
    case PV_TIME_FEATURES:
    case PV_TIME_ST:
      return has(FwBitmap.STD_HYP, STD_HYP_PV_TIME);
    case VENDOR_UID:
    case VENDOR_FEATURES:
      return has(FwBitmap.VENDOR_HYP, VENDOR_FEAT);
    case VENDOR_PTP:
      return has(FwBitmap.VENDOR_HYP, VENDOR_PTP_BIT);
    default:
      return false;
  }
}

/** The software CPU speculates nothing, so no guest needs a workaround. */
function archFeature(vcpu: SoftVcpu, fn: number): bigint {
  switch (fn) {
    case PV_TIME_FEATURES:
      return isOffered(vcpu.vm.fwBitmaps, PV_TIME_FEATURES) ? SUCCESS : NOT_SUPPORTED;
    case ARCH_WORKAROUND_1:
    case ARCH_WORKAROUND_3:
      return UNAFFECTED;
    case ARCH_WORKAROUND_2:
      return NOT_REQUIRED;
    default:
      return NOT_SUPPORTED;
  }
}

/** The wall clock and the counter at the same time (`Documentation/virt/kvm/arm/ptp_kvm.rst`). */
function answerPtp(vcpu: SoftVcpu): void {
  const which = vcpu.argument32(1);
  if (which > 1) {
    vcpu.setResult(NOT_SUPPORTED);
    return;
  }
  const { clock, timers } = vcpu.vm;
  const wallNs = BigInt(Math.floor(clock.wallMs() * 1e3)) * 1000n;
  const offset = which === 0 ? timers.virtualOffset : timers.physicalOffset;
  const cycles = BigInt.asUintN(64, BigInt(ticksAt(clock.nowNs())) - offset);
  vcpu.setResult(wallNs >> 32n, wallNs & 0xffff_ffffn, cycles >> 32n, cycles & 0xffff_ffffn);
}
