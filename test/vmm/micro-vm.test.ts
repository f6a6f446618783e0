import { afterEach, describe, expect, test } from '@jest/globals';
import { SystemEvent } from '#lib/kvm/index.js';
import { nodeScheduler } from '#lib/node/scheduler.js';
import type { VmConsole } from '#lib/vmm/console.js';
import { VmError } from '#lib/vmm/errors.js';
import { findCompatible, findNode, readFdt, stringList } from '#lib/vmm/fdt/index.js';
import { MicroVmBase, prepare } from '#lib/vmm/micro-vm.js';
import type { MicroVmOptions } from '#lib/vmm/options.js';
import type { Platform } from '#lib/vmm/platform.js';
import { FakeKvm, print, type Script, tinyKernel } from './fake-kvm.ts';

/** A VM whose ports are the bare consoles. */
class TestVm extends MicroVmBase<VmConsole> {
  static async create(options: MicroVmOptions, more: Partial<Platform> = {}): Promise<TestVm> {
    const platform = {
      ...more,
      createScheduler: nodeScheduler,
      openKvm: () => {
        throw new Error('tests bring their own Kvm');
      },
    };
    return new TestVm(await prepare(options, platform), (core) => core);
  }
}

const open: TestVm[] = [];
afterEach(async () => {
  for (const vm of open.splice(0)) await vm.close();
});

async function create(script: Script, options: Partial<MicroVmOptions> = {}): Promise<{ vm: TestVm; fake: FakeKvm }> {
  const fake = new FakeKvm(script);
  const vm = await TestVm.create({ kernel: tinyKernel(), memory: '16M', kvm: fake.kvm, ...options });
  open.push(vm);
  return { vm, fake };
}

const forever: Script = function* () {
  for (;;) yield { spin: true };
};

describe('a guest that prints and powers off', () => {
  const script: Script = function* () {
    yield* print('hello from vCPU 0\n');
    yield { event: SystemEvent.SHUTDOWN };
  };

  test('goes through its states, and its console and its end can be seen', async () => {
    const { vm, fake } = await create(script);
    const states: string[] = [vm.state];
    vm.on('state', (next) => states.push(next));
    await vm.boot();
    expect((await vm.console.waitFor(/from (vCPU \d)/))[1]).toBe('vCPU 0');
    const exit = await vm.exited;
    expect(exit).toMatchObject({ reason: 'poweroff', consoleTail: 'hello from vCPU 0\n' });
    expect(exit.stats).toMatchObject({ cpus: 1, memory: 16 * 2 ** 20, reboots: 0, backend: 'soft', consoleBytes: 18 });
    expect(exit.stats.exits).toMatchObject({ mmio: 18, system_event: 1 });
    expect(vm.stats().mmio).toEqual({ answered: 18, unassigned: 0 });
    await vm.close();
    expect(states).toEqual(['created', 'booting', 'running', 'stopped', 'closed']);
    expect(fake.vms[0]!.closed).toBe(true);
    expect(fake.vms[0]!.memory!.closed).toBe(true);
    // It was given, not opened.
    expect(fake.closed).toBe(false);
  });

  test('the device tree that it boots with names what there is', async () => {
    const { vm, fake } = await create(script, { cpus: 18, cmdline: 'console=ttyAMA0', initrd: new Uint8Array(5000) });
    const root = readFdt(fake.vms[0]!.dtb());
    const chosen = findNode(root, '/chosen')!;
    expect(stringList(chosen, 'bootargs')).toEqual(['console=ttyAMA0']);
    expect(chosen.properties.has('rng-seed')).toBe(true);
    expect(findNode(root, '/cpus')!.children).toHaveLength(18);
    // Aff0 has 16 values: vCPU 16 begins the next group, as in KVM.
    expect(findNode(root, '/cpus')!.children[16]!.name).toBe('cpu@100');
    // The random numbers, and the keyboard that holds the power key.
    expect(findCompatible(root, 'virtio,mmio')).toHaveLength(2);
    expect(stringList(findNode(root, '/psci')!, 'method')).toEqual(['hvc']);
    await vm.kill();
  });
});

