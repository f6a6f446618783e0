import { beforeEach, describe, expect, test } from '@jest/globals';
import { VirtioConsole } from '#lib/vmm/devices/virtio/console.js';
import type { ConsolePort } from '#lib/vmm/devices/virtio/console-port.js';
import { ascii, TestScheduler, text } from '../bench.ts';
import { type DriverQueue, F_EVENT_IDX, F_INDIRECT, F_VERSION_1, VirtioDriver } from './driver.ts';

const MULTIPORT = 2n;
const [DEVICE_READY, PORT_ADD, PORT_READY, CONSOLE_PORT, PORT_OPEN, PORT_NAME] = [0, 1, 3, 4, 6, 7] as const;
const RX_SIZE = 64;

/** A guest with Linux's virtio_console behaviour, as far as the device can see it. */
class Guest {
  readonly driver: VirtioDriver;
  queues: DriverQueue[] = [];
  readonly messages: [id: number, event: number, value: number, name: string][] = [];
  readonly received = new Map<number, string>();

  constructor(device: VirtioConsole) {
    this.driver = new VirtioDriver(device);
  }

  start(features = F_VERSION_1 | F_EVENT_IDX | F_INDIRECT | MULTIPORT): void {
    this.queues = this.driver.start(features, 16);
    for (let i = 0; i < 16; i++) this.queues[2]!.add([], [64]);
    this.queues[2]!.kick();
  }

  rx(port: number): DriverQueue {
    return this.queues[port === 0 ? 0 : 2 * port + 2]!;
  }
  tx(port: number): DriverQueue {
    return this.queues[port === 0 ? 1 : 2 * port + 3]!;
  }

  fill(port: number, count = 4): void {
    for (let i = 0; i < count; i++) this.rx(port).add([], [RX_SIZE]);
    this.rx(port).kick();
  }

  tell(id: number, event: number, value: number): void {
    const bytes = new Uint8Array(8);
    const view = new DataView(bytes.buffer);
    view.setUint32(0, id, true);
    view.setUint16(4, event, true);
    view.setUint16(6, value, true);
    this.queues[3]!.take();
    this.queues[3]!.add([bytes], []);
    this.queues[3]!.kick();
  }

  /** Reads control messages, and gives the buffers back. */
  hear(): Guest['messages'] {
    const fresh: Guest['messages'] = [];
    const taken = this.queues[2]!.take();
    for (const { data, length } of taken) {
      const view = new DataView(data.buffer, data.byteOffset);
      const name = text(data.subarray(8, length));
      fresh.push([view.getUint32(0, true), view.getUint16(4, true), view.getUint16(6, true), name]);
    }
    for (const _ of taken) this.queues[2]!.add([], [64]);
    this.queues[2]!.kick();
    return fresh;
  }

  /** The whole introduction: all ports ready, their buffers given. */
  introduce(ports: number): Guest['messages'] {
    this.tell(0xffff_ffff, DEVICE_READY, 1);
    const heard = this.hear();
    for (let id = 0; id < ports; id++) {
      this.fill(id);
      this.tell(id, PORT_READY, 1);
      heard.push(...this.hear());
    }
    return heard;
  }

  read(port: number): string {
    return this.rx(port)
      .take()
      .map(({ data, length }) => text(data.subarray(0, length)))
      .join('');
  }

  print(port: number, ...pieces: string[]): void {
    this.tx(port).take();
    for (const piece of pieces) this.tx(port).add([ascii(piece)], []);
    this.tx(port).kick();
  }
}

let scheduler: TestScheduler;
let device: VirtioConsole;
let guest: Guest;
let log: string[];
let port: ConsolePort;
let holds: boolean;

beforeEach(() => {
  scheduler = new TestScheduler();
  device = new VirtioConsole({ schedule: scheduler.schedule, ports: ['stdin', 'stdout'] });
  guest = new Guest(device);
  log = [];
  holds = false;
  for (const each of device.ports) {
    each.onData = (bytes) => {
      log.push(`${each.name}: ${text(bytes)}`);
      return !holds;
    };
    each.onOpen = () => log.push(`${each.name} opened`);
    each.onClose = () => log.push(`${each.name} closed`);
    each.onWritable = () => log.push(`${each.name} writable`);
  }
  port = device.port('stdin')!;
});

