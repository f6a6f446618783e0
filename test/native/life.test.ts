import { spawn } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, test } from '@jest/globals';
import { openHost } from '#lib/host/index.js';
import { describeKvm, describeX64 } from './native.ts';

const CHILD = fileURLToPath(new URL('./life.mjs', import.meta.url));
/** Long after a child that hangs would have ended. */
const LIMIT_MS = 20_000;

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

const STEPS = ['import', 'open', 'vm', 'memory', 'slot', 'vcpu', 'listen', 'signalled', 'ran', 'started'];

describeX64('a process ends cleanly', () => {
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
  const descriptors = (): number => readdirSync('/proc/self/fd').length;
  /** Mappings that are of KVM: vCPUs and guest memory of a size that nothing else has. */
  const SIZE = 0x77_7000;
  const mappings = (): number =>
    readFileSync('/proc/self/maps', 'utf8')
      .split('\n')
      .filter((line) => {
        const [from, to] = line
          .split(' ', 1)[0]!
          .split('-')
          .map((hex) => Number.parseInt(hex, 16));
        return line.includes('kvm-vcpu') || (to ?? 0) - (from ?? 0) === SIZE;
      }).length;

  test('closed, in either order', async () => {
    const before = descriptors();
    const mapped = mappings();
    for (let i = 0; i < 100; i++) {
      const kvm = openHost();
      const vm = kvm.createVm();
      const memory = vm.createMemory(SIZE);
      vm.setUserMemoryRegion({ slot: 0, guestPhysAddr: 0, memorySize: SIZE, memory });
      const vcpu = vm.createVcpu(0);
      const fd = kvm.createEventFd();
      fd.onSignal(() => {});
      const all = [kvm, vm, memory, vcpu, fd];
      for (const each of i % 2 === 0 ? all : all.reverse()) each.close();
    }
    // An ArrayBuffer lets its memory go in the event loop.
    for (let i = 0; i < 10; i++) await new Promise((done) => setImmediate(done));
    expect(descriptors()).toBe(before);
    expect(mappings()).toBe(mapped);
  });
});
