import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { DTB_MAX_SIZE, type Kernel, type PlacementInput, placeBoot } from '#lib/vmm/boot/index.js';
import { VmError } from '#lib/vmm/errors.js';

const MIB = 1024 * 1024;
const BASE = 0x4000_0000;
const bytes = new Uint8Array(4096);

const image = (imageSize: number, textOffset = 0): Kernel => ({
  kind: 'image',
  wrappers: [],
  bytes,
  textOffset,
  imageSize,
  pageSize: 4096,
});
const elf = (...segments: [address: number, size: number][]): Kernel => ({
  kind: 'elf',
  wrappers: [],
  entry: segments[0]![0],
  segments: segments.map(([address, size]) => ({ address, size, bytes: new Uint8Array(0) })),
});
const place = (input: Partial<PlacementInput>) =>
  placeBoot({ ram: { base: BASE, size: 128 * MIB }, kernel: image(33 * MIB), dtbSize: 10_000, ...input });

describe('placeBoot', () => {
  test('an Image, its tree above the BSS, the initrd above that', () => {
    expect(place({ kernel: image(33 * MIB + 1, 0x8_0000), initrdSize: 5000 })).toEqual({
      entry: BASE + 0x8_0000,
      kernel: [{ address: BASE + 0x8_0000, bytes, size: 33 * MIB + 1 }],
      dtb: BASE + 34 * MIB,
      initrd: { start: BASE + 34 * MIB + 12288, end: BASE + 34 * MIB + 12288 + 5000 },
    });
    expect(place({}).initrd).toBeUndefined();
  });

  test("an ELF program's tree is at the start of RAM if that is free, else above the program", () => {
    expect(place({ kernel: elf([BASE + 0x8_0000, 100]) })).toMatchObject({ entry: BASE + 0x8_0000, dtb: BASE });
    expect(place({ kernel: elf([BASE, 100], [BASE + 5 * MIB, 100]) })).toMatchObject({
      entry: BASE,
      dtb: BASE + 6 * MIB,
    });
    expect(place({ kernel: elf([BASE + 9999, 100]) })).toMatchObject({ dtb: BASE + 2 * MIB });
  });

  test('a raw program where QEMU has it, tree and initrd above half of RAM or 128 MiB', () => {
    const kernel: Kernel = { kind: 'raw', wrappers: [], bytes };
    expect(place({ kernel, initrdSize: 5000 })).toEqual({
      entry: BASE + 0x8_0000,
      kernel: [{ address: BASE + 0x8_0000, bytes, size: bytes.length }],
      dtb: BASE + 64 * MIB,
      initrd: { start: BASE + 64 * MIB + 12288, end: BASE + 64 * MIB + 12288 + 5000 },
    });
    expect(place({ kernel, ram: { base: BASE, size: 1024 * MIB } })).toMatchObject({ dtb: BASE + 128 * MIB });
    const large: Kernel = { ...kernel, bytes: new Uint8Array(65 * MIB) };
    expect(place({ kernel: large })).toMatchObject({ dtb: BASE + 66 * MIB });
    expect(() => place({ kernel, ram: { base: BASE, size: 0x8_0000 } })).toThrow(
      expect.objectContaining({ code: 'ERR_KERNEL_TOO_BIG' }),
    );
  });

  test.each<[string, Partial<PlacementInput>, string, RegExp]>([
    [
      'a kernel too big for the memory',
      { kernel: image(128 * MIB, 4096) },
      'ERR_KERNEL_TOO_BIG',
      /needs 128.01 MiB of memory or more, and there are 128; give more \(--memory\)/,
    ],
    [
      'a tree too big for the memory',
      { kernel: image(128 * MIB - 4096), dtbSize: 5000 },
      'ERR_DTB_TOO_BIG',
      /does not fit above the kernel/,
    ],
    ['a tree over 2 MiB', { dtbSize: DTB_MAX_SIZE + 1 }, 'ERR_DTB_TOO_BIG', /limit of 2097152/],
    [
      'an initrd too big for the memory',
      { initrdSize: 100 * MIB },
      'ERR_INITRD_TOO_BIG',
      /104857600 bytes do not fit.*--memory/,
    ],
    [
      'an initrd outside the window',
      { ram: { base: BASE, size: 100 * 1024 * MIB }, initrdSize: 32 * 1024 * MIB },
      'ERR_INITRD_TOO_BIG',
      /32 GiB/,
    ],
    ['an empty initrd', { initrdSize: 0 }, 'ERR_INITRD_EMPTY', /empty.*--initrd/],
    [
      'an ELF segment below RAM',
      { kernel: elf([0x8000, 100]) },
      'ERR_KERNEL_PLACEMENT',
      /0x8000; memory is from 0x40000000 to 0x48000000/,
    ],
    ['an ELF segment above RAM', { kernel: elf([BASE + 128 * MIB - 50, 100]) }, 'ERR_KERNEL_PLACEMENT', /--memory/],
  ])('refuses %s', (_, input, code, message) => {
    expect(() => place(input)).toThrow(expect.objectContaining({ code, message: expect.stringMatching(message) }));
  });

  test('whatever fits keeps the boot protocol', () => {
    const input = fc.record({
      size: fc.integer({ min: 1, max: 256 * MIB }),
      imageSize: fc.integer({ min: 4096, max: 64 * MIB }),
      textOffset: fc.constantFrom(0, 0x8_0000),
      dtbSize: fc.integer({ min: 40, max: DTB_MAX_SIZE }),
      initrdSize: fc.option(fc.integer({ min: 1, max: 64 * MIB }), { nil: undefined }),
    });
    let placed = 0;
    fc.assert(
      fc.property(input, ({ size, imageSize, textOffset, dtbSize, initrdSize }) => {
        try {
          const placement = placeBoot({
            ram: { base: BASE, size },
            kernel: image(imageSize, textOffset),
            dtbSize,
            initrdSize,
          });
          placed++;
          const [kernel] = placement.kernel;
          expect((kernel!.address - textOffset) % (2 * MIB)).toBe(0);
          expect(placement.dtb % 8).toBe(0);
          expect(Math.floor(placement.dtb / (2 * MIB))).toBe(Math.floor((placement.dtb + dtbSize - 1) / (2 * MIB)));
          const ranges = [
            [kernel!.address, kernel!.address + kernel!.size],
            [placement.dtb, placement.dtb + dtbSize],
          ];
          if (placement.initrd !== undefined) ranges.push([placement.initrd.start, placement.initrd.end]);
          ranges.sort((a, b) => a[0]! - b[0]!);
          for (const [i, [start, end]] of ranges.entries()) {
            expect(start).toBeGreaterThanOrEqual(i === 0 ? BASE : ranges[i - 1]![1]!);
            expect(end).toBeLessThanOrEqual(BASE + size);
          }
        } catch (error) {
          if (!VmError.is(error)) throw error;
        }
      }),
      { numRuns: 1000 },
    );
    expect(placed).toBeGreaterThan(100);
  });
});
