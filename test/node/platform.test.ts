import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from '@jest/globals';
import { nodePlatform } from '#lib/node/platform.js';

describe('releaseFile', () => {
  const dir = mkdtempSync(join(tmpdir(), 'elvisor-platform-'));
  afterAll(() => rmSync(dir, { recursive: true, force: true }));

  test('gives the memory of a file that was read back', async () => {
    const path = join(dir, 'file');
    writeFileSync(path, new Uint8Array(1 << 20).fill(7));
    const bytes = await nodePlatform.readFile!(path, 'kernel');
    expect([bytes.length, bytes[5]]).toEqual([1 << 20, 7]);
    nodePlatform.releaseFile!(bytes);
    expect(bytes.length).toBe(0);
  });

  test('leaves a buffer alone that others may have a part of, or another thread', () => {
    const part = new Uint8Array(16).subarray(4, 8);
    const shared = new Uint8Array(new SharedArrayBuffer(16));
    nodePlatform.releaseFile!(part);
    nodePlatform.releaseFile!(shared);
    expect([part.length, shared.length]).toEqual([4, 16]);
  });
});

describe('openFile', () => {
  const dir = mkdtempSync(join(tmpdir(), 'elvisor-platform-'));
  afterAll(() => rmSync(dir, { recursive: true, force: true }));

  test('reads a part of a file into shared memory', async () => {
    const path = join(dir, 'file');
    writeFileSync(
      path,
      new Uint8Array(1000).map((_, i) => i),
    );
    const file = nodePlatform.openFile!(path, 'kernel')!;
    const into = new Uint8Array(new SharedArrayBuffer(100), 10, 50);
    await file.read(into, 500);
    expect([file.size, into[0], into[49]]).toEqual([1000, 500 & 0xff, 549 & 0xff]);
    // It became shorter meanwhile, or has been said to be longer.
    await expect(file.read(into, 990)).rejects.toMatchObject({
      code: 'ERR_FILE',
      message: expect.stringContaining(path),
    });
    file.close();
  });

  test('leaves what is no file to readFile, and says what is not there', async () => {
    const empty = join(dir, 'empty');
    writeFileSync(empty, '');
    expect(nodePlatform.openFile!(empty, 'kernel')).toBeUndefined();
    expect(() => nodePlatform.openFile!(join(dir, 'none'), 'kernel')).toThrow('kernel: there is no file');
  });
});

test('random bytes are all there, and others each time', () => {
  const [a, b] = [new Uint8Array(64), new Uint8Array(64)];
  nodePlatform.random!(a);
  nodePlatform.random!(b);
  expect(a).not.toEqual(b);
  expect(a.subarray(32).some((byte) => byte !== 0)).toBe(true);
});
