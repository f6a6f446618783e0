import type { MemoryHandle, Native, SystemHandle, VcpuHandle, VmHandle } from '#lib/host/native.js';
import { buffer, handle } from './native.ts';

/** Two pages that end where 32-bit addresses do: the reset vector, F000:FFF0 with the base FFFF_0000, is in the second. */
const RAM = 0xffff_e000;
const RAM_SIZE = 0x2000;
/** Where {@link makeGuest} puts code, and a jump to it at the reset vector. */
const CODE = 0x1000;
const RESET = 0x1ff0;
const JMP_TO_CODE = [0xe9, 0x0d, 0xf0];

/** An address, in the data segment, that nothing answers. */
export const DEVICE = 0x1000;
const lo = DEVICE & 0xff;
const hi = DEVICE >> 8;

/** Real-mode instructions. */
export const movAl = (value: number): number[] => [0xb0, value];
/** mov [DEVICE + offset], al */
export const storeAl = (offset = 0): number[] => [0xa2, lo + offset, hi];
/** mov al, [DEVICE + offset] */
export const loadAl = (offset = 0): number[] => [0xa0, lo + offset, hi];
/** mov [DEVICE], eax */
export const storeEax = [0x66, 0xa3, lo, hi];
export const movEax = (value: number): number[] => [
  0x66,
  0xb8,
  ...[0, 8, 16, 24].map((shift) => (value >>> shift) & 0xff),
];
/** out port, al */
export const out = (port: number): number[] => [0xe6, port];
export const HLT = [0xf4];
/** jmp to itself */
export const SPIN = [0xeb, 0xfe];

/** Offsets in `struct kvm_run`, and exit reasons of x86. */
export const Run = {
  EXIT_REASON: 8,
  IO_DATA_OFFSET: 40,
  MMIO_ADDR: 32,
  MMIO_DATA: 40,
  MMIO_LEN: 48,
  MMIO_IS_WRITE: 52,
} as const;
export const Exit = { IO: 2, HLT: 5, MMIO: 6 } as const;

export interface Guest {
  readonly system: SystemHandle;
  readonly vm: VmHandle;
  readonly memory: MemoryHandle;
  readonly ram: Uint8Array;
  readonly vcpu: VcpuHandle;
  readonly run: DataView;
}

/** A VM with one vCPU that starts, in real mode, at `code`. */
export function makeGuest(native: Native, ...code: readonly number[][]): Guest {
  const system = handle(native.openKvm('/dev/kvm'));
  const vm = handle(native.createVm(system, 0));
  const memory = handle(native.createMemory(RAM_SIZE, 0, 0));
  const ram = new Uint8Array(buffer(native.memoryBuffer(memory)));
  ram.set(JMP_TO_CODE, RESET);
  ram.set(code.flat(), CODE);
  const result = native.setUserMemoryRegion(vm, 0, 0, RAM, RAM_SIZE, memory, 0);
  if (result !== 0) throw new Error(`KVM_SET_USER_MEMORY_REGION: ${result}`);
  const vcpu = handle(native.createVcpu(vm, 0));
  const run = new DataView(buffer(native.runArea(vcpu)));
  return { system, vm, memory, ram, vcpu, run };
}

/** KVM_RUN until something other than the time ends it: on a busy machine a call's time can be over before the guest runs. */
export function runToExit(native: Native, vcpu: VcpuHandle): number {
  for (;;) {
    const result = native.vcpuRun(vcpu, 1_000_000_000);
    if (result !== 1) return result;
  }
}
