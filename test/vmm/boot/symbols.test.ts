import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { elfSymbols, kallsyms, SymbolTable } from '#lib/vmm/boot/index.js';

/** What scripts/kallsyms.c makes of symbols, in the layouts of different kernels. */
type Layout = '6.1' | '6.4' | '7.x';

/** Symbols in the order of their addresses; `nm` types first in the names. Addresses count from the Image's start. */
type Symbols = readonly (readonly [name: string, address: number])[];

const TEXT = 0x1_0000;
const KIMAGE = 0xffff_8000_8000_0000n;

function image(symbols: Symbols, layout: Layout): Uint8Array {
  const unit = layout === '7.x' ? 4 : 8;
  const bytes: number[] = Array.from({ length: 4096 }, (_, i) => (i * 7) & 0xff);
  const padTo = (n: number): void => {
    while (bytes.length % n !== 0) bytes.push(0);
  };
  const u32 = (v: number): void => void bytes.push(v & 0xff, (v >>> 8) & 0xff, (v >>> 16) & 0xff, (v >>> 24) & 0xff);
  const u64 = (v: bigint): void => {
    u32(Number(v & 0xffff_ffffn));
    u32(Number(v >> 32n));
  };
  // Codes above 0x7f stand for longer pieces; the rest for themselves.
  const tokens = Array.from({ length: 256 }, (_, code) =>
    code === 0xf0 ? 'Tgic_' : code === 0xf1 ? '_irq' : code < 0x20 || code > 0x7e ? '?x' : String.fromCharCode(code),
  );
  const compressed = symbols.map(([name]) =>
    Array.from(name.replaceAll('Tgic_', '\xf0').replaceAll('_irq', '\xf1'), (c) => c.charCodeAt(0)),
  );
  let relativeBase = 0;
  const writeOffsets = (): void => {
    padTo(unit);
    for (const [, address] of symbols) u32(layout === '7.x' ? address - bytes.length : address - TEXT);
    padTo(unit);
    relativeBase = bytes.length;
    if (layout === '6.4') u64(KIMAGE + BigInt(TEXT));
    if (layout === '6.1') u64(0n);
  };
  if (layout === '6.1') writeOffsets();
  padTo(unit);
  u32(symbols.length);
  padTo(unit);
  const names = bytes.length;
  const markers: number[] = [];
  compressed.forEach((name, i) => {
    if (i % 256 === 0) markers.push(bytes.length - names);
    if (name.length < 0x80) bytes.push(name.length);
    else bytes.push((name.length & 0x7f) | 0x80, name.length >> 7);
    bytes.push(...name);
  });
  padTo(unit);
  for (const marker of markers) u32(marker);
  padTo(unit);
  if (layout === '6.1') {
    for (let i = 0; i < symbols.length; i++) bytes.push(0, i >> 8, i & 0xff);
    padTo(unit);
  }
  const starts: number[] = [];
  const table = bytes.length;
  for (const token of tokens) {
    starts.push(bytes.length - table);
    bytes.push(...Array.from(token, (c) => c.charCodeAt(0)), 0);
  }
  padTo(unit);
  for (const start of starts) bytes.push(start & 0xff, start >> 8);
  if (layout !== '6.1') writeOffsets();
  padTo(8);
  if (layout === '6.1') {
    // Relocations: another one, then that of kallsyms_relative_base.
    for (const [place, addend] of [
      [0x100, 0x5000],
      [relativeBase, TEXT],
    ] as const) {
      u64(KIMAGE + BigInt(place));
      u64(0x403n);
      u64(KIMAGE + BigInt(addend));
    }
  }
  while (bytes.length < TEXT * 4) bytes.push(0xd5);
  return Uint8Array.from(bytes);
}

const many: Symbols = [
  ['Tgic_handle_irq', TEXT],
  ['T_stext', TEXT],
  ...Array.from({ length: 700 }, (_, i) => [`tfunction_${i}_irq`, TEXT + 0x100 + i * 16] as const),
  [`t${'long_'.repeat(40)}name`, TEXT + 0x4000],
  ['dsome_data', TEXT + 0x5000],
  ['T_end_of_text', TEXT + 0x6000],
];
const BASE = 0x4020_0000;

