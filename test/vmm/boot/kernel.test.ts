import { gzipSync } from 'node:zlib';
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { gunzip, type Kernel, loadKernel } from '#lib/vmm/boot/index.js';
import { VmError } from '#lib/vmm/errors.js';

interface ImageOptions {
  size?: number;
  imageSize?: number;
  textOffset?: number;
  flags?: number;
}

function image({ size = 4096, imageSize = 0x8000, textOffset = 0, flags = 0xa }: ImageOptions = {}): Uint8Array {
  const bytes = new Uint8Array(size);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, 0x1400_0010, true);
  view.setBigUint64(8, BigInt(textOffset), true);
  view.setBigUint64(16, BigInt(imageSize), true);
  view.setBigUint64(24, BigInt(flags), true);
  bytes.set([0x41, 0x52, 0x4d, 0x64], 56);
  for (let i = 64; i < size; i++) bytes[i] = (i * 7) & 255;
  return bytes;
}

/** An Image with an EFI stub: a PE header with one section that reaches to `reach`. */
function peImage(reach: number, machine = 0xaa64): Uint8Array {
  const bytes = image();
  const view = new DataView(bytes.buffer);
  bytes.set([0x4d, 0x5a]);
  view.setUint32(60, 64, true);
  bytes.set([0x50, 0x45, 0, 0], 64);
  view.setUint16(68, machine, true);
  view.setUint16(70, 1, true);
  view.setUint16(84, 0, true);
  view.setUint32(88 + 16, reach - 1024, true);
  view.setUint32(88 + 20, 1024, true);
  return bytes;
}

function zboot(compression: string, payload: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(512 + payload.length);
  const view = new DataView(bytes.buffer);
  bytes.set(new TextEncoder().encode('MZ\0\0zimg'));
  view.setUint32(8, 512, true);
  view.setUint32(12, payload.length, true);
  bytes.set(new TextEncoder().encode(compression), 24);
  bytes.set(payload, 512);
  return bytes;
}

interface ElfOptions {
  machine?: number;
  type?: number;
  bits?: number;
  order?: number;
  entry?: number;
  segments?: { type?: number; address: number; virtual?: number; file: number; memory: number; offset?: number }[];
}

function elf({
  machine = 183,
  type = 2,
  bits = 2,
  order = 1,
  entry = 0x4008_0000,
  segments = [{ address: 0x4008_0000, file: 16, memory: 32 }],
}: ElfOptions = {}): Uint8Array {
  const bytes = new Uint8Array(4096);
  const view = new DataView(bytes.buffer);
  const little = order === 1;
  bytes.set([0x7f, 0x45, 0x4c, 0x46, bits, order, 1]);
  view.setUint16(16, type, little);
  view.setUint16(18, machine, little);
  view.setBigUint64(24, BigInt(entry), little);
  view.setBigUint64(32, 64n, little);
  view.setUint16(54, 56, little);
  view.setUint16(56, segments.length, little);
  segments.forEach((segment, i) => {
    const at = 64 + 56 * i;
    view.setUint32(at, segment.type ?? 1, little);
    const quads = [
      segment.offset ?? 1024,
      segment.virtual ?? segment.address,
      segment.address,
      segment.file,
      segment.memory,
      4096,
    ];
    for (const [k, quad] of quads.entries()) view.setBigUint64(at + 8 + 8 * k, BigInt(quad), little);
  });
  bytes.fill(0x5a, 1024, 1040);
  return bytes;
}

/** A Zstandard frame by hand (RFC 8878 §3.1.1): raw blocks, or one that repeats a byte `repeat` times. No content size. */
function zstd(data: Uint8Array, repeat?: number): Uint8Array {
  const frame = [0x28, 0xb5, 0x2f, 0xfd, 0, 0x58];
  const block = (type: number, last: boolean, size: number) => {
    const header = (size << 3) | (type << 1) | Number(last);
    frame.push(header & 255, (header >> 8) & 255, header >> 16);
  };
  for (let at = 0; at < data.length; at += 1000) {
    const part = data.subarray(at, at + 1000);
    block(repeat === undefined ? 0 : 1, at + 1000 >= data.length, repeat ?? part.length);
    frame.push(...(repeat === undefined ? part : [0x5a]));
  }
  return Uint8Array.from(frame);
}

