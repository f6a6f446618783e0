import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, readlinkSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import {
  type CpioEntry,
  CpioType,
  charDevice,
  directory,
  file,
  readCpio,
  symlink,
  writeCpio,
} from '#lib/guest/cpio.js';
import { VmError } from '#lib/vmm/errors.js';
import { withPrograms } from '../oracle.ts';

const tree = [
  directory('bin'),
  file('bin/tool', 'hello', 0o755),
  symlink('bin/sh', 'tool'),
  charDevice('dev-console', 5, 1),
  file('empty', ''),
];

describe('writeCpio', () => {
  withPrograms('cpio')('cpio unpacks it', () => {
    const dir = mkdtempSync(join(tmpdir(), 'elvisor-cpio-'));
    try {
      const listed = spawnSync('cpio', ['-itv', '--quiet', '-n'], { input: writeCpio(tree), encoding: 'utf8' });
      expect(listed.status).toBe(0);
      expect(listed.stdout).toMatch(/^crw-------\s+1\s+0\s+0\s+5,\s+1 .* dev-console$/m);
      const unpacked = spawnSync('cpio', ['-idm', '--quiet', 'bin/*', 'empty'], {
        input: writeCpio(tree),
        cwd: dir,
        encoding: 'utf8',
      });
      expect([unpacked.stderr, unpacked.status]).toEqual(['', 0]);
      expect(readFileSync(join(dir, 'bin/tool'), 'utf8')).toBe('hello');
      expect(statSync(join(dir, 'bin/tool')).mode & 0o777).toBe(0o755);
      expect(readlinkSync(join(dir, 'bin/sh'))).toBe('tool');
      expect(statSync(join(dir, 'empty')).size).toBe(0);
    } finally {
      rmSync(dir, { recursive: true });
    }
  });

  withPrograms('cpio')('what cpio packs is read', () => {
    const dir = mkdtempSync(join(tmpdir(), 'elvisor-cpio-'));
    try {
      spawnSync('sh', ['-c', 'mkdir d; printf abc >d/f; ln -s f d/l; chmod 640 d/f'], { cwd: dir });
      const packed = spawnSync('cpio', ['-o', '-H', 'newc', '--quiet'], { input: 'd\nd/f\nd/l\n', cwd: dir });
      const entries = readCpio(new Uint8Array(packed.stdout));
      expect(entries.map(({ name }) => name)).toEqual(['d', 'd/f', 'd/l']);
      expect(entries[0]!.mode & CpioType.MASK).toBe(CpioType.DIRECTORY);
      expect(entries[1]).toMatchObject({ mode: CpioType.FILE | 0o640, data: new TextEncoder().encode('abc') });
      expect(new TextDecoder().decode(entries[2]!.data)).toBe('f');
    } finally {
      rmSync(dir, { recursive: true });
    }
  });

  test('is the same every time', () => {
    expect(writeCpio(tree)).toEqual(writeCpio(tree));
  });

  test.each<[string, CpioEntry[], RegExp]>([
    ['an empty name', [file('', '')], /"" is no name/],
    ['an absolute name', [file('/a', '')], /"\/a" is no name/],
    ['a NUL', [file('a\0b', '')], /is no name/],
    ['the trailer', [file('TRAILER!!!', '')], /would end the archive/],
    ['a long name', [file('a'.repeat(4096), '')], /longer than 4095/],
    ['a name twice', [file('a', ''), directory('a')], /there twice/],
    ['a large number', [{ ...file('a', ''), mtime: 2 ** 32 }], /4294967296 does not fit/],
    ['a negative number', [{ ...file('a', ''), uid: -1 }], /-1 does not fit/],
  ])('refuses %s', (_, entries, message) => {
    expect(() => writeCpio(entries)).toThrow(
      expect.objectContaining({ code: 'ERR_CPIO_WRITE', message: expect.stringMatching(message) }),
    );
  });
});

describe('readCpio', () => {
  const archive = writeCpio(tree);
  /** The archive with one header field (0 is ino, 6 filesize, 11 namesize) of its first entry replaced. */
  const field = (index: number, value: string) => {
    const bytes = archive.slice();
    bytes.set(new TextEncoder().encode(value), 6 + 8 * index);
    return bytes;
  };

  test.each<[string, Uint8Array, RegExp]>([
    ['nothing', new Uint8Array(0), /at byte 0: the archive ends without its trailer/],
    ['an archive without its trailer', archive.subarray(0, archive.length - 124), /without its trailer/],
    ['another format', new TextEncoder().encode('070707'.padEnd(200, '0')), /no newc header/],
    ['a number that is none', field(6, '0000000g'), /no newc header/],
    ['a sign in a number', field(6, '-0000001'), /no newc header/],
    ['a name of 0 bytes', field(11, '00000000'), /a name of 0 bytes/],
    ['a name of 4 GiB', field(11, 'ffffffff'), /a name of 4294967295 bytes/],
    ['a name over the end', field(11, '00001000'), /reaches? over the archive's end|does not end/],
    ['a name without its NUL', field(11, '00000003'), /does not end with a NUL/],
    ['a file of 4 GiB', field(6, 'ffffffff'), /4294967295 bytes reach over/],
  ])('refuses %s', (_, bytes, message) => {
    expect(() => readCpio(bytes)).toThrow(
      expect.objectContaining({ code: 'ERR_CPIO_FORMAT', message: expect.stringMatching(message) }),
    );
  });

  test('whatever entries: read back as they were written', () => {
    const entry = fc.record({
      name: fc.stringMatching(/^[a-zA-Zäé._-][a-zA-Z0-9äé/ ._-]{0,30}$/),
      mode: fc.integer({ min: 0, max: 0o177777 }),
      data: fc.uint8Array({ maxLength: 50 }),
      uid: fc.integer({ min: 0, max: 0xffff_ffff }),
      gid: fc.nat(),
      mtime: fc.nat(),
      rdev: fc.tuple(fc.nat(), fc.nat()),
    });
    fc.assert(
      fc.property(fc.uniqueArray(entry, { selector: ({ name }) => name, maxLength: 6 }), (entries) => {
        expect(readCpio(writeCpio(entries as CpioEntry[]))).toEqual(entries);
      }),
      { numRuns: 300 },
    );
  });

  test('whatever bytes: entries or a VmError', () => {
    const edits = fc.array(
      fc.tuple(
        fc.nat(archive.length - 1),
        fc.oneof(fc.integer({ min: 0, max: 255 }), fc.constantFrom(0x30, 0x31, 0x46)),
      ),
      { maxLength: 6 },
    );
    fc.assert(
      fc.property(edits, fc.option(fc.nat(archive.length)), (changes, cut) => {
        const bytes = archive.slice(0, cut ?? undefined);
        for (const [at, value] of changes) if (at < bytes.length) bytes[at] = value;
        try {
          for (const { data } of readCpio(bytes)) expect(data.buffer).toBe(bytes.buffer);
        } catch (error) {
          if (!VmError.is(error, 'ERR_CPIO_FORMAT')) throw error;
        }
      }),
      { numRuns: 1000 },
    );
  });
});
