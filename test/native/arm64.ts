import { Reg, TARGET_GENERIC_V8, VcpuFeature } from '#lib/kvm/index.js';
import { addImm, b, hvc, load, mov, store } from '../contract/asm.ts';
import type { Isa } from './guest.ts';
import { handle } from './native.ts';

/** From 0 on, where a vCPU begins. */
const RAM = 0;
const DEVICE = 0x900_0000;
const PSCI_SYSTEM_OFF = 0x8400_0008;
const FEATURES = 1 << VcpuFeature.PSCI_0_2;
/** A, and what has the device's address. */
const [A, BASE] = [0, 1];

const bytes = (...words: readonly number[]): number[] =>
  words.flatMap((word) => [0, 8, 16, 24].map((shift) => (word >>> shift) & 0xff));

const register = (value: bigint): Uint8Array => new Uint8Array(new BigUint64Array([value]).buffer);

/** At EL1, with the MMU off; A is X0, and X1 has the device's address. */
export const arm64: Isa = {
  device: DEVICE,
  haltExit: 24,
  movA: (value) => bytes(...mov(A, value)),
  movWord: (value) => bytes(...mov(A, value)),
  countA: bytes(addImm(A, A, 1)),
  storeA: (offset) => bytes(store(1, A, BASE, offset)),
  loadA: (offset) => bytes(load(1, A, BASE, offset)),
  storeWord: bytes(store(4, A, BASE)),
  halt: bytes(...mov(A, PSCI_SYSTEM_OFF), hvc()),
  spin: bytes(b(0)),
  jumpBack: (length) => bytes(b(-length / 4)),
  ram: RAM,
  ramSize: (pageSize) => pageSize,
  put: (ram, code) => ram.set(code),
  prepare: (native, vcpu) => {
    const result = native.vcpuInit(vcpu, TARGET_GENERIC_V8, FEATURES);
    if (result !== 0) throw new Error(`KVM_ARM_VCPU_INIT: ${result}`);
    native.setOneReg(vcpu, Reg.x(BASE), register(BigInt(DEVICE)));
  },
  readA: (native, vcpu) => {
    const value = new Uint8Array(8);
    const result = native.getOneReg(vcpu, Reg.x(A), value);
    return result < 0 ? result : value[0]!;
  },
  leaveSpin: (native, vcpu) => {
    const value = new BigUint64Array(1);
    const result = native.getOneReg(vcpu, Reg.PC, new Uint8Array(value.buffer));
    return result < 0 ? result : native.setOneReg(vcpu, Reg.PC, register(value[0]! + 4n));
  },
  // A vCPU that is off waits for PSCI's CPU_ON.
  addWaiting: (native, vm) => {
    const vcpu = handle(native.createVcpu(vm, 0));
    const result = native.vcpuInit(vcpu, TARGET_GENERIC_V8, FEATURES | (1 << VcpuFeature.POWER_OFF));
    if (result !== 0) throw new Error(`KVM_ARM_VCPU_INIT: ${result}`);
    return vcpu;
  },
};
