import { execFileSync, spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { directory, file, writeCpio } from '#lib/guest/cpio.js';
import { MicroVm } from '#lib/node/micro-vm.js';
import { createMachine, type MachineOptions } from '#lib/soft/cpu/machine.js';
import { SoftKvm } from '#lib/soft/soft-kvm.js';
import { cloudGuest, hasApt, readBytes, scratchDir } from './guest.ts';

/** Linux' perf events on the vCPU's PMU. Needs apt, and binutils for arm64. */
const has = (...programs: string[]): boolean => programs.every((p) => spawnSync(p, ['--version']).status === 0);
const isThere = hasApt && has('aarch64-linux-gnu-as', 'aarch64-linux-gnu-ld');
const withLinux = isThere ? test : test.skip;
const MINUTES = 60_000;
const SOURCE = fileURLToPath(new URL('perf.s', import.meta.url));
const CMDLINE = 'console=ttyAMA0 panic=-1';
const TURNS = 1_000_000;
const PERIOD = 100_000;

const scratch = scratchDir();
const initrd = scratch.file('initrd');
afterAll(() => scratch.remove());
let kernel = '';
beforeAll(async () => {
  if (!isThere) return;
  ({ kernel } = await cloudGuest());
  const [object, program] = [scratch.file('perf.o'), scratch.file('perf')];
  execFileSync('aarch64-linux-gnu-as', ['-o', object, SOURCE]);
  execFileSync('aarch64-linux-gnu-ld', ['-N', '--no-warn-rwx-segments', '-o', program, object]);
  writeFileSync(initrd, writeCpio([directory('dev'), file('init', readBytes(program), 0o755)]));
}, 10 * MINUTES);

/** Boots with the program as init; what the serial console says. */
async function boot(options: MachineOptions): Promise<string> {
  const kvm = new SoftKvm({ clock: 'virtual', createMachine: () => createMachine(options) });
  const vm = await MicroVm.create({ kernel, initrd, kvm, clock: 'virtual', cmdline: CMDLINE, pmu: true });
  try {
    await vm.boot();
    await vm.exited;
    return vm.serial.transcript();
  } finally {
    await vm.close();
  }
}

withLinux(
  'Linux finds the PMU, and perf counts a process to the instruction',
  async () => {
    const serial = await boot({});
    expect(serial).toContain('hw perfevents: enabled with armv8_pmuv3 PMU driver, 7 counters available');
    const said = serial.replaceAll('\r', '').match(/^[ics] [0-9a-f]{8}$/gm) ?? [];
    const [instructions, cycles, sampled] = said.map((line) => Number.parseInt(line.slice(2), 16));
    // The loop, the LDR before it, and the five of the ioctl behind it.
    expect([instructions, cycles]).toEqual([TURNS * 3 + 6, TURNS * 3 + 6]);
    // A sampling event ends at its third overflow, at most a few hundred instructions late each time.
    expect(sampled).toBeGreaterThanOrEqual(3 * PERIOD);
    expect(sampled).toBeLessThan(3 * PERIOD + 2000);
    // The same run where nothing is compiled.
    expect(await boot({ threshold: undefined })).toBe(serial);
  },
  5 * MINUTES,
);
