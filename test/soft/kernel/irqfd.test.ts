import { expect, test } from '@jest/globals';
import { IrqfdFlag } from '#lib/kvm/index.js';
import { SoftKvm } from '#lib/soft/soft-kvm.js';
import { errnoOf, makeVm } from '../../contract/machine.ts';
import { FakeMachine } from './fake-cpu.ts';

/** What the modelled kernel does, and older ones that the contract suite also runs on do not. */

test('an eventfd has one irqfd, of whichever VM', () => {
  const kvm = new SoftKvm({ clock: 'virtual', createMachine: () => new FakeMachine() });
  const [one, two] = [makeVm(kvm, { gic: true }), makeVm(kvm, { gic: true })];
  const fd = kvm.createEventFd();
  one.vm.irqfd({ fd, gsi: 0 });
  expect(errnoOf(() => one.vm.irqfd({ fd, gsi: 1 }))).toBe('EBUSY');
  expect(errnoOf(() => two.vm.irqfd({ fd, gsi: 0 }))).toBe('EBUSY');
  // One of another VM, or on another GSI, is not this one's to end.
  two.vm.irqfd({ fd, gsi: 0, flags: IrqfdFlag.DEASSIGN });
  one.vm.irqfd({ fd, gsi: 1, flags: IrqfdFlag.DEASSIGN });
  expect(errnoOf(() => two.vm.irqfd({ fd, gsi: 0 }))).toBe('EBUSY');
  one.vm.irqfd({ fd, gsi: 0, flags: IrqfdFlag.DEASSIGN });
  expect(errnoOf(() => two.vm.irqfd({ fd, gsi: 0 }))).toBe('OK');
  for (const { vm, vcpu } of [one, two]) {
    vm.close();
    vcpu.close();
  }
});

test('the end of a VM frees the eventfds of its irqfds', () => {
  const kvm = new SoftKvm({ clock: 'virtual', createMachine: () => new FakeMachine() });
  const [one, two] = [makeVm(kvm, { gic: true }), makeVm(kvm, { gic: true })];
  const fd = kvm.createEventFd();
  one.vm.irqfd({ fd, gsi: 0 });
  for (const held of [one.gic!, one.memory, one.vcpu, one.vm]) held.close();
  expect(errnoOf(() => two.vm.irqfd({ fd, gsi: 0 }))).toBe('OK');
  fd.close();
  two.vm.close();
});