describe('virtio-console', () => {
  test('describes itself: three ports, eight queues', () => {
    expect(guest.driver.read(0x08)).toBe(3);
    expect(guest.driver.mmio.read(0x104, 4)).toBe(3);
    expect(guest.driver.mmio.queueCount).toBe(8);
  });

  test('introduces its ports: port 0 as a console, the others by name, which comes last', () => {
    guest.start();
    expect(guest.introduce(3)).toEqual([
      [0, PORT_ADD, 1, ''],
      [1, PORT_ADD, 1, ''],
      [2, PORT_ADD, 1, ''],
      [0, CONSOLE_PORT, 1, ''],
      [0, PORT_OPEN, 1, ''],
      [1, PORT_OPEN, 1, ''],
      [1, PORT_NAME, 1, 'stdin'],
      [2, PORT_OPEN, 1, ''],
      [2, PORT_NAME, 1, 'stdout'],
    ]);
  });

  test('answers each of the driver’s announcements once, and ports that are not there never', () => {
    guest.start();
    guest.introduce(3);
    guest.tell(0, DEVICE_READY, 1);
    guest.tell(1, PORT_READY, 1);
    guest.tell(77, PORT_READY, 1);
    guest.tell(77, PORT_OPEN, 1);
    guest.tell(1, 999, 1);
    guest.queues[3]!.add([new Uint8Array(7)], []);
    guest.queues[3]!.kick();
    expect(guest.hear()).toEqual([]);
    expect(guest.driver.needsReset).toBe(false);
  });

  test('control messages wait for buffers', () => {
    guest.queues = guest.driver.start(F_VERSION_1 | MULTIPORT, 16);
    guest.tell(0, DEVICE_READY, 1);
    guest.queues[2]!.add([], [64]);
    guest.queues[2]!.kick();
    expect(guest.hear().map(([id]) => id)).toEqual([0]);
    expect(guest.hear().map(([id]) => id)).toEqual([1]);
    expect(guest.hear().map(([id]) => id)).toEqual([2]);
  });

  test('a control buffer that is too small breaks it', () => {
    guest.queues = guest.driver.start(F_VERSION_1 | MULTIPORT, 16);
    guest.queues[2]!.add([], [7]);
    guest.tell(0, DEVICE_READY, 1);
    expect(guest.driver.broken).toEqual([expect.stringContaining('does not fit')]);
  });

  test('guest output is gathered and comes once a turn', () => {
    guest.start();
    guest.introduce(3);
    guest.tell(0, PORT_OPEN, 1);
    guest.driver.ram.mark();
    guest.print(0, 'Debian ', 'GNU/');
    guest.print(0, 'Linux');
    expect(log).toEqual(['hvc0 opened']);
    scheduler.turn();
    expect(log).toEqual(['hvc0 opened', 'hvc0: Debian GNU/Linux']);
    expect(guest.tx(0).take().length).toBe(1);
  });

  test('host input goes into the driver’s buffers, and says when there are more', () => {
    guest.start();
    guest.introduce(3);
    expect(port.write(ascii('early'))).toBe(0); // nobody has it open
    guest.tell(1, PORT_OPEN, 1);
    expect(log).toEqual(['stdin opened', 'stdin writable']);
    guest.driver.ram.mark();
    expect(port.write(ascii('hello'))).toBe(5);
    expect(guest.driver.ram.unreported()).toEqual([]);
    expect(guest.read(1)).toBe('hello');
    const long = `${'x'.repeat(3 * RX_SIZE)}yz`;
    expect(port.write(ascii(long))).toBe(3 * RX_SIZE);
    expect(guest.rx(1).wantsKick).toBe(false);
    expect(guest.read(1)).toBe('x'.repeat(3 * RX_SIZE));
    guest.rx(1).add([], [RX_SIZE]);
    expect(guest.rx(1).wantsKick).toBe(true);
    guest.rx(1).kick();
    expect(log.at(-1)).toBe('stdin writable');
    expect(port.write(ascii('yz'))).toBe(2);
    expect(guest.read(1)).toBe('yz');
  });

  test('more buffers, where nothing was refused, are no news', () => {
    guest.start();
    guest.introduce(3);
    guest.tell(1, PORT_OPEN, 1);
    port.write(ascii('a'));
    guest.fill(1);
    expect(log).toEqual(['stdin opened']);
  });

  test('closing the host end tells the guest after the bytes; opening it again too', () => {
    guest.start();
    guest.introduce(3);
    guest.tell(1, PORT_OPEN, 1);
    port.write(ascii('last'));
    port.close();
    port.close();
    expect(guest.read(1)).toBe('last');
    expect(guest.hear()).toEqual([[1, PORT_OPEN, 0, '']]);
    expect(() => port.write(ascii('x'))).toThrow(/stdin: write after close/);
    guest.print(1, 'nobody reads this');
    scheduler.turn();
    expect(guest.tx(1).take().length).toBe(1);
    expect(log).toEqual(['stdin opened']);
    port.open();
    expect(guest.hear()).toEqual([[1, PORT_OPEN, 1, '']]);
    expect(port.write(ascii('x'))).toBe(1);
  });

  test('a port closed before the guest is there is introduced as closed', () => {
    port.close();
    guest.start();
    expect(guest.introduce(3).filter(([id, event]) => id === 1 && event === PORT_OPEN)).toEqual([]);
  });

  test('the guest’s close comes after all of its bytes', () => {
    guest.start();
    guest.introduce(3);
    guest.tell(2, PORT_OPEN, 1);
    guest.print(2, 'done');
    guest.tell(2, PORT_OPEN, 0);
    expect(log).toEqual(['stdout opened', 'stdout: done', 'stdout closed']);
    expect(device.port('stdout')!.guestOpen).toBe(false);
  });

  test('a receiver that holds back holds the guest back, and loses nothing', () => {
    guest.start();
    guest.introduce(3);
    guest.tell(2, PORT_OPEN, 1);
    holds = true;
    const stdout = device.port('stdout')!;
    guest.print(2, 'first');
    scheduler.turn();
    const kib = 'k'.repeat(1024);
    let sent = 0;
    for (let i = 0; i < 100; i++) {
      guest.tx(2).take();
      if (guest.tx(2).usedIndex !== ((sent + 1) & 0xffff)) break;
      guest.tx(2).add([ascii(kib)], []);
      guest.tx(2).kick();
      sent++;
    }
    expect(sent).toBe(65); // 64 KiB are buffered, one request waits
    scheduler.turn();
    expect(log).toEqual(['stdout opened', 'stdout: first']);
    guest.tell(2, PORT_OPEN, 0);
    holds = false;
    stdout.resume();
    scheduler.turn();
    expect(log.at(-1)).toBe('stdout closed');
    const got = log.filter((line) => line.startsWith('stdout: ')).map((line) => line.slice(8));
    expect(got.join('')).toBe(`first${kib.repeat(65)}`);
    expect(guest.tx(2).take().length).toBe(1);
  });

  test('a close and a new opening, while output is held back, come in their order between the right bytes', () => {
    guest.start();
    guest.introduce(3);
    guest.tell(2, PORT_OPEN, 1);
    holds = true;
    guest.print(2, 'a');
    scheduler.turn();
    guest.print(2, 'b');
    guest.tell(2, PORT_OPEN, 0);
    guest.tell(2, PORT_OPEN, 1);
    guest.print(2, 'c');
    scheduler.turn();
    expect(log).toEqual(['stdout opened', 'stdout: a']);
    holds = false;
    device.port('stdout')!.resume();
    scheduler.turn();
    expect(log).toEqual(['stdout opened', 'stdout: a', 'stdout: b', 'stdout closed', 'stdout opened', 'stdout: c']);
  });

  test('a flood is taken in bounded portions, a turn each', () => {
    guest.start();
    guest.introduce(3);
    guest.tell(2, PORT_OPEN, 1);
    const addr = guest.driver.alloc(256 * 1024, 16);
    const { desc } = guest.tx(2);
    // One request of 4 MiB: sixteen times the same 256 KiB.
    for (let i = 0; i < 16; i++) guest.driver.writeDesc(desc, i, addr, 256 * 1024, i === 15 ? 0 : 1, i + 1);
    guest.tx(2).offer(0);
    guest.tx(2).kick();
    const bytes = () =>
      log.filter((line) => line.startsWith('stdout: ')).reduce((sum, line) => sum + line.length - 8, 0);
    expect(bytes()).toBe(1024 * 1024);
    expect(guest.tx(2).usedIndex).toBe(0);
    let turns = 0;
    while (scheduler.pending > 0 && turns < 100) {
      scheduler.turn();
      turns++;
    }
    expect(bytes()).toBe(4 * 1024 * 1024);
    expect(guest.tx(2).usedIndex).toBe(1);
    expect(turns).toBeLessThan(10);
  });

  test('resuming and closing from inside the handler is safe, and repeats nothing', () => {
    guest.start();
    guest.introduce(3);
    guest.tell(2, PORT_OPEN, 1);
    const stdout = device.port('stdout')!;
    let got = 0;
    stdout.onData = (bytes) => {
      got += bytes.length;
      stdout.resume();
      return false;
    };
    for (let i = 0; i < 8; i++) guest.print(2, 'z'.repeat(40_000));
    scheduler.turn();
    expect(got).toBe(320_000);
    stdout.onData = () => stdout.close();
    guest.print(2, 'z'.repeat(70_000), 'z');
    scheduler.turn();
    expect(guest.tx(2).take().length).toBeGreaterThan(0);
    expect(guest.tx(2).usedIndex).toBe(10);
  });

  test('a reset of the device closes what was open, after its bytes, and all can begin again', () => {
    guest.start();
    guest.introduce(3);
    guest.tell(2, PORT_OPEN, 1);
    holds = true;
    guest.print(2, 'a');
    scheduler.turn();
    guest.print(2, 'b');
    guest.driver.write(0x70, 0);
    expect(log).toEqual(['stdout opened', 'stdout: a']);
    guest.start();
    guest.introduce(3);
    guest.tell(2, PORT_OPEN, 1);
    guest.print(2, 'c');
    holds = false;
    device.port('stdout')!.resume();
    scheduler.turn();
    expect(log).toEqual(['stdout opened', 'stdout: a', 'stdout: b', 'stdout closed', 'stdout opened', 'stdout: c']);
  });

  test('a reset overtakes a close that still waits for its bytes', () => {
    guest.start();
    guest.introduce(3);
    guest.tell(2, PORT_OPEN, 1);
    guest.print(2, 'a');
    holds = true;
    scheduler.turn();
    guest.print(2, 'b');
    guest.tell(2, PORT_OPEN, 0);
    guest.driver.write(0x70, 0);
    holds = false;
    device.port('stdout')!.resume();
    expect(log).toEqual(['stdout opened', 'stdout: a', 'stdout: b', 'stdout closed']);
    guest.start();
    guest.introduce(3);
    guest.tell(2, PORT_OPEN, 1);
    expect(log.at(-1)).toBe('stdout opened');
  });

  test('a driver without MULTIPORT has port 0, open', () => {
    guest.queues = guest.driver.start(F_VERSION_1, 16);
    guest.fill(0);
    expect(log).toEqual(['hvc0 opened']);
    guest.print(0, 'hi');
    scheduler.turn();
    expect(log).toEqual(['hvc0 opened', 'hvc0: hi']);
    expect(device.ports[0]!.write(ascii('yes'))).toBe(3);
    expect(guest.read(0)).toBe('yes');
    guest.print(1, 'no port');
    scheduler.turn();
    expect(log.length).toBe(2);
  });

  test('emergency output needs no driver', () => {
    for (const byte of ascii('oops')) guest.driver.mmio.write(0x108, 4, byte);
    scheduler.turn();
    expect(log).toEqual(['hvc0: oops']);
  });

  test('a receive buffer that cannot be written breaks it', () => {
    guest.start();
    guest.tell(0, DEVICE_READY, 1);
    guest.rx(1).add([ascii('x')], []);
    guest.tell(1, PORT_OPEN, 1);
    expect(port.write(ascii('x'))).toBe(0);
    expect(guest.driver.needsReset).toBe(true);
  });

  test('flush and close hand out what waits', () => {
    guest.start();
    guest.introduce(3);
    guest.print(0, 'bye');
    guest.driver.mmio.close();
    expect(log).toEqual(['hvc0: bye']);
  });

  test.each([
    [['']],
    [['a b']],
    [['x'.repeat(65)]],
    [['twice', 'twice']],
    [Array.from({ length: 31 }, (_, i) => `p${i}`)],
  ])('refuses the port names %j', (ports) => {
    expect(() => new VirtioConsole({ schedule: () => {}, ports })).toThrow(RangeError);
  });
});
