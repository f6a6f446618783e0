/** The worker behind {@link connectCompiler}: one {@link CompileServer} for each machine that it is connected to. */
import { parentPort, workerData } from 'node:worker_threads';
import { type CompilerReply, CompileServer, type KeptModuleReply, Wasm, type WasmModule } from '../soft/index.js';
import { CodeKeeper } from './code-keeper.js';
import { CodeStore } from './code-store.js';
import { CLOSE, type Connection, END, type ToWorker, Word } from './compiler-thread.js';
import { withMachineCode } from './machine-code.js';
import { MachineCodeMaker } from './machine-code-maker.js';
import { lowerThisThread } from './priority.js';
import { adoptFlags, compilingWhole } from './v8-flags.js';

lowerThisThread();
adoptFlags(workerData as SharedArrayBuffer);

const makeModule = (bytes: Uint8Array<ArrayBuffer>): WasmModule => compilingWhole(() => new Wasm.Module(bytes));

/** What is kept in a directory, and what is done for that. */
class Kept {
  readonly #store: CodeStore;
  readonly maker: MachineCodeMaker;
  readonly keeper: CodeKeeper;

  constructor(store: CodeStore) {
    this.#store = store;
    this.maker = new MachineCodeMaker(store);
    this.keeper = new CodeKeeper(store, (part) => this.maker.want(part));
  }

  /** The module of a part: with the machine code that is kept of it, or else compiled, quickly for now. */
  find(part: string): KeptModuleReply['found'] {
    const kept = this.#store.module(part);
    if (kept === undefined) return undefined;
    const { bytes, imports } = kept;
    const code = this.#store.machineCode(part);
    const ready = code === undefined ? undefined : withMachineCode(bytes, code);
    if (ready !== undefined) return { module: ready, imports };
    // What V8 has refused once it may refuse again: no new one is made at once.
    if (code === undefined) this.maker.want(part);
    else this.#store.setMachineCode(part, undefined);
    try {
      return { module: makeModule(bytes), imports };
    } catch {
      return undefined;
    }
  }
}

/** By directory; `undefined` where it is not to be trusted. */
const all = new Map<string, Kept | undefined>();

function keptIn(directory: string): Kept | undefined {
  if (!all.has(directory)) {
    const store = CodeStore.open(directory);
    all.set(directory, store === undefined ? undefined : new Kept(store));
  }
  return all.get(directory);
}

parentPort?.on('message', (message: Connection | typeof END) => {
  // This thread alone.
  if (message === END) process.exit();
  const { port, words, codeDirectory } = message;
  const shared = new Int32Array(words);
  const isClosed = (): boolean => Atomics.load(shared, Word.CLOSED) !== 0;
  const reply = (message: CompilerReply): void => {
    port.postMessage(message);
    Atomics.add(shared, Word.REPLIES, 1);
  };
  const kept = codeDirectory === undefined ? undefined : keptIn(codeDirectory);
  const server = new CompileServer(reply, { keep: (region) => kept?.keeper.add(region), isClosed, makeModule });
  port.on('message', (request: ToWorker) => {
    kept?.maker.busy();
    if (request !== CLOSE) {
      if ('part' in request) reply({ part: request.part, found: kept?.find(request.name) });
      else server.handle(request);
      return;
    }
    kept?.keeper.close();
    Atomics.store(shared, Word.SAVED, 1);
    Atomics.notify(shared, Word.SAVED);
    parentPort?.postMessage(CLOSE);
  });
});
