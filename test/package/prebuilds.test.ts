import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test as jestTest } from '@jest/globals';
import { readElf } from './elf.ts';

/** What `npm run build:prebuilds` writes. */
const PREBUILDS = fileURLToPath(new URL('../../prebuilds/', import.meta.url));
const MACHINES = { 'linux-x64': 62, 'linux-arm64': 183 } as const;
const FILES = Object.keys(MACHINES).flatMap((dir) => ['glibc', 'musl'].map((libc) => ({ dir, libc })));
/** The oldest glibc that Node.js itself runs on. */
const FLOOR = [2, 28] as const;
const C_LIBRARY = /^(lib(c|m|pthread|dl|rt)\.so(\.\d+)?|ld-linux-(x86-64|aarch64)\.so\.\d)$/;

/** With `REQUIRE_PREBUILDS=1`, as in a release, all must be there; else those that are, are judged. */
const REQUIRED = process.env.REQUIRE_PREBUILDS === '1';
const testAll = REQUIRED ? jestTest : jestTest.skip;

describe('the prebuilt addons', () => {
  testAll('are there for every platform, and nothing else is (npm run build:prebuilds)', () => {
    const found = readdirSync(PREBUILDS, { recursive: true, encoding: 'utf8' }).filter((f) => f.endsWith('.node'));
    expect(found.sort()).toEqual(FILES.map(({ dir, libc }) => join(dir, `kvm.${libc}.node`)).sort());
  });

  describe.each(FILES)('$dir, $libc', ({ dir, libc }) => {
    const file = join(PREBUILDS, dir, `kvm.${libc}.node`);
    const test = REQUIRED || existsSync(file) ? jestTest : jestTest.skip;

    test('is of its machine, stripped, and shows Node what it looks up and nobody more', () => {
      const elf = readElf(readFileSync(file));
      expect(elf.machine).toBe(MACHINES[dir as keyof typeof MACHINES]);
      expect(elf.hasSymtab).toBe(false);
      expect([...elf.exported].sort()).toEqual(['napi_register_module_v1', 'node_api_module_get_api_version_v1']);
      expect(statSync(file).size).toBeLessThan(2 ** 20);
    });

    test('needs a C library alone, and none newer than Node needs', () => {
      const { needed, versions } = readElf(readFileSync(file));
      expect(needed.filter((library) => !C_LIBRARY.test(library))).toEqual([]);
      if (libc === 'musl') {
        expect(versions).toEqual([]);
        return;
      }
      expect(versions.length).toBeGreaterThan(0);
      const tooNew = versions.filter((version) => {
        const [, major, minor] = /^GLIBC_(\d+)\.(\d+)(\.\d+)?$/.exec(version) ?? [];
        if (major === undefined) return true;
        return Number(major) > FLOOR[0] || (Number(major) === FLOOR[0] && Number(minor) > FLOOR[1]);
      });
      expect(tooNew).toEqual([]);
    });
  });
});

describe('the reader of ELF', () => {
  jestTest('reads the Node that runs it', () => {
    const elf = readElf(readFileSync(process.execPath));
    expect(Object.values(MACHINES)).toContain(elf.machine);
    expect(elf.exported).toContain('napi_create_object');
    expect(elf.needed.some((library) => /^libc\.so/.test(library))).toBe(true);
  });

  jestTest('refuses what is no ELF file', () => {
    expect(() => readElf(readFileSync(fileURLToPath(import.meta.url)))).toThrow('no ELF64');
  });
});
