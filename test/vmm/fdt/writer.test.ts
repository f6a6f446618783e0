import { spawnSync } from 'node:child_process';
import { describe, expect, test } from '@jest/globals';
import {
  cells,
  editChosen,
  FdtWriter,
  findCompatible,
  findNode,
  parseFdt,
  readFdt,
  stringList,
  writeFdt,
} from '#lib/vmm/fdt/index.js';
import { withPrograms } from '../../oracle.ts';

/** `dtc` reads a blob and gives the source text; it fails the test with its own words where it can't. */
function dtc(blob: Uint8Array): string {
  const run = spawnSync('dtc', ['-I', 'dtb', '-O', 'dts', '-q', '-'], { input: blob, encoding: 'utf8' });
  if (run.error !== undefined) throw run.error;
  expect(run.stderr).toBe('');
  expect(run.status).toBe(0);
  return run.stdout;
}

function board(): FdtWriter {
  return new FdtWriter().reserve(0x4000_0000, 0x1000).node('', (root) => {
    root.cells('#address-cells', 2).cells('#size-cells', 2).stringList('compatible', 'linux,dummy-virt', 'other');
    const gic = root.newPhandle();
    root.cells('interrupt-parent', gic);
    root.node('chosen', (chosen) =>
      chosen.string('bootargs', 'console=ttyAMA0 it\'s "quoted"').bytes('rng-seed', Uint8Array.of(1, 2, 3, 4, 5)),
    );
    root.node('memory@40000000', (memory) =>
      memory.string('device_type', 'memory').reg('reg', [0x4000_0000, 0x1_0000_0000]),
    );
    root.node('intc@8000000', (intc) =>
      intc
        .string('compatible', 'arm,gic-v3')
        .flag('interrupt-controller')
        .cells('#interrupt-cells', 3)
        .u64('reg', 0x800_0000, 0x1_0000n)
        .phandle(gic),
    );
    root.node('empty');
  });
}

