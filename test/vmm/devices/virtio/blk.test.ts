import { beforeEach, describe, expect, test } from '@jest/globals';
import { type BlockBackend, VirtioBlk } from '#lib/vmm/devices/virtio/blk.js';
import { TestRam, TestScheduler, text } from '../bench.ts';
import { type DriverQueue, F_VERSION_1, VirtioDriver } from './driver.ts';

const [IN, OUT, FLUSH, GET_ID, DISCARD, WRITE_ZEROES] = [0, 1, 4, 8, 11, 13] as const;
const [OK, IOERR, UNSUPP] = [0, 1, 2] as const;
const F = {
  SIZE_MAX: 1n << 1n,
  SEG_MAX: 1n << 2n,
  RO: 1n << 5n,
  BLK_SIZE: 1n << 6n,
  FLUSH: 1n << 9n,
  DISCARD: 1n << 13n,
  WRITE_ZEROES: 1n << 14n,
};

class MemoryDisk implements BlockBackend {
  readonly bytes: Uint8Array;
  readonly readOnly: boolean;
  readonly calls: string[] = [];
  failing = false;
  pending: { resolve: () => void; reject: (error: Error) => void } | undefined;
  flushesLater = false;
  discard?: (offset: number, length: number) => void;
  closed = false;

  constructor(sectors: number, readOnly = false) {
    this.bytes = new Uint8Array(sectors * 512);
    for (let i = 0; i < Math.min(this.bytes.length, 65536); i++) this.bytes[i] = (i >>> 9) + i;
    this.readOnly = readOnly;
  }
  get capacity(): number {
    return this.bytes.length;
  }
  read(offset: number, into: Uint8Array): void {
    this.calls.push(`read ${offset} ${into.length}`);
    if (this.failing) throw new Error('medium error');
    into.set(this.bytes.subarray(offset, offset + into.length));
  }
  write(offset: number, from: Uint8Array): void {
    this.calls.push(`write ${offset} ${from.length}`);
    if (this.failing) throw new Error('medium error');
    this.bytes.set(from, offset);
  }
  flush(): void | Promise<void> {
    this.calls.push('flush');
    if (!this.flushesLater) return;
    return new Promise((resolve, reject) => {
      this.pending = { resolve, reject };
    });
  }
  close(): void {
    this.closed = true;
  }
}

const header = (type: number, sector: number | bigint): Uint8Array => {
  const bytes = new Uint8Array(16);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, type, true);
  view.setBigUint64(8, BigInt(sector), true);
  return bytes;
};
const range = (sector: number | bigint, sectors: number, flags = 0): Uint8Array => {
  const bytes = new Uint8Array(16);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, BigInt(sector), true);
  view.setUint32(8, sectors, true);
  view.setUint32(12, flags, true);
  return bytes;
};

let disk: MemoryDisk;
let errors: unknown[];
let scheduler: TestScheduler;
let driver: VirtioDriver;
let queue: DriverQueue;

function plug(features?: bigint, ram?: TestRam): void {
  errors = [];
  scheduler = new TestScheduler();
  const device = new VirtioBlk({
    backend: disk,
    schedule: scheduler.schedule,
    id: 'disk0',
    onError: (error) => errors.push(error),
  });
  driver = new VirtioDriver(device, ram);
  queue = driver.start(features)[0]!;
}

/** Sends one request and gives its data, status and used length. */
function request(readable: Uint8Array[], writable: number[]): { data: Uint8Array; status: number; length: number } {
  queue.add(readable, writable);
  driver.ram.mark();
  queue.kick();
  expect(driver.ram.unreported()).toEqual([]);
  const [done] = queue.take();
  return { data: done!.data.subarray(0, -1), status: done!.data.at(-1)!, length: done!.length };
}

beforeEach(() => {
  disk = new MemoryDisk(64);
  plug();
});