describe('states', () => {
  test('a method in the wrong state says so, and changes nothing', async () => {
    const { vm } = await create(forever);
    expect(() => vm.pause()).toThrow(expect.objectContaining({ code: 'ERR_VM_STATE' }));
    expect(() => vm.resume()).toThrow(/resume\(\) needs a VM that is paused; this one is created/);
    await vm.boot();
    await expect(vm.boot()).rejects.toMatchObject({ code: 'ERR_VM_STATE' });
    expect(vm.state).toBe('running');
    expect((await vm.kill()).reason).toBe('killed');
    expect(() => vm.pause()).toThrow(expect.objectContaining({ code: 'ERR_VM_STATE' }));
    await vm.close();
    await vm.close();
    await expect(vm.boot()).rejects.toMatchObject({ code: 'ERR_VM_STATE' });
    expect((await vm.stop()).reason).toBe('killed');
  });

  test('a paused guest does not run, and goes on where it was', async () => {
    let steps = 0;
    const { vm } = await create(function* () {
      for (;;) {
        steps++;
        yield { wfi: 0.01 };
      }
    });
    await vm.boot();
    vm.pause();
    const before = steps;
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(steps).toBe(before);
    vm.resume();
    while (steps === before) await new Promise((resolve) => setImmediate(resolve));
    expect(vm.state).toBe('running');
  });

  test('closed before boot, everything is given back', async () => {
    const { vm, fake } = await create(forever);
    await vm.close();
    expect((await vm.exited).reason).toBe('killed');
    expect(fake.vms[0]!.closed).toBe(true);
  });
});

describe('a guest that will not end', () => {
  test('is ended by the AbortSignal it was made with', async () => {
    const abort = new AbortController();
    const { vm } = await create(forever, { signal: abort.signal });
    await vm.boot();
    abort.abort(new Error('enough'));
    const exit = await vm.exited;
    expect(exit.reason).toBe('killed');
    expect((exit.cause as Error).message).toBe('enough');
  });

  test('is ended by its timeout', async () => {
    const { vm } = await create(forever, { timeoutMs: 20 });
    await vm.boot();
    expect((await vm.exited).reason).toBe('timeout');
  });

  test('is asked by the power key, and killed when it does not answer', async () => {
    const { vm, fake } = await create(forever);
    await vm.boot();
    const stopped = vm.stop({ graceMs: 10 });
    expect((await stopped).reason).toBe('killed');
    expect(fake.vms).toHaveLength(1);
  });

  test('leaves the event loop its turns', async () => {
    const { vm } = await create(forever);
    await vm.boot();
    let turns = 0;
    const count = (): void => {
      if (vm.state !== 'running') return;
      turns++;
      setImmediate(count);
    };
    count();
    // Both come about; where one does not, the test's own limit ends it.
    while (turns < 5 || vm.stats().turns < 5) await new Promise((resolve) => setImmediate(resolve));
    expect(vm.state).toBe('running');
    await vm.kill();
  });
});

describe('the power key', () => {
  test('reaches a guest that listens: it powers itself off', async () => {
    const gpio = 0x0903_0000;
    const { vm } = await create(function* (guest) {
      yield { write: gpio + 0x408, value: 0 }; // GPIOIBE
      yield { write: gpio + 0x40c, value: 8 }; // GPIOIEV: rising
      yield { write: gpio + 0x410, value: 8 }; // GPIOIE
      yield { wfi: Number.POSITIVE_INFINITY };
      const status = yield { read: gpio + 0x418 }; // GPIOMIS
      if (status === 8 && guest.levels.get(32 + 7) === true) yield { event: SystemEvent.SHUTDOWN };
      yield* forever(guest, guest.vcpus[0]!);
    });
    await vm.boot();
    expect((await vm.stop()).reason).toBe('poweroff');
  });
});

