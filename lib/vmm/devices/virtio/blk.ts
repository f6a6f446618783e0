import type { Schedule } from '../device.js';
import type { DescriptorChain } from './chain.js';
import { type VirtioActivation, type VirtioDevice, VirtioDeviceId } from './device.js';
import type { Virtqueue } from './queue.js';

/** Bytes in a sector: the unit of virtio-blk, whatever the disk's block size. */
export const SECTOR_SIZE = 512;

/** A disk's bytes. Offsets and lengths that a device gives are whole sectors inside `capacity`. */
export interface BlockBackend {
  /** Bytes, a multiple of 512. */
  readonly capacity: number;
  readonly readOnly: boolean;
  /** Fills all of `into`, which is guest memory and not to be kept. @throws whatever makes the guest see an I/O error */
  read(offset: number, into: Uint8Array): void;
  /** Writes all of `from`, which is guest memory and not to be kept. @throws whatever makes the guest see an I/O error */
  write(offset: number, from: Uint8Array): void;
  /** Makes everything written so far durable. Other requests go on while a promise is pending. */
  flush(): void | Promise<void>;
  /** The range is not needed any more; it may read as anything. */
  discard?(offset: number, length: number): void;
  /** The range reads as zeroes from now on. Without it, zeroes are written. */
  writeZeroes?(offset: number, length: number): void;
  close?(): void;
}

/** Feature bits (virtio 1.2 §5.2.3). */
export const BlkFeature = {
  SIZE_MAX: 1n << 1n,
  SEG_MAX: 1n << 2n,
  RO: 1n << 5n,
  BLK_SIZE: 1n << 6n,
  FLUSH: 1n << 9n,
  DISCARD: 1n << 13n,
  WRITE_ZEROES: 1n << 14n,
} as const;

/** Request types (§5.2.6). */
const T_IN = 0;
const T_OUT = 1;
const T_FLUSH = 4;
const T_GET_ID = 8;
const T_DISCARD = 11;
const T_WRITE_ZEROES = 13;

const S_OK = 0;
const S_IOERR = 1;
const S_UNSUPP = 2;
/** Not a status: the request is answered later. */
const LATER = -1;

const HEADER_SIZE = 16;
const ID_SIZE = 20;
const QUEUE_SIZE = 256;
/** Data segments in a request, and bytes in each, that the driver is asked to keep to. */
const SEG_MAX = QUEUE_SIZE - 2;
const SIZE_MAX = 65536;
/** A longer request fails: one request must not hold up the host. */
const MAX_REQUEST = SEG_MAX * SIZE_MAX;

/** Discard and write-zeroes: ranges in a request, and sectors in each. */
const MAX_RANGES = 16;
const MAX_RANGE_SECTORS = MAX_REQUEST / SECTOR_SIZE;
const RANGE_SIZE = 16;
const RANGE_F_UNMAP = 1;

/** Bytes served in one go before the guest and the host's event loop get their turn; a descriptor counts as a sector. */
const PASS_BUDGET = 2 * MAX_REQUEST;

const ZEROES = new Uint8Array(65536);

/** How a {@link VirtioBlk} is set up. */
export interface VirtioBlkOptions {
  readonly backend: BlockBackend;
  readonly schedule: Schedule;
  /** What VIRTIO_BLK_T_GET_ID answers, a serial number: at most 20 bytes of ASCII. Empty if not given. */
  readonly id?: string;
  /** The backend failed, and the guest saw an I/O error; for a log. */
  readonly onError?: (error: unknown) => void;
}

/**
 * virtio-blk (virtio 1.2 §5.2): one queue, served in order while the driver notifies. Only a flush may be answered later,
 * when its backend's promise is.
 */
export class VirtioBlk implements VirtioDevice {
  readonly name = 'virtio-blk';
  readonly deviceId = VirtioDeviceId.BLOCK;
  readonly queueSizes = [QUEUE_SIZE];
  readonly features: bigint;
  readonly config = new Uint8Array(60);

  readonly #backend: BlockBackend;
  readonly #options: VirtioBlkOptions;
  readonly #sectors: number;
  readonly #id = new Uint8Array(ID_SIZE);
  readonly #header = new Uint8Array(HEADER_SIZE);
  readonly #headerView = new DataView(this.#header.buffer);
  readonly #ranges = new Uint8Array(MAX_RANGES * RANGE_SIZE);
  readonly #rangesView = new DataView(this.#ranges.buffer);

  #queue: Virtqueue | undefined;
  /** What the driver negotiated. */
  #canFlush = false;
  #canDiscard = false;
  #canWriteZeroes = false;
  #more = false;
  /** Bytes of the request in hand that were written to the guest, status apart. */
  #written = 0;

