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
