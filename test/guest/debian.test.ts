import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { install, listCache, withWorkDir } from '#lib/guest/cache.js';
import { cacheDir } from '#lib/guest/cache-dir.js';
import { CpioType, readCpio } from '#lib/guest/cpio.js';
import { demoImage } from '#lib/guest/demo.js';
import { fetchGuest, type GuestProgress, guestPath, listGuests } from '#lib/guest/index.js';
import { loadKernel } from '#lib/vmm/boot/index.js';
import { withPrograms } from '../oracle.ts';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'elvisor-guest-'));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

/**
 * An environment whose apt is made of sh scripts: apt-config as on a host with one Debian source, and the others as given
 * (by default an archive with a small kernel that boots, and a busybox).
 */
function fakeApt(programs: Record<string, string> = {}): NodeJS.ProcessEnv {
  const bin = join(dir, 'bin');
  mkdirSync(join(dir, 'parts'), { recursive: true });
  mkdirSync(bin, { recursive: true });
  writeFileSync(join(dir, 'parts/debian.list'), 'deb http://archive.example/debian stable main\n');
  writeFileSync(join(dir, 'Image'), demoImage());
  const all: Record<string, string> = {
    'apt-config': `case $1 in dump) echo 'Acquire::http::Proxy "http://proxy.example";'; echo 'APT::Get::AllowUnauthenticated "true";' ;; shell) echo "parts='${dir}/parts/'" ;; esac`,
    'apt-get': `cat "$APT_CONFIG" > ${dir}/apt.conf; cat "$(dirname "$APT_CONFIG")"/sources/* > ${dir}/sources
      case "$*" in
      *indextargets*) printf 'Debian\\thttp://archive.example/debian/\\tstable\\n' ;;
      *download*) echo 'dlstatus:1:50.0:Retrieving' >&3; for p; do case $p in [a-z]*=*) : >"\${p%%=*}.deb" ;; esac; done ;;
      esac`,
    'apt-cache': `case $4$3 in
      *linux-image-cloud-arm64*) printf 'Package: linux-image-cloud-arm64\\nVersion: 1\\nDepends: linux-image-9-cloud-arm64 (= 1)\\n' ;;
      *linux-image-9*) printf 'Package: linux-image-9-cloud-arm64\\nVersion: 9.1\\nPre-Depends: linux-binary-9-cloud-arm64\\nDepends: kmod, dracut | initramfs-tools\\n\\nPackage: other\\n' ;;
      *linux-binary-9*) printf 'Package: linux-binary-9-cloud-arm64\\nVersion: 9.1\\n' ;;
      *busybox-static*) printf 'Package: busybox-static\\nVersion: 2:3\\n' ;;
      *) exit 100 ;;
      esac`,
    'dpkg-deb': `case $2 in
      *linux-binary*) mkdir -p "$3/usr/lib/modules/9"; cp ${dir}/Image "$3/usr/lib/modules/9/vmlinuz" ;;
      *busybox*) mkdir -p "$3/usr/bin"; echo busy >"$3/usr/bin/busybox" ;;
      esac`,
    ...programs,
  };
  for (const [name, script] of Object.entries(all)) {
    if (script === '') continue;
    writeFileSync(join(bin, name), `#!/bin/sh\n${script}\n`);
    chmodSync(join(bin, name), 0o755);
  }
  for (const tool of ['cat', 'cp', 'mkdir', 'dirname', 'sleep']) {
    const [found] = ['/bin', '/usr/bin'].map((where) => join(where, tool)).filter(existsSync);
    if (!existsSync(join(bin, tool))) symlinkSync(found!, join(bin, tool));
  }
  return { PATH: bin, XDG_CACHE_HOME: join(dir, 'cache') };
}

/** Runs `work` with the fake programs on PATH: a child is found by the parent's. */
async function withPath<T>(env: NodeJS.ProcessEnv, work: () => Promise<T>): Promise<T> {
  const { PATH: before } = process.env;
  Object.assign(process.env, { PATH: env.PATH });
  try {
    return await work();
  } finally {
    Object.assign(process.env, { PATH: before });
  }
}

const fetchWith = (env: NodeJS.ProcessEnv, options = {}) => withPath(env, () => fetchGuest({ env, ...options }));
const leftovers = () => readdirSync(join(dir, 'cache/elvisor/tmp'));

