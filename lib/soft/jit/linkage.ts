import type { Helper, Stmt } from '../a64/emitter.js';
import { MAXIMUM_PAGES } from '../cpu/layout.js';
import type { MemoryFunctions } from './lower.js';
import { ModuleBuilder, type Signature } from './wasm-module.js';
import { Wasm, type WasmInstance, type WasmMemory, type WasmModule, type WasmTable } from './webassembly.js';

/** What modules of compiled code are linked with. */
export interface Linkage {
  readonly memory: WasmMemory;
  /** The interpreter's table: handlers, then regions. */
  readonly table: WasmTable;
  /** A memory function by its name, see {@link memoryFunctionName}. */
  memoryFunction(name: string): unknown;
  helper(name: string): unknown;
}

/** What a module of compiled code imports besides the memory, by name. */
export interface ModuleImports {
  /** Whether it imports the table. */
  readonly table: boolean;
  readonly helpers: readonly string[];
  readonly memoryFunctions: readonly string[];
}

/**
 * Helpers that look at or change the budget: how many instructions have been executed is the time on the virtual clock. It must
 * be exact in the state when they are called.
 */
export const MACHINE_HELPERS: ReadonlySet<string> = new Set(['mrs', 'msr', 'pstate']);
/** Helpers behind which an address may mean another page. */
export const TRANSLATION_HELPERS: ReadonlySet<string> = new Set(['msr', 'pstate', 'sys']);

/** Signature of a memory function: from a virtual address to a linear one. */
export const MEMORY_FUNCTION: Signature = { params: ['i64'], results: ['i32'] };
export const MEMORY_SIZES = [1, 2, 4, 8, 16] as const;
/** The name under which the interpreter exports the slow half of a memory access. */
export const memoryFunctionName = (kind: 'load' | 'store', bytes: number, unprivileged: boolean): string =>
  `${kind}${bytes}${unprivileged ? 'u' : ''}`;
/** The same of a look into the first-level table too, see MemoryFunctions.find. */
export const findFunctionName = (kind: 'load' | 'store', bytes: number): string => `${kind}${bytes}f`;
/** The same of an access that may be answered where it is made, see MemoryFunctions.device. */
export const deviceFunctionName = (kind: 'load' | 'store', bytes: number): string => `${kind}${bytes}d`;
/** Sizes of the accesses that have a syndrome. */
export const DEVICE_SIZES = [1, 2, 4, 8] as const;

function* walk(stmts: readonly Stmt[]): Generator<Stmt> {
  for (const s of stmts) {
    yield s;
    if (s.k === 'if') {
      yield* walk(s.then);
      yield* walk(s.otherwise);
    }
  }
}

/** The helpers that a program calls. */
export function* helpersOf(stmts: readonly Stmt[]): Generator<Helper> {
  for (const s of walk(stmts)) {
    if (s.k === 'call') yield s.helper;
    else if (s.k === 'def' && s.v.node.k === 'call') yield s.v.node.helper;
  }
}

/** The memory functions that a program needs, by name. */
export function* memoryAccesses(stmts: readonly Stmt[]): Generator<string> {
  for (const s of walk(stmts)) {
    const access = s.k === 'store' ? s : s.k === 'def' && s.v.node.k === 'load' ? s.v.node : undefined;
    if (access === undefined) continue;
    const { bytes, unprivileged, k: kind } = access;
    yield memoryFunctionName(kind, bytes, unprivileged);
    if (!unprivileged) yield findFunctionName(kind, bytes);
  }
}

export const signatureOf = (h: Helper): Signature => ({
  params: h.params,
  results: h.result === undefined ? [] : [h.result],
});

/** A function that compiled code imports. */
export interface ImportedFunction {
  readonly kind: 'helper' | 'memory';
  readonly name: string;
  readonly signature: Signature;
}

/** A module of compiled code that is being put together. It names what it imports: {@link link} finds it. */
export class LinkedModule {
  readonly builder = new ModuleBuilder();
  readonly imports: ModuleImports & { readonly helpers: string[]; readonly memoryFunctions: string[] };
  /** What it imports, by function index. */
  readonly functions: ImportedFunction[] = [];
  readonly #indices = new Map<string, number>();
  /** The memory functions that were asked for, by function index. */
  readonly memory: MemoryFunctions = {
    load: (bytes, unprivileged) => this.#indices.get(memoryFunctionName('load', bytes, unprivileged))!,
    store: (bytes, unprivileged) => this.#indices.get(memoryFunctionName('store', bytes, unprivileged))!,
    find: (kind, bytes) => this.#indices.get(findFunctionName(kind, bytes))!,
    device: (kind, bytes) => this.#indices.get(deviceFunctionName(kind, bytes))!,
  };

  /** @param tableSize imports the interpreter's table, which has so many entries */
  constructor(tableSize?: number) {
    this.imports = { table: tableSize !== undefined, helpers: [], memoryFunctions: [] };
    this.builder.importMemory(MAXIMUM_PAGES);
    if (tableSize !== undefined) this.builder.importTable(tableSize);
  }

  /** Imports what code needs. To be called before any function is added. @param memoryFunctions by name */
  require(helpers: Iterable<Helper>, memoryFunctions: Iterable<string>): void {
    for (const h of helpers) this.import({ kind: 'helper', name: h.name, signature: signatureOf(h) });
    for (const name of memoryFunctions) this.import({ kind: 'memory', name, signature: MEMORY_FUNCTION });
  }

  /** Imports a function. To be called before any is added. @returns its index */
  import(f: ImportedFunction): number {
    const known = this.#indices.get(f.name);
    if (known !== undefined) return known;
    const index = this.builder.importFunction(f.name, f.signature);
    this.#indices.set(f.name, index);
    this.functions.push(f);
    (f.kind === 'helper' ? this.imports.helpers : this.imports.memoryFunctions).push(f.name);
    return index;
  }

  /** The function index of a helper that was asked for. */
  readonly helper = (h: Helper): number => this.#indices.get(h.name)!;

  build(): Uint8Array<ArrayBuffer> {
    return this.builder.build();
  }
}

/** Instantiates a module of compiled code. */
export function link(module: WasmModule, imports: ModuleImports, linkage: Linkage): WasmInstance {
  const values: Record<string, unknown> = { memory: linkage.memory };
  if (imports.table) values.table = linkage.table;
  for (const name of imports.helpers) values[name] = linkage.helper(name);
  for (const name of imports.memoryFunctions) values[name] = linkage.memoryFunction(name);
  return new Wasm.Instance(module, { e: values });
}
