import type { IrqLine, MmioDevice, VmClock, VmTimers } from './device.js';
import { idRegister, lane, PRIMECELL_SIZE, primecellId } from './primecell.js';

/** Register offsets (PrimeCell RTC PL031 TRM DDI 0224C, table 3-1). */
const Reg = {
  DR: 0x00,
  MR: 0x04,
  LR: 0x08,
  CR: 0x0c,
  IMSC: 0x10,
  RIS: 0x14,
  MIS: 0x18,
  ICR: 0x1c,
} as const;

/** The revision is r1, as QEMU's board and kvmtool have it. */
const ID = primecellId(0x031, 1);

/** The longest timer set at once, in milliseconds: hosts' timers hold 31 bits. */
const LONGEST_TIMER = 2 ** 30;

/** What a {@link Pl031} is connected to. */
export interface Pl031Options {
  /** RTCINTR, level-triggered. */
  readonly irq: IrqLine;
  readonly clock: VmClock;
  readonly timers: VmTimers;
}

/**
 * The Arm PrimeCell real-time clock PL031 (TRM DDI 0224C). It counts seconds since 1970 by the VM's clock and is running
 * from power-on, as an RTC on a battery is.
 */
export class Pl031 implements MmioDevice {
  readonly name = 'pl031';
  readonly size = PRIMECELL_SIZE;

  readonly #options: Pl031Options;
  /** What the guest's LR writes made of the clock: seconds to add, modulo 2^32. */
  #offset = 0;
  #match = 0;
  #load = 0;
  #imsc = 0;
  #ris = 0;
  #level = false;
  #cancel: (() => void) | undefined;

  constructor(options: Pl031Options) {
    this.#options = options;
  }

  read(offset: number, len: number): number {
    return lane(this.#readRegister(offset & ~3), offset, len);
  }

  write(offset: number, _len: number, value: number): void {
    switch (offset) {
      case Reg.MR:
        this.#match = value;
        this.#arm();
        break;
      case Reg.LR:
        this.#load = value;
        this.#offset = (value - wallSeconds(this.#options.clock)) >>> 0;
        this.#arm();
        break;
      // CR can only start the counter, and it runs already.
      case Reg.IMSC:
        this.#imsc = value & 1;
        this.#updateIrq();
        break;
      case Reg.ICR:
        this.#ris &= ~value;
        this.#updateIrq();
        break;
    }
  }

  reset(): void {
    this.#cancelTimer();
    this.#offset = 0;
    this.#match = 0;
    this.#load = 0;
    this.#imsc = 0;
    this.#ris = 0;
    this.#updateIrq();
  }

  close(): void {
    this.#cancelTimer();
  }

  #readRegister(register: number): number {
    switch (register) {
      case Reg.DR:
        return this.#counter();
      case Reg.MR:
        return this.#match;
      case Reg.LR:
        return this.#load;
      case Reg.CR:
        return 1;
      case Reg.IMSC:
        return this.#imsc;
      case Reg.RIS:
        return this.#ris;
      case Reg.MIS:
        return this.#ris & this.#imsc;
      default:
        return idRegister(ID, register);
    }
  }

  #counter(): number {
    return (wallSeconds(this.#options.clock) + this.#offset) >>> 0;
  }

  /** Sets the alarm for when the counter reaches MR: at once, or after up to 2^32 - 1 seconds. */
  #arm(): void {
    this.#cancelTimer();
    const seconds = (this.#match - this.#counter()) >>> 0;
    if (seconds === 0) {
      this.#ris = 1;
      this.#updateIrq();
      return;
    }
    const wall = this.#options.clock.wallMs();
    this.#wait(Math.floor(wall / 1000) * 1000 + seconds * 1000);
  }

  #wait(deadlineMs: number): void {
    const remaining = Math.ceil(deadlineMs - this.#options.clock.wallMs());
    this.#cancel = this.#options.timers.setTimer(Math.min(Math.max(remaining, 0), LONGEST_TIMER), () => {
      this.#cancel = undefined;
      if (this.#options.clock.wallMs() < deadlineMs) {
        this.#wait(deadlineMs);
      } else {
        this.#ris = 1;
        this.#updateIrq();
      }
    });
  }

  #cancelTimer(): void {
    this.#cancel?.();
    this.#cancel = undefined;
  }

  #updateIrq(): void {
    const level = (this.#ris & this.#imsc) !== 0;
    if (level === this.#level) return;
    this.#level = level;
    this.#options.irq.setLevel(level);
  }
}

/** Seconds since 1970, modulo 2^32. */
function wallSeconds(clock: VmClock): number {
  return Math.floor(clock.wallMs() / 1000) >>> 0;
}
