import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { Cap, type DirtyPage, type Kvm, MemFlag, Reg, TARGET_GENERIC_V8, type Vcpu, type Vm } from '#lib/kvm/index.js';
import { addReg, mov, store } from './asm.ts';
import { backends, since } from './backends.ts';
import { DEVICE, errnoOf, RAM, runToExit } from './machine.ts';

/** A multiple of every page size that a host may have. */
const CHUNK = 0x1_0000;
/** Entries of a ring of 64 KiB, and those that stay free. */
const ENTRIES = 4096;
const RESERVED = 64;
const LOGGED = 0xa000_0000;
const DONE = 'write 0x9000000/4 0x0';

describe.each(backends)('dirty rings on $name', (backend) => {
  const { open, pageSize } = backend;
  let kvm: Kvm;
  beforeEach(() => {
    kvm = open();
  });
  afterEach(() => kvm.close());

  /** A VM with rings whose guest runs `code`, and a slot of `size` bytes that is tracked. */
  function start(size: number, ...code: readonly (number | number[])[]): { vm: Vm; vcpu: Vcpu } {
    const vm = kvm.createVm();
    vm.enableCap(Cap.DIRTY_LOG_RING_ACQ_REL, [ENTRIES * 16]);
    // On arm64 the kernel tracks single pages only of slots that have a bitmap (memslot_is_logging(), arch/arm64/kvm/mmu.c):
    // of others a block of 2 MiB is one entry.
    vm.enableCap(Cap.DIRTY_LOG_RING_WITH_BITMAP);
    const vcpu = vm.createVcpu(0);
    vcpu.init(TARGET_GENERIC_V8, 4);
    const ram = vm.createMemory(CHUNK);
    vm.setUserMemoryRegion({ slot: 0, guestPhysAddr: RAM, memorySize: CHUNK, memory: ram });
    const memory = vm.createMemory(size);
    const flags = MemFlag.LOG_DIRTY_PAGES;
    vm.setUserMemoryRegion({ slot: 3, guestPhysAddr: LOGGED, memorySize: size, memory, flags });
    new Uint32Array(ram.bytes.buffer, ram.bytes.byteOffset).set(code.flat());
    ram.written(0, code.flat().length * 4);
    vcpu.setOneReg(Reg.PC, BigInt(RAM));
    return { vm, vcpu };
  }
  const done = (): number[] => [...mov(20, DEVICE), store(4, 31, 20)];
  const touch = (offset: number): number[] => [...mov(1, LOGGED + offset), store(1, 31, 1)];

  since(backend, '6.2')('each page that the guest stores to is there once, until it is collected and reset', () => {
    const again = touch(3 * pageSize);
    const { vm, vcpu } = start(
      4 * pageSize,
      touch(3 * pageSize),
      touch(pageSize),
      touch(3 * pageSize + 8),
      done(),
      again,
      done(),
      again,
      done(),
      again,
      done(),
    );
    expect(vcpu.collectDirtyPages()).toEqual([]);
    expect(runToExit(vcpu)).toBe(DONE);
    expect(vcpu.collectDirtyPages()).toEqual([
      { slot: 3, offset: 3 },
      { slot: 3, offset: 1 },
    ]);
    expect(runToExit(vcpu)).toBe(DONE);
    expect(vcpu.collectDirtyPages()).toEqual([]);
    expect(vm.resetDirtyRings()).toBe(2);
    expect(vm.resetDirtyRings()).toBe(0);
    expect(runToExit(vcpu)).toBe(DONE);
    // What is not collected is not reset either.
    expect(vm.resetDirtyRings()).toBe(0);
    expect(runToExit(vcpu)).toBe(DONE);
    expect(vcpu.collectDirtyPages()).toEqual([{ slot: 3, offset: 3 }]);
  });

  since(backend, '6.2')('a full ring is an exit, until it is reset; no page is lost', () => {
    const pages = 5000;
    // X1 the page, X2 how many are left, X3 its size.
    const loop = [store(1, 31, 1), addReg(1, 1, 3), 0xd1000442, 0xb5000000 | (0x7fffd << 5) | 2];
    const { vm, vcpu } = start(pages * pageSize, mov(1, LOGGED), mov(2, pages), mov(3, pageSize), loop, done());
    const seen: DirtyPage[] = [];
    expect(runToExit(vcpu)).toBe('dirty_ring_full');
    expect(runToExit(vcpu)).toBe('dirty_ring_full');
    seen.push(...vcpu.collectDirtyPages());
    expect(seen.length).toBeGreaterThanOrEqual(ENTRIES - RESERVED);
    expect(seen.length).toBeLessThanOrEqual(ENTRIES);
    expect(vcpu.run(1).reason).toBe('dirty_ring_full');
    expect(vm.resetDirtyRings()).toBe(seen.length);
    expect(runToExit(vcpu)).toBe(DONE);
    seen.push(...vcpu.collectDirtyPages());
    expect(new Set(seen.map(({ offset }) => offset)).size).toBe(pages);
    // The page whose store found the ring full may be told again: its store is made anew after the reset.
    expect(seen.length - pages).toBeLessThanOrEqual(1);
  });

  since(backend, '6.2')(
    'the rings come before vCPUs, once, in a size that is a power of two; without a bitmap there is none',
    () => {
      const vm = kvm.createVm();
      const enable = (cap: number, ...args: number[]): string => errnoOf(() => vm.enableCap(cap, args));
      expect(errnoOf(() => vm.resetDirtyRings())).toBe('EINVAL');
      expect(enable(Cap.DIRTY_LOG_RING_WITH_BITMAP)).toBe('EINVAL');
      expect([0, 1024, 0x1_0010, 0x20_0000].map((size) => enable(Cap.DIRTY_LOG_RING_ACQ_REL, size))).toEqual([
        'EINVAL',
        'EINVAL',
        'EINVAL',
        'E2BIG',
      ]);
      expect(enable(Cap.DIRTY_LOG_RING_ACQ_REL, 0x1_0000)).toBe('OK');
      expect(enable(Cap.DIRTY_LOG_RING_ACQ_REL, 0x1_0000)).toBe('EINVAL');
      expect(errnoOf(() => vm.getDirtyLog(0))).toBe('ENXIO');
      expect(errnoOf(() => vm.clearDirtyLog(0, 0, 64, new Uint8Array(8)))).toBe('ENXIO');
      expect(enable(Cap.DIRTY_LOG_RING_WITH_BITMAP)).toBe('OK');
      expect(errnoOf(() => vm.getDirtyLog(0))).toBe('ENOENT');
      const late = kvm.createVm();
      late.createVcpu(0);
      expect(errnoOf(() => late.enableCap(Cap.DIRTY_LOG_RING_ACQ_REL, [0x1_0000]))).toBe('EINVAL');
    },
  );

  test('without rings a vCPU has collected nothing', () => {
    const vm = kvm.createVm();
    const vcpu = vm.createVcpu(0);
    expect(vcpu.collectDirtyPages()).toEqual([]);
  });
});
