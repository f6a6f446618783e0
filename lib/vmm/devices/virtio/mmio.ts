import type { GuestRam, IrqLine, MmioDevice } from '../device.js';
import { lane } from '../primecell.js';
import { DeviceStatus, RingFeature, type VirtioDevice, type VirtioTransport } from './device.js';
import { type QueueHost, Virtqueue } from './queue.js';

/** Register offsets (virtio 1.2 §4.2.2). */
const Reg = {
  MAGIC: 0x000,
  VERSION: 0x004,
  DEVICE_ID: 0x008,
  VENDOR_ID: 0x00c,
  DEVICE_FEATURES: 0x010,
  DEVICE_FEATURES_SEL: 0x014,
  DRIVER_FEATURES: 0x020,
  DRIVER_FEATURES_SEL: 0x024,
  QUEUE_SEL: 0x030,
  QUEUE_NUM_MAX: 0x034,
  QUEUE_NUM: 0x038,
  QUEUE_READY: 0x044,
  QUEUE_NOTIFY: 0x050,
  INTERRUPT_STATUS: 0x060,
  INTERRUPT_ACK: 0x064,
  STATUS: 0x070,
  QUEUE_DESC_LOW: 0x080,
  QUEUE_DESC_HIGH: 0x084,
  QUEUE_DRIVER_LOW: 0x090,
  QUEUE_DRIVER_HIGH: 0x094,
  QUEUE_DEVICE_LOW: 0x0a0,
  QUEUE_DEVICE_HIGH: 0x0a4,
  SHM_LEN_LOW: 0x0b0,
  SHM_BASE_HIGH: 0x0bc,
  CONFIG_GENERATION: 0x0fc,
  CONFIG: 0x100,
} as const;

/** Offset of QueueNotify: where a board puts its ioeventfds, one a queue, with the queue's index as datamatch. */
export const QUEUE_NOTIFY = Reg.QUEUE_NOTIFY;

/** Bytes of address space of a virtio-mmio device on the `virt` board. */
export const VIRTIO_MMIO_SIZE = 0x200;

const MAGIC = 0x74726976; // "virt"
const VENDOR = 0x766c6531; // "1elv"

/** InterruptStatus bits. */
const INT_VRING = 1;
const INT_CONFIG = 2;

const RING_FEATURES = RingFeature.VERSION_1 | RingFeature.EVENT_IDX | RingFeature.INDIRECT_DESC;

/** What a {@link VirtioMmio} is connected to. */
export interface VirtioMmioOptions {
  readonly device: VirtioDevice;
  readonly ram: GuestRam;
  /** Edge-triggered: every notification is one pulse. */
  readonly irq: IrqLine;
  /** The guest broke the device (DEVICE_NEEDS_RESET); for a log. */
  readonly onBroken?: (device: VirtioDevice, reason: string) => void;
}

/** What the driver has written about a queue that is not ready yet. Addresses as 32-bit halves. */
interface QueueSetup {
  size: number;
  readonly halves: Uint32Array;
}

/**
 * The virtio-mmio transport, version 2 (virtio 1.2 §4.2), in front of any {@link VirtioDevice}.
 *
 * A QueueNotify write may come as an MMIO write, or past this object's registers through {@link notify}, from an
 * ioeventfd. Used buffers are announced while the driver's QueueNotify is still being written.
 */
export class VirtioMmio implements MmioDevice {
  readonly name = 'virtio_mmio';
  readonly size = VIRTIO_MMIO_SIZE;
  readonly device: VirtioDevice;
  readonly #options: VirtioMmioOptions;
  readonly #queues: readonly Virtqueue[];
  readonly #setups: readonly QueueSetup[];
  readonly #features: bigint;

  #deviceFeaturesSel = 0;
  #driverFeaturesSel = 0;
  #driverFeatures = 0n;
  #queueSel = 0;
  #interruptStatus = 0;
  #status = 0;
  #generation = 0;
  #brokenReason: string | undefined;

  constructor(options: VirtioMmioOptions) {
    this.#options = options;
    this.device = options.device;
    this.#features = options.device.features | RING_FEATURES;
    const host: QueueHost = {
      usedBufferNotification: () => this.#interrupt(INT_VRING),
      needsReset: (reason) => this.#needsReset(reason),
    };
    this.#queues = options.device.queueSizes.map((size, index) => new Virtqueue(index, size, options.ram, host));
    this.#setups = this.#queues.map(() => ({ size: 0, halves: new Uint32Array(6) }));
    const transport: VirtioTransport = {
      configChanged: () => this.#configChanged(),
      needsReset: (reason) => this.#needsReset(reason),
    };
    options.device.attach(transport);
  }

