import type { GuestMemory } from '../kvm/index.js';
import type { GuestRam } from './devices/device.js';

/** Guest RAM of one region, as devices see it. */
export class BoardRam implements GuestRam {
  readonly base: number;
  readonly #memory: GuestMemory;

  constructor(base: number, memory: GuestMemory) {
    this.base = base;
    this.#memory = memory;
  }

  view(addr: number, length: number): Uint8Array | undefined {
    const offset = this.#offset(addr, length);
    return offset === undefined ? undefined : partOf(this.#memory, offset, length);
  }

  written(addr: number, length: number): void {
    const offset = this.#offset(addr, length);
    if (offset !== undefined && length > 0) this.#memory.written(offset, length);
  }

  #offset(addr: number, length: number): number | undefined {
    const offset = addr - this.base;
    // A device whose VM is gone (a disk request that was under way) finds no memory.
    if (this.#memory.closed || !Number.isSafeInteger(offset) || !Number.isSafeInteger(length)) return undefined;
    return offset >= 0 && length >= 0 && offset + length <= this.#memory.size ? offset : undefined;
  }
}

/** Bytes of a memory, as its KVM likes to give them. */
export function partOf(memory: GuestMemory, offset: number, length: number): Uint8Array {
  return memory.view?.(offset, length) ?? memory.bytes.subarray(offset, offset + length);
}
