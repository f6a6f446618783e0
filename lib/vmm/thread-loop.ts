import { KvmError, type Vcpu, type VcpuExit, type VcpuListener } from '../kvm/index.js';
import type { Schedule } from './devices/device.js';
import { type ExitHandler, exitHandler } from './exit-handler.js';
import { PrintBurst, type PrintRegister } from './print-burst.js';
import { type ExitCounts, noExits, type RunLoop, type RunLoopEvents, type RunLoopInit } from './run-loop.js';
import type { Cancel, Scheduler } from './scheduler.js';

/**
 * Lets each vCPU run on a thread of its own, and answers its exits here: for backends whose `run()` waits in WFI. A guest
 * that computes or idles takes nothing of this thread.
 */
export class ThreadLoop implements RunLoop {
  readonly exits: ExitCounts = noExits();
  turns = 0;
  /** The kernel knows: it is in the vCPUs' statistics. */
  readonly idleMs = 0;

  readonly #vcpus: readonly Vcpu[];
  readonly #scheduler: Scheduler;
  readonly #events: RunLoopEvents;
  readonly #handle: ExitHandler;
  readonly #burst: PrintBurst;
  readonly #deferred: (() => void)[] = [];
  #deferral: Cancel | undefined;
  #hold: Cancel | undefined;
  #running = false;
  #entered = false;
  #inExit = false;

  constructor(init: RunLoopInit) {
    this.#vcpus = init.vcpus;
    this.#scheduler = init.scheduler;
    this.#events = init.events;
    this.#handle = exitHandler(init, (type) => {
      this.stop();
      init.events.systemEvent(type);
    });
    const run = (tasks: readonly (() => void)[]): void => this.#runTasks(tasks);
    this.#burst = new PrintBurst({ ...init, defer: this.defer, run });
  }

  start(): void {
    if (this.#running) return;
    this.#running = true;
    this.#hold = this.#scheduler.hold();
    // Its first KVM_RUN comes back at once: that the kernel lets the guest be entered is known even of one that never exits.
    if (!this.#entered) this.#vcpus[0]!.kick();
    try {
      for (const vcpu of this.#vcpus) vcpu.start!(this.#listenerOf(vcpu));
    } catch (error) {
      this.#fail(error);
    }
  }

  stop(): void {
    if (!this.#running) return;
    this.#running = false;
    this.#hold?.();
    // All first: while one is waited for, the others leave the guest.
    for (const vcpu of this.#vcpus) vcpu.kick();
    for (const vcpu of this.#vcpus) vcpu.stop!();
    this.#burst.end();
  }

  get inRun(): boolean {
    return this.#inExit;
  }

  readonly defer = (task: () => void): void => {
    this.#deferred.push(task);
    this.#deferral ??= this.#scheduler.soon(this.#runDeferred);
  };

  get gather(): Schedule {
    return this.#burst.gather;
  }

  coalesce(register: PrintRegister): void {
    this.#burst.register = register;
  }

  unsettle(): void {
    this.#burst.unsettle();
  }

  setTimer(delayMs: number, callback: () => void): () => void {
    return this.#scheduler.after(delayMs, callback);
  }

  close(): void {
    this.stop();
    this.#deferral?.();
    this.#deferral = undefined;
    this.#deferred.length = 0;
  }

  readonly #runDeferred = (): void => {
    this.#deferral = undefined;
    // What a task defers in turn waits for the next time: a device that splits long work must not hold the thread.
    this.#runTasks(this.#deferred.splice(0));
  };

  #runTasks(tasks: readonly (() => void)[]): void {
    this.turns++;
    try {
      for (const task of tasks) task();
      this.#events.handOut();
      this.#burst.settle();
    } catch (error) {
      this.#fail(error);
    }
  }

  #listenerOf(vcpu: Vcpu): VcpuListener {
    return {
      exit: (exit) => this.#exit(vcpu, exit),
      failed: (error) => this.#fail(error),
    };
  }

  #exit(vcpu: Vcpu, exit: VcpuExit): void {
    this.exits[exit.reason]++;
    this.#inExit = true;
    try {
      if (!this.#entered) {
        this.#entered = true;
        this.#events.entered();
      }
      this.#burst.drain();
      if (exit.reason !== 'intr') this.#handle(vcpu, exit);
      if (this.#running) this.#burst.settle();
    } catch (error) {
      this.#fail(error);
    } finally {
      this.#inExit = false;
    }
  }

  #fail(error: unknown): void {
    this.stop();
    this.#events.failed(error instanceof Error || KvmError.is(error) ? error : new Error(String(error)));
  }
}
