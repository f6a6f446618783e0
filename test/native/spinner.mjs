// A guest of this host's architecture that spins, for child processes and Workers.
import { Reg } from '#lib/kvm/index.js';

const isArm64 = process.arch === 'arm64';
const TARGET_GENERIC_V8 = 5;

/** Where its RAM is: on x64 it ends at the reset vector. */
export const RAM_SIZE = 0x20_0000;
export const RAM = isArm64 ? 0x8000_0000 : 2 ** 32 - RAM_SIZE;

/** Puts a jump to itself where a vCPU begins. @param {Uint8Array} ram */
export function putSpin(ram) {
  if (isArm64) ram.set([0x00, 0x00, 0x00, 0x14]);
  else ram.set([0xeb, 0xfe], RAM_SIZE - 16);
}

/** What a vCPU needs before it runs. */
export function prepareVcpu(vcpu) {
  if (!isArm64) return;
  vcpu.init(TARGET_GENERIC_V8, 0);
  vcpu.setOneReg(Reg.PC, BigInt(RAM));
}