describe('fetchGuest', () => {
  test('fetches, unpacks, builds, and takes it from the cache the next time', async () => {
    const env = fakeApt();
    const stages: GuestProgress[] = [];
    expect(await guestPath({ env })).toBeUndefined();
    const guest = await fetchWith(env, { onProgress: (progress: GuestProgress) => stages.push(progress) });
    expect(guest.description).toBe('linux-image-9-cloud-arm64 9.1, busybox-static 2:3');
    expect(readFileSync(guest.kernel)).toEqual(Buffer.from(demoImage()));
    expect([...new Set(stages.map(({ stage }) => stage))]).toEqual(['update', 'download', 'unpack', 'build']);
    expect(stages).toContainEqual({
      stage: 'download',
      fraction: 0.5,
      detail: expect.stringContaining('linux-binary-9'),
    });
    expect(leftovers()).toEqual([]);

    rmSync(join(dir, 'bin'), { recursive: true });
    expect(await fetchWith(env)).toEqual(guest);
    expect(join((await guestPath({ env }))!, 'kernel')).toBe(guest.kernel);
    expect((await listGuests(env)).map(({ key }) => key)).toEqual([guest.key]);
    await expect(fetchWith(env, { flavour: 'full' })).rejects.toMatchObject({ code: 'ERR_GUEST_NO_APT' });
    await expect(fetchWith({ ...env, ELVISOR_DEBIAN_SUITE: 'other' })).rejects.toMatchObject({
      code: 'ERR_GUEST_NO_APT',
    });
  });

  test("apt is private, for arm64, signed, with the host's proxy and sources", async () => {
    await fetchWith(fakeApt());
    const conf = readFileSync(join(dir, 'apt.conf'), 'utf8');
    expect(conf).toContain('APT::Architectures { "arm64"; };');
    expect(conf).toContain('Acquire::http::Proxy "http://proxy.example";');
    expect(conf).not.toMatch(/AllowUnauthenticated "true"/);
    expect(conf).toMatch(/Dir::Etc::parts "[^"]*elvisor\/tmp\/[^"]*";/);
    expect(readFileSync(join(dir, 'sources'), 'utf8')).toBe(
      'Types: deb\nURIs: http://archive.example/debian\nSuites: stable\nComponents: main\n',
    );
  });

  const fails: [string, Record<string, string>, string, RegExp][] = [
    [
      'no apt',
      { 'apt-config': '' },
      'ERR_GUEST_NO_APT',
      /no apt-config on this machine.*--kernel FILE and --initrd FILE/,
    ],
    [
      'no sources',
      { 'apt-config': 'exit 0' },
      'ERR_GUEST_SOURCES',
      /ELVISOR_DEBIAN_MIRROR.*--kernel FILE and --initrd FILE/,
    ],
    [
      'no network',
      { 'apt-get': "echo 'E: Failed to fetch http://x Could not resolve' >&2; exit 100" },
      'ERR_GUEST_FETCH',
      /package lists: E: Failed to fetch http:\/\/x Could not resolve.*--kernel/,
    ],
    [
      'a source of another distribution',
      { 'apt-get': "case $* in *indextargets*) printf 'Other\\thttp://archive.example/debian/\\tstable\\n' ;; esac" },
      'ERR_GUEST_SOURCES',
      /are of "Other", not of "Debian"/,
    ],
    [
      'an archive without it',
      { 'apt-cache': 'exit 100' },
      'ERR_GUEST_PACKAGE',
      /no package linux-image-cloud-arm64 for arm64.*--kernel/,
    ],
    [
      'a download that fails',
      { 'apt-get': "case $* in *indextargets*) ;; *download*) echo 'E: Hash Sum mismatch' >&2; exit 100 ;; esac" },
      'ERR_GUEST_FETCH',
      /linux-binary-9-cloud-arm64.*Hash Sum mismatch/,
    ],
    ['a download with files missing', { 'apt-get': 'exit 0' }, 'ERR_GUEST_FETCH', /gave 0 packages of 3/],
    ['no dpkg-deb', { 'dpkg-deb': '' }, 'ERR_GUEST_UNPACK', /no dpkg-deb on this machine.*--kernel/],
    [
      'a broken package',
      { 'dpkg-deb': "echo 'dpkg-deb: error: not a Debian archive' >&2; exit 2" },
      'ERR_GUEST_UNPACK',
      /can't be unpacked: dpkg-deb: error: not a Debian archive/,
    ],
    ['a package without a kernel', { 'dpkg-deb': 'exit 0' }, 'ERR_GUEST_UNPACK', /holds no vmlinuz/],
    [
      'a kernel that would not boot',
      { 'dpkg-deb': 'mkdir -p "$3/boot"; echo MZ >"$3/boot/vmlinuz-9"' },
      'ERR_KERNEL_TRUNCATED',
      /3 bytes/,
    ],
  ];
  test.each(fails)('%s: says so, and leaves nothing behind', async (_, programs, code, message) => {
    await expect(fetchWith(fakeApt(programs))).rejects.toMatchObject({
      name: 'VmError',
      code,
      message: expect.stringMatching(message),
    });
    expect(leftovers()).toEqual([]);
    expect(existsSync(join(dir, 'cache/elvisor/guests'))).toBe(false);
  });

  test('an abort ends apt and leaves nothing behind', async () => {
    const abort = new AbortController();
    const env = fakeApt({ 'apt-get': 'echo dlstatus:1:0.0:Retrieving >&3; exec sleep 1000' });
    const reason = new Error('enough');
    const onProgress = ({ fraction }: GuestProgress) => fraction === 0 && abort.abort(reason);
    await expect(fetchWith(env, { signal: abort.signal, onProgress })).rejects.toBe(reason);
    expect(leftovers()).toEqual([]);
  });

  test('two at once: one guest, and both have it', async () => {
    const env = fakeApt();
    const [a, b] = await withPath(env, () => Promise.all([fetchGuest({ env }), fetchGuest({ env })]));
    expect(a).toEqual(b);
    expect(readdirSync(join(dir, 'cache/elvisor/guests'))).toEqual([a.key]);
    expect(leftovers()).toEqual([]);
  });

  test.each([
    ['ELVISOR_DEBIAN_MIRROR', 'http://a\nTrusted: yes'],
    ['ELVISOR_DEBIAN_MIRROR', 'mirror'],
    ['ELVISOR_DEBIAN_SUITE', 'a\nb'],
  ])('refuses %s=%j', async (name, value) => {
    await expect(fetchWith({ ...fakeApt(), [name]: value })).rejects.toMatchObject({
      code: 'ERR_GUEST_SOURCES',
      message: expect.stringContaining(name),
    });
  });

  test('a cache that is no directory', async () => {
    writeFileSync(join(dir, 'file'), '');
    await expect(fetchGuest({ env: { XDG_CACHE_HOME: join(dir, 'file') } })).rejects.toMatchObject({
      code: 'ERR_GUEST_CACHE',
      message: expect.stringMatching(/XDG_CACHE_HOME/),
    });
  });
});

