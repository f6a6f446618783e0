import { type EventFd, KvmError } from '../kvm/index.js';
import { check, checkHandle, kvmError } from './call.js';
import type { EventFdHandle, Native } from './native.js';

/** eventfd(2). */
export class HostEventFd implements EventFd {
  readonly #native: Native;
  readonly #handle: EventFdHandle;
  #closed = false;

  constructor(native: Native) {
    this.#native = native;
    this.#handle = checkHandle(native.createEventFd(), 'eventfd2');
  }

  /** @throws KvmError EINVAL not an eventfd of this backend */
  static handleOf(fd: EventFd, syscall: string): EventFdHandle {
    if (#handle in fd) return fd.#handle;
    throw new KvmError('EINVAL', syscall, 'fd is no eventfd of the host backend');
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** What KVM signals through it stays so: the kernel holds the eventfd for as long as an irqfd or ioeventfd does. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#native.close(this.#handle);
  }

  [Symbol.dispose](): void {
    this.close();
  }

  signal(n = 1): void {
    const result = this.#native.eventFdSignal(this.#handle, n);
    if (result < 0)
      throw kvmError(result, 'write', this.#closed ? 'the eventfd is closed' : `the eventfd takes no ${n}`);
  }

  read(): number {
    return check(this.#native.eventFdRead(this.#handle), 'read');
  }

  /** The listener does not keep the event loop alive. */
  onSignal(listener: ((count: number) => void) | undefined): void {
    check(this.#native.eventFdListen(this.#handle, listener), 'epoll_ctl');
  }
}
