/** Debian, booted and used: what a user does with the default guest. Fetches it on first need. */

import { mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { text } from 'node:stream/consumers';
import { Worker } from 'node:worker_threads';
import { beforeAll, describe, expect, test } from '@jest/globals';
import { ACTIVITIES } from '#lib/cli/profile.js';
import { type DefaultGuest, fetchDefaultGuest } from '#lib/guest/index.js';
import { execInGuest, guestOptions } from '#lib/node/default-guest.js';
import { MicroVm } from '#lib/node/micro-vm.js';
import type { MicroVmOptions } from '#lib/vmm/options.js';
import { elvisor } from './launcher.ts';

const BOOT_MS = 120_000;
let guest: DefaultGuest;
beforeAll(async () => {
  guest = await fetchDefaultGuest();
}, 600_000);

/** Runs a script in a fresh VM. */
async function script(
  lines: string,
  options: Partial<MicroVmOptions> = {},
  stdin?: string,
): Promise<{ status: number | undefined; stdout: string; instructions: string }> {
  const vm = await MicroVm.create({ ...guestOptions(guest, { mode: 'exec' }), memory: '256M', ...options });
  try {
    const out = new PassThrough();
    const stdout = text(out);
    const { status, exit } = await execInGuest(vm, { argv: ['sh', '-c', lines], stdin, stdout: out });
    out.end();
    const instructions = exit.stats.vcpuStats.map(({ instructions: count }) => String(count)).join();
    return { status, stdout: await stdout, instructions };
  } finally {
    await vm.close();
  }
}

describe('elvisor run -- COMMAND', () => {
  test(
    'gives the command its streams, and its status',
    async () => {
      const { status, stdout, stderr } = await elvisor(
        ['run', '--', 'sh', '-c', 'cat; echo to stderr >&2; exit 7'],
        (child) => {
          child.stdin!.end("it's “in” quotes\n");
        },
      );
      expect({ status, stdout, stderr }).toEqual({ status: 7, stdout: "it's “in” quotes\n", stderr: 'to stderr\n' });
    },
    BOOT_MS,
  );

  test(
    '--trace profile tells where the time of a boot went, and names functions of the kernel',
    async () => {
      const folder = await mkdtemp(join(tmpdir(), 'elvisor-profile-'));
      try {
        const file = join(folder, 'profile.txt');
        const { status, stdout } = await elvisor(['run', '--trace', `profile=${file}`, '--', 'echo', 'ran']);
        expect({ status, stdout }).toEqual({ status: 0, stdout: 'ran\n' });
        const report = await readFile(file, 'utf8');
        for (const activity of Object.values(ACTIVITIES)) expect(report).toContain(activity);
        // Debian's kernel checks a key's signature at boot: half of the boot is in the library of big numbers.
        expect(report).toMatch(/ms +[\d.]+ % {2}mpihelp_submul_1\n/);
        expect(report).toMatch(/EL1 0xffff[0-9a-f]{12} ipa 0x4[0-9a-f]{7} {2}mpihelp_submul_1\+0x/);
      } finally {
        await rm(folder, { recursive: true });
      }
    },
    BOOT_MS,
  );

  test(
    'with four vCPUs they are all there',
    async () => {
      expect(await elvisor(['run', '--cpus', '4', '--', 'nproc'])).toMatchObject({
        status: 0,
        stdout: '4\n',
        stderr: '',
      });
    },
    BOOT_MS,
  );

  test(
    'more output than any buffer holds comes out whole',
    async () => {
      const { status, stdout } = await elvisor(['run', '--', 'sh', '-c', 'seq 1 200000']);
      expect(status).toBe(0);
      expect(stdout.length).toBe(1_288_895);
      expect(stdout.endsWith('\n199999\n200000\n')).toBe(true);
    },
    BOOT_MS,
  );
});

describe('elvisor run', () => {
  test(
    'is a shell on plain pipes, which ends with its input',
    async () => {
      const { status, stdout } = await elvisor(['run', '--quiet'], (child) =>
        child.stdin!.end('echo $((6 * 7)) is it\n'),
      );
      expect(stdout).toContain('42 is it');
      expect(status).toBe(0);
    },
    BOOT_MS,
  );

  test(
    'a panic is status 1',
    async () => {
      // The other console's echo of the line would stand among the kernel's last words, were they said at once.
      const { status, stdout, stderr } = await elvisor(['run'], (child) =>
        child.stdin!.end('sleep 1; echo c > /proc/sysrq-trigger\n'),
      );
      expect(stdout).toContain('Kernel panic - not syncing: sysrq triggered crash');
      expect(stderr).toMatch(/the guest kernel panicked/);
      expect(status).toBe(1);
    },
    BOOT_MS,
  );
});

test(
  'a disk written, powered off and booted again has the data; an overlay leaves the file alone',
  async () => {
    const dir = await mkdtemp(join(tmpdir(), 'elvisor-disk-'));
    try {
      const path = join(dir, 'disk.img');
      await writeFile(path, '');
      await truncate(path, 16 * 2 ** 20);
      const mount = 'mkdir -p /mnt; mount -t ext4 /dev/vda /mnt';
      const made = await script(`set -e; mke2fs /dev/vda >/dev/null; ${mount}; echo first > /mnt/file; umount /mnt`, {
        disks: [{ path }],
      });
      expect(made.status).toBe(0);
      const over = await script(`set -e; ${mount}; echo second > /mnt/file; umount /mnt`, {
        disks: [{ path, overlay: true }],
      });
      expect(over.status).toBe(0);
      const { stdout } = await script(
        'mkdir /mnt; mount -t ext4 -o ro /dev/vda /mnt; cat /mnt/file; cat /sys/block/vda/ro',
        {
          disks: [{ path, readOnly: true }],
        },
      );
      expect(stdout).toBe('first\n1\n');
    } finally {
      await rm(dir, { recursive: true, force: true });
    }
  },
  BOOT_MS,
);

test(
  'a VM in a Worker',
  async () => {
    const index = new URL('../../dist/index.js', import.meta.url).href;
    const worker = new Worker(
      `import { parentPort, workerData } from 'node:worker_threads';
     const { MicroVm, guestOptions } = await import(workerData.index);
     const vm = await MicroVm.create({ ...guestOptions(workerData.guest), memory: '256M' });
     await vm.boot();
     await vm.console.waitFor('~ # ');
     vm.console.write('uname -m\\n');
     const [machine] = await vm.console.waitFor(/^aarch64/m);
     const { reason } = await vm.kill();
     await vm.close();
     parentPort.postMessage({ machine, reason });`,
      { eval: true, workerData: { index, guest } },
    );
    try {
      const said = await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject));
      expect(said).toEqual({ machine: 'aarch64', reason: 'killed' });
    } finally {
      await worker.terminate();
    }
  },
  BOOT_MS,
);
