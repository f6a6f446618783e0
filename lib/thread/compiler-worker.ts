/** The worker behind {@link connectCompiler}: one {@link CompileServer} for each machine that it is connected to. */
import { parentPort } from 'node:worker_threads';
import { type CompileReply, type CompileRequest, CompileServer, Wasm } from '../soft/index.js';
import { CodeKeeper, type Use } from './code-keeper.js';
import { CodeStore } from './code-store.js';
import { CLOSE, type Connection, Word } from './compiler-thread.js';
import { lowerThisThread } from './priority.js';
import { compilingWhole } from './v8-flags.js';

lowerThisThread();

/** By directory; `undefined` where it is not to be trusted. */
const keepers = new Map<string, CodeKeeper | undefined>();

function keeperOf(directory: string): CodeKeeper | undefined {
  if (!keepers.has(directory)) {
    const store = CodeStore.open(directory);
    keepers.set(directory, store === undefined ? undefined : new CodeKeeper(store));
  }
  return keepers.get(directory);
}

parentPort?.on('message', ({ port, words, codeDirectory }: Connection) => {
  const shared = new Int32Array(words);
  const isClosed = (): boolean => Atomics.load(shared, Word.CLOSED) !== 0;
  const reply = (message: CompileReply): void => {
    port.postMessage(message);
    Atomics.add(shared, Word.REPLIES, 1);
  };
  const keeper = codeDirectory === undefined ? undefined : keeperOf(codeDirectory);
  const server = new CompileServer(reply, {
    keep: (region) => keeper?.add(region),
    isClosed,
    makeModule: (bytes) => compilingWhole(() => new Wasm.Module(bytes)),
  });
  port.on('message', (request: CompileRequest | Use | typeof CLOSE) => {
    if (request !== CLOSE) {
      if ('used' in request) keeper?.use(request);
      else server.handle(request);
      return;
    }
    keeper?.save();
    Atomics.store(shared, Word.SAVED, 1);
    Atomics.notify(shared, Word.SAVED);
    parentPort?.postMessage(CLOSE);
  });
});
