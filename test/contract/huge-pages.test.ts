import { readFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { hugePages } from '#lib/host/huge-pages.js';
import type { Kvm, Vm } from '#lib/kvm/index.js';
import { neutralBackends } from './backends.ts';
import { errnoOf } from './machine.ts';

const MIB = 2 ** 20;
/** Two pages of a size that a host has set aside for who asks, as the arm64 lane's has. */
const usable = hugePages().find(({ size, free }) => free >= 2 && size <= 32 * MIB);

describe.each(neutralBackends)('memory of huge pages on $name', ({ open, inTurn }) => {
  let kvm: Kvm;
  let vm: Vm;
  beforeEach(() => {
    kvm = open();
    vm = kvm.createVm();
  });
  afterEach(() => {
    vm.close();
    kvm.close();
  });

  const messageOf = (size: number, hugePageSize: number): string => {
    try {
      vm.createMemory(size, { hugePageSize }).close();
      return 'OK';
    } catch (error) {
      return (error as Error).message;
    }
  };

  test('is refused where the size is none, is not there, or is no divisor', () => {
    for (const [size, hugePageSize] of [
      [6 * MIB, 3 * MIB],
      [2 * MIB, 1],
      [2 * MIB, 0],
      [2 * MIB, -2 * MIB],
      [2 * MIB, Number.NaN],
      [2 * MIB, 2 ** 60],
      [3 * MIB, 2 * MIB],
      [0, 2 * MIB],
      [128 * MIB, 128 * MIB],
    ] as const) {
      expect([size, hugePageSize, errnoOf(() => vm.createMemory(size, { hugePageSize }))]).toEqual([
        size,
        hugePageSize,
        'EINVAL',
      ]);
    }
    if (inTurn) expect(messageOf(2 * MIB, 2 * MIB)).toMatch(/WebAssembly's, which has no huge pages/);
    else expect(messageOf(128 * MIB, 128 * MIB)).toMatch(/this host has no huge pages of 128M; it has /);
  });

  const known = hugePages()[0];
  if (!inTurn && known !== undefined) {
    test('says how many pages there are where they are too few, and how there are more', () => {
      const size = (known.free + 1) * known.size;
      expect(errnoOf(() => vm.createMemory(size, { hugePageSize: known.size }))).toBe('ENOMEM');
      expect(messageOf(size, known.size)).toMatch(
        /are free; to set them aside, as root: echo \d+ > \/sys\/.*\/nr_hugepages$/,
      );
    });
  }

  if (inTurn) return;
  const runs = usable === undefined ? test.skip : test;
  const why = usable === undefined ? ' (skipped: this host has set no huge pages aside)' : '';
  runs(`is of such pages, zeroed, and can be a slot${why}`, () => {
    const { size: page } = usable!;
    const free = () => hugePages().find(({ size }) => size === page)!.free;
    const memory = vm.createMemory(2 * page, { hugePageSize: page });
    expect(memory.bytes.length).toBe(2 * page);
    const before = free();
    expect([memory.bytes[0], memory.bytes[2 * page - 1]]).toEqual([0, 0]);
    memory.bytes[0] = 1;
    memory.bytes[page] = 2;
    expect(before - free()).toBeGreaterThan(0);
    expect(readFileSync('/proc/self/smaps', 'latin1')).toMatch(new RegExp(`^KernelPageSize: +${page / 1024} kB$`, 'm'));
    expect(
      errnoOf(() => vm.setUserMemoryRegion({ slot: 0, guestPhysAddr: 2 ** 30, memorySize: 2 * page, memory })),
    ).toBe('OK');
    expect([...memory.bytes.subarray(page - 1, page + 1)]).toEqual([0, 2]);
    memory.close();
    vm.close();
  });
});
