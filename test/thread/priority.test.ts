import { spawnSync } from 'node:child_process';
import { getPriority } from 'node:os';
import { describe, expect, test } from '@jest/globals';
import { built } from './built.ts';

/** Which thread goes first, in processes of their own: a nice value that was raised can't be lowered again. */

/** Prints how much nicer than this process the threads of the other are: its main thread, then the rest in ascending order. */
const REPORT = `
  import { readdirSync } from 'node:fs';
  import { getPriority } from 'node:os';
  const report = () => {
    const nicer = (id) => getPriority(id) - ${getPriority()};
    const others = readdirSync('/proc/self/task').map(Number).filter((id) => id !== process.pid);
    console.log(JSON.stringify([nicer(process.pid), ...others.map(nicer).sort((a, b) => a - b)]));
  };`;

function threads(script: string, ...args: readonly string[]): number[] {
  const { stdout, stderr } = spawnSync(process.execPath, [...args, '--input-type=module', '-e', REPORT + script], {
    encoding: 'utf8',
    timeout: 60_000,
  });
  expect(stderr).toBe('');
  return JSON.parse(stdout.trim().split('\n').at(-1)!) as number[];
}

const isLinux = process.platform === 'linux';

describe('threads on Linux', () => {
  (isLinux ? test : test.skip)('helpers go behind the main thread, which stays as it is', () => {
    const script = `
      import { lowerHelperThreads } from ${built('thread/priority.js')};
      lowerHelperThreads();
      report();`;
    const [main, ...others] = threads(script, '--v8-pool-size=3');
    expect(main).toBe(0);
    expect(others.length).toBeGreaterThanOrEqual(3);
    expect(new Set(others)).toEqual(new Set([5]));
  });

  (isLinux ? test : test.skip)('again and again: at most the nicest', () => {
    const script = `
      import { lowerHelperThreads } from ${built('thread/priority.js')};
      for (let n = 0; n < 9; n++) lowerHelperThreads();
      report();`;
    const [main, ...others] = threads(script);
    expect(main).toBe(0);
    expect(new Set(others)).toEqual(new Set([19 - getPriority()]));
  });

  (isLinux ? test : test.skip)('called on a worker: neither that nor the main thread', () => {
    const script = `
      import { Worker } from 'node:worker_threads';
      const worker = new Worker(\`
        import(${built('thread/priority.js')}).then(({ lowerHelperThreads }) => {
          lowerHelperThreads();
          require('node:worker_threads').parentPort.on('message', () => {}).postMessage('done');
        });\`, { eval: true, execArgv: [] });
      worker.on('message', () => {
        report();
        worker.terminate();
      });`;
    const [main, ...others] = threads(script, '--v8-pool-size=3');
    expect(main).toBe(0);
    expect(others.filter((nicer) => nicer === 0)).toHaveLength(1);
    expect(others.filter((nicer) => nicer === 5).length).toBeGreaterThanOrEqual(3);
  });

  (isLinux ? test : test.skip)('the thread that compiles goes behind the others by itself', () => {
    const script = `
      import { Worker } from 'node:worker_threads';
      const worker = new Worker(${built('thread/compiler-worker.js')}, { execArgv: [] });
      worker.on('online', () => setImmediate(wait));
      // It is online before its module has run.
      const wait = () => {
        const lowered = readdirSync('/proc/self/task').some((id) => getPriority(Number(id)) > ${getPriority()});
        if (!lowered) return setTimeout(wait, 10);
        report();
        worker.terminate();
      };`;
    const [main, ...others] = threads(script);
    expect(main).toBe(0);
    expect(others.filter((nicer) => nicer === 5)).toHaveLength(1);
    expect(new Set(others)).toEqual(new Set([0, 5]));
  });

  (isLinux ? test : test.skip)('the launcher lowers its helpers', () => {
    const script = `
      process.argv = ['node', 'elvisor', '--version'];
      process.on('exit', report);
      await import(${built('cli/main.js')});`;
    const [main, ...others] = threads(script, '--v8-pool-size=3');
    expect(main).toBe(0);
    expect(others.filter((nicer) => nicer === 5).length).toBeGreaterThanOrEqual(3);
  });
});
