import { MessageChannel, type MessagePort, receiveMessageOnPort, Worker } from 'node:worker_threads';
import type { CompileReply, CompileRequest, CompilerThread } from '../soft/index.js';

/** What the worker is sent: a channel to a machine. */
export interface Connection {
  readonly port: MessagePort;
  /** One 32-bit word: how many replies the worker has put into the channel. */
  readonly replies: SharedArrayBuffer;
}

/** The worker, shared by the machines of this thread; there only while a machine is. */
let worker: Worker | undefined;
const open = new Set<Channel>();

class Channel implements CompilerThread {
  failed = false;
  readonly #port: MessagePort;
  readonly #replies = new Int32Array(new SharedArrayBuffer(4));
  #received = 0;

  constructor(to: Worker) {
    const { port1, port2 } = new MessageChannel();
    this.#port = port1;
    port1.unref();
    const connection: Connection = { port: port2, replies: this.#replies.buffer as SharedArrayBuffer };
    to.postMessage(connection, [port2]);
  }

  post(request: CompileRequest): void {
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
 * It keeps no process alive. `undefined` where a worker can't be started; where it dies, its machines find it failed.
 */
export function connectCompiler(): CompilerThread | undefined {
  try {
    worker ??= start();
  } catch {
    return undefined;
  }
  const channel = new Channel(worker);
  open.add(channel);
  return channel;
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
