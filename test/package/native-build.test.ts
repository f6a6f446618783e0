import { readdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import vm from 'node:vm';
import { expect, test } from '@jest/globals';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const read = (file: string): string => readFileSync(join(ROOT, file), 'utf8');

interface Target {
  readonly sources: readonly string[];
  readonly defines: readonly string[];
  readonly cflags_cc: readonly string[];
  readonly ldflags: readonly string[];
}

/** The target of Linux in binding.gyp: Python's syntax, of which comments are the only part that JavaScript does not have. */
function gypTarget(): Target {
  const gyp = vm.runInNewContext(`(${read('binding.gyp').replace(/^(\s*)#.*$|\s+# .*$/gm, '')})`);
  return JSON.parse(JSON.stringify(gyp.targets[0].conditions[0][1]));
}

/** The words of a command of CMakeLists.txt whose arguments begin with `head`. */
function cmake(command: string, head: string): string[] {
  const text = read('CMakeLists.txt').replace(/#.*$/gm, '');
  const calls = [...text.matchAll(/(\w+)\(([^()]*(?:\([^()]*\)[^()]*)*)\)/g)];
  const found = calls.find(([, name, words]) => name === command && words!.trim().startsWith(head));
  if (found === undefined) throw new Error(`CMakeLists.txt has no ${command}(${head} …)`);
  return found[2]!.trim().slice(head.length).trim().split(/\s+/);
}

const sorted = (words: Iterable<string>): string[] => [...words].sort();
/** What a file's own build system has to be told in its own way, and is the same. */
const without = (words: readonly string[], own: readonly string[]): string[] => {
  for (const word of own) expect(words).toContain(word);
  return sorted(words.filter((word) => !own.includes(word)));
};

const gyp = gypTarget();

test('binding.gyp names every source of native/, and CMakeLists.txt takes them all', () => {
  const there = readdirSync(join(ROOT, 'native'))
    .filter((name) => name.endsWith('.cc'))
    .map((name) => `native/${name}`);
  expect(sorted(gyp.sources)).toEqual(sorted(there));
  expect(cmake('file', 'GLOB SOURCES')).toEqual(['CONFIGURE_DEPENDS', 'native/*.cc']);
});

test('both define the same', () => {
  // node-gyp defines the module's name itself, and a target of node-addon-api what turns exceptions off.
  const own = ['NODE_GYP_MODULE_NAME=kvm', 'NODE_ADDON_API_DISABLE_CPP_EXCEPTIONS'];
  expect(without(cmake('target_compile_definitions', 'kvm PRIVATE'), own)).toEqual(sorted(gyp.defines));
  const addonApi = createRequire(import.meta.url).resolve('node-addon-api/package.json');
  const targets = readFileSync(join(addonApi, '../node_addon_api.gyp'), 'utf8');
  expect(targets).toMatch(/'target_name': 'node_addon_api',[^}]*'noexcept\.gypi'/);
});

test('both compile and link with the same flags', () => {
  // Node's own flags, which node-gyp adds, have no exceptions and no RTTI.
  const own = ['-fno-exceptions', '-fno-rtti'];
  // What CMake has properties for.
  const properties = ['-std=c++20', '-fvisibility=hidden'];
  expect(read('CMakeLists.txt')).toMatch(
    /CXX_STANDARD 20 CXX_STANDARD_REQUIRED ON CXX_EXTENSIONS OFF CXX_VISIBILITY_PRESET hidden/,
  );
  expect(without(cmake('target_compile_options', 'kvm PRIVATE'), own)).toEqual(without(gyp.cflags_cc, properties));
  const link = gyp.ldflags.map((flag) => flag.replace('<(module_root_dir)', '$' + '{CMAKE_SOURCE_DIR}'));
  expect(sorted(cmake('target_link_options', 'kvm PRIVATE'))).toEqual(sorted(link));
});
