import { type DirtyPage, KvmError, MemFlag, type UserMemoryRegion } from '../../kvm/index.js';
import type { Machine } from '../cpu/cpu.js';
import { DirtyLog } from './dirty-log.js';
import { SoftGuestMemory } from './guest-memory.js';

/** KVM_CAP_NR_MEMSLOTS. */
export const NR_MEMSLOTS = 0x7fff;
/** Pages of guest memory and of memslots. */
export const PAGE_SIZE = 4096;

const SYSCALL = 'KVM_SET_USER_MEMORY_REGION';
/** KVM_MEM_MAX_NR_PAGES. */
const MAX_PAGES = 2 ** 31 - 1;
/** KVM_DIRTY_LOG_INITIALLY_SET. */
const INITIALLY_SET = 2;

/** A memslot: `struct kvm_memory_slot`. */
export interface Memslot {
  readonly slot: number;
  readonly base: number;
  readonly size: number;
  readonly flags: number;
  readonly memory: SoftGuestMemory;
  readonly offset: number;
  /** Where the slot has a dirty bitmap. */
  readonly log: DirtyLog | undefined;
}

/**
 * What is told of a page's first store since it was last protected, if its slot tracks that, before the bitmap is.
 * @param page from the slot's first
 * @returns whether the store is recorded: the bitmap is then not for it
 */
export type DirtySink = (slot: number, page: number) => boolean;

/** The VM's memslots, and the machine's mappings that follow them at once. */
export class Memslots {
  readonly #machine: Machine;
  readonly #ipaSize: number;
  readonly #dirtySink: DirtySink;
  readonly #slots = new Map<number, Memslot>();
  /** By address. */
  readonly #sorted: Memslot[] = [];
  /** KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2's flags. */
  manualProtect = 0;
  /** Slots that log have a bitmap: not so where only the dirty rings are to be used. */
  hasBitmaps = true;

  constructor(machine: Machine, ipaSize: number, dirtySink: DirtySink = () => false) {
    this.#machine = machine;
    this.#ipaSize = ipaSize;
    this.#dirtySink = dirtySink;
  }

  get(slot: number): Memslot | undefined {
    return this.#slots.get(slot);
  }

  get isEmpty(): boolean {
    return this.#slots.size === 0;
  }

  /** How many slots begin at or below `addr`. */
  #countUpTo(addr: number): number {
    let low = 0;
    let high = this.#sorted.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#sorted[middle]!.base <= addr) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** The slot that has all of `length` bytes at `addr`. */
  find(addr: number, length: number): Memslot | undefined {
    const slot = this.#sorted[this.#countUpTo(addr) - 1];
    return slot !== undefined && addr + length <= slot.base + slot.size ? slot : undefined;
  }

  findWritable(addr: number, length: number): Memslot | undefined {
    const slot = this.find(addr, length);
    return slot === undefined || (slot.flags & MemFlag.READONLY) !== 0 ? undefined : slot;
  }

  /** A slot other than `except` that has any of `base`..`end`. */
  #overlapping(base: number, end: number, except: Memslot | undefined): Memslot | undefined {
    for (let i = Math.max(0, this.#countUpTo(base) - 1); i < this.#sorted.length; i++) {
      const slot = this.#sorted[i]!;
      if (slot.base >= end) return undefined;
      if (slot !== except && base < slot.base + slot.size) return slot;
    }
    return undefined;
  }

  /**
   * A vCPU may not use the page of a slot as it does (`MmuNotifier.protect`). When it returns the vCPU tries again.
   * @throws KvmError EFAULT: KVM_EXIT_MEMORY_FAULT is not for what a host protects (kernel: user_mem_abort)
   */
  resolve(page: number): void {
    const slot = this.find(page, 1);
    const isResolved = slot?.memory.notifier.resolve(slot.offset + page - slot.base);
    if (isResolved !== true && this.find(page, 1) === slot) {
      throw new KvmError(
        'EFAULT',
        'KVM_RUN',
        `the guest may not use the page at IPA 0x${page.toString(16)} as it does`,
      );
    }
  }

