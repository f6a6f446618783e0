import { MAXIMUM_PAGES } from '../cpu/layout.js';
import { MAX_HANDLERS, MAX_REGIONS } from './handler.js';
import { type Linkage, link, type ModuleImports } from './linkage.js';
import { Wasm, type WasmModule } from './webassembly.js';

const nothing = (): number => 0;
const SIZE = MAX_HANDLERS + MAX_REGIONS;

/** Of no machine; one for all modules: it reserves 4 GiB of addresses. */
let linkage: Linkage | undefined;

/**
 * The functions of a module of regions, of an instance without a machine: to be looked at, not to be called.
 * @throws RangeError there is no room for a memory's addresses
 * @throws whatever WebAssembly says of a module that is none of this engine's
 */
export function functionsOf(module: WasmModule, imports: ModuleImports): readonly unknown[] {
  linkage ??= {
    memory: new Wasm.Memory({ initial: 1, maximum: MAXIMUM_PAGES, shared: true }),
    table: new Wasm.Table({ element: 'anyfunc', initial: SIZE, maximum: SIZE }),
    memoryFunction: () => nothing,
    helper: () => nothing,
  };
  return Object.values(link(module, imports, linkage).exports);
}
