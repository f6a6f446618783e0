#!/usr/bin/env node
/**
 * Instructions from launch to the guest's init, on a host's own KVM: `elvisor run` and Debian's arm64 QEMU with `-accel kvm`
 * boot the same guest on the same arm64 host, which is one that QEMU emulates here (test/arm64-host). There an instruction
 * is a nanosecond and the processor's PMU counts each: the figures are those of code, the same on any machine, however busy.
 *
 *   npm run bench:launch [-- --docs]
 *
 * --docs writes the table of docs/performance.md. Ends with status 77 where something that it needs is not there.
 */
import { execFileSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { file, writeCpio } from '../dist/guest/cpio.js';
import { commandLine } from '../scripts/command-line.js';
import { keep, openApt, unpackPackages, withDependencies } from '../scripts/debian-root.js';
import { SKIPPED, Skip } from '../test/arm64-host/skip.js';
import { markdownTable, textTable } from './common.js';
import { prepareHost, runScript } from './emulated.js';

const PAGE = fileURLToPath(new URL('../docs/performance.md', import.meta.url));
const COUNT = fileURLToPath(new URL('./launch.c', import.meta.url));
const MARKER = 'init is here';
const APPEND = 'console=ttyAMA0 panic=-1';
const GUEST = '/guest/kernel --initrd /guest/initrd';
/** QEMU's packages that no microVM needs: firmware, sound, and what installs others. */
const LEFT_OUT = /^(qemu-system-gui|qemu-efi.*|ipxe.*|seabios|debconf|perl.*|adduser|passwd|systemd.*|dpkg|tar)$/;
/** Files of theirs, below the root, that take memory in the machine and are never opened. */
const UNUSED =
  /^usr\/share\/(?!qemu$|qemu\/keymaps)|\/(gconv|gstreamer-1\.0|locale|audit)\/|^usr\/bin\/(?!qemu-system-aarch64$)|^(etc|var)\//;

/** As the tables say it. */
const millions = (count) => (count / 1e6).toFixed(0);

const { values } = commandLine(import.meta.url, { options: { docs: { type: 'boolean', default: false } } });

const elvisor = (append) =>
  `node dist/bundle/cli.js run --backend kvm --memory 512M --no-reboot --kernel ${GUEST} --append '${append}'`;
const qemu = (append) =>
  `chroot /vmm /usr/bin/qemu-system-aarch64 -M virt,gic-version=host -cpu host -accel kvm -m 512 -nographic -no-reboot -nodefaults -serial stdio -kernel /guest/kernel -initrd /guest/initrd -append '${append}'`;

/** What is counted, by name, in two machines that run at once: a marker that ends the count, and a program. */
const MACHINES = {
  elvisor: [
    ['node', '', 'node -e 0'],
    ['elvisor, first', MARKER, elvisor(`${APPEND} quiet`)],
    // V8's code is kept when a process ends.
    [undefined, '', `${elvisor(`${APPEND} quiet`)} --timeout 2`],
    ['elvisor', MARKER, elvisor(`${APPEND} quiet`)],
    ['elvisor, loud', MARKER, elvisor(APPEND)],
  ],
  qemu: [
    ['qemu, first', MARKER, qemu(`${APPEND} quiet`)],
    ['qemu', MARKER, qemu(`${APPEND} quiet`)],
    ['qemu, loud', MARKER, qemu(APPEND)],
  ],
};
const SET_UP = `mkdir -p /guest /vmm/guest /vmm/dev /vmm/proc /vmm/tmp
key=$(echo /root/.cache/elvisor/guests/*)
cp $key/kernel /guest/kernel
cat $key/initrd /init.cpio > /guest/initrd
for dir in dev proc guest; do mount --bind /$dir /vmm/$dir; done
cd /elvisor`;

const work = mkdtempSync(join(tmpdir(), 'elvisor-launch-'));
try {
  const report = await measure();
  console.log(report.text);
  if (values.docs) replace(report.markdown);
} catch (error) {
  if (!(error instanceof Skip)) throw error;
  console.log(`skipped: bench:launch: ${error.message}`);
  process.exitCode = SKIPPED;
} finally {
  rmSync(work, { recursive: true, force: true });
}

async function measure() {
  const host = await prepareHost();
  const vmm = await qemuForArm64(host.cache);
  const count = join(work, 'count');
  execFileSync('aarch64-linux-gnu-gcc', ['-O2', '-static', '-Wall', '-Werror', '-o', count, COUNT]);
  const init = '#!/bin/busybox sh\n'.concat(`echo '${MARKER}'\nexec /bin/busybox sleep 1000\n`);
  const layers = Buffer.concat([
    host.layers,
    vmmLayer(vmm.root),
    writeCpio([
      file('bin/count', readFileSync(count), 0o755),
      file('init.cpio', writeCpio([file('init', init, 0o755)])),
    ]),
  ]);
  const rows = new Map();
  await Promise.all(
    Object.entries(MACHINES).map(([name, counted]) => bootMachine(name, counted, { ...host, layers }, rows)),
  );
  return tables(rows, `${host.title}; ${vmm.version} in it`);
}

/** Boots a machine that counts, and puts what it counted into `rows`. */
async function bootMachine(name, counted, host, rows) {
  const script = counted.map(([row, marker, command]) =>
    row === undefined ? `${command} >/dev/null 2>&1` : `count '${marker}' ${command} | sed 's/^count/row ${row}:/'`,
  );
  const said = [];
  const wrong = await runScript({
    name,
    host,
    script: [SET_UP, ...script].join('\n'),
    initrd: join(work, `${name}.initrd`),
    onLine: (line) => {
      said.push(line);
      const [, row, ...numbers] = /^row (.*): (\d+) (\d+) (\d+)$/.exec(line.trim()) ?? [];
      if (row === undefined) return;
      rows.set(row, numbers.map(Number));
      console.error(`${row}: ${numbers.join(' ')}`);
    },
  });
  const missing = counted.filter(([row]) => row !== undefined && !rows.has(row)).map(([row]) => row);
  if (missing.length > 0) throw new Error(`no count of ${missing.join('; ')}:\n${[...said, ...wrong].join('\n')}`);
}

/** Debian's arm64 QEMU with its libraries, unpacked; fetched once. */
async function qemuForArm64(cache) {
  const dir = join(cache, 'qemu-arm64');
  if (!existsSync(dir)) {
    const made = `${dir}.${process.pid}`;
    mkdirSync(made);
    try {
      const apt = await openApt(join(made, 'apt'));
      const packages = await withDependencies(apt, ['qemu-system-arm'], LEFT_OUT);
      await unpackPackages(apt, packages, { debs: join(made, 'debs'), to: join(made, 'root') });
      const { name, version } = packages[0];
      writeFileSync(join(made, 'version'), `${name} ${version}`);
      rmSync(join(made, 'debs'), { recursive: true });
      rmSync(join(made, 'apt'), { recursive: true });
      await keep(made, dir);
    } catch (error) {
      throw new Skip(`Debian's arm64 QEMU cannot be fetched: ${error.message}`);
    } finally {
      rmSync(made, { recursive: true, force: true });
    }
  }
  return { root: join(dir, 'root'), version: readFileSync(join(dir, 'version'), 'utf8') };
}

/** It, below /vmm: cpio's program keeps its links. */
function vmmLayer(root) {
  const tree = join(work, 'tree');
  mkdirSync(tree);
  execFileSync('cp', ['-a', root, join(tree, 'vmm')]);
  const names = readdirSync(join(tree, 'vmm'), { recursive: true })
    .filter((name) => !UNUSED.test(name))
    .sort();
  const list = ['vmm', ...names.map((name) => `vmm/${name}`)].join('\n');
  return execFileSync('cpio', ['-o', '-H', 'newc', '-R', '0:0', '--quiet'], {
    cwd: tree,
    input: `${list}\n`,
    maxBuffer: 1 << 30,
  });
}

/** A line for each machine: its program, the host's kernel for it, the guest; and its own part, Node's start and the guest taken off. */
function tables(rows, origin) {
  const [nodeUser, nodeKernel] = rows.get('node');
  const line = (name, title) => {
    const [user, kernel, guest] = rows.get(name);
    const isElvisor = name.startsWith('elvisor');
    const own = user + kernel - (isElvisor ? nodeUser + nodeKernel : 0);
    const start = isElvisor ? millions(nodeUser + nodeKernel) : '';
    return [title, millions(user), millions(kernel), millions(guest), start, millions(own)];
  };
  const table = [
    ['millions of instructions', 'program', "host's kernel", 'guest', "Node's start", 'own part'],
    line('qemu', 'QEMU, a quiet guest'),
    line('elvisor', 'elvisor, a quiet guest'),
    line('elvisor, first', 'elvisor, the very first time'),
    line('qemu, loud', 'QEMU, all kernel messages'),
    line('elvisor, loud', 'elvisor, all kernel messages'),
  ];
  return {
    text: `${origin}\n${textTable(table)}`,
    markdown: `${origin}.\n\n${markdownTable(table)}`,
  };
}

function replace(markdown) {
  const page = readFileSync(PAGE, 'utf8');
  const [begin, end] = ['<!-- launch: begin -->', '<!-- launch: end -->'];
  const at = page.indexOf(begin);
  if (at < 0 || page.indexOf(end) < at) throw new Error(`${PAGE} has no place for the table`);
  const written = `${page.slice(0, at + begin.length)}\n\n${markdown}\n\n${page.slice(page.indexOf(end))}`;
  writeFileSync(`${PAGE}.new`, written);
  renameSync(`${PAGE}.new`, PAGE);
}
