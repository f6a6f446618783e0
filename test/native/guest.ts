import type { MemoryHandle, Native, SystemHandle, VcpuHandle, VmHandle } from '#lib/host/native.js';
import { arm64 } from './arm64.ts';
import { buffer, handle } from './native.ts';
import { x86 } from './x86.ts';

/** What a test's guest is made of, for the hosts of one architecture: its machine code in bytes, and how it begins. */
export interface Isa {
  /** An address, for {@link storeA} and the like, that nothing answers. */
  readonly device: number;
  /** The exit reason of {@link halt}. */
  readonly haltExit: number;
  /** A is a register; of `movA`, `storeA` and `loadA` its low byte counts. */
  readonly movA: (value: number) => number[];
  readonly movWord: (value: number) => number[];
  /** A becomes one more. */
  readonly countA: number[];
  /** A byte from A to the device, or to A. */
  readonly storeA: (offset?: number) => number[];
  readonly loadA: (offset?: number) => number[];
  /** Four bytes from A to the device. */
  readonly storeWord: number[];
  /** The guest ends. */
  readonly halt: number[];
  /** A jump to itself. */
  readonly spin: number[];
  /** A jump to the instruction that begins so many bytes before it. */
  readonly jumpBack: (bytes: number) => number[];

  readonly ram: number;
  readonly ramSize: (pageSize: number) => number;
  /** Puts code into RAM so that a vCPU runs it. */
  readonly put: (ram: Uint8Array, code: readonly number[]) => void;
  /** What a vCPU needs before its first KVM_RUN. */
  readonly prepare: (native: Native, vcpu: VcpuHandle) => void;
  /** A's low byte, or a negative errno. */
  readonly readA: (native: Native, vcpu: VcpuHandle) => number;
  /** The vCPU goes on behind {@link spin}. @returns 0 or a negative errno */
  readonly leaveSpin: (native: Native, vcpu: VcpuHandle) => number;
  /** Adds a vCPU, to a VM that has nothing yet, that waits in the kernel. */
  readonly addWaiting: (native: Native, vm: VmHandle) => VcpuHandle;
}

/** That of this host's guests. */
export const isa: Isa = process.arch === 'arm64' ? arm64 : x86;

/** Offsets in `struct kvm_run`, the same on every architecture, and KVM_EXIT_MMIO. */
export const Run = { EXIT_REASON: 8, MMIO_ADDR: 32, MMIO_DATA: 40, MMIO_LEN: 48, MMIO_IS_WRITE: 52 } as const;
export const EXIT_MMIO = 6;

/** `code` again and again. */
export const loop = (...code: readonly number[][]): number[] => [...code.flat(), ...isa.jumpBack(code.flat().length)];

export interface Guest {
  readonly system: SystemHandle;
  readonly vm: VmHandle;
  readonly memory: MemoryHandle;
  readonly ram: Uint8Array;
  readonly vcpu: VcpuHandle;
  readonly run: DataView;
}

/** A VM with one vCPU that starts at `code`. */
export function makeGuest(native: Native, ...code: readonly number[][]): Guest {
  const system = handle(native.openKvm('/dev/kvm'));
  const vm = handle(native.createVm(system, 0));
  const size = isa.ramSize(native.pageSize());
  const memory = handle(native.createMemory(size, 0, 0));
  const ram = new Uint8Array(buffer(native.memoryBuffer(memory)));
  isa.put(ram, code.flat());
  const result = native.setUserMemoryRegion(vm, 0, 0, isa.ram, size, memory, 0);
  if (result !== 0) throw new Error(`KVM_SET_USER_MEMORY_REGION: ${result}`);
  const vcpu = handle(native.createVcpu(vm, 0));
  isa.prepare(native, vcpu);
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