describe('reset', () => {
  const script: Script = function* (guest) {
    yield* print(`boot ${guest.boot}\n`);
    yield { event: guest.boot < 2 ? SystemEvent.RESET : SystemEvent.SHUTDOWN };
  };

  test('boots the guest again, on a machine with fresh memory', async () => {
    const { vm, fake } = await create(script);
    const reboots: number[] = [];
    vm.on('reboot', (count) => reboots.push(count));
    await vm.boot();
    const exit = await vm.exited;
    expect(exit).toMatchObject({ reason: 'poweroff', consoleTail: 'boot 0\nboot 1\nboot 2\n' });
    expect(reboots).toEqual([1, 2]);
    expect(exit.stats.reboots).toBe(2);
    expect(fake.vms.map((v) => v.closed)).toEqual([true, true, true]);
  });

  describe('of a kernel that is a file', () => {
    const fromFile = async (again: () => Uint8Array | Promise<Uint8Array>) => {
      const fake = new FakeKvm(script);
      const read: Uint8Array[] = [];
      const released: Uint8Array[] = [];
      const platform = {
        readFile: async () => {
          const bytes = read.length === 0 ? tinyKernel() : await again();
          read.push(bytes);
          return bytes;
        },
        releaseFile: (bytes: Uint8Array) => void released.push(bytes),
      };
      const initrd = new Uint8Array(16);
      const vm = await TestVm.create({ kernel: 'Image', initrd, memory: '16M', kvm: fake.kvm }, platform);
      open.push(vm);
      return { vm, fake, read, released };
    };

    test('reads it again, and keeps none of what was read; bytes that were given are their owner’s', async () => {
      const { vm, read, released } = await fromFile(tinyKernel);
      expect(released).toEqual(read);
      await vm.boot();
      expect((await vm.exited).stats.reboots).toBe(2);
      expect(read).toHaveLength(3);
      expect(released.map((bytes) => read.indexOf(bytes))).toEqual([0, 1, 2]);
    });

    test('fails where it is not there any more', async () => {
      const { vm, fake } = await fromFile(() => {
        throw new VmError('ERR_FILE', 'kernel: there is no file Image');
      });
      await vm.boot();
      const exit = await vm.exited;
      expect(exit).toMatchObject({ reason: 'failed', stats: { reboots: 0 } });
      expect(exit.message).toMatch(/reboot.*there is no file Image/);
      expect(fake.vms.map((v) => v.closed)).toEqual([true]);
    });

    test('may be paused, resumed and killed while it is read; the machine that was reset does not run again', async () => {
      let give: (bytes: Uint8Array) => void = () => {};
      const { vm, fake } = await fromFile(() => new Promise((resolve) => (give = resolve)));
      await vm.boot();
      const isReading = give;
      while (give === isReading) await new Promise((resolve) => setImmediate(resolve));
      vm.pause();
      vm.resume();
      for (let n = 0; n < 5; n++) await new Promise((resolve) => setImmediate(resolve));
      expect(vm.state).toBe('running');
      expect(fake.vms).toHaveLength(1);
      const exit = vm.kill();
      give(tinyKernel());
      expect(await exit).toMatchObject({ reason: 'killed', consoleTail: 'boot 0\n', stats: { reboots: 0 } });
      expect(fake.vms.map((v) => v.closed)).toEqual([true]);
    });
  });

  test('ends it where noReboot says so', async () => {
    const { vm } = await create(script, { noReboot: true });
    await vm.boot();
    expect((await vm.exited).reason).toBe('reset');
  });
});

describe('panic', () => {
  const PANIC = '[    1.5] Kernel panic - not syncing: VFS: Unable to mount root fs\n[    1.5] CPU: 0 PID: 1\n';

  test('a reset after it is the end, not a reboot', async () => {
    const { vm, fake } = await create(function* () {
      yield* print(PANIC);
      yield { event: SystemEvent.RESET };
    });
    await vm.boot();
    expect((await vm.exited).reason).toBe('panic');
    expect(fake.vms).toHaveLength(1);
  });

  test('a kernel that halts after it is ended', async () => {
    const { vm } = await create(function* (guest, vcpu) {
      yield* print(`${PANIC}[    1.6] ---[ end Kernel panic - not syncing: VFS ]---\n`);
      yield* forever(guest, vcpu);
    });
    await vm.boot();
    expect((await vm.exited).reason).toBe('panic');
  });

  test('an orderly shutdown of a guest that has only shown such a text is none', async () => {
    const { vm } = await create(function* () {
      yield* print(`# cat old.log\n${PANIC}# poweroff\n[   9.0] reboot: Power down\n`);
      yield { event: SystemEvent.SHUTDOWN };
    });
    await vm.boot();
    expect((await vm.exited).reason).toBe('poweroff');
  });

  test('a PSCI crash event is one', async () => {
    const { vm } = await create(function* () {
      yield { event: SystemEvent.CRASH };
    });
    await vm.boot();
    expect((await vm.exited).reason).toBe('panic');
  });
});