describe('FdtWriter', () => {
  withPrograms('dtc')('dtc reads the same tree', () => {
    const source = dtc(board().finish({ bootCpu: 0 }));
    const lines = source.split('\n').map((line) => line.trim());
    expect(lines).toContain('/memreserve/\t0x0000000040000000 0x0000000000001000;');
    expect(lines).toContain('compatible = "linux,dummy-virt\\0other";');
    expect(lines).toContain('bootargs = "console=ttyAMA0 it\'s \\"quoted\\"";');
    expect(lines).toContain('rng-seed = [01 02 03 04 05];');
    expect(lines).toContain('reg = <0x00 0x40000000 0x01 0x00>;');
    expect(lines).toContain('interrupt-controller;');
    expect(lines).toContain('reg = <0x00 0x8000000 0x00 0x10000>;');
    expect(lines).toContain('phandle = <0x01>;');
    expect(lines).toContain('interrupt-parent = <0x01>;');
    expect(source).toMatch(/empty \{\s*\};/);
  });

  withPrograms('dtc')('what dtc compiles is read, and written again as dtc has it', () => {
    const source = `/dts-v1/;
      /memreserve/ 0x1000 0x2000;
      / { #address-cells = <1>; a { x = "s", "t"; y = <1 2>; z = [ff]; f; b@1 { reg = <1>; deep { }; }; b@2 { reg = <2>; }; }; };`;
    const compiled = spawnSync('dtc', ['-I', 'dts', '-O', 'dtb', '-q', '-'], { input: source });
    expect(compiled.status).toBe(0);
    const fdt = parseFdt(new Uint8Array(compiled.stdout));
    expect(fdt.reservations).toEqual([{ address: 0x1000n, size: 0x2000n }]);
    expect(stringList(findNode(fdt.root, '/a')!, 'x')).toEqual(['s', 't']);
    expect(cells(findNode(fdt.root, '/a')!, 'y')).toEqual([1, 2]);
    expect(cells(findNode(fdt.root, '/a/b@2')!, 'reg')).toEqual([2]);
    expect(findNode(fdt.root, '/a/b')?.name).toBe('b@1');
    expect(findNode(fdt.root, '/a/c')).toBeUndefined();
    expect(dtc(writeFdt(fdt))).toBe(dtc(new Uint8Array(compiled.stdout)));
  });

  test('layout: aligned, version 17, sizes as the header says', () => {
    const blob = board().finish({ bootCpu: 3, padding: 100 });
    const view = new DataView(blob.buffer);
    const word = (i: number) => view.getUint32(4 * i);
    expect([word(0), word(1), word(5), word(6), word(7)]).toEqual([0xd00dfeed, blob.length, 17, 16, 3]);
    expect(blob.length % 8).toBe(0);
    expect(word(3) + word(8) + 100).toBeLessThanOrEqual(blob.length);
    expect(parseFdt(blob).bootCpu).toBe(3);
  });

  test.each<[string, (w: FdtWriter) => unknown, RegExp]>([
    ['a bad node name', (w) => w.node('', () => w.node('a b')), /"a b" is no node name/],
    ['an empty node name', (w) => w.node('', () => w.node('')), /"" is no node name/],
    ['a node name of 32', (w) => w.node('', () => w.node('n'.repeat(32))), /is no node name/],
    ['a bad property name', (w) => w.node('', () => w.flag('a@b')), /"a@b" is no property name/],
    ['a named root', (w) => w.node('root'), /the root's name is empty/],
    ['two roots', (w) => w.node('').node(''), /stands beside the root/],
    ['a node twice', (w) => w.node('', () => w.node('a').node('a')), /node \/ already has a child "a"/],
    ['a property twice', (w) => w.node('', () => w.flag('a').flag('a')), /node \/ already has a property "a"/],
    ['a property after a child', (w) => w.node('', () => w.node('a').flag('b')), /comes after a child/],
    ['a property outside', (w) => w.flag('a'), /outside any node/],
    ['an end too many', (w) => w.endNode(), /endNode\(\) without a node/],
    ['an open node', (w) => w.beginNode('').finish(), /node \/ is still open/],
    ['no root', (w) => w.finish(), /no root/],
    ['a cell of 33 bits', (w) => w.node('', () => w.cells('a', 2 ** 32)), /4294967296 is no 32-bit cell/],
    ['a negative cell', (w) => w.node('', () => w.cells('a', -1)), /-1 is no 32-bit cell/],
    ['an inexact number', (w) => w.node('', () => w.u64('a', 2 ** 53)), /give a bigint/],
    ['65 bits', (w) => w.node('', () => w.u64('a', 2n ** 64n)), /does not fit 64 bits/],
    ['a NUL', (w) => w.node('', () => w.string('a', 'x\0y')), /holds a NUL/],
    [
      'a phandle twice',
      (w) => w.node('', () => w.phandle(1).node('a', () => w.phandle(1))),
      /phandle 1 is given twice/,
    ],
    ['a reservation of 0', (w) => w.reserve(1, 0), /0 bytes/],
    ['a body that leaves a node open', (w) => w.node('', () => w.beginNode('a')), /left a node open/],
    ['65 levels', (w) => Array.from({ length: 65 }, (_, i) => w.beginNode(i === 0 ? '' : 'a')), /deeper than 64/],
  ])('refuses %s', (_, make, message) => {
    expect(() => make(new FdtWriter())).toThrow(
      expect.objectContaining({ code: 'ERR_FDT_WRITE', message: expect.stringMatching(message) }),
    );
  });

  test('is finished once', () => {
    const writer = new FdtWriter().node('');
    writer.finish();
    expect(() => writer.finish()).toThrow(/finished/);
    expect(() => writer.node('')).toThrow(/finished/);
  });
});

describe('editChosen', () => {
  test('sets what is given and leaves the rest', () => {
    const edited = readFdt(editChosen(board().finish(), { initrd: { start: 0x4800_0000, end: 0x1_0000_0001 } }));
    const chosen = findNode(edited, '/chosen')!;
    expect(stringList(chosen, 'bootargs')).toEqual(['console=ttyAMA0 it\'s "quoted"']);
    expect(cells(chosen, 'linux,initrd-start')).toEqual([0, 0x4800_0000]);
    expect(cells(chosen, 'linux,initrd-end')).toEqual([1, 1]);
    expect(findCompatible(edited, 'other').map((node) => node.name)).toEqual(['']);
    expect(findCompatible(edited, 'arm,gic-v3').map((node) => node.name)).toEqual(['intc@8000000']);
  });

  test('makes /chosen where there is none', () => {
    const edited = readFdt(editChosen(new FdtWriter().node('').finish(), { bootargs: 'quiet' }));
    expect(stringList(findNode(edited, '/chosen')!, 'bootargs')).toEqual(['quiet']);
    expect(() => editChosen(new FdtWriter().node('').finish(), { bootargs: 'a\0b' })).toThrow(/NUL/);
  });
});
