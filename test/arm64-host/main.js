#!/usr/bin/env node
/**
 * The contract suite, the addon's tests and the launcher on the genuine /dev/kvm of an arm64 Linux, which boots under
 * qemu-system-aarch64 with EL2 on any machine.
 *
 *   npm run test:arm64-host -- [MODE...] [--files REGEXP] [--seed N] [--every-version] [--verbose]
 *
 * Ends with the line `N passed, N failed, N skipped` and status 0 or 1; 77 where something that it needs is not there.
 */
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { commandLine } from '../../scripts/command-line.js';
import { crossCompile } from './addon.js';
import { planLayer, projectLayer, systemLayer } from './layers.js';
import { boot } from './machine.js';
import { DEFAULT_MODES, GROUPS, MODES } from './modes.js';
import { SKIPPED, Skip } from './skip.js';
import { cacheDir, debianGuest, hostKernel, newerQemu, nodeForArm64 } from './sources.js';
import { needProgram, qemuVersion } from './spawn.js';

const TEST = fileURLToPath(new URL('../', import.meta.url));
const { values, positionals } = commandLine(import.meta.url, {
  allowPositionals: true,
  options: {
    files: { type: 'string', default: '' },
    // Of the machine's random numbers: another one is another layout of memory and another order of events.
    seed: { type: 'string', default: '42' },
    // Tests that the host's kernel is too old for are run, too: one that passes has a version that is wrong.
    'every-version': { type: 'boolean', default: false },
    verbose: { type: 'boolean', short: 'v', default: false },
  },
});
if (!Number.isInteger(Number(values.seed))) {
  console.error(`test:arm64-host: --seed ${values.seed}: it is a whole number`);
  process.exit(2);
}
const names = positionals.length > 0 ? positionals : DEFAULT_MODES;
const unknown = names.filter((name) => !(name in MODES));
if (unknown.length > 0) {
  console.error(`test:arm64-host: no mode ${unknown.join(', ')}; there are ${Object.keys(MODES).join(', ')}`);
  process.exit(2);
}

const counts = { passed: 0, failed: 0, skipped: 0 };
const work = await mkdtemp(join(tmpdir(), 'elvisor-arm64-host-'));
try {
  const base = await orSkip(names, makeBase);
  for (const name of base === undefined ? [] : names) await orSkip([name], () => runMode(name, base));
} finally {
  await rm(work, { recursive: true, force: true });
}
console.log(`${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`);
process.exitCode = counts.failed > 0 ? 1 : counts.passed > 0 ? 0 : SKIPPED;

/** What `act` gives; `undefined`, and the modes reported as skipped, where it cannot be done here. */
async function orSkip(modes, act) {
  try {
    return await act();
  } catch (error) {
    if (!(error instanceof Skip)) throw error;
    for (const mode of modes) console.log(`skipped: arm64 host, ${mode}: ${error.message}`);
    counts.skipped += modes.length;
    return undefined;
  }
}

/** What all modes have. */
async function makeBase() {
  const qemu = qemuVersion();
  needProgram('aarch64-linux-gnu-g++', 'g++-aarch64-linux-gnu');
  const cache = cacheDir();
  await mkdir(cache, { recursive: true });
  const [guest, node] = [await debianGuest(), await nodeForArm64(cache)];
  const addon = await crossCompile(cache, node);
  return { qemu, cache, guest, layers: [await systemLayer(guest, node), await projectLayer(addon, guest)] };
}

async function runMode(name, { qemu, cache, guest, layers }) {
  const mode = MODES[name];
  const program = qemu < mode.qemu ? await newerQemu(mode.qemu, cache) : undefined;
  const kernel = await hostKernel(mode.kernel, cache, guest);
  const groups = await filesOf(mode.groups, new RegExp(values.files));
  const env = {
    ELVISOR_BACKENDS: 'host',
    ELVISOR_ARM64_HOST: name,
    ELVISOR_ARM64_HOST_SAYS: JSON.stringify(mode.says),
    ...(mode.says.device === true ? { REQUIRE_KVM: '1' } : {}),
    ...(values['every-version'] ? { ELVISOR_EVERY_VERSION: '1' } : {}),
  };
  const initrd = join(work, 'initrd');
  await writeFile(initrd, Buffer.concat([...layers, planLayer({ groups, env })]));
  console.log(`${name}: ${mode.title}; ${kernel.description}`);
  await boot({
    ...(program === undefined ? {} : { qemu: program }),
    mode,
    seed: Number(values.seed),
    kernel: kernel.path,
    initrd,
    groups: Object.keys(groups),
    onResult: report(name),
    onLine: values.verbose ? (line) => console.log(`  | ${line}`) : undefined,
  });
}

/** @param {string} mode @returns {(result: import('./machine.js').Result) => void} */
function report(mode) {
  return ({ file, test, status, errors = [] }) => {
    counts[status]++;
    const name = `${mode}: ${file.replace(/^test\//, '')}: ${test}`;
    if (status === 'passed') console.log(`  ok ${name}`);
    else if (status === 'skipped') console.log(`skipped: ${name}`);
    else console.log(`  FAILED ${name}\n${errors.join('\n').replace(/^/gm, '      ')}`);
  };
}

/**
 * @param {readonly string[]} groups
 * @param {RegExp} wanted
 * @returns {Promise<Record<string, string[]>>} the compiled files of each group that has any
 */
async function filesOf(groups, wanted) {
  const found = {};
  for (const group of groups) {
    for (const path of GROUPS[group]) {
      const names = path.endsWith('.ts')
        ? [path]
        : (await readdir(join(TEST, path)))
            .filter((name) => name.endsWith('.test.ts'))
            .map((name) => `${path}/${name}`);
      for (const name of names.filter((name) => wanted.test(name)).sort()) {
        found[group] ??= [];
        found[group].push(`test/${name.replace(/\.ts$/, '.js')}`);
      }
    }
  }
  return found;
}
