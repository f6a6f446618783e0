import { beforeEach, expect, test } from '@jest/globals';
import type { Native } from '#lib/host/native.js';
import { Errno } from '#lib/kvm/index.js';
import { isa, makeGuest, Run, runToExit } from './guest.ts';
import { addon, buffer, describeKvm, handle } from './native.ts';

describeKvm('guest memory through the addon', () => {
  let native: Native;
  let page: number;
  beforeEach(() => {
    native = addon();
    page = native.pageSize();
  });

  test('it is zeroed, and every view of it is the same memory', () => {
    for (const flags of [0, 1]) {
      const memory = handle(native.createMemory(4 * page, flags, 0));
      const one = new Uint8Array(buffer(native.memoryBuffer(memory)));
      const two = new Uint8Array(buffer(native.memoryBuffer(memory)));
      expect(one.length).toBe(4 * page);
      expect(one.every((byte) => byte === 0)).toBe(true);
      one[3 * page] = 7;
      expect(two[3 * page]).toBe(7);
    }
  });

  test('a part of it is the same memory, and lies inside', () => {
    const memory = handle(native.createMemory(4 * page, 0, 0));
    const all = new Uint8Array(buffer(native.memoryBuffer(memory)));
    const part = new Uint8Array(buffer(native.memoryBuffer(memory, page + 8, page)));
    part[0] = 7;
    all[2 * page + 7] = 9;
    expect([part.length, all[page + 8], part[page - 1]]).toEqual([page, 7, 9]);
    const outside = [
      [0, 0],
      [0, 4 * page + 1],
      [4 * page, 1],
      [1, 4 * page],
      [-1, 1],
      [0.5, 1],
      [1, 2 ** 53 - 1],
      [2 ** 52, 2 ** 52],
      [Number.NaN, 1],
      [0],
    ] as const;
    for (const [offset, length] of outside) {
      expect([offset, length, native.memoryBuffer(memory, offset, length)]).toEqual([offset, length, -Errno.EINVAL]);
    }
  });

  test('its size is a positive multiple of the page size', () => {
    for (const size of [0, 1, page - 1, page + 1, 1.5 * page, -page, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53]) {
      expect([size, native.createMemory(size, 0, 0)]).toEqual([size, -Errno.EINVAL]);
    }
    expect(native.createMemory(2 ** 52, 0, 0)).toBe(-Errno.ENOMEM);
    expect(native.createMemory(page, 2, 0)).toBe(-Errno.EINVAL);
    expect(native.createMemory(page, 0, 21)).toBe(-Errno.EINVAL);
    expect(native.createMemory(page, 0, 64)).toBe(-Errno.EINVAL);
  });

  test('a detached view is empty; a view that is kept outlives the handle', () => {
    const memory = handle(native.createMemory(page, 0, 0));
    const detached = buffer(native.memoryBuffer(memory));
    const kept = new Uint8Array(buffer(native.memoryBuffer(memory)));
    expect(native.detach(detached)).toBe(0);
    expect(detached.byteLength).toBe(0);
    expect(native.close(memory)).toBe(0);
    expect(native.memoryBuffer(memory)).toBe(-Errno.EBADF);
    kept[page - 1] = 1;
    expect(kept[page - 1]).toBe(1);
  });

  test('a slot takes only what the memory has', () => {
    const vm = handle(native.createVm(handle(native.openKvm('/dev/kvm')), 0));
    const memory = handle(native.createMemory(4 * page, 0, 0));
    const set = (size: number, offset: number): number =>
      native.setUserMemoryRegion(vm, 0, 0, 0x10_0000, size, memory, offset);
    expect(set(5 * page, 0)).toBe(-Errno.EINVAL);
    expect(set(page, 4 * page)).toBe(-Errno.EINVAL);
    expect(set(2 ** 52, 2 ** 52)).toBe(-Errno.EINVAL);
    expect(set(Number.MAX_SAFE_INTEGER, page)).toBe(-Errno.EINVAL);
    expect(native.setUserMemoryRegion(vm, 0, 0, 0, page, undefined, 0)).toBe(-Errno.EINVAL);
    expect(native.setUserMemoryRegion(vm, 0, 4, 0, page, memory, 0)).toBe(-Errno.EINVAL);
    expect(set(2 * page, 2 * page)).toBe(0);
  });

  test('a bitmap smaller than the slot is refused', () => {
    const vm = handle(native.createVm(handle(native.openKvm('/dev/kvm')), 0));
    const memory = handle(native.createMemory(65 * page, 0, 0));
    expect(native.setUserMemoryRegion(vm, 3, 1, 0x10_0000, 65 * page, memory, 0)).toBe(0);
    expect(native.getDirtyLog(vm, 3)).toBe(16);
    expect(native.getDirtyLog(vm, 3, new Uint8Array(15))).toBe(-Errno.EINVAL);
    expect(native.getDirtyLog(vm, 3, new Uint8Array(16))).toBe(0);
    expect(native.getDirtyLog(vm, 2, new Uint8Array(16))).toBe(-Errno.ENOENT);
    expect(native.clearDirtyLog(vm, 3, 0, 65, new Uint8Array(15))).toBe(-Errno.EINVAL);
  });
});

describeKvm('a guest whose memory was closed', () => {
  test('still has it, until its slot is deleted', () => {
    const native = addon();
    const { vm, memory, ram, vcpu, run } = makeGuest(native, isa.halt);
    expect(native.detach(ram.buffer as ArrayBuffer)).toBe(0);
    expect(native.close(memory)).toBe(0);
    expect(native.close(vm)).toBe(0);
    expect(runToExit(native, vcpu)).toBe(0);
    expect(run.getUint32(Run.EXIT_REASON, true)).toBe(isa.haltExit);
  });
});
