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
  /** The words of the last exit, and how to look at them. */
  #data: Uint8Array = new Uint8Array(8);
  #view: DataView = new DataView(this.#data.buffer);
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
    const view = this.#viewOf(exit.data);
    if (exit.isWrite) {
      const value = len === 4 ? view.getUint32(at, true) : len === 2 ? view.getUint16(at, true) : view.getUint8(at);
      device.write(offset, len, value);
      return;
    }
    const value = device.read(offset, len);
    if (len === 4) view.setUint32(at, value, true);
    else if (len === 2) view.setUint16(at, value, true);
    else view.setUint8(at, value);
  }

  /** Backends use one exit again and again. */
  #viewOf(data: Uint8Array): DataView {
    if (this.#data !== data) {
      this.#data = data;
      this.#view = new DataView(data.buffer, data.byteOffset, data.byteLength);
    }
    return this.#view;
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
