import type { VmTimers } from './device.js';

/** KEY_POWER (Linux, `input-event-codes.h`). */
export const KEY_POWER = 116;

/** How a {@link PowerKey} is wired. */
export interface PowerKeyOptions {
  /** What the key pulls: called with `true` when it goes down, `false` when it comes up. */
  readonly wires: readonly ((down: boolean) => void)[];
  readonly timers: VmTimers;
  /** How long a press lasts, in milliseconds of the VM's clock; 100 if not given. Linux's gpio-keys ignores less than 5. */
  readonly holdMs?: number;
}

/**
 * The power key, KEY_POWER to the guest. It asks the guest to shut down; whether anything listens is the guest's affair.
 * The board has it twice: on a GPIO line (`gpio-keys` in the device tree), and on a virtio keyboard for kernels that have no
 * driver for the first, such as Debian's cloud kernel.
 */
export class PowerKey {
  readonly #options: PowerKeyOptions;
  readonly #holdMs: number;
  #cancel: (() => void) | undefined;

  constructor(options: PowerKeyOptions) {
    this.#options = options;
    this.#holdMs = options.holdMs ?? 100;
  }

  /** Whether the key is down. */
  get pressed(): boolean {
    return this.#cancel !== undefined;
  }

  /** Presses the key and lets go of it after a moment. A press while it is down changes nothing. */
  press(): void {
    if (this.#cancel !== undefined) return;
    this.#cancel = this.#options.timers.setTimer(this.#holdMs, () => this.#release());
    this.#pull(true);
  }

  /** Lets go of the key. */
  close(): void {
    if (this.#cancel === undefined) return;
    this.#cancel();
    this.#release();
  }

  #release(): void {
    this.#cancel = undefined;
    this.#pull(false);
  }

  #pull(down: boolean): void {
    for (const wire of this.#options.wires) wire(down);
  }
}
