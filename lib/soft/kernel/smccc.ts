import { KvmError, SmcccFilterAction, type VcpuExit } from '../../kvm/index.js';
import { ticksAt } from './clock.js';
import { callPsci, isPsci } from './psci.js';
import type { SoftVcpu } from './vcpu.js';

/** Function identifiers (SMC Calling Convention, DEN0028; `include/linux/arm-smccc.h`). */
export const SMCCC_VERSION = 0x8000_0000;
const ARCH_FEATURES = 0x8000_0001;
const ARCH_WORKAROUND_2 = 0x8000_7fff;
const ARCH_WORKAROUND_1 = 0x8000_8000;
const ARCH_WORKAROUND_3 = 0x8000_3fff;
const TRNG_VERSION = 0x8400_0050;
const TRNG_FEATURES = 0x8400_0051;
const TRNG_GET_UUID = 0x8400_0052;
const TRNG_RND32 = 0x8400_0053;
const TRNG_RND64 = 0xc400_0053;
const VENDOR_UID = 0x8600_ff01;
const VENDOR_FEATURES = 0x8600_0000;
const VENDOR_PTP = 0x8600_0001;

const SUCCESS = 0n;
const NOT_SUPPORTED = -1n;
const INVALID_PARAMETERS = -3n;
/** TRNG: no entropy can be had in that size. */
const TRNG_INVALID_PARAMETERS = -2n;
/** SMCCC_RET_NOT_REQUIRED: the mitigation is there without a call. */
const NOT_REQUIRED = -2n;
/** SMCCC_ARCH_WORKAROUND_RET_UNAFFECTED. */
const UNAFFECTED = 1n;
const VERSION_1_1 = 0x1_0001n;
const TRNG_VERSION_1_0 = 0x1_0000n;
/** 28b46fb6-2ec5-11e9-a9ca-4b564d003a74: KVM. */
const UID_KVM = [0xb66f_b428n, 0xe911_c52en, 0x564b_caa9n, 0x743a_004dn] as const;
/** 0d21e000-4384-11eb-8070-5244554e5a4c: the TRNG of KVM. */
const UID_TRNG = [0x00e0_210dn, 0xeb11_8443n, 0x4452_7080n, 0x4c5a_4e55n] as const;

/** Bits of the firmware bitmap registers (KVM_REG_ARM_*_BMAP). */
export const FwBitmap = { STD: 0, STD_HYP: 1, VENDOR_HYP: 2, VENDOR_HYP_2: 3 } as const;
const STD_TRNG = 1n;
const VENDOR_FEAT = 1n;
const VENDOR_PTP_BIT = 2n;
/** What each bitmap may say, and says until it is set. No paravirtual time: its bit is never set. */
export const FW_BITMAP_VALID: readonly bigint[] = [STD_TRNG, 0n, VENDOR_FEAT | VENDOR_PTP_BIT, 0n];

/** Ranges that a filter can't take: the Arm Architecture calls (kernel: init_smccc_filter). */
const RESERVED: readonly (readonly [number, number])[] = [
  [0x8000_0000, 0x8000_ffff],
  [0xc000_0000, 0xc000_ffff],
];

interface FilterRange {
  readonly first: number;
  readonly last: number;
  readonly action: number;
}

/** `struct kvm_smccc_filter`: base, nr_functions, action, 15 bytes of padding. */
const FILTER_SIZE = 24;

/** The VM's SMCCC filter (`Documentation/virt/kvm/devices/vm.rst` 6.1). */
export class SmcccFilter {
  readonly #ranges: FilterRange[] = [];

  /** @throws KvmError EINVAL, EEXIST overlapping an earlier or a reserved range */
  add(value: Uint8Array): void {
    if (value.length < FILTER_SIZE) {
      throw new KvmError('EFAULT', 'KVM_SET_DEVICE_ATTR', `struct kvm_smccc_filter has ${FILTER_SIZE} bytes`);
    }
    const view = new DataView(value.buffer, value.byteOffset, FILTER_SIZE);
    const first = view.getUint32(0, true);
    const last = first + view.getUint32(4, true) - 1;
    const action = view.getUint8(8);
    for (let i = 9; i < FILTER_SIZE; i++) {
      if (view.getUint8(i) !== 0) throw new KvmError('EINVAL', 'KVM_SET_DEVICE_ATTR', 'the padding is not zero');
    }
    if (last < first || last > 0xffff_ffff || action > SmcccFilterAction.FWD_TO_USER) {
      throw new KvmError('EINVAL', 'KVM_SET_DEVICE_ATTR', 'an empty range, one past 2^32, or an unknown action');
    }
    const overlaps = (from: number, to: number): boolean => first <= to && from <= last;
    if (RESERVED.some(([from, to]) => overlaps(from, to)) || this.#ranges.some((r) => overlaps(r.first, r.last))) {
      throw new KvmError('EEXIST', 'KVM_SET_DEVICE_ATTR', 'the range overlaps a filtered or reserved one');
    }
    this.#ranges.push({ first, last, action });
  }

