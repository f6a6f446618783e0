import { spawnSync } from 'node:child_process';
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { unzstd } from '#lib/vmm/boot/zstd.js';
import { VmError } from '#lib/vmm/errors.js';
import { withPrograms } from '../../oracle.ts';

/** The zstd program's frame of `data`. From a pipe, as the kernel's build packs: no content size, unless `--stream-size` gives it. */
function zstd(data: Uint8Array, ...args: string[]): Uint8Array {
  const run = spawnSync('zstd', ['-q', '-c', ...args], { input: data, maxBuffer: 64 * 1024 * 1024 });
  if (run.error !== undefined) throw run.error;
  return new Uint8Array(run.stdout);
}

/** Data that compress, with repetitions near and far. */
function sample(size: number): Uint8Array {
  const data = new Uint8Array(size);
  let state = 1;
  for (let i = 0; i < size; i++) {
    state = (state * 1103515245 + 12345) & 0x7fffffff;
    data[i] = i % 5000 < 2500 ? (state >> 16) & 15 : data[Math.max(0, i - 2500)]!;
  }
  return data;
}

const same = (a: Uint8Array, b: Uint8Array) => Buffer.compare(a, b) === 0;
const withZstd = withPrograms('zstd');

describe('unzstd', () => {
  withZstd.each([[['-3']], [['-1', '--no-check']], [['--ultra', '-22']], [['-3', '--stream-size=700001']]])(
    'undoes zstd %j',
    (args) => {
      const data = sample(700_001);
      expect(same(unzstd(zstd(data, ...args)), data)).toBe(true);
    },
  );

  withZstd('several frames, and skippable ones between', () => {
    const skippable = Uint8Array.of(0x53, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3);
    const [a, b] = [sample(5000), sample(300_000)];
    expect(same(unzstd(Buffer.concat([skippable, zstd(a), skippable, zstd(b)])), Buffer.concat([a, b]))).toBe(true);
  });

  withZstd('holds the limit, with and without a content size', () => {
    const data = new Uint8Array(8 * 1024 * 1024);
    for (const packed of [zstd(data), zstd(data, `--stream-size=${data.length}`)]) {
      expect(packed.length).toBeLessThan(5000);
      expect(() => unzstd(packed, 1024 * 1024)).toThrow(expect.objectContaining({ code: 'ERR_KERNEL_TOO_BIG' }));
      expect(unzstd(packed, data.length).length).toBe(data.length);
    }
  });

  withZstd('a content size that is not true is found', () => {
    const packed = zstd(sample(5000), '--stream-size=5000', '--no-check');
    // Single segment, 2 bytes of Frame_Content_Size, less 256.
    expect([packed[4], packed[5]! + packed[6]! * 256]).toEqual([0x60, 5000 - 256]);
    for (const size of [4999, 5001]) {
      const lie = packed.slice();
      new DataView(lie.buffer).setUint16(5, size - 256, true);
      expect(() => unzstd(lie)).toThrow(expect.objectContaining({ code: 'ERR_KERNEL_COMPRESSION' }));
    }
  });

  withZstd('whatever bytes: data or a VmError', () => {
    const packed = zstd(sample(3000));
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat(packed.length - 1), fc.integer({ min: 0, max: 255 })), { maxLength: 4 }),
        (edits) => {
          const bytes = packed.slice();
          for (const [at, value] of edits) bytes[at] = value;
          try {
            expect(unzstd(bytes, 1 << 20).length).toBeLessThanOrEqual(1 << 20);
          } catch (error) {
            if (!VmError.is(error)) throw error;
          }
        },
      ),
      { numRuns: 300 },
    );
  });

  test('nothing is nothing', () => {
    expect(unzstd(new Uint8Array(0)).length).toBe(0);
  });
});
