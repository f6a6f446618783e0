import type { GuestRam, IrqLine, VmClock, VmTimers } from '#lib/vmm/devices/device.js';

/** Where the test guest's RAM is. */
export const RAM_BASE = 0x4000_0000;
const GUARD = 4096;
const GUARD_BYTE = 0xa5;
const UNTOUCHED_GUARD = new Uint8Array(GUARD).fill(GUARD_BYTE);
/** Bytes compared at once. */
const BLOCK = 1024;

/** Guest RAM between two guard areas, that notices what was written without being reported. */
export class TestRam implements GuestRam {
  readonly size: number;
  /** The guest's own view: what a test writes here counts as the guest's doing. */
  readonly bytes: Uint8Array;
  readonly data: DataView;
  /** Calls of {@link view}. */
  views = 0;
  readonly #all: Uint8Array;
  readonly #before: Uint8Array;
  readonly #reported: Uint8Array;

  constructor(size = 1 << 20) {
    this.size = size;
    this.#all = new Uint8Array(size + 2 * GUARD).fill(GUARD_BYTE);
    this.bytes = this.#all.subarray(GUARD, GUARD + size).fill(0);
    this.data = new DataView(this.#all.buffer, GUARD, size);
    this.#before = this.bytes.slice();
    this.#reported = new Uint8Array(size);
  }

  view(addr: number, length: number): Uint8Array | undefined {
    this.views++;
    const offset = addr - RAM_BASE;
    if (!Number.isSafeInteger(addr) || offset < 0 || offset + length > this.size) return undefined;
    return this.bytes.subarray(offset, offset + length);
  }

  written(addr: number, length: number): void {
    if (this.view(addr, length) === undefined) throw new Error(`written(${addr}, ${length}) outside RAM`);
    this.#reported.fill(1, addr - RAM_BASE, addr - RAM_BASE + length);
  }

  /** From here on, changes are the device's. */
  mark(): void {
    this.#before.set(this.bytes);
    this.#reported.fill(0);
  }

  /** Guest-physical addresses changed since {@link mark} that nobody reported. */
  unreported(): number[] {
    const addresses: number[] = [];
    for (let block = 0; block < this.size; block += BLOCK) {
      const end = Math.min(block + BLOCK, this.size);
      if (Buffer.compare(this.bytes.subarray(block, end), this.#before.subarray(block, end)) === 0) continue;
      for (let i = block; i < end; i++) {
        if (this.bytes[i] !== this.#before[i] && this.#reported[i] === 0) addresses.push(RAM_BASE + i);
      }
    }
    return addresses;
  }

  /** Whether nothing changed since {@link mark}. */
  get untouched(): boolean {
    return Buffer.compare(this.bytes, this.#before) === 0;
  }

  get guardIntact(): boolean {
    const ends = [this.#all.subarray(0, GUARD), this.#all.subarray(GUARD + this.size)];
    return ends.every((end) => Buffer.compare(end, UNTOUCHED_GUARD) === 0);
  }
}

/** An interrupt line that remembers. */
export class TestIrq implements IrqLine {
  level = false;
  pulses = 0;
  changes = 0;
  setLevel(level: boolean): void {
    this.level = level;
    this.changes++;
  }
  pulse(): void {
    this.pulses++;
  }
}

/** A scheduler that runs when told to. */
export class TestScheduler {
  #tasks: (() => void)[] = [];
  readonly schedule = (task: () => void): void => {
    this.#tasks.push(task);
  };
  get pending(): number {
    return this.#tasks.length;
  }
  /** One turn: what was scheduled before it. */
  turn(): void {
    for (const task of this.#tasks.splice(0)) task();
  }
}

/** A clock and its timers, moved by hand. */
export class TestTime implements VmClock, VmTimers {
  #now = 0;
  readonly #epoch: number;
  #timers: { at: number; callback: () => void }[] = [];
  constructor(epoch = 1_700_000_000_250) {
    this.#epoch = epoch;
  }
  now(): number {
    return this.#now;
  }
  wallMs(): number {
    return this.#epoch + this.#now;
  }
  get timers(): number {
    return this.#timers.length;
  }
  setTimer(delayMs: number, callback: () => void): () => void {
    if (!(delayMs >= 0 && delayMs <= 2 ** 30)) throw new RangeError(`delay ${delayMs}`);
    const timer = { at: this.#now + delayMs, callback };
    this.#timers.push(timer);
    return () => {
      this.#timers = this.#timers.filter((other) => other !== timer);
    };
  }
  advance(ms: number): void {
    const end = this.#now + ms;
    for (;;) {
      const next = this.#timers.filter((timer) => timer.at <= end).sort((a, b) => a.at - b.at)[0];
      if (next === undefined) break;
      this.#timers = this.#timers.filter((other) => other !== next);
      this.#now = Math.max(this.#now, next.at);
      next.callback();
    }
    this.#now = end;
  }
}

export const ascii = (text: string): Uint8Array => new TextEncoder().encode(text);
export const text = (...pieces: Uint8Array[]): string =>
  pieces.map((piece) => new TextDecoder().decode(piece)).join('');
