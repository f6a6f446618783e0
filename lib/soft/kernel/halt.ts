import type { Clock } from './clock.js';

/** Buckets of a logarithmic histogram (kernel: HALT_POLL_HIST_COUNT). */
const BUCKETS = 32;
/** A histogram in which there is nothing. */
export const EMPTY_HISTOGRAM: readonly bigint[] = Array<bigint>(BUCKETS).fill(0n);

/** The bucket of `ns` is the number of its bits (kernel: kvm_stats_log_hist_update). */
const bucketOf = (ns: number): number => Math.min(ns < 1 ? 0 : Math.floor(Math.log2(ns)) + 1, BUCKETS - 1);

/** A vCPU's waits in WFI or PSCI CPU_SUSPEND, and what is counted of them (kernel: kvm_vcpu_halt). */
export class Halt {
  readonly #clock: Clock;
  #since: number | undefined;
  /** Waits that an interrupt ended. */
  wakeups = 0;
  #waitedNs = 0;
  readonly #histogram = [...EMPTY_HISTOGRAM];

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get isOn(): boolean {
    return this.#since !== undefined;
  }

  begin(): void {
    this.#since ??= this.#clock.nowNs();
  }

  /** An interrupt came. */
  wake(): void {
    this.wakeups++;
    this.end();
  }

  end(): void {
    if (this.#since === undefined) return;
    const ns = Math.floor(this.#clock.nowNs() - this.#since);
    this.#since = undefined;
    this.#waitedNs += ns;
    this.#histogram[bucketOf(ns)]!++;
  }

  get waitedNs(): bigint {
    return BigInt(this.#waitedNs);
  }

  get histogram(): readonly bigint[] {
    return [...this.#histogram];
  }
}
