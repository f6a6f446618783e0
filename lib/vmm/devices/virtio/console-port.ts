import type { Accepted, Schedule } from '../device.js';
import { OutputBuffer } from '../output-buffer.js';
import type { DescriptorChain } from './chain.js';
import type { Virtqueue } from './queue.js';

/** Bytes of guest output gathered for one delivery. */
const OUTPUT_CAPACITY = 65536;
/** Full buffers delivered at once before the guest must wait for the event loop: 1 MiB. */
const OUTPUT_BURST = 16;

/** A close mark of no queue: the guest itself is gone. */
const GONE = -1;

/** What a port needs of its console. */
export interface ConsolePortHost {
  readonly schedule: Schedule;
  /** The host end of the port was opened or closed: the guest is told. */
  hostOpenChanged(port: ConsolePort): void;
}

/**
 * One port of a virtio-console: a pair of byte streams between host and guest. In the guest it is `/dev/hvc0` (a console)
 * or `/dev/vport<N>p<id>`.
 *
 * The handlers are the owner's to set. Without `onData`, what the guest writes is dropped.
 */
export class ConsolePort {
  readonly id: number;
  readonly name: string;
  /** Whether the guest treats it as a terminal (an `hvc` device) instead of a plain port. */
  readonly isConsole: boolean;

  /** What the guest wrote; the array is the receiver's to keep. `false` holds the guest back until {@link resume}. */
  onData: ((bytes: Uint8Array) => Accepted) | undefined;
  /** A process in the guest opened the port (for a console: its driver is there). */
  onOpen: (() => void) | undefined;
  /** The guest closed the port, and everything it wrote before has been through `onData`; also when the guest is reset. */
  onClose: (() => void) | undefined;
  /** After a {@link write} that took less than it was given: the guest takes more now. */
  onWritable: (() => void) | undefined;

  readonly #host: ConsolePortHost;
  readonly #out: OutputBuffer;
  #rx: Virtqueue | undefined;
  #tx: Virtqueue | undefined;
  #hostOpen = true;
  /** The guest's word: it has the port open. */
  #guestOpen = false;
  /** What `onOpen` and `onClose` were last told. They lag behind while output waits. */
  #reportedOpen = false;
  /** Where in the transmit queue the guest's last close came: what it wrote before is still to be delivered. */
  #closeAt: number | undefined;
  #refused = false;
  #draining = false;
  /** A request whose bytes did not all fit. */
  #partial: DescriptorChain | undefined;

