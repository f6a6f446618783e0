import { type DirtyPage, KvmError } from '../../kvm/index.js';

/** `struct kvm_dirty_gfn`: flags, slot, offset. */
export const DIRTY_GFN_SIZE = 16;
/** Entries of the largest ring (KVM_DIRTY_RING_MAX_ENTRIES): KVM_CAP_DIRTY_LOG_RING_ACQ_REL says it in bytes. */
const MAX_ENTRIES = 65_536;
export const DIRTY_RING_MAX_BYTES = MAX_ENTRIES * DIRTY_GFN_SIZE;
/** Entries that stay free for what a vCPU dirties on its way out (KVM_DIRTY_RING_RSVD_ENTRIES). */
const RESERVED_ENTRIES = 64;
const PAGE_SIZE = 4096;

/** What KVM_ENABLE_CAP takes as a size. @throws KvmError EINVAL, E2BIG */
export function checkRingSize(bytes: number): void {
  const fail = (code: 'EINVAL' | 'E2BIG'): never => {
    throw new KvmError(
      code,
      'KVM_ENABLE_CAP',
      `a ring has a power of two of ${PAGE_SIZE} to ${DIRTY_RING_MAX_BYTES} bytes`,
    );
  };
  if (!Number.isSafeInteger(bytes) || bytes < PAGE_SIZE || 2 ** Math.floor(Math.log2(bytes)) !== bytes) fail('EINVAL');
  if (bytes > DIRTY_RING_MAX_BYTES) fail('E2BIG');
}

/**
 * The dirty ring of a vCPU (`Documentation/virt/kvm/api.rst` 8.29). An entry is made by a store, collected by user space, and
 * reset by KVM_RESET_DIRTY_RINGS, in this order; full is a ring where less than a reserve is left that is reset.
 */
export class DirtyRing {
  readonly #limit: number;
  /** Made and not yet reset, the oldest first; of these the first `#collected` are collected. */
  #entries: DirtyPage[] = [];
  #collected = 0;

  /** @param bytes as {@link checkRingSize} allows */
  constructor(bytes: number) {
    this.#limit = bytes / DIRTY_GFN_SIZE - RESERVED_ENTRIES;
  }

  push(slot: number, offset: number): void {
    this.#entries.push({ slot, offset });
  }

  /** The vCPU may not run on. */
  get isFull(): boolean {
    return this.#entries.length >= this.#limit;
  }

  /** Takes the entries that were not yet taken. */
  collect(): DirtyPage[] {
    const fresh = this.#entries.slice(this.#collected);
    this.#collected = this.#entries.length;
    return fresh;
  }

  /** Forgets what is collected. @returns it */
  reset(): DirtyPage[] {
    const done = this.#entries.splice(0, this.#collected);
    this.#collected = 0;
    return done;
  }
}
