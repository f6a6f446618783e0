import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { VirtioBlk } from '#lib/vmm/devices/virtio/blk.js';
import { VirtioConsole } from '#lib/vmm/devices/virtio/console.js';
import type { VirtioDevice } from '#lib/vmm/devices/virtio/device.js';
import { VirtioInput } from '#lib/vmm/devices/virtio/input.js';
import { overlay } from '#lib/vmm/devices/virtio/overlay.js';
import { VirtioRng } from '#lib/vmm/devices/virtio/rng.js';
import { RAM_BASE, TestRam, TestScheduler } from '../bench.ts';
import { type DriverQueue, VirtioDriver } from './driver.ts';

const SIZE = 1 << 15;
const RING = 8;
const SECTORS = 16;
const [NEXT, WRITE, INDIRECT] = [1, 2, 4] as const;

/** Where a buffer is: mostly in the upper half of RAM, where no ring is; sometimes over the rings; sometimes just or wholly wrong. */
const address = fc.oneof(
  { weight: 16, arbitrary: fc.integer({ min: SIZE / 2, max: SIZE - 5000 }).map((offset) => BigInt(RAM_BASE + offset)) },
  { weight: 2, arbitrary: fc.nat(SIZE - 1).map((offset) => BigInt(RAM_BASE + offset)) },
  { weight: 1, arbitrary: fc.constantFrom(RAM_BASE - 1, RAM_BASE + SIZE, RAM_BASE + SIZE - 1, 0).map(BigInt) },
  { weight: 1, arbitrary: fc.oneof(fc.constant(2n ** 64n - 1n), fc.bigInt(0n, 2n ** 64n - 1n)) },
);
const length = fc.oneof(
  { weight: 16, arbitrary: fc.constantFrom(1, 8, 16, 32, 48, 511, 512, 513, 528, 1024, 4096) },
  { weight: 1, arbitrary: fc.constantFrom(0, 0x8000_0000, 0xffff_ffff, 0xffff_fff0) },
  { weight: 1, arbitrary: fc.nat(0xffff_ffff) },
);
const buffer = fc.record({ address, length });

/** What is written where the first buffer of a request is: four words. */
type Head = [number, number, number, number];

/** A block request's header: type, reserved, sector. */
const blockHead: fc.Arbitrary<Head> = fc.tuple(
  fc.constantFrom(0, 1, 4, 8, 11, 13, 99),
  fc.constant(0),
  fc.oneof({ weight: 3, arbitrary: fc.nat(SECTORS + 1) }, { weight: 1, arbitrary: fc.nat(0xffff_ffff) }),
  fc.constantFrom(0, 0, 0, 0, 1),
);

/** A console's control message: id, event and value. */
const controlHead: fc.Arbitrary<Head> = fc.tuple(
  fc.nat(2),
  fc.tuple(fc.oneof(fc.nat(7), fc.constant(6)), fc.nat(1)).map(([event, value]) => event | (value << 16)),
  fc.nat(20),
  fc.nat(20),
);

/** One thing that the guest does; `queue` picks one of the device's. */
const actions = (head: fc.Arbitrary<Head>) =>
  fc.oneof(
    {
      weight: 12,
      arbitrary: fc.record({
        do: fc.constant('request' as const),
        queue: fc.nat(255),
        head,
        headLength: fc.constantFrom(16, 16, 16, 8, 8, 32, 15),
        readable: fc.array(buffer, { maxLength: 2 }),
        writable: fc.array(buffer, { maxLength: 2 }),
        status: fc.boolean(),
        // See plain().
        plain: fc.boolean(),
        indirect: fc.boolean(),
        // What is then written over one of the descriptors.
        damage: fc.option(
          fc.record({ slot: fc.nat(RING - 1), address, length, flags: fc.nat(7), next: fc.nat(RING + 1) }),
          { freq: 3 },
        ),
      }),
    },
    {
      weight: 1,
      arbitrary: fc.record({
        do: fc.constant('offer' as const),
        queue: fc.nat(255),
        head: fc.oneof(fc.nat(RING - 1), fc.nat(0xffff)),
      }),
    },
    {
      weight: 1,
      arbitrary: fc.record({ do: fc.constant('jump' as const), queue: fc.nat(255), index: fc.nat(0xffff) }),
    },
    { weight: 2, arbitrary: fc.constant({ do: 'turn' as const }) },
    { weight: 1, arbitrary: fc.constant({ do: 'restart' as const }) },
  );
