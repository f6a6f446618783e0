import { type EventFd, KvmError } from '../../kvm/index.js';

/** What an irqfd does when its eventfd is signalled. */
export type EventSink = () => void;

/**
 * eventfd(2) in software. A signal is delivered at once, inside `signal()`: to the irqfd, which takes the count,
 * else to the listener.
 */
export class SoftEventFd implements EventFd {
  #count = 0;
  #closed = false;
  #listener: ((count: number) => void) | undefined;
  #irqfd: { readonly sink: EventSink; readonly onClose: () => void } | undefined;

  /** @throws KvmError EINVAL `n` is no integer from 1 to 2^53-1; EAGAIN the count would pass 2^53-1; EBADF closed */
  signal(n = 1): void {
    if (this.#closed) throw new KvmError('EBADF', 'write', 'the eventfd is closed');
    if (!Number.isSafeInteger(n) || n < 1) {
      throw new KvmError('EINVAL', 'write', `an eventfd is signalled by 1 to 2^53-1, not ${n}`);
    }
    if (!Number.isSafeInteger(this.#count + n)) throw new KvmError('EAGAIN', 'write', 'the eventfd is full');
    this.#count += n;
    this.#deliver();
  }

  /** A guest's store, by an ioeventfd: nobody is there to be told that the count is full, or that the eventfd is closed. */
  signalFromGuest(): void {
    if (this.#closed) return;
    this.#count = Math.min(this.#count + 1, Number.MAX_SAFE_INTEGER);
    this.#deliver();
  }

  #deliver(): void {
    if (this.#count === 0) return;
    if (this.#irqfd !== undefined) {
      this.#count = 0;
      this.#irqfd.sink();
    } else if (this.#listener !== undefined) {
      const count = this.#count;
      this.#count = 0;
      this.#listener(count);
    }
  }

  /** @throws KvmError EBADF closed */
  read(): number {
    if (this.#closed) throw new KvmError('EBADF', 'read', 'the eventfd is closed');
    const count = this.#count;
    this.#count = 0;
    return count;
  }

  /** The listener gets a count that is already there at once. @throws KvmError EBADF closed */
  onSignal(listener: ((count: number) => void) | undefined): void {
    if (this.#closed) throw new KvmError('EBADF', 'read', 'the eventfd is closed');
    this.#listener = listener;
    if (listener !== undefined) this.#deliver();
  }

  /** Whether an irqfd, of whichever VM, takes its signals. */
  get hasIrqfd(): boolean {
    return this.#irqfd !== undefined;
  }

  /**
   * Gives its signals to an irqfd; a count that is already there reaches it at once.
   * @param onClose called when the eventfd is closed while the irqfd has it
   */
  bindIrqfd(sink: EventSink, onClose: () => void): void {
    this.#irqfd = { sink, onClose };
    this.#deliver();
  }

  unbindIrqfd(): void {
    this.#irqfd = undefined;
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** Ends its irqfd, as closing does in the kernel. Its ioeventfds stay, and take the guest's stores. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#listener = undefined;
    this.#irqfd?.onClose();
    this.#irqfd = undefined;
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/** The eventfd behind `fd`. @throws KvmError EBADF closed; EINVAL not one of this backend's */
export function asEventFd(fd: EventFd, syscall: string): SoftEventFd {
  if (!(fd instanceof SoftEventFd)) throw new KvmError('EINVAL', syscall, 'not an eventfd of the software backend');
  if (fd.closed) throw new KvmError('EBADF', syscall, 'the eventfd is closed');
  return fd;
}
