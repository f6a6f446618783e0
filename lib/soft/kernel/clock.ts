/**
 * The clock of a VM, in nanoseconds since its creation, and the system counter that follows it
 * (Arm ARM DDI 0487 D12.1).
 */

/** CNTFRQ_EL0: 62.5 MHz, what QEMU's boards use too, so that a tick is exactly 16 ns. */
export const COUNTER_HZ = 62_500_000;
/** Nanoseconds in a tick of the counter. */
export const NS_PER_TICK = 16;
/** What an instruction takes on the virtual clock. */
export const NS_PER_INSTRUCTION = 1;

/** Where the virtual clock's wall time starts: 2025-01-01T00:00:00Z, in milliseconds since 1970. */
const VIRTUAL_EPOCH_MS = 1_735_689_600_000;
/** A slice of the host clock, between two looks at it, in nanoseconds. */
const SLICE_NS = 250_000;
const MIN_BUDGET = 512;
const MAX_BUDGET = 50_000_000;
/** A first guess, in instructions a nanosecond: slow, so that the first slice is short. */
const FIRST_RATE = 0.02;
/** Shorter runs say too little about the rate on hosts with a coarse clock. */
const LEARN_FROM_NS = 100_000;

/** What counts the instructions of the processor that is running. */
export interface InstructionCounter {
  readonly instructions: number;
}

/** A VM's clock. All its vCPUs and timers see this one. */
export interface Clock {
  readonly kind: 'host' | 'virtual';
  /** Nanoseconds since the VM was made; never goes back. Exact inside a running guest, too. */
  nowNs(): number;
  /** Milliseconds since 1970. */
  wallMs(): number;
  /** Says which processor executes from now on, or that none does. */
  enter(cpu: InstructionCounter): void;
  leave(): void;
  /** Idle nanoseconds that were skipped, all in all. A quantum does not count them. */
  readonly skippedNs: number;
  /** Instructions to run to reach `untilNs`, or fewer where the clock should be looked at before: what stops cost comes off them. */
  budget(nowNs: number, untilNs: number): number;
  /** Whether the run that {@link budget} was asked for lasts much longer than it should: its guest is doing costly things. */
  isOverdue(): boolean;
  /** Says that so much of a budget took `ns`. */
  learn(instructions: number, ns: number): void;
  /** Skips idle time up to `ns`. `false` on a clock that can't. */
  skipTo(ns: number): boolean;
  /** Comes back at `ns`, and keeps the thread until then where time can't be skipped. */
  pollUntil(ns: number): void;
}

/** Follows the host's monotonic clock. */
export class HostClock implements Clock {
  readonly kind = 'host';
  readonly skippedNs = 0;
  readonly #origin = performance.now();
  #rate = FIRST_RATE;
  #sliceEnd = 0;
  #instructions = 0;
  #ns = 0;

  nowNs(): number {
    return (performance.now() - this.#origin) * 1e6;
  }

  wallMs(): number {
    return Date.now();
  }

  enter(): void {}

  leave(): void {}

  /** The instructions that a quarter of a millisecond, or less where `untilNs` is nearer, is expected to take: a timer is late by no more than that. */
  budget(nowNs: number, untilNs: number): number {
    const ns = Math.min(untilNs - nowNs, SLICE_NS);
    this.#sliceEnd = nowNs + SLICE_NS;
    return Math.min(Math.max(Math.ceil(ns * this.#rate), MIN_BUDGET), MAX_BUDGET);
  }

  isOverdue(): boolean {
    return this.nowNs() > this.#sliceEnd;
  }

  learn(instructions: number, ns: number): void {
    this.#instructions += instructions;
    this.#ns += ns;
    if (this.#ns < LEARN_FROM_NS) return;
    // Half old, half new: follows a guest that moves from cold to compiled code within a few slices.
    this.#rate = (this.#rate + this.#instructions / this.#ns) / 2;
    this.#instructions = 0;
    this.#ns = 0;
  }

  skipTo(): boolean {
    return false;
  }

  pollUntil(ns: number): void {
    while (this.nowNs() < ns);
  }
}

/**
 * Counts instructions, 1 ns each, over all vCPUs of the VM: time is what one processor that runs them in turn
 * would take. Idle time is skipped. Nothing here looks at the host, so two runs that give the vCPUs their turns in
 * the same order are the same run.
 */
export class VirtualClock implements Clock {
  readonly kind = 'virtual';
  /** Executed by all vCPUs in finished turns. */
  #spent = 0;
  #skipped = 0;
  #running: InstructionCounter | undefined;
  #since = 0;

  get skippedNs(): number {
    return this.#skipped;
  }

  nowNs(): number {
    return this.#spentNs() + this.#skipped;
  }

  wallMs(): number {
    return VIRTUAL_EPOCH_MS + this.nowNs() / 1e6;
  }

  enter(cpu: InstructionCounter): void {
    this.#running = cpu;
    this.#since = cpu.instructions;
  }

  leave(): void {
    this.#spent = this.#spentNs();
    this.#running = undefined;
  }

  #spentNs(): number {
    const running = this.#running;
    return running === undefined
      ? this.#spent
      : this.#spent + (running.instructions - this.#since) * NS_PER_INSTRUCTION;
  }

  budget(nowNs: number, untilNs: number): number {
    return Math.min(Math.max(Math.ceil((untilNs - nowNs) / NS_PER_INSTRUCTION), 1), MAX_BUDGET);
  }

  /** Never: where a run ends must not depend on the host. */
  isOverdue(): boolean {
    return false;
  }

  learn(): void {}

  skipTo(ns: number): boolean {
    const now = this.nowNs();
    if (ns > now) this.#skipped += ns - now;
    return true;
  }

  pollUntil(ns: number): void {
    this.skipTo(ns);
  }
}

/** The system counter at `ns`. */
export const ticksAt = (ns: number): number => Math.floor(ns / NS_PER_TICK);