  constructor(id: number, name: string, isConsole: boolean, host: ConsolePortHost) {
    this.id = id;
    this.name = name;
    this.isConsole = isConsole;
    this.#host = host;
    this.#out = new OutputBuffer({
      capacity: OUTPUT_CAPACITY,
      burst: OUTPUT_BURST,
      schedule: host.schedule,
      deliver: (bytes) => this.onData?.(bytes),
      onRoom: () => this.drain(),
    });
  }

  /** Whether the host end is open. It is from the start. */
  get hostOpen(): boolean {
    return this.#hostOpen;
  }

  /** Whether the guest end is open. */
  get guestOpen(): boolean {
    return this.#guestOpen;
  }

  /**
   * Gives bytes to the guest.
   * @returns how many it took: 0 while the guest has the port closed or its buffers are full; `onWritable` says when to go on
   * @throws Error after {@link close}
   */
  write(bytes: Uint8Array): number {
    if (!this.#hostOpen) throw new Error(`console port ${this.name}: write after close; open() it again first`);
    let done = 0;
    const queue = this.#guestOpen ? this.#rx : undefined;
    while (queue !== undefined && done < bytes.length) {
      const chain = queue.pop();
      if (chain === undefined) break;
      if (chain.writableBytes === 0) {
        queue.fail(`chain ${chain.head}: a receive buffer without room`);
        break;
      }
      const count = chain.write(done === 0 ? bytes : bytes.subarray(done));
      queue.push(chain, count);
      done += count;
    }
    queue?.signal();
    if (done < bytes.length) this.#refused = true;
    return done;
  }

  /** Takes the guest's bytes again, after an `onData` that answered `false`. */
  resume(): void {
    this.#out.resume();
    this.drain();
  }

  /** Hands out what waits for the scheduled flush. */
  flush(): void {
    this.#out.flush();
    this.drain();
  }

  /** Closes the host end: the guest reads end of file behind what was written, and what it writes is dropped. */
  close(): void {
    if (!this.#hostOpen) return;
    this.#hostOpen = false;
    this.#refused = false;
    this.#host.hostOpenChanged(this);
    this.drain();
  }

  /** Opens the host end again. */
  open(): void {
    if (this.#hostOpen) return;
    this.#hostOpen = true;
    this.#host.hostOpenChanged(this);
  }

  /** The device's: the driver is there, with these queues. */
  connect(rx: Virtqueue, tx: Virtqueue): void {
    this.#rx = rx;
    this.#tx = tx;
  }

  /** The device's: the guest is gone. What it wrote before still goes out. */
  disconnect(): void {
    this.#rx = undefined;
    this.#tx = undefined;
    this.#partial = undefined;
    this.#guestOpen = false;
    if (this.#reportedOpen) this.#closeAt = GONE;
    this.drain();
  }

  /** The device's: the guest opened or closed its end. */
  setGuestOpen(open: boolean): void {
    if (open === this.#guestOpen) return;
    this.#guestOpen = open;
    if (open) {
      this.#reportOpen();
      this.offerRoom();
    } else {
      // A second close, while an earlier one still waits for its output, moves the mark.
      this.#closeAt = this.#tx?.ready === true ? this.#tx.availableIndex : GONE;
      this.drain();
    }
  }

  /** The device's: one byte of emergency output (virtio 1.2 §5.3.6.2). */
  emergency(byte: number): void {
    this.#out.put(byte);
  }

  /** The device's: the driver has given receive buffers. */
  offerRoom(): void {
    if (!this.#refused || !this.#guestOpen) return;
    this.#refused = false;
    this.onWritable?.();
  }

  /** The device's: takes what the guest wrote, as far as there is room for it. */
  drain(): void {
    // A handler that resumes or closes the port from inside its call finds the loop below already at it.
    if (this.#draining) return;
    this.#draining = true;
    try {
      do this.#pump();
      while (this.#reportClose());
    } finally {
      this.#draining = false;
    }
  }

  #pump(): void {
    const queue = this.#tx;
    if (queue === undefined) return;
    while (queue === this.#tx) {
      const chain = this.#nextOutput(queue);
      if (chain === undefined || !this.#take(chain)) break;
      this.#partial = undefined;
      queue.push(chain, 0);
    }
    queue.signal();
  }

  #nextOutput(queue: Virtqueue): DescriptorChain | undefined {
    if (this.#partial !== undefined) {
      if (queue.owns(this.#partial)) return this.#partial;
      this.#partial = undefined;
    }
    // What follows a close belongs to the next opening: it waits until the close was told.
    if (this.#closeAt === GONE || this.#closeAt === queue.position) return undefined;
    this.#partial = queue.pop();
    return this.#partial;
  }

  /** @returns whether all of it is taken */
  #take(chain: DescriptorChain): boolean {
    for (let bytes = chain.peek(); bytes !== undefined && this.#hostOpen; bytes = chain.peek()) {
      const count = this.#out.append(bytes);
      if (count > 0) chain.skip(count);
      if (count < bytes.length) return false;
    }
    return true;
  }

  #reportOpen(): void {
    if (this.#reportedOpen || this.#closeAt !== undefined) return;
    this.#reportedOpen = true;
    this.onOpen?.();
  }

  /**
   * Tells of a close once all that was written before it is delivered, and of the opening that may have come since.
   * @returns whether there may be more to take
   */
  #reportClose(): boolean {
    if (this.#closeAt === undefined || this.#partial !== undefined) return false;
    const queue = this.#tx;
    if (this.#closeAt !== GONE && queue?.ready === true && queue.position !== this.#closeAt) return false;
    this.#out.flush();
    if (!this.#out.empty) return false; // Held back: resume() comes here again.
    this.#closeAt = undefined;
    if (this.#reportedOpen) {
      this.#reportedOpen = false;
      this.onClose?.();
    }
    if (!this.#guestOpen) return false;
    this.#reportOpen();
    return true;
  }
}
