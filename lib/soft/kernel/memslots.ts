import { type GuestMemory, KvmError, MemFlag, type UserMemoryRegion } from '../../kvm/index.js';
import type { Machine, MachineMemory } from '../cpu/cpu.js';
import { DirtyLog } from './dirty-log.js';

/** KVM_CAP_NR_MEMSLOTS. */
export const NR_MEMSLOTS = 0x7fff;
/** Pages of guest memory and of memslots. */
export const PAGE_SIZE = 4096;

const SYSCALL = 'KVM_SET_USER_MEMORY_REGION';

/** RAM of a machine, as the contract shows it. Slots that use it keep it alive after `close()`, as the kernel keeps pages. */
export class SoftGuestMemory implements GuestMemory {
  readonly size: number;
  /** The machine it is memory of. */
  readonly machine: Machine;
  readonly #memory: MachineMemory;
  readonly #onClosed: () => void;
  #holders = 1;
  #closed = false;

  constructor(machine: Machine, memory: MachineMemory, onClosed: () => void) {
    this.machine = machine;
    this.size = memory.size;
    this.#memory = memory;
    this.#onClosed = onClosed;
  }

  get bytes(): Uint8Array {
    return this.#closed ? new Uint8Array(0) : this.#memory.bytes;
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

/** A memslot: `struct kvm_memory_slot`. */
export interface Memslot {
  readonly slot: number;
  readonly base: number;
  readonly size: number;
  readonly flags: number;
  readonly memory: SoftGuestMemory;
  readonly offset: number;
  /** Where the slot logs dirty pages. */
  readonly log: DirtyLog | undefined;
}

/** The VM's memslots, and the machine's mappings that follow them. */
export class Memslots {
  readonly #machine: Machine;
  readonly #ipaSize: number;
  readonly #slots = new Map<number, Memslot>();
  /** KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2's flags. */
  manualProtect = 0;

  constructor(machine: Machine, ipaSize: number) {
    this.#machine = machine;
    this.#ipaSize = ipaSize;
  }

  get(slot: number): Memslot | undefined {
    return this.#slots.get(slot);
  }

  get isEmpty(): boolean {
    return this.#slots.size === 0;
  }

  /** The slot that has all of `length` bytes at `addr`. */
  find(addr: number, length: number): Memslot | undefined {
    for (const slot of this.#slots.values()) {
      if (addr >= slot.base && addr + length <= slot.base + slot.size) return slot;
    }
    return undefined;
  }

  /** KVM_SET_USER_MEMORY_REGION (kernel: __kvm_set_memory_region). @throws KvmError EINVAL, EEXIST, EFAULT */
  set(region: UserMemoryRegion): void {
    const { slot, guestPhysAddr: base, memorySize: size, memory } = region;
    const flags = region.flags ?? 0;
    const offset = region.memoryOffset ?? 0;
    checkNumber('slot', slot);
    checkNumber('guestPhysAddr', base);
    checkNumber('memorySize', size);
    checkNumber('memoryOffset', offset);
    if ((flags & ~(MemFlag.LOG_DIRTY_PAGES | MemFlag.READONLY)) !== 0) {
      throw invalid(`flags 0x${flags.toString(16)} are not all known`);
    }
    if (size % PAGE_SIZE !== 0 || base % PAGE_SIZE !== 0 || offset % PAGE_SIZE !== 0) {
      throw invalid(`address, size and offset are multiples of ${PAGE_SIZE}`);
    }
    if (slot >= NR_MEMSLOTS) throw invalid(`slot ${slot} is not below ${NR_MEMSLOTS}`);
    const old = this.#slots.get(slot);
    if (size === 0) {
      if (old === undefined) throw invalid(`slot ${slot} is not there to be deleted`);
      this.#remove(old);
      return;
    }
    if (!(memory instanceof SoftGuestMemory) || memory.machine !== this.#machine) {
      throw invalid("the memory is not one of this VM's createMemory()");
    }
    if (memory.closed) throw invalid('the memory is closed');
    if (offset + size > memory.size) throw invalid(`the memory has ${memory.size} bytes, ${offset + size} are needed`);
    if (old !== undefined && !mayChange(old, region, flags, offset)) {
      throw invalid(`slot ${slot} can move or change its flags, but not its size, memory or READONLY`);
    }
    if (base + size > this.#ipaSize) {
      throw new KvmError('EFAULT', SYSCALL, `0x${(base + size).toString(16)} is beyond the IPA size`);
    }
    for (const other of this.#slots.values()) {
      if (other !== old && base < other.base + other.size && other.base < base + size) {
        throw new KvmError('EEXIST', SYSCALL, `overlaps slot ${other.slot}`);
      }
    }
    if (old !== undefined && old.base === base && old.flags === flags) return;
    memory.hold();
    if (old !== undefined) this.#remove(old);
    this.#map({ slot, base, size, flags, memory, offset });
  }

  #map(slot: Omit<Memslot, 'log'>): void {
    const { base, size } = slot;
    const pages = size / PAGE_SIZE;
    const log =
      (slot.flags & MemFlag.LOG_DIRTY_PAGES) === 0
        ? undefined
        : new DirtyLog(pages, (first, count) => {
            this.#machine.rearm(base + first * PAGE_SIZE, count * PAGE_SIZE);
          });
    const firstGfn = base / PAGE_SIZE;
    const onDirty = log === undefined ? undefined : (gfn: number): void => log.mark(gfn - firstGfn);
    const readonly = (slot.flags & MemFlag.READONLY) !== 0;
    this.#machine.map(base, size, slot.memory.backing, slot.offset, readonly, onDirty);
    // KVM_DIRTY_LOG_INITIALLY_SET: the first log says that every page is dirty.
    if ((this.manualProtect & 2) !== 0) log?.markAll();
    this.#slots.set(slot.slot, { ...slot, log });
  }

  #remove(slot: Memslot): void {
    this.#slots.delete(slot.slot);
    this.#machine.unmap(slot.base, slot.size);
    slot.memory.drop();
  }

  /** Gives every slot's memory back. */
  close(): void {
    for (const slot of [...this.#slots.values()]) this.#remove(slot);
  }
}

function mayChange(old: Memslot, region: UserMemoryRegion, flags: number, offset: number): boolean {
  return (
    old.size === region.memorySize &&
    old.memory === region.memory &&
    old.offset === offset &&
    ((old.flags ^ flags) & MemFlag.READONLY) === 0
  );
}

function checkNumber(name: string, value: number): void {
  if (!Number.isSafeInteger(value) || value < 0) throw invalid(`${name} ${value} is not an unsigned integer`);
}

const invalid = (detail: string): KvmError => new KvmError('EINVAL', SYSCALL, detail);