describe('failure', () => {
  test('a run() that throws ends the VM as failed, with the error', async () => {
    const { vm } = await create(function* () {
      yield* print('so far so good');
      yield { fail: new Error('broken') };
    });
    await vm.boot();
    const exit = await vm.exited;
    expect(exit).toMatchObject({ reason: 'failed', consoleTail: 'so far so good' });
    expect((exit.cause as Error).message).toBe('broken');
    expect(vm.state).toBe('failed');
  });

  test.each([
    [{ reason: 'internal_error', suberror: 3, data: [] } as const, /internal error 3/],
    [{ reason: 'fail_entry', hardwareEntryFailureReason: 1n, cpu: 0 } as const, /could not enter/],
    [{ reason: 'memory_fault', flags: 0n, gpa: 0x1000, size: 4096 } as const, /0x1000/],
    [{ reason: 'arm_sea', flags: 0n, esr: 0n, gva: 0n, gpa: 0x2000 } as const, /0x2000/],
    [{ reason: 'debug', hsr: 0, far: 0n } as const, /debug exit/],
  ])('exit %# ends it', async (exit, message) => {
    const { vm } = await create(function* () {
      yield { exit };
    });
    await vm.boot().catch(() => {});
    const { reason, message: text } = await vm.exited;
    expect(reason).toBe('failed');
    expect(text).toMatch(message);
  });

  test('memory that cannot be had is an error of create(), naming what to do, and nothing stays open', async () => {
    const fake = new FakeKvm(forever);
    const made = TestVm.create({ kernel: tinyKernel(), memory: '4G', kvm: fake.kvm });
    await expect(made).rejects.toMatchObject({
      code: 'ERR_MEMORY_UNAVAILABLE',
      message: expect.stringContaining('4096 MiB'),
    });
    expect(fake.vms[0]!.closed).toBe(true);
  });

  test('huge pages are asked of the KVM; where it has none, or too few, create() says so and nothing stays open', async () => {
    const fake = new FakeKvm(forever);
    const vm = await TestVm.create({ kernel: tinyKernel(), memory: '64M', hugePages: '2M', kvm: fake.kvm });
    expect(fake.vms[0]!.hugePageSize).toBe(2 ** 21);
    await vm.close();
    const refusals = [
      ['EINVAL', 'ERR_INVALID_OPTION'],
      ['ENOMEM', 'ERR_MEMORY_UNAVAILABLE'],
    ] as const;
    for (const [errno, code] of refusals) {
      const lacking = new FakeKvm(forever);
      lacking.refuseHugePages = errno;
      const made = TestVm.create({ kernel: tinyKernel(), memory: '64M', hugePages: '2M', kvm: lacking.kvm });
      await expect(made).rejects.toMatchObject({
        code,
        message: expect.stringMatching(/^hugePages: .*leave the option out$/),
      });
      expect(lacking.vms[0]!.closed).toBe(true);
    }
  });

  test('a kernel too big for the memory, too', async () => {
    const fake = new FakeKvm(forever);
    const made = TestVm.create({ kernel: tinyKernel(64 * 2 ** 20), memory: '16M', kvm: fake.kvm });
    await expect(made).rejects.toMatchObject({ code: 'ERR_KERNEL_TOO_BIG' });
    expect(fake.vms[0]!.closed).toBe(true);
    expect(fake.vms[0]!.memory!.closed).toBe(true);
  });

  test('an interrupt controller that the KVM has not', async () => {
    await expect(create(function* () {}, { gic: 2 })).rejects.toThrow(
      'gic: this KVM has no GICv2; leave the option out',
    );
    await expect(create(function* () {}, { its: true })).rejects.toThrow('its: this KVM has no ITS');
  });

  test('a signal aborted before create() is an AbortError', async () => {
    const made = create(forever, { signal: AbortSignal.abort() });
    await expect(made).rejects.toMatchObject({ name: 'AbortError', code: 'ERR_ABORTED' });
  });
});

describe('waitFor', () => {
  test('looks behind its last match, and fails at the guest’s end with what the console said', async () => {
    const { vm } = await create(function* () {
      yield* print('one two ');
      yield { wfi: 1 };
      yield* print('one');
    });
    await vm.boot();
    await vm.console.waitFor('one');
    const second = vm.console.waitFor('one');
    const never = vm.console.waitFor('never');
    await second;
    await expect(never).rejects.toMatchObject({
      code: 'ERR_CONSOLE_ENDED',
      message: expect.stringContaining('one two one'),
    });
    await expect(vm.console.waitFor('afterwards')).rejects.toMatchObject({ code: 'ERR_CONSOLE_ENDED' });
    expect(VmError.is(await never.catch((e: unknown) => e), 'ERR_CONSOLE_ENDED')).toBe(true);
  });

  test('is ended by its timeout and by its signal', async () => {
    const { vm } = await create(forever);
    await vm.boot();
    await expect(vm.console.waitFor('x', { timeoutMs: 5 })).rejects.toMatchObject({ code: 'ERR_TIMEOUT' });
    const abort = new AbortController();
    const waiting = vm.console.waitFor('x', { signal: abort.signal });
    abort.abort();
    await expect(waiting).rejects.toMatchObject({ name: 'AbortError' });
  });
});

