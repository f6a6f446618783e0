import type { VmTimers } from './device.js';
import type { Pl061 } from './pl061.js';

/** The GPIO line of the power key on the `virt` board. */
export const POWER_KEY_LINE = 3;

/** How a {@link PowerKey} is wired. */
export interface PowerKeyOptions {
  readonly gpio: Pl061;
  readonly timers: VmTimers;
  /** GPIO line, 0 to 7; {@link POWER_KEY_LINE} if not given. */
  readonly line?: number;
  /** How long a press lasts, in milliseconds of the VM's clock; 100 if not given. Linux's gpio-keys ignores less than 5. */
  readonly holdMs?: number;
}

/**
 * A power key on a GPIO line, active high: `gpio-keys` in the device tree, KEY_POWER (116) to the guest. It asks the
 * guest to shut down; whether anything listens is the guest's affair.
 */
export class PowerKey {
  readonly #options: PowerKeyOptions;
  readonly #line: number;
  readonly #holdMs: number;
  #cancel: (() => void) | undefined;

  constructor(options: PowerKeyOptions) {
    this.#options = options;
    this.#line = options.line ?? POWER_KEY_LINE;
    this.#holdMs = options.holdMs ?? 100;
  }

  /** Whether the key is down. */
  get pressed(): boolean {
    return this.#cancel !== undefined;
  }

  /** Presses the key and lets go of it after a moment. A press while it is down changes nothing. */
  press(): void {
    if (this.#cancel !== undefined) return;
    this.#cancel = this.#options.timers.setTimer(this.#holdMs, () => {
      this.#cancel = undefined;
      this.#options.gpio.setInput(this.#line, false);
    });
    this.#options.gpio.setInput(this.#line, true);
  }

  /** Lets go of the key. */
  close(): void {
    if (this.#cancel === undefined) return;
    this.#cancel();
    this.#cancel = undefined;
    this.#options.gpio.setInput(this.#line, false);
  }
}