function withMark(size: number, offset: number, mark: string): Uint8Array {
  const bytes = new Uint8Array(size);
  for (let i = 0; i < mark.length; i++) bytes[offset + i] = mark.charCodeAt(i);
  return bytes;
}

const bytesOf = (kernel: Kernel) => (kernel.kind === 'image' ? kernel.bytes : undefined);

describe('loadKernel takes', () => {
  test('a raw Image, and what its header says', async () => {
    expect(await loadKernel(image({ textOffset: 0x8_0000, flags: 0xc }))).toEqual({
      kind: 'image',
      wrappers: [],
      bytes: image({ textOffset: 0x8_0000, flags: 0xc }),
      textOffset: 0x8_0000,
      imageSize: 0x8000,
      pageSize: 16384,
    });
  });

  test('an Image of before 3.17: image_size 0 means text_offset 0x80000', async () => {
    expect(await loadKernel(image({ imageSize: 0, textOffset: 0x1234 }))).toMatchObject({
      textOffset: 0x8_0000,
      imageSize: 4096,
    });
  });

  test('an Image with a signature behind it: the file counts where it is larger', async () => {
    expect(await loadKernel(image({ size: 0x9000 }))).toMatchObject({ imageSize: 0x9000 });
  });

  test('an Image with an EFI stub', async () => {
    expect(await loadKernel(peImage(4096))).toMatchObject({ kind: 'image' });
  });

  test('gzip, by the platform and by the one that is given', async () => {
    const packed = new Uint8Array(gzipSync(image()));
    const kernel = await loadKernel(packed);
    expect(kernel.wrappers).toEqual(['gzip']);
    expect(bytesOf(kernel)).toEqual(image());
    const given = await loadKernel(packed, {
      gunzip: (bytes, limit) => {
        expect([bytes, limit]).toEqual([packed, 77]);
        return image({ size: 100 });
      },
      limit: 77,
    });
    expect(bytesOf(given)).toEqual(image({ size: 100 }));
  });

  test('zstd', async () => {
    const kernel = await loadKernel(zstd(image()));
    expect(kernel.wrappers).toEqual(['zstd']);
    expect(bytesOf(kernel)).toEqual(image());
  });

  test('EFI zboot with gzip and zstd', async () => {
    const gzipped = await loadKernel(zboot('gzip', new Uint8Array(gzipSync(image()))));
    expect(gzipped.wrappers).toEqual(['zboot', 'gzip']);
    expect(bytesOf(gzipped)).toEqual(image());
    expect(bytesOf(await loadKernel(zboot('zstd', zstd(image()))))).toEqual(image());
  });

  test('a raw program as it is, whatever it looks like', async () => {
    const packed = new Uint8Array(gzipSync(image()));
    for (const bytes of [packed, image(), withMark(0x300, 0x202, 'HdrS'), new Uint8Array([1])]) {
      expect(await loadKernel(bytes, { format: 'raw' })).toEqual({ kind: 'raw', wrappers: [], bytes });
    }
    await expect(loadKernel(new Uint8Array(0), { format: 'raw' })).rejects.toMatchObject({ code: 'ERR_KERNEL_EMPTY' });
  });

  test('an ELF program, by its physical addresses', async () => {
    const kernel = await loadKernel(
      elf({
        entry: 0xffff_0000_0008,
        segments: [
          { address: 0x5000_0000, file: 0, memory: 64 },
          { address: 0x4000_0000, virtual: 0xffff_0000_0000, file: 16, memory: 4096 },
          { type: 4, address: 0, file: 16, memory: 16 },
        ],
      }),
    );
    expect(kernel).toEqual({
      kind: 'elf',
      wrappers: [],
      entry: 0x4000_0008,
      segments: [
        { address: 0x4000_0000, bytes: new Uint8Array(16).fill(0x5a), size: 4096 },
        { address: 0x5000_0000, bytes: new Uint8Array(0), size: 64 },
      ],
    });
  });
});

