import { MessageChannel, type MessagePort, receiveMessageOnPort, Worker } from 'node:worker_threads';
import type { CompileRequest, CompilerReply, CompilerThread, KeptReply } from '../soft/index.js';
import { sharedFlags } from './v8-flags.js';

/** What the worker is sent: a channel to a machine. */
export interface Connection {
  readonly port: MessagePort;
  /** 32-bit words that both see, see {@link Word}. */
  readonly words: SharedArrayBuffer;
  /** Where compiled code is kept. */
  readonly codeDirectory: string | undefined;
}

/** The last message of a machine. That its port is closed the worker would hear only from an event loop that goes on. */
export const CLOSE = 'close';

/** What the worker is sent when nobody needs it any more. */
export const END = 'end';

/** What a machine's port carries to the worker: of a part that is wanted, the name, too. */
export type ToWorker =
  | Exclude<CompileRequest, { readonly part: number }>
  | { readonly part: number; readonly name: string }
  | typeof CLOSE;

export const Word = {
  /** How many replies the worker has put into the channel. */
  REPLIES: 0,
  /** The machine wants no more replies. */
  CLOSED: 1,
  /** The worker has kept what there was to keep. */
  SAVED: 2,
} as const;

/** A machine's first instructions are no work for the compiler: where nothing is to be compiled earlier, the thread starts behind them. */
const START_DELAY_MS = 50;

/** How long the end of the process waits at most for compiled code to be kept; as a rule it takes a fiftieth of it. */
const SAVE_MS = 500;

/** The worker, shared by the machines of this thread; there only while a machine is. */
let worker: Worker | undefined;
const open = new Set<Channel>();
/** Closed ones, as long as the worker keeps what it compiled for them. */
const saving = new Set<Channel>();

class Channel implements CompilerThread {
  failed = false;
  readonly #port: MessagePort;
  readonly #words = new Int32Array(new SharedArrayBuffer(12));
  readonly #codeDirectory: string | undefined;
  #received = 0;
  #kept: KeptReply | undefined;
  /** Of the parts in it, by id. */
  #partNames: readonly string[] = [];

  /** The worker's end, until it is connected. */
  #end: MessagePort | undefined;

  constructor(codeDirectory: string | undefined) {
    this.#codeDirectory = codeDirectory;
    const { port1, port2 } = new MessageChannel();
    this.#port = port1;
    this.#end = port2;
    port1.unref();
  }

  /** Connects the worker, which then finds what was posted so far. */
  connect(to: Worker): void {
    if (this.#end === undefined) return;
    const words = this.#words.buffer as SharedArrayBuffer;
    const connection: Connection = { port: this.#end, words, codeDirectory: this.#codeDirectory };
    to.postMessage(connection, [this.#end]);
    this.#end = undefined;
  }

  post(request: CompileRequest): void {
    // Who runs a vCPU and never returns to the event loop has compiled code all the same.
    if (!('memory' in request) && this.#end !== undefined) connectAll();
    if (!this.failed) this.#post('part' in request ? { ...request, name: this.#partNames[request.part]! } : request);
  }

  #post(message: ToWorker): void {
    this.#port.postMessage(message);
  }

  /** Finds out what was kept, which comes while the event loop turns. */
  async load(directory: string): Promise<void> {
    const { CodeStore } = await import('./code-store.js');
    const parts = (await CodeStore.open(directory)?.parts()) ?? [];
    if (parts.length === 0 || !open.has(this)) return;
    this.#partNames = parts.map(({ name }) => name);
    this.#kept = { parts: parts.map(({ shapes }, id) => ({ id, shapes })) };
    // The guest's first instructions will ask for some.
    connectAll();
  }

  receive(): CompilerReply | undefined {
    if (this.#kept !== undefined) {
      const kept = this.#kept;
      this.#kept = undefined;
      return kept;
    }
    // A look at the channel costs a microsecond, one at the word nothing.
    if (Atomics.load(this.#words, Word.REPLIES) === this.#received) return undefined;
    const found = receiveMessageOnPort(this.#port) as { readonly message: CompilerReply } | undefined;
    if (found === undefined) return undefined;
    this.#received = (this.#received + 1) | 0;
    return found.message;
  }

  close(): void {
    if (!open.delete(this)) return;
    this.save();
    this.#port.close();
    endUnused();
  }

  /** Has the worker keep what it has compiled, and compile no more. */
  save(): void {
    Atomics.store(this.#words, Word.CLOSED, 1);
    if (this.#codeDirectory === undefined || this.#end !== undefined || this.failed) return;
    this.#post(CLOSE);
    saving.add(this);
  }

  get isSaved(): boolean {
    return Atomics.load(this.#words, Word.SAVED) !== 0;
  }

  /** Waits for that, at most so long. */
  awaitSaved(ms: number): void {
    Atomics.wait(this.#words, Word.SAVED, 0, ms);
  }
}

/** Ends the worker where nobody needs it any more. */
function endUnused(): void {
  for (const channel of saving) if (channel.isSaved) saving.delete(channel);
  if (open.size > 0 || saving.size > 0) return;
  // It ends by itself: ended in the middle of something, it would leave V8's flags, which are the process's, as it had them then.
  worker?.postMessage(END);
  worker = undefined;
}

/** The process ends, and its workers with it. */
function saveAtExit(): void {
  for (const channel of open) channel.save();
  const until = performance.now() + SAVE_MS;
  for (const channel of saving) channel.awaitSaved(Math.max(0, until - performance.now()));
}

/**
 * A thread that compiles for one machine: a worker that all machines of this thread share and that ends with the last of them.
 * It keeps no process alive. Where it can't be started, or dies, its machines find it failed.
 * @param codeDirectory keeps what it compiles there, and uses what was kept; a directory that is not the user's own is not used
 */
export function connectCompiler(codeDirectory?: string): CompilerThread {
  const channel = new Channel(codeDirectory);
  // It loads a part of Node, which takes long: while the machine's RAM is filled there is time for that. Where it fails, the machine begins with nothing.
  if (codeDirectory !== undefined) setImmediate(() => channel.load(codeDirectory).catch(() => {})).unref();
  open.add(channel);
  if (worker === undefined) setTimeout(connectAll, START_DELAY_MS).unref();
  else channel.connect(worker);
  return channel;
}

function connectAll(): void {
  if (open.size === 0) return;
  try {
    worker ??= start();
    for (const channel of open) channel.connect(worker);
  } catch {
    for (const channel of open) channel.failed = true;
  }
}

function start(): Worker {
  const started = new Worker(new URL('./compiler-worker.js', import.meta.url), {
    name: 'elvisor-compiler',
    // What the process was started with, a loader or a profiler, is not for this thread.
    execArgv: [],
    env: {},
    workerData: sharedFlags(),
    // What it makes is short-lived and small: V8 would let its nursery grow to 48 MiB for a little less collecting.
    resourceLimits: { maxYoungGenerationSizeMb: 2 },
  });
  const failed = (): void => {
    if (worker !== started) return;
    worker = undefined;
    for (const channel of open) channel.failed = true;
    saving.clear();
  };
  started.on('message', endUnused);
  process.on('exit', saveAtExit);
  started.on('exit', () => process.off('exit', saveAtExit));
  started.on('error', failed);
  started.on('exit', failed);
  // Behind the listeners, which hold the process.
  started.unref();
  return started;
}
