import { setImmediate as turn } from 'node:timers/promises';
import { afterEach, describe, expect, test } from '@jest/globals';
import { KvmError, SystemEvent } from '#lib/kvm/index.js';
import { nodeScheduler } from '#lib/node/scheduler.js';
import type { VmConsole } from '#lib/vmm/console.js';
import { MicroVmBase, prepare } from '#lib/vmm/micro-vm.js';
import type { MicroVmOptions } from '#lib/vmm/options.js';
import { FakeKvm, type FakeThreadVcpu, PL011_DR, print, type Script, type Step, tinyKernel } from './fake-kvm.ts';

const PL011_FR = PL011_DR + 0x018;
/** UARTIMSC, and its bits for transmission and for what has been received. */
const PL011_IMSC = PL011_DR + 0x038;
const TXIM = 1 << 5;
const RTIM = 1 << 6;

/** A VM whose ports are the bare consoles. */
class TestVm extends MicroVmBase<VmConsole> {
  static async create(options: MicroVmOptions): Promise<TestVm> {
    const openKvm = (): never => {
      throw new Error('tests bring their own Kvm');
    };
    return new TestVm(await prepare(options, { createScheduler: nodeScheduler, openKvm }), (core) => core);
  }
}

const open: TestVm[] = [];
afterEach(async () => {
  for (const vm of open.splice(0)) await vm.close();
});

async function create(script: Script, options: Partial<MicroVmOptions> = {}): Promise<{ vm: TestVm; fake: FakeKvm }> {
  const fake = new FakeKvm(script, true);
  const vm = await TestVm.create({ kernel: tinyKernel(), memory: '16M', kvm: fake.kvm, ...options });
  open.push(vm);
  return { vm, fake };
}

const vcpusOf = (fake: FakeKvm, vm = 0): FakeThreadVcpu[] => fake.vms[vm]!.vcpus as FakeThreadVcpu[];

