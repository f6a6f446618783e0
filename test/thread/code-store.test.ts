import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { Decoder } from '#lib/soft/a64/decode.js';
import { TABLE } from '#lib/soft/a64/table.js';
import { KeptArchive } from '#lib/soft/index.js';
import { Instructions } from '#lib/soft/jit/instruction.js';
import { compileRegions } from '#lib/soft/jit/region-compiler.js';
import { CodeStore } from '#lib/thread/code-store.js';
import { add, RET } from '../soft/a64.ts';

/** The file that compiled code is kept in: whose it must be, and what becomes of one that is not as it should be. */

const CODE = new Instructions(new Decoder(TABLE));
const DAY_MS = 24 * 3600 * 1000;

/** An archive of regions that add to these registers. */
function archiveOf(...registers: readonly number[]): KeptArchive {
  const archive = new KeptArchive();
  for (const register of registers) {
    const page = {
      word: (index: number) => [add(register, 1, 2), RET][index] ?? 0,
      executed: (index: number) => index < 2,
      isEntry: () => false,
      accessesDevice: () => false,
      guarded: false,
    };
    const { functions, regions } = compileRegions(CODE, [{ page, entry: 0, records: 0, name: '' }], new Set<number>())!;
    for (const { region, body } of regions)
      archive.add({ region, guarded: false, body: body.portable(), importOf: (index) => functions[index]! }, 0);
  }
  return archive;
}

let top = '';
let dir = '';
let store: CodeStore;
beforeEach(() => {
  top = mkdtempSync(join(tmpdir(), 'elvisor-store-'));
  dir = join(top, 'code');
  store = CodeStore.open(dir)!;
});
afterEach(() => rmSync(top, { recursive: true, force: true }));

const file = (): string => join(dir, readdirSync(dir)[0]!);

test('what is written is there for the next, for this user alone', () => {
  expect(store.read()).toBeUndefined();
  store.write(archiveOf(3, 4));
  expect(statSync(dir).mode & 0o777).toBe(0o700);
  expect(statSync(file()).mode & 0o777).toBe(0o600);
  expect(readdirSync(dir)).toHaveLength(1);
  expect(CodeStore.open(dir)!.read()!.link()).toEqual(archiveOf(3, 4).link());
});

test('of two that write, each keeps what the other has', () => {
  const other = CodeStore.open(dir)!;
  store.write(archiveOf(3, 4));
  other.write(archiveOf(4, 5));
  store.write(archiveOf(6));
  expect(store.read()!.size).toBe(4);
});

test('each build of the engine has a file of its own; one that nobody writes for a month goes', () => {
  const older = new CodeStore(dir, 'another engine');
  older.write(archiveOf(3));
  const path = file();
  expect(store.read()).toBeUndefined();
  store.write(archiveOf(4));
  expect(readdirSync(dir)).toHaveLength(2);
  expect(older.read()!.size).toBe(1);
  writeFileSync(join(dir, 'notes'), 'of the user');
  for (const name of readdirSync(dir)) utimesSync(join(dir, name), new Date(), new Date(Date.now() - 31 * DAY_MS));
  store.write(archiveOf(5));
  expect(older.read()).toBeUndefined();
  expect(readdirSync(dir).map((name) => join(dir, name))).not.toContain(path);
  expect(readdirSync(dir)).toContain('notes');
  expect(store.read()!.size).toBe(2);
});

test('the file of another build is none, whatever it is called', () => {
  new CodeStore(dir, 'another engine').write(archiveOf(3));
  const theirs = file();
  store.write(archiveOf(4));
  const ours = readdirSync(dir)
    .map((name) => join(dir, name))
    .find((path) => path !== theirs)!;
  renameSync(theirs, ours);
  expect(store.read()).toBeUndefined();
});

describe('a file that is not as it was written', () => {
  const isReplaced = (): void => {
    expect(store.read()).toBeUndefined();
    store.write(archiveOf(7));
    expect(store.read()!.size).toBe(1);
  };

  test('cut off anywhere: as if there were none', () => {
    store.write(archiveOf(3, 4));
    const whole = readFileSync(file());
    for (let length = 0; length < whole.length; length++) {
      writeFileSync(file(), whole.subarray(0, length));
      expect(store.read()).toBeUndefined();
    }
    isReplaced();
  });

  test('any byte changed: as if there were none', () => {
    store.write(archiveOf(3, 4));
    const whole = readFileSync(file());
    for (let at = 0; at < whole.length; at++) {
      const changed = Buffer.from(whole);
      changed[at]! ^= 1 << (at % 8);
      writeFileSync(file(), changed);
      expect(store.read()).toBeUndefined();
    }
    isReplaced();
  });

  test('too long by far: is not read', () => {
    store.write(archiveOf(3));
    truncateSync(file(), 2 ** 40);
    isReplaced();
  });

  test.each([0o666, 0o660, 0o602])('writable by others (%o): is not trusted', (mode) => {
    store.write(archiveOf(3));
    chmodSync(file(), mode);
    isReplaced();
    expect(statSync(file()).mode & 0o777).toBe(0o600);
  });

  test('a link: is not followed, and what it leads to stays', () => {
    store.write(archiveOf(3));
    const elsewhere = join(top, 'elsewhere');
    renameSync(file(), elsewhere);
    store.write(archiveOf(4));
    const path = file();
    rmSync(path);
    symlinkSync(elsewhere, path);
    const before = readFileSync(elsewhere);
    isReplaced();
    expect(readFileSync(elsewhere)).toEqual(before);
  });

  test('a directory: is not replaced, and nothing is left behind', () => {
    store.write(archiveOf(3));
    const path = file();
    rmSync(path);
    mkdirSync(join(path, 'full'), { recursive: true });
    store.write(archiveOf(4));
    expect(store.read()).toBeUndefined();
    expect(readdirSync(dir)).toHaveLength(1);
  });
});

test('a directory that others can write to is not used', () => {
  chmodSync(dir, 0o777);
  expect(CodeStore.open(dir)).toBeUndefined();
});

test('where nothing can be written, nothing is kept, and nobody is told', () => {
  rmSync(dir, { recursive: true });
  writeFileSync(dir, '');
  store.write(archiveOf(3));
  expect(store.read()).toBeUndefined();
});