type Action = ReturnType<typeof actions> extends fc.Arbitrary<infer T> ? T : never;
type Request = Extract<Action, { do: 'request' }>;

/** The request made as its header says: buffers of the right kind and size, in RAM. */
function plain(wild: Request): Request {
  const [type] = wild.head;
  const sector = [{ address: BigInt(RAM_BASE + SIZE - 3072), length: 512 }];
  return {
    ...wild,
    headLength: type === 11 || type === 13 ? 32 : 16,
    readable: type === 1 ? sector : [],
    writable: type === 0 ? sector : [],
    status: true,
  };
}

/** Lays a request out in a queue's table, or in an indirect one at the end of RAM. */
function lay(driver: VirtioDriver, queue: DriverQueue, wild: Request): void {
  const request = wild.plain ? plain(wild) : wild;
  const { data } = driver.ram;
  const put = (table: number, slot: number, addr: bigint, len: number, flags: number, next: number) => {
    driver.writeDesc(table, slot, 0, len, flags, next);
    data.setBigUint64(table - RAM_BASE + 16 * slot, addr, true);
  };
  const at = SIZE - 4096;
  request.head.forEach((word, i) => {
    data.setUint32(at + 4 * i, word >>> 0, true);
  });
  // A range to discard or write zeroes to, behind the header.
  data.setUint32(at + 16, request.head[2], true);
  data.setUint32(at + 20, 0, true);
  data.setUint32(at + 24, request.head[3] + 1, true);
  data.setUint32(at + 28, 0, true);
  const buffers = [
    { address: BigInt(RAM_BASE + at), length: request.headLength, flags: 0 },
    ...request.readable.map((each) => ({ ...each, flags: 0 })),
    ...request.writable.map((each) => ({ ...each, flags: WRITE })),
    ...(request.status ? [{ address: BigInt(RAM_BASE + at + 64), length: 1, flags: WRITE }] : []),
  ];
  const table = request.indirect ? RAM_BASE + SIZE - 512 : queue.desc;
  buffers.forEach(({ address: addr, length: len, flags }, i) => {
    const last = i === buffers.length - 1;
    put(table, i, addr, len, last ? flags : flags | NEXT, last ? 0 : i + 1);
  });
  if (request.indirect) put(queue.desc, 0, BigInt(table), 16 * buffers.length, INDIRECT, 0);
  if (request.damage !== null) {
    const { slot, address: addr, length: len, flags, next } = request.damage;
    put(slot % 2 === 0 ? table : queue.desc, slot, addr, len, flags, next);
  }
}

/** Thrown and not expected: it runs for every step. */
function assertUnharmed(ram: TestRam): void {
  const addresses = ram.unreported();
  if (addresses.length > 0) {
    throw new Error(`written without a word: ${addresses.map((address) => address.toString(16)).join(' ')}`);
  }
  if (!ram.guardIntact) throw new Error('memory outside the guest’s was touched');
}

/** @returns requests that were answered, and devices that broke: a property that reaches nothing proves nothing */
function check(
  head: fc.Arbitrary<Head>,
  make: (scheduler: TestScheduler) => VirtioDevice,
): { answered: number; broken: number } {
  const counts = { answered: 0, broken: 0 };
  fc.assert(
    fc.property(fc.array(actions(head), { minLength: 1, maxLength: 20 }), (steps) => {
      const ram = new TestRam(SIZE);
      const scheduler = new TestScheduler();
      const device = make(scheduler);
      let driver = new VirtioDriver(device, ram);
      let queues = driver.start(undefined, RING);
      for (const step of steps) {
        if (step.do === 'restart' || driver.needsReset) {
          driver = new VirtioDriver(device, ram);
          ram.bytes.fill(0);
          queues = driver.start(undefined, RING);
        }
        const queue = 'queue' in step ? queues[step.queue % queues.length]! : queues[0]!;
        const before = queue.usedIndex;
        if (step.do === 'request') {
          lay(driver, queue, step);
          queue.offer(0);
        } else if (step.do === 'offer') {
          queue.offer(step.head);
        } else if (step.do === 'jump') {
          queue.availIndex = step.index;
        }
        ram.mark();
        if (step.do === 'turn') scheduler.turn();
        else driver.mmio.notify(queue.index);
        assertUnharmed(ram);
        if (queue.usedIndex !== before) counts.answered++;
        if (driver.needsReset) counts.broken++;
      }
      ram.mark();
      scheduler.turn();
      assertUnharmed(ram);
    }),
    { numRuns: 500 },
  );
  return counts;
}

