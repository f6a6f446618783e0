// QEMU newer than Debian 12's own, for what that is too old to be compared with. It is Debian's, from its backports, made for this machine.
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { PrivateApt } from '../dist/guest/apt.js';
import { cacheDir } from '../dist/guest/cache-dir.js';
import { keep } from './debian-root.js';

const SUITE = 'bookworm-backports';

/** Packages, what of them is unpacked, and the program in it. */
export const NEWER_QEMU = {
  // Runs with the libraries and the firmware of Debian's own QEMU.
  system: { name: 'qemu-system-arm', unpack: './usr', program: 'usr/bin/qemu-system-aarch64' },
  // Is linked statically.
  user: { name: 'qemu-user', unpack: './usr/bin/qemu-aarch64', program: 'usr/bin/qemu-aarch64' },
};

/** Where tests look for what the distribution's oracles are too old for. */
export const oracleCache = () => join(cacheDir(), 'oracles');

/** Where {@link fetchNewerQemu} puts the program. @param {keyof typeof NEWER_QEMU} which @param {string} cache a folder */
export function newerQemuPath(which, cache) {
  const { name, program } = NEWER_QEMU[which];
  return join(cache, `${name}-${SUITE}`, program);
}

/**
 * Fetches it into `cache`, unless it has been.
 * @param {keyof typeof NEWER_QEMU} which
 * @param {string} cache
 * @returns {Promise<string>} the program
 * @throws {Error} it cannot be fetched; nothing is left behind
 */
export async function fetchNewerQemu(which, cache) {
  const { name, unpack } = NEWER_QEMU[which];
  const path = newerQemuPath(which, cache);
  if (existsSync(path)) return path;
  const dir = join(cache, `${name}-${SUITE}`);
  const work = `${dir}.${process.pid}`;
  try {
    for (const part of ['apt', 'root']) mkdirSync(join(work, part), { recursive: true });
    const architecture = execFileSync('dpkg', ['--print-architecture'], { encoding: 'utf8' }).trim();
    const mirror = process.env.ELVISOR_DEBIAN_MIRROR;
    const override = { suite: SUITE, ...(mirror ? { mirror } : {}) };
    const apt = await PrivateApt.create(join(work, 'apt'), { override, architecture });
    await apt.update(() => {});
    const found = await apt.show(name);
    if (found === undefined) throw new Error(`${SUITE} has no ${name}`);
    const [file] = await apt.download([found], join(work, 'debs'), () => {});
    const input = execFileSync('dpkg-deb', ['--fsys-tarfile', file], { maxBuffer: 2 ** 30 });
    execFileSync('tar', ['-x', '--no-same-owner', '-C', join(work, 'root'), unpack], { input });
    await keep(join(work, 'root'), dir);
  } catch (error) {
    throw new Error(`that of ${SUITE} cannot be fetched: ${error.message}`, { cause: error });
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
  return path;
}
