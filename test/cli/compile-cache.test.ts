import { spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import * as module from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { privateDirectory } from '#lib/cli/compile-cache.js';

const MAIN = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));
const CAN_CACHE = 'enableCompileCache' in module;

let dir = '';
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'elvisor-code-'));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

describe('a directory for compiled code', () => {
  test('is made where it is missing, for its user alone', () => {
    const path = join(dir, 'elvisor', 'code');
    expect(privateDirectory(path)).toBe(path);
    expect(statSync(path).mode & 0o777).toBe(0o700);
    expect(privateDirectory(path)).toBe(path);
  });

  test.each([0o777, 0o770, 0o702])('is not used where others may write it (%o)', (mode) => {
    const path = join(dir, 'code');
    mkdirSync(path);
    chmodSync(path, mode);
    expect(privateDirectory(path)).toBeUndefined();
  });

  test('is neither a link nor a file, and not below one', () => {
    mkdirSync(join(dir, 'real'), { mode: 0o700 });
    symlinkSync(join(dir, 'real'), join(dir, 'link'));
    writeFileSync(join(dir, 'file'), '');
    for (const name of ['link', 'file', 'file/code']) expect(privateDirectory(join(dir, name))).toBeUndefined();
  });
});

describe('elvisor', () => {
  const version = (env: Record<string, string>) => {
    const { NODE_COMPILE_CACHE: _, NODE_DISABLE_COMPILE_CACHE: __, ...rest } = process.env;
    return spawnSync(process.execPath, [MAIN, '--version'], { env: { ...rest, ...env }, encoding: 'utf8' });
  };
  const kept = (): string[] => readdirSync(dir, { recursive: true, encoding: 'utf8' });

  (CAN_CACHE ? test : test.skip)('keeps compiled code in the cache directory (Node 22.1 and later)', () => {
    expect(version({ XDG_CACHE_HOME: dir }).status).toBe(0);
    expect(kept().filter((path) => /^elvisor\/code\/[^/]+\/[^/]+$/.test(path)).length).toBeGreaterThan(0);
  });

  test('keeps none where others could change it, and where the user says so', () => {
    mkdirSync(join(dir, 'elvisor', 'code'), { recursive: true });
    chmodSync(join(dir, 'elvisor', 'code'), 0o777);
    expect(version({ XDG_CACHE_HOME: dir }).status).toBe(0);
    chmodSync(join(dir, 'elvisor', 'code'), 0o700);
    expect(version({ XDG_CACHE_HOME: dir, NODE_DISABLE_COMPILE_CACHE: '1' }).status).toBe(0);
    expect(kept()).toEqual(['elvisor', join('elvisor', 'code')]);
  });

  test('starts where the cache directory cannot be made', () => {
    writeFileSync(join(dir, 'file'), '');
    const { status, stderr } = version({ XDG_CACHE_HOME: join(dir, 'file') });
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  });
});
