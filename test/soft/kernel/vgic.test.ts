import { expect, test } from '@jest/globals';
import { type Device, VgicCtrl, VgicGroup } from '#lib/kvm/index.js';
import { SoftKvm } from '#lib/soft/soft-kvm.js';
import { errnoOf } from '../../contract/machine.ts';
import { FakeMachine } from './fake-cpu.ts';

/** What the modelled kernel does, and older ones that the contract suite also runs on do not. */

function makeGic(): Device {
  const vm = new SoftKvm({ clock: 'virtual', createMachine: () => new FakeMachine() }).createVm();
  vm.createVcpu(0);
  return vm.createDevice(7);
}

test('what says how the GIC is to be may come before INIT, and decides', () => {
  const gic = makeGic();
  const set = (offset: number, value: number): string =>
    errnoOf(() => gic.setDeviceAttr(VgicGroup.DIST_REGS, offset, value));
  expect([set(0x8, 0x4b00_243b), set(0xc, 0), set(0xc, 1), set(0x0, 0)]).toEqual(['OK', 'OK', 'EINVAL', 'EBUSY']);
  expect(gic.getDeviceAttr(VgicGroup.DIST_REGS, 8)).toBe(0x4b00_243bn);
  gic.setDeviceAttr(VgicGroup.CTRL, VgicCtrl.INIT);
  expect(gic.getDeviceAttr(VgicGroup.DIST_REGS, 8)).toBe(0x4b00_243bn);
  // Revision 2 has no invalidation by the redistributor.
  expect(gic.getDeviceAttr(VgicGroup.REDIST_REGS, 0)).toBe(0n);
  expect([set(0xc, 0), set(0xc, 1)]).toEqual(['OK', 'EBUSY']);
});
