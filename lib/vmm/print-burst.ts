import { Cap, KvmError, type Vcpu, type Vm } from '../kvm/index.js';
import type { Schedule } from './devices/device.js';
import type { MmioBus } from './mmio-bus.js';
import type { Cancel, Scheduler } from './scheduler.js';

/** How long output is gathered while there is much of it: a screen shows a picture every 16 ms. */
const TICK_MS = 4;
/** So many pieces of output in so short a time are of a guest that prints; fewer are the echo of what somebody types. */
const BURST = { PIECES: 4, MS: 16 } as const;
/** Ticks without output after which it prints no more: between two lines a guest does something else. */
const LINGER = 16;

/** The register that a guest prints through, a character a store. */
export interface PrintRegister {
  /** Guest-physical. */
  readonly address: number;
  /** Bytes. */
  readonly size: number;
  /** Whether the guest waits for nothing that a store to it brings about. */
  readonly mayWait: () => boolean;
  /** What it reads first, to know that there is room. */
  readonly status: {
    /** Guest-physical. */
    readonly address: number;
    /** What it reads while stores wait; `undefined` where they may change it. */
    readonly value: () => number | undefined;
  };
}

/** What a {@link PrintBurst} is made of. */
export interface PrintBurstInit {
  readonly vm: Vm;
  readonly vcpus: readonly Vcpu[];
  readonly bus: MmioBus;
  readonly scheduler: Scheduler;
  /** Runs a task at the next turn of the event loop. */
  readonly defer: Schedule;
  /** Runs the tasks now, and hands out what they made. */
  readonly run: (tasks: readonly (() => void)[]) => void;
}

/**
 * A guest that prints on a serial port exits for each character, and the host would write each by itself. While it prints
 * much, output is gathered for some milliseconds, and the kernel keeps the characters in its ring of coalesced MMIO, so
 * that the guest goes on (`Documentation/virt/kvm/api.rst` 4.116). What is in the ring came before every exit: each begins
 * with {@link drain}. Before each character a guest reads whether there is room: while there is, the vCPU's own thread says so.
 */
export class PrintBurst {
  readonly #init: PrintBurstInit;
  #register: PrintRegister | undefined;
  #coalescing = false;
  /** What the vCPUs answer reads of the status register with. */
  #status: number | undefined;
  /** Cancels the next tick: it is there while the guest prints much. */
  #tick: Cancel | undefined;
  readonly #gathered: (() => void)[] = [];
  #idleTicks = 0;
  #since = Number.NEGATIVE_INFINITY;
  #pieces = 0;

  constructor(init: PrintBurstInit) {
    this.#init = init;
  }

  /** What the guest prints through; nothing is coalesced on a KVM that can't. */
  set register(register: PrintRegister) {
    if (this.#init.vm.checkExtension(Cap.COALESCED_MMIO) > 0) this.#register = register;
  }

  /** Runs a task soon: at the next turn of the event loop, or, while the guest prints much, at the next tick. */
  readonly gather: Schedule = (task) => {
    if (this.#tick === undefined && !this.#isMuch()) {
      this.#init.defer(task);
      return;
    }
    this.#gathered.push(task);
    this.#idleTicks = 0;
    if (this.#tick === undefined) this.#goOn();
  };

  /** Gives the devices what the ring holds. */
  drain(): void {
    if (!this.#coalescing) return;
    for (const { physAddr, len, data } of this.#init.vm.takeCoalescedMmio()) {
      this.#init.bus.handle({ reason: 'mmio', physAddr, len, isWrite: true, data });
    }
  }

  /**
   * While stores wait, the vCPUs' threads answer reads of the status register. To be called when an exit is answered, and
   * whatever else may have changed what it reads.
   */
  settle(): void {
    this.#answer(this.#coalescing ? this.#register?.status.value() : undefined);
  }

  /** Something is about to change what the status register reads. */
  unsettle(): void {
    this.#answer(undefined);
  }

  /** The vCPUs are out of the guest: nothing is kept back. */
  end(): void {
    this.unsettle();
    this.drain();
    this.#tick?.();
    this.#tick = undefined;
    this.#coalesce(false);
    for (const task of this.#gathered.splice(0)) this.#init.defer(task);
  }

  readonly #onTick = (): void => {
    this.drain();
    this.#tick = undefined;
    const tasks = this.#gathered.splice(0);
    if (++this.#idleTicks <= LINGER) this.#goOn();
    else this.#coalesce(false);
    this.#init.run(tasks);
  };

  #answer(value: number | undefined): void {
    if (value === this.#status) return;
    this.#status = value;
    for (const vcpu of this.#init.vcpus) vcpu.answerReads?.(this.#register!.status.address, value);
  }

  #goOn(): void {
    this.#tick = this.#init.scheduler.after(TICK_MS, this.#onTick);
    this.#coalesce(this.#register?.mayWait() === true);
  }

  #isMuch(): boolean {
    const now = this.#init.scheduler.now();
    if (now - this.#since > BURST.MS) {
      this.#since = now;
      this.#pieces = 0;
    }
    return ++this.#pieces >= BURST.PIECES;
  }

  #coalesce(on: boolean): void {
    if (on === this.#coalescing) return;
    const { vm } = this.#init;
    const { address, size } = this.#register!;
    try {
      if (on) vm.registerCoalescedMmio(address, size);
      else vm.unregisterCoalescedMmio(address, size);
    } catch (error) {
      // Without it each store is an exit; and a VM that takes no more calls has no more stores.
      if (!KvmError.is(error)) throw error;
      if (on) return;
    }
    // What came until now; from here on they are exits.
    if (!on) this.drain();
    this.#coalescing = on;
  }
}
