import type { ExitReason, SystemEvent, Vcpu, Vm } from '../kvm/index.js';
import type { Schedule, VmClock, VmTimers } from './devices/device.js';
import type { MmioBus } from './mmio-bus.js';
import type { PrintRegister } from './print-burst.js';
import type { Scheduler } from './scheduler.js';

/** What the run loop reports to the machine's owner. */
export interface RunLoopEvents {
  /** The first `run()` has come back: the guest has been entered. */
  entered(): void;
  /** The guest ended itself (PSCI SYSTEM_OFF, SYSTEM_RESET, or a crash event). The loop has stopped. */
  systemEvent(type: typeof SystemEvent.SHUTDOWN | typeof SystemEvent.RESET | typeof SystemEvent.CRASH): void;
  /** The VM cannot go on. The loop has stopped. */
  failed(error: Error): void;
  /**
   * The moment to hand out what the guest wrote: the loop is about to give the thread back. With the virtual clock it comes
   * between two slices instead, so that what the host answers at once reaches the guest at the same instruction every time.
   */
  handOut(): void;
}

/** Exits counted by reason. */
export type ExitCounts = Record<ExitReason, number>;

/** No exit of any reason. */
export function noExits(): ExitCounts {
  return {
    hypercall: 0,
    debug: 0,
    mmio: 0,
    fail_entry: 0,
    intr: 0,
    internal_error: 0,
    system_event: 0,
    arm_nisv: 0,
    dirty_ring_full: 0,
    memory_fault: 0,
    arm_sea: 0,
    arm_ldst64b: 0,
  };
}

/** What a run loop is made of. */
export interface RunLoopInit {
  readonly vm: Vm;
  readonly vcpus: readonly Vcpu[];
  readonly bus: MmioBus;
  readonly scheduler: Scheduler;
  readonly events: RunLoopEvents;
  readonly clock: VmClock;
  readonly virtualClock: boolean;
}

/** Runs the vCPUs of a VM. Where a guest's time goes is the backend's affair; where the event loop's goes is this one's. */
export interface RunLoop extends VmTimers {
  readonly exits: Readonly<ExitCounts>;
  /** Times the loop had the thread. */
  readonly turns: number;
  /** Milliseconds it slept because every vCPU was idle, where it knows. */
  readonly idleMs: number;
  /** Starts or resumes. */
  start(): void;
  /** When it returns, no vCPU is in the guest, or, where the call came from inside a `run()`, none will enter it again. */
  stop(): void;
  /** Whether an exit or a `run()` is on the stack, so that the VM must not be closed yet. */
  readonly inRun: boolean;
  /** Runs a task soon, at the next turn of the event loop at the latest: what devices put off. */
  readonly defer: Schedule;
  /** As {@link defer}, but output that a guest makes much of may be gathered for some milliseconds. */
  readonly gather: Schedule;
  /** Lets the guest's stores to a register be told together, where that is faster. */
  coalesce(register: PrintRegister): void;
  /** Says that something other than the guest is about to change what that register's status reads. */
  unsettle(): void;
  /** Stops for good, forgets the VM, and drops what was put off. */
  close(): void;
}
