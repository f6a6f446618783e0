import type { Memslot, Memslots } from './memslots.js';

/**
 * Guest memory as the kernel half itself reads and writes it (kernel: kvm_read_guest, kvm_write_guest): one naturally aligned
 * integer at a time, so that none crosses a page. Every address comes from a guest or a caller, and may lead nowhere.
 */
export class GuestAccess {
  readonly #slots: Memslots;

  constructor(slots: Memslots) {
    this.#slots = slots;
  }

  /** Whether a memslot has the address (kernel: kvm_is_visible_gfn). */
  isVisible(address: number): boolean {
    return this.#slots.find(address, 1) !== undefined;
  }

  /** Whether a memslot that can be written has the address. */
  isWritable(address: number): boolean {
    return this.#slots.findWritable(address, 1) !== undefined;
  }

  /** @returns `undefined` where there is no memory */
  read8(address: number): number | undefined {
    const slot = this.#slots.find(address, 1);
    return slot === undefined || !allows(slot, address, false)
      ? undefined
      : slot.memory.backing.bytes[slot.offset + address - slot.base];
  }

  /** @param address a multiple of 8 @returns `undefined` where there is no memory */
  read64(address: number): bigint | undefined {
    const slot = this.#slots.find(address, 8);
    return slot === undefined || !allows(slot, address, false)
      ? undefined
      : viewOf(slot).getBigUint64(slot.offset + address - slot.base, true);
  }

  /** @returns whether there is memory that can be written */
  write8(address: number, value: number): boolean {
    const slot = this.#slots.findWritable(address, 1);
    if (slot === undefined || !allows(slot, address, true)) return false;
    slot.memory.backing.bytes[slot.offset + address - slot.base] = value;
    this.#slots.written(slot, address, 1);
    return true;
  }

  /** @param address a multiple of 8 @returns whether there is memory that can be written */
  write64(address: number, value: bigint): boolean {
    const slot = this.#slots.findWritable(address, 8);
    if (slot === undefined || !allows(slot, address, true)) return false;
    viewOf(slot).setBigUint64(slot.offset + address - slot.base, value, true);
    this.#slots.written(slot, address, 8);
    return true;
  }
}

/** Whether the page may be used (`MmuNotifier.protect`). */
const allows = (slot: Memslot, address: number, isWrite: boolean): boolean =>
  slot.memory.backing.allows(slot.offset + address - slot.base, isWrite);

function viewOf(slot: Memslot): DataView {
  const { buffer, byteOffset, byteLength } = slot.memory.backing.bytes;
  return new DataView(buffer, byteOffset, byteLength);
}
