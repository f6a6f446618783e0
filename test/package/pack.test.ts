import { execFile } from 'node:child_process';
import {
  cpSync,
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
import { delimiter, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import ts from 'typescript';

/**
 * The package as its user gets it: packed from a clean build, installed in an empty project, imported, typed and run.
 * The environment can widen it: ELVISOR_NODES names Node binaries to run it with, separated by colons, besides the one
 * that runs the tests; ELVISOR_PNPM the file of a pnpm to install it with, too. Nothing is downloaded.
 */
const NODES = [process.execPath, ...(process.env.ELVISOR_NODES ?? '').split(delimiter).filter((path) => path !== '')];
const PNPM = process.env.ELVISOR_PNPM;

interface Manifest {
  readonly name: string;
  readonly version: string;
  readonly files: readonly string[];
  readonly scripts: Readonly<Record<string, string>>;
  readonly dependencies: Readonly<Record<string, string>>;
  readonly exports: Readonly<Record<string, unknown>>;
}

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const manifest = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as Manifest;
/** The entries that hold code, as a user names them. */
const ENTRIES = Object.keys(manifest.exports)
  .filter((entry) => entry !== './package.json')
  .map((entry) => manifest.name + entry.slice(1));

interface Result {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

let dir = '';
let app = '';
let tarball = '';
/** Tarballs of what the package depends on, so that it can be installed without a registry. */
const dependencies = new Map<string, string>();
let packed: readonly string[] = [];
let installed: Result;

/** Runs a program to its end, with no npm configuration but the registry client's defaults. */
function run(file: string, args: readonly string[], cwd: string, path = ''): Promise<Result> {
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(npm_|NODE_OPTIONS$)/i.test(name)));
  Object.assign(env, {
    PATH: path === '' ? env.PATH : path + delimiter + (env.PATH ?? ''),
    NPM_CONFIG_USERCONFIG: join(dir, 'npmrc'),
    NPM_CONFIG_CACHE: join(dir, 'npm-cache'),
    NPM_CONFIG_UPDATE_NOTIFIER: 'false',
    NPM_CONFIG_AUDIT: 'false',
    NPM_CONFIG_FUND: 'false',
    XDG_DATA_HOME: join(dir, 'data'),
    XDG_CACHE_HOME: join(dir, 'cache'),
  });
  return new Promise((resolve) => {
    const child = execFile(file, args, { cwd, env, maxBuffer: 64 * 1024 * 1024 }, (_error, stdout, stderr) =>
      resolve({ status: child.exitCode, stdout, stderr }),
    );
    child.stdin?.end();
  });
}

/** Runs a program that must succeed. */
async function ran(file: string, args: readonly string[], cwd: string, path = ''): Promise<Result> {
  const result = await run(file, args, cwd, path);
  if (result.status !== 0)
    throw new Error(`${file} ${args.join(' ')}: ${result.status}\n${result.stdout}${result.stderr}`);
  return result;
}

async function pack(from: string, ...flags: readonly string[]): Promise<{ file: string; files: string[] }> {
  const { stdout } = await ran('npm', ['pack', '--json', '--pack-destination', dir, ...flags], from);
  const [made] = JSON.parse(stdout) as { filename: string; files: { path: string }[] }[];
  return { file: join(dir, made!.filename), files: made!.files.map((f) => f.path).sort() };
}

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), 'elvisor-pack-'));
  writeFileSync(join(dir, 'npmrc'), '');
  // A copy, because packing makes the build anew, and other tests run from the one here.
  const source = join(dir, 'source');
  mkdirSync(source);
  const names = ['package.json', 'tsconfig.json', 'rollup.config.js', 'README.md', 'LICENSE', 'lib', ...manifest.files];
  for (const name of names.filter((n) => !/^!|^dist\//.test(n))) {
    if (existsSync(join(ROOT, name))) cpSync(join(ROOT, name), join(source, name), { recursive: true });
  }
  symlinkSync(join(ROOT, 'node_modules'), join(source, 'node_modules'), 'junction');
  const made = await pack(source);
  tarball = made.file;
  packed = made.files;
  for (const name of Object.keys(manifest.dependencies)) {
    dependencies.set(name, (await pack(join(ROOT, 'node_modules', name), '--ignore-scripts')).file);
  }
  app = join(dir, 'app');
  mkdirSync(app);
  writeFileSync(join(app, 'package.json'), '{ "private": true }\n');
  installed = await run('npm', ['install', '--ignore-scripts', '--offline', tarball, ...dependencies.values()], app);
}, 300_000);

