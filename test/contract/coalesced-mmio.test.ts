import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import type { Kvm } from '#lib/kvm/index.js';
import { b, load, mov, store } from './asm.ts';
import { backends, since } from './backends.ts';
import { DEVICE, errnoOf, makeVm, RAM, runToExit } from './machine.ts';

const ZONE = 0xa00_0000;

describe.each(backends)('coalesced MMIO on $name', (backend) => {
  const { open } = backend;
  let kvm: Kvm;
  beforeEach(() => {
    kvm = open();
  });
  afterEach(() => kvm.close());

  test('writes to a zone wait in the ring, in order; reads of it and what crosses its end are exits', () => {
    const { vm, vcpu, load: put } = makeVm(kvm);
    vm.registerCoalescedMmio(ZONE, 16);
    put(
      RAM,
      ...[mov(1, ZONE), mov(2, 0x1122_3344_5566_7788n), store(1, 2, 1), store(8, 2, 1, 8), store(4, 2, 1, 16)],
      load(4, 3, 1, 4),
      b(0),
    );
    expect(runToExit(vcpu)).toBe('write 0xa000010/4 0x55667788');
    expect(vm.takeCoalescedMmio()).toEqual([
      { physAddr: ZONE, len: 1, data: new Uint8Array([0x88]) },
      { physAddr: ZONE + 8, len: 8, data: new Uint8Array([0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11]) },
    ]);
    expect(vm.takeCoalescedMmio()).toEqual([]);
    expect(runToExit(vcpu)).toBe('read 0xa000004/4');
  });

  // Before, the kernel took a ring for full that was not.
  since(backend, '6.12')('what has no room in the ring is an exit, and the next finds room again', () => {
    const { vm, vcpu, load: put } = makeVm(kvm);
    vm.registerCoalescedMmio(ZONE, 4);
    put(RAM, mov(1, ZONE), store(4, 31, 1), b(-1));
    for (let i = 0; i < 2; i++) {
      expect(runToExit(vcpu)).toBe('write 0xa000000/4 0x0');
      const writes = vm.takeCoalescedMmio();
      expect(writes.length).toBeGreaterThanOrEqual(169);
      expect(writes.every(({ physAddr, len }) => physAddr === ZONE && len === 4)).toBe(true);
    }
  });

  test('a zone ends where all of it is unregistered', () => {
    const { vm, vcpu, load: put } = makeVm(kvm);
    vm.registerCoalescedMmio(ZONE, 16);
    vm.unregisterCoalescedMmio(ZONE, 32);
    put(RAM, mov(1, ZONE), mov(2, DEVICE), store(4, 31, 1), store(4, 31, 2), store(4, 31, 1), b(0));
    expect(runToExit(vcpu)).toBe('write 0x9000000/4 0x0');
    vm.unregisterCoalescedMmio(ZONE + 4, 4);
    expect(runToExit(vcpu)).toBe('write 0xa000000/4 0x0');
    expect(vm.takeCoalescedMmio().length).toBe(1);
    expect(errnoOf(() => vm.unregisterCoalescedMmio(ZONE, 16))).toBe('OK');
  });
});
