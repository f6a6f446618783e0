import type { DirtyPage } from '../kvm/index.js';

/** `struct kvm_dirty_gfn`: flags, slot, offset (include/uapi/linux/kvm.h). */
const ENTRY = { SIZE: 16, SLOT: 4, OFFSET: 8 } as const;
const FLAG_DIRTY = 1;
const FLAG_RESET = 2;

/**
 * A vCPU's dirty ring, where the kernel writes it. The flags are read and written with barriers: on arm64 the kernel offers
 * the ring only so (KVM_CAP_DIRTY_LOG_RING_ACQ_REL).
 */
export class HostDirtyRing {
  readonly buffer: ArrayBuffer;
  readonly #flags: Int32Array;
  readonly #view: DataView;
  #next = 0;

  constructor(buffer: ArrayBuffer) {
    this.buffer = buffer;
    this.#flags = new Int32Array(buffer);
    this.#view = new DataView(buffer);
  }

  /** Takes the entries that are dirty. */
  collect(): DirtyPage[] {
    const pages: DirtyPage[] = [];
    const count = this.buffer.byteLength / ENTRY.SIZE;
    for (let n = 0; n < count; n++) {
      const at = this.#next * ENTRY.SIZE;
      if (Atomics.load(this.#flags, at / 4) !== FLAG_DIRTY) break;
      const slot = this.#view.getUint32(at + ENTRY.SLOT, true);
      pages.push({ slot, offset: Number(this.#view.getBigUint64(at + ENTRY.OFFSET, true)) });
      Atomics.store(this.#flags, at / 4, FLAG_RESET);
      this.#next = (this.#next + 1) % count;
    }
    return pages;
  }
}
