import { KvmError } from '../../../kvm/index.js';

/** What a device fd needs of its VM. */
export interface DeviceOwner {
  /** @throws KvmError EIO the VM is dead */
  checkAlive(syscall: string): void;
  /** Whether a vCPU is inside KVM_RUN. */
  readonly running: boolean;
  /** Does what the guest has asked of its ITSs and still waits for. */
  finishCommands(): void;
  /** Gives back the device's hold on the VM. */
  release(): void;
}

/** What the fds of all in-kernel devices have in common. The device behind it is the VM's: closing the fd keeps it. */
export abstract class DeviceFd<Owner extends DeviceOwner = DeviceOwner> {
  protected readonly owner: Owner;
  #closed = false;

  constructor(owner: Owner) {
    this.owner = owner;
  }

  get closed(): boolean {
    return this.#closed;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.owner.release();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /** @throws KvmError EBADF, EIO */
  protected check(syscall: string): void {
    if (this.#closed) throw new KvmError('EBADF', syscall, 'the device is closed');
    this.owner.checkAlive(syscall);
  }

  /** @throws KvmError EBUSY */
  protected checkStopped(syscall: string): void {
    if (this.owner.running) throw new KvmError('EBUSY', syscall, 'a vCPU is running');
  }
}

export const noAttr = (syscall: string): KvmError => new KvmError('ENXIO', syscall, 'no such attribute');