describe.each(['6.1', '6.4', '7.x'] as const)('kallsyms as Linux %s has them', (layout) => {
  const found = kallsyms(image(many, layout), BASE);

  test.each([
    [TEXT, 'gic_handle_irq', 0],
    [TEXT + 0x100 + 699 * 16 + 12, 'function_699_irq', 12],
    [TEXT + 0x4004, `${'long_'.repeat(40)}name`, 4],
    [TEXT + 0x5010, `${'long_'.repeat(40)}name`, 0x1010],
    [TEXT + 0x6000, '_end_of_text', 0],
  ])('%i bytes from the start', (at, name, offset) => {
    expect(found?.find(BASE + at)).toEqual({ name, offset });
  });

  test('no symbol is before the first, or after the Image', () => {
    expect(found?.find(BASE + TEXT - 4)).toBeUndefined();
    expect(found?.find(BASE + TEXT * 4)).toBeUndefined();
  });

  test('data are no functions', () => {
    expect(found?.size).toBe(many.length - 1);
  });

  test('damaged anywhere, they are refused or read, and nothing is thrown', () => {
    const whole = image(many, layout);
    fc.assert(
      fc.property(fc.nat(whole.length - 1), fc.nat(255), fc.nat(whole.length), (at, value, length) => {
        const damaged = whole.slice(0, Math.max(length, at + 1));
        damaged[at] = value;
        kallsyms(damaged, BASE);
      }),
      { numRuns: 60 },
    );
  });
});

test('a kernel without kallsyms has no symbols', () => {
  expect(kallsyms(new Uint8Array(65536), BASE)).toBeUndefined();
  expect(kallsyms(new Uint8Array(0), BASE)).toBeUndefined();
});

describe('symbols of an ELF file', () => {
  const elf = (edit?: (view: DataView) => void): Uint8Array => {
    const bytes = new Uint8Array(0x400);
    const view = new DataView(bytes.buffer);
    const quad = (at: number, v: number): void => view.setBigUint64(at, BigInt(v), true);
    quad(32, 64); // e_phoff
    view.setUint16(54, 56, true);
    view.setUint16(56, 1, true);
    quad(40, 0x100); // e_shoff
    view.setUint16(58, 64, true);
    view.setUint16(60, 3, true);
    view.setUint32(64, 1, true); // PT_LOAD
    quad(64 + 16, 0x8000_0000);
    quad(64 + 24, 0x4008_0000);
    quad(64 + 40, 0x1000);
    view.setUint32(0x100 + 64 + 4, 2, true); // .symtab
    quad(0x100 + 64 + 24, 0x200);
    quad(0x100 + 64 + 32, 3 * 24);
    view.setUint32(0x100 + 64 + 40, 2, true); // its strings: section 2
    quad(0x100 + 128 + 24, 0x300);
    quad(0x100 + 128 + 32, 32);
    bytes.set(
      Array.from('\0start\0main\0data\0', (c) => c.charCodeAt(0)),
      0x300,
    );
    for (const [n, name, info, value] of [
      [0, 1, 0x12, 0x8000_0000],
      [1, 7, 0x02, 0x8000_0100],
      [2, 12, 0x11, 0x8000_0200],
    ] as const) {
      view.setUint32(0x200 + n * 24, name, true);
      view.setUint8(0x204 + n * 24, info);
      quad(0x208 + n * 24, value);
    }
    edit?.(view);
    return bytes;
  };

  test('functions are at their physical addresses; data are left out', () => {
    const table = elfSymbols(elf());
    expect(table?.find(0x4008_0000)).toEqual({ name: 'start', offset: 0 });
    expect(table?.find(0x4008_0204)).toEqual({ name: 'main', offset: 0x104 });
    expect(table?.find(0x4008_1000)).toBeUndefined();
    expect(table?.size).toBe(2);
  });

  test.each([
    ['section headers over the end', (v: DataView) => v.setBigUint64(40, 0x3f0n, true)],
    ['a symbol table over the end', (v: DataView) => v.setBigUint64(0x100 + 64 + 32, 0x400n, true)],
    ['program headers over the end', (v: DataView) => v.setBigUint64(32, 0x3f0n, true)],
    ['strings that are no section', (v: DataView) => v.setUint32(0x100 + 64 + 40, 9, true)],
    ['no symbol table', (v: DataView) => v.setUint32(0x100 + 64 + 4, 3, true)],
  ])('%s: none', (_, edit) => {
    expect(elfSymbols(elf(edit))).toBeUndefined();
  });
});

test('of the symbols at one address the first is taken', () => {
  const table = new SymbolTable(
    [
      { name: 'b', address: 8 },
      { name: 'a', address: 4 },
      { name: 'c', address: 8 },
    ],
    16,
  );
  expect([3, 4, 7, 8, 15, 16].map((at) => table.find(at)?.name)).toEqual([undefined, 'a', 'a', 'b', 'b', undefined]);
});
