import type { VirtioDevice } from '#lib/vmm/devices/virtio/device.js';
import { VirtioMmio } from '#lib/vmm/devices/virtio/mmio.js';
import { RAM_BASE, TestIrq, TestRam } from '../bench.ts';

export const F_INDIRECT = 1n << 28n;
export const F_EVENT_IDX = 1n << 29n;
export const F_VERSION_1 = 1n << 32n;

const NEXT = 1;
const WRITE = 2;
const INDIRECT = 4;

/** One queue as Linux lays it out: rings in guest RAM, written through the guest's own view. */
export class DriverQueue {
  readonly index: number;
  readonly size: number;
  readonly desc: number;
  readonly avail: number;
  readonly used: number;
  readonly #driver: VirtioDriver;
  #free: number[];
  #availIndex = 0;
  #lastUsed = 0;
  readonly #inFlight = new Map<number, { descriptors: number[]; writable: { addr: number; length: number }[] }>();

  constructor(driver: VirtioDriver, index: number, size: number) {
    this.#driver = driver;
    this.index = index;
    this.size = size;
    this.desc = driver.alloc(16 * size, 16);
    this.avail = driver.alloc(6 + 2 * size, 2);
    this.used = driver.alloc(6 + 8 * size, 4);
    this.#free = Array.from({ length: size }, (_, i) => size - 1 - i);
  }

