import { type EventFd, type Kvm, KvmError, type Vm } from '../kvm/index.js';
import { check, checkHandle } from './call.js';
import { HostEventFd } from './eventfd.js';
import type { Native, SystemHandle } from './native.js';
import { HostVm } from './vm.js';

/** `/dev/kvm`. */
export class HostKvm implements Kvm {
  readonly backend = 'host';
  readonly #native: Native;
  readonly #handle: SystemHandle;
  #closed = false;

  constructor(native: Native, handle: SystemHandle) {
    this.#native = native;
    this.#handle = handle;
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** VMs stay. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#native.close(this.#handle);
  }

  [Symbol.dispose](): void {
    this.close();
  }

  getApiVersion(): number {
    return check(this.#native.getApiVersion(this.#handle), 'KVM_GET_API_VERSION');
  }

  checkExtension(cap: number): number {
    return check(this.#native.checkExtension(this.#handle, cap), 'KVM_CHECK_EXTENSION');
  }

  getVcpuMmapSize(): number {
    return check(this.#native.getVcpuMmapSize(this.#handle), 'KVM_GET_VCPU_MMAP_SIZE');
  }

  createVm(type = 0): Vm {
    const handle = checkHandle(this.#native.createVm(this.#handle, type), 'KVM_CREATE_VM', `type ${type}`);
    return new HostVm(this.#native, handle);
  }

  createEventFd(): EventFd {
    if (this.#closed) throw new KvmError('EBADF', 'eventfd2', 'the system fd is closed');
    return new HostEventFd(this.#native);
  }
}
