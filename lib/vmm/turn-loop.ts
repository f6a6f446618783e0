import { KvmError, type Vcpu, type VcpuExit, type Vm } from '../kvm/index.js';
import type { Schedule, VmClock } from './devices/device.js';
import { type ExitHandler, exitHandler } from './exit-handler.js';
import { type ExitCounts, noExits, type RunLoop, type RunLoopEvents, type RunLoopInit } from './run-loop.js';
import type { Cancel, Scheduler } from './scheduler.js';

/** How long the guest may have the thread before the event loop gets its turn, in milliseconds. */
const TURN_MS = 2;
/** How long one vCPU runs before the next has its turn, where there are several. */
const SLICE_MS = 1;
/**
 * The same behind a vCPU that gave up its slice to wait for what another does (WFE, YIELD): where that one has been sent an
 * interrupt, it has taken it by then.
 */
const WAITED_FOR_SLICE_MS = 0.1;
/** A slice was given up where less of it is over than this. */
const GIVEN_UP = 0.9;
/**
 * With the virtual clock: virtual milliseconds of a slice. Constant, because which vCPU runs when must not depend on how
 * fast the host is; short, because a virtual millisecond can take the host several.
 */
const VIRTUAL_SLICE_MS = 0.25;
/** Exits, and accesses that were none, after which the next vCPU has its turn, even when none of them was `intr`: a guest that polls a device must not keep the others out. */
const MAX_EXITS_IN_SLICE = 4096;
/** Timers of the platform overflow beyond 2^31 ms; sleeping shorter is harmless. */
const MAX_SLEEP_MS = 60_000;

interface Slot {
  readonly vcpu: Vcpu;
  /** It waits in WFI, or is powered off, until then (on the VM's clock): 0 runs now, Infinity waits for `onRunnable`. */
  idleUntil: number;
}

/**
 * Runs all vCPUs of a VM in turn on this thread, a few milliseconds at a time: for backends whose `run()` does not wait in
 * WFI but says for how long the vCPU is idle ({@link IntrExit.idleMs}).
 */
export class TurnLoop implements RunLoop {
  readonly exits: ExitCounts = noExits();
  turns = 0;
  idleMs = 0;

  readonly #vm: Vm;
  readonly #slots: readonly Slot[];
  readonly #handle: ExitHandler;
  readonly #scheduler: Scheduler;
  readonly #events: RunLoopEvents;
  readonly #virtual: boolean;
  #current = 0;
  #exitsInSlice = 0;
  #sliceEnd = 0;
  /** Somebody waits for the vCPU that has its turn. */
  #isWaitedFor = false;
  #cancel: Cancel | undefined;
  #running = false;
  #closed = false;
  #entered = false;
  #inTurn = false;
  /** The vCPU whose `run()` is on the stack. */
  #inRun: Vcpu | undefined;
  #sleptFrom = -1;
  readonly #clock: VmClock;
  readonly #deferred: (() => void)[] = [];
  #deferral: Cancel | undefined;
  readonly #timers = new Set<{ readonly at: number; readonly callback: () => void }>();

