// What the guest boots: Debian's full kernel, and a disk with Debian's arm64 packages and the checks of this folder. Made once and
// kept in the user's cache directory.
import { createHash } from 'node:crypto';
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { withWorkDir } from '../../dist/guest/cache.js';
import { cacheDir } from '../../dist/guest/cache-dir.js';
import { fetchGuest } from '../../dist/guest/debian.js';
import {
  keep,
  makeExt4,
  missingPrograms,
  openApt,
  trimRoot,
  unpackPackages,
  withDependencies,
} from '../../scripts/debian-root.js';

const PACKAGES = ['busybox-static', 'coreutils', 'dash', 'kmod', 'libgmp10', 'openssl', 'python3'];
PACKAGES.push('rt-tests', 'stress-ng');
/** What packages depend on and no program here needs to run; stress-ng links with EGL, and needs no driver of it. */
const LEFT_OUT =
  /^(dpkg|debconf|install-info|media-types|debianutils|tzdata.*|libegl-mesa.*|libgl1-mesa.*|libllvm.*|.*-common)$/;
const WASTE = ['boot', 'var', 'usr/share/doc', 'usr/share/man', 'usr/share/locale', 'usr/share/info'];
/** Of the kernel's modules, those that test and are tested. */
const MODULES = /\/kernel\/(crypto|arch\/arm64\/(crypto|lib)|lib)\//;
const GUEST = fileURLToPath(new URL('guest/', import.meta.url));

/** A tool that is missing here. */
export class Skip extends Error {}

/**
 * @returns `{ kernel, initrd, disk, versions }`: paths, and versions by package
 * @throws {Skip} no mke2fs; VmError ERR_GUEST_* no archive
 */
export async function guestDisk({ refresh, say }) {
  const missing = missingPrograms([['mke2fs', 'e2fsprogs']]);
  if (missing.length > 0) throw new Skip('there is no mke2fs on this machine (Debian: e2fsprogs)');
  const cache = cacheDir();
  const base = join(cache, 'guest-suites');
  mkdirSync(base, { recursive: true });
  const into = join(base, keyOfDisk());
  if (refresh) rmSync(into, { recursive: true, force: true });
  if (!existsSync(into)) await withWorkDir(cache, (work) => makeDisk(work, into, say));
  const versions = JSON.parse(readFileSync(join(into, 'versions.json'), 'utf8'));
  return { kernel: join(into, 'kernel'), initrd: join(into, 'initrd'), disk: join(into, 'root.img'), versions };
}

function keyOfDisk() {
  const hash = createHash('sha256').update(readFileSync(fileURLToPath(import.meta.url)));
  for (const name of readdirSync(GUEST).sort()) hash.update(name).update(readFileSync(join(GUEST, name)));
  return hash.digest('hex').slice(0, 12);
}

async function makeDisk(work, into, say) {
  const guest = await fetchGuest({
    flavour: 'full',
    refresh: true,
    onProgress: ({ stage }) => say(`the guest: ${stage}`),
  });
  // "linux-image-6.1.0-56-arm64 6.1.192-2, busybox-static …"
  const [image] = guest.description.split(' ');
  say('the package lists');
  const apt = await openApt(join(work, 'apt'));
  const packages = await withDependencies(apt, PACKAGES, LEFT_OUT);
  // The tests are a package that is named after the version: of "python3.11", which "python3" stands for.
  const python = packages.map(({ name }) => name).find((name) => /^python3\.\d+$/.test(name));
  const names = new Set(packages.map(({ name }) => name));
  const more = await withDependencies(apt, [`lib${python}-testsuite`], LEFT_OUT);
  packages.push(...more.filter(({ name }) => !names.has(name)), await apt.show(image));
  say(`${packages.length} packages`);
  const root = join(work, 'root');
  await unpackPackages(apt, packages, { debs: join(work, 'debs'), to: root });
  trimRoot(root, WASTE);
  for (const file of readdirSync(join(root, 'usr/lib/modules'), { recursive: true, withFileTypes: true })) {
    const path = join(file.parentPath ?? file.path, file.name);
    if (/\.ko(\.xz|\.zst)?$/.test(file.name) && !MODULES.test(path)) rmSync(path);
  }
  cpSync(GUEST, join(root, 'checks'), { recursive: true });
  const made = join(work, 'made');
  mkdirSync(made);
  makeExt4(root, join(made, 'root.img'), '512M');
  cpSync(guest.kernel, join(made, 'kernel'));
  cpSync(guest.initrd, join(made, 'initrd'));
  const versions = packages.map(({ name, version }) => [name, version]).sort();
  writeFileSync(join(made, 'versions.json'), JSON.stringify(Object.fromEntries(versions)));
  await keep(made, into);
}
