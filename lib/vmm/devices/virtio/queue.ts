import type { GuestRam } from '../device.js';
import { DescriptorChain } from './chain.js';

/** `struct virtq_desc` flags (virtio 1.2 §2.7.5). */
const DESC_F_NEXT = 1;
const DESC_F_WRITE = 2;
const DESC_F_INDIRECT = 4;
const DESC_SIZE = 16;

/** `struct virtq_avail` flags (§2.7.6): the driver wants no interrupts. Only without EVENT_IDX. */
const AVAIL_F_NO_INTERRUPT = 1;

/** Entries in an indirect table at most: more than any driver builds, few enough to look at in one go. */
const MAX_INDIRECT = 1024;

/** What a queue needs of its transport. */
export interface QueueHost {
  /** A used buffer notification (§2.3). */
  usedBufferNotification(): void;
  /** The driver broke the rules in a way that leaves the queue without meaning: DEVICE_NEEDS_RESET. */
  needsReset(reason: string): void;
}

/** Where the driver put a queue's three areas: guest-physical addresses. */
export interface QueueLayout {
  /** Entries: a power of two, 1 to the queue's maximum. */
  readonly size: number;
  /** Descriptor table. */
  readonly desc: number;
  /** Available ring ("driver area"). */
  readonly driver: number;
  /** Used ring ("device area"). */
  readonly device: number;
}

/**
 * A split virtqueue as the device sees it (virtio 1.2 §2.7), with indirect descriptors and EVENT_IDX. Nothing the
 * driver wrote is believed: what cannot be made sense of breaks the device, and no method throws for it.
 *
 * A device takes requests with {@link pop}, gives each back with {@link push}, and ends every pass with {@link signal}.
 */
export class Virtqueue {
  readonly index: number;
  /** The most entries that the driver may choose. */
  readonly maxSize: number;

  readonly #ram: GuestRam;
  readonly #host: QueueHost;
  #chain: DescriptorChain;

  #ready = false;
  #running = false;
  #epoch = 0;
  #size = 0;
  #deviceAddress = 0;
  #desc!: DataView;
  #avail!: DataView;
  #used!: DataView;
  #indirect = false;
  #eventIdx = false;

  /** The next available entry to take, the next used entry to give, and the used index at the last {@link signal}. */
  #nextAvail = 0;
  #nextUsed = 0;
  #signalled = 0;
  /** The used ring was touched since it was last reported to the RAM. */
  #touched = false;

  constructor(index: number, maxSize: number, ram: GuestRam, host: QueueHost) {
    this.index = index;
    this.maxSize = maxSize;
    this.#ram = ram;
    this.#host = host;
    this.#chain = new DescriptorChain(ram);
  }

  /** QueueReady. */
  get ready(): boolean {
    return this.#ready;
  }

  /**
   * QueueReady = 1.
   * @returns what is wrong with the layout, or `undefined` where the queue is ready now
   */
  enable(layout: QueueLayout): string | undefined {
    const { size, desc, driver, device } = layout;
    if (size < 1 || size > this.maxSize || (size & (size - 1)) !== 0) {
      return `queue ${this.index}: size ${size} is not a power of two of at most ${this.maxSize}`;
    }
    // §2.7: alignments of 16, 2 and 4.
    if (desc % 16 !== 0 || driver % 2 !== 0 || device % 4 !== 0) return `queue ${this.index}: a misaligned ring`;
    const descBytes = this.#ram.view(desc, DESC_SIZE * size);
    const availBytes = this.#ram.view(driver, 6 + 2 * size);
    const usedBytes = this.#ram.view(device, 6 + 8 * size);
    if (descBytes === undefined || availBytes === undefined || usedBytes === undefined) {
      return `queue ${this.index}: a ring that does not lie in RAM`;
    }
    this.#desc = dataView(descBytes);
    this.#avail = dataView(availBytes);
    this.#used = dataView(usedBytes);
    this.#deviceAddress = device;
    this.#size = size;
    this.#nextAvail = 0;
    this.#nextUsed = 0;
    this.#signalled = 0;
    this.#touched = false;
    this.#epoch++;
    this.#ready = true;
    return undefined;
  }

  /** DRIVER_OK: requests may be taken from now on. */
  start(features: { readonly indirect: boolean; readonly eventIdx: boolean }): void {
    this.#indirect = features.indirect;
    this.#eventIdx = features.eventIdx;
    this.#running = true;
  }

  /** Device reset, or a broken device: no request is taken or given back any more. */
  stop(): void {
    this.#running = false;
  }

  /** QueueReady = 0. Chains still out are forgotten. */
  disable(): void {
    this.#ready = false;
    this.#epoch++;
    this.#chain.end();
  }

  /** The driver's available index, as it stands; with {@link position}, says how much was available at some moment. */
  get availableIndex(): number {
    return this.#ready ? this.#avail.getUint16(2, true) : 0;
  }

  /** The available index of the next request. */
  get position(): number {
    return this.#nextAvail;
  }

