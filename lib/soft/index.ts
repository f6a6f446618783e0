import { createMachine } from './cpu/machine.js';
import { SoftKvm } from './soft-kvm.js';

export { SoftKvm, type SoftKvmOptions } from './soft-kvm.js';

/** Options of {@link openSoft}. */
export interface OpenSoftOptions {
  /** `'host'` (if not given) or `'virtual'`: see {@link SoftKvmOptions.clock}. */
  readonly clock?: 'host' | 'virtual' | undefined;
  /** Bytes of RAM that one VM can have at most; what one linear memory holds, about 3.8 GiB, if not given. */
  readonly maxMemory?: number | undefined;
}

/** Opens the software KVM: the contract of lib/kvm on any machine with JavaScript and WebAssembly. */
export function openSoft(options: OpenSoftOptions = {}): SoftKvm {
  const { clock, maxMemory } = options;
  return new SoftKvm({ clock, createMachine: () => createMachine(maxMemory === undefined ? {} : { maxMemory }) });
}
