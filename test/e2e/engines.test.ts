import { beforeAll, describe, expect, test } from '@jest/globals';
import { MicroVm } from '#lib/node/micro-vm.js';
import { createMachine, type MachineOptions, type SoftMachine } from '#lib/soft/cpu/machine.js';
import { SoftKvm } from '#lib/soft/soft-kvm.js';
import { cloudGuest, hasApt } from './guest.ts';

/** Stock Debian on the virtual clock, interpreted and compiled: the same run, instruction for instruction. Needs apt to fetch it. */
const withDebian = hasApt ? describe : describe.skip;
const MINUTES = 60_000;

withDebian('Debian on the virtual clock', () => {
  let kernel = '';
  let initrd = '';
  beforeAll(async () => {
    ({ kernel, initrd } = await cloudGuest());
  }, 10 * MINUTES);

  interface Run {
    readonly reason: string;
    readonly console: string;
    readonly instructions: readonly bigint[];
  }

  /** Boots to a sleep of five seconds as init, whose end is a panic. */
  async function boot(cpus: number, options: MachineOptions): Promise<Run & { readonly regions: number }> {
    let machine: SoftMachine | undefined;
    const kvm = new SoftKvm({
      clock: 'virtual',
      createMachine: () => {
        machine = createMachine(options) as SoftMachine;
        return machine;
      },
    });
    const vm = await MicroVm.create({
      kernel,
      initrd,
      cpus,
      kvm,
      clock: 'virtual',
      noReboot: true,
      cmdline: 'console=ttyAMA0 panic=-1 rdinit=/bin/busybox -- sleep 5',
    });
    try {
      const chunks: Buffer[] = [];
      vm.serial.on('data', (chunk: Buffer) => chunks.push(chunk));
      await vm.boot();
      const { reason } = await vm.exited;
      const instructions = vm.stats().vcpuStats.map((v) => v.instructions?.[0] ?? 0n);
      return {
        reason,
        console: Buffer.concat(chunks).toString('latin1'),
        instructions,
        regions: machine!.stats.regions,
      };
    } finally {
      await vm.close();
    }
  }

  test.each([1, 4])(
    '%d vCPUs',
    async (cpus) => {
      const { regions: none, ...interpreted } = await boot(cpus, { threshold: undefined });
      expect(none).toBe(0);
      expect(interpreted.reason).toBe('panic');
      expect(interpreted.console).toMatch(/Run \/bin\/busybox as init process/);
      expect(interpreted.console).toMatch(/Attempted to kill init/);
      expect(interpreted.instructions.every((n) => n > 1_000_000n)).toBe(true);
      for (const options of [{}, { threshold: 50 }]) {
        const { regions, ...compiled } = await boot(cpus, options);
        expect(regions).toBeGreaterThan(500);
        expect(compiled).toEqual(interpreted);
      }
    },
    10 * MINUTES,
  );
});
