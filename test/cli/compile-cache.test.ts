import { spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import * as module from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';

const MAIN = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));
const CAN_CACHE = 'enableCompileCache' in module;

let dir = '';
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'elvisor-code-'));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

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
