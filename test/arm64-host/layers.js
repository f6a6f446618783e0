/**
 * The machine's initramfs, in layers that the kernel unpacks one over the other: the system, which stays the same, and
 * what is under test. An uncompressed archive boots as fast as any other root, and needs no driver.
 */
import { readdir, readFile, stat } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, extname, join, relative, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import { transformFile } from '@swc/core';
import { directory, file, readCpio, writeCpio } from '../../dist/guest/cpio.js';
import { Skip } from './skip.js';
import { run } from './spawn.js';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const INSIDE = fileURLToPath(new URL('./inside/', import.meta.url));
/** Where Debian's cross compiler has arm64's C library, the very one that the addon is linked with. */
const LIBRARIES = '/usr/aarch64-linux-gnu/lib';
const NEEDED = [
  'ld-linux-aarch64.so.1',
  'libc.so.6',
  'libdl.so.2',
  'libgcc_s.so.1',
  'libm.so.6',
  'libpthread.so.0',
  'libstdc++.so.6',
];
const CODE = new Set(['.js', '.mjs', '.cjs', '.json', '.txt']);

/**
 * Busybox, Node, its libraries and init.
 * @param {{ initrd: string }} guest whose busybox it has, too
 * @param {string} node the directory of Node's package
 */
export async function systemLayer(guest, node) {
  const busybox = readCpio(await readFile(guest.initrd)).find(({ name }) => name === 'bin/busybox');
  if (busybox === undefined) throw new Error(`${guest.initrd} has no bin/busybox`);
  const libraries = await Promise.all(
    NEEDED.map(async (name) => {
      const bytes = await readFile(join(LIBRARIES, name)).catch(() => {
        throw new Skip(`there is no ${join(LIBRARIES, name)} (Debian: g++-aarch64-linux-gnu)`);
      });
      return file(`lib/${name}`, bytes, 0o755);
    }),
  );
  return writeCpio([
    ...['bin', 'dev', 'etc', 'lib', 'proc', 'root', 'sys', 'tmp'].map((name) => directory(name)),
    busybox,
    file('bin/node', await readFile(join(node, 'bin/node')), 0o755),
    file('init', await readFile(join(INSIDE, 'init')), 0o755),
    file('etc/passwd', 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n'),
    ...libraries,
  ]);
}

/**
 * elvisor, built; its addon for arm64; the tests, compiled; the packages that they need; the default guest in its cache.
 * @param {string} addon
 * @param {{ dir: string, key: string }} guest
 */
export async function projectLayer(addon, guest) {
  const tree = new Tree();
  tree.file('elvisor/package.json', await readFile(join(ROOT, 'package.json')));
  tree.file('elvisor/build/Release/kvm.node', await readFile(addon), 0o755);
  await tree.copy(join(ROOT, 'dist'), 'elvisor/dist');
  for (const path of await walk(join(ROOT, 'test'))) await addTest(tree, relative(ROOT, path));
  const packages = await packagesOfTests();
  for (const name of packages) await tree.copy(join(ROOT, 'node_modules', name), `elvisor/node_modules/${name}`);
  tree.file('elvisor/node_modules/@jest/globals/package.json', '{ "type": "module", "main": "index.js" }');
  tree.file('elvisor/node_modules/@jest/globals/index.js', await readFile(join(INSIDE, 'globals.mjs')));
  for (const name of await readdir(guest.dir)) {
    tree.file(`root/.cache/elvisor/guests/${guest.key}/${name}`, await readFile(join(guest.dir, name)));
  }
  return tree.toCpio();
}

/** What a mode is, for those who run in it. @param {object} plan */
export function planLayer(plan) {
  return writeCpio([file('plan.json', `${JSON.stringify(plan)}\n`)]);
}

/** A test as JavaScript: in the machine there is no compiler. @param {Tree} tree @param {string} path from the root */
async function addTest(tree, path) {
  const target = `elvisor/${path.split(sep).join('/')}`;
  if (extname(path) !== '.ts') {
    if (CODE.has(extname(path))) tree.file(target, await readFile(join(ROOT, path)));
    return;
  }
  const { code } = await transformFile(join(ROOT, path), {
    configFile: false,
    swcrc: false,
    jsc: { target: 'es2022', parser: { syntax: 'typescript' }, rewriteRelativeImportExtensions: true },
    sourceMaps: 'inline',
  });
  tree.file(target.replace(/\.ts$/, '.js'), code);
}

/** The package's own dependencies, and what jest's engine and the tests load, found by loading it. @returns {Promise<string[]>} */
async function packagesOfTests() {
  const require = createRequire(import.meta.url);
  const circus = createRequire(require.resolve('jest')).resolve('jest-circus');
  const code = `for (const name of ${JSON.stringify([circus, '@jest/expect', 'fast-check'])}) require(name);
    console.log(JSON.stringify(Object.keys(require.cache)))`;
  const loaded = JSON.parse(await run(process.execPath, ['-e', code], { cwd: ROOT }));
  const names = loaded.map((path) => /node_modules[/\\]((?:@[^/\\]+[/\\])?[^/\\]+)/.exec(path)?.[1]);
  const { dependencies } = JSON.parse(await readFile(join(ROOT, 'package.json'), 'utf8'));
  const loadedOnes = names.filter((name) => name !== undefined);
  return [...new Set([...loadedOnes, '@fast-check/jest', ...Object.keys(dependencies)])].sort();
}

/** Files with the directories that they need. */
class Tree {
  #entries = [];
  #directories = new Set();

  /** @param {string} name @param {Uint8Array | string} data @param {number} [mode] */
  file(name, data, mode) {
    this.#makeParents(name);
    this.#entries.push(file(name, data, mode));
  }

  /** A directory's code, without types and maps. @param {string} from @param {string} to */
  async copy(from, to) {
    for (const path of await walk(from)) {
      if (CODE.has(extname(path))) {
        this.file(`${to}/${relative(from, path).split(sep).join('/')}`, await readFile(path));
      }
    }
  }

  toCpio() {
    return writeCpio(this.#entries);
  }

  #makeParents(name) {
    const parent = dirname(name);
    if (parent === '.' || this.#directories.has(parent)) return;
    this.#makeParents(parent);
    this.#directories.add(parent);
    this.#entries.push(directory(parent));
  }
}

/** @param {string} dir @returns {Promise<string[]>} the files below it, sorted */
async function walk(dir) {
  const found = [];
  for (const name of (await readdir(dir, { recursive: true })).sort()) {
    const path = join(dir, name);
    if ((await stat(path)).isFile()) found.push(path);
  }
  return found;
}
