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

const paths = (): string[] => readdirSync(dir).map((name) => join(dir, name));
/** The archive's file, and the module's. */
const fileOf = (kind: string): string => paths().find((path) => path.endsWith(kind))!;

test('what is written is there for the next, for this user alone', async () => {
  expect(store.read()).toBeUndefined();
  expect(await store.readModule()).toBeUndefined();
  store.write(archiveOf(3, 4));
  expect(statSync(dir).mode & 0o777).toBe(0o700);
  expect(paths()).toHaveLength(2);
  for (const path of paths()) expect(statSync(path).mode & 0o777).toBe(0o600);
  const next = CodeStore.open(dir)!;
  const archive = next.read()!;
  const { module: _, bytes, imports, shapes, digest } = (await next.readModule())!;
  expect(archive.archive.link()).toEqual(archiveOf(3, 4).link());
  const linked = archiveOf(3, 4).link();
  expect({ bytes, imports, shapes }).toEqual({ ...linked, bytes: linked.bytes.length });
  expect(digest).toBe(archive.digest);
});

test('of two that write, each keeps what the other has', async () => {
  const other = CodeStore.open(dir)!;
  store.write(archiveOf(3, 4));
  other.write(archiveOf(4, 5));
  store.write(archiveOf(6));
  const found = store.read()!;
  expect(found.archive.size).toBe(4);
  expect((await store.readModule())!.digest).toBe(found.digest);
});

test('each build of the engine has files of its own; those that nobody writes for a month go', () => {
  const older = new CodeStore(dir, 'another engine');
  older.write(archiveOf(3));
  const theirs = paths();
  expect(store.read()).toBeUndefined();
  store.write(archiveOf(4));
  expect(paths()).toHaveLength(4);
  expect(older.read()!.archive.size).toBe(1);
  writeFileSync(join(dir, 'notes'), 'of the user');
  for (const path of paths()) utimesSync(path, new Date(), new Date(Date.now() - 31 * DAY_MS));
  store.write(archiveOf(5));
  for (const path of theirs) expect(paths()).not.toContain(path);
  expect(readdirSync(dir)).toContain('notes');
  expect(store.read()!.archive.size).toBe(2);
});

describe.each(['.code', '.wasm'])('a file that is not as it was written (%s)', (kind) => {
  const isAbsent = async (): Promise<boolean> =>
    (kind === '.code' ? store.read() : await store.readModule()) === undefined;
  const isReplaced = async (): Promise<void> => {
    expect(await isAbsent()).toBe(true);
    store.write(archiveOf(7));
    expect(await isAbsent()).toBe(false);
  };

  test('cut off anywhere: as if there were none', async () => {
    store.write(archiveOf(3));
    const whole = readFileSync(fileOf(kind));
    for (let length = 0; length < whole.length; length += 3) {
      writeFileSync(fileOf(kind), whole.subarray(0, length));
      expect(await isAbsent()).toBe(true);
    }
    await isReplaced();
  });

  test('any byte changed: as if there were none', async () => {
    store.write(archiveOf(3));
    const whole = readFileSync(fileOf(kind));
    for (let at = 0; at < whole.length; at += at < 64 ? 1 : 5) {
      const changed = Buffer.from(whole);
      changed[at]! ^= 1 << (at % 8);
      writeFileSync(fileOf(kind), changed);
      expect(await isAbsent()).toBe(true);
    }
    await isReplaced();
  });

  test("another build's, by whatever name: as if there were none", async () => {
    new CodeStore(dir, 'another engine').write(archiveOf(3));
    const theirs = fileOf(kind);
    store.write(archiveOf(4));
    const ours = paths().find((path) => path.endsWith(kind) && path !== theirs)!;
    renameSync(theirs, ours);
    await isReplaced();
  });

  test('too long by far: is not read', async () => {
    store.write(archiveOf(3));
    truncateSync(fileOf(kind), 2 ** 40);
    await isReplaced();
  });

  test.each([0o666, 0o660, 0o602])('writable by others (%o): is not trusted', async (mode) => {
    store.write(archiveOf(3));
    chmodSync(fileOf(kind), mode);
    await isReplaced();
    expect(statSync(fileOf(kind)).mode & 0o777).toBe(0o600);
  });

  test('a link: is not followed, and what it leads to stays', async () => {
    store.write(archiveOf(3));
    const path = fileOf(kind);
    const elsewhere = join(top, 'elsewhere');
    renameSync(path, elsewhere);
    symlinkSync(elsewhere, path);
    const before = readFileSync(elsewhere);
    await isReplaced();
    expect(readFileSync(elsewhere)).toEqual(before);
  });

  test('a directory: is not replaced, and nothing is left behind', async () => {
    store.write(archiveOf(3));
    const path = fileOf(kind);
    rmSync(path);
    mkdirSync(join(path, 'full'), { recursive: true });
    store.write(archiveOf(4));
    expect(await isAbsent()).toBe(true);
    expect(paths()).toHaveLength(2);
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
