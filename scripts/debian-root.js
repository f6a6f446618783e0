// Programs for a guest: Debian's arm64 packages, unpacked, and a file system made of them. Nothing of the host is changed.
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, rmSync, symlinkSync } from 'node:fs';
import { rename } from 'node:fs/promises';
import { join } from 'node:path';
import { PrivateApt } from '../dist/guest/apt.js';

/** Merged in Debian: `bin` is `usr/bin`. */
const MERGED = ['bin', 'lib', 'sbin'];
/** mke2fs is where a user's PATH may not go. */
const ENV = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` };

/** Of `programs`, pairs of a name and its Debian package, those that are not on this machine. */
export function missingPrograms(programs) {
  return programs.filter(([program]) => spawnSync(program, ['-V'], { env: ENV }).error !== undefined);
}

/** An apt of elvisor's own in `dir`, which is made, with fresh package lists. @throws VmError ERR_GUEST_* */
export async function openApt(dir) {
  mkdirSync(dir);
  const { ELVISOR_DEBIAN_MIRROR: mirror, ELVISOR_DEBIAN_SUITE: suite } = process.env;
  const apt = await PrivateApt.create(dir, { override: { ...(mirror && { mirror }), ...(suite && { suite }) } });
  await apt.update(() => {});
  return apt;
}

/**
 * The packages and all that they depend on, those apart whose names match `leftOut`.
 * @throws Error one of `names` is not in the archive
 */
export async function withDependencies(apt, names, leftOut) {
  const found = new Map();
  const visit = async (name) => {
    if (found.has(name) || leftOut.test(name)) return;
    const item = await apt.show(name);
    if (item === undefined) return;
    found.set(name, item);
    for (const dependency of item.depends) await visit(dependency);
  };
  for (const name of names) await visit(name);
  const missing = names.filter((name) => !found.has(name));
  if (missing.length > 0) throw new Error(`the archive has no arm64 package ${missing.join(', ')}`);
  return [...found.values()];
}

/** Downloads packages into `debs` and unpacks them into `to`, as they would be installed; both folders are made. */
export async function unpackPackages(apt, packages, { debs, to }) {
  mkdirSync(join(to, 'usr'), { recursive: true });
  for (const name of MERGED) {
    mkdirSync(join(to, 'usr', name));
    symlinkSync(`usr/${name}`, join(to, name));
  }
  for (const file of await apt.download(packages, debs, () => {})) {
    // dpkg-deb -x would put a directory in the place of a link.
    const tar = execFileSync('dpkg-deb', ['--fsys-tarfile', file], { maxBuffer: 1 << 30 });
    execFileSync('tar', ['-x', '--keep-directory-symlink', '--no-same-owner', '-C', to], { input: tar });
  }
}

/** Makes the folder `root` what a guest can chroot into: without manuals, with somewhere to mount on. */
export function trimRoot(root, waste) {
  for (const path of waste) rmSync(join(root, path), { recursive: true, force: true });
  for (const dir of ['proc', 'sys', 'dev', 'tmp', 'root']) mkdirSync(join(root, dir), { recursive: true });
}

/** Writes an ext4 image with what `root` holds. @param size as mke2fs takes it: `'192M'` */
export function makeExt4(root, image, size) {
  const format = ['-q', '-t', 'ext4', '-O', '^has_journal', '-E', 'root_owner=0:0', '-d', root, image, size];
  execFileSync('mke2fs', format, { stdio: ['ignore', 'ignore', 'inherit'], env: ENV });
}

/** Puts into a cache what another process may have put there meanwhile. */
export async function keep(made, into) {
  await rename(made, into).catch((error) => {
    if (!existsSync(into)) throw error;
  });
}
