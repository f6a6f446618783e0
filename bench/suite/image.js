// The suite's disks: a file system with programs from Debian's arm64 packages, the suite's own programs and its data, and a
// raw disk to read. Made once and kept in the user's cache directory, outside the project.
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { withWorkDir } from '../../dist/guest/cache.js';
import { cacheDir } from '../../dist/guest/cache-dir.js';
import {
  keep,
  makeExt4,
  missingPrograms,
  openApt,
  trimRoot,
  unpackPackages,
  withDependencies,
} from '../../scripts/debian-root.js';
import { GENERATE, LINEAR, MODULES, makeData, makeDisk, ROWS, SCRIPTS } from './rows.js';

const PACKAGES = [
  'busybox-static',
  'coreutils',
  'dash',
  'findutils',
  'gzip',
  'lua5.4',
  'python3-minimal',
  'sqlite3',
  'tar',
  'zstd',
];
/** Only to compile with. */
const LIBRARY = 'libssl-dev';
/** What packages depend on and no program here needs to run. */
const LEFT_OUT = /^(dpkg|debconf|install-info|media-types|debianutils|.*-common|libssl3(t64)?)$/;

/** Disks of earlier suites, 250 MB each, go when nobody has used them for a week. */
const UNUSED_MS = 7 * 24 * 3600 * 1000;

const SOURCES = fileURLToPath(new URL('guest/', import.meta.url));
const COMPILER = 'aarch64-linux-gnu-gcc';
const FLAGS = ['-std=gnu11', '-O2', '-ffp-contract=off', '-Wall', '-Wextra', '-static', '-pthread'];

/** Reads rows by name and runs each between two marks; see marks.js. */
const AGENT = `#!/bin/dash
export PATH=/usr/bin:/usr/sbin HOME=/root LC_ALL=C
stty raw -echo -opost
echo @ready
while read -r name; do
  [ -e /bench/rows/$name.setup ] && dash /bench/rows/$name.setup </dev/null >/dev/null 2>&1
  echo "@start $name"
  dash /bench/rows/$name </dev/null >/tmp/out 2>&1
  echo "@end $name $?"
  head -c 2000 /tmp/out
  echo "@done $name"
  rm -f /tmp/out /tmp/text
done
`;

/** What the default guest's shell is told, to get there. */
export const TO_AGENT = [
  'mount -t ext4 -o ro,noatime /dev/vda /root',
  'mount -t proc proc /root/proc && mount -t sysfs sysfs /root/sys && mount --bind /dev /root/dev',
  'mount -t tmpfs tmpfs /root/tmp',
  'exec chroot /root /bench/agent',
].join(' && ');

/** @throws Error a tool that is missing, and how to get it */
function needTools() {
  const missing = missingPrograms([
    [COMPILER, 'gcc-aarch64-linux-gnu'],
    ['mke2fs', 'e2fsprogs'],
  ]);
  if (missing.length === 0) return;
  const [programs, packages] = [0, 1].map((i) => missing.map((pair) => pair[i]));
  throw new Error(`there is no ${programs.join(', ')} here; on Debian: apt-get install ${packages.join(' ')}`);
}

/**
 * The disks' paths, made if the cache has none of this suite.
 * @returns `{ root, data, versions }`: versions by package
 */
export async function suiteDisks({ say }) {
  const cache = cacheDir();
  const base = join(cache, 'bench');
  mkdirSync(base, { recursive: true });
  const packages = join(base, `packages-${hashOf([PACKAGES.join(), LIBRARY])}`);
  if (!existsSync(packages)) await withWorkDir(cache, (work) => fetchPackages(work, packages, say));
  const versions = JSON.parse(await readFile(join(packages, 'versions.json'), 'utf8'));
  const data = makeData();
  const disks = join(base, `disks-${keyOfDisks(versions, data)}`);
  if (!existsSync(disks)) {
    needTools();
    say('making the disks');
    await withWorkDir(cache, (work) => makeDisks(work, { packages, data, into: disks }));
  }
  const now = new Date();
  utimesSync(disks, now, now);
  for (const name of readdirSync(base)) {
    const old = join(base, name);
    if (name.startsWith('disks-') && now - statSync(old).mtime > UNUSED_MS)
      rmSync(old, { recursive: true, force: true });
  }
  return { root: join(disks, 'root.img'), data: join(disks, 'data.img'), versions };
}

