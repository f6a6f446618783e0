import { describe, test } from '@jest/globals';
import fc from 'fast-check';
import { VirtioBlk } from '#lib/vmm/devices/virtio/blk.js';
import { VirtioConsole } from '#lib/vmm/devices/virtio/console.js';
import type { VirtioDevice } from '#lib/vmm/devices/virtio/device.js';
import { overlay } from '#lib/vmm/devices/virtio/overlay.js';
import { VirtioRng } from '#lib/vmm/devices/virtio/rng.js';
import { RAM_BASE, TestRam, TestScheduler } from '../bench.ts';
import { VirtioDriver } from './driver.ts';

const SIZE = 1 << 15;

/** Addresses and lengths that are often good, often just wrong, and sometimes anything. */
const address = fc.oneof(
  { weight: 6, arbitrary: fc.nat(SIZE - 1).map((offset) => BigInt(RAM_BASE + offset)) },
  {
    weight: 1,
    arbitrary: fc.constantFrom(
      BigInt(RAM_BASE - 1),
      BigInt(RAM_BASE + SIZE),
      BigInt(RAM_BASE + SIZE - 1),
      0n,
      2n ** 64n - 1n,
    ),
  },
  { weight: 1, arbitrary: fc.bigInt(0n, 2n ** 64n - 1n) },
);
const length = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom(1, 8, 16, 32, 48, 512, 513, 528, 1024, 4096) },
  { weight: 1, arbitrary: fc.constantFrom(0, 0x8000_0000, 0xffff_ffff, 0xffff_fff0) },
  { weight: 1, arbitrary: fc.nat(0xffff_ffff) },
);
const descriptor = fc.record({
  address,
  length,
  flags: fc.oneof(fc.nat(7), fc.constantFrom(0, 1, 2, 3)),
  next: fc.nat(9),
});

/** One thing that the guest does. `at` picks a queue, or a place in RAM. */
const action = fc.oneof(
  fc.record({ do: fc.constant('describe' as const), at: fc.nat(255), slot: fc.nat(8), descriptor }),
  fc.record({ do: fc.constant('offer' as const), at: fc.nat(255), head: fc.oneof(fc.nat(7), fc.nat(0xffff)) }),
  fc.record({ do: fc.constant('jump' as const), at: fc.nat(255), index: fc.nat(0xffff) }),
  fc.record({ do: fc.constant('kick' as const), at: fc.nat(255) }),
  // A request header or control message, where a descriptor may find it.
  fc.record({
    do: fc.constant('poke' as const),
    at: fc.nat(SIZE - 16),
    words: fc.tuple(fc.nat(14), fc.nat(70_000), fc.nat(9), fc.nat(1)),
  }),
  fc.constant({ do: 'turn' as const }),
  fc.constant({ do: 'restart' as const }),
);

/** Thrown and not expected: it runs for every step. */
function assertReported(ram: TestRam): void {
  const addresses = ram.unreported();
  if (addresses.length > 0)
    throw new Error(`written without a word: ${addresses.map((address) => address.toString(16)).join(' ')}`);
}

function check(make: (scheduler: TestScheduler) => VirtioDevice): void {
  fc.assert(
    fc.property(fc.array(action, { minLength: 1, maxLength: 60 }), fc.nat(0xffff_ffff), (actions, seed) => {
      const ram = new TestRam(SIZE);
      const scheduler = new TestScheduler();
      const device = make(scheduler);
      let driver = new VirtioDriver(device, ram);
      let queues = driver.start(undefined, 8);
      // Everything that is no ring holds something, so that wild pointers find more than zeroes.
      for (let i = SIZE / 2, x = seed | 1; i < SIZE; i++, x = Math.imul(x, 1664525) + 1013904223)
        ram.bytes[i] = (x >>> 24) & 7;
      ram.mark();
      for (const step of actions) {
        if (step.do === 'turn') {
          scheduler.turn();
        } else if (step.do === 'restart') {
          assertReported(ram);
          driver = new VirtioDriver(device, ram);
          queues = driver.start(undefined, 8);
          ram.mark();
        } else if (step.do === 'kick') {
          driver.mmio.notify(step.at % queues.length);
        } else {
          assertReported(ram);
          const queue = queues[step.at % queues.length]!;
          if (step.do === 'describe') {
            const { address: addr, length: len, flags, next } = step.descriptor;
            driver.writeDesc(queue.desc, step.slot % 8, 0, len, flags, next);
            ram.data.setBigUint64(queue.desc - RAM_BASE + 16 * (step.slot % 8), addr, true);
          } else if (step.do === 'offer') {
            queue.offer(step.head);
          } else if (step.do === 'jump') {
            queue.availIndex = step.index;
          } else {
            step.words.forEach((word, i) => {
              ram.data.setUint32(step.at + 4 * i, word, true);
            });
          }
          ram.mark();
        }
      }
      scheduler.turn();
      assertReported(ram);
      if (!ram.guardIntact) throw new Error('memory outside the guest’s was touched');
    }),
    { numRuns: 200 },
  );
}

function memoryDisk(capacity: number) {
  const bytes = new Uint8Array(capacity);
  return {
    capacity,
    readOnly: false,
    read: (offset: number, into: Uint8Array) => into.set(bytes.subarray(offset, offset + into.length)),
    write: (offset: number, from: Uint8Array) => bytes.set(from, offset),
    flush: () => {},
  };
}

describe('hostile rings: nothing throws, hangs, or touches memory that is not the guest’s', () => {
  test('virtio-blk', () => {
    check(
      (scheduler) =>
        new VirtioBlk({
          backend: overlay(memoryDisk(65536)),
          schedule: scheduler.schedule,
          onError: (error) => {
            throw error; // the device must not ask the backend for anything out of range
          },
        }),
    );
  });

  test('virtio-console', () => {
    check((scheduler) => {
      const device = new VirtioConsole({ schedule: scheduler.schedule, ports: ['one'] });
      for (const port of device.ports) {
        let turn = 0;
        port.onData = () => turn++ % 3 !== 0;
        port.onOpen = () => port.write(new Uint8Array(100));
        port.onWritable = () => port.resume();
      }
      return device;
    });
  });

  test('virtio-rng', () => {
    check(() => new VirtioRng({ getRandomValues: (into) => into.fill(7) }));
  });
});