/** How often each thing happened. */
class Tally extends Map<string, number> {
  add(what: string): void {
    this.set(what, (this.get(what) ?? 0) + 1);
  }
}

function memoryDisk(capacity: number, calls: Tally) {
  const bytes = new Uint8Array(capacity);
  return {
    capacity,
    readOnly: false,
    read(offset: number, into: Uint8Array) {
      calls.add('read');
      into.set(bytes.subarray(offset, offset + into.length));
      if (offset + into.length > capacity) throw new RangeError(`read at ${offset}`);
    },
    write(offset: number, from: Uint8Array) {
      calls.add('write');
      bytes.set(from, offset); // throws beyond the end
    },
    flush: () => {
      calls.add('flush');
    },
    discard(offset: number, length: number) {
      calls.add('discard');
      if (offset + length > capacity) throw new RangeError(`discard at ${offset}`);
    },
  };
}

describe('hostile rings: nothing throws, hangs, or touches memory that is not the guest’s', () => {
  test('virtio-blk', () => {
    const calls = new Tally();
    let errors = 0;
    const { answered, broken } = check(blockHead, (scheduler) => {
      const disk = memoryDisk(SECTORS * 512, calls);
      return new VirtioBlk({ backend: disk, schedule: scheduler.schedule, onError: () => errors++ });
    });
    // The device asks its backend for nothing out of range.
    expect(errors).toBe(0);
    expect([...calls.keys()].sort()).toEqual(['discard', 'flush', 'read', 'write']);
    expect(answered).toBeGreaterThan(100);
    expect(broken).toBeGreaterThan(100);
  });

  test('virtio-blk over an overlay', () => {
    let errors = 0;
    check(blockHead, (scheduler) => {
      const disk = overlay(memoryDisk(SECTORS * 512, new Tally()));
      return new VirtioBlk({ backend: disk, schedule: scheduler.schedule, onError: () => errors++ });
    });
    expect(errors).toBe(0);
  });

  test('virtio-console', () => {
    const heard = new Tally();
    const { answered, broken } = check(controlHead, (scheduler) => {
      const device = new VirtioConsole({ schedule: scheduler.schedule, ports: ['one'] });
      for (const port of device.ports) {
        let turn = 0;
        port.onData = () => {
          heard.add('data');
          return turn++ % 3 !== 0;
        };
        port.onOpen = () => {
          heard.add('open');
          port.write(new Uint8Array(100));
        };
        port.onClose = () => heard.add('close');
        port.onWritable = () => {
          heard.add('writable');
          port.resume();
          port.write(new Uint8Array(100));
        };
      }
      return device;
    });
    expect([...heard.keys()].sort()).toEqual(['close', 'data', 'open', 'writable']);
    expect(answered).toBeGreaterThan(100);
    expect(broken).toBeGreaterThan(100);
  });

  test('virtio-input', () => {
    const { answered, broken } = check(blockHead, (scheduler) => {
      const device = new VirtioInput({ label: 'keys', keys: [1, 116] });
      const press = (): void => {
        device.setKey(116, true);
        scheduler.schedule(press);
      };
      // A key goes down in every turn of the loop.
      scheduler.schedule(press);
      return device;
    });
    expect(answered).toBeGreaterThan(100);
    expect(broken).toBeGreaterThan(100);
  });

  test('virtio-rng', () => {
    const { answered, broken } = check(blockHead, () => new VirtioRng({ getRandomValues: (into) => into.fill(7) }));
    expect(answered).toBeGreaterThan(100);
    expect(broken).toBeGreaterThan(100);
  });
});
