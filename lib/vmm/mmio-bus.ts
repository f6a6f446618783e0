import type { MmioExit } from '../kvm/index.js';
import type { MmioDevice } from './devices/device.js';

interface Mapping {
  readonly base: number;
  readonly end: number;
  readonly device: MmioDevice;
}

/**
 * Gives MMIO exits to the devices of the board. What no device answers reads as zero and ignores writes, as QEMU's
 * unassigned memory does for devices, and is counted.
 */
export class MmioBus {
  readonly #mappings: Mapping[] = [];
  #last: Mapping | undefined;
  /** Accesses that no device answered. */
  unassigned = 0;
  /** Accesses that a device answered. */
  accesses = 0;

  /** Puts `device` at `base`. @throws RangeError where another device is in the way */
  add(base: number, device: MmioDevice): void {
    const end = base + device.size;
    for (const other of this.#mappings) {
      if (base < other.end && other.base < end) {
        throw new RangeError(`${device.name} at 0x${base.toString(16)} would overlap ${other.device.name}`);
      }
    }
    this.#mappings.push({ base, end, device });
  }

  /** Every device, in the order they were added. */
  get devices(): readonly MmioDevice[] {
    return this.#mappings.map((m) => m.device);
  }

  /** Answers an exit: performs the write, or leaves the value of the read in `exit.data`. */
  handle(exit: MmioExit): void {
    const { physAddr, len, data } = exit;
    const mapping = this.#find(physAddr, len);
    if (mapping === undefined) {
      this.unassigned++;
      if (!exit.isWrite) data.fill(0);
      return;
    }
    this.accesses++;
    const offset = physAddr - mapping.base;
    if (len === 8) {
      // No device of this board has a 64-bit register: two halves, low first, as a 32-bit bus does it.
      this.#access(mapping.device, offset, 4, exit, 0);
      this.#access(mapping.device, offset + 4, 4, exit, 4);
    } else {
      this.#access(mapping.device, offset, len, exit, 0);
    }
  }

  #access(device: MmioDevice, offset: number, len: number, exit: MmioExit, at: number): void {
    const { data } = exit;
    if (exit.isWrite) {
      let value = 0;
      for (let i = len - 1; i >= 0; i--) value = value * 256 + data[at + i]!;
      device.write(offset, len, value);
      return;
    }
    const value = device.read(offset, len);
    for (let i = 0; i < len; i++) data[at + i] = value >>> (8 * i);
  }

  #find(addr: number, len: number): Mapping | undefined {
    const last = this.#last;
    if (last !== undefined && addr >= last.base && addr + len <= last.end) return last;
    for (const mapping of this.#mappings) {
      if (addr >= mapping.base && addr + len <= mapping.end) {
        this.#last = mapping;
        return mapping;
      }
    }
    return undefined;
  }
}
