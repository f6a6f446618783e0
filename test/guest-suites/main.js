#!/usr/bin/env node
/**
 * Other people's tests of a processor, run in Linux on the software KVM: Python's, stress-ng's, the kernel's own; and known
 * answers of OpenSSL and GMP.
 *
 *   npm run test:guest-suites -- [CHECK...] [--interpret] [--refresh] [--list] [--verbose]
 *
 * CHECK is what a check's name begins with: `python`, `"stress-ng vec"`. Each runs in a machine of its own. Ends with the line
 * `N passed, N failed, N skipped` and status 0 or 1; 77 where something that it needs is not there.
 */
import { Writable } from 'node:stream';
import { execInGuest, guestOptions, MicroVm } from '../../dist/index.js';
import { createMachine } from '../../dist/soft/cpu/machine.js';
import { SoftKvm } from '../../dist/soft/soft-kvm.js';
import { commandLine } from '../../scripts/command-line.js';
import { CHECKS } from './checks.js';
import { guestDisk, Skip } from './disk.js';

const SKIPPED = 77;
const MINUTES = 60_000;
/** What goes before a check in the initramfs's shell: the disk becomes the root. */
const PRELUDE = [
  'mount -t ext4 /dev/vda /root',
  'mount -t proc proc /root/proc',
  'mount -t sysfs sysfs /root/sys',
  'mount --bind /dev /root/dev',
  'mkdir -p /root/dev/shm',
  'mount -t tmpfs tmpfs /root/dev/shm',
  'mount -t tmpfs tmpfs /root/tmp',
  'exec chroot /root /usr/bin/env -i PATH=/usr/sbin:/usr/bin HOME=/tmp LC_ALL=C.UTF-8 /bin/sh -c "$1"',
].join(' && ');

const { values, positionals } = commandLine(import.meta.url, {
  allowPositionals: true,
  options: {
    // Nothing is compiled: the meaning of the instructions apart from what the compiler makes of it.
    interpret: { type: 'boolean', default: false },
    // The newest packages that the archive has, also where the cache has some.
    refresh: { type: 'boolean', default: false },
    list: { type: 'boolean', default: false },
    verbose: { type: 'boolean', short: 'v', default: false },
  },
});
const unknown = positionals.filter((start) => !CHECKS.some(({ name }) => name.startsWith(start)));
if (unknown.length > 0) {
  console.error(
    `test:guest-suites: no check begins with ${unknown.map((name) => JSON.stringify(name)).join(', ')}; see --list`,
  );
  process.exit(2);
}
const checks = CHECKS.filter(
  ({ name }) => positionals.length === 0 || positionals.some((start) => name.startsWith(start)),
);
if (values.list) {
  for (const { name } of checks) console.log(name);
  process.exit();
}

const counts = { passed: 0, failed: 0, skipped: 0 };
const guest = await prepare();
if (guest === undefined) counts.skipped = checks.length;
else for (const check of checks) await run(check);
console.log(`${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`);
process.exitCode = counts.failed > 0 ? 1 : counts.passed > 0 ? 0 : SKIPPED;

async function prepare() {
  try {
    let last = '';
    const say = (what) => {
      if (what !== last) console.error(what);
      last = what;
    };
    return await guestDisk({ refresh: values.refresh, say });
  } catch (error) {
    if (!(error instanceof Skip) && !String(error.code).startsWith('ERR_GUEST_')) throw error;
    for (const { name } of checks) console.log(`skipped: ${name}: ${error.message}`);
    return undefined;
  }
}

async function run({ name, run: command, says, cpus = 1 }) {
  const kvm = values.interpret
    ? { kvm: new SoftKvm({ createMachine: () => createMachine({ threshold: undefined }) }) }
    : { backend: 'soft' };
  const vm = await MicroVm.create({
    ...guestOptions(guest, { mode: 'exec' }),
    ...kvm,
    cpus,
    memory: '768M',
    disks: [{ path: guest.disk, overlay: true }],
    timeoutMs: 60 * MINUTES,
  });
  const said = [];
  const output = new Writable({
    write(chunk, _encoding, done) {
      said.push(chunk);
      if (values.verbose) process.stdout.write(chunk);
      done();
    },
  });
  const start = performance.now();
  try {
    const argv = ['sh', '-c', PRELUDE, 'sh', command];
    const { status, exit } = await execInGuest(vm, { argv, stdout: output, stderr: output });
    const text = Buffer.concat(said).toString('utf8');
    const match = says.exec(text);
    const seconds = ((performance.now() - start) / 1000).toFixed(0);
    if (status === 0 && match !== null) {
      counts.passed++;
      console.log(`passed: ${name}: ${match[0]} (${seconds} s)`);
      return;
    }
    counts.failed++;
    const why = status === undefined ? (exit.message ?? exit.reason) : `status ${status}`;
    console.log(`FAILED: ${name}: ${why} (${seconds} s)`);
    if (!values.verbose) console.log(text.slice(-4000));
    if (status === undefined) console.log(vm.serial.transcript().slice(-4000));
  } finally {
    await vm.close();
    kvm.kvm?.close();
  }
}
