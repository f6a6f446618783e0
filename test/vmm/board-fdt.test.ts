import { spawnSync } from 'node:child_process';
import { expect, test } from '@jest/globals';
import {
  GICR_SPACE,
  ipaBitsFor,
  MAX_CPUS,
  mpidrOf,
  PL011,
  PL031,
  PL061,
  RAM_BASE,
  virtioSlot,
} from '#lib/vmm/board.js';
import { boardFdt } from '#lib/vmm/board-fdt.js';
import { cells, findCompatible, findNode, readFdt } from '#lib/vmm/fdt/index.js';

const tree = boardFdt({
  cpus: 3,
  memorySize: 2 ** 30,
  virtioSlots: [0, 5],
  bootargs: 'quiet',
  initrd: { start: 0x4800_0000, end: 0x4900_0000 },
});

test('the map is QEMU virt’s', () => {
  expect([PL011, PL031, PL061].map(({ base, spi }) => [base, spi])).toEqual([
    [0x0900_0000, 1],
    [0x0901_0000, 2],
    [0x0903_0000, 7],
  ]);
  expect(virtioSlot(31)).toEqual({ base: 0x0a00_3e00, size: 0x200, spi: 47 });
  expect(RAM_BASE).toBe(0x4000_0000);
  expect(MAX_CPUS).toBe(123);
  expect(GICR_SPACE).toBe(0x00f6_0000);
  expect([0, 15, 16, 122].map(mpidrOf)).toEqual([0, 15, 0x100, 0x70a]);
  expect([2 ** 20, 63 * 2 ** 30, 255 * 2 ** 30].map(ipaBitsFor)).toEqual([36, 36, 38]);
});

test('it says where things are', () => {
  const root = readFdt(tree);
  expect(cells(findNode(root, '/memory@40000000')!, 'reg')).toEqual([0, 0x4000_0000, 0, 2 ** 30]);
  expect(cells(findNode(root, '/chosen')!, 'linux,initrd-end')).toEqual([0, 0x4900_0000]);
  // Three redistributors of 128 KiB.
  expect(cells(findNode(root, '/intc@8000000')!, 'reg')).toEqual([
    0, 0x0800_0000, 0, 0x1_0000, 0, 0x080a_0000, 0, 0x6_0000,
  ]);
  // Edge-rising SPIs 16 and 21, only where there is a device.
  expect(findCompatible(root, 'virtio,mmio').map((node) => cells(node, 'interrupts'))).toEqual([
    [0, 16, 1],
    [0, 21, 1],
  ]);
  expect(cells(findNode(root, '/timer')!, 'interrupts')).toEqual([1, 13, 4, 1, 14, 4, 1, 11, 4, 1, 10, 4]);
  expect(findNode(root, '/chosen')!.properties.has('kaslr-seed')).toBe(false);
});

const withIts = boardFdt({ cpus: 2, memorySize: 2 ** 30, virtioSlots: [0], its: true });
const withGicv2 = boardFdt({ cpus: 4, memorySize: 2 ** 30, virtioSlots: [0], gic: 2 });

test('an ITS is the GIC’s child and takes MSIs', () => {
  const its = findNode(readFdt(withIts), '/intc@8000000/its@8080000')!;
  expect(cells(its, 'reg')).toEqual([0, 0x0808_0000, 0, 0x2_0000]);
  expect(its.properties.has('msi-controller')).toBe(true);
  expect(cells(its, '#msi-cells')).toEqual([1]);
  expect(findCompatible(readFdt(tree), 'arm,gic-v3-its')).toEqual([]);
});

test('a GICv2 has its two frames, and the timer says which CPUs have its interrupts', () => {
  const root = readFdt(withGicv2);
  const [gic] = findCompatible(root, 'arm,cortex-a15-gic');
  expect(cells(gic!, 'reg')).toEqual([0, 0x0800_0000, 0, 0x1000, 0, 0x0801_0000, 0, 0x2000]);
  expect(cells(findNode(root, '/timer')!, 'interrupts')!.filter((_, i) => i % 3 === 2)).toEqual(Array(4).fill(0xf04));
  expect(findCompatible(root, 'arm,gic-v3')).toEqual([]);
});

test('PMUs are told where there are some, to each CPU of a GICv2', () => {
  expect(findNode(readFdt(tree), '/pmu')).toBeUndefined();
  const withPmu = (gic: 2 | 3): readonly number[] | undefined => {
    const pmu = boardFdt({ cpus: 4, memorySize: 2 ** 30, virtioSlots: [], gic, pmu: true });
    const [node] = findCompatible(readFdt(pmu), 'arm,armv8-pmuv3');
    return cells(node!, 'interrupts');
  };
  expect([withPmu(3), withPmu(2)]).toEqual([
    [1, 7, 4],
    [1, 7, 0xf04],
  ]);
});

const dtc = spawnSync('dtc', ['--version']).error === undefined;
(dtc ? test : test.skip).each([
  ['the board', tree],
  ['one with an ITS', withIts],
  ['one with a GICv2', withGicv2],
])('dtc has nothing to say against %s', (_, input) => {
  const { status, stderr } = spawnSync('dtc', ['-I', 'dtb', '-O', 'dts', '-o', '/dev/null', '-'], { input });
  expect(stderr.toString()).toBe('');
  expect(status).toBe(0);
});