describe('vCPUs on threads of their own', () => {
  test('a guest prints and powers off', async () => {
    const { vm, fake } = await create(function* () {
      yield* print('hi\n');
      yield { event: SystemEvent.SHUTDOWN };
    });
    await vm.boot();
    expect(await vm.exited).toMatchObject({ reason: 'poweroff', consoleTail: 'hi\n' });
    expect(vm.stats().exits).toMatchObject({ mmio: 3, system_event: 1 });
    expect(vcpusOf(fake)[0]!.listener).toBeUndefined();
  });

  test('a guest that never exits has booted, and is killed', async () => {
    const { vm, fake } = await create(
      function* () {
        for (;;) yield { spin: true };
      },
      { cpus: 3 },
    );
    await vm.boot();
    expect(vm.state).toBe('running');
    expect(vcpusOf(fake).map((vcpu) => vcpu.listener !== undefined)).toEqual([true, true, true]);
    expect(await vm.kill()).toMatchObject({ reason: 'killed' });
    expect(vcpusOf(fake).map((vcpu) => vcpu.listener)).toEqual([undefined, undefined, undefined]);
  });

  test('paused, no vCPU runs; resumed, they go on where they were', async () => {
    const { vm, fake } = await create(function* () {
      for (let i = 0; ; i++) yield { write: PL011_DR, value: 97 + (i % 26), len: 1 };
    });
    await vm.boot();
    for (let i = 0; i < 10; i++) await turn();
    vm.pause();
    const { runs } = vcpusOf(fake)[0]!;
    for (let i = 0; i < 5; i++) await turn();
    expect(vcpusOf(fake)[0]!.runs).toBe(runs);
    vm.resume();
    await vm.console.waitFor('xyzabc');
    expect(vcpusOf(fake)[0]!.starts).toBe(2);
    await vm.kill();
    const text = vm.console.transcript(100);
    expect('abcdefghijklmnopqrstuvwxyz'.repeat(10)).toContain(text.slice(0, 50));
  });

  test('killed inside an exit, the VM is closed after it', async () => {
    const { vm, fake } = await create(function* () {
      for (;;) yield* print('x\n');
    });
    let closedInside: boolean | undefined;
    vm.on('state', (next) => {
      if (next !== 'running') return;
      void vm.kill();
      closedInside = fake.vms[0]!.closed;
    });
    await Promise.allSettled([vm.boot()]);
    expect(await vm.exited).toMatchObject({ reason: 'killed' });
    expect([closedInside, fake.vms[0]!.closed]).toEqual([false, true]);
  });

  test('a guest that prints much is told to be in rows; what is in the ring comes before the next exit', async () => {
    const line = '0123456789abcde\n';
    const text = line.repeat(100);
    const { vm, fake } = await create(function* () {
      for (let i = 0; i < 100; i++) {
        yield* print(line.slice(0, -1));
        // Beyond the register's end: always an exit.
        yield { write: PL011_DR, value: 0x0a, len: 8 };
      }
      yield { event: SystemEvent.SHUTDOWN };
    });
    const pieces: number[] = [];
    vm.console.onOutput = (bytes) => pieces.push(bytes.length);
    await vm.boot();
    await vm.exited;
    expect(vm.console.transcript()).toBe(text);
    expect(pieces.reduce((sum, length) => sum + length, 0)).toBe(text.length);
    // By itself each would be an exit, and a piece.
    expect(pieces.length).toBeLessThan(text.length / 4);
    expect(fake.vms[0]!.coalesced).toBeGreaterThan(text.length / 4);
    expect(fake.vms[0]!.zones.size).toBe(0);
  });

  test('what is in the ring is seen although the guest never exits again, and its stores are exits then', async () => {
    const { vm, fake } = await create(function* () {
      yield* print('x'.repeat(500));
      yield* print('the last');
      for (;;) yield { spin: true };
    });
    await vm.boot();
    await vm.console.waitFor('the last');
    while (fake.vms[0]!.zones.size > 0) await turn();
    expect(fake.vms[0]!.coalesced).toBeGreaterThan(0);
  });

  test('paused, a guest that prints much keeps nothing back', async () => {
    const { vm, fake } = await create(function* () {
      for (let i = 0; ; i++) yield { write: PL011_DR, value: 97 + (i % 26), len: 1 };
    });
    await vm.boot();
    while (fake.vms[0]!.coalesced === 0) await turn();
    vm.pause();
    expect(fake.vms[0]!.zones.size).toBe(0);
    expect(fake.vms[0]!.takeCoalescedMmio()).toEqual([]);
    await vm.kill();
    expect('abcdefghijklmnopqrstuvwxyz'.repeat(100)).toContain(vm.console.transcript(100));
  });

  describe('that reads whether there is room before each character', () => {
    const TXFF = 1 << 5;
    const RXFE = 1 << 4;
    /** As Linux's driver does it; what it reads goes to `seen`. */
    function* polls(text: string, seen: number[] = []): Generator<Step, void, number> {
      for (const character of text) {
        for (;;) {
          const flags = yield { read: PL011_FR };
          seen.push(flags);
          if ((flags & TXFF) === 0) break;
        }
        yield { write: PL011_DR, value: character.charCodeAt(0) };
      }
    }
    const text = '0123456789abcde\n'.repeat(100);

    test('is told by the threads while stores wait, and by the device before and after', async () => {
      const seen: number[] = [];
      const { vm, fake } = await create(function* () {
        yield* polls(text, seen);
        yield { event: SystemEvent.SHUTDOWN };
      });
      await vm.boot();
      await vm.exited;
      expect(vm.console.transcript()).toBe(text);
      // Transmit FIFO empty, receive FIFO empty, somebody at the other end.
      expect(new Set(seen)).toEqual(new Set([0x97]));
      const [vcpu] = vcpusOf(fake);
      expect(vcpu!.answered).toBeGreaterThan(text.length / 4);
      expect(vcpu!.answers.size).toBe(0);
    });

    test('loses nothing where nobody takes what it prints: the device says so in time', async () => {
      const long = text.repeat(10);
      const seen: number[] = [];
      const { vm, fake } = await create(function* () {
        yield* polls(long, seen);
        yield { event: SystemEvent.SHUTDOWN };
      });
      const [vcpu] = vcpusOf(fake);
      const waits = (): boolean => (seen.at(-1)! & TXFF) !== 0;
      let taken = '';
      vm.console.onOutput = (bytes) => {
        taken += Buffer.from(bytes).toString('latin1');
        if (vcpu!.answered > 0) vm.console.setFull(true);
      };
      await vm.boot();
      while (!waits()) await turn();
      expect(taken.length).toBeLessThan(long.length);
      vm.console.onOutput = (bytes) => {
        taken += Buffer.from(bytes).toString('latin1');
      };
      vm.console.setFull(false);
      await vm.exited;
      expect(taken).toBe(long);
    });

    test('finds what is typed no later than it is interrupted', async () => {
      let coalesces = false;
      let misses = 0;
      const { vm } = await create(function* (guest) {
        // UARTCR: UARTEN, TXE and RXE. UARTLCR_H: FEN.
        yield { write: PL011_DR + 0x030, value: 0x301 };
        yield { write: PL011_DR + 0x02c, value: 0x10 };
        yield { write: PL011_IMSC, value: RTIM };
        yield* polls('x'.repeat(1000));
        while (((yield { read: PL011_FR }) & RXFE) !== 0) if ([...guest.levels.values()].some(Boolean)) misses++;
        coalesces = guest.zones.size > 0;
        const typed = yield { read: PL011_DR };
        yield { write: PL011_DR, value: typed };
        yield { event: SystemEvent.SHUTDOWN };
      });
      await vm.boot();
      await vm.console.waitFor('x'.repeat(1000));
      vm.console.write(Buffer.from('y'));
      await vm.exited;
      expect([coalesces, vm.console.transcript(1)]).toEqual([true, 'y']);
      // One read may have been on its way.
      expect(misses).toBeLessThanOrEqual(1);
    });
  });

  test('no store waits while the guest is to be interrupted when it can transmit', async () => {
    const { vm, fake } = await create(function* () {
      yield { write: PL011_IMSC, value: TXIM };
      yield* print('x'.repeat(500));
      yield { event: SystemEvent.SHUTDOWN };
    });
    await vm.boot();
    expect(await vm.exited).toMatchObject({ reason: 'poweroff' });
    expect(vm.console.transcript()).toBe('x'.repeat(500));
    expect(fake.vms[0]!.coalesced).toBe(0);
  });

  test('a reset is a new machine, whose vCPUs are started', async () => {
    const { vm, fake } = await create(function* (guest) {
      yield* print(`boot ${guest.boot}\n`);
      yield { event: guest.boot === 0 ? SystemEvent.RESET : SystemEvent.SHUTDOWN };
    });
    await vm.boot();
    expect(await vm.exited).toMatchObject({ reason: 'poweroff', consoleTail: 'boot 0\nboot 1\n' });
    expect(vcpusOf(fake, 0)[0]!.closed).toBe(true);
    expect(vcpusOf(fake, 1)[0]!.starts).toBe(1);
  });

  test('a KVM_RUN that fails fails the VM', async () => {
    const { vm } = await create(function* () {
      yield { spin: true };
      yield { fail: new KvmError('EFAULT', 'KVM_RUN') };
    });
    await vm.boot();
    const exit = await vm.exited;
    expect(exit.reason).toBe('failed');
    expect(KvmError.is(exit.cause, 'EFAULT')).toBe(true);
  });

  test('an exit that nothing can go on from fails the VM', async () => {
    const { vm } = await create(function* () {
      yield { exit: { reason: 'fail_entry', hardwareEntryFailureReason: 7n, cpu: 3 } };
    });
    await vm.boot();
    expect(await vm.exited).toMatchObject({ reason: 'failed', message: expect.stringContaining('0x7') });
  });
});
