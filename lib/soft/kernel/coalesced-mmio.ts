import { type CoalescedMmio, KvmError } from '../../kvm/index.js';

/** Devices of a bus at most (NR_IOBUS_DEVS). */
const MAX_ZONES = 1000;
/** Entries of the ring's page, of which one stays free (KVM_COALESCED_MMIO_MAX of a 4 KiB page). */
const CAPACITY = Math.floor((4096 - 8) / 24) - 1;

interface Zone {
  readonly addr: number;
  readonly end: number;
}

/** Coalesced MMIO (`Documentation/virt/kvm/api.rst` 4.116): writes that wait in a ring instead of being exits. */
export class CoalescedZones {
  #zones: Zone[] = [];
  #ring: CoalescedMmio[] = [];

  /** @throws KvmError EINVAL, ENOSPC */
  add(addr: number, size: number): void {
    checkRange(addr, size, 'KVM_REGISTER_COALESCED_MMIO');
    if (this.#zones.length >= MAX_ZONES) {
      throw new KvmError('ENOSPC', 'KVM_REGISTER_COALESCED_MMIO', `there are ${MAX_ZONES} zones`);
    }
    this.#zones.push({ addr, end: addr + size });
  }

  /** Removes every zone that has all of the range. @throws KvmError EINVAL */
  remove(addr: number, size: number): void {
    checkRange(addr, size, 'KVM_UNREGISTER_COALESCED_MMIO');
    this.#zones = this.#zones.filter((zone) => !contains(zone, addr, size));
  }

  /** Whether a write is kept: else it is an exit. */
  takes(addr: number, len: number): boolean {
    if (this.#zones.length === 0 || this.#ring.length >= CAPACITY) return false;
    return this.#zones.some((zone) => contains(zone, addr, len));
  }

  /** Keeps a write that {@link takes} has room for. */
  write(addr: number, len: number, value: bigint): void {
    const data = new Uint8Array(8);
    new DataView(data.buffer).setBigUint64(0, BigInt.asUintN(64, value), true);
    this.#ring.push({ physAddr: addr, len, data: data.subarray(0, len) });
  }

  take(): CoalescedMmio[] {
    const taken = this.#ring;
    this.#ring = [];
    return taken;
  }
}

const contains = (zone: Zone, addr: number, len: number): boolean => addr >= zone.addr && addr + len <= zone.end;

function checkRange(addr: number, size: number, syscall: string): void {
  const whole = Number.isSafeInteger(addr) && addr >= 0 && Number.isSafeInteger(size) && size >= 0;
  if (!whole || !Number.isSafeInteger(addr + size) || size > 0xffff_ffff) {
    throw new KvmError('EINVAL', syscall, `${size} bytes at ${addr} are no zone`);
  }
}
