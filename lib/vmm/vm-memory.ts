import { Cap, type GuestMemory, type Kvm, KvmError, type Vm } from '../kvm/index.js';
import { ipaBitsFor, RAM_BASE } from './board.js';
import { DTB_MAX_SIZE, type Kernel, type Load, type Placement, placeBoot } from './boot/index.js';
import type { ImageRam } from './boot-images.js';
import { VmError } from './errors.js';
import { partOf } from './guest-ram.js';
import type { ResolvedOptions } from './options.js';

/** What a {@link VmMemory} depends on of a VM's options. */
export type MemoryOptions = Pick<ResolvedOptions, 'memory' | 'hugePages'>;

/** A VM that has its RAM and nothing else yet: what it starts with can be read into it while a machine is built on it. */
export class VmMemory implements ImageRam {
  readonly vm: Vm;
  readonly memory: GuestMemory;
  /** RAM that {@link bytesAt} gave, by address: what is there need not be put there. */
  readonly #readInto = new Map<number, Uint8Array>();

  /** @throws VmError there is not as much memory; KvmError. Nothing is left open. */
  constructor(kvm: Kvm, options: MemoryOptions) {
    this.vm = kvm.createVm(ipaBitsFor(options.memory));
    let memory: GuestMemory | undefined;
    try {
      this.#takeAccessesWithoutSyndrome();
      memory = this.#createMemory(options);
      this.vm.setUserMemoryRegion({ slot: 0, guestPhysAddr: RAM_BASE, memorySize: options.memory, memory });
      this.memory = memory;
    } catch (error) {
      memory?.close();
      this.vm.close();
      throw error;
    }
  }

  /** Nothing may be reading into the RAM any more. */
  close(): void {
    this.memory.close();
    this.vm.close();
  }

  /** A guest that reaches for a device by what says nothing of itself (a pair, a vector) has an external abort, and does not end the VM. */
  #takeAccessesWithoutSyndrome(): void {
    const needed = [Cap.ARM_NISV_TO_USER, Cap.ARM_INJECT_EXT_DABT];
    if (needed.every((cap) => this.vm.checkExtension(cap) > 0)) this.vm.enableCap(Cap.ARM_NISV_TO_USER);
  }

  #createMemory({ memory: size, hugePages }: MemoryOptions): GuestMemory {
    try {
      return this.vm.createMemory(size, { hugePageSize: hugePages });
    } catch (error) {
      if (hugePages !== undefined && KvmError.is(error)) {
        const code = error.code === 'ENOMEM' ? 'ERR_MEMORY_UNAVAILABLE' : 'ERR_INVALID_OPTION';
        throw new VmError(code, `hugePages: ${error.message}; or leave the option out`, { cause: error });
      }
      if (!KvmError.is(error, 'ENOMEM') && !(error instanceof RangeError)) throw error;
      throw new VmError(
        'ERR_MEMORY_UNAVAILABLE',
        `memory: there is no room for ${size / 2 ** 20} MiB here (${error.message}); give less`,
        {
          cause: error,
        },
      );
    }
  }

  place(kernel: Kernel, initrdSize: number | undefined): Placement {
    return placeBoot({ ram: { base: RAM_BASE, size: this.memory.size }, kernel, initrdSize, dtbSize: DTB_MAX_SIZE });
  }

  bytesAt(address: number, size: number): Uint8Array {
    const bytes = partOf(this.memory, address - RAM_BASE, size);
    this.#readInto.set(address, bytes);
    return bytes;
  }

  /** Puts something in its place, if it is not read into it. */
  put({ address, bytes }: Load): void {
    const offset = address - RAM_BASE;
    // Fresh RAM is zero: what the bytes do not fill (the BSS) need not be written.
    if (this.#readInto.get(address) !== bytes) partOf(this.memory, offset, bytes.length).set(bytes);
    if (bytes.length > 0) this.memory.written(offset, bytes.length);
  }

  /** All is in its place. */
  settled(): void {
    this.#readInto.clear();
  }
}
