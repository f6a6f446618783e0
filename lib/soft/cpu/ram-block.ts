import type { PageProtection } from '../../kvm/contract.js';
import { isAllowed, PageState, type RamPages } from '../mmu/page-states.js';
import type { MachineMemory } from './cpu.js';

const PAGE = 4096;

/** What a block needs of its machine. */
export interface RamOwner {
  /** The linear memory of the block. */
  bytesAt(address: number, size: number): Uint8Array;
  /** Whether code of any page is known. */
  readonly hasCode: boolean;
  /** Forgets code of a page. @param page linear address */
  forgetCode(page: number): void;
  /** Forgets every translation of every vCPU. */
  flushTlbs(): void;
  /** Takes the block back. */
  release(address: number, size: number): void;
}

/** A range of linear memory that is RAM. */
export class RamBlock implements MachineMemory, RamPages {
  readonly #owner: RamOwner;
  readonly address: number;
  readonly size: number;
  readonly bytes: Uint8Array;
  #states: Uint8Array | undefined;
  #freed = false;

  /** @param address linear address of `size` zeroed bytes */
  constructor(owner: RamOwner, address: number, size: number) {
    this.#owner = owner;
    this.address = address;
    this.size = size;
    this.bytes = owner.bytesAt(address, size);
  }

  get states(): Uint8Array | undefined {
    return this.#states;
  }

  /** The bytes of the pages of a range, from now on asked at every translation. */
  #statesOf(offset: number, length: number): Uint8Array {
    // What was used before is not known, so it counts as used.
    this.#states ??= new Uint8Array(this.size / PAGE).fill(PageState.YOUNG);
    return this.#states.subarray(offset / PAGE, (offset + length) / PAGE);
  }

  invalidate(offset: number, length: number): void {
    if (length === 0 || !this.#owner.hasCode) return;
    const first = Math.floor((this.address + offset) / PAGE) * PAGE;
    for (let page = first; page < this.address + offset + length; page += PAGE) this.#owner.forgetCode(page);
  }

  protect(offset: number, length: number, use: PageProtection): void {
    const states = this.#statesOf(offset, length);
    const denied = use === 'none' ? PageState.NO_ACCESS : use === 'read' ? PageState.NO_STORE : 0;
    for (let i = 0; i < states.length; i++) states[i] = (states[i]! & PageState.YOUNG) | denied;
    this.#owner.flushTlbs();
  }

  allows(offset: number, isWrite: boolean): boolean {
    return isAllowed(this.#states?.[Math.floor(offset / PAGE)] ?? 0, isWrite);
  }

  used(offset: number, length: number): Uint8Array {
    const states = this.#statesOf(offset, length);
    // Whole 64-bit words, as the kernel's bitmaps are.
    const bits = new Uint8Array(Math.ceil(states.length / 64) * 8);
    for (let i = 0; i < states.length; i++) if ((states[i]! & PageState.YOUNG) !== 0) bits[i >>> 3]! |= 1 << (i & 7);
    return bits;
  }

  clearUsed(offset: number, length: number): void {
    const states = this.#statesOf(offset, length);
    for (let i = 0; i < states.length; i++) states[i]! &= ~PageState.YOUNG;
    // What a table answers would not be seen.
    this.#owner.flushTlbs();
  }

  free(): void {
    if (this.#freed) return;
    this.#freed = true;
    this.invalidate(0, this.size);
    this.#owner.release(this.address, this.size);
  }
}
