import { execFileSync, spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { afterAll, expect, test } from '@jest/globals';
import { directory, file, writeCpio } from '#lib/guest/cpio.js';
import { MicroVm } from '#lib/node/micro-vm.js';
import { createMachine, type MachineOptions } from '#lib/soft/cpu/machine.js';
import { SoftKvm } from '#lib/soft/soft-kvm.js';
import { cloudGuest, hasApt, readBytes, scratchDir } from './guest.ts';

/** Linux' use of FEAT_BTI: a program that is marked for it. Needs apt, and binutils for arm64. */
const hasBinutils = spawnSync('aarch64-linux-gnu-ld', ['--version']).status === 0;
const withLinux = hasApt && hasBinutils ? test : test.skip;
const MINUTES = 60_000;

const scratch = scratchDir();
afterAll(() => scratch.remove());

async function boot(kernel: string, initrd: string, options: MachineOptions): Promise<readonly string[]> {
  const kvm = new SoftKvm({ clock: 'virtual', createMachine: () => createMachine(options) });
  const cmdline = 'console=ttyAMA0 panic=-1';
  const vm = await MicroVm.create({ kernel, initrd, kvm, clock: 'virtual', cmdline, noReboot: true });
  try {
    await vm.boot();
    const { reason } = await vm.exited;
    expect(reason).toBe('poweroff');
    const serial = vm.serial.transcript();
    expect(serial).toContain('detected: Branch Target Identification');
    return serial.replaceAll('\r', '').match(/^= [0-9a-f]{8}$/gm) ?? [];
  } finally {
    await vm.close();
  }
}

withLinux(
  `a program marked for BTI dies of branches to what is no landing pad${hasApt && hasBinutils ? '' : ' (needs apt and aarch64-linux-gnu-ld)'}`,
  async () => {
    const { kernel } = await cloudGuest();
    const [object, program, initrd] = ['bti.o', 'bti', 'initrd'].map((name) => scratch.file(name)) as [
      string,
      string,
      string,
    ];
    execFileSync('aarch64-linux-gnu-as', ['-o', object, fileURLToPath(new URL('bti.s', import.meta.url))]);
    execFileSync('aarch64-linux-gnu-ld', ['-z', 'force-bti', '-o', program, object], { stdio: 'ignore' });
    writeFileSync(initrd, writeCpio([directory('dev'), file('init', readBytes(program), 0o755)]));
    // BLR to BTI c, to BTI j, to neither; BR to BTI c, through X16; BR to BTI j; BLR and BR to PACIASP; BLR behind BTI c. 4 is SIGILL.
    const killed = '= 00000004';
    const expected = ['= 00000c00', killed, killed, killed, '= 00000c00', '= 00000e00', '= 00000a00', killed, killed];
    expect(await boot(kernel, initrd, {})).toEqual(expected);
    expect(await boot(kernel, initrd, { threshold: 1000 })).toEqual(expected);
  },
  5 * MINUTES,
);
