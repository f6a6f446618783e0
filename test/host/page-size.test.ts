import { describe, expect, test } from '@jest/globals';
import { CoalescedRing } from '#lib/host/coalesced-mmio.js';
import { HostMemory } from '#lib/host/memory.js';
import type { Native } from '#lib/host/native.js';

const ENTRY_SIZE = 24;
const HEAD_SIZE = 8;

/** What of the addon memory asks, on a host of that page size: as mmap there, it refuses parts of pages. */
function hostOf(pageSize: number): Native & { asked: number[][] } {
  const asked: number[][] = [];
  const native = {
    asked,
    pageSize: () => pageSize,
    createMemory(size: number, flags: number, shift: number) {
      asked.push([size, flags, shift]);
      return size % pageSize === 0 ? {} : -22;
    },
  };
  return native as unknown as Native & { asked: number[][] };
}

/** No kernel of Debian's has pages of 64 KiB, so a host of such pages is put in the addon's place. */
describe.each([4096, 16384, 65536])('on a host with pages of %d bytes', (pageSize) => {
  test('memory is of whole pages, and the error says of which size', () => {
    const native = hostOf(pageSize);
    expect(HostMemory.create(native, 3 * pageSize).size).toBe(3 * pageSize);
    expect(() => HostMemory.create(native, pageSize + 2048)).toThrow(
      expect.objectContaining({ code: 'EINVAL', message: expect.stringContaining(`the page size ${pageSize}`) }),
    );
  });

  test('huge pages are larger than pages', () => {
    const native = hostOf(pageSize);
    const refused = expect.objectContaining({ code: 'EINVAL' });
    for (const size of [pageSize / 2, pageSize]) {
      expect(() => HostMemory.createHuge(native, 2 ** 21, size)).toThrow(refused);
    }
    expect(native.asked).toEqual([]);
    HostMemory.createHuge(native, 2 ** 21, 2 * pageSize);
    expect(native.asked).toEqual([[2 ** 21, 0, Math.log2(2 * pageSize)]]);
  });

  test('gathered writes lie on the page behind kvm_run, as many as it has room for', () => {
    const area = new ArrayBuffer(2 * pageSize);
    const view = new DataView(area, pageSize);
    const count = Math.floor((pageSize - HEAD_SIZE) / ENTRY_SIZE);
    const ring = new CoalescedRing(area, pageSize);
    // The last place and, around the end, the first.
    for (const [place, value] of [
      [count - 1, 0x11],
      [0, 0x22],
    ] as const) {
      const at = HEAD_SIZE + place * ENTRY_SIZE;
      view.setBigUint64(at, 0x900_0000n, true);
      view.setUint32(at + 8, 1, true);
      view.setUint8(at + 16, value);
    }
    view.setUint32(0, count - 1, true);
    view.setUint32(4, 1, true);
    const write = (value: number): unknown => ({ physAddr: 0x900_0000, len: 1, data: Uint8Array.of(value) });
    expect(ring.take()).toEqual([write(0x11), write(0x22)]);
    expect([view.getUint32(0, true), ring.take()]).toEqual([1, []]);
    // An index that the page has no room for is no write.
    view.setUint32(4, count, true);
    expect(ring.take()).toEqual([]);
  });
});
