#!/usr/bin/env node
/**
 * How long a Worker that is terminated, and a process that ends, takes with a vCPU in KVM_RUN on this machine's own
 * /dev/kvm: from the call, or the last statement, to the moment when it is gone. The same without a VM stands beside it.
 *
 *   npm run bench:ends -- [--rounds 20] [--json] [--arm64-host]
 *
 * --arm64-host: on the emulated arm64 host of test/arm64-host (mode vhe), where an instruction is a nanosecond.
 * Ends with status 1 where the limit is not met, 77 where something that it needs is not there. bench:native prints this, too.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { commandLine } from '../scripts/command-line.js';
import { median, textTable, wholeNumber } from './common.js';

const GUEST = new URL('./ends-guest.js', import.meta.url);
const LIMIT_MS = 100;
const WHERE = { thread: 'vcpu.start()', worker: 'vcpu.run() in a Worker' };
const PROCESS_ENDS = ['process.exit', 'throw', 'natural'];

/** @returns milliseconds from terminate() to the Worker's end */
async function terminated(where, what, round) {
  const worker = new Worker(GUEST, { workerData: { where, what } });
  await once(worker, 'message');
  // The heartbeat that brings vcpu.run() back is met in each of its phases.
  await sleep(30 + round);
  const begin = process.hrtime.bigint();
  await worker.terminate();
  return Number(process.hrtime.bigint() - begin) / 1e6;
}

/** @returns milliseconds from where the process began to end to where its parent knows */
async function ended(where, what, end) {
  const child = spawn(process.execPath, [fileURLToPath(GUEST), where, what, end], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  let began = '';
  child.stdout.on('data', (chunk) => {
    began += chunk;
  });
  let gone = 0n;
  child.once('exit', () => {
    gone = process.hrtime.bigint();
  });
  const [status, signal] = await once(child, 'close');
  if (status !== (end === 'throw' ? 1 : 0) || !/^\d+$/.test(began)) {
    throw new Error(
      `bench/ends: ${where} ${what} ${end}: ended with ${signal ?? status}, having said ${JSON.stringify(began)}`,
    );
  }
  return Number(gone - BigInt(began)) / 1e6;
}

/** @param rounds of each way to end @returns {Promise<{ way: string, without: number, median: number, worst: number, met: boolean }[]>} in milliseconds */
export async function measureEnds(rounds) {
  const rows = [];
  for (const end of ['Worker.terminate', ...PROCESS_ENDS]) {
    for (const [where, name] of Object.entries(WHERE)) {
      const times = { nothing: [], vm: [] };
      for (let round = 0; round < rounds; round++) {
        for (const what of ['nothing', 'vm']) {
          times[what].push(
            await (end === 'Worker.terminate' ? terminated(where, what, round) : ended(where, what, end)),
          );
        }
      }
      const worst = Math.max(...times.vm);
      rows.push({
        way: `${end}, ${name}`,
        without: median(times.nothing),
        median: median(times.vm),
        worst,
        met: worst <= LIMIT_MS,
      });
    }
  }
  return rows;
}

export function endsTable(rows) {
  const ms = (time) => `${time.toFixed(1)} ms`;
  return textTable([
    ['end', 'without a VM', 'median', 'worst', ''],
    ...rows.map(({ way, without, median, worst, met }) => [
      ...[way, ms(without), ms(median), ms(worst)],
      `${met ? 'met' : 'NOT MET'}: at most ${LIMIT_MS} ms`,
    ]),
  ]);
}

/** Prints the table that the emulated host prints. @returns the exit status */
async function onEmulatedHost(rounds) {
  const [{ prepareHost, runScript }, { Skip, SKIPPED }] = [
    await import('./emulated.js'),
    await import('../test/arm64-host/skip.js'),
  ];
  const work = mkdtempSync(join(tmpdir(), 'elvisor-ends-'));
  try {
    const host = await prepareHost();
    const rows = [];
    const wrong = await runScript({
      name: 'ends',
      host,
      script: `node bench/ends.js --json --rounds ${rounds}`,
      initrd: join(work, 'initrd'),
      onLine: (line) => {
        if (line.startsWith('{"rounds"')) rows.push(...JSON.parse(line).rows);
      },
    });
    if (rows.length === 0) throw new Error(`bench/ends: the emulated host said no figures:\n${wrong.join('\n')}`);
    console.log(`${host.title}\n${endsTable(rows)}`);
    return rows.every(({ met }) => met) ? 0 : 1;
  } catch (error) {
    if (!(error instanceof Skip)) throw error;
    console.log(`skipped: bench:ends: ${error.message}`);
    return SKIPPED;
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { values } = commandLine(import.meta.url, {
    options: {
      rounds: { type: 'string', default: '20' },
      json: { type: 'boolean', default: false },
      'arm64-host': { type: 'boolean', default: false },
    },
  });
  const rounds = wholeNumber('bench/ends', 'rounds', values.rounds, 1);
  if (values['arm64-host']) {
    process.exitCode = await onEmulatedHost(rounds);
  } else {
    const rows = await measureEnds(rounds);
    console.log(values.json ? JSON.stringify({ rounds, rows }) : endsTable(rows));
    if (!rows.every(({ met }) => met)) process.exitCode = 1;
  }
}
