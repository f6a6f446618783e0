import type { Helper, Stmt } from '../a64/emitter.js';
import type { MemoryFunctions } from './lower.js';
import { ModuleBuilder, type Signature } from './wasm-module.js';
import { Wasm, type WasmInstance, type WasmMemory } from './webassembly.js';

/** What a module of compiled code is linked with. */
export interface Linkage {
  readonly maximumPages: number;
  readonly shared: boolean;
  readonly memory: WasmMemory;
  /** A memory function by its name, see {@link memoryFunctionName}. */
  memoryFunction(name: string): unknown;
  helper(h: Helper): unknown;
}

/**
 * Helpers that look at or change registers, PC or the budget. They need the state to be exact: how many instructions have been
 * executed too, for that is the time on the virtual clock. What calls them is not part of a region.
 */
export const MACHINE_HELPERS: ReadonlySet<string> = new Set(['mrs', 'msr', 'pstate']);

/** Signature of a memory function: from a virtual address to a linear one. */
export const MEMORY_FUNCTION: Signature = { params: ['i64'], results: ['i32'] };
export const MEMORY_SIZES = [1, 2, 4, 8, 16] as const;
/** The name under which the interpreter exports the slow half of a memory access. */
export const memoryFunctionName = (kind: 'load' | 'store', bytes: number, unprivileged: boolean): string =>
  `${kind}${bytes}${unprivileged ? 'u' : ''}`;

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
    if (s.k === 'store') yield memoryFunctionName('store', s.bytes, s.unprivileged);
    else if (s.k === 'def' && s.v.node.k === 'load')
      yield memoryFunctionName('load', s.v.node.bytes, s.v.node.unprivileged);
  }
}

export const signatureOf = (h: Helper): Signature => ({
  params: h.params,
  results: h.result === undefined ? [] : [h.result],
});

/** A module of compiled code that is being put together, with what it imports of its machine. */
export class LinkedModule {
  readonly builder = new ModuleBuilder();
  readonly #linkage: Linkage;
  readonly #imports: Record<string, unknown>;
  readonly #indices = new Map<string, number>();
  /** The memory functions that were asked for, by function index. */
  readonly memory: MemoryFunctions = {
    load: (bytes, unprivileged) => this.#indices.get(memoryFunctionName('load', bytes, unprivileged))!,
    store: (bytes, unprivileged) => this.#indices.get(memoryFunctionName('store', bytes, unprivileged))!,
  };

  constructor(linkage: Linkage) {
    this.#linkage = linkage;
    this.#imports = { memory: linkage.memory };
    this.builder.importMemory(linkage.maximumPages, linkage.shared);
  }

  /** Imports what code needs. To be called before any function is added. @param memoryFunctions by name */
  require(helpers: Iterable<Helper>, memoryFunctions: Iterable<string>): void {
    for (const h of helpers) this.#import(h.name, signatureOf(h), () => this.#linkage.helper(h));
    for (const name of memoryFunctions) this.#import(name, MEMORY_FUNCTION, () => this.#linkage.memoryFunction(name));
  }

  #import(name: string, signature: Signature, value: () => unknown): void {
    if (this.#indices.has(name)) return;
    this.#indices.set(name, this.builder.importFunction(name, signature));
    this.#imports[name] = value();
  }

  /** The function index of a helper that was asked for. */
  readonly helper = (h: Helper): number => this.#indices.get(h.name)!;

  instantiate(): WasmInstance {
    return new Wasm.Instance(new Wasm.Module(this.builder.build()), { e: this.#imports });
  }
}