afterAll(() => rmSync(dir, { recursive: true, force: true }));

describe('the tarball', () => {
  test('holds the build with its sources, and what a reader wants, and nothing else', () => {
    const lib = readdirSync(join(ROOT, 'lib'), { recursive: true, encoding: 'utf8' }).filter((f) => f.endsWith('.ts'));
    const types = lib.flatMap((f) => ['.d.ts', '.d.ts.map'].map((e) => `dist/${f.slice(0, -3)}${e}`));
    const code = packed.filter((f) => /^(dist|lib)\//.test(f) && !f.startsWith('dist/bundle/'));
    expect(code).toEqual([...lib.map((f) => `lib/${f}`), ...types].sort());
    const bundle = packed.filter((f) => f.startsWith('dist/bundle/')).map((f) => f.slice('dist/bundle/'.length));
    expect(bundle.filter((f) => !f.endsWith('.js'))).toEqual([]);
    expect(bundle).toEqual(
      expect.arrayContaining(['cli', 'compiler-worker', 'fdt', 'host', 'index', 'kvm', 'soft'].map((f) => `${f}.js`)),
    );
    // What V8 reads at each start: no comments, and a byte for each character.
    for (const file of bundle) {
      const source = readFileSync(join(ROOT, 'dist/bundle', file), 'utf8');
      expect(/[^\0-\x7f]|^\s*\/\*\*/m.exec(source)).toBeNull();
    }
    // A few files, or it would not be one.
    expect(bundle.length).toBeLessThan(40);
    const rest = packed.filter((f) => !/^(dist|lib)\//.test(f));
    const pages = rest.filter((f) => /^(docs|examples)\//.test(f));
    expect(rest.filter((f) => !pages.includes(f) && !f.startsWith('prebuilds/'))).toEqual([
      'CHANGELOG.md',
      'CONTRIBUTING.md',
      'LICENSE',
      'README.md',
      'package.json',
    ]);
    expect(pages.filter((f) => !/^(docs\/[\w-]+\.(md|svg)|examples\/[\w-]+\.js)$/.test(f))).toEqual([]);
    expect(pages).toContain('docs/architecture.md');
  });

  test.each(['kvm', 'soft', 'fdt'])('its ./%s needs no Node', (entry) => {
    const bundle = join(app, 'node_modules', manifest.name, 'dist', 'bundle');
    const seen = new Set<string>();
    const queue = [`./${entry}.js`];
    for (let file = queue.pop(); file !== undefined; file = queue.pop()) {
      if (seen.has(file)) continue;
      seen.add(file);
      const { importedFiles } = ts.preProcessFile(readFileSync(join(bundle, file), 'utf8'), true, true);
      for (const { fileName } of importedFiles) if (fileName.startsWith('./')) queue.push(fileName);
      expect(importedFiles.filter(({ fileName }) => !fileName.startsWith('./'))).toEqual([]);
    }
  });

  test('names in its source maps only files that it holds', () => {
    const root = join(app, 'node_modules', manifest.name);
    const maps = packed.filter((f) => f.endsWith('.map'));
    expect(maps.length).toBeGreaterThan(100);
    const missing: string[] = [];
    for (const map of maps) {
      const { sources } = JSON.parse(readFileSync(join(root, map), 'utf8')) as { sources: string[] };
      for (const source of sources)
        if (!existsSync(join(root, dirname(map), source))) missing.push(`${map}: ${source}`);
    }
    expect(missing).toEqual([]);
  });

  test('has no link in a page that leads nowhere', () => {
    const root = join(app, 'node_modules', manifest.name);
    const broken: string[] = [];
    for (const page of packed.filter((f) => f.endsWith('.md'))) {
      const text = readFileSync(join(root, page), 'utf8').replaceAll(/^```[\s\S]*?^```/gm, '');
      for (const [, target = ''] of text.matchAll(/\]\(([^)\s]+)\)/g)) {
        if (/^[a-z]+:/.test(target)) continue;
        const [file = '', anchor] = target.split('#');
        const path = file === '' ? join(root, page) : join(root, dirname(page), file);
        if (!existsSync(path)) broken.push(`${page}: ${target}`);
        else if (anchor !== undefined && !anchorsOf(readFileSync(path, 'utf8')).includes(anchor)) {
          broken.push(`${page}: ${target}`);
        }
      }
    }
    expect(broken).toEqual([]);
  });

  test('runs nothing when it is installed', () => {
    for (const script of ['preinstall', 'install', 'postinstall', 'prepare']) {
      expect(Object.keys(manifest.scripts)).not.toContain(script);
    }
    expect(packed).not.toContain('binding.gyp');
  });
});

/** The anchors that GitHub gives a page's headings. */
function anchorsOf(page: string): string[] {
  return [...page.matchAll(/^#+ (.+)$/gm)].map(([, heading = '']) =>
    heading
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N} _-]/gu, '')
      .replaceAll(' ', '-'),
  );
}

