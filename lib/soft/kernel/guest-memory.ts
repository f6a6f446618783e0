import type { GuestMemory } from '../../kvm/index.js';
import type { Machine, MachineMemory } from '../cpu/cpu.js';
import { MemoryNotifier } from './mmu-notifier.js';

/** GUEST_MEMFD_FLAG_* */
export const GuestMemfdFlag = { MMAP: 1, INIT_SHARED: 2 } as const;
/** What KVM_CAP_GUEST_MEMFD_FLAGS says. */
export const GUEST_MEMFD_FLAGS = GuestMemfdFlag.MMAP | GuestMemfdFlag.INIT_SHARED;

/** RAM of a machine, as the contract shows it. Slots that use it keep it alive after `close()`, as the kernel keeps pages. */
export class SoftGuestMemory implements GuestMemory {
  readonly size: number;
  /** The machine it is memory of. */
  readonly machine: Machine;
  readonly #memory: MachineMemory;
  /** A guest_memfd: for slots with MemFlag.GUEST_MEMFD, and for no others. */
  readonly isGuestMemfd: boolean;
  /** What slots are made of: anything but a guest_memfd that user space can't map. */
  readonly mayBeSlot: boolean;
  readonly notifier: MemoryNotifier;
  /** Whether `bytes` is the memory. */
  readonly #visible: boolean;
  readonly #onClosed: () => void;
  #holders = 1;
  #closed = false;

  /** @param memfdFlags {@link GuestMemfdFlag} bits of a guest_memfd */
  constructor(machine: Machine, memory: MachineMemory, onClosed: () => void, memfdFlags?: number) {
    this.machine = machine;
    this.size = memory.size;
    this.#memory = memory;
    this.isGuestMemfd = memfdFlags !== undefined;
    this.mayBeSlot = memfdFlags === undefined || (memfdFlags & GuestMemfdFlag.MMAP) !== 0;
    this.#visible = memfdFlags === undefined || memfdFlags === GUEST_MEMFD_FLAGS;
    this.#onClosed = onClosed;
    this.notifier = new MemoryNotifier(memory, { protects: !this.isGuestMemfd, isClosed: () => this.#closed });
  }

  get bytes(): Uint8Array {
    return this.#closed || !this.#visible ? new Uint8Array(0) : this.#memory.bytes;
  }

  /** The machine's handle, for mapping. */
  get backing(): MachineMemory {
    return this.#memory;
  }

  written(offset: number, length: number): void {
    if (!Number.isSafeInteger(offset) || !Number.isSafeInteger(length) || offset < 0 || length < 0) {
      throw new RangeError(`written(${offset}, ${length}): offset and length are byte counts`);
    }
    if (offset + length > this.size) {
      throw new RangeError(`written(${offset}, ${length}): the memory has ${this.size} bytes`);
    }
    if (!this.#closed && length > 0) this.#memory.invalidate(offset, length);
  }

  get closed(): boolean {
    return this.#closed;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.notifier.onFault(undefined);
    this.drop();
    this.#onClosed();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  hold(): void {
    this.#holders++;
  }

  drop(): void {
    if (--this.#holders === 0) this.#memory.free();
  }
}
