import type { SoftVcpu } from './vcpu.js';

/** Function identifiers of the True Random Number Generator Firmware Interface (Arm DEN 0098). */
export const TRNG_VERSION = 0x8400_0050;
const TRNG_FEATURES = 0x8400_0051;
const TRNG_GET_UUID = 0x8400_0052;
export const TRNG_RND32 = 0x8400_0053;
export const TRNG_RND64 = 0xc400_0053;

const SUCCESS = 0n;
const NOT_SUPPORTED = -1n;
const INVALID_PARAMETERS = -2n;
const VERSION_1_0 = 0x1_0000n;
/** 0d21e000-4384-11eb-8070-5244554e5a4c: the TRNG of KVM. */
const UUID = [0x00e0_210dn, 0xeb11_8443n, 0x4452_7080n, 0x4c5a_4e55n] as const;

/** Whether {@link callTrng} is who answers this function. */
export const isTrng = (fn: number): boolean => (fn >= TRNG_VERSION && fn <= TRNG_RND32) || fn === TRNG_RND64;

/** Answers a TRNG call (kernel: kvm_trng_call). */
export function callTrng(vcpu: SoftVcpu, fn: number): void {
  switch (fn) {
    case TRNG_VERSION:
      vcpu.setResult(VERSION_1_0);
      return;
    case TRNG_FEATURES:
      vcpu.setResult(isTrng(vcpu.argument32(1)) ? SUCCESS : NOT_SUPPORTED);
      return;
    case TRNG_GET_UUID:
      vcpu.setResult(...UUID);
      return;
    default:
      answerRandom(vcpu, fn === TRNG_RND64 ? 64 : 32);
  }
}

/** Up to three registers of entropy, most significant first, the bits that were not asked for clear. */
function answerRandom(vcpu: SoftVcpu, width: 32 | 64): void {
  const bits = vcpu.argument32(1);
  if (bits > width * 3) {
    vcpu.setResult(INVALID_PARAMETERS);
    return;
  }
  const words = [0n, 0n, 0n];
  for (let i = 0, left = bits; left > 0; i++, left -= width) {
    words[2 - i] = BigInt.asUintN(Math.min(left, width), vcpu.vm.random64());
  }
  vcpu.setResult(SUCCESS, words[0]!, words[1]!, words[2]!);
}
