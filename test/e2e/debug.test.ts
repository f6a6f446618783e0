import { execFileSync, spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { directory, file, writeCpio } from '#lib/guest/cpio.js';
import { MicroVm } from '#lib/node/micro-vm.js';
import { createMachine, type MachineOptions } from '#lib/soft/cpu/machine.js';
import { SoftKvm } from '#lib/soft/soft-kvm.js';
import { cloudGuest, hasApt, readBytes, scratchDir } from './guest.ts';

/** Linux' ptrace on the processor's software step, breakpoints and watchpoints. Needs apt, and binutils for arm64. */
const has = (...programs: string[]): boolean => programs.every((p) => spawnSync(p, ['--version']).status === 0);
const hasBinutils = has('aarch64-linux-gnu-as', 'aarch64-linux-gnu-ld');
const withLinux = hasApt && hasBinutils ? test : test.skip;
const QEMU = 'qemu-system-aarch64';
const withQemu = hasApt && hasBinutils && has(QEMU) ? test : test.skip;
const MINUTES = 60_000;
const SOURCE = fileURLToPath(new URL('ptrace.s', import.meta.url));
const CMDLINE = 'console=ttyAMA0 panic=-1';

const scratch = scratchDir();
const initrd = scratch.file('initrd');
afterAll(() => scratch.remove());
let kernel = '';
beforeAll(async () => {
  if (!hasApt || !hasBinutils) return;
  ({ kernel } = await cloudGuest());
  const [object, program] = [scratch.file('ptrace.o'), scratch.file('ptrace')];
  execFileSync('aarch64-linux-gnu-as', ['-o', object, SOURCE]);
  execFileSync('aarch64-linux-gnu-ld', ['-N', '--no-warn-rwx-segments', '-o', program, object]);
  writeFileSync(initrd, writeCpio([directory('dev'), file('init', readBytes(program), 0o755)]));
}, 10 * MINUTES);

/** Boots with the tracer as init; what the serial console says, and how many instructions it took. */
async function boot(options: MachineOptions): Promise<{ serial: string; reason: string; instructions: bigint }> {
  const kvm = new SoftKvm({ clock: 'virtual', createMachine: () => createMachine(options) });
  const vm = await MicroVm.create({ kernel, initrd, kvm, clock: 'virtual', cmdline: CMDLINE, noReboot: true });
  try {
    await vm.boot();
    const { reason } = await vm.exited;
    const instructions = vm.stats().vcpuStats[0]!.instructions![0]!;
    return { serial: vm.serial.transcript(), reason, instructions };
  } finally {
    await vm.close();
  }
}

/** What the tracer says. */
const linesOf = (serial: string): string[] => serial.replaceAll('\r', '').match(/^[?BWs=cap] [0-9a-f]{8}$/gm) ?? [];

const TRAP = '? 0000057f';
const step = (pc: number): string[] => [TRAP, `s 000000${pc.toString(16).padStart(2, '0')}`];
/** @param debugVer of ID_AA64DFR0_EL1: the kernel tells of it beside how many breakpoints and watchpoints there are */
const said = (debugVer: 6 | 8): string[] => [
  '? 0000137f', // SIGSTOP
  `B 00000${debugVer}06`,
  `W 00000${debugVer}04`,
  // The kernel reports the end of a system call as a step of its own.
  ...[0x04, 0x08, 0x04, 0x08, 0x0c, 0x10, 0x14, 0x14, 0x18].flatMap(step),
  '= 00000000',
  TRAP,
  'c 00000004', // TRAP_HWBKPT
  'a 00000288', // the word, behind the doubleword's beginning
  'p 00000024',
  '= 00000000',
  '= 00000000',
  TRAP,
  'c 00000004',
  'a 0000002c',
  'p 0000002c',
  '= 00000000',
  '? 00003400', // exit(0x34)
];

withLinux(
  'a process is stepped, and stopped by a watchpoint and a breakpoint',
  async () => {
    const run = await boot({});
    expect(run.serial).toContain('hw-breakpoint: found 6 breakpoint and 4 watchpoint registers');
    expect(linesOf(run.serial)).toEqual(said(8));
    expect(run.reason).toBe('poweroff');
    // The same run where nothing is compiled.
    expect(await boot({ threshold: undefined })).toEqual(run);
  },
  5 * MINUTES,
);

withQemu(
  'QEMU says the same',
  () => {
    const machine = ['-M', 'virt,gic-version=3', '-cpu', 'cortex-a57', '-m', '256', '-nographic', '-no-reboot'];
    const guest = ['-kernel', kernel, '-initrd', initrd, '-append', CMDLINE];
    const { stdout } = spawnSync(QEMU, [...machine, ...guest], { encoding: 'latin1', timeout: 2 * MINUTES });
    // The Cortex-A57 has the debug architecture of Armv8.0.
    expect(linesOf(stdout)).toEqual(said(6));
  },
  3 * MINUTES,
);