describe('installing it in an empty project', () => {
  test('works with npm, offline, with no script and no warning', () => {
    expect(installed).toMatchObject({ status: 0, stderr: '' });
    const lock = readFileSync(join(app, 'package-lock.json'), 'utf8');
    expect(lock).toContain(`node_modules/${manifest.name}`);
    expect(lock).not.toContain('hasInstallScript');
  });

  test('works with npm where scripts may run, too', async () => {
    const other = join(dir, 'scripts');
    mkdirSync(other);
    writeFileSync(join(other, 'package.json'), '{ "private": true }\n');
    const result = await run('npm', ['install', '--offline', tarball, ...dependencies.values()], other);
    expect(result).toMatchObject({ status: 0, stderr: '' });
  }, 120_000);

  (PNPM === undefined ? test.skip : test)(
    'works with pnpm',
    async () => {
      const other = join(dir, 'pnpm');
      mkdirSync(other);
      writeFileSync(join(other, 'package.json'), '{ "private": true }\n');
      const overrides = [...dependencies].map(([name, file]) => `  ${name}: 'file:${file}'\n`).join('');
      writeFileSync(join(other, 'pnpm-workspace.yaml'), `overrides:\n${overrides}`);
      const add = [PNPM!, 'add', '--offline', '--store-dir', join(dir, 'pnpm-store'), tarball];
      const { stdout, stderr } = await ran(process.execPath, add, other);
      expect(stdout + stderr).not.toMatch(/ignored build scripts|ERR_PNPM/i);
      const version = await ran(join(other, 'node_modules', '.bin', manifest.name), ['--version'], other);
      expect(version.stdout).toBe(`${manifest.name} ${manifest.version}\n`);
      if (!PREBUILT) return;
      writeFileSync(
        join(other, 'addon.mjs'),
        `import { probeHost } from 'elvisor/host'; console.log((${SAYS})(probeHost()));`,
      );
      expect((await ran(process.execPath, ['addon.mjs'], other)).stdout).toBe('loaded\n');
    },
    120_000,
  );
});

