import { chmodSync, mkdirSync, mkdtempSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { privateDirectory } from '#lib/thread/private-directory.js';

/** Directories with code that is run. */

let dir = '';
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'elvisor-code-'));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

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