  /** Queues that the device has; each wants its ioeventfd. */
  get queueCount(): number {
    return this.#queues.length;
  }

  /** Why the device wants a reset, or `undefined`. */
  get brokenReason(): string | undefined {
    return this.#brokenReason;
  }

  /** QueueNotify: the driver made buffers available in queue `index`. */
  notify(index: number): void {
    if (this.#running && this.#queues[index]?.ready === true) this.device.notify(index);
  }

  read(offset: number, len: number): number {
    if (offset >= Reg.CONFIG) return this.#readConfig(offset - Reg.CONFIG, len);
    // §4.2.2.2: registers are accessed as aligned 32-bit words; narrower reads see their bytes of the word.
    return lane(this.#readRegister(offset & ~3) >>> 0, offset, len) >>> 0;
  }

  write(offset: number, len: number, value: number): void {
    if (offset >= Reg.CONFIG) {
      this.device.writeConfig?.(offset - Reg.CONFIG, len, value);
    } else if (len === 4 && (offset & 3) === 0) {
      this.#writeRegister(offset, value >>> 0);
    }
  }

  reset(): void {
    for (const queue of this.#queues) {
      queue.stop();
      queue.disable();
    }
    for (const setup of this.#setups) {
      setup.size = 0;
      setup.halves.fill(0);
    }
    this.#deviceFeaturesSel = 0;
    this.#driverFeaturesSel = 0;
    this.#driverFeatures = 0n;
    this.#queueSel = 0;
    this.#interruptStatus = 0;
    this.#status = 0;
    this.#brokenReason = undefined;
    this.device.reset();
  }

  close(): void {
    this.reset();
    this.device.close?.();
  }

  get #running(): boolean {
    const wanted = DeviceStatus.DRIVER_OK | DeviceStatus.DEVICE_NEEDS_RESET | DeviceStatus.FAILED;
    return (this.#status & wanted) === DeviceStatus.DRIVER_OK;
  }

  #readRegister(register: number): number {
    const queue = this.#queues[this.#queueSel];
    switch (register) {
      case Reg.MAGIC:
        return MAGIC;
      case Reg.VERSION:
        return 2;
      case Reg.DEVICE_ID:
        return this.device.deviceId;
      case Reg.VENDOR_ID:
        return VENDOR;
      case Reg.DEVICE_FEATURES:
        return this.#deviceFeaturesSel > 1
          ? 0
          : Number((this.#features >> BigInt(32 * this.#deviceFeaturesSel)) & 0xffff_ffffn);
      case Reg.QUEUE_NUM_MAX:
        return queue?.maxSize ?? 0;
      case Reg.QUEUE_READY:
        return queue?.ready === true ? 1 : 0;
      case Reg.INTERRUPT_STATUS:
        return this.#interruptStatus;
      case Reg.STATUS:
        return this.#status;
      case Reg.CONFIG_GENERATION:
        return this.#generation;
      default:
        // §4.2.2: a shared memory region that is not there has a length of all ones; so have its other registers here.
        return register >= Reg.SHM_LEN_LOW && register <= Reg.SHM_BASE_HIGH ? 0xffff_ffff : 0;
    }
  }

  #writeRegister(register: number, value: number): void {
    switch (register) {
      case Reg.DEVICE_FEATURES_SEL:
        this.#deviceFeaturesSel = value;
        break;
      case Reg.DRIVER_FEATURES_SEL:
        this.#driverFeaturesSel = value;
        break;
      case Reg.DRIVER_FEATURES:
        this.#setDriverFeatures(value);
        break;
      case Reg.QUEUE_SEL:
        this.#queueSel = value;
        break;
      case Reg.QUEUE_NUM: {
        const setup = this.#unreadySetup();
        if (setup !== undefined) setup.size = value;
        break;
      }
      case Reg.QUEUE_READY:
        this.#setQueueReady(value);
        break;
      case Reg.QUEUE_NOTIFY:
        this.notify(value);
        break;
      case Reg.INTERRUPT_ACK:
        this.#interruptStatus &= ~value;
        break;
      case Reg.STATUS:
        this.#setStatus(value);
        break;
      case Reg.QUEUE_DESC_LOW:
      case Reg.QUEUE_DESC_HIGH:
      case Reg.QUEUE_DRIVER_LOW:
      case Reg.QUEUE_DRIVER_HIGH:
      case Reg.QUEUE_DEVICE_LOW:
      case Reg.QUEUE_DEVICE_HIGH: {
        // Three pairs, 0x10 apart: halves 0 and 1 are the descriptor table's, 2 and 3 the driver's, 4 and 5 the device's.
        const half = ((register - Reg.QUEUE_DESC_LOW) >>> 4) * 2 + ((register >>> 2) & 1);
        const setup = this.#unreadySetup();
        if (setup !== undefined) setup.halves[half] = value;
        break;
      }
    }
  }

  /** The selected queue's setup, while it may still be changed. */
  #unreadySetup(): QueueSetup | undefined {
    return this.#queues[this.#queueSel]?.ready === false ? this.#setups[this.#queueSel] : undefined;
  }

  #setDriverFeatures(value: number): void {
    // §2.2.1: settled with FEATURES_OK.
    if ((this.#status & DeviceStatus.FEATURES_OK) !== 0 || this.#driverFeaturesSel > 1) return;
    const shift = BigInt(32 * this.#driverFeaturesSel);
    this.#driverFeatures = (this.#driverFeatures & ~(0xffff_ffffn << shift)) | (BigInt(value) << shift);
  }

  #setQueueReady(value: number): void {
    const queue = this.#queues[this.#queueSel];
    const setup = this.#setups[this.#queueSel];
    if (queue === undefined || setup === undefined) return;
    if ((value & 1) === 0) {
      queue.disable();
    } else if (!queue.ready) {
      const at = (half: number) => setup.halves[half]! + setup.halves[half + 1]! * 2 ** 32;
      const wrong = queue.enable({ size: setup.size, desc: at(0), driver: at(2), device: at(4) });
      if (wrong !== undefined) this.#needsReset(wrong);
    }
  }

  #setStatus(value: number): void {
    if (value === 0) {
      this.reset();
      return;
    }
    const before = this.#status;
    // §2.1.1: a driver never clears a bit but by reset, and never sets DEVICE_NEEDS_RESET.
    let status = before | (value & 0xff & ~DeviceStatus.DEVICE_NEEDS_RESET);
    if ((before & DeviceStatus.FEATURES_OK) === 0 && !this.#featuresAcceptable()) status &= ~DeviceStatus.FEATURES_OK;
    if ((status & DeviceStatus.FEATURES_OK) === 0) status &= ~DeviceStatus.DRIVER_OK;
    this.#status = status;
    if ((status & DeviceStatus.FAILED) !== 0) this.#stopQueues();
    else if ((~before & status & DeviceStatus.DRIVER_OK) !== 0 && this.#running) this.#activate();
  }

  #featuresAcceptable(): boolean {
    const accepted = this.#driverFeatures;
    return (accepted & ~this.#features) === 0n && (accepted & RingFeature.VERSION_1) !== 0n;
  }

  #activate(): void {
    const features = this.#driverFeatures;
    const ring = {
      indirect: (features & RingFeature.INDIRECT_DESC) !== 0n,
      eventIdx: (features & RingFeature.EVENT_IDX) !== 0n,
    };
    for (const queue of this.#queues) queue.start(ring);
    this.device.activate({ features, queues: this.#queues });
  }

  #readConfig(offset: number, len: number): number {
    const config = this.device.config;
    let value = 0;
    for (let i = len - 1; i >= 0; i--) value = value * 256 + (config[offset + i] ?? 0);
    return value;
  }

  #configChanged(): void {
    this.#generation = (this.#generation + 1) >>> 0;
    if ((this.#status & DeviceStatus.DRIVER_OK) !== 0) this.#interrupt(INT_CONFIG);
  }

  #needsReset(reason: string): void {
    if (this.#brokenReason !== undefined) return;
    this.#brokenReason = reason;
    this.#status |= DeviceStatus.DEVICE_NEEDS_RESET;
    this.#stopQueues();
    // §2.1.2: a driver that runs is told through a configuration change notification.
    if ((this.#status & DeviceStatus.DRIVER_OK) !== 0) this.#interrupt(INT_CONFIG);
    this.#options.onBroken?.(this.device, reason);
  }

  #stopQueues(): void {
    for (const queue of this.#queues) queue.stop();
  }

  /** A pulse every time, also where the bit is still set: a driver may acknowledge what it has not looked at yet. */
  #interrupt(bits: number): void {
    this.#interruptStatus |= bits;
    this.#options.irq.pulse();
  }
}
