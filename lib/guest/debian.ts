import { createHash } from 'node:crypto';
import { mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { basename, join, relative } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { loadKernel } from '../vmm/boot/index.js';
import { unzstd } from '../vmm/boot/zstd.js';
import { VmError } from '../vmm/errors.js';
import { type AptPackage, lastLines, OWN_GUEST, PrivateApt } from './apt.js';
import { type CachedGuest, type GuestRecord, install, listCache, withWorkDir } from './cache.js';
import { cacheDir } from './cache-dir.js';
import { buildInitramfs, type GuestModule } from './init.js';
import { loadOrder, moduleName, readModuleInfo } from './module-info.js';
import type { SourceOverride } from './sources.js';
import { isMissingProgram, type Ran, run } from './spawn.js';

/** Debian's kernel for virtual machines, or its kernel for every arm64 machine. */
export type GuestFlavour = 'cloud' | 'full';

/** A step of a fetch. */
export interface GuestProgress {
  /** `update`: the package lists; `download`; `unpack`; `build`: the initramfs. */
  readonly stage: 'update' | 'download' | 'unpack' | 'build';
  /** 0 to 1 within the stage; `undefined` where it is not known. */
  readonly fraction?: number;
  /** One line for people. */
  readonly detail: string;
}

/** Options of {@link fetchGuest}. */
export interface FetchGuestOptions {
  /** `cloud` if not given. */
  flavour?: GuestFlavour;
  /** Asks the archive for the newest, also where the cache has a guest. */
  refresh?: boolean;
  /** Called as the fetch goes on; not where the guest is in the cache. */
  onProgress?: (progress: GuestProgress) => void;
  /** Aborting it ends the fetch, and leaves nothing half-made. */
  signal?: AbortSignal;
  /** `ELVISOR_DEBIAN_MIRROR`, `ELVISOR_DEBIAN_SUITE` and `XDG_CACHE_HOME` are taken from here; `process.env` if not given. */
  env?: NodeJS.ProcessEnv;
}

/** A guest that is ready to boot. */
export interface DefaultGuest {
  /** The kernel's path: what the package has, for `loadKernel`. */
  readonly kernel: string;
  /** The initramfs's path. */
  readonly initrd: string;
  /** One line for people: packages and versions. */
  readonly description: string;
  /** What it was made from; equal keys are equal guests. */
  readonly key: string;
}

const METAPACKAGE: Readonly<Record<GuestFlavour, string>> = {
  cloud: 'linux-image-cloud-arm64',
  full: 'linux-image-arm64',
};
const BUSYBOX = 'busybox-static';

/** The drivers of the board's devices, and a file system to put on a disk (built in in the cloud kernel). crc32c is ext4's, by another name. */
const MODULES = ['virtio_mmio', 'virtio_console', 'virtio_blk', 'virtio_rng', 'crc32c_generic', 'ext4'];

/** The power key's driver, and what shows it to user space. The board has the key twice; one is enough. */
const POWER_KEY: Readonly<Record<GuestFlavour, readonly string[]>> = {
  cloud: ['virtio_input', 'evdev'],
  full: ['gpio_keys', 'evdev'],
};

/** Changes with whatever changes the initramfs, so that a new elvisor makes its own. */
const FORMAT = hash(JSON.stringify([MODULES, POWER_KEY]), buildInitramfs({ busybox: new Uint8Array(0), modules: [] }));

/**
 * The default guest: from the cache, or fetched. The kernel and busybox come from the Debian archive of the host's own
 * apt sources (or `ELVISOR_DEBIAN_MIRROR` and `ELVISOR_DEBIAN_SUITE`) by an apt of our own, verified by apt.
 *
 * @throws VmError `ERR_GUEST_NO_APT`, `ERR_GUEST_SOURCES`, `ERR_GUEST_FETCH`, `ERR_GUEST_PACKAGE` the archive does not have
 * it, `ERR_GUEST_UNPACK`, `ERR_GUEST_MODULE`, `ERR_GUEST_CACHE`; the signal's reason when aborted
 */
export async function fetchGuest(options: FetchGuestOptions = {}): Promise<DefaultGuest> {
  const { flavour = 'cloud', signal, env = process.env, onProgress = () => {} } = options;
  const cache = cacheDir(env);
  const request = requestOf(env);
  if (!options.refresh) {
    const cached = newest(await listCache(cache), flavour, request);
    if (cached !== undefined) return guestOf(cached);
  }
  return await withWorkDir(cache, async (work) => {
    await mkdir(join(work, 'apt'));
    const apt = await PrivateApt.create(join(work, 'apt'), { signal, override: request });
    onProgress({ stage: 'update', detail: 'package lists' });
    await apt.update((progress) => onProgress({ stage: 'update', ...progress }));
    const packages = [...(await kernelPackages(apt, flavour)), await candidate(apt, BUSYBOX)];
    const key = keyOf(packages, request);
    const cached = (await listCache(cache)).find((guest) => guest.key === key);
    if (cached !== undefined) return guestOf(cached);

    const names = packages.map(({ name }) => name).join(', ');
    onProgress({ stage: 'download', fraction: 0, detail: names });
    const files = await apt.download(packages, join(work, 'debs'), ({ fraction }) =>
      onProgress({ stage: 'download', fraction, detail: names }),
    );
    const root = join(work, 'root');
    await mkdir(root);
    for (const [i, file] of files.entries()) {
      onProgress({ stage: 'unpack', fraction: i / files.length, detail: basename(file) });
      await unpack(file, root, signal);
    }
    onProgress({ stage: 'build', detail: 'initramfs' });
    const made = join(work, 'guest');
    await mkdir(made);
    await build(root, made, flavour, signal);
    const record: GuestRecord = {
      key,
      flavour,
      format: FORMAT,
      description: describe(packages),
      packages: Object.fromEntries(packages.map(({ name, version }) => [name, version])),
      request,
      created: Date.now(),
    };
    await writeFile(join(made, 'guest.json'), `${JSON.stringify(record, undefined, 2)}\n`);
    await install(cache, key, made);
    const dir = join(cache, 'guests', key);
    return guestOf({ ...record, dir, kernel: join(dir, 'kernel'), initrd: join(dir, 'initrd') });
  });
}

/** {@link fetchGuest} of the cloud kernel. */
export async function fetchDefaultGuest(options: Omit<FetchGuestOptions, 'flavour'> = {}): Promise<DefaultGuest> {
  return await fetchGuest({ ...options, flavour: 'cloud' });
}

/** The guests in the cache, newest first; also those of another elvisor's format. */
export async function listGuests(env: NodeJS.ProcessEnv = process.env): Promise<CachedGuest[]> {
  return await listCache(cacheDir(env));
}

/** The directory of the guest that {@link fetchGuest} would take from the cache; `undefined` where it would fetch. */
export async function guestPath(options: Pick<FetchGuestOptions, 'flavour' | 'env'> = {}): Promise<string | undefined> {
  const { flavour = 'cloud', env = process.env } = options;
  return newest(await listGuests(env), flavour, requestOf(env))?.dir;
}

function requestOf(env: NodeJS.ProcessEnv): SourceOverride {
  const { ELVISOR_DEBIAN_MIRROR: mirror, ELVISOR_DEBIAN_SUITE: suite } = env;
  const check = (name: string, value: string | undefined, rule: RegExp, what: string): void => {
    if (value && !rule.test(value))
      throw new VmError('ERR_GUEST_SOURCES', `guest: ${name}=${JSON.stringify(value)} is no ${what}`);
  };
  check('ELVISOR_DEBIAN_MIRROR', mirror, /^[a-z+]+:[!-~]+$/, "archive's URI, such as https://host/debian");
  check(
    'ELVISOR_DEBIAN_SUITE',
    suite,
    /^[A-Za-z0-9][A-Za-z0-9._/-]*( +[A-Za-z0-9][A-Za-z0-9._/-]*)*$/,
    'suite, nor several with blanks between',
  );
  return { ...(mirror ? { mirror } : {}), ...(suite ? { suite } : {}) };
}

function newest(
  guests: readonly CachedGuest[],
  flavour: GuestFlavour,
  request: SourceOverride,
): CachedGuest | undefined {
  return guests.find(
    (guest) =>
      guest.flavour === flavour &&
      guest.format === FORMAT &&
      guest.request?.mirror === request.mirror &&
      guest.request?.suite === request.suite,
  );
}

function guestOf({ kernel, initrd, description, key }: CachedGuest): DefaultGuest {
  return { kernel, initrd, description, key };
}

/** A directory's name: the kernel for people, and a hash of everything that the guest is made from. */
function keyOf(packages: readonly AptPackage[], request: SourceOverride): string {
  const [kernel] = packages;
  // Another archive may have other packages of the same name and version.
  const parts = JSON.stringify([FORMAT, packages.map(({ name, version }) => [name, version]), request]);
  return `${kernel!.name}_${kernel!.version}_${hash(parts)}`.replaceAll(/[^A-Za-z0-9.+~_-]/g, '-');
}

function hash(...parts: readonly (string | Uint8Array)[]): string {
  const sum = createHash('sha256');
  for (const part of parts) sum.update(part);
  return sum.digest('hex').slice(0, 12);
}

/** The kernel and busybox; the packages that a kernel is split into have one version. */
function describe(packages: readonly AptPackage[]): string {
  const [kernel, busybox] = [packages[0]!, packages.at(-1)!];
  return `${kernel.name} ${kernel.version}, ${busybox.name} ${busybox.version}`;
}

async function candidate(apt: PrivateApt, name: string): Promise<AptPackage> {
  const found = await apt.show(name);
  if (found !== undefined) return found;
  throw new VmError(
    'ERR_GUEST_PACKAGE',
    `guest: the archive has no package ${name} for arm64; set ELVISOR_DEBIAN_SUITE to a Debian release that has it, ${OWN_GUEST}`,
  );
}

/** The packages that the metapackage stands for: the kernel, and what newer releases split off from it (its binary, its modules). */
async function kernelPackages(apt: PrivateApt, flavour: GuestFlavour): Promise<AptPackage[]> {
  const found = new Map<string, AptPackage>();
  const visit = async (parent: AptPackage): Promise<void> => {
    for (const name of parent.depends) {
      if (!/^linux-(image|binary|modules|base)-[0-9]/.test(name) || found.has(name)) continue;
      const item = await candidate(apt, name);
      found.set(name, item);
      await visit(item);
    }
  };
  await visit(await candidate(apt, METAPACKAGE[flavour]));
  if (found.size === 0)
    throw new VmError('ERR_GUEST_PACKAGE', `guest: the package ${METAPACKAGE[flavour]} names no kernel; ${OWN_GUEST}`);
  return [...found.values()];
}

function unpackFailed(what: string, reason: string, cause?: unknown): VmError {
  return new VmError('ERR_GUEST_UNPACK', `guest: ${what} can't be unpacked: ${reason}; ${OWN_GUEST}`, { cause });
}

async function tool(what: string, ...args: Parameters<typeof run>): Promise<Ran> {
  try {
    const ran = await run(...args);
    if (ran.status === 0) return ran;
    throw unpackFailed(what, lastLines(ran.stderr));
  } catch (error) {
    if (isMissingProgram(error)) throw unpackFailed(what, `there is no ${args[0]} on this machine`, error);
    throw error;
  }
}

async function unpack(file: string, root: string, signal: AbortSignal | undefined): Promise<void> {
  await tool(basename(file), 'dpkg-deb', ['-x', file, root], { signal });
}

/** Makes `kernel` and `initrd` in `made` from the unpacked packages in `root`. */
async function build(
  root: string,
  made: string,
  flavour: GuestFlavour,
  signal: AbortSignal | undefined,
): Promise<void> {
  const kernelPath = await findKernel(root);
  const kernel = await readFile(kernelPath);
  // What would not boot is found here, where it can be said what is wrong with it, and not kept.
  await loadKernel(kernel);
  const busybox = await readFile(join(root, 'bin/busybox'))
    .catch(() => readFile(join(root, 'usr/bin/busybox')))
    .catch(() => {
      throw unpackFailed(BUSYBOX, 'it holds no bin/busybox');
    });
  await writeFile(join(made, 'kernel'), kernel);
  await writeFile(
    join(made, 'initrd'),
    buildInitramfs({ busybox, modules: await findModules(root, [...MODULES, ...POWER_KEY[flavour]], signal) }),
  );
}

/** `boot/vmlinuz-RELEASE`, or `vmlinuz` beside the modules, where newer releases have it. */
async function findKernel(root: string): Promise<string> {
  const boot = (await entries(join(root, 'boot'))).filter((path) => basename(path).startsWith('vmlinuz-'));
  const beside = (await releaseDirs(root)).map((dir) => join(dir, 'vmlinuz'));
  for (const path of [...boot, ...beside]) if (await isFile(path)) return path;
  throw unpackFailed('the kernel package', 'it holds no vmlinuz');
}

/** The directories below `lib/modules` and `usr/lib/modules`, one a kernel release. */
async function releaseDirs(root: string): Promise<string[]> {
  return [...(await entries(join(root, 'lib/modules'))), ...(await entries(join(root, 'usr/lib/modules')))];
}

/** Paths of what is in a directory; none where there is no such directory. */
async function entries(dir: string): Promise<string[]> {
  return (await readdir(dir).catch(() => [])).map((name) => join(dir, name));
}

async function isFile(path: string): Promise<boolean> {
  return await stat(path).then(
    (found) => found.isFile(),
    () => false,
  );
}

/** The modules that init loads, in order, from `lib/modules` (or `usr/lib/modules`, where newer releases have it). */
async function findModules(
  root: string,
  wanted: readonly string[],
  signal: AbortSignal | undefined,
): Promise<GuestModule[]> {
  const paths = new Map<string, string>();
  const builtin = new Set<string>();
  for (const release of await releaseDirs(root)) {
    for (const path of await readdir(join(release, 'kernel'), { recursive: true }).catch(() => [])) {
      const name = /^(.+)\.ko(\.xz|\.zst|\.gz)?$/.exec(basename(path))?.[1];
      if (name !== undefined) paths.set(moduleName(name), join(release, 'kernel', path));
    }
    const list = await readFile(join(release, 'modules.builtin'), 'utf8').catch(() => '');
    for (const line of list.split('\n')) if (line !== '') builtin.add(moduleName(basename(line, '.ko')));
  }
  const contents = new Map<string, Uint8Array>();
  const order = await loadOrder(wanted, new Set(paths.keys()), builtin, async (name) => {
    const bytes = await readModule(paths.get(name)!, signal);
    contents.set(name, bytes);
    return readModuleInfo(bytes, name);
  });
  return order.map((name) => ({
    path: `/${relative(root, paths.get(name)!)
      .replace(/^usr\//, '')
      .replace(/\.ko\..*$/, '.ko')}`,
    bytes: contents.get(name)!,
  }));
}

async function readModule(path: string, signal: AbortSignal | undefined): Promise<Uint8Array> {
  const bytes = await readFile(path);
  if (path.endsWith('.xz')) return (await tool(basename(path), 'xz', ['-dc'], { stdin: bytes, signal })).stdout;
  if (path.endsWith('.zst')) return unzstd(bytes, 64 * 1024 * 1024, `kernel module ${basename(path)}`);
  if (path.endsWith('.gz')) return gunzipSync(bytes);
  return bytes;
}
