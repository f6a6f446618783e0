import type { Clock } from './clock.js';

/** Buckets of a logarithmic histogram (kernel: HALT_POLL_HIST_COUNT). */
const BUCKETS = 32;
/** The most that a vCPU polls where the VM does not say otherwise (kernel: `halt_poll_ns`, arm64's KVM_HALT_POLL_NS_DEFAULT). */
export const HALT_POLL_NS = 500_000;
/** The kernel's `halt_poll_ns_grow`, `halt_poll_ns_grow_start` and `halt_poll_ns_shrink`. */
const GROW = 2;
const GROW_START_NS = 10_000;
const SHRINK = 2;

/** KVM_STATS_TYPE_LOG_HIST of nanoseconds, with their sum. */
class Times {
  #sum = 0;
  readonly #buckets = Array<bigint>(BUCKETS).fill(0n);

  /** The bucket of `ns` is the number of its bits (kernel: kvm_stats_log_hist_update). */
  add(ns: number): void {
    this.#sum += ns;
    this.#buckets[Math.min(ns < 1 ? 0 : Math.floor(Math.log2(ns)) + 1, BUCKETS - 1)]!++;
  }

  get sum(): bigint {
    return BigInt(this.#sum);
  }

  get histogram(): readonly bigint[] {
    return [...this.#buckets];
  }
}

/**
 * A vCPU's waits in WFI, PSCI CPU_SUSPEND or the suspended state, and what is counted of them (kernel: kvm_vcpu_halt,
 * `Documentation/virt/kvm/halt-polling.rst`). At first it polls for a window of time, which follows from how long the waits before were;
 * then it blocks, and somebody else has its thread.
 */
export class Halt {
  readonly #clock: Clock;
  readonly #maxPollNs: () => number;
  #since: number | undefined;
  /** When it stopped polling; it blocks since. */
  #blockedSince: number | undefined;
  /** Nanoseconds (kernel: `vcpu->halt_poll_ns`). */
  #window = 0;
  /** Times that an interrupt ended its blocking. */
  wakeups = 0;
  successfulPolls = 0;
  failedPolls = 0;
  readonly pollSuccess = new Times();
  readonly pollFail = new Times();
  readonly waits = new Times();

  /** @param maxPollNs nanoseconds that a window has at most, as it is now: 32 bits, 0 to poll no more */
  constructor(clock: Clock, maxPollNs: () => number) {
    this.#clock = clock;
    this.#maxPollNs = maxPollNs;
  }

  get isOn(): boolean {
    return this.#since !== undefined;
  }

  get isBlocking(): boolean {
    return this.#blockedSince !== undefined;
  }

  begin(): void {
    if (this.#since !== undefined) return;
    this.#window = Math.min(this.#window, this.#maxPollNs());
    this.#since = this.#clock.nowNs();
  }

  /** Until when it may poll: 0 where it does not. */
  get pollUntilNs(): number {
    return this.#since === undefined || this.isBlocking || this.#window === 0 ? 0 : this.#since + this.#window;
  }

  /** It polls no longer, or never did. */
  block(): void {
    this.#blockedSince ??= this.#clock.nowNs();
  }

  /** An interrupt came. */
  wake(): void {
    if (this.isBlocking) this.wakeups++;
    this.end();
  }

  end(): void {
    const since = this.#since;
    if (since === undefined) return;
    const blockedSince = this.#blockedSince;
    this.#since = undefined;
    this.#blockedSince = undefined;
    const now = this.#clock.nowNs();
    // A poll has succeeded where the vCPU never blocked, whenever the interrupt came.
    const polledNs = this.#window === 0 ? 0 : Math.floor((blockedSince ?? now) - since);
    if (blockedSince !== undefined) this.waits.add(Math.floor(now - blockedSince));
    if (this.#window > 0) {
      if (blockedSince === undefined) {
        this.successfulPolls++;
        this.pollSuccess.add(polledNs);
      } else {
        this.failedPolls++;
        this.pollFail.add(polledNs);
      }
    }
    this.#adjust(blockedSince === undefined ? polledNs : Math.floor(now - since));
  }

  /** Longer windows for short waits, and shorter ones for those that no window would cover. @param ns how long it waited, all in all */
  #adjust(ns: number): void {
    const max = this.#maxPollNs();
    if (max === 0) this.#window = 0;
    else if (ns <= this.#window) return;
    else if (this.#window > 0 && ns > max) this.#window = shrunk(this.#window);
    else if (this.#window < max && ns < max) this.#window = grown(this.#window);
  }
}

/** An `unsigned int`, as in the kernel (grow_halt_poll_ns). */
const grown = (ns: number): number => Math.max((ns * GROW) >>> 0, GROW_START_NS);

/** shrink_halt_poll_ns. */
function shrunk(ns: number): number {
  const shorter = Math.floor(ns / SHRINK);
  return shorter < GROW_START_NS ? 0 : shorter;
}
