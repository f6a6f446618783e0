/** The worker behind {@link connectCompiler}: one {@link CompileServer} for each machine that it is connected to. */
import { parentPort } from 'node:worker_threads';
import { type CompileRequest, CompileServer } from '../soft/index.js';
import type { Connection } from './compiler-thread.js';
import { lowerThisThread } from './priority.js';

lowerThisThread();

parentPort?.on('message', ({ port, replies }: Connection) => {
  const count = new Int32Array(replies);
  const server = new CompileServer((reply) => {
    port.postMessage(reply);
    Atomics.add(count, 0, 1);
  });
  port.on('message', (request: CompileRequest) => {
    server.handle(request);
  });
});