describe('the cache', () => {
  test('is where the XDG specification has it', () => {
    expect(cacheDir({ XDG_CACHE_HOME: '/x' })).toBe('/x/elvisor');
    expect(cacheDir({ XDG_CACHE_HOME: 'relative' })).toBe(cacheDir({}));
    expect(cacheDir({})).toMatch(/\/\.cache\/elvisor$/);
  });

  test('a guest that is not whole is not listed, and is replaced', async () => {
    mkdirSync(join(dir, 'guests/key'), { recursive: true });
    writeFileSync(join(dir, 'guests/key/kernel'), 'half');
    expect(await listCache(dir)).toEqual([]);
    await withWorkDir(dir, async (work) => {
      const made = join(work, 'guest');
      mkdirSync(made);
      for (const name of ['kernel', 'initrd']) writeFileSync(join(made, name), 'whole');
      writeFileSync(join(made, 'guest.json'), JSON.stringify({ key: 'key', created: 1 }));
      await install(dir, 'key', made);
    });
    expect((await listCache(dir)).map(({ kernel }) => readFileSync(kernel, 'utf8'))).toEqual(['whole']);
    expect(readdirSync(join(dir, 'tmp'))).toEqual([]);
  });

  test('what cannot be read is left out', async () => {
    for (const [name, json] of [
      ['a', '{'],
      ['b', '{"key":"other","created":1}'],
      ['c', 'null'],
      ['d', '{"key":"d"}'],
    ] as const) {
      mkdirSync(join(dir, 'guests', name), { recursive: true });
      for (const file of ['kernel', 'initrd']) writeFileSync(join(dir, 'guests', name, file), '');
      writeFileSync(join(dir, 'guests', name, 'guest.json'), json);
    }
    expect(await listCache(dir)).toEqual([]);
  });
});

/** Debian's own, from the archive of this machine's sources (and then from the user's cache). */
const withArchive = spawnSync('apt-get', ['indextargets', 'Created-By: Packages'], { encoding: 'utf8' }).stdout
  ? withPrograms('apt-get')
  : test.skip;
withArchive(
  'the default guest is a Debian kernel with its virtio modules in order, busybox and init',
  async () => {
    const guest = await fetchGuest();
    const kernel = await loadKernel(readFileSync(guest.kernel));
    expect(kernel).toMatchObject({ kind: 'image', pageSize: 4096 });
    const entries = new Map(readCpio(readFileSync(guest.initrd)).map((entry) => [entry.name, entry]));
    const text = (name: string) => new TextDecoder().decode(entries.get(name)!.data);
    const modules = text('etc/modules.order').trim().split('\n');
    for (const path of modules) expect(entries.get(path.slice(1))!.mode & CpioType.MASK).toBe(CpioType.FILE);
    const names = modules.map((path) => path.replace(/^.*\/|\.ko$/g, '').replaceAll('-', '_'));
    expect(names).toEqual(expect.arrayContaining(['virtio_mmio', 'virtio_console', 'virtio_blk', 'virtio_rng']));
    if (names.includes('virtio')) expect(names.indexOf('virtio')).toBeLessThan(names.indexOf('virtio_mmio'));
    expect(text('init')).toMatch(/^#!\/bin\/sh\n/);
    expect(entries.get('init')!.mode & 0o111).toBe(0o111);
    expect(entries.get('bin/busybox')!.data.length).toBeGreaterThan(500_000);
    expect(entries.get('dev/console')).toMatchObject({ mode: CpioType.CHAR | 0o600, rdev: [5, 1] });
  },
  300_000,
);
