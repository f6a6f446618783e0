import { execFile, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, test } from '@jest/globals';
import { describeKvm } from './native.ts';

const CHILD = fileURLToPath(new URL('./life.mjs', import.meta.url));
const MANY = fileURLToPath(new URL('./many.mjs', import.meta.url));
/** Long after a child that does not hang has ended, under a sanitizer, too. */
const LIMIT_MS = 50_000;
/** The arm64 host lane's emulated machine is much slower: it makes fewer VMs, and ends a process at the last steps only. */
const EMULATED = process.env.ELVISOR_ARM64_HOST !== undefined;
const VMS = EMULATED ? 300 : 1000;

interface Ended {
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
}

function live(step: string, end: string): Promise<Ended> {
  const child = spawn(process.execPath, ['--expose-gc', CHILD, step, end], {
    stdio: ['ignore', 'pipe', 'ignore'],
    timeout: LIMIT_MS,
    killSignal: 'SIGKILL',
  });
  let stdout = '';
  child.stdout.on('data', (chunk) => {
    stdout += chunk;
  });
  return new Promise((done) => child.on('close', (status, signal) => done({ status, signal, stdout })));
}

const ALL_STEPS = ['import', 'open', 'vm', 'memory', 'slot', 'vcpu', 'listen', 'signalled', 'ran', 'started'];
const STEPS = EMULATED ? ['vcpu', 'ran', 'started'] : ALL_STEPS;

describeKvm('a process ends cleanly', () => {
  test.each(['natural', 'exit', 'throw', 'close', 'close-reversed', 'collect'])(
    'at every step of a VM: %s',
    async (end) => {
      const ends = await Promise.all(STEPS.map((step) => live(step, end)));
      const status = end === 'throw' ? 1 : 0;
      expect(ends).toEqual(STEPS.map((step) => ({ status, signal: null, stdout: step })));
    },
  );

  test.each(['natural', 'exit', 'throw', 'terminate'])('with a guest that spins in a Worker: %s', async (end) => {
    const status = end === 'throw' ? 1 : 0;
    for (const step of ['worker', 'worker-started']) {
      expect(await live(step, end)).toEqual({ status, signal: null, stdout: step });
    }
  });
});

describeKvm('VMs leave nothing behind', () => {
  test('many of them, run and closed in either order, or collected', async () => {
    const { stdout } = await promisify(execFile)(process.execPath, ['--expose-gc', MANY, String(VMS)]);
    const { before, after } = JSON.parse(stdout) as Record<'before' | 'after', Record<string, number>>;
    expect([after.descriptors, after.threads]).toEqual([before!.descriptors, before!.threads]);
    // V8's own come and go; of the VMs, the first hundred apart, each had several.
    expect(after.mappings! - before!.mappings!).toBeLessThan(100);
    expect(after.rss! - before!.rss!).toBeLessThan(48 << 20);
  }, 240_000);
});