describe('types', () => {
  /** Compiles a consumer's files in the project. @returns what the compiler says */
  function check(files: Readonly<Record<string, string>>, lib: readonly string[], types: readonly string[]): string[] {
    const names = Object.entries(files).map(([name, text]) => {
      writeFileSync(join(app, name), text);
      return join(app, name);
    });
    const program = ts.createProgram(names, {
      target: ts.ScriptTarget.ES2023,
      module: ts.ModuleKind.NodeNext,
      moduleResolution: ts.ModuleResolutionKind.NodeNext,
      lib: lib.map((name) => `lib.${name}.d.ts`),
      types: [...types],
      strict: true,
      skipLibCheck: false,
      noEmit: true,
    });
    return ts
      .getPreEmitDiagnostics(program)
      .map((d) => `${d.file?.fileName ?? ''}: ${ts.flattenDiagnosticMessageText(d.messageText, '\n')}`);
  }

  test('resolve under nodenext with skipLibCheck off, for import and require', () => {
    mkdirSync(join(app, 'node_modules', '@types'), { recursive: true });
    symlinkSync(join(ROOT, 'node_modules/@types/node'), join(app, 'node_modules/@types/node'), 'junction');
    const consumer = `
      import { KvmError, MicroVm, open, probe, type VcpuExit, VmError } from 'elvisor';
      import { readFdt } from 'elvisor/fdt';
      import type { Kvm } from 'elvisor/kvm';
      import { openSoft } from 'elvisor/soft';

      export async function main(): Promise<string> {
        const vm = await MicroVm.create({ kernel: 'Image', memory: '256M', cpus: 2, backend: probe().auto });
        vm.console.pipe(process.stdout);
        vm.on('exit', ({ reason }) => console.log(reason.toUpperCase()));
        await vm.boot({ signal: AbortSignal.timeout(1000) });
        await vm[Symbol.asyncDispose]();
        return (await vm.exited).message;
      }
      export function exits(exit: VcpuExit): number {
        // Only what has these fields has them.
        return exit.reason === 'mmio' ? exit.physAddr : exit.reason === 'system_event' ? exit.type : 0;
      }
      export const kvms: Kvm[] = [open({ backend: 'soft', clock: 'virtual' }), openSoft()];
      export const tree = readFdt(new Uint8Array(0));
      export const code = (e: unknown): boolean => KvmError.is(e, 'EEXIST') || VmError.is(e, 'ERR_INVALID_OPTION');
      // @ts-expect-error a kernel must be given
      export const none = MicroVm.create({});
      // @ts-expect-error there is no such backend
      export const other = open({ backend: 'qemu' });
    `;
    const required = `
      import elvisor = require('elvisor');
      export const create: typeof elvisor.MicroVm.create = elvisor.MicroVm.create;
    `;
    expect(check({ 'consumer.mts': consumer, 'required.cts': required }, ['es2023'], ['node'])).toEqual([]);
  }, 120_000);

  test('of ./kvm, ./soft and ./fdt need neither Node nor a browser', () => {
    const consumer = `
      import { readFdt, writeFdt } from 'elvisor/fdt';
      import { KvmError, Reg } from 'elvisor/kvm';
      import { openSoft } from 'elvisor/soft';
      export const all = [readFdt, writeFdt, KvmError, Reg, openSoft];
    `;
    expect(check({ 'bare.mts': consumer }, ['es2023', 'esnext.disposable'], [])).toEqual([]);
  }, 120_000);
});

/** Whether the tarball carries the addon for this machine (`npm run build:prebuilds`). */
const PREBUILT = existsSync(join(ROOT, 'prebuilds', `${process.platform}-${process.arch}`));
const testPrebuilt = PREBUILT ? test : test.skip;
/** What the host backend must not lack: whether there is a KVM is the machine's affair. */
const SAYS = `({ available, cause }) => (available || cause !== 'addon' ? 'loaded' : cause)`;

