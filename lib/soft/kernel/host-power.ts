import { type HostPower, KvmError } from '../../kvm/index.js';

/** A VM, as the host's power management sees it. */
export interface PoweredVm {
  /** Every vCPU leaves the guest (kernel: the freezer's fake signal, kvm_shutdown). */
  hostLeaves(): void;
  /** The host is there again. */
  hostReturns(): void;
}

/** The host's power management, of which the program itself is the host (kernel: kvm_suspend, kvm_resume, kvm_shutdown). */
export class SoftHostPower implements HostPower {
  #state: HostPower['state'] = 'on';
  readonly #vms = new Set<PoweredVm>();

  get state(): HostPower['state'] {
    return this.#state;
  }

  suspend(): void {
    if (this.#state === 'on') this.#leave('suspended');
  }

  resume(): void {
    if (this.#state !== 'suspended') return;
    this.#state = 'on';
    for (const vm of [...this.#vms]) vm.hostReturns();
  }

  shutdown(): void {
    if (this.#state !== 'off') this.#leave('off');
  }

  #leave(state: 'suspended' | 'off'): void {
    this.#state = state;
    for (const vm of [...this.#vms]) vm.hostLeaves();
  }

  /** kvm_enable_virtualization, for a new VM. @throws KvmError EBUSY the host goes down */
  checkOn(syscall: string): void {
    if (this.#state === 'off') throw new KvmError('EBUSY', syscall, 'the host was shut down: open another KVM');
  }

  add(vm: PoweredVm): void {
    this.#vms.add(vm);
  }

  remove(vm: PoweredVm): void {
    this.#vms.delete(vm);
  }
}
