import { KvmError, type MmuNotifier, type PageProtection } from '../../kvm/index.js';
import type { MachineMemory } from '../cpu/cpu.js';

const PAGE_SIZE = 4096;
const PROTECTIONS: readonly unknown[] = ['none', 'read', 'read-write'] satisfies PageProtection[];

/** The pages of a memory, as whoever manages them changes them under its VM. */
export class MemoryNotifier implements MmuNotifier {
  readonly #memory: MachineMemory;
  readonly #protects: boolean;
  readonly #isClosed: () => boolean;
  #listener: ((offset: number) => void) | undefined;

  /** @param init.protects whether a protection reaches guests: that of a mapping of a guest_memfd does not */
  constructor(memory: MachineMemory, init: { readonly protects: boolean; readonly isClosed: () => boolean }) {
    this.#memory = memory;
    this.#protects = init.protects;
    this.#isClosed = init.isClosed;
  }

  #check(name: string, offset: number, length: number): void {
    const isPages = (n: number): boolean => Number.isSafeInteger(n) && n >= 0 && n % PAGE_SIZE === 0;
    if (!isPages(offset) || !isPages(length))
      throw new RangeError(`${name}(${offset}, ${length}): offset and length are multiples of ${PAGE_SIZE}`);
    if (offset + length > this.#memory.size)
      throw new RangeError(`${name}(${offset}, ${length}): the memory has ${this.#memory.size} bytes`);
    if (this.#isClosed()) throw new KvmError('EBADF', name, 'the memory is closed');
  }

  protect(offset: number, length: number, protection: PageProtection): void {
    this.#check('protect', offset, length);
    if (!PROTECTIONS.includes(protection))
      throw new RangeError(`protect: ${JSON.stringify(protection)} is none of ${PROTECTIONS.join(', ')}`);
    if (!this.#protects) {
      throw new KvmError('EINVAL', 'protect', "guests have a guest_memfd's pages whatever its mapping's protection is");
    }
    this.#memory.protect(offset, length, protection);
  }

  onFault(listener: ((offset: number) => void) | undefined): void {
    this.#listener = listener;
  }

  /** A guest may not use the page as it does. @returns whether the listener lets it do more than before */
  resolve(offset: number): boolean {
    if (this.#listener === undefined) return false;
    const before = this.#rights(offset);
    this.#listener(offset);
    return this.#rights(offset) > before;
  }

  /** How much guests may do with the page: the more, the higher. */
  #rights(offset: number): number {
    return Number(this.#memory.allows(offset, false)) + Number(this.#memory.allows(offset, true));
  }

  discard(offset: number, length: number): void {
    this.#check('discard', offset, length);
    this.#memory.bytes.fill(0, offset, offset + length);
    this.#memory.invalidate(offset, length);
  }

  testYoung(offset: number, length: number): Uint8Array {
    this.#check('testYoung', offset, length);
    return this.#memory.used(offset, length);
  }

  clearYoung(offset: number, length: number): Uint8Array {
    this.#check('clearYoung', offset, length);
    const young = this.#memory.used(offset, length);
    this.#memory.clearUsed(offset, length);
    return young;
  }
}
