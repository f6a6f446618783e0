import { Decoder } from '../a64/decode.js';
import { TABLE } from '../a64/table.js';
import { Instructions } from './instruction.js';
import type { NewRegion } from './kept-archive.js';
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

/**
 * What goes to a compiler thread: first the machine's linear memory, then regions of it, and the {@link KeptPart.id} of a part whose
 * module is wanted.
 */
export type CompileRequest =
  | { readonly memory: WasmMemory }
  | { readonly regions: readonly RegionRequest[] }
  | { readonly part: number };

/** What comes back: what has become of some of the regions. */
export interface CompileReply {
  /** The last of the regions' ids that this is about: of that and those before, what has come by now is all that can be compiled. */
  readonly done: number;
  readonly compiled:
    | {
        readonly module: WasmModule;
        readonly imports: ModuleImports;
        /** The regions' ids, in the order of the module's functions, and where they may be entered: positions in their pages. */
        readonly regions: readonly { readonly id: number; readonly entries: readonly number[] }[];
      }
    | undefined;
}

/** A part of the regions of earlier runs, which is one module. */
export interface KeptPart {
  /** The thread's own number for it. */
  readonly id: number;
  /** What each was compiled from, see Shape, in the order of the module's functions. */
  readonly shapes: Uint32Array;
}

/** What was kept of earlier runs: what comes first from who keeps code. */
export interface KeptReply {
  readonly parts: readonly KeptPart[];
}

/** The module of a part that was asked for. */
export interface KeptModuleReply {
  readonly part: number;
  /** `undefined`: there is none any more. */
  readonly found: { readonly module: WasmModule; readonly imports: ModuleImports } | undefined;
}

export type CompilerReply = CompileReply | KeptReply | KeptModuleReply;

/**
 * A thread that compiles for one machine, so that the machine goes on meanwhile. It reads the guest's code in the machine's
 * linear memory; what was stored to meanwhile the machine must notice when the reply comes.
 */
export interface CompilerThread {
  /** The thread is gone: nothing that was posted will be answered. */
  readonly failed: boolean;
  post(request: CompileRequest): void;
  /** The next reply, if one has come. Never waits. */
  receive(): CompilerReply | undefined;
  /** No more replies are wanted. */
  close(): void;
}

/** What a {@link CompileServer} may be given. */
export interface CompileServerOptions {
  /** Is given each region that was compiled, after it has been replied. */
  readonly keep?: ((region: NewRegion) => void) | undefined;
  /** Whether no more replies are wanted. */
  readonly isClosed?: () => boolean;
  /** Makes a module, in the way that is best on this platform. */
  readonly makeModule?: (bytes: Uint8Array<ArrayBuffer>) => WasmModule;
}

/** The other end of a {@link CompilerThread}: what the thread does with what it is sent. */
export class CompileServer {
  readonly #code = new Instructions(new Decoder(TABLE));
  readonly #reply: (reply: CompileReply) => void;
  readonly #options: CompileServerOptions;
  #memory: WasmMemory | undefined;

  constructor(reply: (reply: CompileReply) => void, options: CompileServerOptions = {}) {
    this.#reply = reply;
    this.#options = options;
  }

  handle(request: CompileRequest): void {
    if ('memory' in request) {
      this.#memory = request.memory;
      return;
    }
    if (!('regions' in request)) return;
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
    const { keep, isClosed, makeModule = (bytes) => new Wasm.Module(bytes) } = this.#options;
    const entered = new Set<number>();
    while (list.length > 0 && isClosed?.() !== true) {
      const compiled = compileRegions(this.#code, list, entered);
      const done = request.regions[request.regions.length - list.length - 1]!.id;
      if (compiled === undefined) {
        this.#reply({ done, compiled });
        continue;
      }
      const { bytes, imports, functions } = compiled;
      const regions = compiled.regions.map(({ candidate: { id }, entries }) => ({ id, entries }));
      this.#reply({ done, compiled: { module: makeModule(bytes), imports, regions } });
      for (const { candidate, region, body } of compiled.regions) {
        const { guarded } = candidate.page;
        keep?.({ region, guarded, body: body.portable(), importOf: (index) => functions[index]! });
      }
    }
  }
}
