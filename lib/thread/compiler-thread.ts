import { MessageChannel, type MessagePort, receiveMessageOnPort, Worker } from 'node:worker_threads';
import type { CompileReply, CompileRequest, CompilerThread } from '../soft/index.js';

/** What the worker is sent: a channel to a machine. */
export interface Connection {
  readonly port: MessagePort;
  /** One 32-bit word: how many replies the worker has put into the channel. */
  readonly replies: SharedArrayBuffer;
}

/** A machine's first instructions are no work for the compiler: the thread starts, and takes its time, behind them. */
const START_DELAY_MS = 1;

/** The worker, shared by the machines of this thread; there only while a machine is. */
let worker: Worker | undefined;
const open = new Set<Channel>();

class Channel implements CompilerThread {
  failed = false;
  readonly #port: MessagePort;
  readonly #replies = new Int32Array(new SharedArrayBuffer(4));
  #received = 0;

  /** The worker's end, until it is connected. */
  #end: MessagePort | undefined;

  constructor() {
    const { port1, port2 } = new MessageChannel();
    this.#port = port1;
    this.#end = port2;
    port1.unref();
  }

  /** Connects the worker, which then finds what was posted so far. */
  connect(to: Worker): void {
    if (this.#end === undefined) return;
    const connection: Connection = { port: this.#end, replies: this.#replies.buffer as SharedArrayBuffer };
    to.postMessage(connection, [this.#end]);
    this.#end = undefined;
  }

  post(request: CompileRequest): void {
    // Who runs a vCPU and never returns to the event loop has compiled code all the same.
    if ('regions' in request && this.#end !== undefined) connectAll();
    if (!this.failed) this.#port.postMessage(request);
  }

  receive(): CompileReply | undefined {
    // A look at the channel costs a microsecond, one at the word nothing.
    if (Atomics.load(this.#replies, 0) === this.#received) return undefined;
    const found = receiveMessageOnPort(this.#port) as { readonly message: CompileReply } | undefined;
    if (found === undefined) return undefined;
    this.#received = (this.#received + 1) | 0;
    return found.message;
  }

  close(): void {
    this.#port.close();
    open.delete(this);
    if (open.size > 0) return;
    void worker?.terminate();
    worker = undefined;
  }
}

/**
 * A thread that compiles for one machine: a worker that all machines of this thread share and that ends with the last of them.
 * It keeps no process alive. Where it can't be started, or dies, its machines find it failed.
 */
export function connectCompiler(): CompilerThread {
  const channel = new Channel();
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
    // What it makes is short-lived and small: V8 would let its nursery grow to 48 MiB for a little less collecting.
    resourceLimits: { maxYoungGenerationSizeMb: 2 },
  });
  started.unref();
  const failed = (): void => {
    if (worker !== started) return;
    worker = undefined;
    for (const channel of open) channel.failed = true;
  };
  started.on('error', failed);
  started.on('exit', failed);
  return started;
}
