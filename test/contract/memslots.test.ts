import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { Cap, type Kvm, MemFlag, Reg } from '#lib/kvm/index.js';
import { addImm, b, load, mov, movr, store } from './asm.ts';
import { backends } from './backends.ts';
import { DEVICE, errnoOf, makeVm, RAM, runToExit } from './machine.ts';

const OTHER = 0x9000_0000 + 0x1000_0000;
const PAGE = 4096;
const done = (): number[] => [...mov(20, DEVICE), store(4, 31, 20)];
const DONE = 'write 0x9000000/4 0x0';

describe.each(backends)('memslots on $name', ({ open }) => {
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
    expect(runToExit(vcpu)).toBe('read 0xa0001000/1');
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
      'EINVAL',
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
    expect(set({ guestPhysAddr: 2 ** 40 })).toBe('EFAULT');
    expect(set({ guestPhysAddr: RAM - PAGE, memorySize: 2 * PAGE })).toBe('EEXIST');
    const other = kvm.createVm();
    expect(errnoOf(() => other.createMemory(0))).toBe('EINVAL');
    expect(errnoOf(() => other.createMemory(PAGE + 1))).toBe('EINVAL');
    expect(errnoOf(() => other.createMemory(2 ** 40))).toBe('ENOMEM');
    expect(set({})).toBe('OK');
    expect(() => memory.written(0, memory.size + 1)).toThrow(RangeError);
    expect(() => memory.written(-1, 1)).toThrow(RangeError);
  });
});
