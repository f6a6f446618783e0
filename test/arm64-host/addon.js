/** The addon for arm64, by the cross compiler: native/ is compiled in the cache, because build/ is this machine's. */
import { createHash } from 'node:crypto';
import { cp, mkdtemp, readdir, readFile, rename, rm, stat, symlink } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { run } from './spawn.js';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const CROSS = 'aarch64-linux-gnu-';

/**
 * @param {string} cache
 * @param {string} node the directory of Node's package for arm64: its headers
 * @returns {Promise<string>} the addon's path; what was built from the same sources is not built again
 */
export async function crossCompile(cache, node) {
  const built = join(cache, `kvm-${await hashOfSources(node)}.node`);
  if (await stat(built).then(Boolean, () => false)) return built;
  // Another lane may be at it, too.
  const dir = await mkdtemp(join(cache, 'build-'));
  try {
    await cp(join(ROOT, 'native'), join(dir, 'native'), { recursive: true });
    for (const file of ['binding.gyp', 'package.json']) await cp(join(ROOT, file), join(dir, file));
    await symlink(join(ROOT, 'node_modules'), join(dir, 'node_modules'));
    const nodeGyp = createRequire(import.meta.url).resolve('node-gyp/bin/node-gyp.js');
    await run(process.execPath, [nodeGyp, 'rebuild', '--loglevel=warn', '--arch=arm64', `--nodedir=${node}`], {
      cwd: dir,
      env: {
        ...process.env,
        CC: `${CROSS}gcc`,
        CXX: `${CROSS}g++`,
        AR: `${CROSS}ar`,
        LINK: `${CROSS}g++`,
        CC_host: 'gcc',
        CXX_host: 'g++',
      },
    });
    await rename(join(dir, 'build/Release/kvm.node'), built);
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
  return built;
}

/** @param {string} node */
async function hashOfSources(node) {
  const hash = createHash('sha256');
  const files = [join(ROOT, 'binding.gyp'), join(node, 'package.json')];
  for (const name of (await readdir(join(ROOT, 'native'))).sort()) files.push(join(ROOT, 'native', name));
  for (const file of files) hash.update(file).update(await readFile(file));
  return hash.digest('hex').slice(0, 16);
}