  /** @throws RangeError a capacity that is not a whole number of sectors, or an id that does not fit */
  constructor(options: VirtioBlkOptions) {
    const { backend, id = '' } = options;
    if (!Number.isSafeInteger(backend.capacity) || backend.capacity < 0 || backend.capacity % SECTOR_SIZE !== 0) {
      throw new RangeError(
        `virtio-blk: a capacity of ${backend.capacity} bytes is not a multiple of ${SECTOR_SIZE}; pad the image`,
      );
    }
    if (!/^[\x20-\x7e]{0,20}$/.test(id))
      throw new RangeError(`virtio-blk: id ${JSON.stringify(id)} is not up to 20 characters of ASCII`);
    this.#options = options;
    this.#backend = backend;
    this.#sectors = backend.capacity / SECTOR_SIZE;
    for (let i = 0; i < id.length; i++) this.#id[i] = id.charCodeAt(i);

    let features = BlkFeature.SIZE_MAX | BlkFeature.SEG_MAX | BlkFeature.BLK_SIZE | BlkFeature.FLUSH;
    if (backend.readOnly) features |= BlkFeature.RO;
    else features |= BlkFeature.WRITE_ZEROES | (backend.discard === undefined ? 0n : BlkFeature.DISCARD);
    this.features = features;
    this.#fillConfig();
  }

  attach(): void {}

  activate(activation: VirtioActivation): void {
    this.#queue = activation.queues[0];
    this.#canFlush = (activation.features & BlkFeature.FLUSH) !== 0n;
    this.#canDiscard = (activation.features & BlkFeature.DISCARD) !== 0n;
    this.#canWriteZeroes = (activation.features & BlkFeature.WRITE_ZEROES) !== 0n;
  }

  notify(_index: number): void {
    this.#serve();
  }

  reset(): void {
    this.#queue = undefined;
  }

  close(): void {
    this.#queue = undefined;
    this.#backend.close?.();
  }

  /** `struct virtio_blk_config` (§5.2.4). */
  #fillConfig(): void {
    const config = new DataView(this.config.buffer);
    config.setBigUint64(0, BigInt(this.#sectors), true); // capacity
    config.setUint32(8, SIZE_MAX, true); // size_max
    config.setUint32(12, SEG_MAX, true); // seg_max
    config.setUint32(20, SECTOR_SIZE, true); // blk_size
    if ((this.features & BlkFeature.DISCARD) !== 0n) {
      config.setUint32(36, MAX_RANGE_SECTORS, true); // max_discard_sectors
      config.setUint32(40, MAX_RANGES, true); // max_discard_seg
      config.setUint32(44, 1, true); // discard_sector_alignment
    }
    if ((this.features & BlkFeature.WRITE_ZEROES) !== 0n) {
      config.setUint32(48, MAX_RANGE_SECTORS, true); // max_write_zeroes_sectors
      config.setUint32(52, MAX_RANGES, true); // max_write_zeroes_seg
      config.setUint8(56, this.#backend.writeZeroes === undefined ? 0 : 1); // write_zeroes_may_unmap
    }
  }

  #serve(): void {
    const queue = this.#queue;
    if (queue === undefined) return;
    let budget = PASS_BUDGET;
    while (budget > 0) {
      const chain = queue.pop();
      if (chain === undefined) break;
      budget -= chain.readableBytes + chain.writableBytes + chain.count * SECTOR_SIZE;
      this.#request(queue, chain);
    }
    queue.signal();
    if (budget <= 0 && !this.#more) {
      this.#more = true;
      this.#options.schedule(this.#onSchedule);
    }
  }

  readonly #onSchedule = (): void => {
    this.#more = false;
    this.#serve();
  };

  #request(queue: Virtqueue, chain: DescriptorChain): void {
    if (chain.readableBytes < HEADER_SIZE || chain.writableBytes < 1) {
      queue.fail(`chain ${chain.head}: no request header or no status byte`);
      return;
    }
    chain.read(this.#header);
    this.#written = 0;
    let status: number;
    try {
      status = this.#execute(queue, chain);
    } catch (error) {
      status = S_IOERR;
      this.#options.onError?.(error);
    }
    if (status !== LATER) this.#finish(queue, chain, status, this.#written);
  }

