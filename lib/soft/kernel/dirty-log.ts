import { KvmError } from '../../kvm/index.js';

/** The dirty bitmap of a memslot: one bit a page, as KVM_GET_DIRTY_LOG gives it (`Documentation/virt/kvm/api.rst` 4.8). */
export class DirtyLog {
  readonly #pages: number;
  readonly #bits: Uint8Array;
  readonly #rearm: (firstPage: number, pages: number) => void;

  /** @param rearm makes the next store to each of these pages mark it again */
  constructor(pages: number, rearm: (firstPage: number, pages: number) => void) {
    this.#pages = pages;
    // The kernel's bitmaps are whole 64-bit words.
    this.#bits = new Uint8Array(Math.ceil(pages / 64) * 8);
    this.#rearm = rearm;
  }

  /** @param page from the slot's first */
  mark(page: number): void {
    this.#bits[page >>> 3]! |= 1 << (page & 7);
  }

  markAll(): void {
    for (let page = 0; page < this.#pages; page++) this.mark(page);
  }

  /** @param manual KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE: the bits stay until {@link clear} */
  get(manual: boolean): Uint8Array {
    const copy = this.#bits.slice();
    if (!manual) {
      this.#bits.fill(0);
      this.#rearm(0, this.#pages);
    }
    return copy;
  }

  /** KVM_CLEAR_DIRTY_LOG, of a first page that is a multiple of 64. @throws KvmError EINVAL */
  clear(firstPage: number, pages: number, bitmap: Uint8Array): void {
    const last = firstPage + pages;
    const whole = pages % 64 === 0 || last === this.#pages;
    const inside = Number.isSafeInteger(last) && firstPage >= 0 && pages >= 0 && last <= this.#pages;
    if (!inside || !whole) {
      const rule = 'pages come in multiples of 64, inside the slot, or up to its end';
      throw new KvmError('EINVAL', 'KVM_CLEAR_DIRTY_LOG', rule);
    }
    if (bitmap.length * 8 < pages) {
      throw new KvmError('EINVAL', 'KVM_CLEAR_DIRTY_LOG', `the bitmap has ${bitmap.length} bytes for ${pages} pages`);
    }
    let first = pages;
    let end = 0;
    for (let i = 0; i < pages; i++) {
      if (((bitmap[i >>> 3]! >>> (i & 7)) & 1) === 0) continue;
      const page = firstPage + i;
      this.#bits[page >>> 3]! &= ~(1 << (page & 7));
      first = Math.min(first, i);
      end = i + 1;
    }
    // One call: a page in between that stays dirty is marked again, which changes nothing.
    if (end > first) this.#rearm(firstPage + first, end - first);
  }
}
