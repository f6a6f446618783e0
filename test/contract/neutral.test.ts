import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import {
  Cap,
  type EventFd,
  IoeventfdFlag,
  type Kvm,
  KvmError,
  MemFlag,
  type MmioExit,
  type Vcpu,
  type Vm,
} from '#lib/kvm/index.js';
import { neutralBackends, skippedBackends } from './backends.ts';
import { boards } from './guests.ts';
import { errnoOf } from './machine.ts';

/** A multiple of every page size that a host may have. */
const CHUNK = 0x1_0000;

for (const name of skippedBackends) {
  describe.skip(`any architecture on ${name}`, () => {
    test('is not tested', () => {});
  });
}

describe.each(neutralBackends)('any architecture on $name', ({ open, arch, inTurn }) => {
  const { device, second, start } = boards[arch];
  let kvm: Kvm;
  beforeEach(() => {
    kvm = open();
  });
  afterEach(() => kvm.close());

  const mmio = (vcpu: Vcpu): MmioExit => {
    const exit = vcpu.run(5000);
    if (exit.reason !== 'mmio') throw new Error(exit.reason);
    return exit;
  };

  test('it says what it is', () => {
    expect(kvm.backend).toBe(inTurn ? 'soft' : 'host');
    expect(kvm.getApiVersion()).toBe(12);
    expect(kvm.getVcpuMmapSize()).toBeGreaterThanOrEqual(8192);
    const vm = kvm.createVm();
    for (const cap of [
      Cap.USER_MEMORY,
      Cap.IOEVENTFD,
      Cap.ONE_REG,
      Cap.IMMEDIATE_EXIT,
      Cap.MP_STATE,
      Cap.READONLY_MEM,
    ]) {
      expect([cap, kvm.checkExtension(cap) > 0, vm.checkExtension(cap) > 0]).toEqual([cap, true, true]);
    }
    expect(kvm.checkExtension(60_000)).toBe(0);
  });

  test('a VM type that is none is EINVAL, and the error says so', () => {
    for (const type of [2 ** 30, -1, 0.5, Number.NaN])
      expect([type, errnoOf(() => kvm.createVm(type))]).toEqual([type, 'EINVAL']);
    let error: unknown;
    try {
      kvm.createVm(2 ** 30);
    } catch (e) {
      error = e;
    }
    expect(KvmError.is(error, 'EINVAL')).toBe(true);
    expect(error).toMatchObject({ errno: 22, syscall: 'KVM_CREATE_VM', message: expect.stringContaining('EINVAL') });
  });

  test('memory is whole pages, zeroed', () => {
    const vm = kvm.createVm();
    const memory = vm.createMemory(CHUNK);
    expect(memory.size).toBe(CHUNK);
    expect(memory.bytes.length).toBe(CHUNK);
    expect(memory.bytes.every((byte) => byte === 0)).toBe(true);
    for (const size of [0, 1, CHUNK + 1, -CHUNK, 0.5]) {
      expect([size, errnoOf(() => vm.createMemory(size))]).toEqual([size, 'EINVAL']);
    }
    expect(() => memory.written(CHUNK - 1, 2)).toThrow(RangeError);
    expect(() => memory.written(-1, 1)).toThrow(RangeError);
    memory.written(0, CHUNK);
  });

  describe('a slot', () => {
    let vm: Vm;
    let set: (slot: number, at: number, size: number, flags?: number, offset?: number) => string;
    beforeEach(() => {
      vm = kvm.createVm();
      const memory = vm.createMemory(4 * CHUNK);
      set = (slot, guestPhysAddr, memorySize, flags = 0, memoryOffset = 0) =>
        errnoOf(() => vm.setUserMemoryRegion({ slot, guestPhysAddr, memorySize, flags, memory, memoryOffset }));
    });

    test('is made, moved, changed and deleted', () => {
      expect(set(0, 0, CHUNK)).toBe('OK');
      expect(set(0, 4 * CHUNK, CHUNK)).toBe('OK');
      expect(set(1, 0, CHUNK)).toBe('OK');
      expect(set(0, 4 * CHUNK, CHUNK, MemFlag.LOG_DIRTY_PAGES)).toBe('OK');
      expect(errnoOf(() => vm.setUserMemoryRegion({ slot: 0, guestPhysAddr: 0, memorySize: 0 }))).toBe('OK');
      expect(set(2, 4 * CHUNK, CHUNK)).toBe('OK');
    });

    test('is refused where it breaks a rule', () => {
      expect(set(0, 0, CHUNK)).toBe('OK');
      expect(set(0, 0, 2 * CHUNK)).toBe('EINVAL');
      expect(set(1, 0, CHUNK)).toBe('EEXIST');
      expect(set(1, 8 * CHUNK, 0)).toBe('EINVAL');
      expect(set(1, 8 * CHUNK + 1, CHUNK)).toBe('EINVAL');
      expect(set(1, 8 * CHUNK, CHUNK - 1)).toBe('EINVAL');
      expect(set(1, 8 * CHUNK, CHUNK, 0, 1)).toBe('EINVAL');
      expect(set(1, 8 * CHUNK, CHUNK, 0, 4 * CHUNK)).toBe('EINVAL');
      expect(set(1, 8 * CHUNK, 5 * CHUNK)).toBe('EINVAL');
      expect(set(1, 8 * CHUNK, CHUNK, 1 << 20)).toBe('EINVAL');
      expect(set(0x7fff, 8 * CHUNK, CHUNK)).toBe('EINVAL');
      expect(set(1, 8 * CHUNK, CHUNK)).toBe('OK');
    });
  });

  test('a vCPU id is taken once, and has a limit', () => {
    const vm = kvm.createVm();
    expect(vm.createVcpu(0).id).toBe(0);
    expect(errnoOf(() => vm.createVcpu(0))).toBe('EEXIST');
    expect(errnoOf(() => vm.createVcpu(vm.checkExtension(Cap.MAX_VCPU_ID)))).toBe('EINVAL');
    expect(errnoOf(() => vm.createVcpu(-1))).toBe('EINVAL');
  });

  test('a device type that is none is ENODEV', () => {
    const vm = kvm.createVm();
    expect(errnoOf(() => vm.createDevice(999))).toBe('ENODEV');
    expect(vm.testDevice(999)).toBe(false);
  });

  test('MMIO exits carry the write, and take the answer to the read', () => {
    const { vcpu } = start(kvm, 'mmio');
    const write = mmio(vcpu);
    expect([write.physAddr, write.len, write.isWrite, write.data[0]]).toEqual([device, 1, true, 0x5a]);
    const read = mmio(vcpu);
    expect([read.physAddr, read.len, read.isWrite]).toEqual([device + 1, 1, false]);
    read.data[0] = 0xa5;
    const echo = mmio(vcpu);
    expect([echo.physAddr, echo.isWrite, echo.data[0]]).toEqual([device + 2, true, 0xa5]);
  });

  test('a quantum, a kick and immediateExit end run() with intr', () => {
    const { vcpu } = start(kvm, 'spin');
    for (const quantum of [0, 1, 30]) expect(vcpu.run(quantum).reason).toBe('intr');
    vcpu.kick();
    expect(vcpu.run().reason).toBe('intr');
    vcpu.immediateExit = true;
    expect(vcpu.run().reason).toBe('intr');
    expect(vcpu.run().reason).toBe('intr');
    expect(vcpu.immediateExit).toBe(true);
    vcpu.immediateExit = false;
    expect(vcpu.run(1).reason).toBe('intr');
    expect(() => vcpu.run(-1)).toThrow(RangeError);
    expect(() => vcpu.run(Number.NaN)).toThrow(RangeError);
  });

  test('immediateExit completes what an exit left over, and goes no further', () => {
    const { vcpu } = start(kvm, 'mmio');
    mmio(vcpu);
    mmio(vcpu).data[0] = 0x42;
    vcpu.immediateExit = true;
    expect(vcpu.run().reason).toBe('intr');
    vcpu.immediateExit = false;
    expect(mmio(vcpu).data[0]).toBe(0x42);
  });

  test('an ioeventfd takes the writes that match, and no others', () => {
    const { vm, vcpu } = start(kvm, 'mmio');
    const fd = kvm.createEventFd();
    const other = kvm.createEventFd();
    vm.ioeventfd({ fd, addr: device, len: 1, datamatch: 0x5an, flags: IoeventfdFlag.DATAMATCH });
    vm.ioeventfd({ fd: other, addr: device + 2, len: 1, datamatch: 0x11n, flags: IoeventfdFlag.DATAMATCH });
    expect(mmio(vcpu).isWrite).toBe(false);
    expect(fd.read()).toBe(1);
    expect(mmio(vcpu).physAddr).toBe(device + 2);
    expect(other.read()).toBe(0);
  });

  test('ioeventfds are refused where they break a rule', () => {
    const vm = kvm.createVm();
    const fd = kvm.createEventFd();
    const set = (len: number, flags = 0, addr = device): string =>
      errnoOf(() => vm.ioeventfd({ fd, addr, len, flags }));
    expect(set(4)).toBe('OK');
    expect(set(4)).toBe('EEXIST');
    expect(set(3)).toBe('EINVAL');
    expect(set(4, 1 << 20)).toBe('EINVAL');
    expect(set(4, IoeventfdFlag.DEASSIGN, device + 8)).toBe('ENOENT');
    expect(set(4, IoeventfdFlag.DEASSIGN)).toBe('OK');
    expect(set(4, IoeventfdFlag.DEASSIGN)).toBe('ENOENT');
  });

  test('an eventfd counts, and its listener has the count', async () => {
    const fd = kvm.createEventFd();
    fd.signal(2);
    fd.signal();
    expect(fd.read()).toBe(3);
    expect(fd.read()).toBe(0);
    const count = new Promise((done) => fd.onSignal(done));
    fd.signal(7);
    // A listener does not keep the event loop alive.
    const alive = setInterval(() => {}, 1000);
    expect(await count).toBe(7);
    clearInterval(alive);
    expect(fd.read()).toBe(0);
    fd.onSignal(undefined);
    fd.signal();
    expect(fd.read()).toBe(1);
  });

  test('the dirty log has the pages that the guest wrote', () => {
    const { vm, vcpu } = start(kvm, 'dirty');
    const memory = vm.createMemory(CHUNK);
    const region = { slot: 1, guestPhysAddr: second, memorySize: CHUNK, memory };
    vm.setUserMemoryRegion(region);
    expect(errnoOf(() => vm.getDirtyLog(1))).toBe('ENOENT');
    expect(errnoOf(() => vm.getDirtyLog(2))).toBe('ENOENT');
    vm.setUserMemoryRegion({ ...region, flags: MemFlag.LOG_DIRTY_PAGES });
    vm.getDirtyLog(1);
    expect(mmio(vcpu).physAddr).toBe(device);
    const log = vm.getDirtyLog(1);
    expect(log.length % 8).toBe(0);
    expect([...log].reduce((count, byte) => count + byte.toString(2).replaceAll('0', '').length, 0)).toBe(1);
    expect(vm.getDirtyLog(1).every((byte) => byte === 0)).toBe(true);
  });

  test('statistics have names and values', () => {
    const { vcpu, vm } = start(kvm, 'mmio');
    mmio(vcpu);
    const exits = vcpu.readStats().get('exits');
    expect(exits).toHaveLength(1);
    expect(exits![0]).toBeGreaterThan(0n);
    for (const values of vm.readStats().values()) expect(values.length).toBeGreaterThan(0);
  });

  test('what is closed is EBADF, in any order, and closes again', () => {
    const { vm, vcpu, memory } = start(kvm, 'mmio');
    const fd: EventFd = kvm.createEventFd();
    kvm.close();
    vm.close();
    expect(errnoOf(() => kvm.createVm())).toBe('EBADF');
    expect(errnoOf(() => kvm.createEventFd())).toBe('EBADF');
    expect(errnoOf(() => vm.createVcpu(1))).toBe('EBADF');
    expect(errnoOf(() => vm.createMemory(CHUNK))).toBe('EBADF');
    // The vCPU keeps the kernel's VM.
    expect(mmio(vcpu).physAddr).toBe(device);
    vcpu.close();
    expect(errnoOf(() => vcpu.run())).toBe('EBADF');
    expect(errnoOf(() => vcpu.getMpState())).toBe('EBADF');
    vcpu.kick();
    memory.close();
    fd.close();
    expect(errnoOf(() => fd.read())).toBe('EBADF');
    expect(errnoOf(() => fd.signal())).toBe('EBADF');
    for (const each of [kvm, vm, vcpu, memory, fd]) {
      expect(each.closed).toBe(true);
      each.close();
    }
  });

  test('objects of another backend are refused', () => {
    const foreign = neutralBackends.find((backend) => backend.open !== open && backend.inTurn !== inTurn)?.open();
    if (foreign === undefined) return;
    const vm = kvm.createVm();
    const memory = foreign.createVm().createMemory(CHUNK);
    expect(errnoOf(() => vm.setUserMemoryRegion({ slot: 0, guestPhysAddr: 0, memorySize: CHUNK, memory }))).toBe(
      'EINVAL',
    );
    const fd = foreign.createEventFd();
    expect(errnoOf(() => vm.ioeventfd({ fd, addr: device, len: 4 }))).toBe('EINVAL');
  });
});