describe.each(NODES)('on %s', (node) => {
  testPrebuilt(
    'the prebuilt addon loads: by import, by require, in Workers, twice in a process',
    async () => {
      // A second copy of the package is a second addon.
      cpSync(join(app, 'node_modules', manifest.name), join(app, 'copy'), { recursive: true });
      writeFileSync(
        join(app, 'addon.mjs'),
        `import { createRequire } from 'node:module';
       import { Worker } from 'node:worker_threads';
       import { openHost, probeHost } from 'elvisor/host';
       import * as second from './copy/dist/bundle/host.js';
       const says = ${SAYS};
       const told = [says(probeHost()), says(second.probeHost()), says(createRequire(import.meta.url)('elvisor/host').probeHost())];
       const inWorker = () => new Promise((done, failed) => new Worker(
         "import { parentPort } from 'node:worker_threads'; import { probeHost } from 'elvisor/host'; parentPort.postMessage(probeHost());",
         { eval: true, type: 'module' },
       ).once('message', (found) => done(says(found))).once('error', failed));
       if (probeHost().available) {
         const vms = [openHost, second.openHost].map((open) => open().createVm());
         try {
           vms[0].setUserMemoryRegion({ slot: 0, guestPhysAddr: 0, memorySize: 4096 * 16, memory: vms[1].createMemory(4096 * 16) });
         } catch (error) {
           if (error.code !== 'EINVAL' && error.code !== 'EBADF') throw error;
         }
       }
       console.log(...told, ...(await Promise.all([inWorker(), inWorker()])));`,
      );
      const { stdout, stderr } = await ran(node, ['addon.mjs'], app);
      expect({ stdout, stderr }).toEqual({ stdout: `${Array(5).fill('loaded').join(' ')}\n`, stderr: '' });
    },
    60_000,
  );

  testPrebuilt(
    'the prebuilt addon loads in jest',
    async () => {
      const suite = join(app, 'jest');
      mkdirSync(suite, { recursive: true });
      writeFileSync(
        join(suite, 'jest.config.json'),
        '{ "transform": {}, "testMatch": ["**/*.test.mjs"], "watchman": false }',
      );
      writeFileSync(
        join(suite, 'addon.test.mjs'),
        `import { probeHost } from 'elvisor/host';
       const says = ${SAYS};
       test('it loads', () => expect(says(probeHost())).toBe('loaded'));`,
      );
      const jest = join(ROOT, 'node_modules/jest/bin/jest.js');
      const args = [
        '--experimental-vm-modules',
        '--no-warnings',
        jest,
        '--rootDir',
        suite,
        '--config',
        join(suite, 'jest.config.json'),
      ];
      const { stderr } = await ran(node, args, suite);
      expect(stderr).toContain('1 passed');
    },
    60_000,
  );

  const main = () => join(app, 'node_modules', manifest.name, 'dist/bundle/cli.js');

  test('import and require give the same, and say nothing', async () => {
    const names = JSON.stringify(ENTRIES);
    writeFileSync(
      join(app, 'import.mjs'),
      `const all = {}; for (const name of ${names}) all[name] = Object.keys(await import(name)).sort(); console.log(JSON.stringify(all));`,
    );
    writeFileSync(
      join(app, 'require.cjs'),
      `const all = {}; for (const name of ${names}) all[name] = Object.keys(require(name)).filter((k) => k !== '__esModule').sort(); console.log(JSON.stringify(all));`,
    );
    const imported = await ran(node, ['import.mjs'], app);
    const required = await ran(node, ['require.cjs'], app);
    expect([imported.stderr, required.stderr]).toEqual(['', '']);
    const all = JSON.parse(imported.stdout) as Record<string, string[]>;
    expect(JSON.parse(required.stdout)).toEqual(all);
    expect(Object.keys(all)).toEqual(ENTRIES);
    expect(all[manifest.name]).toEqual(expect.arrayContaining(['KvmError', 'MicroVm', 'VmError', 'open', 'probe']));
    for (const names of Object.values(all)) expect(names.length).toBeGreaterThan(0);
  }, 60_000);

  test('npx elvisor --version says the version', async () => {
    const { stdout, stderr } = await ran('npx', ['--offline', manifest.name, '--version'], app, dirname(node));
    expect({ stdout, stderr }).toEqual({ stdout: `${manifest.name} ${manifest.version}\n`, stderr: '' });
  }, 60_000);

  test('npx elvisor demo runs the embedded guest', async () => {
    const { stdout, stderr } = await ran('npx', ['--offline', manifest.name, 'demo'], app, dirname(node));
    expect(stdout).toMatch(/at EL1[\s\S]*interrupt[\s\S]*vCPU 1 is on/);
    expect(stderr).toBe('');
  }, 120_000);

  test('a machine can be driven through the contract alone', async () => {
    writeFileSync(
      join(app, 'contract.mjs'),
      `import { Reg } from 'elvisor/kvm';
       import { openSoft } from 'elvisor/soft';
       const vm = openSoft({ clock: 'virtual' }).createVm();
       const memory = vm.createMemory(0x10000);
       // mov x0, #0x1234; movz x1, #0x900, lsl #16; str w0, [x1]
       new Uint32Array(memory.bytes.buffer, memory.bytes.byteOffset, 3).set([0xd2824680, 0xd2a12001, 0xb9000020]);
       vm.setUserMemoryRegion({ slot: 0, guestPhysAddr: 0x40000000, memorySize: 0x10000, memory });
       const vcpu = vm.createVcpu(0);
       vcpu.init(vm.getPreferredTarget().target, 0);
       vcpu.setOneReg(Reg.PC, 0x40000000n);
       const { reason, physAddr, len, isWrite, data } = vcpu.run();
       console.log(reason, physAddr.toString(16), len, isWrite, data[0] | (data[1] << 8));`,
    );
    const { stdout, stderr } = await ran(node, ['contract.mjs'], app);
    expect({ stdout, stderr }).toEqual({ stdout: 'mmio 9000000 4 true 4660\n', stderr: '' });
  }, 60_000);

  test('the launcher starts where the working directory has nothing to do with it', async () => {
    const { status, stdout, stderr } = await run(node, [main(), 'run', '--cpus', '0'], tmpdir());
    expect({ status, stdout }).toEqual({ status: 2, stdout: '' });
    expect(stderr).toContain('--cpus');
  }, 60_000);
});
