import { Decoder } from '../a64/decode.js';
import { TABLE } from '../a64/table.js';
import { Instructions } from './instruction.js';
import type { ModuleImports } from './linkage.js';
import { pageReader } from './region.js';
import { type Candidate, compileRegions } from './region-compiler.js';
import { Wasm, type WasmMemory, type WasmModule } from './webassembly.js';

/** A region that a machine wants compiled. */
export interface RegionRequest {
  /** The machine's own number for it. */
  readonly id: number;
  /** Linear address of its page of RAM, and of the page's records. */
  readonly page: number;
  readonly records: number;
  /** The page is a guarded one. */
  readonly guarded: boolean;
  /** Position of its entry in the page, in instructions. */
  readonly entry: number;
  /** Positions of the page's loads and stores that a device has answered. */
  readonly devices: readonly number[];
  /** What profilers call its function. */
  readonly name: string;
}

/** What goes to a compiler thread: first the machine's linear memory, then regions of it. */
export type CompileRequest = { readonly memory: WasmMemory } | { readonly regions: readonly RegionRequest[] };

/** What comes back: a module with the functions of some of the regions. Those that can't be compiled are never heard of again. */
export interface CompileReply {
  readonly module: WasmModule;
  readonly imports: ModuleImports;
  /** The regions' ids, in the order of the module's functions, and where they may be entered: positions in their pages. */
  readonly regions: readonly { readonly id: number; readonly entries: readonly number[] }[];
}

/**
 * A thread that compiles for one machine, so that the machine goes on meanwhile. It reads the guest's code in the machine's
 * linear memory; what was stored to meanwhile the machine must notice when the reply comes.
 */
export interface CompilerThread {
  /** The thread is gone: nothing that was posted will be answered. */
  readonly failed: boolean;
  post(request: CompileRequest): void;
  /** The next reply, if one has come. Never waits. */
  receive(): CompileReply | undefined;
  /** No more replies are wanted. */
  close(): void;
}

/** The other end of a {@link CompilerThread}: what the thread does with what it is sent. */
export class CompileServer {
  readonly #code = new Instructions(new Decoder(TABLE));
  readonly #reply: (reply: CompileReply) => void;
  #memory: WasmMemory | undefined;

  constructor(reply: (reply: CompileReply) => void) {
    this.#reply = reply;
  }

  handle(request: CompileRequest): void {
    if ('memory' in request) {
      this.#memory = request.memory;
      return;
    }
    if (this.#memory === undefined) throw new Error('the compiler thread was not given a memory');
    const { buffer } = this.#memory;
    const views = { u16: new Uint16Array(buffer), u32: new Uint32Array(buffer) };
    const list = request.regions.map((r): Candidate & { readonly id: number } => ({
      id: r.id,
      entry: r.entry,
      records: r.records,
      name: r.name,
      page: pageReader(views, r.page, r.records, r.guarded, new Set(r.devices)),
    }));
    const entered = new Set<number>();
    while (list.length > 0) {
      const compiled = compileRegions(this.#code, list, entered);
      if (compiled === undefined) continue;
      const { bytes, imports } = compiled;
      const regions = compiled.regions.map(({ candidate: { id }, entries }) => ({ id, entries }));
      this.#reply({ module: new Wasm.Module(bytes), imports, regions });
    }
  }
}
