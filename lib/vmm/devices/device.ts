/** A device on the board's MMIO bus. Guests are hostile: any offset below `size`, any width, any value, in any order. */
export interface MmioDevice {
  /** The device-tree name, such as `'pl011'`. */
  readonly name: string;
  /** Bytes of address space. */
  readonly size: number;
  /**
   * @param offset from the device's base, below `size`
   * @param len 1, 2 or 4 bytes (the bus splits 8-byte accesses)
   * @returns the value as an unsigned number below 2^(8·len)
   */
  read(offset: number, len: number): number;
  /** @param value unsigned, below 2^(8·len) */
  write(offset: number, len: number, value: number): void;
  /** Back to the power-on state. */
  reset(): void;
  close?(): void;
}

/** An interrupt output. */
export interface IrqLine {
  /** A level-triggered line's level. */
  setLevel(level: boolean): void;
  /** One edge, for an edge-triggered line. */
  pulse(): void;
}

/**
 * What a device may do to guest memory. Every method checks the whole range and touches nothing outside RAM.
 * Addresses are guest-physical.
 */
export interface GuestRam {
  /** A view of `length` bytes at `addr`, or `undefined` where the range is not wholly inside one RAM region. Call {@link written} after writing through it. */
  view(addr: number, length: number): Uint8Array | undefined;
  /** Says that the device wrote there. */
  written(addr: number, length: number): void;
}

/** The clock that devices see: the host's, or the VM's virtual one. */
export interface VmClock {
  /** Milliseconds since some fixed point, never going back. */
  now(): number;
  /** Milliseconds since 1970, for the RTC. */
  wallMs(): number;
}

/**
 * Runs a task soon, outside the guest's current slice, in the order given. Devices use it to gather output into larger
 * pieces and to split long work, so that neither the guest nor the host's event loop waits.
 */
export type Schedule = (task: () => void) => void;

/** Timers on the VM's clock. */
export interface VmTimers {
  /**
   * Calls back once, `delayMs` milliseconds of the VM's clock from now, never inside this call.
   * @param delayMs 0 to 2^30
   * @returns cancels the timer; harmless once it has fired
   */
  setTimer(delayMs: number, callback: () => void): () => void;
}

/** What a receiver of a guest's bytes answers: `false` holds further bytes back until it resumes the sender. */
// biome-ignore lint/suspicious/noConfusingVoidType: a receiver that never holds back needs no return
export type Accepted = boolean | void;
