import type { BlockBackend } from './blk.js';

/** Bytes copied at the first write to any of them. Small enough for scattered writes, large enough for a small map. */
const PAGE_SIZE = 16384;

/** Stands for every page that reads as zeroes; never written to. */
const ZERO_PAGE = new Uint8Array(PAGE_SIZE);

/**
 * A writable disk over `base`: what is written stays in memory, and `base` is only read. Nothing is kept: the writes are
 * gone with the object. Takes as much memory as there are 16 KiB pages written to.
 */
export function overlay(base: BlockBackend): BlockBackend & { close(): void } {
  return new Overlay(base);
}

class Overlay implements BlockBackend {
  readonly capacity: number;
  readonly readOnly = false;
  readonly #base: BlockBackend;
  readonly #pages = new Map<number, Uint8Array>();

  constructor(base: BlockBackend) {
    this.#base = base;
    this.capacity = base.capacity;
  }

  read(offset: number, into: Uint8Array): void {
    this.#check(offset, into.length);
    let done = 0;
    while (done < into.length) {
      const at = offset + done;
      const number = Math.floor(at / PAGE_SIZE);
      const page = this.#pages.get(number);
      if (page !== undefined) {
        const start = at - number * PAGE_SIZE;
        const count = Math.min(PAGE_SIZE - start, into.length - done);
        into.set(page.subarray(start, start + count), done);
        done += count;
      } else {
        // The run of pages that are the base's is one read.
        let end = number + 1;
        while (end * PAGE_SIZE < offset + into.length && !this.#pages.has(end)) end++;
        const count = Math.min(end * PAGE_SIZE - at, into.length - done);
        this.#base.read(at, into.subarray(done, done + count));
        done += count;
      }
    }
  }

  write(offset: number, from: Uint8Array): void {
    this.#check(offset, from.length);
    let done = 0;
    while (done < from.length) {
      const number = Math.floor((offset + done) / PAGE_SIZE);
      const start = offset + done - number * PAGE_SIZE;
      const count = Math.min(PAGE_SIZE - start, from.length - done);
      this.#own(number, count < this.#pageLength(number)).set(from.subarray(done, done + count), start);
      done += count;
    }
  }

  /** Nothing to make durable. */
  flush(): void {}

  /** Discarded ranges read as zeroes, and whole pages take no memory. */
  discard(offset: number, length: number): void {
    this.writeZeroes(offset, length);
  }

  writeZeroes(offset: number, length: number): void {
    this.#check(offset, length);
    let done = 0;
    while (done < length) {
      const number = Math.floor((offset + done) / PAGE_SIZE);
      const start = offset + done - number * PAGE_SIZE;
      const count = Math.min(PAGE_SIZE - start, length - done);
      if (count === this.#pageLength(number)) this.#pages.set(number, ZERO_PAGE);
      else this.#own(number, true).fill(0, start, start + count);
      done += count;
    }
  }

  close(): void {
    this.#pages.clear();
    this.#base.close?.();
  }

  /** Bytes of page `number` that exist: the last one may be short. */
  #pageLength(number: number): number {
    return Math.min(PAGE_SIZE, this.capacity - number * PAGE_SIZE);
  }

  /** Page `number` as one of our own; with what is there now, where `keep` says that not all of it is written over. */
  #own(number: number, keep: boolean): Uint8Array {
    const found = this.#pages.get(number);
    if (found !== undefined && found !== ZERO_PAGE) return found;
    const page = new Uint8Array(PAGE_SIZE);
    // Before it is entered: a base that fails must not leave a page of zeroes behind.
    if (found === undefined && keep) this.#base.read(number * PAGE_SIZE, page.subarray(0, this.#pageLength(number)));
    this.#pages.set(number, page);
    return page;
  }

  #check(offset: number, length: number): void {
    if (!Number.isSafeInteger(offset) || offset < 0 || length < 0 || offset + length > this.capacity) {
      throw new RangeError(`overlay: ${length} bytes at ${offset} do not lie in the disk's ${this.capacity}`);
    }
  }
}
