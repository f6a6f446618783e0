import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { openHost } from '#lib/host/index.js';
import type { GuestMemory, Kvm, Vm } from '#lib/kvm/index.js';
import { describeKvm } from '../native/native.ts';

const MIB = 2 ** 20;

describeKvm("parts of a host VM's memory", () => {
  let kvm: Kvm;
  let vm: Vm;
  const part = (memory: GuestMemory, offset: number, length: number): Uint8Array => memory.view!(offset, length);
  beforeEach(() => {
    kvm = openHost();
    vm = kvm.createVm();
  });
  afterEach(() => {
    vm.close();
    kvm.close();
  });

  test('each is where it says, across the borders of windows and at the end', () => {
    const memory = vm.createMemory(4 * MIB);
    const ranges = [
      [0, 1],
      [MIB - 2, 4],
      [MIB - 1, MIB],
      [2 * MIB - 1, 2],
      [MIB / 2, 3 * MIB],
      [3 * MIB, MIB],
      [4 * MIB - 1, 1],
      [4 * MIB, 0],
    ] as const;
    const written = ranges.map(([offset, length], i) => part(memory, offset, length).fill(i + 1, 0, 1));
    expect(written.map(({ length }) => length)).toEqual(ranges.map(([, length]) => length));
    const { bytes } = memory;
    for (const [i, [offset, length]] of ranges.entries())
      if (length > 0) expect([i, bytes[offset]]).toEqual([i, i + 1]);
    // Those from before and those from now on are the same memory.
    bytes[MIB] = 99;
    expect([written[1]![2], written[4]![MIB / 2], part(memory, MIB, 1)[0]]).toEqual([99, 99, 99]);
  });

  test('what is not inside is a RangeError', () => {
    const memory = vm.createMemory(4 * MIB);
    const outside = [
      [-1, 1],
      [0, 4 * MIB + 1],
      [4 * MIB, 1],
      [0, -1],
      [Number.NaN, 1],
      [0, Number.POSITIVE_INFINITY],
    ] as const;
    for (const [offset, length] of outside) expect(() => part(memory, offset, length)).toThrow(RangeError);
  });

  test('close() empties them; then there are none', () => {
    const memory = vm.createMemory(4 * MIB);
    const parts = [part(memory, 0, 8), part(memory, MIB, MIB)];
    // More long ones than are kept apart.
    for (let i = 0; i < 12; i++) parts.push(part(memory, i, 2 * MIB));
    expect(parts.slice(2).map(({ length }) => length)).toEqual(new Array(12).fill(2 * MIB));
    memory.close();
    expect([...parts, memory.bytes].map(({ length }) => length)).toEqual(new Array(15).fill(0));
    expect(() => part(memory, 0, 8)).toThrow(expect.objectContaining({ code: 'EBADF' }));
  });

  test('V8 counts what was looked at, and not a guest', () => {
    const memory = vm.createMemory(1024 * MIB);
    const before = process.memoryUsage().arrayBuffers;
    for (let i = 0; i < 100; i++) part(memory, 512 * MIB + i * 4096, 4096);
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(8 * MIB);
  });
});