  #finish(queue: Virtqueue, chain: DescriptorChain, status: number, written: number): void {
    chain.writeLast(status);
    // The used length counts from the first byte on without a gap, so the status counts only behind complete data.
    queue.push(chain, written === chain.writableBytes - 1 ? chain.writableBytes : written);
  }

  #execute(queue: Virtqueue, chain: DescriptorChain): number {
    const type = this.#headerView.getUint32(0, true);
    // Above 2^53 it loses bits, and is far out of range all the same.
    const sector = this.#headerView.getUint32(12, true) * 2 ** 32 + this.#headerView.getUint32(8, true);
    switch (type) {
      case T_IN:
        return this.#in(chain, sector);
      case T_OUT:
        return this.#out(queue, chain, sector);
      case T_FLUSH:
        return this.#flush(queue, chain);
      case T_GET_ID:
        this.#written = chain.write(this.#id.subarray(0, Math.min(ID_SIZE, chain.writableBytes - 1)));
        return S_OK;
      case T_DISCARD:
        return this.#canDiscard ? this.#eachRange(chain, true) : S_UNSUPP;
      case T_WRITE_ZEROES:
        return this.#canWriteZeroes ? this.#eachRange(chain, false) : S_UNSUPP;
      default:
        return S_UNSUPP;
    }
  }

  #transferable(sector: number, length: number): boolean {
    return (
      length > 0 &&
      length <= MAX_REQUEST &&
      length % SECTOR_SIZE === 0 &&
      sector + length / SECTOR_SIZE <= this.#sectors
    );
  }

  #in(chain: DescriptorChain, sector: number): number {
    const length = chain.writableBytes - 1;
    if (!this.#transferable(sector, length)) return S_IOERR;
    const offset = sector * SECTOR_SIZE;
    let into = chain.room(length);
    while (into !== undefined) {
      try {
        this.#backend.read(offset + this.#written, into);
      } finally {
        chain.wrote(into.length); // A backend that failed may have filled some of it.
      }
      this.#written += into.length;
      into = chain.room(length - this.#written);
    }
    return S_OK;
  }

  #out(queue: Virtqueue, chain: DescriptorChain, sector: number): number {
    if (this.#backend.readOnly || !this.#transferable(sector, chain.readableBytes - HEADER_SIZE)) return S_IOERR;
    let offset = sector * SECTOR_SIZE;
    for (let from = chain.peek(); from !== undefined; from = chain.peek()) {
      this.#backend.write(offset, from);
      offset += from.length;
      chain.skip(from.length);
    }
    // §5.2.6.2: to a driver that knows no flush, what is written is on the disk.
    return this.#canFlush ? S_OK : this.#flush(queue, chain);
  }

  #flush(queue: Virtqueue, chain: DescriptorChain): number {
    const pending = this.#backend.flush();
    if (pending === undefined) return S_OK;
    queue.keep(chain);
    const finish = (status: number): void => {
      if (!queue.owns(chain)) return; // The device was reset meanwhile, and the memory is the driver's again.
      this.#finish(queue, chain, status, 0);
      queue.signal();
    };
    pending.then(
      () => finish(S_OK),
      (error: unknown) => {
        finish(S_IOERR);
        this.#options.onError?.(error);
      },
    );
    return LATER;
  }

  /** Discard and write-zeroes (`struct virtio_blk_discard_write_zeroes`): nothing is done unless every range is good. */
  #eachRange(chain: DescriptorChain, discard: boolean): number {
    const length = chain.readableBytes - HEADER_SIZE;
    if (length === 0 || length % RANGE_SIZE !== 0 || length > this.#ranges.length) return S_IOERR;
    chain.read(this.#ranges.subarray(0, length));
    const view = this.#rangesView;
    for (let at = 0; at < length; at += RANGE_SIZE) {
      const flags = view.getUint32(at + 12, true);
      if ((flags & ~RANGE_F_UNMAP) !== 0 || (discard && flags !== 0)) return S_UNSUPP;
      const count = view.getUint32(at + 8, true);
      if (count > MAX_RANGE_SECTORS || this.#rangeSector(at) + count > this.#sectors) return S_IOERR;
    }
    for (let at = 0; at < length; at += RANGE_SIZE) {
      const bytes = view.getUint32(at + 8, true) * SECTOR_SIZE;
      if (bytes === 0) continue;
      if (discard) this.#backend.discard?.(this.#rangeSector(at) * SECTOR_SIZE, bytes);
      else this.#writeZeroes(this.#rangeSector(at) * SECTOR_SIZE, bytes);
    }
    return S_OK;
  }

  #rangeSector(at: number): number {
    return this.#rangesView.getUint32(at + 4, true) * 2 ** 32 + this.#rangesView.getUint32(at, true);
  }

  #writeZeroes(offset: number, length: number): void {
    if (this.#backend.writeZeroes !== undefined) {
      this.#backend.writeZeroes(offset, length);
      return;
    }
    for (let done = 0; done < length; done += ZEROES.length) {
      this.#backend.write(offset + done, ZEROES.subarray(0, Math.min(ZEROES.length, length - done)));
    }
  }
}
