import { writeFileSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import { describe, expect, test } from '@jest/globals';
import { demoImage } from '#lib/guest/demo.js';
import { MicroVm } from '#lib/node/micro-vm.js';
import { openSoft } from '#lib/soft/index.js';
import { VmError } from '#lib/vmm/errors.js';
import { elvisor, scratchDir, spinningImage } from './guest.ts';

const SECONDS = 1000;

describe('a guest that spins for ever', () => {
  test(
    'is ended by kill(), and stop() kills it when its grace is over',
    async () => {
      for (const end of [(vm: MicroVm) => vm.kill(), (vm: MicroVm) => vm.stop({ graceMs: 50 })]) {
        const vm = await MicroVm.create({ kernel: spinningImage(), memory: '64M' });
        await vm.boot();
        expect((await end(vm)).reason).toBe('killed');
        await vm.close();
        expect(vm.state).toBe('closed');
      }
    },
    30 * SECONDS,
  );

  test(
    'is ended by an AbortSignal',
    async () => {
      const abort = new AbortController();
      const vm = await MicroVm.create({ kernel: spinningImage(), memory: '64M', signal: abort.signal });
      await vm.boot();
      setTimeout(() => abort.abort(), 50);
      expect((await vm.exited).reason).toBe('killed');
      await vm.close();
    },
    30 * SECONDS,
  );

  test(
    'is ended by --timeout with 124',
    async () => {
      const scratch = scratchDir();
      writeFileSync(scratch.file('spin'), spinningImage());
      const { status, stdout, stderr } = await elvisor(['run', '--kernel', scratch.file('spin'), '--timeout', '1']);
      scratch.remove();
      expect(status).toBe(124);
      expect(stdout).toBe('');
      expect(stderr).not.toBe('');
    },
    60 * SECONDS,
  );

  test(
    'leaves the event loop its turns',
    async () => {
      const vm = await MicroVm.create({ kernel: spinningImage(), memory: '64M' });
      await vm.boot();
      let turns = 0;
      const timer = setInterval(() => turns++, 5);
      // Counts turns of the loop against slices of the guest, not milliseconds: how fast this machine is does not matter.
      while (turns < 50) await new Promise((resolve) => setImmediate(resolve));
      clearInterval(timer);
      expect(vm.state).toBe('running');
      await vm.close();
    },
    60 * SECONDS,
  );

  test(
    'sleeps when its host does, and goes on when that is awake',
    async () => {
      const kvm = openSoft();
      const vm = await MicroVm.create({ kernel: spinningImage(), memory: '64M', kvm });
      await vm.boot();
      const executed = (): bigint => vm.stats().vcpuStats[0]!.instructions![0]!;
      const turns = async (): Promise<void> => {
        for (let n = 0; n < 10; n++) await new Promise((resolve) => setImmediate(resolve));
      };
      while (executed() === 0n) await turns();
      kvm.power.suspend();
      const before = executed();
      await turns();
      expect([executed(), vm.state]).toEqual([before, 'running']);
      kvm.power.resume();
      while (executed() === before) await turns();
      await vm.close();
      kvm.close();
    },
    30 * SECONDS,
  );

  test('is gone with the scope that disposes of it', async () => {
    const vm = await MicroVm.create({ kernel: spinningImage(), memory: '64M' });
    await vm.boot();
    await vm[Symbol.asyncDispose]();
    expect(vm.state).toBe('closed');
    expect((await vm.exited).reason).toBe('killed');
    await vm[Symbol.asyncDispose]();
  }, 30_000);

  test(
    'may be paused and resumed',
    async () => {
      const vm = await MicroVm.create({ kernel: spinningImage(), memory: '64M' });
      await vm.boot();
      vm.pause();
      expect(vm.state).toBe('paused');
      const before = vm.stats().vcpuStats[0]?.instructions;
      await new Promise((resolve) => setTimeout(resolve, 50));
      expect(vm.stats().vcpuStats[0]?.instructions).toEqual(before);
      vm.resume();
      while (vm.stats().vcpuStats[0]?.instructions === before) await new Promise((resolve) => setImmediate(resolve));
      await vm.close();
      await expect(vm.boot()).rejects.toThrow(VmError);
    },
    30 * SECONDS,
  );
});

describe('the embedded guest', () => {
  test(
    'prints its EL, takes a timer interrupt, brings up the other vCPUs and powers off',
    async () => {
      const { status, stdout, stderr } = await elvisor(['demo']);
      expect(stderr).toBe('');
      expect(stdout).toMatch(/EL1/);
      expect(stdout).toMatch(/timer/i);
      expect(status).toBe(0);
    },
    60 * SECONDS,
  );

  test(
    'runs in a Worker',
    async () => {
      const source = `
      const { parentPort, workerData } = require('node:worker_threads');
      import(workerData.entry).then(async ({ MicroVm }) => {
        const vm = await MicroVm.create({ kernel: workerData.kernel, cpus: 2, memory: '64M' });
        let text = '';
        vm.console.on('data', (chunk) => { text += chunk; });
        await vm.boot();
        const { reason } = await vm.exited;
        await vm.close();
        parentPort.postMessage({ reason, text });
      });`;
      const worker = new Worker(source, {
        eval: true,
        workerData: { entry: new URL('../../dist/index.js', import.meta.url).href, kernel: demoImage() },
      });
      const { reason, text } = await new Promise<{ reason: string; text: string }>((resolve, reject) => {
        worker.once('message', resolve);
        worker.once('error', reject);
      });
      await worker.terminate();
      expect(reason).toBe('poweroff');
      expect(text).toMatch(/EL1/);
    },
    60 * SECONDS,
  );
});