describe('virtio-blk', () => {
  test('describes the disk', () => {
    const config = (offset: number) => driver.mmio.read(0x100 + offset, 4);
    expect(driver.read(0x08)).toBe(2);
    expect([config(0), config(4)]).toEqual([64, 0]);
    expect([config(8), config(12), config(20)]).toEqual([65536, 254, 512]);
    const own = driver.deviceFeatures & 0xff_ffffn;
    expect(own).toBe(F.SIZE_MAX | F.SEG_MAX | F.BLK_SIZE | F.FLUSH | F.WRITE_ZEROES);
    disk.discard = () => {};
    plug();
    expect(driver.deviceFeatures & F.DISCARD).toBe(F.DISCARD);
    disk = new MemoryDisk(8, true);
    plug();
    expect(driver.deviceFeatures & (F.RO | F.WRITE_ZEROES | F.DISCARD)).toBe(F.RO);
  });

  test('reads into several buffers', () => {
    const { data, status, length } = request([header(IN, 3)], [512, 100, 412, 1]);
    expect(status).toBe(OK);
    expect(data).toEqual(disk.bytes.slice(3 * 512, 5 * 512));
    expect(length).toBe(1025);
  });

  test('reads with the status at the end of the last buffer, and the header in pieces', () => {
    const bytes = header(IN, 63);
    const { data, status } = request([bytes.subarray(0, 5), bytes.subarray(5)], [513]);
    expect(status).toBe(OK);
    expect(data).toEqual(disk.bytes.slice(63 * 512));
  });

  test('writes what comes in several buffers, also behind the header in its own', () => {
    const payload = Uint8Array.from({ length: 1024 }, (_, i) => i * 7);
    const first = new Uint8Array(16 + 200);
    first.set(header(OUT, 10));
    first.set(payload.subarray(0, 200), 16);
    const { status, length } = request([first, payload.subarray(200, 700), payload.subarray(700)], [1]);
    expect([status, length]).toEqual([OK, 1]);
    expect(disk.bytes.slice(10 * 512, 12 * 512)).toEqual(payload);
    expect(disk.calls).toEqual(['write 5120 200', 'write 5320 500', 'write 5820 324']);
  });

  test('answers its id, cut to the room there is', () => {
    expect(text(request([header(GET_ID, 0)], [20, 1]).data).replace(/\0+$/, '')).toBe('disk0');
    expect(text(request([header(GET_ID, 0)], [4]).data)).toBe('dis');
  });

  test.each([
    ['beyond the end', IN, 64, 512],
    ['across the end', IN, 63, 1024],
    ['at a sector near 2^64', IN, 2n ** 64n - 1n, 512],
    ['half a sector', IN, 0, 256],
    ['nothing', IN, 0, 0],
  ])('a read %s is an I/O error', (_, type, sector, bytes) => {
    const { status, length } = request([header(type, sector)], bytes === 0 ? [1] : [bytes, 1]);
    expect(status).toBe(IOERR);
    expect(length).toBeLessThanOrEqual(1);
    expect(disk.calls).toEqual([]);
  });

  test('a write out of range, of half a sector, or of nothing is an I/O error', () => {
    for (const [sector, bytes] of [
      [64, 512],
      [63, 513],
      [0, 100],
    ] as const) {
      expect(request([header(OUT, sector), new Uint8Array(bytes)], [1]).status).toBe(IOERR);
    }
    expect(request([header(OUT, 0)], [1]).status).toBe(IOERR);
    expect(disk.calls).toEqual([]);
  });

  test('a request longer than the device allows is an I/O error', () => {
    disk = new MemoryDisk(40_000);
    plug(undefined, new TestRam(34 << 20));
    queue.add([header(IN, 0)], [254 * 65536, 1]);
    queue.add([header(IN, 0)], [254 * 65536 + 512, 1]);
    queue.kick();
    expect(queue.take().map(({ data }) => data.at(-1))).toEqual([OK, IOERR]);
  });

  test('a read-only disk takes no writes', () => {
    disk = new MemoryDisk(8, true);
    plug();
    expect(request([header(OUT, 0), new Uint8Array(512)], [1]).status).toBe(IOERR);
    expect(request([header(WRITE_ZEROES, 0), range(0, 1)], [1]).status).toBe(UNSUPP);
    expect(disk.calls).toEqual([]);
  });

  test('an error of the backend is an I/O error to the guest, and heard of', () => {
    disk.failing = true;
    const { status, length } = request([header(IN, 0)], [512, 1]);
    expect([status, length]).toEqual([IOERR, 0]);
    expect(request([header(OUT, 0), new Uint8Array(512)], [1]).status).toBe(IOERR);
    expect(errors).toEqual([new Error('medium error'), new Error('medium error')]);
  });

  test('an unknown request is unsupported', () => {
    expect(request([header(99, 0)], [1]).status).toBe(UNSUPP);
    expect(request([header(DISCARD, 0), range(0, 1)], [1]).status).toBe(UNSUPP);
  });

  test('a flush waits for its backend while other requests go on', async () => {
    disk.flushesLater = true;
    queue.add([header(FLUSH, 0)], [1]);
    queue.add([header(IN, 0)], [512, 1]);
    queue.kick();
    expect(queue.take().map(({ data }) => data.length)).toEqual([513]);
    queue.usedEvent = 1;
    driver.ram.mark();
    disk.pending!.resolve();
    await Promise.resolve();
    await Promise.resolve();
    expect(queue.take().map(({ data }) => [...data])).toEqual([[OK]]);
    expect(driver.irq.pulses).toBe(2);
    expect(driver.ram.unreported()).toEqual([]);
  });

  test('a flush that fails is an I/O error; one that a reset overtook touches nothing', async () => {
    disk.flushesLater = true;
    queue.add([header(FLUSH, 0)], [1]);
    queue.kick();
    disk.pending!.reject(new Error('no space'));
    await new Promise(setImmediate);
    expect([...queue.take()[0]!.data]).toEqual([IOERR]);
    expect(errors).toEqual([new Error('no space')]);

    queue.add([header(FLUSH, 0)], [1]);
    queue.kick();
    driver.write(0x70, 0);
    driver.ram.mark();
    disk.pending!.reject(new Error('too late'));
    await new Promise(setImmediate);
    expect(driver.ram.untouched).toBe(true);
  });

  test('without FLUSH negotiated, a write is flushed before it is answered', () => {
    expect(request([header(OUT, 0), new Uint8Array(512)], [1]).status).toBe(OK);
    expect(disk.calls).toEqual(['write 0 512']);
    plug(F_VERSION_1);
    expect(request([header(OUT, 1), new Uint8Array(512)], [1]).status).toBe(OK);
    expect(disk.calls).toEqual(['write 0 512', 'write 512 512', 'flush']);
  });

  test('writes zeroes', () => {
    const before = disk.bytes.slice();
    expect(request([header(WRITE_ZEROES, 0), range(2, 3), range(60, 4, 1)], [1]).status).toBe(OK);
    before.fill(0, 2 * 512, 5 * 512).fill(0, 60 * 512);
    expect(disk.bytes).toEqual(before);
  });

  test('discards, all ranges or none', () => {
    const discarded: number[][] = [];
    disk.discard = (offset, length) => discarded.push([offset, length]);
    plug();
    expect(request([header(DISCARD, 0), range(2, 3), range(0, 0)], [1]).status).toBe(OK);
    expect(discarded).toEqual([[1024, 1536]]);
    expect(request([header(DISCARD, 0), range(2, 3), range(63, 2)], [1]).status).toBe(IOERR);
    expect(request([header(DISCARD, 0), range(2n ** 63n, 1)], [1]).status).toBe(IOERR);
    expect(request([header(DISCARD, 0), range(0, 0xffff_ffff)], [1]).status).toBe(IOERR);
    expect(request([header(DISCARD, 0), range(0, 1, 1)], [1]).status).toBe(UNSUPP);
    expect(request([header(WRITE_ZEROES, 0), range(0, 1, 2)], [1]).status).toBe(UNSUPP);
    expect(request([header(DISCARD, 0), range(0, 1).subarray(0, 15)], [1]).status).toBe(IOERR);
    expect(request([header(DISCARD, 0)], [1]).status).toBe(IOERR);
    expect(request([header(DISCARD, 0), new Uint8Array(17 * 16)], [1]).status).toBe(IOERR);
    expect(discarded.length).toBe(1);
  });

  test('a request without a whole header, or without a status byte, breaks the device', () => {
    queue.add([header(IN, 0).subarray(1)], [512, 1]);
    queue.kick();
    expect(driver.needsReset).toBe(true);
    plug();
    queue.add([header(OUT, 0), new Uint8Array(512)], []);
    queue.kick();
    expect(driver.broken).toEqual([expect.stringContaining('status')]);
    expect(disk.calls).toEqual([]);
  });

  test('a great deal of work is done in several turns', () => {
    disk = new MemoryDisk(32_768);
    plug(undefined, new TestRam(20 << 20));
    // Six requests of 16 MiB - 256 KiB into the same memory.
    const head = queue.add([header(IN, 0)], [254 * 65536, 1]);
    for (let i = 0; i < 5; i++) queue.offer(head);
    queue.kick();
    const counts = [queue.usedIndex];
    while (scheduler.pending > 0) {
      scheduler.turn();
      counts.push(queue.usedIndex);
    }
    expect(counts).toEqual([2, 4, 6, 6]); // the last turn finds nothing left
    expect(driver.needsReset).toBe(false);
  });

  test('one interrupt for a pass', () => {
    for (let i = 0; i < 5; i++) queue.add([header(IN, i)], [512, 1]);
    queue.kick();
    expect([queue.take().length, driver.irq.pulses]).toEqual([5, 1]);
  });

  test('refuses a backend of odd size, and an id that does not fit', () => {
    const odd = { capacity: 513, readOnly: true, read() {}, write() {}, flush() {} };
    expect(() => new VirtioBlk({ backend: odd, schedule: () => {} })).toThrow(/513 bytes is not a multiple of 512/);
    expect(() => new VirtioBlk({ backend: disk, schedule: () => {}, id: 'x'.repeat(21) })).toThrow(RangeError);
    expect(() => new VirtioBlk({ backend: disk, schedule: () => {}, id: 'ü' })).toThrow(RangeError);
  });

  test('close closes the backend', () => {
    driver.mmio.close();
    expect(disk.closed).toBe(true);
  });
});