  action(fn: number): number {
    for (const range of this.#ranges) if (fn >= range.first && fn <= range.last) return range.action;
    return SmcccFilterAction.HANDLE;
  }
}

/** Answers an HVC or SMC by the SMC Calling Convention (kernel: kvm_smccc_call_handler). @returns the exit that it makes, if it makes one */
export function callSmccc(vcpu: SoftVcpu, smc: boolean): VcpuExit | undefined {
  const fn = Number(vcpu.cpu.getX(0) & 0xffff_ffffn);
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

function answer(vcpu: SoftVcpu, fn: number): void {
  const has = (bitmap: number, bit: bigint): boolean => (vcpu.vm.fwBitmaps[bitmap]! & bit) !== 0n;
  switch (fn) {
    case SMCCC_VERSION:
      vcpu.setResult(VERSION_1_1);
      return;
    case ARCH_FEATURES:
      vcpu.setResult(archFeature(Number(vcpu.cpu.getX(1) & 0xffff_ffffn)));
      return;
    case ARCH_WORKAROUND_1:
    case ARCH_WORKAROUND_2:
    case ARCH_WORKAROUND_3:
      vcpu.setResult(SUCCESS);
      return;
    case TRNG_VERSION:
    case TRNG_FEATURES:
    case TRNG_GET_UUID:
    case TRNG_RND32:
    case TRNG_RND64:
      if (has(FwBitmap.STD, STD_TRNG)) answerTrng(vcpu, fn);
      else vcpu.setResult(NOT_SUPPORTED);
      return;
    case VENDOR_UID:
      if (has(FwBitmap.VENDOR_HYP, VENDOR_FEAT)) vcpu.setResult(...UID_KVM);
      else vcpu.setResult(NOT_SUPPORTED);
      return;
    case VENDOR_FEATURES:
      if (has(FwBitmap.VENDOR_HYP, VENDOR_FEAT)) {
        vcpu.setResult(vcpu.vm.fwBitmaps[FwBitmap.VENDOR_HYP]!, 0n, vcpu.vm.fwBitmaps[FwBitmap.VENDOR_HYP_2]!, 0n);
      } else {
        vcpu.setResult(NOT_SUPPORTED);
      }
      return;
    case VENDOR_PTP:
      if (has(FwBitmap.VENDOR_HYP, VENDOR_PTP_BIT)) answerPtp(vcpu);
      else vcpu.setResult(NOT_SUPPORTED);
      return;
    default:
      vcpu.setResult(NOT_SUPPORTED);
  }
}

/** The software CPU speculates nothing, so no guest needs a workaround. */
function archFeature(fn: number): bigint {
  switch (fn) {
    case ARCH_WORKAROUND_1:
    case ARCH_WORKAROUND_3:
      return UNAFFECTED;
    case ARCH_WORKAROUND_2:
      return NOT_REQUIRED;
    default:
      return NOT_SUPPORTED;
  }
}

function answerTrng(vcpu: SoftVcpu, fn: number): void {
  switch (fn) {
    case TRNG_VERSION:
      vcpu.setResult(TRNG_VERSION_1_0);
      return;
    case TRNG_FEATURES: {
      const asked = Number(vcpu.cpu.getX(1) & 0xffff_ffffn);
      const there = (asked >= TRNG_VERSION && asked <= TRNG_RND32) || asked === TRNG_RND64;
      vcpu.setResult(there ? SUCCESS : NOT_SUPPORTED);
      return;
    }
    case TRNG_GET_UUID:
      vcpu.setResult(...UID_TRNG);
      return;
    default:
      answerRandom(vcpu, fn === TRNG_RND64 ? 64 : 32);
  }
}

/** TRNG_RND: up to three registers of entropy, most significant first, bits that were not asked for clear (DEN0098). */
function answerRandom(vcpu: SoftVcpu, width: 32 | 64): void {
  const bits = width === 32 ? Number(vcpu.cpu.getX(1) & 0xffff_ffffn) : Number(vcpu.cpu.getX(1));
  if (bits < 1 || bits > width * 3) {
    vcpu.setResult(TRNG_INVALID_PARAMETERS);
    return;
  }
  const words = [0n, 0n, 0n];
  for (let i = 0, left = bits; left > 0; i++, left -= width) {
    words[2 - i] = BigInt.asUintN(Math.min(left, width), vcpu.vm.random64());
  }
  vcpu.setResult(SUCCESS, words[0]!, words[1]!, words[2]!);
}

/** The wall clock and the counter at the same time (`Documentation/virt/kvm/arm/ptp_kvm.rst`). */
function answerPtp(vcpu: SoftVcpu): void {
  const which = vcpu.cpu.getX(1) & 0xffff_ffffn;
  if (which > 1n) {
    vcpu.setResult(INVALID_PARAMETERS);
    return;
  }
  const { clock, timers } = vcpu.vm;
  const wallNs = BigInt(Math.floor(clock.wallMs() * 1e3)) * 1000n;
  const offset = which === 0n ? timers.virtualOffset : timers.physicalOffset;
  const cycles = BigInt.asUintN(64, BigInt(ticksAt(clock.nowNs())) - offset);
  vcpu.setResult(wallNs >> 32n, wallNs & 0xffff_ffffn, cycles >> 32n, cycles & 0xffff_ffffn);
}
