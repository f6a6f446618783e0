import { type EventFd, type HostPower, type Kvm, KvmError, type Vm } from '../kvm/index.js';
import type { Machine } from './cpu/cpu.js';
import { capability, IPA_BITS_DEFAULT, IPA_BITS_MAX, IPA_BITS_MIN, VM_ONLY } from './kernel/capabilities.js';
import { HostClock, VirtualClock } from './kernel/clock.js';
import { SoftEventFd } from './kernel/eventfd.js';
import { SoftHostPower } from './kernel/host-power.js';
import { SoftVm } from './kernel/vm.js';

/** KVM_API_VERSION. */
const API_VERSION = 12;
/** Two pages of 4 KiB, as a 4K kernel has it. */
const VCPU_MMAP_SIZE = 8192;
/** KVM_VM_TYPE_ARM_IPA_SIZE_MASK. */
const TYPE_IPA_MASK = 0xff;

/** Options of {@link SoftKvm}. */
export interface SoftKvmOptions {
  /**
   * `'host'` (if not given): time is the host's. `'virtual'`: time is instructions executed, 1 ns each, and idle time is
   * skipped, so that the same guest, run by the same calls, does the same.
   */
  readonly clock?: 'host' | 'virtual' | undefined;
  /** Makes the processors and memory of one VM. */
  readonly createMachine: () => Machine;
}

/**
 * KVM in software: models Linux 7.3 on an arm64 host with a GICv3, 4 KiB pages and no EL2 for guests.
 *
 * All vCPUs of a VM run on the caller's thread, one `run()` at a time. A vCPU in WFI, or not powered on, does not wait
 * inside `run()`: it returns `intr` with `idleMs`, for how long it need not be run. Where all vCPUs are idle the caller
 * may sleep for the least of these times. {@link Vm.onRunnable} says which vCPU is to be run earlier: also one that has
 * had its turn before another one woke it. On the virtual clock `idleMs` is 0 (come back, in turn with the others) or
 * Infinity, never a time to sleep: the last vCPU to go idle skips to the VM's next timer by itself.
 */
export class SoftKvm implements Kvm {
  readonly backend = 'soft';
  readonly #power = new SoftHostPower();
  readonly power: HostPower = this.#power;
  readonly #clock: 'host' | 'virtual';
  readonly #createMachine: () => Machine;
  #closed = false;

  constructor(options: SoftKvmOptions) {
    this.#clock = options.clock ?? 'host';
    this.#createMachine = options.createMachine;
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** VMs stay, as they do when /dev/kvm is closed. */
  close(): void {
    this.#closed = true;
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #check(syscall: string): void {
    if (this.#closed) throw new KvmError('EBADF', syscall, 'the system fd is closed');
  }

  getApiVersion(): number {
    this.#check('KVM_GET_API_VERSION');
    return API_VERSION;
  }

  checkExtension(cap: number): number {
    this.#check('KVM_CHECK_EXTENSION');
    if (VM_ONLY.has(cap)) throw new KvmError('EINVAL', 'KVM_CHECK_EXTENSION', `only a VM knows capability ${cap}`);
    return capability(cap);
  }

  getVcpuMmapSize(): number {
    this.#check('KVM_GET_VCPU_MMAP_SIZE');
    return VCPU_MMAP_SIZE;
  }

  createVm(type = 0): Vm {
    const syscall = 'KVM_CREATE_VM';
    this.#check(syscall);
    if (!Number.isInteger(type) || type < 0 || type > TYPE_IPA_MASK) {
      throw new KvmError('EINVAL', syscall, `type ${type} has unknown bits, or asks for a protected VM`);
    }
    const ipaBits = type === 0 ? IPA_BITS_DEFAULT : type;
    if (ipaBits < IPA_BITS_MIN || ipaBits > IPA_BITS_MAX) {
      throw new KvmError('EINVAL', syscall, `${ipaBits} IPA bits are not within ${IPA_BITS_MIN} to ${IPA_BITS_MAX}`);
    }
    this.#power.checkOn(syscall);
    const clock = this.#clock === 'virtual' ? new VirtualClock() : new HostClock();
    return new SoftVm(this.#createMachine(), clock, ipaBits, this.#power);
  }

  createEventFd(): EventFd {
    this.#check('eventfd2');
    return new SoftEventFd();
  }
}