  /**
   * The next request, or `undefined`. The chain object is the queue's: it holds until the next `pop`, or, for a device
   * that answers later, until {@link push} if it was {@link keep kept}.
   */
  pop(): DescriptorChain | undefined {
    if (!this.#ready || !this.#running) return undefined;
    const available = (this.#avail.getUint16(2, true) - this.#nextAvail) & 0xffff;
    if (available === 0) {
      this.#wantNotification();
      return undefined;
    }
    if (available > this.#size) return this.#fail(`${available} entries available of ${this.#size}`);
    const head = this.#avail.getUint16(4 + 2 * (this.#nextAvail & (this.#size - 1)), true);
    this.#nextAvail = (this.#nextAvail + 1) & 0xffff;
    const chain = this.#chain;
    chain.begin(head, this.#epoch);
    return this.#walk(chain, head) ? chain : undefined;
  }

  /** Leaves the chain to the caller, who gives it back with {@link push} some time later. */
  keep(chain: DescriptorChain): void {
    if (chain === this.#chain) this.#chain = new DescriptorChain(this.#ram);
  }

  /** Whether the chain is still the driver's to get back: not so after a reset. Its memory may be touched only while it is. */
  owns(chain: DescriptorChain): boolean {
    return this.#ready && this.#running && chain.epoch === this.#epoch;
  }

  /**
   * Gives a request back through the used ring. One that outlived its queue is dropped.
   * @param written bytes that the device wrote, from the first writable one on
   */
  push(chain: DescriptorChain, written: number): void {
    if (!this.owns(chain)) return;
    const entry = 4 + 8 * (this.#nextUsed & (this.#size - 1));
    this.#used.setUint32(entry, chain.head, true);
    this.#used.setUint32(entry + 4, written >>> 0, true);
    this.#nextUsed = (this.#nextUsed + 1) & 0xffff;
    this.#used.setUint16(2, this.#nextUsed, true);
    this.#touched = true;
  }

  /** Ends a pass: interrupts the driver if there is news and it wants to hear of it (§2.7.7, §2.7.10). */
  signal(): void {
    if (!this.#ready) return;
    if (this.#touched) {
      this.#touched = false;
      this.#ram.written(this.#deviceAddress, 6 + 8 * this.#size);
    }
    if (!this.#running) return;
    const before = this.#signalled;
    const news = (this.#nextUsed - before) & 0xffff;
    if (news === 0) return;
    this.#signalled = this.#nextUsed;
    if (this.#eventIdx) {
      // The driver asked for an interrupt when entry used_event is used: has this pass gone over it?
      const usedEvent = this.#avail.getUint16(4 + 2 * this.#size, true);
      if (((this.#nextUsed - usedEvent - 1) & 0xffff) >= news) return;
    } else if ((this.#avail.getUint16(0, true) & AVAIL_F_NO_INTERRUPT) !== 0) {
      return;
    }
    this.#host.usedBufferNotification();
  }

  /** A request that the device's own rules cannot make sense of. */
  fail(reason: string): void {
    this.#fail(reason);
  }

  /** avail_event: the driver notifies when it makes the next entry available (§2.7.10). */
  #wantNotification(): void {
    if (!this.#eventIdx) return;
    const field = 4 + 8 * this.#size;
    if (this.#used.getUint16(field, true) === this.#nextAvail) return;
    this.#used.setUint16(field, this.#nextAvail, true);
    this.#touched = true;
  }

  #walk(chain: DescriptorChain, head: number): boolean {
    let table = this.#desc;
    let entries = this.#size;
    let index = head;
    let inIndirect = false;
    // A chain with more descriptors than its table has entries goes round in a circle.
    for (let left = entries; left > 0; left--) {
      if (index >= entries) return this.#bad(head, `descriptor ${index} of a table of ${entries}`);
      const at = index * DESC_SIZE;
      const length = table.getUint32(at + 8, true);
      const flags = table.getUint16(at + 12, true);
      // From 2^53 on it loses bits, and lies in no RAM all the same.
      const address = table.getUint32(at + 4, true) * 2 ** 32 + table.getUint32(at, true);

      if ((flags & DESC_F_INDIRECT) !== 0) {
        if (!this.#indirect) return this.#bad(head, 'an indirect descriptor, which was not negotiated');
        if (inIndirect) return this.#bad(head, 'an indirect descriptor in an indirect table');
        if ((flags & DESC_F_NEXT) !== 0) return this.#bad(head, 'an indirect descriptor that goes on');
        if (length === 0 || length % DESC_SIZE !== 0 || length > MAX_INDIRECT * DESC_SIZE) {
          return this.#bad(head, `an indirect table of ${length} bytes`);
        }
        const bytes = this.#ram.view(address, length);
        if (bytes === undefined) return this.#bad(head, 'an indirect table that does not lie in RAM');
        table = dataView(bytes);
        entries = length / DESC_SIZE;
        index = 0;
        inIndirect = true;
        left = entries + 1;
        continue;
      }

      const wrong = chain.add(address, length, (flags & DESC_F_WRITE) !== 0);
      if (wrong !== undefined) return this.#bad(head, `descriptor ${index}: ${wrong}`);
      if ((flags & DESC_F_NEXT) === 0) return true;
      index = table.getUint16(at + 14, true);
    }
    return this.#bad(head, 'a loop');
  }

  #bad(head: number, reason: string): false {
    this.#fail(`chain ${head}: ${reason}`);
    return false;
  }

  #fail(reason: string): undefined {
    this.#chain.end();
    this.#host.needsReset(`queue ${this.index}: ${reason}`);
    return undefined;
  }
}

function dataView(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
