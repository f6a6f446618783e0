import type { CoalescedMmio } from '../kvm/index.js';

/** `struct kvm_coalesced_mmio_ring`: first, last, and entries (include/uapi/linux/kvm.h). */
const FIRST = 0;
const LAST = 1;
const ENTRIES = 8;
/** `struct kvm_coalesced_mmio`: address, length, padding, data. */
const ENTRY = { SIZE: 24, LEN: 8, DATA: 16 } as const;

/** Takes the writes that are in the ring. @param page the ring's */
export function takeCoalescedMmio(page: Uint8Array<ArrayBuffer>): CoalescedMmio[] {
  const view = new DataView(page.buffer, page.byteOffset, page.length);
  const indices = new Uint32Array(page.buffer, page.byteOffset, 2);
  const count = Math.floor((page.length - ENTRIES) / ENTRY.SIZE);
  const writes: CoalescedMmio[] = [];
  for (let n = 0; n < count; n++) {
    const first = Atomics.load(indices, FIRST);
    if (first >= count || first === Atomics.load(indices, LAST)) break;
    const at = ENTRIES + first * ENTRY.SIZE;
    const len = Math.min(view.getUint32(at + ENTRY.LEN, true), 8);
    const physAddr = Number(view.getBigUint64(at, true));
    writes.push({ physAddr, len, data: page.slice(at + ENTRY.DATA, at + ENTRY.DATA + len) });
    Atomics.store(indices, FIRST, (first + 1) % count);
  }
  return writes;
}
