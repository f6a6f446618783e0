import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { demoImage } from '#lib/guest/demo.js';
import { findCompatible, findNode, readFdt, stringList } from '#lib/vmm/fdt/index.js';
import { tinyKernel } from '../vmm/fake-kvm.ts';
import { elvisor } from './launcher.ts';

let dir: string;
/** The embedded guest as a file, and a kernel that spins for ever. */
let demo: string;
let spinner: string;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'elvisor-cli-'));
  demo = join(dir, 'demo');
  spinner = join(dir, 'spinner');
  await writeFile(demo, demoImage());
  await writeFile(spinner, tinyKernel());
});
afterAll(() => rm(dir, { recursive: true, force: true }));

test('--version and --help', async () => {
  expect(await elvisor(['--version'])).toMatchObject({
    status: 0,
    stdout: expect.stringMatching(/^elvisor \d+\.\d+\.\d+\n$/),
  });
  expect((await elvisor(['--help'])).stdout).toMatch(/^Usage: elvisor run/);
});

test('demo runs with nothing but the package', async () => {
  const { status, stdout, stderr } = await elvisor(['demo', '--cpus', '3']);
  expect(stdout).toMatch(/at EL1[\s\S]*interrupt 27[\s\S]*vCPU 2 is on[\s\S]*Powering off/);
  expect(stderr).toBe('');
  expect(status).toBe(0);
});

test('a kernel of one’s own: its console is stdout, its power-off is status 0', async () => {
  const { status, stdout } = await elvisor(['run', '--kernel', demo, '--memory', '16M']);
  expect(stdout).toContain('Powering off');
  expect(status).toBe(0);
});

test('a flat program: what it transmits is stdout, the machine is as asked for', async () => {
  // MOV X1, #0x09000000; MOV W2, #'R'; STR W2, [X1]; then PSCI SYSTEM_OFF (0x84000008) by HVC
  const words = [0xd2a1_2001, 0x5280_0a42, 0xb900_0022, 0x5280_0100, 0x72b0_8000, 0xd400_0002];
  const flat = join(dir, 'flat');
  await writeFile(flat, new Uint8Array(new Uint32Array(words).buffer));
  const machine = ['--gic', '3', '--its', '--pmu', '--memory', '16M'];
  expect(await elvisor(['run', '--kernel', flat, '--kernel-format', 'raw', ...machine])).toMatchObject({
    status: 0,
    stdout: 'R',
  });
  const profiled = await elvisor(['run', '--kernel', flat, '--kernel-format', 'raw', '--trace', 'profile']);
  expect(profiled).toMatchObject({ status: 0, stdout: 'R' });
  expect(profiled.stderr).toContain('elvisor profile');
  expect(await elvisor(['run', '--kernel', flat, ...machine])).toMatchObject({ status: 2, stdout: '' });
});

test('with the virtual clock two runs say the same', async () => {
  const [a, b] = await Promise.all([1, 2].map(() => elvisor(['demo', '--clock', 'virtual'])));
  expect(a!.stdout).toBe(b!.stdout);
  expect(a!.status).toBe(0);
});

describe('a guest that spins for ever', () => {
  test('is ended by --timeout, with 124', async () => {
    const { status, stderr } = await elvisor(['run', '--kernel', spinner, '--memory', '16M', '--timeout', '0.3']);
    expect(stderr).toMatch(/still running after 300 ms/);
    expect(status).toBe(124);
  });

  test.each([
    ['SIGTERM', 143],
    ['SIGINT', 130],
  ] as const)('is ended by %s, with %i', async (signal, expected) => {
    const ended = await elvisor(['run', '--kernel', spinner, '--memory', '16M', '--timeout', '30'], (child) => {
      // Its handlers are there once the machine is; asking until it ends needs no guess how long that takes.
      const timer = setInterval(() => child.kill(signal), 200);
      child.once('close', () => clearInterval(timer));
    });
    // Before the handlers are there, the signal itself ends it.
    expect(ended.signal === signal || ended.status === expected).toBe(true);
  });
});

