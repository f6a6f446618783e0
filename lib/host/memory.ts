import { constants } from 'node:buffer';
import { type GuestMemory, KvmError } from '../kvm/index.js';
import { checkHandle, kvmError } from './call.js';
import { hugePages, sizeName, whyNoHugePages } from './huge-pages.js';
import type { MemoryHandle, Native, VmHandle } from './native.js';

/** KVM_CREATE_GUEST_MEMFD's flag that lets this process see the memory. */
const GUEST_MEMFD_FLAG_MMAP = 1;
/** Bytes from one window to the next, and of the longest part that is looked at through one. A window has twice as many. */
const STRIDE = 2 ** 20;
/** Longer parts that are each a buffer of their own. */
const MAX_LONG_PARTS = 8;
/** Of 16 GiB, the largest that arm64 has. */
const MAX_HUGE_PAGE_SHIFT = 34;

/** An mmap, or a guest_memfd. */
export class HostMemory implements GuestMemory {
  readonly size: number;
  readonly #native: Native;
  readonly #handle: MemoryHandle;
  readonly #mapped: boolean;
  /** All of it, from the first time on that somebody asks for that. */
  #bytes: Uint8Array | undefined;
  /** By the offset of their beginnings, in strides. */
  readonly #windows: (Uint8Array | undefined)[] = [];
  readonly #longParts: Uint8Array[] = [];
  #closed = false;

  private constructor(native: Native, handle: MemoryHandle, size: number, mapped: boolean) {
    this.#native = native;
    this.#handle = handle;
    this.size = size;
    this.#mapped = mapped;
  }

  get bytes(): Uint8Array {
    this.#bytes ??= this.#mapped && !this.#closed ? this.#see(0, this.size) : new Uint8Array(0);
    return this.#bytes;
  }

  view(offset: number, length: number): Uint8Array {
    const size = this.#mapped ? this.size : 0;
    if (!(offset >= 0 && length >= 0 && offset + length <= size)) {
      throw new RangeError(`view(${offset}, ${length}): the memory has ${size} bytes`);
    }
    if (this.#closed) throw new KvmError('EBADF', 'mmap', 'the memory is closed');
    if (length === 0) return new Uint8Array(0);
    if (this.#bytes !== undefined) return this.#bytes.subarray(offset, offset + length);
    if (length > STRIDE) return this.#long(offset, length);
    const n = Math.floor(offset / STRIDE);
    const start = n * STRIDE;
    this.#windows[n] ??= this.#see(start, Math.min(2 * STRIDE, this.size - start));
    return this.#windows[n].subarray(offset - start, offset - start + length);
  }

  /** A kernel and an initrd are as long. Whoever wants more such parts is given all. */
  #long(offset: number, length: number): Uint8Array {
    if (this.#longParts.length === MAX_LONG_PARTS) return this.bytes.subarray(offset, offset + length);
    const part = this.#see(offset, length);
    this.#longParts.push(part);
    return part;
  }

  #see(offset: number, length: number): Uint8Array {
    return new Uint8Array(checkHandle(this.#native.memoryBuffer(this.#handle, offset, length), 'mmap'));
  }

  /** Anonymous memory, zeroed, taken from the host as it is touched. */
  static create(native: Native, size: number): HostMemory {
    checkSize(size, 'mmap');
    const detail = `size ${size} is no multiple of the page size ${native.pageSize()}, or too much`;
    return new HostMemory(native, checkHandle(native.createMemory(size, 0, 0), 'mmap', detail), size, true);
  }

  /** Anonymous memory in huge pages that were set aside: it has all of them from now on. */
  static createHuge(native: Native, size: number, hugePageSize: number): HostMemory {
    checkSize(size, 'mmap');
    const shift = Math.log2(hugePageSize);
    if (!Number.isInteger(shift) || hugePageSize <= native.pageSize() || shift > MAX_HUGE_PAGE_SHIFT) {
      throw new KvmError('EINVAL', 'mmap', `${hugePageSize} bytes are no size of huge pages`);
    }
    if (!(size > 0 && size % hugePageSize === 0)) {
      const detail = `${size} bytes are no whole number of huge pages of ${sizeName(hugePageSize)}`;
      throw new KvmError('EINVAL', 'mmap', detail);
    }
    const handle = native.createMemory(size, 0, shift);
    if (typeof handle !== 'number') return new HostMemory(native, handle, size, true);
    throw kvmError(handle, 'mmap', whyNoHugePages(size, hugePageSize, hugePages()));
  }

  /** A guest_memfd. Without the flag MMAP (1) this process cannot see it, and `bytes` is empty. */
  static createGuestMemfd(native: Native, vm: VmHandle, size: number, flags: number): HostMemory {
    const syscall = 'KVM_CREATE_GUEST_MEMFD';
    checkSize(size, syscall);
    const handle = checkHandle(native.createGuestMemfd(vm, size, flags), syscall);
    return new HostMemory(native, handle, size, (flags & GUEST_MEMFD_FLAG_MMAP) !== 0);
  }

  /** @throws KvmError EINVAL not memory of this backend; EBADF closed */
  static handleOf(memory: GuestMemory, syscall: string): MemoryHandle {
    if (!(#handle in memory)) throw new KvmError('EINVAL', syscall, 'memory is no memory of the host backend');
    return memory.#handle;
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** `bytes`, and all parts of it, become empty. A VM that has it in a slot keeps it until the slot, or the VM with all its vCPUs, is gone. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const seen of [this.#bytes, ...this.#windows, ...this.#longParts]) {
      if (seen !== undefined && seen.length > 0) this.#native.detach(seen.buffer as ArrayBuffer);
    }
    this.#native.close(this.#handle);
  }

  [Symbol.dispose](): void {
    this.close();
  }

  written(offset: number, length: number): void {
    if (!(offset >= 0 && length >= 0 && offset + length <= this.size)) {
      throw new RangeError(`written(${offset}, ${length}): the memory has ${this.size} bytes`);
    }
  }
}

/** Node 20 ends the process where an ArrayBuffer over foreign memory is larger than it can be. */
function checkSize(size: number, syscall: string): void {
  if (size <= constants.MAX_LENGTH) return;
  const limit = `${constants.MAX_LENGTH} bytes`;
  throw new KvmError('ENOMEM', syscall, `this Node.js sees at most ${limit} at once: use several memories, or Node 22`);
}
