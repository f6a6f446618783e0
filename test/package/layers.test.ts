import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { builtinModules } from 'node:module';
import { dirname, join, posix } from 'node:path';
import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, test } from '@jest/globals';
import ts from 'typescript';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const MANIFEST = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as {
  readonly dependencies: Readonly<Record<string, string>>;
  readonly exports: Readonly<Record<string, string | { readonly types: string }>>;
};

/** What each room of the house may import from, besides itself: DESIGN.md's "imports run downwards only". */
const LAYERS: Readonly<Record<string, readonly string[]>> = {
  kvm: [],
  host: ['kvm'],
  soft: ['kvm'],
  vmm: ['kvm'],
  thread: ['soft'],
  'backends.ts': ['kvm', 'host', 'soft', 'thread', 'vmm'],
  'open.ts': ['backends.ts', 'kvm', 'host', 'soft', 'thread'],
  guest: ['kvm', 'vmm'],
  node: ['kvm', 'vmm', 'guest', 'backends.ts'],
  'index.ts': ['kvm', 'thread', 'vmm', 'guest', 'node', 'open.ts'],
  cli: ['kvm', 'thread', 'vmm', 'guest', 'node', 'backends.ts', 'open.ts'],
};

/** The same within lib/soft: the processor half knows no ioctl, the kernel half no WebAssembly. The seam is cpu/cpu.ts. */
const SOFT_FORBIDDEN: readonly (readonly [from: RegExp, to: RegExp, but?: RegExp])[] = [
  [/^soft\/(a64|cpu|fp|jit|mmu)\//, /^soft\/kernel\//],
  [/^soft\/kernel\//, /^soft\/(a64|cpu|fp|jit|mmu)\//, /^soft\/cpu\/cpu\.ts$/],
  [/^soft\/fp\//, /^soft\/(a64|cpu|jit|mmu)\//],
  [/^vmm\/devices\//, /^vmm\/(machine|micro-vm|run-loop|thread-loop|turn-loop)\.ts$/],
];

/** Where Node's own modules may be imported. Everything else runs in a browser. */
const ON_NODE: readonly string[] = ['node', 'cli', 'guest', 'host', 'thread'];

/** lib's sources, as paths from lib/. */
const SOURCES = readdirSync(join(ROOT, 'lib'), { recursive: true, encoding: 'utf8' })
  .map((path) => path.replaceAll('\\', '/'))
  .filter((path) => path.endsWith('.ts'))
  .sort();

interface Import {
  /** A path from lib/, or a module's name. */
  readonly to: string;
  readonly relative: boolean;
}

/** Every module that a file names: imports, re-exports, `import()` and the types' `import('…')`. */
function importsIn(file: string, source: string): Import[] {
  return ts.preProcessFile(readFileSync(file, 'utf8'), true, true).importedFiles.map(({ fileName }) => {
    if (!fileName.startsWith('.')) return { to: fileName, relative: false };
    const to = posix.join(posix.dirname(source), fileName).replace(/\.js$/, '.ts');
    return { to, relative: true };
  });
}

const room = (path: string): string => path.split('/')[0]!;

/** What a file imports, in its source and in what the compiler made of it. */
const graph = new Map<string, Import[]>();
/** What is left of that at run time. */
const runtime = new Map<string, string[]>();

beforeAll(() => {
  for (const source of SOURCES) {
    const js = join(ROOT, 'dist', source.replace(/\.ts$/, '.js'));
    const types = js.replace(/\.js$/, '.d.ts');
    const imports = [join(ROOT, 'lib', source), js, types]
      .filter(existsSync)
      .flatMap((file) => importsIn(file, source));
    graph.set(source, imports);
    runtime.set(
      source,
      (existsSync(js) ? importsIn(js, source) : []).filter((i) => i.relative).map((i) => i.to),
    );
  }
});

describe('the layers of the house', () => {
  test('every file of lib/ belongs to a layer and is in the build', () => {
    expect(SOURCES.length).toBeGreaterThan(100);
    expect(SOURCES.filter((source) => LAYERS[room(source)] === undefined)).toEqual([]);
    expect(SOURCES.filter((source) => !existsSync(join(ROOT, 'dist', source.replace(/\.ts$/, '.js'))))).toEqual([]);
  });

  test('imports run downwards only', () => {
    const wrong: string[] = [];
    for (const [source, imports] of graph) {
      for (const { to, relative } of imports) {
        if (!relative || room(to) === room(source)) continue;
        if (!LAYERS[room(source)]!.includes(room(to))) wrong.push(`${source} imports ${to}`);
      }
    }
    expect([...new Set(wrong)]).toEqual([]);
  });

  test('within the software machine, the two halves meet at cpu/cpu.ts alone', () => {
    const wrong: string[] = [];
    for (const [source, imports] of graph) {
      for (const { to } of imports) {
        for (const [from, target, but] of SOFT_FORBIDDEN) {
          if (from.test(source) && target.test(to) && but?.test(to) !== true) wrong.push(`${source} imports ${to}`);
        }
      }
    }
    expect([...new Set(wrong)]).toEqual([]);
  });

  test('what needs a backend loads the software KVM only where that is what it takes', () => {
    const reached = new Set<string>();
    const visit = (source: string): void => {
      if (reached.has(source)) return;
      reached.add(source);
      const js = readFileSync(join(ROOT, 'dist', source.replace(/\.ts$/, '.js')), 'utf8');
      for (const [, name] of js.matchAll(/^(?:import|export)\b[^'"]*\bfrom '(\.[^']+)';$/gm)) {
        visit(posix.join(posix.dirname(source), name!).replace(/\.js$/, '.ts'));
      }
    };
    for (const source of ['cli/run.ts', 'cli/host.ts', 'node/micro-vm.ts']) visit(source);
    expect(reached.has('host/index.ts')).toBe(true);
    expect([...reached].filter((source) => /^(soft|thread)\//.test(source))).toEqual([]);
  });

  test('every relative import names a file', () => {
    const wrong: string[] = [];
    for (const [source, imports] of graph) {
      for (const { to, relative } of imports) if (relative && !graph.has(to)) wrong.push(`${source} imports ${to}`);
    }
    expect(wrong).toEqual([]);
  });
});

describe('what runs in a browser', () => {
  const isBuiltin = (name: string): boolean => name.startsWith('node:') || builtinModules.includes(name);

  test("Node's modules are imported in lib/node, lib/cli, lib/guest and lib/host alone", () => {
    const wrong: string[] = [];
    for (const [source, imports] of graph) {
      if (ON_NODE.includes(room(source))) continue;
      for (const { to, relative } of imports) if (!relative && isBuiltin(to)) wrong.push(`${source} imports ${to}`);
    }
    expect(wrong).toEqual([]);
  });

  test('other packages are those that package.json depends on', () => {
    const names = new Set(
      [...graph.values()]
        .flat()
        .filter((i) => !i.relative && !isBuiltin(i.to))
        .map((i) => i.to),
    );
    expect([...names].sort()).toEqual(Object.keys(MANIFEST.dependencies).sort());
  });

  test('the entries ./kvm, ./soft and ./fdt reach no module of Node', () => {
    for (const entry of ['./kvm', './soft', './fdt']) {
      const target = MANIFEST.exports[entry];
      if (typeof target !== 'object') throw new Error(`package.json has no entry ${entry}`);
      const seen = new Set<string>();
      const queue = [target.types.replace('./dist/', '').replace(/\.d\.ts$/, '.ts')];
      for (let source = queue.pop(); source !== undefined; source = queue.pop()) {
        if (seen.has(source)) continue;
        seen.add(source);
        const imports = graph.get(source);
        if (imports === undefined) throw new Error(`${entry} reaches ${source}, which is not there`);
        expect(imports.filter((i) => !i.relative && isBuiltin(i.to))).toEqual([]);
        queue.push(...(runtime.get(source) ?? []));
      }
      expect(seen.size).toBeGreaterThan(1);
    }
  });

  test('lib/kvm, lib/soft and lib/vmm name nothing that only Node has', () => {
    const files = SOURCES.filter((source) => ['kvm', 'soft', 'vmm'].includes(room(source)));
    const program = ts.createProgram(
      files.map((source) => join(ROOT, 'lib', source)),
      {
        target: ts.ScriptTarget.ES2023,
        module: ts.ModuleKind.NodeNext,
        moduleResolution: ts.ModuleResolutionKind.NodeNext,
        lib: ['lib.es2023.d.ts', 'lib.esnext.disposable.d.ts', 'lib.webworker.d.ts'],
        types: [],
        strict: true,
        skipLibCheck: true,
        noEmit: true,
      },
    );
    // "Cannot find name", "module", "namespace", with or without a hint at what would bring it.
    const unknown = new Set([2304, 2307, 2503, 2552, 2580, 2582, 2583, 2584, 2591]);
    const found = program
      .getSemanticDiagnostics()
      .filter((d) => unknown.has(d.code))
      .map((d) => `${d.file?.fileName.slice(ROOT.length)}: ${ts.flattenDiagnosticMessageText(d.messageText, ' ')}`);
    expect(found).toEqual([]);
    expect(dirname(program.getSourceFiles().at(-1)!.fileName).startsWith(ROOT)).toBe(true);
  }, 120_000);
});