describe('bad input is one line on stderr, and status 2', () => {
  const file = async (name: string, bytes: Uint8Array): Promise<string> => {
    const path = join(dir, name);
    await writeFile(path, bytes);
    return path;
  };
  const bigEndian = (): Uint8Array => {
    const bytes = tinyKernel();
    bytes[24] = 0x0b;
    return bytes;
  };
  const x86 = (): Uint8Array => {
    const bytes = new Uint8Array(4096);
    bytes.set(new TextEncoder().encode('HdrS'), 0x202);
    return bytes;
  };

  test.each([
    ['a kernel that is missing', async () => ['--kernel', join(dir, 'none')], /kernel: there is no file/],
    ['a kernel that is a directory', async () => ['--kernel', dir], /is a directory/],
    ['an empty kernel', async () => ['--kernel', await file('empty', new Uint8Array(0))], /kernel: it is empty/],
    ['a truncated kernel', async () => ['--kernel', await file('cut', tinyKernel().subarray(0, 40))], /kernel: /],
    ['a kernel for x86', async () => ['--kernel', await file('x86', x86())], /x86/],
    ['a big-endian kernel', async () => ['--kernel', await file('be', bigEndian())], /big-endian/],
    [
      'a kernel too big',
      async () => ['--kernel', await file('big', tinyKernel(2 ** 26)), '--memory', '16M'],
      /does not fit/,
    ],
    ['a missing initrd', async () => ['--kernel', demo, '--initrd', join(dir, 'none')], /initrd: there is no file/],
    [
      'an initrd that does not fit',
      async () => ['--kernel', demo, '--memory', '16M', '--initrd', await file('rd', new Uint8Array(2 ** 24))],
      /initrd: .*do not fit/,
    ],
    ['a missing disk', async () => ['--kernel', demo, '--disk', join(dir, 'none')], /disk .*no such file/],
    ['a disk that is a directory', async () => ['--kernel', demo, '--disk', dir], /is a directory/],
    [
      'a disk of odd size',
      async () => ['--kernel', demo, '--disk', await file('odd', new Uint8Array(700))],
      /not a multiple of 512/,
    ],
    [
      'no device tree',
      async () => ['--kernel', demo, '--dtb', await file('no.dtb', new Uint8Array(64))],
      /device tree/,
    ],
    ['0 CPUs', async () => ['--kernel', demo, '--cpus', '0'], /--cpus: .*got "0"/],
    ['4096 CPUs', async () => ['--kernel', demo, '--cpus', '4096'], /--cpus: .*got "4096"/],
    ['memory of 1 byte', async () => ['--kernel', demo, '--memory', '1'], /is 1 byte/],
    ['memory of 1T', async () => ['--kernel', demo, '--memory', '1T'], /more than the board can have/],
    ['memory that this machine cannot give', async () => ['--kernel', demo, '--memory', '200G'], /memory: /],
    ['an unknown flag', async () => ['--kernel', demo, '--frob'], /unknown option --frob/],
  ] as const)('%s', async (_what, argv, message) => {
    const { status, stdout, stderr } = await elvisor(['run', ...(await argv())]);
    expect(stderr).toMatch(message);
    expect(stderr.trimEnd().split('\n')).toHaveLength(1);
    expect(stdout).toBe('');
    expect(status).toBe(2);
  });
});

test('a backend that is not there is status 3, with the reason', async () => {
  const { status, stderr } = await elvisor(['run', '--kernel', demo, '--backend', 'kvm']);
  expect(stderr).toMatch(/backend kvm is not available: /);
  expect(status).toBe(3);
});

test('a reader that goes away ends the guest, without a word', async () => {
  const { status, stderr } = await elvisor(['demo'], (child) => child.stdout!.destroy());
  expect(stderr).toBe('');
  expect([0, 1]).toContain(status);
});

test('dtb writes what the guest would be given', async () => {
  const { spawn } = await import('node:child_process');
  const main = new URL('../../dist/cli/main.js', import.meta.url);
  const child = spawn(process.execPath, [
    main.pathname,
    'dtb',
    '--cpus',
    '2',
    '--memory',
    '1G',
    '--disk',
    'x',
    '--append',
    'a b',
    '--its',
    '--pmu',
  ]);
  const chunks: Buffer[] = [];
  for await (const chunk of child.stdout) chunks.push(chunk as Buffer);
  const root = readFdt(new Uint8Array(Buffer.concat(chunks)));
  expect(stringList(findNode(root, '/chosen')!, 'bootargs')).toEqual(['a b']);
  expect(findNode(root, '/cpus')!.children).toHaveLength(2);
  expect(findCompatible(root, 'arm,gic-v3-its')).toHaveLength(1);
  expect(findCompatible(root, 'arm,armv8-pmuv3')).toHaveLength(1);
  // The disk, the entropy device and the power key for guests without gpio-keys.
  expect(findCompatible(root, 'virtio,mmio').map((node) => node.name)).toEqual([
    'virtio_mmio@a000000',
    'virtio_mmio@a000200',
    'virtio_mmio@a000400',
  ]);
});
