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

/** Where a device is. Unaligned accesses read as zero and write nothing, as in the vGIC. */
export class IoRange {
  readonly base: number;
  readonly end: number;
  readonly #device: IoDevice;

  constructor(base: number, size: number, device: IoDevice) {
    this.base = base;
    this.end = base + size;
    this.#device = device;
  }

  /** Reads 1, 2 or 4 bytes. @returns unsigned */
  read(addr: number, len: number): number {
    return (addr & (len - 1)) === 0 ? this.#device.read(addr - this.base, len) >>> 0 : 0;
  }

  /** Reads half of an access of eight bytes at `addr`. @param half 0, and then 4 */
  readHalf(addr: number, half: 0 | 4): number {
    const offset = addr - this.base;
    if ((addr & 7) !== 0 || !this.#device.isWide(offset)) return 0;
    return this.#device.read(offset + half, 4) >>> 0;
  }

  /** Writes 1 to 8 bytes. @param lo @param hi the value's halves, unsigned; no bits beyond `len` */
  write(addr: number, len: number, lo: number, hi: number): void {
    if ((addr & (len - 1)) !== 0) return;
    const offset = addr - this.base;
    if (len < 8) {
      this.#device.write(offset, len, lo);
    } else if (this.#device.isWide(offset)) {
      this.#device.write(offset, 4, lo);
      this.#device.write(offset + 4, 4, hi);
    }
  }
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

/** An ioeventfd with the halves of its datamatch. */
interface Candidate extends IoEventFd {
  readonly lo: number;
  readonly hi: number;
}

/** What answers in a page of the guest's physical addresses. */
interface BusPage {
  readonly page: number;
  /** The first address in it, and the first behind it. */
  readonly from: number;
  readonly to: number;
  readonly ranges: readonly IoRange[];
  readonly hasEventFds: boolean;
}

const PAGE = 4096;
/** Pages remembered, by number. */
const PAGES = 64;
const NO_PAGE: BusPage = { page: -1, from: 0, to: 0, ranges: [], hasEventFds: false };

/** KVM_MMIO_BUS: what of the guest's physical address space is answered without an exit. */
export class IoBus {
  readonly #ranges: IoRange[] = [];
  readonly #eventFds = new Map<number, Candidate[]>();
  /** Pages that were accessed since the bus last changed. */
  readonly #pages = new Array<BusPage | undefined>(PAGES).fill(undefined);
  /** The last of them. */
  #last = NO_PAGE;

  /** Of devices that overlap the first answers: their owners check where that is a mistake. */
  addDevice(base: number, size: number, device: IoDevice): void {
    this.#ranges.push(new IoRange(base, size, device));
    this.#changed();
  }

  /** Forgets what was answered where. */
  #changed(): void {
    this.#pages.fill(undefined);
    this.#last = NO_PAGE;
  }

  #pageOf(addr: number): BusPage {
    const last = this.#last;
    if (addr >= last.from && addr < last.to) return last;
    const page = Math.floor(addr / PAGE);
    const known = this.#pages[page % PAGES];
    if (known !== undefined && known.page === page) {
      this.#last = known;
      return known;
    }
    const [from, to] = [page * PAGE, page * PAGE + PAGE];
    const found: BusPage = {
      page,
      from,
      to,
      ranges: this.#ranges.filter((range) => range.base < to && range.end > from),
      hasEventFds: [...this.#eventFds.keys()].some((at) => at >= from && at < to),
    };
    this.#pages[page % PAGES] = found;
    this.#last = found;
    return found;
  }

  /** The device at `addr`, if the whole access is its. */
  find(addr: number, len: number): IoRange | undefined {
    for (const range of this.#pageOf(addr).ranges) if (addr >= range.base && addr + len <= range.end) return range;
    return undefined;
  }

  /** The ioeventfd that a write signals. @param lo @param hi the value's halves, unsigned; no bits beyond `len` */
  matchEventFd(addr: number, len: number, lo: number, hi: number): IoEventFd | undefined {
    if (!this.#pageOf(addr).hasEventFds) return undefined;
    const candidates = this.#eventFds.get(addr);
    if (candidates === undefined) return undefined;
    for (const io of candidates) {
      if (io.len === 0) return io;
      if (io.len === len && (io.datamatch === undefined || (io.lo === lo && io.hi === hi))) return io;
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
    const datamatch = io.datamatch ?? 0n;
    const halves = { lo: Number(BigInt.asUintN(32, datamatch)), hi: Number(datamatch >> 32n) };
    this.#eventFds.set(io.addr, [...there, { ...io, ...halves }]);
    this.#changed();
  }

  /** @throws KvmError ENOENT no such ioeventfd */
  removeEventFd(io: IoEventFd): void {
    const there = this.#eventFds.get(io.addr) ?? [];
    const left = there.filter((o) => o.fd !== io.fd || o.len !== io.len || o.datamatch !== io.datamatch);
    if (left.length === there.length) throw new KvmError('ENOENT', 'KVM_IOEVENTFD', 'no such ioeventfd');
    if (left.length === 0) this.#eventFds.delete(io.addr);
    else this.#eventFds.set(io.addr, left);
    this.#changed();
  }
}
