import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { Cap, type GuestMemory, type Kvm, MemFlag, Reg, type UserMemoryRegion } from '#lib/kvm/index.js';
import { addImm, b, load, mov, movr, store } from './asm.ts';
import { backends, ipaBitsOf, since } from './backends.ts';
import { DEVICE, errnoOf, makeVm, RAM, runToExit } from './machine.ts';

const OTHER = 0x9000_0000 + 0x1000_0000;
const done = (): number[] => [...mov(20, DEVICE), store(4, 31, 20)];
const DONE = 'write 0x9000000/4 0x0';

describe.each(backends)('memslots on $name', (backend) => {
  const { open, pageSize: PAGE } = backend;
  let kvm: Kvm;
  beforeEach(() => {
    kvm = open();
  });
  afterEach(() => kvm.close());

  test('the guest and the host see the same memory', () => {
    const { memory, vcpu, load: put } = makeVm(kvm);
    put(RAM, mov(1, RAM + 0x8000), load(8, 2, 1), addImm(2, 2, 1), store(8, 2, 1, 8), done());
    const view = new DataView(memory.bytes.buffer, memory.bytes.byteOffset, memory.size);
    view.setBigUint64(0x8000, 0x0102030405060708n, true);
    expect(runToExit(vcpu)).toBe(DONE);
    expect(view.getBigUint64(0x8008, true)).toBe(0x0102030405060709n);
  });

  test('written() makes the guest execute what the host wrote', () => {
    const { vcpu, load: put } = makeVm(kvm);
    put(RAM, mov(5, 1), done(), b(-mov(5, 1).length - done().length));
    expect(runToExit(vcpu)).toBe(DONE);
    put(RAM, mov(5, 2));
    expect(runToExit(vcpu)).toBe(DONE);
    expect(vcpu.getOneReg(Reg.x(5))).toBe(2n);
  });

  test('a read-only slot reads as RAM and exits on writes', () => {
    const { vm, vcpu, load: put } = makeVm(kvm);
    const memory = vm.createMemory(PAGE);
    memory.bytes.fill(0x5a);
    vm.setUserMemoryRegion({ slot: 1, guestPhysAddr: OTHER, memorySize: PAGE, memory, flags: MemFlag.READONLY });
    put(RAM, mov(1, OTHER), load(4, 2, 1), store(4, 2, 1, 4), done());
    expect(runToExit(vcpu)).toBe('write 0xa0000004/4 0x5a5a5a5a');
    expect(runToExit(vcpu)).toBe(DONE);
    expect(memory.bytes[4]).toBe(0x5a);
  });

  test('a slot can move, and a deleted one exits', () => {
    const { vm, vcpu, load: put } = makeVm(kvm);
    const memory = vm.createMemory(PAGE);
    memory.bytes[0] = 7;
    const region = { slot: 1, memorySize: PAGE, memory };
    vm.setUserMemoryRegion({ ...region, guestPhysAddr: OTHER });
    vm.setUserMemoryRegion({ ...region, guestPhysAddr: OTHER + PAGE });
    put(RAM, mov(1, OTHER + PAGE), load(1, 2, 1), movr(3, 2), mov(1, OTHER), load(1, 2, 1), done());
    expect(runToExit(vcpu)).toBe('read 0xa0000000/1');
    expect(vcpu.getOneReg(Reg.x(3))).toBe(7n);
    vm.setUserMemoryRegion({ slot: 1, memorySize: 0, guestPhysAddr: 0 });
    expect(runToExit(vcpu)).toBe(DONE);
    // The last write still passes its instruction.
    vcpu.setOneReg(Reg.PC, BigInt(RAM - 4));
    expect(runToExit(vcpu)).toBe(`read 0x${(OTHER + PAGE).toString(16)}/1`);
  });

  test('memory that is closed stays while a slot has it', () => {
    const { vm, vcpu, load: put } = makeVm(kvm);
    const memory = vm.createMemory(PAGE);
    memory.bytes[0] = 9;
    vm.setUserMemoryRegion({ slot: 1, guestPhysAddr: OTHER, memorySize: PAGE, memory });
    memory.close();
    memory.close();
    expect(memory.bytes.length).toBe(0);
    put(RAM, mov(1, OTHER), load(1, 2, 1), done());
    expect(runToExit(vcpu)).toBe(DONE);
    expect(vcpu.getOneReg(Reg.x(2))).toBe(9n);
    expect(errnoOf(() => vm.setUserMemoryRegion({ slot: 2, guestPhysAddr: 2 * OTHER, memorySize: PAGE, memory }))).toBe(
      'EBADF',
    );
  });

  test('a slot logs the pages that the guest writes, until the log is taken', () => {
    const { vm, vcpu, load: put } = makeVm(kvm);
    const memory = vm.createMemory(100 * PAGE);
    const region = { slot: 1, guestPhysAddr: OTHER, memorySize: 100 * PAGE, memory };
    vm.setUserMemoryRegion(region);
    expect(errnoOf(() => vm.getDirtyLog(1))).toBe('ENOENT');
    vm.setUserMemoryRegion({ ...region, flags: MemFlag.LOG_DIRTY_PAGES });
    const writes = [
      ...mov(1, OTHER + 3 * PAGE),
      store(4, 1, 1),
      ...mov(1, OTHER + 99 * PAGE),
      store(1, 1, 1),
      load(4, 2, 1),
      ...done(),
    ];
    put(RAM, writes, b(-writes.length));
    expect([...vm.getDirtyLog(1)]).toEqual(Array(16).fill(0));
    const pages = (): number[] =>
      [...vm.getDirtyLog(1)].flatMap((byte, i) =>
        [0, 1, 2, 3, 4, 5, 6, 7].filter((bit) => (byte >> bit) & 1).map((bit) => i * 8 + bit),
      );
    runToExit(vcpu);
    expect(pages()).toEqual([3, 99]);
    expect(pages()).toEqual([]);
    runToExit(vcpu);
    expect(pages()).toEqual([3, 99]);
    vm.enableCap(Cap.MANUAL_DIRTY_LOG_PROTECT2, [1]);
    runToExit(vcpu);
    expect(pages()).toEqual([3, 99]);
    expect(pages()).toEqual([3, 99]);
    vm.clearDirtyLog(1, 0, 64, new Uint8Array(8).fill(255));
    expect(pages()).toEqual([99]);
    runToExit(vcpu);
    expect(pages()).toEqual([3, 99]);
    const clear =
      (first: number, count: number, bytes = 8) =>
      (): void =>
        vm.clearDirtyLog(1, first, count, new Uint8Array(bytes));
    expect([clear(1, 64), clear(0, 63), clear(64, 64), clear(0, 64, 4), clear(64, 36)].map(errnoOf)).toEqual([
      'EINVAL',
      'EINVAL',
      'EINVAL',
      'EINVAL',
      'OK',
    ]);
  });

  test('the log goes on where its slot moves', () => {
    const { vm, vcpu, load: put } = makeVm(kvm);
    const memory = vm.createMemory(64 * PAGE);
    const region = { slot: 1, guestPhysAddr: OTHER, memorySize: 64 * PAGE, memory, flags: MemFlag.LOG_DIRTY_PAGES };
    vm.setUserMemoryRegion(region);
    put(RAM, mov(1, OTHER), store(1, 31, 1), done(), mov(1, 2 * OTHER + PAGE), store(1, 31, 1), done());
    runToExit(vcpu);
    vm.setUserMemoryRegion({ ...region, guestPhysAddr: 2 * OTHER });
    runToExit(vcpu);
    expect([...vm.getDirtyLog(1)]).toEqual([3, 0, 0, 0, 0, 0, 0, 0]);
  });

  test('the first log of a slot can say that every page is dirty', () => {
    const vm = kvm.createVm();
    vm.enableCap(Cap.MANUAL_DIRTY_LOG_PROTECT2, [3]);
    const memory = vm.createMemory(66 * PAGE);
    const region = { slot: 1, guestPhysAddr: OTHER, memorySize: 66 * PAGE, memory, flags: MemFlag.LOG_DIRTY_PAGES };
    vm.setUserMemoryRegion(region);
    expect(vm.getDirtyLog(1).slice(0, 8)).toEqual(new Uint8Array(8).fill(255));
    expect(errnoOf(() => vm.clearDirtyLog(2, 1, 64, new Uint8Array(8)))).toBe('EINVAL');
    expect(errnoOf(() => vm.clearDirtyLog(2, 0, 64, new Uint8Array(8)))).toBe('ENOENT');
  });

  test('there can be as many slots as KVM_CAP_NR_MEMSLOTS says, each found', () => {
    const { vm, vcpu, load: put } = makeVm(kvm);
    expect(vm.checkExtension(Cap.NR_MEMSLOTS)).toBe(32_767);
    // One is the RAM. All of them take their time: once is enough.
    const isWhole = backend.name === 'soft, virtual clock';
    const count = isWhole ? 32_766 : 4000;
    const memory = vm.createMemory(count * PAGE);
    // In an order that is none: slot n is at page n * 7 of every other page.
    const at = (n: number): number => OTHER + ((n * 7) % count) * 2 * PAGE;
    const region = (n: number): UserMemoryRegion => {
      return { slot: n + 1, guestPhysAddr: at(n), memorySize: PAGE, memory, memoryOffset: n * PAGE };
    };
    const words = new Uint32Array(memory.bytes.buffer, memory.bytes.byteOffset, (count * PAGE) / 4);
    for (let n = 0; n < count; n++) {
      words[(n * PAGE) / 4] = n;
      vm.setUserMemoryRegion(region(n));
    }
    expect(errnoOf(() => vm.setUserMemoryRegion({ ...region(0), slot: 32_767 }))).toBe('EINVAL');
    if (!isWhole) {
      const overlap = { ...region(0), slot: 32_766, memorySize: 2 * PAGE };
      expect(errnoOf(() => vm.setUserMemoryRegion(overlap))).toBe('EEXIST');
    }
    for (const n of [0, 1, 1999, count - 1]) {
      put(RAM, mov(1, at(n)), load(4, 2, 1), mov(1, at(n) + PAGE), load(4, 3, 1));
      vcpu.setOneReg(Reg.PC, BigInt(RAM));
      expect(runToExit(vcpu)).toBe(`read 0x${(at(n) + PAGE).toString(16)}/4`);
      expect(vcpu.getOneReg(Reg.x(2))).toBe(BigInt(n));
      // The read is completed before the code starts anew.
      vcpu.immediateExit = true;
      vcpu.run();
      vcpu.immediateExit = false;
    }
    for (let n = 0; n < count; n += isWhole ? 100 : 2) vm.setUserMemoryRegion({ ...region(n), memorySize: 0 });
    expect(errnoOf(() => vm.setUserMemoryRegion({ ...region(0), memorySize: 2 * PAGE }))).toBe('OK');
  });

  describe('a guest_memfd', () => {
    const memfdRegion = (memory: GuestMemory): UserMemoryRegion => {
      return { slot: 1, guestPhysAddr: OTHER, memorySize: PAGE, memory, flags: MemFlag.GUEST_MEMFD };
    };

    since(backend, '6.18')('is memory of a slot that can only be deleted, and each part is in one slot at most', () => {
      const { vm, memory: ram } = makeVm(kvm);
      const memory = vm.createGuestMemfd(2 * PAGE, 3);
      const region = memfdRegion(memory);
      const set = (change: object): string => errnoOf(() => vm.setUserMemoryRegion({ ...region, ...change }));
      expect(set({ memory: ram })).toBe('EINVAL');
      expect(set({ flags: MemFlag.GUEST_MEMFD | MemFlag.LOG_DIRTY_PAGES })).toBe('EINVAL');
      expect(set({ flags: MemFlag.GUEST_MEMFD | MemFlag.READONLY })).toBe('EINVAL');
      expect(set({ memorySize: 3 * PAGE })).toBe('EINVAL');
      // What no user space can map is for protected guests, of which arm64 has none.
      for (const flags of [0, 2]) expect(set({ memory: vm.createGuestMemfd(PAGE, flags) })).toBe('EINVAL');
      expect(set({ slot: 3, memory: vm.createGuestMemfd(PAGE, 1), guestPhysAddr: 3 * OTHER })).toBe('OK');
      expect(set({})).toBe('OK');
      expect(set({ guestPhysAddr: 2 * OTHER })).toBe('EINVAL');
      expect(set({})).toBe('EINVAL');
      expect(set({ slot: 2, guestPhysAddr: 2 * OTHER })).toBe('EEXIST');
      expect(set({ slot: 2, guestPhysAddr: 2 * OTHER, memoryOffset: PAGE })).toBe('OK');
      expect(set({ memorySize: 0, flags: 0 })).toBe('OK');
    });

    since(backend, '6.18')('is seen by the host where its flags say so', () => {
      const { vm, vcpu, load: put } = makeVm(kvm);
      const memory = vm.createGuestMemfd(PAGE, 3);
      expect(memory.bytes.length).toBe(PAGE);
      memory.bytes[0] = 42;
      vm.setUserMemoryRegion(memfdRegion(memory));
      put(RAM, mov(1, OTHER), load(1, 2, 1), store(1, 2, 1, 1), done());
      expect(runToExit(vcpu)).toBe(DONE);
      expect(vcpu.getOneReg(Reg.x(2))).toBe(42n);
      expect(memory.bytes[1]).toBe(42);
      expect(vm.createGuestMemfd(PAGE, 0).bytes.length).toBe(0);
    });
  });

  test('sizes and ranges that make no sense are refused, and nothing changes', () => {
    const { vm, memory } = makeVm(kvm);
    const region = { slot: 5, guestPhysAddr: OTHER, memorySize: PAGE, memory };
    const set = (change: object): string => errnoOf(() => vm.setUserMemoryRegion({ ...region, ...change }));
    const bad = [
      { slot: -1 },
      { slot: 1.5 },
      { slot: 32767 },
      { guestPhysAddr: -PAGE },
      { guestPhysAddr: Number.NaN },
      { guestPhysAddr: 2 ** 60 },
      { memorySize: 1 },
      { memoryOffset: 1 },
      { memoryOffset: 0x20_0000 },
      { memorySize: 0x40_0000 },
      { flags: 4 },
      { memory: {} },
    ];
    expect(bad.map(set)).toEqual(bad.map(() => 'EINVAL'));
    expect(set({ guestPhysAddr: 2 ** ipaBitsOf(backend, kvm) })).toBe('EFAULT');
    expect(set({ guestPhysAddr: RAM - PAGE, memorySize: 2 * PAGE })).toBe('EEXIST');
    const other = kvm.createVm();
    expect(errnoOf(() => other.createMemory(0))).toBe('EINVAL');
    expect(errnoOf(() => other.createMemory(PAGE + 1))).toBe('EINVAL');
    expect(errnoOf(() => other.createMemory(2 ** 52))).toBe('ENOMEM');
    expect(set({})).toBe('OK');
    expect(() => memory.written(0, memory.size + 1)).toThrow(RangeError);
    expect(() => memory.written(-1, 1)).toThrow(RangeError);
  });
});
