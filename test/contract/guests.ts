import type { GuestMemory, Kvm, Vcpu, Vm } from '#lib/kvm/index.js';
import { b, load, mov, store } from './asm.ts';
import { DEVICE, makeVm, RAM } from './machine.ts';

/**
 * Guests of what the contract promises for any architecture, each in the machine code of the ones there are:
 * - `mmio` writes the byte 5A to {@link Board.device}, reads the byte after it, writes that to the byte after that;
 * - `dirty` writes a byte to the second page of {@link Board.second}, and then one to the device;
 * - `spin` does nothing.
 * All of them spin when they are done.
 */
export type Program = 'mmio' | 'dirty' | 'spin';

/** Where guests of an architecture have what. */
export interface Board {
  /** An address that nothing answers. */
  readonly device: number;
  /** A page-aligned address that is free for a second slot of a few pages. */
  readonly second: number;
  /** A VM with a vCPU that starts at the program. */
  start(kvm: Kvm, program: Program): { readonly vm: Vm; readonly vcpu: Vcpu; readonly memory: GuestMemory };
}

const SECOND_ARM64 = 0x1000_0000;
const arm64: Record<Program, readonly (number | number[])[]> = {
  mmio: [mov(1, DEVICE), mov(2, 0x5a), store(1, 2, 1), load(1, 3, 1, 1), store(1, 3, 1, 2), b(0)],
  dirty: [mov(1, SECOND_ARM64 + 0x1000), store(1, 31, 1), mov(1, DEVICE), store(1, 31, 1), b(0)],
  spin: [b(0)],
};

/** Real mode: the reset vector, at the end of the first 4 GiB, jumps to the page's start; the data segment begins at 0. */
const RAM_X64 = 0xffff_f000;
const DEVICE_X64 = 0x1000;
const SECOND_X64 = 0x8000;
const x64: Record<Program, readonly number[]> = {
  // mov al, 5Ah; mov [1000h], al; mov al, [1001h]; mov [1002h], al; jmp $
  mmio: [0xb0, 0x5a, 0xa2, 0x00, 0x10, 0xa0, 0x01, 0x10, 0xa2, 0x02, 0x10, 0xeb, 0xfe],
  // mov [9000h], al; mov [1000h], al; jmp $
  dirty: [0xa2, 0x00, 0x90, 0xa2, 0x00, 0x10, 0xeb, 0xfe],
  spin: [0xeb, 0xfe],
};

export const boards: Readonly<Record<'arm64' | 'x64', Board>> = {
  arm64: {
    device: DEVICE,
    second: SECOND_ARM64,
    start: (kvm, program) => {
      const { vm, vcpu, memory, load: put } = makeVm(kvm);
      put(RAM, ...arm64[program]);
      return { vm, vcpu, memory };
    },
  },
  x64: {
    device: DEVICE_X64,
    second: SECOND_X64,
    start: (kvm, program) => {
      const vm = kvm.createVm();
      const memory = vm.createMemory(0x1000);
      vm.setUserMemoryRegion({ slot: 0, guestPhysAddr: RAM_X64, memorySize: 0x1000, memory });
      memory.bytes.set(x64[program]);
      memory.bytes.set([0xe9, 0x0d, 0xf0], 0xff0);
      return { vm, vcpu: vm.createVcpu(0), memory };
    },
  },
};