  constructor(init: RunLoopInit) {
    this.#vm = init.vm;
    this.#slots = init.vcpus.map((vcpu) => ({ vcpu, idleUntil: 0 }));
    this.#handle = exitHandler(init, (type) => {
      this.stop();
      init.events.systemEvent(type);
    });
    this.#scheduler = init.scheduler;
    this.#events = init.events;
    this.#clock = init.clock;
    this.#virtual = init.virtualClock;
    this.#vm.onRunnable((vcpu) => this.#onRunnable(vcpu));
    this.#vm.onMmio((vcpu, exit) => {
      this.exits.mmio++;
      init.bus.handle(exit);
      if (++this.#exitsInSlice >= MAX_EXITS_IN_SLICE) vcpu.kick();
    });
  }

  start(): void {
    if (this.#running) return;
    this.#running = true;
    this.#schedule();
  }

  stop(): void {
    this.#running = false;
    this.#inRun?.kick();
    this.#unschedule();
  }

  get inRun(): boolean {
    return this.#inRun !== undefined;
  }

  /** When the slice in progress has ended. With the virtual clock that moment, too, depends on the guest alone. */
  readonly defer = (task: () => void): void => {
    this.#deferred.push(task);
    if (!this.#inTurn) this.#deferral ??= this.#scheduler.soon(this.#runDeferral);
  };

  get gather(): Schedule {
    return this.defer;
  }

  /** A device is asked from within `run()`: there is no exit to be spared. */
  coalesce(): void {}

  unsettle(): void {}

  setTimer(delayMs: number, callback: () => void): () => void {
    if (!this.#virtual) return this.#scheduler.after(delayMs, callback);
    const timer = { at: this.#clock.now() + delayMs, callback };
    this.#timers.add(timer);
    // A guest that sleeps for ever on a clock that only it moves would never let the timer fire.
    if (!this.#inTurn && this.#running) this.#schedule();
    return () => void this.#timers.delete(timer);
  }

  close(): void {
    this.stop();
    this.#closed = true;
    this.#deferral?.();
    this.#deferred.length = 0;
    this.#timers.clear();
    if (this.#vm.closed) return;
    this.#vm.onRunnable(undefined);
    this.#vm.onMmio(undefined);
  }

  /**
   * The guest is between two slices: runs what was put off, and the timers of the virtual clock that are due (all of them
   * where nothing else would move it).
   * @returns whether there was anything to do
   */
  #settle(still: boolean): boolean {
    // What a task defers in turn waits for the next time: a device that splits long work must not hold the thread.
    const tasks = this.#deferred.splice(0);
    for (const task of tasks) task();
    let fired = false;
    if (this.#timers.size > 0) {
      const now = this.#clock.now();
      for (const timer of [...this.#timers]) {
        if (!still && timer.at > now) continue;
        this.#timers.delete(timer);
        timer.callback();
        fired = true;
      }
    }
    if (this.#virtual) this.#events.handOut();
    return fired || tasks.length > 0;
  }

  readonly #runDeferral = (): void => {
    this.#deferral = undefined;
    try {
      this.#settle(false);
      this.#events.handOut();
    } catch (error) {
      this.#fail(error);
      return;
    }
    if (this.#deferred.length > 0) this.#deferral = this.#scheduler.soon(this.#runDeferral);
  };

  #schedule(): void {
    if (this.#cancel !== undefined) {
      if (this.#sleptFrom < 0) return;
      this.#unschedule();
    }
    this.#cancel = this.#scheduler.soon(this.#turn);
  }

  #unschedule(): void {
    this.#cancel?.();
    this.#cancel = undefined;
    this.#wakeUp();
  }

  #wakeUp(): void {
    if (this.#sleptFrom < 0) return;
    this.idleMs += this.#scheduler.now() - this.#sleptFrom;
    this.#sleptFrom = -1;
  }

  #onRunnable(vcpu: Vcpu): void {
    const slot = this.#slots.find((s) => s.vcpu === vcpu);
    if (slot === undefined) return;
    slot.idleUntil = 0;
    if (this.#sleptFrom >= 0 && this.#running) this.#schedule();
  }

  readonly #turn = (): void => {
    this.#cancel = undefined;
    this.#wakeUp();
    if (!this.#running) return;
    this.turns++;
    this.#inTurn = true;
    try {
      this.#runTurn();
    } catch (error) {
      this.#fail(error);
    } finally {
      this.#inTurn = false;
    }
    if (!this.#virtual) this.#events.handOut();
    // handOut() may have stopped the loop, and a vCPU may have become runnable in it.
    if (this.#running && this.#cancel === undefined) this.#next();
  };

  /** Arranges for the next turn: soon where a vCPU has something to do, else when the first of them will. */
  #next(): void {
    let wake = Number.POSITIVE_INFINITY;
    for (const slot of this.#slots) wake = Math.min(wake, slot.idleUntil);
    const now = this.#scheduler.now();
    const sleep = wake - now;
    // Timers have a resolution of a millisecond; what is left below it goes by in turns of the event loop.
    if (sleep < 1 || this.#deferred.length > 0 || (this.#virtual && wake !== Number.POSITIVE_INFINITY)) {
      this.#schedule();
      return;
    }
    this.#sleptFrom = now;
    this.#cancel =
      wake === Number.POSITIVE_INFINITY
        ? this.#scheduler.hold()
        : this.#scheduler.after(Math.min(Math.floor(sleep), MAX_SLEEP_MS), this.#turn);
  }

  #runTurn(): void {
    const end = this.#scheduler.now() + TURN_MS;
    for (;;) {
      const now = this.#scheduler.now();
      if (now >= end) break;
      const slot = this.#pick(now);
      if (slot === undefined) {
        if (this.#settle(true)) continue;
        return;
      }
      let exit: VcpuExit;
      const quantum = this.#quantum(now, end);
      const started = this.#virtual ? this.#clock.now() : now;
      this.#inRun = slot.vcpu;
      try {
        exit = slot.vcpu.run(quantum);
      } finally {
        this.#inRun = undefined;
      }
      if (!this.#entered) {
        this.#entered = true;
        this.#events.entered();
      }
      this.exits[exit.reason]++;
      this.#exitsInSlice++;
      // A listener may have paused the VM, which loses no exit, or closed it.
      if (this.#closed) return;
      if (exit.reason === 'intr') this.#idle(slot, exit.idleMs);
      else this.#handle(slot.vcpu, exit);
      if (exit.reason === 'intr' || this.#exitsInSlice >= MAX_EXITS_IN_SLICE) {
        this.#isWaitedFor = this.#gaveUp(exit, started + quantum * GIVEN_UP);
        this.#sliceEnd = 0;
        this.#exitsInSlice = 0;
        this.#settle(false);
      }
      if (!this.#running) return;
    }
    // On the host's clock nothing is lost by handing things on now; on the virtual one it would depend on the host's speed.
    if (!this.#virtual) this.#settle(false);
  }

  /** The vCPU that has its turn: the one that ran last while its slice lasts, else the next that is not idle. */
  #pick(now: number): Slot | undefined {
    const slots = this.#slots;
    const current = slots[this.#current]!;
    if (current.idleUntil === 0) {
      if (slots.length === 1) return current;
      if (this.#virtual ? this.#sliceEnd > 0 : now < this.#sliceEnd) return current;
    }
    const time = this.#virtual ? this.#clock.now() : now;
    let first = -1;
    for (let i = 1; i <= slots.length; i++) {
      const at = (this.#current + i) % slots.length;
      const { idleUntil } = slots[at]!;
      if (idleUntil <= time) return this.#give(at, now);
      if (idleUntil !== Number.POSITIVE_INFINITY && (first < 0 || idleUntil < slots[first]!.idleUntil)) first = at;
    }
    // With the virtual clock nobody sleeps: running the vCPU whose timer is first lets the backend skip to it.
    return this.#virtual && first >= 0 ? this.#give(first, now) : undefined;
  }

  #give(at: number, now: number): Slot {
    const slot = this.#slots[at]!;
    slot.idleUntil = 0;
    this.#current = at;
    this.#exitsInSlice = 0;
    this.#sliceEnd = now + (this.#isWaitedFor ? WAITED_FOR_SLICE_MS : SLICE_MS);
    return slot;
  }

  /** Whether a vCPU that has something to do came back before its slice was over. */
  #gaveUp(exit: VcpuExit, before: number): boolean {
    if (this.#slots.length === 1 || exit.reason !== 'intr' || exit.idleMs !== undefined) return false;
    return (this.#virtual ? this.#clock : this.#scheduler).now() < before;
  }

  #quantum(now: number, end: number): number {
    if (this.#virtual) return this.#isWaitedFor ? WAITED_FOR_SLICE_MS : VIRTUAL_SLICE_MS;
    if (this.#slots.length === 1) return end - now;
    return Math.max(Math.min(this.#sliceEnd, end) - now, 0.01);
  }

  #idle(slot: Slot, idleMs: number | undefined): void {
    if (idleMs === undefined || idleMs <= 0) return;
    slot.idleUntil = (this.#virtual ? this.#clock : this.#scheduler).now() + idleMs;
  }

  #fail(error: unknown): void {
    this.stop();
    this.#events.failed(error instanceof Error || KvmError.is(error) ? error : new Error(String(error)));
  }
}
