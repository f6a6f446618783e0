import type { Accepted, Schedule } from './device.js';

/** How an {@link OutputBuffer} is set up. */
export interface OutputBufferOptions {
  /** Bytes gathered at most before they must go out. */
  readonly capacity: number;
  /** Where the bytes go, as a fresh array that the receiver may keep. */
  readonly deliver: (bytes: Uint8Array) => Accepted;
  readonly schedule: Schedule;
  /** Times a full buffer may be delivered at once, between two scheduled flushes. Bounds what one guest action costs the host. */
  readonly burst: number;
  /** Called when a buffer that refused bytes has room again. */
  readonly onRoom?: () => void;
}

/**
 * Gathers what a guest prints a byte or a line at a time. The bytes go out at the next scheduled flush, or at once when
 * the buffer is full. A receiver that answers `false` holds everything back until {@link resume}.
 */
export class OutputBuffer {
  readonly #options: OutputBufferOptions;
  readonly #bytes: Uint8Array;
  #length = 0;
  #scheduled = false;
  #held = false;
  #refused = false;
  #delivering = false;
  #resumed = false;
  #burst: number;

  constructor(options: OutputBufferOptions) {
    this.#options = options;
    this.#bytes = new Uint8Array(options.capacity);
    this.#burst = options.burst;
  }

  /** Whether nothing waits here. */
  get empty(): boolean {
    return this.#length === 0;
  }

  /** Whether the next byte would be refused. */
  get full(): boolean {
    return this.#length === this.#bytes.length && (this.#held || this.#burst === 0);
  }

  /** Whether the receiver takes bytes: then as many as the buffer holds will be taken, whatever it says next. */
  get flowing(): boolean {
    return !this.#held && this.#burst > 0;
  }

  /** Takes one byte. @returns whether it was taken */
  put(byte: number): boolean {
    if (this.#length === this.#bytes.length && !this.#spill()) return false;
    this.#bytes[this.#length++] = byte;
    this.#wake();
    return true;
  }

  /** Takes as many of `bytes` as there is room for, by copy. @returns how many */
  append(bytes: Uint8Array): number {
    let done = 0;
    while (done < bytes.length) {
      if (this.#length === this.#bytes.length && !this.#spill()) break;
      const count = Math.min(bytes.length - done, this.#bytes.length - this.#length);
      this.#bytes.set(done === 0 && count === bytes.length ? bytes : bytes.subarray(done, done + count), this.#length);
      this.#length += count;
      done += count;
    }
    this.#wake();
    return done;
  }

  /** Delivers what there is, unless the receiver holds back. */
  flush(): void {
    if (this.#held || this.#length === 0) return;
    const bytes = this.#bytes.slice(0, this.#length);
    this.#length = 0;
    // Held while the receiver runs: what it sets off here must not deliver out of order.
    this.#held = true;
    this.#delivering = true;
    this.#resumed = false;
    let answer: Accepted = true;
    try {
      answer = this.#options.deliver(bytes);
    } finally {
      this.#delivering = false;
      // A resume() from inside the receiver is the newer word.
      this.#held = answer === false && !this.#resumed;
    }
  }

  /** The receiver takes bytes again. */
  resume(): void {
    if (this.#delivering) {
      this.#resumed = true;
    } else if (this.#held) {
      this.#held = false;
      this.flush();
      this.#makeRoom();
    }
  }

  /** Delivers a full buffer on the spot, where that is allowed. */
  #spill(): boolean {
    if (!this.#held && this.#burst > 0) {
      this.#burst--;
      this.flush();
    }
    if (this.#length < this.#bytes.length) return true;
    this.#refused = true;
    return false;
  }

  #wake(): void {
    if (this.#scheduled || this.#length === 0) return;
    this.#scheduled = true;
    this.#options.schedule(this.#onSchedule);
  }

  readonly #onSchedule = (): void => {
    this.#scheduled = false;
    this.#burst = this.#options.burst;
    this.flush();
    this.#makeRoom();
  };

  #makeRoom(): void {
    if (!this.#refused || this.full) return;
    this.#refused = false;
    this.#options.onRoom?.();
  }
}
