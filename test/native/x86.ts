import type { VcpuHandle } from '#lib/host/native.js';
import type { Isa } from './guest.ts';
import { handle } from './native.ts';

/** Two pages that end where 32-bit addresses do: the reset vector, F000:FFF0 with the base FFFF_0000, is in the second. */
const RAM = 0xffff_e000;
const RAM_SIZE = 0x2000;
/** Where code is put, and a jump to it at the reset vector. */
const CODE = 0x1000;
const RESET = 0x1ff0;
const JMP_TO_CODE = [0xe9, 0x0d, 0xf0];
/** In the data segment. */
const DEVICE = 0x1000;
const device = (offset = 0): number[] => [(DEVICE + offset) & 0xff, (DEVICE + offset) >> 8];

/** `struct kvm_regs`. */
const REGS = { SIZE: 144, RAX: 0, RIP: 128 } as const;

const SPIN = [0xeb, 0xfe];

/** Real mode; A is AL, or EAX. */
export const x86: Isa = {
  device: DEVICE,
  haltExit: 5,
  movA: (value) => [0xb0, value],
  movWord: (value) => [0x66, 0xb8, ...[0, 8, 16, 24].map((shift) => (value >>> shift) & 0xff)],
  countA: [0xfe, 0xc0],
  storeA: (offset) => [0xa2, ...device(offset)],
  loadA: (offset) => [0xa0, ...device(offset)],
  storeWord: [0x66, 0xa3, ...device()],
  halt: [0xf4],
  spin: SPIN,
  jumpBack: (bytes) => [0xeb, -(bytes + 2) & 0xff],
  ram: RAM,
  ramSize: () => RAM_SIZE,
  put: (ram, code) => {
    ram.set(JMP_TO_CODE, RESET);
    ram.set(code, CODE);
  },
  prepare: () => {},
  readA: (native, vcpu) => {
    const regs = new Uint8Array(REGS.SIZE);
    const result = native.getRegs!(vcpu, regs);
    return result < 0 ? result : regs[REGS.RAX]!;
  },
  leaveSpin: (native, vcpu) => {
    const regs = new Uint8Array(REGS.SIZE);
    native.getRegs!(vcpu, regs);
    const view = new DataView(regs.buffer);
    view.setBigUint64(REGS.RIP, view.getBigUint64(REGS.RIP, true) + BigInt(SPIN.length), true);
    return native.setRegs!(vcpu, regs);
  },
  // A second vCPU of a VM with an irqchip waits for INIT.
  addWaiting: (native, vm): VcpuHandle => {
    const result = native.createIrqchip(vm);
    if (result !== 0) throw new Error(`KVM_CREATE_IRQCHIP: ${result}`);
    handle(native.createVcpu(vm, 0));
    return handle(native.createVcpu(vm, 1));
  },
};

/** out port, al */
export const out = (port: number): number[] => [0xe6, port];
/** KVM_EXIT_IO, and where `struct kvm_run` says where its data is. */
export const Io = { EXIT: 2, DATA_OFFSET: 40 } as const;
