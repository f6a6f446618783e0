import type { Halt } from './halt.js';
import type { SoftVcpu } from './vcpu.js';

/**
 * Halt polling: waits for the vCPU's own timer where it is due within the window, and within the run's quantum. What else could wake
 * the vCPU is done on this thread, so that polling would only put it off: where anybody else wants the thread, it ends before
 * it has begun (kernel: kvm_vcpu_can_poll).
 * @param end of the quantum, without the time that was skipped
 * @returns whether it has waited, and the timer is due
 */
export function pollForTimer(vcpu: SoftVcpu, halt: Halt, now: number, end: number): boolean {
  const { vm } = vcpu;
  const due = vcpu.timer.nextDeadlineNs(now);
  if (due > halt.pollUntilNs || (vm.clock.kind === 'host' && due > end)) return false;
  // A vCPU whose timer is due is not idle.
  vm.updateTimers();
  if (!vm.othersIdle(vcpu) || vm.nextDeadlineNs(now) < due) return false;
  vm.clock.pollUntil(due);
  vm.updateTimers();
  return true;
}

/**
 * A vCPU blocks. On the virtual clock the last one to do so moves the clock to the VM's next event.
 * @returns milliseconds for which the vCPU need not be run, unless it has an interrupt now
 */
export function block(vcpu: SoftVcpu, now: number): number {
  const { vm } = vcpu;
  const idleMs = (vcpu.timer.nextDeadlineNs(now) - now) / 1e6;
  if (vm.clock.kind === 'host') return idleMs;
  // For the others time moves as that one executes: nothing to sleep for, but to come back and see.
  if (!vm.othersIdle(vcpu)) return idleMs === Number.POSITIVE_INFINITY ? idleMs : 0;
  const next = vm.nextDeadlineNs(now);
  if (next === Number.POSITIVE_INFINITY) return next;
  vm.clock.skipTo(next);
  vm.updateTimers();
  return 0;
}
