import { EMPTY_HISTOGRAM, type Halt } from './halt.js';

/** A vCPU's statistics, by the kernel's names (`Documentation/virt/kvm/api.rst` 4.133), and one of our own. */
export class VcpuStats {
  /** Exits to user space and to the kernel half, all in all. */
  exits = 0;
  hvcExits = 0;
  wfeExits = 0;
  wfiExits = 0;
  mmioUser = 0;
  mmioKernel = 0;
  signalExits = 0;

  /**
   * In the kernel's order. Nothing polls for a vCPU that waits, because there always is something else for its thread to do, the
   * event loop (kernel: kvm_vcpu_can_poll).
   * @param instructions retired by the processor
   */
  read(halt: Halt, instructions: number): ReadonlyMap<string, readonly bigint[]> {
    const one = (value: number | bigint): readonly bigint[] => [BigInt(value)];
    return new Map([
      ['halt_successful_poll', one(0)],
      ['halt_attempted_poll', one(0)],
      ['halt_poll_invalid', one(0)],
      ['halt_wakeup', one(halt.wakeups)],
      ['halt_poll_success_ns', one(0)],
      ['halt_poll_fail_ns', one(0)],
      ['halt_wait_ns', one(halt.waitedNs)],
      ['halt_poll_success_hist', EMPTY_HISTOGRAM],
      ['halt_poll_fail_hist', EMPTY_HISTOGRAM],
      ['halt_wait_hist', halt.histogram],
      ['blocking', one(halt.isOn ? 1 : 0)],
      ['hvc_exit_stat', one(this.hvcExits)],
      ['wfe_exit_stat', one(this.wfeExits)],
      ['wfi_exit_stat', one(this.wfiExits)],
      ['mmio_exit_user', one(this.mmioUser)],
      ['mmio_exit_kernel', one(this.mmioKernel)],
      ['signal_exits', one(this.signalExits)],
      ['exits', one(this.exits)],
      ['instructions', one(instructions)],
    ]);
  }
}

/** A VM's statistics. There are no other processors' TLBs to flush: the kernel's counters stay 0. */
export const readVmStats = (): ReadonlyMap<string, readonly bigint[]> =>
  new Map([
    ['remote_tlb_flush', [0n]],
    ['remote_tlb_flush_requests', [0n]],
  ]);
