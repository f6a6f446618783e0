import { mkdir, mkdtemp, readdir, readFile, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { VmError } from '../vmm/errors.js';

/** What a guest's `guest.json` says. */
export interface GuestRecord {
  /** The directory's name: what the guest was made from. */
  readonly key: string;
  readonly flavour: 'cloud' | 'full';
  /** Version of the cache's format and of the initramfs's contents; another is not used. */
  readonly format: string;
  /** One line for people. */
  readonly description: string;
  /** Package versions by name. */
  readonly packages: Readonly<Record<string, string>>;
  /** Which mirror and suite the environment asked for; empty where the host's sources were used. */
  readonly request: { readonly mirror?: string; readonly suite?: string };
  /** When it was made: milliseconds since 1970. */
  readonly created: number;
}

/** A guest in the cache. */
export interface CachedGuest extends GuestRecord {
  /** Its directory. */
  readonly dir: string;
  /** The kernel's path. */
  readonly kernel: string;
  /** The initramfs's path. */
  readonly initrd: string;
}

/** A working directory that is older than this was left by a process that died. */
const STALE_MS = 24 * 3600 * 1000;

/** The guests in `cache`, newest first. What is not whole or not readable is left out. */
export async function listCache(cache: string): Promise<CachedGuest[]> {
  const root = join(cache, 'guests');
  const found: CachedGuest[] = [];
  for (const name of await readdir(root).catch(() => [])) {
    const dir = join(root, name);
    const [kernel, initrd] = [join(dir, 'kernel'), join(dir, 'initrd')];
    try {
      const record = JSON.parse(await readFile(join(dir, 'guest.json'), 'utf8')) as GuestRecord;
      if (record.key !== name || typeof record.created !== 'number') continue;
      await Promise.all([stat(kernel), stat(initrd)]);
      found.push({ ...record, dir, kernel, initrd });
    } catch {}
  }
  return found.sort((a, b) => b.created - a.created);
}

/**
 * Runs `work` in a new directory of the cache, which is gone afterwards, whatever happens.
 * @throws VmError `ERR_GUEST_CACHE` the cache can't be written
 */
export async function withWorkDir<T>(cache: string, work: (dir: string) => Promise<T>): Promise<T> {
  const root = join(cache, 'tmp');
  let dir: string;
  try {
    await mkdir(root, { recursive: true });
    dir = await mkdtemp(join(root, 'fetch-'));
  } catch (error) {
    throw new VmError(
      'ERR_GUEST_CACHE',
      `guest: the cache directory ${cache} can't be written (${(error as Error).message}); set XDG_CACHE_HOME to one that can`,
      { cause: error },
    );
  }
  await removeStale(root);
  try {
    return await work(dir);
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

async function removeStale(root: string): Promise<void> {
  for (const name of await readdir(root).catch(() => [])) {
    const dir = join(root, name);
    const age =
      Date.now() -
      (await stat(dir).then(
        ({ mtimeMs }) => mtimeMs,
        () => Date.now(),
      ));
    if (age > STALE_MS) await rm(dir, { recursive: true, force: true }).catch(() => {});
  }
}

/**
 * Puts a whole guest, made in `made`, under its key, in one step. Where another process was faster, its guest stays: it
 * was made from the same packages.
 */
export async function install(cache: string, key: string, made: string): Promise<void> {
  const root = join(cache, 'guests');
  await mkdir(root, { recursive: true });
  const dir = join(root, key);
  try {
    await rename(made, dir);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code !== 'ENOTEMPTY' && code !== 'EEXIST') throw error;
    if ((await listCache(cache)).some((guest) => guest.key === key)) return;
    // What is there is not whole. It is moved away, not emptied in place: somebody may be reading it.
    const broken = `${made}.broken`;
    await rename(dir, broken);
    await rename(made, dir);
    await rm(broken, { recursive: true, force: true });
  }
}
