import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { IoeventfdFlag, type Kvm, Reg } from '#lib/kvm/index.js';
import { b, load, mov, store } from './asm.ts';
import { backends } from './backends.ts';
import { DEVICE, makeVm, RAM, runToExit, type TestVm } from './machine.ts';

/** Of the largest page that a host may have. */
const PAGE = 0x1_0000;
const WRITE = 'write 0x9000000/4 0x7';
const READ = 'read 0x9000004/4';
const END = 'write 0x9010000/4 0x7';

/** What the kernel knows of a page that no RAM backs may change while a guest accesses it again and again. */
describe.each(backends)('a device page in use on $name', ({ open }) => {
  let kvm: Kvm;
  let guest: TestVm;
  beforeEach(() => {
    kvm = open();
    guest = makeVm(kvm);
    guest.load(RAM, mov(1, DEVICE), mov(2, 7), mov(4, DEVICE + PAGE), [
      store(4, 2, 1),
      load(4, 3, 1, 4),
      store(4, 2, 4),
      b(-3),
    ]);
    round([WRITE, READ, END], 20);
  });
  afterEach(() => kvm.close());

  /** The guest's next exits, `count` times. */
  function round(exits: readonly string[], count = 3): void {
    for (let n = 0; n < count; n++) expect(exits.map(() => runToExit(guest.vcpu))).toEqual(exits);
  }

  test('becomes RAM, and a device again', () => {
    const { vm } = guest;
    const memory = vm.createMemory(PAGE);
    memory.bytes.set([0x55], 4);
    const slot = { slot: 5, guestPhysAddr: DEVICE, memory };
    vm.setUserMemoryRegion({ ...slot, memorySize: PAGE });
    round([END]);
    expect([memory.bytes[0], guest.vcpu.getOneReg(Reg.x(3))]).toEqual([7, 0x55n]);
    vm.setUserMemoryRegion({ ...slot, memorySize: 0 });
    round([WRITE, READ, END]);
  });

  test('gets an ioeventfd, and loses it', () => {
    const fd = kvm.createEventFd();
    const io = { fd, addr: DEVICE, len: 4, datamatch: 7n, flags: IoeventfdFlag.DATAMATCH };
    guest.vm.ioeventfd(io);
    round([READ, END]);
    expect(fd.read()).toBe(3);
    guest.vm.ioeventfd({ ...io, flags: IoeventfdFlag.DATAMATCH | IoeventfdFlag.DEASSIGN });
    // Another value, and another length.
    guest.vm.ioeventfd({ ...io, datamatch: 8n });
    guest.vm.ioeventfd({ ...io, len: 2, datamatch: 7n });
    round([WRITE, READ, END]);
    expect(fd.read()).toBe(0);
  });

  test('gets a zone of coalesced writes, and loses it', () => {
    guest.vm.registerCoalescedMmio(DEVICE, 4);
    round([READ, END]);
    expect(guest.vm.takeCoalescedMmio().length).toBe(3);
    guest.vm.unregisterCoalescedMmio(DEVICE, 4);
    round([WRITE, READ, END]);
    expect(guest.vm.takeCoalescedMmio()).toEqual([]);
  });
});