describe('input', () => {
  test('written before boot, it reaches the guest once its UART is enabled', async () => {
    const uart = 0x0900_0000;
    const { vm } = await create(function* () {
      yield { write: uart + 0x2c, value: 0x70 }; // LCR_H: 8 bits, FIFOs
      yield { write: uart + 0x30, value: 0x301 }; // CR: UARTEN, TXE, RXE
      yield { write: uart + 0x38, value: 0x50 }; // IMSC: RX, RT
      for (let got = ''; !got.endsWith('\n'); ) {
        const flags = yield { read: uart + 0x18 };
        if ((flags & 0x10) !== 0) {
          yield { wfi: 1 };
          continue;
        }
        const byte = yield { read: uart };
        got += String.fromCharCode(byte);
        yield { write: uart, value: byte, len: 1 };
      }
    });
    const text = `${'echo '.repeat(20)}done\n`;
    vm.console.write(text);
    await vm.boot();
    expect((await vm.exited).consoleTail).toBe(text);
  });
});

test('an unref’d VM does not keep the process alive; a ref’d one does', async () => {
  const { spawnSync } = await import('node:child_process');
  const index = new URL('../../dist/index.js', import.meta.url).href;
  const program = (call: string): string =>
    `import { MicroVm } from '${index}';
     import { demoImage } from '${new URL('../../dist/guest/demo.js', import.meta.url).href}';
     const vm = await MicroVm.create({ kernel: demoImage(), memory: '16M' });
     ${call}
     void vm.boot();
     vm.exited.then(({ reason }) => console.log(reason));`;
  const run = (call: string): string =>
    spawnSync(process.execPath, ['--input-type=module', '-e', program(call)]).stdout.toString();
  expect(run('vm.unref();')).toBe('');
  expect(run('vm.unref().ref();')).toBe('poweroff\n');
});

test('two VMs run side by side', async () => {
  const script = (name: string): Script =>
    function* () {
      for (let i = 0; i < 3; i++) {
        yield* print(`${name}${i} `);
        yield { wfi: 1 };
      }
    };
  const a = await create(script('a'));
  const b = await create(script('b'));
  await Promise.all([a.vm.boot(), b.vm.boot()]);
  const exits = await Promise.all([a.vm.exited, b.vm.exited]);
  expect(exits.map((e) => e.consoleTail)).toEqual(['a0 a1 a2 ', 'b0 b1 b2 ']);
});

test('vCPUs that are idle wait for their interrupt; one that computes does not keep the others out', async () => {
  const order: number[] = [];
  const { vm } = await create(
    function* (guest, vcpu) {
      if (vcpu.id === 0) {
        for (let i = 0; i < 3; i++) yield { spin: true };
        guest.vcpus[1]!.wake();
        for (;;) yield { spin: true };
      }
      yield { wfi: Number.POSITIVE_INFINITY };
      order.push(vcpu.id);
      yield { event: SystemEvent.SHUTDOWN };
    },
    { cpus: 2 },
  );
  await vm.boot();
  expect((await vm.exited).reason).toBe('poweroff');
  expect(order).toEqual([1]);
});

describe('the interrupt controller', () => {
  const gicOf = async (vgics: readonly number[], options: Partial<MicroVmOptions> = {}): Promise<string[]> => {
    const fake = new FakeKvm(forever);
    fake.vgics = vgics;
    const vm = await TestVm.create({ kernel: tinyKernel(), memory: '16M', kvm: fake.kvm, ...options });
    open.push(vm);
    const tree = readFdt(fake.vms[0]!.dtb());
    return ['arm,gic-v3', 'arm,cortex-a15-gic'].filter((name) => findCompatible(tree, name).length > 0);
  };

  test('is a GICv3, or a GICv2 where the KVM has nothing else', async () => {
    expect(await gicOf([7])).toEqual(['arm,gic-v3']);
    expect(await gicOf([5, 7])).toEqual(['arm,gic-v3']);
    expect(await gicOf([5])).toEqual(['arm,cortex-a15-gic']);
    expect(await gicOf([5, 7], { gic: 2 })).toEqual(['arm,cortex-a15-gic']);
  });

  test('that is not there is an error that says so', async () => {
    await expect(gicOf([5], { gic: 3 })).rejects.toThrow(/gic: this KVM has no GICv3/);
    await expect(gicOf([7], { gic: 2 })).rejects.toThrow(/gic: this KVM has no GICv2/);
    await expect(gicOf([5], { its: true })).rejects.toThrow(/its: this KVM has no GICv3/);
    await expect(gicOf([])).rejects.toThrow(expect.objectContaining({ code: 'ERR_BACKEND_UNAVAILABLE' }));
  });
});
