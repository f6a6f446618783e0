import type { Halt } from './halt.js';

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
   * In the kernel's order. No wake-up is invalid on arm64 (CONFIG_HAVE_KVM_INVALID_WAKEUPS).
   * @param instructions retired by the processor
   */
  read(halt: Halt, instructions: number): ReadonlyMap<string, readonly bigint[]> {
    const one = (value: number | bigint): readonly bigint[] => [BigInt(value)];
    return new Map([
      ['halt_successful_poll', one(halt.successfulPolls)],
      ['halt_attempted_poll', one(halt.successfulPolls + halt.failedPolls)],
      ['halt_poll_invalid', one(0)],
      ['halt_wakeup', one(halt.wakeups)],
      ['halt_poll_success_ns', one(halt.pollSuccess.sum)],
      ['halt_poll_fail_ns', one(halt.pollFail.sum)],
      ['halt_wait_ns', one(halt.waits.sum)],
      ['halt_poll_success_hist', halt.pollSuccess.histogram],
      ['halt_poll_fail_hist', halt.pollFail.histogram],
      ['halt_wait_hist', halt.waits.histogram],
      ['blocking', one(halt.isBlocking ? 1 : 0)],
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