/** Of everything that goes into the disks. */
function keyOfDisks(versions, data) {
  const rows = [...ROWS, ...LINEAR, GENERATE, MODULES].map(({ name, setup, run }) => [name, setup, run]);
  const sources = readdirSync(SOURCES)
    .sort()
    .map((name) => readFileSync(join(SOURCES, name)));
  const self = readFileSync(fileURLToPath(import.meta.url));
  return hashOf([JSON.stringify([versions, SCRIPTS, rows, [...data.keys()]]), self, ...sources, ...data.values()]);
}

/** Fetches and unpacks the packages, with what they depend on: `root` to run, `dev` to compile with. */
async function fetchPackages(work, into, say) {
  say('fetching package lists');
  const apt = await openApt(join(work, 'apt'));
  const wanted = await withDependencies(apt, PACKAGES, LEFT_OUT);
  const library = await apt.show(LIBRARY);
  if (library === undefined) throw new Error(`the archive has no arm64 package ${LIBRARY}`);
  say(`fetching ${wanted.length + 1} packages`);
  const made = join(work, 'packages');
  for (const [dir, packages] of [
    ['root', wanted],
    ['dev', [library]],
  ]) {
    await unpackPackages(apt, packages, { debs: join(work, `debs-${dir}`), to: join(made, dir) });
  }
  const all = [...wanted, library].map(({ name, version }) => [name, version]);
  writeFileSync(join(made, 'versions.json'), JSON.stringify(Object.fromEntries(all.sort())));
  await keep(made, into);
}

async function makeDisks(work, { packages, data, into }) {
  const root = join(work, 'root');
  execFileSync('cp', ['-a', join(packages, 'root'), root]);
  trimRoot(root, ['usr/share', 'var']);
  const put = (path, content, mode = 0o644) => {
    const to = join(root, path);
    mkdirSync(dirname(to), { recursive: true });
    writeFileSync(to, content);
    chmodSync(to, mode);
  };
  put('bench/agent', AGENT, 0o755);
  for (const [name, script] of Object.entries(SCRIPTS)) put(`bench/${name}`, script);
  for (const { name, setup, run } of [...ROWS, ...LINEAR, GENERATE, MODULES]) {
    put(`bench/rows/${name}`, run);
    if (setup !== undefined) put(`bench/rows/${name}.setup`, setup);
  }
  for (const [path, bytes] of data) put(`data/${path}`, bytes);
  const dev = join(packages, 'dev/usr');
  for (const source of readdirSync(SOURCES).filter((name) => name.endsWith('.c'))) {
    const name = source.slice(0, -2);
    const ssl = name === 'crypto' ? includes(dev) : [[], []];
    const args = [...FLAGS, ...ssl[0], '-o', join(root, 'bench', name), join(SOURCES, source), ...ssl[1], '-lm'];
    // The static libcrypto warns of what resolves names; nothing here does.
    execFileSync(COMPILER, args, { stdio: ['ignore', 'ignore', name === 'crypto' ? 'ignore' : 'inherit'] });
  }
  const made = join(work, 'disks');
  mkdirSync(made);
  makeExt4(root, join(made, 'root.img'), '192M');
  writeFileSync(join(made, 'data.img'), makeDisk());
  await keep(made, into);
}

function includes(dev) {
  const headers = ['include', 'include/aarch64-linux-gnu'].map((dir) => `-I${join(dev, dir)}`);
  return [headers, [join(dev, 'lib/aarch64-linux-gnu/libcrypto.a')]];
}

function hashOf(parts) {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(part).update('\0');
  return hash.digest('hex').slice(0, 12);
}
