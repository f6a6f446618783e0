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
  haltWakeups = 0;

  /** @param instructions retired by the processor */
  read(instructions: number): ReadonlyMap<string, readonly bigint[]> {
    const counters: [string, number][] = [
      ['exits', this.exits],
      ['hvc_exit_stat', this.hvcExits],
      ['wfe_exit_stat', this.wfeExits],
      ['wfi_exit_stat', this.wfiExits],
      ['mmio_exit_user', this.mmioUser],
      ['mmio_exit_kernel', this.mmioKernel],
      ['signal_exits', this.signalExits],
      ['halt_wakeup', this.haltWakeups],
      ['instructions', instructions],
    ];
    return new Map(counters.map(([name, value]) => [name, [BigInt(value)]]));
  }
}

/** A VM's statistics. There are no other processors' TLBs to flush: the kernel's counters stay 0. */
export const readVmStats = (): ReadonlyMap<string, readonly bigint[]> =>
  new Map([
    ['remote_tlb_flush', [0n]],
    ['remote_tlb_flush_requests', [0n]],
  ]);
