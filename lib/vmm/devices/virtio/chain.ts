import type { GuestRam } from '../device.js';

/**
 * One request from the driver: a chain of descriptors (virtio 1.2 §2.7), checked and turned into views of guest memory,
 * first those that the device reads, then those that it writes. A cursor runs over each half.
 *
 * Objects are used again, so that a request costs one view a descriptor and nothing else.
 */
export class DescriptorChain {
  /** The head descriptor's index: the chain's name in the used ring. */
  head = 0;
  /** Bytes that the device may read, in all. */
  readableBytes = 0;
  /** Bytes that the device may write, in all. */
  writableBytes = 0;
  /** The life of the queue that the chain came from; a queue that was reset since takes it back no more. */
  epoch = 0;

  readonly #ram: GuestRam;
  readonly #views: Uint8Array[] = [];
  readonly #addresses: number[] = [];
  #count = 0;
  /** Index of the first writable segment. */
  #firstWritable = 0;
  #readSegment = 0;
  #readOffset = 0;
  #writeSegment = 0;
  #writeOffset = 0;

  constructor(ram: GuestRam) {
    this.#ram = ram;
  }

  /** Descriptors so far. */
  get count(): number {
    return this.#count;
  }

  /** Empties the chain for a new request. */
  begin(head: number, epoch: number): void {
    this.head = head;
    this.epoch = epoch;
    this.readableBytes = 0;
    this.writableBytes = 0;
    this.#count = 0;
    this.#firstWritable = 0;
    this.#readSegment = 0;
    this.#readOffset = 0;
    this.#writeSegment = 0;
    this.#writeOffset = 0;
  }

  /**
   * Adds a descriptor's buffer.
   * @returns what is wrong with it, or `undefined`
   */
  add(address: number, length: number, writable: boolean): string | undefined {
    if (length === 0) return 'its length is zero';
    if (!writable && this.writableBytes > 0) return 'it is readable, after a writable one';
    if (this.readableBytes + this.writableBytes + length > 2 ** 32) return 'the chain is longer than 2^32 bytes';
    const view = this.#ram.view(address, length);
    if (view === undefined) return 'it does not lie in RAM';
    if (writable) {
      this.writableBytes += length;
    } else {
      this.readableBytes += length;
      this.#firstWritable++;
      this.#writeSegment++;
    }
    this.#views[this.#count] = view;
    this.#addresses[this.#count++] = address;
    return undefined;
  }

  /** The readable bytes at the cursor that lie together, without moving it; `undefined` at the end. */
  peek(): Uint8Array | undefined {
    if (this.#readSegment >= this.#firstWritable) return undefined;
    const view = this.#views[this.#readSegment]!;
    return this.#readOffset === 0 ? view : view.subarray(this.#readOffset);
  }

  /** Moves the read cursor by `bytes`, at most what {@link peek} showed. */
  skip(bytes: number): void {
    this.#readOffset += bytes;
    if (this.#readOffset < this.#views[this.#readSegment]!.length) return;
    this.#readSegment++;
    this.#readOffset = 0;
  }

  /** Copies readable bytes into all of `into`, as far as they go. @returns how many */
  read(into: Uint8Array): number {
    let done = 0;
    while (done < into.length) {
      const from = this.peek();
      if (from === undefined) break;
      const count = Math.min(from.length, into.length - done);
      into.set(count === from.length ? from : from.subarray(0, count), done);
      this.skip(count);
      done += count;
    }
    return done;
  }

  /** The writable bytes at the cursor that lie together, `limit` at most, without moving it; `undefined` at the end. */
  room(limit: number): Uint8Array | undefined {
    if (this.#writeSegment >= this.#count || limit <= 0) return undefined;
    const view = this.#views[this.#writeSegment]!;
    const end = Math.min(view.length, this.#writeOffset + limit);
    return this.#writeOffset === 0 && end === view.length ? view : view.subarray(this.#writeOffset, end);
  }

  /** Says that `bytes` of what {@link room} showed were written, and moves the write cursor past them. */
  wrote(bytes: number): void {
    const segment = this.#writeSegment;
    this.#ram.written(this.#addresses[segment]! + this.#writeOffset, bytes);
    this.#writeOffset += bytes;
    if (this.#writeOffset < this.#views[segment]!.length) return;
    this.#writeSegment++;
    this.#writeOffset = 0;
  }

  /** Copies `from` into the writable bytes, as far as they go. @returns how many */
  write(from: Uint8Array): number {
    let done = 0;
    while (done < from.length) {
      const into = this.room(from.length - done);
      if (into === undefined) break;
      into.set(done === 0 && into.length === from.length ? from : from.subarray(done, done + into.length));
      done += into.length;
      this.wrote(into.length);
    }
    return done;
  }

  /** Writes the last writable byte, wherever the cursor is. The chain must have one. */
  writeLast(byte: number): void {
    const view = this.#views[this.#count - 1]!;
    const offset = view.length - 1;
    view[offset] = byte;
    this.#ram.written(this.#addresses[this.#count - 1]! + offset, 1);
  }

  /** Lets go of the views, so that an idle queue keeps no memory alive. */
  end(): void {
    this.#views.length = 0;
    this.#addresses.length = 0;
    this.#count = 0;
    this.#firstWritable = 0;
    this.#readSegment = 0;
    this.#writeSegment = 0;
  }
}
