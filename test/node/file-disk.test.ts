import { chmodSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { DiskError, openFileDisk } from '#lib/node/file-disk.js';

let dir: string;
let image: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'elvisor-disk-'));
  image = join(dir, 'disk.img');
  writeFileSync(
    image,
    Uint8Array.from({ length: 4096 }, (_, i) => i >>> 4),
  );
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

const truncated = (size: number): string => {
  truncateSync(image, size);
  return image;
};

const failure = (act: () => unknown): DiskError => {
  try {
    act();
  } catch (error) {
    expect(error).toBeInstanceOf(DiskError);
    return error as DiskError;
  }
  throw new Error('nothing was thrown');
};

describe('a file as a disk', () => {
  test('is read, written, flushed, and there again', async () => {
    const disk = openFileDisk(image);
    expect([disk.capacity, disk.readOnly]).toEqual([4096, false]);
    const sector = new Uint8Array(512);
    disk.read(512, sector);
    expect(sector[0]).toBe(32);
    disk.write(1024, sector.fill(0xee));
    expect(disk.flush()).toBeUndefined();
    disk.close();
    disk.close();
    expect(
      readFileSync(image)
        .subarray(1024, 1536)
        .every((byte) => byte === 0xee),
    ).toBe(true);
    const again = openFileDisk(image, { asyncFlush: true });
    again.read(1024, sector.fill(0));
    expect(sector[511]).toBe(0xee);
    const flush = again.flush();
    again.close(); // while the flush is under way
    await expect(flush).resolves.toBeUndefined();
  });

  test('fills memory that is shared, as guest RAM may be', () => {
    const disk = openFileDisk(image, { readOnly: true });
    const ram = new Uint8Array(new SharedArrayBuffer(1024)).subarray(256, 768);
    disk.read(512, ram);
    expect(ram[16]).toBe(33);
    disk.close();
  });

  test('read-only takes no writes, and needs no permission to', () => {
    chmodSync(image, 0o444);
    const disk = openFileDisk(image, { readOnly: true });
    expect(disk.readOnly).toBe(true);
    expect(failure(() => disk.write(0, new Uint8Array(512))).code).toBe('ERR_DISK_NOT_WRITABLE');
    expect(disk.flush()).toBeUndefined();
    disk.close();
  });

  test('an overlay is writable and leaves the file as it is', () => {
    const before = readFileSync(image);
    const disk = openFileDisk(image, { overlay: true });
    expect(disk.readOnly).toBe(false);
    disk.write(0, new Uint8Array(512).fill(1));
    const sector = new Uint8Array(512);
    disk.read(0, sector);
    expect(sector[5]).toBe(1);
    disk.close();
    expect(readFileSync(image)).toEqual(before);
  });

  const refused: [name: string, code: string, message: RegExp, path: () => string][] = [
    ['a missing file', 'ERR_DISK_NOT_FOUND', /no such file/, () => join(dir, 'none.img')],
    ['a path through a file', 'ERR_DISK_NOT_FOUND', /no such file/, () => join(image, 'x')],
    ['a directory', 'ERR_DISK_NOT_A_FILE', /is a directory/, () => dir],
    ['a device', 'ERR_DISK_NOT_A_FILE', /not a regular file/, () => '/dev/null'],
    [
      'a file of odd size',
      'ERR_DISK_SIZE',
      /4095 bytes are not a multiple of 512.*truncate -s 4096/,
      () => truncated(4095),
    ],
    ['an empty file', 'ERR_DISK_SIZE', /is empty.*truncate/, () => truncated(0)],
  ];
  test.each(refused)('%s is refused, with and without writing', (_, code, message, path) => {
    const file = path();
    for (const readOnly of [true, false]) {
      const error = failure(() => openFileDisk(file, { readOnly }));
      expect(error.code).toBe(code);
      expect(error.message).toMatch(message);
      expect(error.message).toContain(file);
    }
  });

  test('a file that may not be written, or read, is refused, with the way out', () => {
    // root may do anything: be nobody for a moment.
    const root = process.geteuid?.() === 0;
    chmodSync(dir, 0o755);
    chmodSync(image, 0o444);
    try {
      if (root) process.seteuid?.(65534);
      const error = failure(() => openFileDisk(image));
      expect(error.code).toBe('ERR_DISK_NOT_WRITABLE');
      expect(error.message).toMatch(/read-only \(ro\).*overlay/);
      openFileDisk(image, { readOnly: true }).close();
      openFileDisk(image, { overlay: true }).close();
      if (root) process.seteuid?.(0);
      chmodSync(image, 0o000);
      if (root) process.seteuid?.(65534);
      expect(failure(() => openFileDisk(image, { readOnly: true })).code).toBe('ERR_DISK_NOT_READABLE');
    } finally {
      if (root) process.seteuid?.(0);
    }
  });

  test('a file that shrinks while in use is an I/O error', () => {
    const disk = openFileDisk(image);
    truncateSync(image, 1024);
    const error = failure(() => disk.read(512, new Uint8Array(1024)));
    expect([error.code, error.message]).toEqual(['ERR_DISK_IO', expect.stringContaining('truncated')]);
    disk.close();
    expect(failure(() => disk.read(0, new Uint8Array(512))).message).toContain('is closed');
    expect(failure(() => disk.flush()).message).toContain('is closed');
  });

  test('refuses ranges outside the disk', () => {
    const disk = openFileDisk(image);
    expect(() => disk.read(4096, new Uint8Array(1))).toThrow(RangeError);
    expect(() => disk.write(-512, new Uint8Array(512))).toThrow(RangeError);
    disk.close();
  });
});
