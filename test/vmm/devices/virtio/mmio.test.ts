import { beforeEach, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import type { DescriptorChain } from '#lib/vmm/devices/virtio/chain.js';
import type { VirtioActivation, VirtioDevice, VirtioTransport } from '#lib/vmm/devices/virtio/device.js';
import { RAM_BASE, TestRam } from '../bench.ts';
import { F_EVENT_IDX, F_INDIRECT, F_VERSION_1, VirtioDriver } from './driver.ts';

/** Copies what it reads of a request into what it may write of it. */
class Echo implements VirtioDevice {
  readonly name = 'echo';
  readonly deviceId = 42;
  readonly features = 0x5n;
  readonly queueSizes = [16, 4];
  readonly config = Uint8Array.of(1, 2, 3, 4, 5, 6);
  readonly notified: number[] = [];
  readonly configWrites: number[][] = [];
  transport!: VirtioTransport;
  activation: VirtioActivation | undefined;
  resets = 0;
  /** Requests put aside instead of answered. */
  later: DescriptorChain[] | undefined;

  attach(transport: VirtioTransport): void {
    this.transport = transport;
  }
  activate(activation: VirtioActivation): void {
    this.activation = activation;
  }
  notify(index: number): void {
    this.notified.push(index);
    const queue = this.activation!.queues[index]!;
    for (let chain = queue.pop(); chain !== undefined; chain = queue.pop()) {
      if (this.later !== undefined) {
        queue.keep(chain);
        this.later.push(chain);
        continue;
      }
      const bytes = new Uint8Array(Math.min(chain.readableBytes, 4096));
      chain.read(bytes);
      queue.push(chain, chain.write(bytes));
    }
    queue.signal();
  }
  writeConfig(offset: number, len: number, value: number): void {
    this.configWrites.push([offset, len, value]);
  }
  reset(): void {
    this.activation = undefined;
    this.resets++;
  }
}

let echo: Echo;
let driver: VirtioDriver;
beforeEach(() => {
  echo = new Echo();
  driver = new VirtioDriver(echo);
});

describe('virtio-mmio', () => {
  test('is a version 2 device', () => {
    expect([0x00, 0x04, 0x08].map((offset) => driver.read(offset))).toEqual([0x74726976, 2, 42]);
    expect(driver.deviceFeatures).toBe(0x5n | F_INDIRECT | F_EVENT_IDX | F_VERSION_1);
    driver.write(0x14, 2);
    expect(driver.read(0x10)).toBe(0);
  });

  test('negotiates: a foreign feature, or none of VERSION_1, leaves FEATURES_OK clear', () => {
    for (const [features, ok] of [
      [F_VERSION_1 | 0x8n, 0],
      [0x5n, 0],
      [F_VERSION_1 | (1n << 60n), 0],
      [F_VERSION_1 | 0x1n, 8],
    ] as const) {
      driver.write(0x70, 0);
      driver.write(0x70, 3);
      driver.acceptFeatures(features);
      driver.write(0x70, 11);
      expect(driver.read(0x70)).toBe(3 | ok);
    }
    driver.acceptFeatures(F_VERSION_1 | 0x4n); // too late: settled
    driver.write(0x70, 15);
    expect(echo.activation?.features).toBe(F_VERSION_1 | 0x1n);
  });

  test('does not come to life without FEATURES_OK', () => {
    driver.write(0x70, 7);
    expect(driver.read(0x70)).toBe(3);
    expect(echo.activation).toBeUndefined();
  });

  test('describes its queues, and takes their setup only while they are not ready', () => {
    driver.write(0x30, 1);
    expect(driver.read(0x34)).toBe(4);
    driver.write(0x30, 2);
    expect([driver.read(0x34), driver.read(0x44)]).toEqual([0, 0]);
    driver.setupQueue(0, 8);
    expect(driver.read(0x44)).toBe(1);
    driver.write(0x38, 3);
    driver.write(0x80, 1);
    expect(driver.read(0x44)).toBe(1);
    driver.write(0x44, 0);
    expect(driver.read(0x44)).toBe(0);
    driver.write(0x44, 1);
    expect(driver.read(0x44)).toBe(1);
    driver.write(0x44, 0);
    driver.write(0x38, 3); // now it counts
    driver.write(0x44, 1);
    expect(driver.read(0x44)).toBe(0);
    expect(driver.needsReset).toBe(true);
  });

  test.each([
    ['size 0', 0, 0x100, 0x200, 0x300, 'size 0'],
    ['a size that is no power of two', 12, 0x100, 0x200, 0x300, 'size 12'],
    ['a size beyond the maximum', 32, 0x100, 0x200, 0x300, 'size 32'],
    ['a misaligned table', 8, 0x108, 0x200, 0x300, 'misaligned'],
    ['a misaligned driver area', 8, 0x100, 0x201, 0x300, 'misaligned'],
    ['a misaligned device area', 8, 0x100, 0x200, 0x302, 'misaligned'],
    ['a table below RAM', 8, -0x100, 0x200, 0x300, 'RAM'],
    ['a driver area that ends outside RAM', 8, 0x100, (1 << 20) - 20, 0x300, 'RAM'],
    ['a device area outside RAM', 8, 0x100, 0x200, 1 << 20, 'RAM'],
  ])('refuses a queue with %s', (_, size, desc, avail, used, reason) => {
    driver.write(0x38, size);
    driver.write(0x80, RAM_BASE + desc);
    driver.write(0x90, RAM_BASE + avail);
    driver.write(0xa0, RAM_BASE + used);
    driver.write(0x44, 1);
    expect(driver.read(0x44)).toBe(0);
    expect(driver.read(0x70)).toBe(0x40);
    expect(driver.broken).toEqual([expect.stringContaining(reason)]);
  });

  test('carries requests, by register and by ioeventfd, with an interrupt each', () => {
    const [queue] = driver.start();
    queue!.add([Uint8Array.of(1, 2), Uint8Array.of(3)], [2, 2]);
    queue!.kick();
    expect(queue!.take()).toEqual([{ head: expect.any(Number), length: 3, data: Uint8Array.of(1, 2, 3, 0) }]);
    expect([driver.read(0x60), driver.irq.pulses]).toEqual([1, 1]);
    driver.write(0x64, 1);
    expect(driver.read(0x60)).toBe(0);
    queue!.usedEvent = 1;
    queue!.add([Uint8Array.of(9)], [1], { indirect: true });
    driver.mmio.notify(0);
    expect(queue!.take()[0]!.data).toEqual(Uint8Array.of(9));
    expect(driver.irq.pulses).toBe(2);
  });

  test('ignores notifications before DRIVER_OK, after a reset, and for queues that are not there or not ready', () => {
    driver.mmio.notify(0);
    const [queue] = driver.start();
    driver.mmio.notify(2);
    driver.mmio.notify(-1);
    driver.write(0x50, 0xffff_ffff);
    expect(echo.notified).toEqual([]);
    driver.write(0x70, 0);
    queue!.kick();
    driver.mmio.notify(0);
    expect(echo.notified).toEqual([]);
  });

  test('reset by the driver takes everything back, and it can start again', () => {
    const [queue] = driver.start();
    queue!.add([Uint8Array.of(1)], [1]);
    queue!.kick();
    driver.write(0x70, 0);
    expect([driver.read(0x70), driver.read(0x60), driver.read(0x44)]).toEqual([0, 0, 0]);
    expect(echo.resets).toBe(1 + 1); // start() resets too
    const [again] = driver.start();
    again!.add([Uint8Array.of(7)], [1]);
    again!.kick();
    expect(again!.take()[0]!.data).toEqual(Uint8Array.of(7));
  });

  test('an answer that comes after a reset is dropped', () => {
    echo.later = [];
    const [queue] = driver.start();
    queue!.add([Uint8Array.of(1)], [1]);
    queue!.kick();
    const stale = echo.activation!.queues[0]!;
    const chain = echo.later[0]!;
    expect(stale.owns(chain)).toBe(true);
    driver.write(0x70, 0);
    const [again] = driver.start();
    expect(stale.owns(chain)).toBe(false);
    stale.push(chain, 1);
    stale.signal();
    expect(again!.usedIndex).toBe(0);
    expect(driver.irq.pulses).toBe(0);
  });

  test('the configuration space is read in any width, written through the device, and has a generation', () => {
    expect([driver.mmio.read(0x100, 1), driver.mmio.read(0x101, 2), driver.mmio.read(0x102, 4)]).toEqual([
      1, 0x302, 0x06050403,
    ]);
    expect(driver.mmio.read(0x104, 4)).toBe(0x0605);
    expect(driver.mmio.read(0x1fc, 4)).toBe(0);
    driver.mmio.write(0x104, 2, 0x1234);
    expect(echo.configWrites).toEqual([[4, 2, 0x1234]]);
    echo.transport.configChanged();
    expect([driver.read(0xfc), driver.irq.pulses]).toEqual([1, 0]);
    driver.start();
    echo.transport.configChanged();
    expect([driver.read(0xfc), driver.read(0x60), driver.irq.pulses]).toEqual([2, 2, 1]);
  });

  test('says that there is no shared memory', () => {
    expect([0xb0, 0xb4].map((offset) => driver.read(offset))).toEqual([0xffff_ffff, 0xffff_ffff]);
  });

  test('a broken device says so once, by a configuration change, and works again after a reset', () => {
    driver.start();
    echo.transport.needsReset('first');
    echo.transport.needsReset('second');
    expect(driver.broken).toEqual(['first']);
    expect(driver.mmio.brokenReason).toBe('first');
    expect([driver.read(0x70), driver.read(0x60), driver.irq.pulses]).toEqual([0x4f, 2, 1]);
    driver.mmio.notify(0);
    expect(echo.notified).toEqual([]);
    const [queue] = driver.start();
    expect(driver.needsReset).toBe(false);
    queue!.add([Uint8Array.of(5)], [1]);
    queue!.kick();
    expect(queue!.take().length).toBe(1);
  });

  test('a broken device gives nothing back any more', () => {
    echo.later = [];
    const [queue] = driver.start();
    queue!.add([Uint8Array.of(1)], [1]);
    queue!.kick();
    echo.transport.needsReset('broken');
    const own = echo.activation!.queues[0]!;
    own.push(echo.later[0]!, 1);
    own.signal();
    queue!.add([Uint8Array.of(1)], [1]);
    expect(own.pop()).toBeUndefined();
    expect([queue!.usedIndex, driver.irq.pulses]).toEqual([0, 1]);
  });

  test('FAILED stops it', () => {
    const [queue] = driver.start();
    driver.write(0x70, 0x8f);
    queue!.add([Uint8Array.of(5)], [1]);
    queue!.kick();
    expect(queue!.take()).toEqual([]);
  });

  test('takes any register access of any guest', () => {
    const access = fc.record({
      offset: fc.oneof(
        fc.nat(0x1ff),
        fc.constantFrom(0x24, 0x20, 0x30, 0x38, 0x44, 0x50, 0x64, 0x70, 0x80, 0x90, 0xa0),
      ),
      len: fc.constantFrom(1, 2, 4, 4, 4),
      value: fc.option(
        fc.oneof(fc.nat(0xffff_ffff), fc.nat(16), fc.constantFrom(RAM_BASE, RAM_BASE + 0x1000, 3, 11, 15)),
      ),
    });
    fc.assert(
      fc.property(fc.boolean(), fc.array(access, { maxLength: 60 }), (started, accesses) => {
        const ram = new TestRam(1 << 16);
        const fresh = new VirtioDriver(new Echo(), ram);
        if (started) fresh.start();
        ram.mark();
        for (const { offset, len, value } of accesses) {
          if (value === null) {
            const read = fresh.mmio.read(offset, len);
            expect(Number.isInteger(read) && read >= 0 && read < 2 ** (8 * len)).toBe(true);
          } else {
            fresh.mmio.write(offset, len, value % 2 ** (8 * len));
          }
        }
        expect(ram.guardIntact).toBe(true);
        expect(ram.unreported()).toEqual([]);
      }),
      { numRuns: 60 },
    );
  });
});

describe('split virtqueue', () => {
  test('asks for and gives notifications by EVENT_IDX', () => {
    const [queue] = driver.start();
    const send = () => queue!.add([Uint8Array.of(1)], [1]);
    send();
    expect(queue!.wantsKick).toBe(true);
    queue!.usedEvent = 2; // interrupt me at the third
    queue!.kick();
    send();
    expect(queue!.wantsKick).toBe(true);
    queue!.kick();
    expect(driver.irq.pulses).toBe(0);
    send();
    send();
    queue!.kick(); // goes over the third in one pass
    expect(driver.irq.pulses).toBe(1);
    expect(queue!.take().length).toBe(4);
    queue!.usedEvent = 3; // the fourth: just gone by
    send();
    queue!.kick();
    expect(driver.irq.pulses).toBe(1);
  });

  test('does not ask for notifications while requests wait', () => {
    echo.notify = (index) => {
      echo.activation!.queues[index]!.pop();
    };
    const [queue] = driver.start();
    queue!.add([Uint8Array.of(1)], []);
    queue!.add([Uint8Array.of(1)], []);
    queue!.kick();
    queue!.add([Uint8Array.of(1)], []);
    expect(queue!.wantsKick).toBe(false);
  });

  test('without EVENT_IDX, heeds NO_INTERRUPT', () => {
    const [queue] = driver.start(F_VERSION_1);
    queue!.availFlags = 1;
    queue!.add([Uint8Array.of(1)], [1]);
    queue!.kick();
    expect([queue!.take().length, driver.irq.pulses]).toEqual([1, 0]);
    queue!.availFlags = 0;
    queue!.add([Uint8Array.of(1)], [1]);
    queue!.kick();
    expect(driver.irq.pulses).toBe(1);
  });

  test('goes round its 16-bit indexes', () => {
    const [queue] = driver.start(F_VERSION_1 | F_EVENT_IDX, 4);
    const buffer = driver.alloc(1, 1);
    driver.writeDesc(queue!.desc, 0, buffer, 1, 0, 0);
    for (let round = 0; round < 66_000; round++) {
      queue!.usedEvent = round & 0xffff;
      queue!.offer(0);
      driver.mmio.notify(0);
    }
    expect(queue!.usedIndex).toBe(66_000 & 0xffff);
    expect(driver.irq.pulses).toBe(66_000);
    expect(driver.broken).toEqual([]);
  });

  const HUGE = 0xffff_ffff;
  const lay = {
    'a loop of two': (d: VirtioDriver, desc: number, at: number) => {
      d.writeDesc(desc, 0, at, 8, 1, 1);
      d.writeDesc(desc, 1, at, 8, 1, 0);
    },
    'a descriptor that follows itself': (d: VirtioDriver, desc: number, at: number) =>
      d.writeDesc(desc, 0, at, 8, 1, 0),
    'a next beyond the table': (d: VirtioDriver, desc: number, at: number) => d.writeDesc(desc, 0, at, 8, 1, 16),
    'zero length': (d: VirtioDriver, desc: number, at: number) => d.writeDesc(desc, 0, at, 0, 0, 0),
    'nearly 4 GiB': (d: VirtioDriver, desc: number, at: number) => d.writeDesc(desc, 0, at, HUGE, 2, 0),
    'an address below RAM': (d: VirtioDriver, desc: number) => d.writeDesc(desc, 0, RAM_BASE - 1, 2, 2, 0),
    'an end beyond RAM': (d: VirtioDriver, desc: number) => d.writeDesc(desc, 0, RAM_BASE + d.ram.size - 1, 2, 2, 0),
    'an address that wraps round 2^64': (d: VirtioDriver, desc: number) => {
      d.writeDesc(desc, 0, 0, 16, 2, 0);
      d.ram.data.setBigUint64(desc - RAM_BASE, 0xffff_ffff_ffff_fff8n, true);
    },
    'readable after writable': (d: VirtioDriver, desc: number, at: number) => {
      d.writeDesc(desc, 0, at, 8, 1 | 2, 1);
      d.writeDesc(desc, 1, at, 8, 0, 0);
    },
    'an indirect table in an indirect table': (d: VirtioDriver, desc: number, at: number) => {
      d.writeDesc(desc, 0, at, 16, 4, 0);
      d.writeDesc(at, 0, at, 16, 4, 0);
    },
    'an indirect descriptor that goes on': (d: VirtioDriver, desc: number, at: number) => {
      d.writeDesc(desc, 0, at, 16, 4 | 1, 1);
      d.writeDesc(at, 0, at, 8, 0, 0);
    },
    'an indirect table of 17 bytes': (d: VirtioDriver, desc: number, at: number) => d.writeDesc(desc, 0, at, 17, 4, 0),
    'an indirect table of nothing': (d: VirtioDriver, desc: number, at: number) => d.writeDesc(desc, 0, at, 0, 4, 0),
    'an indirect table of 4 GiB': (d: VirtioDriver, desc: number, at: number) =>
      d.writeDesc(desc, 0, at, 0xffff_fff0, 4, 0),
    'an indirect table outside RAM': (d: VirtioDriver, desc: number) => d.writeDesc(desc, 0, RAM_BASE - 16, 16, 4, 0),
    'a loop in an indirect table': (d: VirtioDriver, desc: number, at: number) => {
      d.writeDesc(desc, 0, at, 32, 4, 0);
      d.writeDesc(at, 0, at, 8, 1, 1);
      d.writeDesc(at, 1, at, 8, 1, 0);
    },
    'a next beyond an indirect table': (d: VirtioDriver, desc: number, at: number) => {
      d.writeDesc(desc, 0, at, 32, 4, 0);
      d.writeDesc(at, 0, at, 8, 1, 2);
    },
  };
  const reasons: Record<string, string> = {
    'a loop of two': 'a loop',
    'a descriptor that follows itself': 'a loop',
    'a next beyond the table': 'descriptor 16 of a table of 16',
    'zero length': 'zero',
    'nearly 4 GiB': 'RAM',
    'an address below RAM': 'RAM',
    'an end beyond RAM': 'RAM',
    'an address that wraps round 2^64': 'RAM',
    'readable after writable': 'after a writable',
    'an indirect table in an indirect table': 'in an indirect table',
    'an indirect descriptor that goes on': 'goes on',
    'an indirect table of 17 bytes': '17 bytes',
    'an indirect table of nothing': '0 bytes',
    'an indirect table of 4 GiB': '4294967280 bytes',
    'an indirect table outside RAM': 'RAM',
    'a loop in an indirect table': 'a loop',
    'a next beyond an indirect table': 'descriptor 2 of a table of 2',
  };

  test.each(Object.entries(lay))('breaks on %s, and touches nothing', (name, make) => {
    const [queue] = driver.start();
    make(driver, queue!.desc, driver.alloc(64, 16));
    queue!.offer(0);
    driver.ram.mark();
    const { views } = driver.ram;
    queue!.kick();
    expect(driver.needsReset).toBe(true);
    expect(driver.broken).toEqual([expect.stringContaining(reasons[name]!)]);
    expect(driver.ram.views - views).toBeLessThanOrEqual(queue!.size + 1);
    expect([driver.read(0x60), driver.irq.pulses]).toEqual([2, 1]);
    expect(driver.ram.untouched).toBe(true);
    expect(driver.ram.guardIntact).toBe(true);
  });

  test.each([
    ['a head beyond the table', (q: { offer(head: number): void }) => q.offer(16), 'descriptor 16'],
    ['more entries than the ring has', (q: { availIndex: number }) => (q.availIndex = 17), '17 entries available'],
    ['an index that went back', (q: { availIndex: number }) => (q.availIndex = 0xffff), '65535 entries available'],
  ])('breaks on %s', (_, act, reason) => {
    const [queue] = driver.start();
    act(queue as never);
    queue!.kick();
    expect(driver.broken).toEqual([expect.stringContaining(reason)]);
  });

  test('breaks on an indirect descriptor that was not negotiated', () => {
    const [queue] = driver.start(F_VERSION_1);
    queue!.add([Uint8Array.of(1)], [1], { indirect: true });
    queue!.kick();
    expect(driver.broken).toEqual([expect.stringContaining('not negotiated')]);
  });

  test('breaks on a chain of more than 2^32 bytes, all of it in RAM', () => {
    // A RAM that says yes to anything: 4 GiB cannot be had in a test.
    const ram = new TestRam();
    const view = ram.view.bind(ram);
    ram.view = (addr, length) => (length >= 1 << 30 ? new Uint8Array(1) : view(addr, length));
    const big = new VirtioDriver(echo, ram);
    const [queue] = big.start();
    for (let i = 0; i < 5; i++) big.writeDesc(queue!.desc, i, RAM_BASE, 1 << 30, i === 4 ? 2 : 3, i + 1);
    queue!.offer(0);
    queue!.kick();
    expect(big.broken).toEqual([expect.stringContaining('2^32')]);
  });

  test('goes on after direct descriptors into an indirect table', () => {
    const [queue] = driver.start();
    const at = driver.alloc(48, 16);
    driver.ram.bytes.set([1, 2, 3], at - RAM_BASE + 40);
    driver.writeDesc(queue!.desc, 0, at + 40, 3, 1, 1);
    driver.writeDesc(queue!.desc, 1, at, 16, 4, 0);
    driver.writeDesc(at, 0, at + 44, 3, 2, 0);
    queue!.offer(0);
    queue!.kick();
    expect(driver.broken).toEqual([]);
    expect([...driver.ram.bytes.subarray(at - RAM_BASE + 44, at - RAM_BASE + 47)]).toEqual([1, 2, 3]);
  });
});
