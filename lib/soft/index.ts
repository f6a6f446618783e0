import { createMachine } from './cpu/machine.js';
import type { CompilerThread } from './jit/compiler-thread.js';
import { SoftKvm } from './soft-kvm.js';

export {
  type CompileReply,
  type CompileRequest,
  type CompilerReply,
  type CompilerThread,
  CompileServer,
  type CompileServerOptions,
  type KeptModuleReply,
  type KeptPart,
  type KeptReply,
  type RegionRequest,
} from './jit/compiler-thread.js';
export { functionsOf } from './jit/idle-instance.js';
export { engineId, KeptArchive, type NewRegion, regionHash } from './jit/kept-archive.js';
export { type KeptModule, parseKeptModule, serializeKeptModule } from './jit/kept-module.js';
export { parseShapes } from './jit/kept-shape.js';
export type { ModuleImports } from './jit/linkage.js';
export { parseRegionName, type RegionName } from './jit/region-name.js';
export { Wasm, type WasmMemory, type WasmModule } from './jit/webassembly.js';
export { SoftKvm, type SoftKvmOptions } from './soft-kvm.js';

/** Options of {@link openSoft}. */
export interface OpenSoftOptions {
  /** `'host'` (if not given) or `'virtual'`: see {@link SoftKvmOptions.clock}. */
  readonly clock?: 'host' | 'virtual' | undefined;
  /** Bytes of RAM that one VM can have at most; what one linear memory holds, about 3.8 GiB, if not given. */
  readonly maxMemory?: number | undefined;
  /** Makes the thread that compiles hot code for one VM; without, a VM compiles between two runs of its vCPUs. */
  readonly compiler?: (() => CompilerThread | undefined) | undefined;
}

/** Opens the software KVM: the contract of lib/kvm on any machine with JavaScript and WebAssembly. */
export function openSoft(options: OpenSoftOptions = {}): SoftKvm {
  const { clock, maxMemory, compiler } = options;
  return new SoftKvm({
    clock,
    createMachine: () => createMachine({ ...(maxMemory === undefined ? {} : { maxMemory }), compiler: compiler?.() }),
  });
}