  /** Makes a request available; returns its head. */
  add(readable: readonly Uint8Array[], writable: readonly number[], options: { indirect?: boolean } = {}): number {
    const { ram } = this.#driver;
    const out = readable.map((bytes) => {
      const addr = this.#driver.alloc(Math.max(bytes.length, 1), 1);
      ram.bytes.set(bytes, addr - RAM_BASE);
      return { addr, length: bytes.length, flags: 0 };
    });
    const into = writable.map((length) => ({ addr: this.#driver.alloc(Math.max(length, 1), 1), length, flags: WRITE }));
    const buffers = [...out, ...into];
    const descriptors: number[] = [];
    if (options.indirect === true) {
      const table = this.#driver.alloc(16 * buffers.length, 16);
      buffers.forEach((buffer, i) => {
        const last = i === buffers.length - 1;
        this.#driver.writeDesc(
          table,
          i,
          buffer.addr,
          buffer.length,
          buffer.flags | (last ? 0 : NEXT),
          last ? 0 : i + 1,
        );
      });
      const head = this.#free.pop()!;
      descriptors.push(head);
      this.#driver.writeDesc(this.desc, head, table, 16 * buffers.length, INDIRECT, 0);
    } else {
      for (const _ of buffers) descriptors.push(this.#free.pop()!);
      buffers.forEach((buffer, i) => {
        const next = descriptors[i + 1];
        const flags = buffer.flags | (next === undefined ? 0 : NEXT);
        this.#driver.writeDesc(this.desc, descriptors[i]!, buffer.addr, buffer.length, flags, next ?? 0);
      });
    }
    const head = descriptors[0]!;
    this.#inFlight.set(head, { descriptors, writable: into });
    this.offer(head);
    return head;
  }

  /** Puts any head into the available ring. */
  offer(head: number): void {
    const { data } = this.#driver.ram;
    data.setUint16(this.avail - RAM_BASE + 4 + 2 * (this.#availIndex % this.size), head, true);
    this.#availIndex = (this.#availIndex + 1) & 0xffff;
    data.setUint16(this.avail - RAM_BASE + 2, this.#availIndex, true);
  }

  kick(): void {
    this.#driver.write(0x50, this.index);
  }

  /** Whether a driver with EVENT_IDX would notify after adding one entry. */
  get wantsKick(): boolean {
    const event = this.#driver.ram.data.getUint16(this.used - RAM_BASE + 4 + 8 * this.size, true);
    return event === ((this.#availIndex - 1) & 0xffff);
  }

  set usedEvent(value: number) {
    this.#driver.ram.data.setUint16(this.avail - RAM_BASE + 4 + 2 * this.size, value, true);
  }

  set availFlags(value: number) {
    this.#driver.ram.data.setUint16(this.avail - RAM_BASE, value, true);
  }

  set availIndex(value: number) {
    this.#availIndex = value & 0xffff;
    this.#driver.ram.data.setUint16(this.avail - RAM_BASE + 2, value & 0xffff, true);
  }

  get usedIndex(): number {
    return this.#driver.ram.data.getUint16(this.used - RAM_BASE + 2, true);
  }

  /** Takes finished requests: their heads, used lengths, and the bytes of their writable buffers in one piece. */
  take(): { head: number; length: number; data: Uint8Array }[] {
    const { data, bytes } = this.#driver.ram;
    const done = [];
    while (this.#lastUsed !== this.usedIndex) {
      const entry = this.used - RAM_BASE + 4 + 8 * (this.#lastUsed % this.size);
      const head = data.getUint32(entry, true);
      const length = data.getUint32(entry + 4, true);
      const request = this.#inFlight.get(head);
      if (request === undefined) throw new Error(`head ${head} is not in flight`);
      this.#inFlight.delete(head);
      this.#free.push(...request.descriptors);
      const pieces = request.writable.map(({ addr, length: n }) =>
        bytes.subarray(addr - RAM_BASE, addr - RAM_BASE + n),
      );
      done.push({ head, length, data: new Uint8Array(Buffer.concat(pieces)) });
      this.#lastUsed = (this.#lastUsed + 1) & 0xffff;
    }
    return done;
  }
}

/** A virtio-mmio driver as Linux's: register by register. */
export class VirtioDriver {
  readonly ram: TestRam;
  readonly irq = new TestIrq();
  readonly mmio: VirtioMmio;
  readonly broken: string[] = [];
  #next = RAM_BASE;

  constructor(device: VirtioDevice, ram = new TestRam()) {
    this.ram = ram;
    this.mmio = new VirtioMmio({ device, ram, irq: this.irq, onBroken: (_, reason) => this.broken.push(reason) });
  }

  read(offset: number): number {
    return this.mmio.read(offset, 4);
  }

  write(offset: number, value: number): void {
    this.mmio.write(offset, 4, value);
  }

  alloc(length: number, align: number): number {
    const addr = Math.ceil(this.#next / align) * align;
    this.#next = addr + length;
    if (this.#next > RAM_BASE + this.ram.size) throw new Error('the test guest is out of memory');
    return addr;
  }

  writeDesc(table: number, index: number, addr: number, length: number, flags: number, next: number): void {
    const at = table - RAM_BASE + 16 * index;
    this.ram.data.setBigUint64(at, BigInt(addr), true);
    this.ram.data.setUint32(at + 8, length, true);
    this.ram.data.setUint16(at + 12, flags, true);
    this.ram.data.setUint16(at + 14, next, true);
  }

  get deviceFeatures(): bigint {
    this.write(0x14, 1);
    const high = BigInt(this.read(0x10));
    this.write(0x14, 0);
    return (high << 32n) | BigInt(this.read(0x10));
  }

  acceptFeatures(features: bigint): void {
    this.write(0x24, 0);
    this.write(0x20, Number(features & 0xffff_ffffn));
    this.write(0x24, 1);
    this.write(0x20, Number(features >> 32n));
  }

  setupQueue(index: number, size: number): DriverQueue {
    const queue = new DriverQueue(this, index, size);
    this.write(0x30, index);
    this.write(0x38, size);
    this.write(0x80, queue.desc);
    this.write(0x84, 0);
    this.write(0x90, queue.avail);
    this.write(0x94, 0);
    this.write(0xa0, queue.used);
    this.write(0xa4, 0);
    this.write(0x44, 1);
    return queue;
  }

  /** The whole initialisation (virtio 1.2 §3.1.1), with all queues at `size` or, if none is given, their largest. */
  start(features = this.deviceFeatures, size?: number): DriverQueue[] {
    this.write(0x70, 0);
    this.write(0x70, 1);
    this.write(0x70, 3);
    this.acceptFeatures(features);
    this.write(0x70, 11);
    if ((this.read(0x70) & 8) === 0) throw new Error('FEATURES_OK was refused');
    const queues = this.mmio.device.queueSizes.map((max, index) => this.setupQueue(index, Math.min(size ?? max, max)));
    this.write(0x70, 15);
    return queues;
  }

  get needsReset(): boolean {
    return (this.read(0x70) & 0x40) !== 0;
  }
}