describe('loadKernel refuses', () => {
  const gz = (bytes: Uint8Array) => new Uint8Array(gzipSync(bytes));
  test.each<[string, Uint8Array, string, RegExp]>([
    ['an empty file', new Uint8Array(0), 'ERR_KERNEL_EMPTY', /^kernel: it is empty \(0 bytes\)$/],
    ['gzip of nothing', gz(new Uint8Array(0)), 'ERR_KERNEL_EMPTY', /what the gzip holds is empty/],
    ['a few bytes', new Uint8Array(63), 'ERR_KERNEL_TRUNCATED', /63 bytes are less than any kernel's header/],
    ['an Image cut in its header', image().subarray(0, 60), 'ERR_KERNEL_TRUNCATED', /60 bytes/],
    ['an Image cut behind its header', peImage(4097), 'ERR_KERNEL_TRUNCATED', /reach to byte 4097, the file has 4096/],
    ['an Image cut in its section table', peImage(4096).subarray(0, 100), 'ERR_KERNEL_TRUNCATED', /truncated/],
    ['a big-endian Image', image({ flags: 0xb }), 'ERR_KERNEL_ENDIAN', /big-endian.*CONFIG_CPU_BIG_ENDIAN/],
    ['an Image of 16 EiB', image({ imageSize: 2 ** 60 }), 'ERR_KERNEL_FORMAT', /image_size/],
    ['a text_offset of 16 EiB', image({ textOffset: 2 ** 60 }), 'ERR_KERNEL_FORMAT', /text_offset/],
    ['an x86 bzImage', withMark(4096, 0x202, 'HdrS'), 'ERR_KERNEL_ARCH', /x86 kernel \(bzImage\)/],
    ['a RISC-V Image', withMark(4096, 0x38, 'RSC\x05'), 'ERR_KERNEL_ARCH', /RISC-V/],
    ['a 32-bit Arm zImage', withMark(4096, 0x24, '\x18\x28\x6f\x01'), 'ERR_KERNEL_ARCH', /32-bit Arm/],
    ['an initramfs', withMark(4096, 0, '070701'), 'ERR_KERNEL_FORMAT', /--initrd/],
    ['a gzip initramfs', gz(withMark(4096, 0, '070701')), 'ERR_KERNEL_FORMAT', /--initrd/],
    ['a device tree', withMark(4096, 0, '\xd0\x0d\xfe\xed'), 'ERR_KERNEL_FORMAT', /--dtb/],
    ['a qcow2 disk', withMark(4096, 0, 'QFI\xfb'), 'ERR_KERNEL_FORMAT', /--disk/],
    ['a uImage', withMark(4096, 0, '\x27\x05\x19\x56'), 'ERR_KERNEL_FORMAT', /uImage/],
    ['a package', withMark(4096, 0, '!<arch>\n'), 'ERR_KERNEL_FORMAT', /dpkg-deb -x/],
    ['xz', withMark(4096, 0, '\xfd7zXZ\0'), 'ERR_KERNEL_COMPRESSION', /xz -d/],
    [
      'an EFI program for x86',
      (() => {
        const pe = peImage(4096, 0x8664);
        pe.fill(0, 56, 60);
        return pe;
      })(),
      'ERR_KERNEL_ARCH',
      /x86-64/,
    ],
    ['text', withMark(4096, 0, '#!/bin/sh\n'), 'ERR_KERNEL_FORMAT', /neither an arm64 Image/],
    ['gzip of x86', gz(withMark(4096, 0x202, 'HdrS')), 'ERR_KERNEL_ARCH', /bzImage/],
    ['truncated gzip', gz(image()).subarray(0, 300), 'ERR_KERNEL_COMPRESSION', /gzip data are corrupt or truncated/],
    ['gzip in gzip in gzip in gzip', gz(gz(gz(gz(image())))), 'ERR_KERNEL_FORMAT', /packed more than 3 times/],
    ['truncated zstd', zstd(image()).subarray(0, 200), 'ERR_KERNEL_COMPRESSION', /zstd data are corrupt or truncated/],
    ['zstd with no blocks', Uint8Array.of(0x28, 0xb5, 0x2f, 0xfd), 'ERR_KERNEL_COMPRESSION', /zstd/],
    ['a zboot payload outside', zboot('gzip', gz(image())).subarray(0, 600), 'ERR_KERNEL_TRUNCATED', /zboot payload/],
    ['a zboot with lzma', zboot('lzma', image()), 'ERR_KERNEL_COMPRESSION', /"lzma"/],
    ['an x86 ELF', elf({ machine: 62 }), 'ERR_KERNEL_ARCH', /ELF file for x86-64/],
    ['a 32-bit Arm ELF', elf({ machine: 40, bits: 1 }), 'ERR_KERNEL_ARCH', /Arm \(32-bit\)/],
    ['a big-endian ELF', elf({ order: 2 }), 'ERR_KERNEL_ENDIAN', /big-endian ELF/],
    ['an object file', elf({ type: 1 }), 'ERR_KERNEL_FORMAT', /no program/],
    [
      'a user program',
      elf({ segments: [{ type: 3, address: 0, file: 8, memory: 8 }] }),
      'ERR_KERNEL_FORMAT',
      /user program/,
    ],
    [
      'an ELF with nothing to load',
      elf({ segments: [{ address: 0, file: 0, memory: 0 }] }),
      'ERR_KERNEL_FORMAT',
      /no segment to load/,
    ],
    ['an ELF with no headers', elf({ segments: [] }), 'ERR_KERNEL_FORMAT', /no program headers/],
    ['an ELF with an entry elsewhere', elf({ entry: 0x100 }), 'ERR_KERNEL_FORMAT', /entry 0x100/],
    ['an ELF cut off', elf().subarray(0, 1030), 'ERR_KERNEL_TRUNCATED', /segment 0 reaches over/],
    [
      'an ELF with a segment larger in the file',
      elf({ segments: [{ address: 0x4008_0000, file: 16, memory: 8 }] }),
      'ERR_KERNEL_FORMAT',
      /larger in the file/,
    ],
    [
      'an ELF with overlapping segments',
      elf({
        segments: [
          { address: 0x4008_0000, file: 16, memory: 32 },
          { address: 0x4008_0010, file: 16, memory: 32 },
        ],
      }),
      'ERR_KERNEL_FORMAT',
      /overlap at 0x40080010/,
    ],
  ])('%s', async (_, bytes, code, message) => {
    await expect(loadKernel(bytes)).rejects.toMatchObject({
      name: 'VmError',
      code,
      message: expect.stringMatching(message),
    });
  });

  test('a vmlinux, with the way out', async () => {
    const vmlinux = elf();
    new DataView(vmlinux.buffer).setBigUint64(64 + 24, 0xffff_8000_0800_0000n, true);
    await expect(loadKernel(vmlinux)).rejects.toMatchObject({
      code: 'ERR_KERNEL_PLACEMENT',
      message: expect.stringMatching(/objcopy/),
    });
  });

  test('a bomb: output over the limit', async () => {
    for (const packed of [gz(new Uint8Array(8 * 1024 * 1024)), zstd(new Uint8Array(64_000), 128 * 1024)]) {
      expect(packed.length).toBeLessThan(10_000);
      await expect(loadKernel(packed, { limit: 1024 * 1024 })).rejects.toMatchObject({
        code: 'ERR_KERNEL_TOO_BIG',
        message: expect.stringMatching(/limit of 1048576/),
      });
    }
  });
});

test('whatever bytes: a kernel or a VmError', async () => {
  const bases = [
    image(),
    peImage(4096),
    elf(),
    zboot('gzip', new Uint8Array(gzipSync(image({ size: 200 })))),
    new Uint8Array(gzipSync(image({ size: 200 }))),
    zstd(image({ size: 200 })),
  ];
  const mutated = fc
    .tuple(
      fc.constantFrom(...bases),
      fc.array(fc.tuple(fc.oneof(fc.nat(255), fc.nat()), fc.integer({ min: 0, max: 255 })), { maxLength: 6 }),
      fc.option(fc.nat()),
    )
    .map(([base, edits, cut]) => {
      const bytes = base.slice(0, cut === null ? undefined : cut % base.length);
      for (const [at, value] of edits) if (bytes.length > 0) bytes[at % bytes.length] = value;
      return bytes;
    });
  await fc.assert(
    fc.asyncProperty(fc.oneof(mutated, fc.uint8Array({ maxLength: 300 })), async (bytes) => {
      const outcome = await loadKernel(bytes, { limit: 1 << 20 }).catch((error: unknown) => error);
      if (outcome instanceof Error) expect(VmError.is(outcome)).toBe(true);
    }),
    { numRuns: 500 },
  );
});

test('gunzip gives back any bytes', async () => {
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 3000 }), async (bytes) => {
      expect(await gunzip(new Uint8Array(gzipSync(bytes)))).toEqual(bytes);
    }),
    { numRuns: 50 },
  );
});
