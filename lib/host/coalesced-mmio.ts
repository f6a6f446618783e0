import type { CoalescedMmio } from '../kvm/index.js';

/** KVM_COALESCED_MMIO_PAGE_OFFSET: of the pages behind `struct kvm_run`. */
const PAGE_OFFSET = 1;
/** `struct kvm_coalesced_mmio_ring`: first, last, and entries (include/uapi/linux/kvm.h). */
const FIRST = 0;
const LAST = 1;
const ENTRIES = 8;
/** `struct kvm_coalesced_mmio`: address, length, padding, data. */
const ENTRY = { SIZE: 24, LEN: 8, DATA: 16, MAX_DATA: 8 } as const;
const NONE: readonly CoalescedMmio[] = [];

/** The ring that all vCPUs of a VM share, seen through one of them. */
export class CoalescedRing {
  readonly #page: Uint8Array<ArrayBuffer>;
  readonly #view: DataView;
  readonly #indices: Uint32Array;
  readonly #count: number;

  /** @param area the mapping of a vCPU */
  constructor(area: ArrayBuffer, pageSize: number) {
    this.#page = new Uint8Array(area, pageSize * PAGE_OFFSET, pageSize);
    this.#view = new DataView(area, pageSize * PAGE_OFFSET, pageSize);
    this.#indices = new Uint32Array(area, pageSize * PAGE_OFFSET, 2);
    this.#count = Math.floor((pageSize - ENTRIES) / ENTRY.SIZE);
  }

  /** Takes the writes that are in it. */
  take(): readonly CoalescedMmio[] {
    const indices = this.#indices;
    let first = Atomics.load(indices, FIRST);
    const last = Atomics.load(indices, LAST);
    const count = this.#count;
    if (first === last || first >= count || last >= count) return NONE;
    const view = this.#view;
    const writes: CoalescedMmio[] = [];
    for (; first !== last; first = (first + 1) % count) {
      const at = ENTRIES + first * ENTRY.SIZE;
      const physAddr = view.getUint32(at, true) + view.getUint32(at + 4, true) * 2 ** 32;
      const len = Math.min(view.getUint32(at + ENTRY.LEN, true), ENTRY.MAX_DATA);
      writes.push({ physAddr, len, data: this.#page.slice(at + ENTRY.DATA, at + ENTRY.DATA + len) });
    }
    Atomics.store(indices, FIRST, first);
    return writes;
  }
}