  /** What a write to guest memory owes: code that was there is forgotten, and the pages are dirty. @param slot that has all of it */
  written(slot: Memslot, addr: number, length: number): void {
    slot.memory.backing.invalidate(slot.offset + addr - slot.base, length);
    const last = Math.floor((addr + length - 1 - slot.base) / PAGE_SIZE);
    for (let page = Math.floor((addr - slot.base) / PAGE_SIZE); page <= last; page++) this.#markDirty(slot, page);
  }

  #markDirty({ slot, flags, log }: Omit<Memslot, 'memory'>, page: number): void {
    if ((flags & MemFlag.LOG_DIRTY_PAGES) !== 0 && !this.#dirtySink(slot, page)) log?.mark(page);
  }

  /** Makes the next store to each of these pages of the slot be reported again. Slots and pages that are not there are passed over. */
  protect(slot: number, firstPage: number, pages: number): void {
    const there = this.#slots.get(slot);
    if (there === undefined || firstPage * PAGE_SIZE >= there.size) return;
    const length = Math.min(pages * PAGE_SIZE, there.size - firstPage * PAGE_SIZE);
    this.#machine.rearm(there.base + firstPage * PAGE_SIZE, length);
  }

  /** {@link protect}s pages in any order: neighbours at once. */
  protectPages(pages: readonly DirtyPage[]): void {
    const sorted = [...pages].sort((a, b) => a.slot - b.slot || a.offset - b.offset);
    for (let i = 0, next = 0; i < sorted.length; i = next) {
      const { slot, offset } = sorted[i]!;
      for (next = i + 1; next < sorted.length; next++) {
        const page = sorted[next]!;
        if (page.slot !== slot || page.offset !== offset + next - i) break;
      }
      this.protect(slot, offset, next - i);
    }
  }

  /** KVM_SET_USER_MEMORY_REGION and KVM_SET_USER_MEMORY_REGION2 (kernel: kvm_set_memory_region). @throws KvmError EINVAL, EEXIST, EFAULT */
  set(region: UserMemoryRegion): void {
    const { slot, guestPhysAddr: base, memorySize: size, memory } = region;
    const flags = region.flags ?? 0;
    const offset = region.memoryOffset ?? 0;
    checkNumber('slot', slot);
    checkNumber('guestPhysAddr', base);
    checkNumber('memorySize', size);
    checkNumber('memoryOffset', offset);
    const isMemfd = (flags & MemFlag.GUEST_MEMFD) !== 0;
    // A guest_memfd's pages are not logged, and a store to them is no MMIO.
    const valid = isMemfd ? MemFlag.GUEST_MEMFD : MemFlag.LOG_DIRTY_PAGES | MemFlag.READONLY;
    if ((flags & ~valid) !== 0) throw invalid(`flags 0x${flags.toString(16)} are not all known, or exclude each other`);
    if (size % PAGE_SIZE !== 0 || base % PAGE_SIZE !== 0 || offset % PAGE_SIZE !== 0) {
      throw invalid(`address, size and offset are multiples of ${PAGE_SIZE}`);
    }
    if (slot >= NR_MEMSLOTS) throw invalid(`slot ${slot} is not below ${NR_MEMSLOTS}`);
    if (size / PAGE_SIZE > MAX_PAGES) throw invalid(`a slot has at most ${MAX_PAGES} pages`);
    const old = this.#slots.get(slot);
    if (size === 0) {
      if (old === undefined) throw invalid(`slot ${slot} is not there to be deleted`);
      this.#remove(old);
      return;
    }
    if (!(memory instanceof SoftGuestMemory) || memory.machine !== this.#machine) {
      throw invalid("the memory is not one of this VM's");
    }
    if (memory.closed) throw new KvmError('EBADF', SYSCALL, 'the memory is closed');
    if (offset + size > memory.size) throw invalid(`the memory has ${memory.size} bytes, ${offset + size} are needed`);
    if (memory.isGuestMemfd !== isMemfd) throw invalid('MemFlag.GUEST_MEMFD is for memory of createGuestMemfd() only');
    if (old !== undefined && !mayChange(old, region, flags, offset)) {
      throw invalid(`slot ${slot} can move or change its flags, but not its size, memory or READONLY`);
    }
    if (old !== undefined && old.base === base && old.flags === flags) return;
    const end = base + size;
    const other = this.#overlapping(base, end, old);
    if (other !== undefined) throw new KvmError('EEXIST', SYSCALL, `overlaps slot ${other.slot}`);
    if (isMemfd && this.#bindsMemfd(memory, offset, size)) {
      throw new KvmError('EEXIST', SYSCALL, 'another slot has that part of the guest_memfd');
    }
    if (!memory.mayBeSlot)
      throw invalid('a slot on arm64 takes a guest_memfd that can be mapped: GUEST_MEMFD_FLAG_MMAP');
    if (end > this.#ipaSize) throw new KvmError('EFAULT', SYSCALL, `0x${end.toString(16)} is beyond the IPA size`);
    memory.hold();
    if (old !== undefined) this.#remove(old);
    this.#map({ slot, base, size, flags, memory, offset }, old?.log);
  }

  /** Whether a slot has any of that part of a guest_memfd: each part has one at most. */
  #bindsMemfd(memory: SoftGuestMemory, offset: number, size: number): boolean {
    return this.#sorted.some((s) => s.memory === memory && s.offset < offset + size && offset < s.offset + s.size);
  }

