import { closeSync, openSync, readFileSync, writeFileSync, writeSync } from 'node:fs';
import { PassThrough } from 'node:stream';
import { gzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { execInGuest, guestOptions } from '#lib/node/default-guest.js';
import { MicroVm } from '#lib/node/micro-vm.js';
import type { MicroVmOptions } from '#lib/vmm/options.js';
import { cloudGuest, elvisor, fullGuest, hasApt, readBytes, scratchDir } from './guest.ts';

/** Stock Debian, booted and used as its users would. Needs apt to fetch it. */
const withDebian = hasApt ? describe : describe.skip;
const MINUTES = 60_000;

let kernel = '';
let initrd = '';
const scratch = scratchDir();
afterAll(() => scratch.remove());

/** Boots to the default guest's shell, runs `script` there, powers off; the console's text from the shell on. */
async function shell(
  options: Partial<MicroVmOptions>,
  script: readonly string[],
): Promise<{ text: string; reason: string; reboots: number }> {
  const vm = await MicroVm.create({ ...guestOptions({ kernel, initrd }, { quiet: true }), ...options });
  try {
    let text = '';
    vm.console.setEncoding('utf8');
    vm.console.on('data', (chunk: string) => {
      text += chunk;
    });
    await vm.boot();
    await vm.console.waitFor('~ # ', { timeoutMs: 3 * MINUTES });
    for (const line of script) {
      // The end mark is put together by the shell, so that the echo of the command does not hold it.
      vm.console.write(`${line}; echo do''ne\n`);
      await vm.console.waitFor(/done\r?\n/, { timeoutMs: 3 * MINUTES });
    }
    vm.console.write('poweroff -f\n');
    const { reason } = await vm.exited;
    return { text, reason, reboots: vm.stats().reboots };
  } finally {
    await vm.close();
  }
}

/** A grace that no test waits for: what ends the guest is the guest. */
const FOR_EVER = { graceMs: 24 * 60 * MINUTES };

/** Boots to the shell, runs `script` there, and stops the VM from outside. */
async function stopped(
  guest: { kernel: string; initrd: string },
  script: readonly string[],
): Promise<{ text: string; serial: string; exit: string }> {
  const vm = await MicroVm.create(guestOptions(guest, { quiet: true }));
  try {
    await vm.boot();
    await vm.console.waitFor('~ # ', { timeoutMs: 3 * MINUTES });
    for (const line of script) {
      vm.console.write(`${line}; echo do''ne\n`);
      await vm.console.waitFor(/done\r?\n/, { timeoutMs: 3 * MINUTES });
    }
    const exit = await vm.stop(FOR_EVER);
    return { text: vm.console.transcript(), serial: vm.serial.transcript(), exit: exit.reason };
  } finally {
    await vm.close();
  }
}

withDebian('Debian', () => {
  beforeAll(async () => {
    ({ kernel, initrd } = await cloudGuest());
  }, 10 * MINUTES);

  test(
    'a command: its output is on stdout and nothing else',
    async () => {
      const { status, stdout, stderr } = await elvisor(['run', '--quiet', '--', 'uname', '-sm']);
      expect(stderr).toBe('');
      expect(stdout).toBe('Linux aarch64\n');
      expect(status).toBe(0);
    },
    3 * MINUTES,
  );

  test(
    'four vCPUs, all of them online',
    async () => {
      const { text, reason } = await shell({ cpus: 4 }, [
        'nproc',
        'cat /proc/interrupts',
        'for i in 0 1 2 3; do taskset -c $i sh -c "echo on $i"; done',
      ]);
      expect(text).toMatch(/nproc; echo do''ne\r\n4\r\n/);
      expect(text).toMatch(/arch_timer/);
      for (let i = 0; i < 4; i++) expect(text).toContain(`\non ${i}`);
      expect(reason).toBe('poweroff');
    },
    5 * MINUTES,
  );

  test(
    'a GICv2 with four vCPUs',
    async () => {
      const { text, reason } = await shell({ cpus: 4, gic: 2 }, ['nproc', 'cat /proc/interrupts']);
      expect(text).toMatch(/nproc; echo do''ne\r\n4\r\n/);
      expect(text).toMatch(/GIC-0 +27 Level +arch_timer/);
      expect(reason).toBe('poweroff');
    },
    5 * MINUTES,
  );

  test(
    'a GICv3 with an ITS, which Linux sets up for two vCPUs',
    async () => {
      const { text, reason } = await shell({ cpus: 2, its: true }, ['dmesg | grep -E "ITS|LPI"']);
      expect(text).toContain('ITS [mem 0x08080000-0x0809ffff]');
      expect(text).toMatch(/GICv3: CPU1: using allocated LPI pending table/);
      expect(reason).toBe('poweroff');
    },
    5 * MINUTES,
  );

  test(
    'the full Debian kernel, whose cryptography passes its self-tests, and which has the power key on a GPIO line',
    async () => {
      const full = await fullGuest();
      const { text, exit } = await stopped(full, [
        'uname -r',
        'cat /sys/class/input/event*/device/name',
        'cat /proc/interrupts',
        'echo crypto $(grep -c "^selftest.*passed" /proc/crypto) $(grep "^selftest" /proc/crypto | grep -vc passed)',
      ]);
      expect(text).toMatch(/\ncrypto [1-9]\d+ 0\r\n/);
      expect(text).toMatch(/\d-arm64\r\n/);
      expect(text).not.toMatch(/cloud/);
      // The only input device: what turned it off came through the PL061.
      expect(text).toMatch(/device\/name; echo do''ne\r\ngpio-keys\r\ndone/);
      expect(text).toMatch(/\.pl061 +3 Edge +GPIO Key Poweroff/);
      expect(exit).toBe('poweroff');
    },
    10 * MINUTES,
  );

  test(
    'a kernel in gzip',
    async () => {
      const { text } = await shell({ kernel: new Uint8Array(gzipSync(readBytes(kernel), { level: 1 })) }, ['uname -s']);
      expect(text).toContain('Linux\r\n');
    },
    3 * MINUTES,
  );

  test(
    'a disk keeps what was written to it, over a power-off',
    async () => {
      const path = scratch.file('disk.img');
      writeFileSync(path, new Uint8Array(8 * 1024 * 1024));
      const disks = [{ path }];
      await shell({ disks }, [
        'yes elvisor | head -c 1000000 > /tmp/data',
        'dd if=/tmp/data of=/dev/vda bs=4k conv=fsync',
        'md5sum /tmp/data',
      ]);
      expect(readFileSync(path).subarray(0, 16).toString()).toBe('elvisor\nelvisor\n');
      const { text } = await shell({ disks }, [
        'head -c 1000000 /dev/vda | md5sum',
        'yes elvisor | head -c 1000000 | md5sum',
      ]);
      const sums = [...text.matchAll(/^([0-9a-f]{32}) /gm)].map((m) => m[1]);
      expect(sums).toHaveLength(2);
      expect(sums[0]).toBe(sums[1]);
    },
    6 * MINUTES,
  );

  test(
    'a read-only disk cannot be written, an overlay forgets',
    async () => {
      const path = scratch.file('fixed.img');
      const fd = openSync(path, 'w');
      writeSync(fd, Buffer.alloc(1024 * 1024, 'A'));
      closeSync(fd);
      const { text } = await shell(
        {
          disks: [
            { path, readOnly: true },
            { path, overlay: true },
          ],
        },
        [
          'cat /sys/block/vda/ro',
          'echo hidden | dd of=/dev/vdb conv=notrunc,fsync',
          'head -c 6 /dev/vdb',
          'echo x | dd of=/dev/vda || echo refused',
        ],
      );
      expect(text).toMatch(/vda\/ro; echo do''ne\r\n1\r\n/);
      expect(text).toContain('hidden');
      expect(text).toContain('refused');
      expect(readFileSync(path).equals(Buffer.alloc(1024 * 1024, 'A'))).toBe(true);
    },
    3 * MINUTES,
  );

  test(
    'a reboot boots again; with noReboot it ends',
    async () => {
      const vm = await MicroVm.create(guestOptions({ kernel, initrd }, { quiet: true }));
      try {
        await vm.boot();
        await vm.console.waitFor('~ # ', { timeoutMs: 3 * MINUTES });
        vm.console.write('reboot -f\n');
        await vm.console.waitFor(/reboot -f[\s\S]*~ # /, { timeoutMs: 3 * MINUTES });
        expect(vm.stats().reboots).toBe(1);
        expect(vm.state).toBe('running');
      } finally {
        await vm.close();
      }
      const { status } = await elvisor(['run', '--quiet', '--no-reboot'], 'reboot -f\n');
      expect(status).toBe(0);
    },
    6 * MINUTES,
  );

  test(
    'stop() presses the power key, on a virtio keyboard for the cloud kernel: the guest powers off by itself',
    async () => {
      const { text, serial, exit } = await stopped({ kernel, initrd }, ['cat /sys/class/input/event*/device/name']);
      expect(text).toMatch(/device\/name; echo do''ne\r\npower key\r\ndone/);
      expect(serial).toMatch(/init: the power key was pressed\r\n[\s\S]*reboot: Power down/);
      expect(exit).toBe('poweroff');
    },
    3 * MINUTES,
  );

  test(
    'stop() lets a command end, and tells its status',
    async () => {
      const vm = await MicroVm.create(guestOptions({ kernel, initrd }, { mode: 'exec' }));
      try {
        const stdout = new PassThrough();
        stdout.once('data', () => void vm.stop(FOR_EVER));
        const script = 'trap "exit 7" TERM; echo up; while :; do usleep 1000; done';
        const { status, exit } = await execInGuest(vm, { argv: ['sh', '-c', script], stdout });
        expect({ status, reason: exit.reason }).toEqual({ status: 7, reason: 'poweroff' });
      } finally {
        await vm.close();
      }
    },
    3 * MINUTES,
  );

  test(
    'with the virtual clock two runs are the same run, and a minute’s sleep takes none',
    async () => {
      const run = async (): Promise<{ bytes: Uint8Array; instructions: unknown }> => {
        const vm = await MicroVm.create({
          ...guestOptions({ kernel, initrd }, { mode: 'exec' }),
          clock: 'virtual',
          cmdline: 'console=ttyAMA0 panic=-1 rdinit=/bin/busybox -- sleep 60',
        });
        const chunks: Buffer[] = [];
        vm.serial.on('data', (chunk: Buffer) => chunks.push(chunk));
        try {
          await vm.boot();
          await vm.exited;
          return { bytes: Buffer.concat(chunks), instructions: vm.stats().vcpuStats[0]?.instructions };
        } finally {
          await vm.close();
        }
      };
      const first = await run();
      const second = await run();
      expect(Buffer.from(first.bytes).toString()).toMatch(/\[ {3}6\d\.\d+\] .*Attempted to kill init/);
      expect(Buffer.compare(first.bytes, second.bytes)).toBe(0);
      expect(second.instructions).toEqual(first.instructions);
    },
    5 * MINUTES,
  );

  test(
    'two VMs in one process do not meet',
    async () => {
      const run = async (word: string): Promise<string> =>
        (await shell({}, [`echo ${word} > /tmp/w`, 'cat /tmp/w'])).text;
      const [a, b] = await Promise.all([run('alpha'), run('beta')]);
      expect(a).toContain('\nalpha\r\n');
      expect(b).toContain('\nbeta\r\n');
      expect(a).not.toContain('beta');
    },
    6 * MINUTES,
  );
});
