import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { overlay } from '#lib/vmm/devices/virtio/overlay.js';

const PAGE = 16384;

function base(capacity: number) {
  const bytes = Uint8Array.from({ length: capacity }, (_, i) => (i >>> 9) + i);
  return {
    bytes,
    reads: [] as number[][],
    failing: false,
    closed: 0,
    capacity,
    readOnly: true,
    read(offset: number, into: Uint8Array) {
      if (this.failing) throw new Error('medium error');
      this.reads.push([offset, into.length]);
      into.set(bytes.subarray(offset, offset + into.length));
    },
    write() {
      throw new Error('the base was written to');
    },
    flush() {
      throw new Error('the base was flushed');
    },
    close() {
      this.closed++;
    },
  };
}

const read = (disk: { read(offset: number, into: Uint8Array): void }, offset: number, length: number) => {
  const into = new Uint8Array(length);
  disk.read(offset, into);
  return into;
};

test('reads as one array that is written to, whatever is done to it, and leaves the base alone', () => {
  const capacity = 4 * PAGE + 512; // the last page is short
  const at = fc.nat(capacity);
  const step = fc.record({ do: fc.constantFrom('read', 'write', 'zero', 'discard'), at, to: at, value: fc.nat(255) });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 12 }), (steps) => {
      const under = base(capacity);
      const original = under.bytes.slice();
      const disk = overlay(under);
      const model = original.slice();
      for (const { do: what, at: a, to: b, value } of steps) {
        const [start, end] = [Math.min(a, b), Math.max(a, b)];
        if (what === 'read') {
          expect(Buffer.compare(read(disk, start, end - start), model.subarray(start, end))).toBe(0);
        } else if (what === 'write') {
          disk.write(start, new Uint8Array(end - start).fill(value));
          model.fill(value, start, end);
        } else {
          if (what === 'zero') disk.writeZeroes!(start, end - start);
          else disk.discard!(start, end - start);
          model.fill(0, start, end);
        }
      }
      expect(Buffer.compare(read(disk, 0, capacity), model)).toBe(0);
      expect(Buffer.compare(under.bytes, original)).toBe(0);
    }),
    { numRuns: 100 },
  );
});

test('reads runs of untouched pages at once, and never a page that is written over whole', () => {
  const under = base(8 * PAGE);
  const disk = overlay(under);
  disk.write(2 * PAGE, new Uint8Array(PAGE).fill(9));
  expect(under.reads).toEqual([]);
  read(disk, 100, 7 * PAGE);
  expect(under.reads).toEqual([
    [100, 2 * PAGE - 100],
    [3 * PAGE, 4 * PAGE + 100],
  ]);
});

test('a base that fails in the middle of a write leaves what was there', () => {
  const under = base(PAGE);
  const disk = overlay(under);
  under.failing = true;
  expect(() => disk.write(10, Uint8Array.of(1))).toThrow('medium error');
  under.failing = false;
  expect(read(disk, 0, PAGE)).toEqual(under.bytes);
});

test('checks ranges, flushes nothing, closes its base', () => {
  const under = base(1024);
  const disk = overlay(under);
  expect([disk.readOnly, disk.capacity]).toEqual([false, 1024]);
  for (const [offset, length] of [
    [1023, 2],
    [-1, 1],
    [2 ** 60, 1],
    [0.5, 1],
  ] as const) {
    expect(() => disk.write(offset, new Uint8Array(length))).toThrow(RangeError);
    expect(() => read(disk, offset, length)).toThrow(RangeError);
    expect(() => disk.writeZeroes!(offset, length)).toThrow(RangeError);
  }
  expect(disk.flush()).toBeUndefined();
  disk.close();
  expect(under.closed).toBe(1);
});