  /** @param oldLog of the slot that moves or changes its flags: it goes on */
  #map(region: Omit<Memslot, 'log'>, oldLog: DirtyLog | undefined): void {
    const { slot, base, size, flags } = region;
    const logs = (flags & MemFlag.LOG_DIRTY_PAGES) !== 0;
    const log = logs ? (oldLog ?? this.#createLog(slot, size / PAGE_SIZE)) : undefined;
    const firstGfn = base / PAGE_SIZE;
    const onDirty = logs ? (gfn: number): void => this.#markDirty({ ...region, log }, gfn - firstGfn) : undefined;
    const readonly = (flags & MemFlag.READONLY) !== 0;
    this.#machine.map(base, size, region.memory.backing, region.offset, readonly, onDirty);
    const there: Memslot = { ...region, log };
    this.#slots.set(slot, there);
    this.#sorted.splice(this.#countUpTo(base), 0, there);
  }

  #createLog(slot: number, pages: number): DirtyLog | undefined {
    if (!this.hasBitmaps) return undefined;
    const log = new DirtyLog(pages, (first, count) => this.protect(slot, first, count));
    // The first log then says that every page is dirty.
    if ((this.manualProtect & INITIALLY_SET) !== 0) log.markAll();
    return log;
  }

  #remove(slot: Memslot): void {
    this.#slots.delete(slot.slot);
    this.#sorted.splice(this.#countUpTo(slot.base) - 1, 1);
    this.#machine.unmap(slot.base, slot.size);
    slot.memory.drop();
  }

  /** Gives every slot's memory back. */
  close(): void {
    for (const slot of this.#sorted.slice().reverse()) this.#remove(slot);
  }
}

function mayChange(old: Memslot, region: UserMemoryRegion, flags: number, offset: number): boolean {
  // A slot of a guest_memfd can only be deleted.
  if ((flags & MemFlag.GUEST_MEMFD) !== 0) return false;
  return (
    old.size === region.memorySize &&
    old.memory === region.memory &&
    old.offset === offset &&
    ((old.flags ^ flags) & (MemFlag.READONLY | MemFlag.GUEST_MEMFD)) === 0
  );
}

function checkNumber(name: string, value: number): void {
  if (!Number.isSafeInteger(value) || value < 0) throw invalid(`${name} ${value} is not an unsigned integer`);
}

const invalid = (detail: string): KvmError => new KvmError('EINVAL', SYSCALL, detail);
