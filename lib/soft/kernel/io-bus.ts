import { KvmError } from '../../kvm/index.js';
import type { SoftEventFd } from './eventfd.js';

/** A device that the kernel half answers itself: the frames of the vGIC. */
export interface IoDevice {
  /** @param len 1, 2 or 4 @returns unsigned, below 2^(8·len) */
  read(offset: number, len: number): number;
  write(offset: number, len: number, value: number): void;
  /** Whether the register at `offset` may be accessed 64 bits wide; the bus then makes two accesses of it. */
  isWide(offset: number): boolean;
}

interface IoRange {
  readonly base: number;
  readonly end: number;
  readonly device: IoDevice;
}

/** An ioeventfd: a guest write that signals instead of exiting (`Documentation/virt/kvm/api.rst` 4.59). */
export interface IoEventFd {
  readonly addr: number;
  /** 0 matches any length. */
  readonly len: number;
  /** `undefined` matches any value. */
  readonly datamatch: bigint | undefined;
  readonly fd: SoftEventFd;
}

/** KVM_MMIO_BUS: what of the guest's physical address space is answered without an exit. */
export class IoBus {
  readonly #ranges: IoRange[] = [];
  readonly #eventFds = new Map<number, IoEventFd[]>();
  #last: IoRange | undefined;

  /** Of devices that overlap the first answers: their owners check where that is a mistake. */
  addDevice(base: number, size: number, device: IoDevice): void {
    this.#ranges.push({ base, end: base + size, device });
  }

  /** The device at `addr`, if the whole access is its. */
  #find(addr: number, len: number): IoRange | undefined {
    const last = this.#last;
    if (last !== undefined && addr >= last.base && addr + len <= last.end) return last;
    for (const range of this.#ranges) {
      if (addr >= range.base && addr + len <= range.end) {
        this.#last = range;
        return range;
      }
    }
    return undefined;
  }

  /** Whether a device answers reads of `len` bytes at `addr`. */
  hasDevice(addr: number, len: number): boolean {
    return this.#find(addr, len) !== undefined;
  }

  /** Reads up to four bytes from a device that {@link hasDevice} found. Unaligned accesses read as zero, as in the vGIC. */
  read(addr: number, len: number): number {
    const range = this.#find(addr, len);
    if (range === undefined || (addr & (len - 1)) !== 0) return 0;
    return range.device.read(addr - range.base, len) >>> 0;
  }

  /** Reads eight bytes. */
  read64(addr: number): bigint {
    const range = this.#find(addr, 8);
    if (range === undefined || (addr & 7) !== 0) return 0n;
    const offset = addr - range.base;
    if (!range.device.isWide(offset)) return 0n;
    const low = range.device.read(offset, 4) >>> 0;
    return (BigInt(range.device.read(offset + 4, 4) >>> 0) << 32n) | BigInt(low);
  }

  write(addr: number, len: number, value: bigint): void {
    const range = this.#find(addr, len);
    if (range === undefined || (addr & (len - 1)) !== 0) return;
    const offset = addr - range.base;
    if (len < 8) {
      range.device.write(offset, len, Number(BigInt.asUintN(len * 8, value)));
    } else if (range.device.isWide(offset)) {
      range.device.write(offset, 4, Number(value & 0xffff_ffffn));
      range.device.write(offset + 4, 4, Number((value >> 32n) & 0xffff_ffffn));
    }
  }

  /** The ioeventfd that a write of `value` signals. */
  matchEventFd(addr: number, len: number, value: bigint): IoEventFd | undefined {
    const candidates = this.#eventFds.get(addr);
    if (candidates === undefined) return undefined;
    for (const io of candidates) {
      if (io.len === 0) return io;
      if (io.len === len && (io.datamatch === undefined || io.datamatch === BigInt.asUintN(len * 8, value))) return io;
    }
    return undefined;
  }

  /** @throws KvmError EEXIST one that matches the same writes is there */
  addEventFd(io: IoEventFd): void {
    const there = this.#eventFds.get(io.addr) ?? [];
    const collides = there.some(
      (other) =>
        other.len === 0 ||
        io.len === 0 ||
        (other.len === io.len &&
          (other.datamatch === undefined || io.datamatch === undefined || other.datamatch === io.datamatch)),
    );
    if (collides) throw new KvmError('EEXIST', 'KVM_IOEVENTFD', `0x${io.addr.toString(16)} has such an ioeventfd`);
    this.#eventFds.set(io.addr, [...there, io]);
  }

  /** @throws KvmError ENOENT no such ioeventfd */
  removeEventFd(io: IoEventFd): void {
    const there = this.#eventFds.get(io.addr) ?? [];
    const left = there.filter((o) => o.fd !== io.fd || o.len !== io.len || o.datamatch !== io.datamatch);
    if (left.length === there.length) throw new KvmError('ENOENT', 'KVM_IOEVENTFD', 'no such ioeventfd');
    if (left.length === 0) this.#eventFds.delete(io.addr);
    else this.#eventFds.set(io.addr, left);
  }
}
