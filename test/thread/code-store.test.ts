import { spawn } from 'node:child_process';
import { once } from 'node:events';
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
import { text } from 'node:stream/consumers';
import { afterEach, beforeEach, describe, expect, jest, test } from '@jest/globals';
import { CodeStore } from '#lib/thread/code-store.js';
import { SealedFiles } from '#lib/thread/sealed-files.js';
import { archiveOf } from './archives.ts';
import { built } from './built.ts';

/** The files that compiled code is kept in: whose they must be, and what becomes of one that is not as it should be. */

const DAY_MS = 24 * 3600 * 1000;

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
const filesOf = (part: string): string[] => paths().filter((path) => path.includes(part));
const namesIn = async (from = store): Promise<string[]> => (await from.parts()).map(({ name }) => name).sort();
const CODE = new Uint8Array([1, 2, 3, 4, 5]);

/** Makes a part's files look as if nobody had used them for so long. */
const age = (part: string, ms: number): void => {
  for (const path of filesOf(part)) utimesSync(path, new Date(), new Date(Date.now() - ms));
};

test('what is written is there for the next, for this user alone', async () => {
  expect(await store.parts()).toEqual([]);
  const name = store.add(archiveOf(3, 4))!;
  store.setMachineCode(name, CODE);
  expect(statSync(dir).mode & 0o777).toBe(0o700);
  expect(paths()).toHaveLength(4);
  for (const path of paths()) expect(statSync(path).mode & 0o777).toBe(0o600);
  const next = CodeStore.open(dir)!;
  const { bytes, imports, shapes } = archiveOf(3, 4).link();
  expect(await next.parts()).toEqual([{ name, shapes }]);
  expect(next.module(name)).toEqual({ bytes, imports });
  expect(next.archive(name)!.link().bytes).toEqual(bytes);
  expect(next.machineCode(name)).toEqual(CODE);
});

test('of two that write, neither loses anything, and the same twice is once', async () => {
  const other = CodeStore.open(dir)!;
  const names = [store.add(archiveOf(3, 4)), other.add(archiveOf(5)), store.add(archiveOf(6)), other.add(archiveOf(6))];
  expect(await namesIn()).toEqual([...new Set(names)].sort());
  expect(names[3]).toBe(names[2]);
});

/** Starts a process that, once told to, keeps archives over and over. @param files of archives */
async function startWriter(files: readonly string[]) {
  const program = `
    import { readFileSync } from 'node:fs';
    import { KeptArchive } from ${built('soft/index.js')};
    import { CodeStore } from ${built('thread/code-store.js')};
    const store = CodeStore.open(${JSON.stringify(dir)});
    const archives = ${JSON.stringify(files)}.map((file) => KeptArchive.parse(new Uint8Array(readFileSync(file))));
    console.error('ready');
    process.stdin.once('end', () => {
      const names = new Set();
      for (let i = 0; i < 200; i++) for (const archive of archives) names.add(store.add(archive) ?? 'not written');
      console.log(JSON.stringify([...names]));
    }).resume();`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', program]);
  const output = text(child.stdout);
  const [said] = await once(child.stderr, 'data');
  expect(String(said)).toBe('ready\n');
  return async (): Promise<string[]> => {
    child.stdin.end();
    return JSON.parse(await output) as string[];
  };
}

test('of two processes that write at once, each finds room, and what is read meanwhile is whole', async () => {
  const [one, two, both] = [archiveOf(3, 4), archiveOf(5), archiveOf(6, 7)].map((archive, i) => {
    const file = join(top, `archive-${i}`);
    writeFileSync(file, archive.serialize());
    return file;
  }) as [string, string, string];
  const writers = await Promise.all([startWriter([both, one]), startWriter([both, two])]);
  let isOver = false;
  const writing = Promise.all(writers.map((write) => write())).finally(() => {
    isOver = true;
  });
  // A part that was once there stays, whole, however often it is written again.
  const seen = new Set<string>();
  const broken = new Set<string>();
  while (!isOver) {
    for (const name of await namesIn()) seen.add(name);
    const found = await namesIn();
    for (const name of seen) {
      if (!found.includes(name) || store.module(name) === undefined || store.archive(name) === undefined)
        broken.add(name);
    }
  }
  const [ones, twos] = await writing;
  const names = [...new Set([...ones!, ...twos!])].sort();
  expect(broken).toEqual(new Set());
  expect(names).toHaveLength(3);
  expect(ones).toContain(twos![0]);
  expect(await namesIn()).toEqual(names);
  expect(paths()).toHaveLength(9);
});

test('a part is one only when all of it is written, whoever looks in between', () => {
  const seen: string[][] = [];
  const write = SealedFiles.prototype.write;
  const spy = jest.spyOn(SealedFiles.prototype, 'write').mockImplementation(function (this: SealedFiles, ...given) {
    const isWritten = write.apply(this, given);
    seen.push(paths().map((path) => path.replace(/^.*\./, '')));
    return isWritten;
  });
  try {
    expect(store.add(archiveOf(3, 4))).toBeDefined();
  } finally {
    spy.mockRestore();
  }
  expect(seen).toHaveLength(3);
  for (const kinds of seen.slice(0, 2)) expect(kinds).not.toContain('shapes');
  expect(seen[2]!.toSorted()).toEqual(['code', 'shapes', 'wasm']);
});

test('a part that is removed leaves nothing', async () => {
  const name = store.add(archiveOf(3))!;
  store.setMachineCode(name, CODE);
  store.remove(name);
  expect(paths()).toEqual([]);
  expect(store.module(name)).toBeUndefined();
});

test('each build of the engine has parts of its own', async () => {
  const older = new CodeStore(dir, 'another engine');
  const theirs = older.add(archiveOf(3))!;
  expect(await store.parts()).toEqual([]);
  expect(store.module(theirs)).toBeUndefined();
  const ours = store.add(archiveOf(4))!;
  expect(await namesIn()).toEqual([ours]);
  expect(await namesIn(older)).toEqual([theirs]);
});

test('each V8 has machine code of its own', () => {
  const name = store.add(archiveOf(3))!;
  const other = new CodeStore(dir, 'engine', 'another V8');
  const same = new CodeStore(dir, 'engine');
  other.setMachineCode(name, CODE);
  expect(same.machineCode(name)).toBeUndefined();
  expect(other.machineCode(name)).toEqual(CODE);
  other.setMachineCode(name, undefined);
  expect(other.machineCode(name)).toBeUndefined();
});

test('what nobody uses for a month goes', async () => {
  const older = new CodeStore(dir, 'another engine');
  const [theirs, unused, used] = [older.add(archiveOf(3))!, store.add(archiveOf(4))!, store.add(archiveOf(5))!];
  writeFileSync(join(dir, 'notes'), 'of the user');
  for (const part of [theirs, unused, used, 'notes']) age(part, 29 * DAY_MS);
  store.tidy();
  expect(await namesIn()).toEqual([unused, used].sort());
  for (const part of [theirs, unused, used, 'notes']) age(part, 31 * DAY_MS);
  store.module(used);
  store.tidy();
  expect(await namesIn()).toEqual([used]);
  expect(await namesIn(older)).toEqual([]);
  expect(readdirSync(dir)).toContain('notes');
});

test('beyond the limit, what was not used for longest goes, with its machine code', async () => {
  const parts = [3, 4, 5, 6].map((value) => store.add(archiveOf(value))!);
  for (const part of parts) store.setMachineCode(part, new Uint8Array(10_000));
  const bytes = paths().reduce((sum, path) => sum + statSync(path).size, 0);
  parts.forEach((part, n) => {
    age(part, (10 - n) * 60_000);
  });
  store.module(parts[0]!);
  store.tidy(bytes);
  expect(await namesIn()).toHaveLength(4);
  store.tidy(bytes / 2);
  expect(await namesIn()).toEqual([parts[0]!, parts[3]!].sort());
  for (const part of parts.slice(1, 3)) expect(filesOf(part)).toEqual([]);
});

test('what a writer has not finished goes in time', () => {
  const part = store.add(archiveOf(3))!;
  rmSync(filesOf(part).find((path) => path.endsWith('.shapes'))!);
  store.tidy();
  expect(filesOf(part)).toHaveLength(2);
  age(part, 2 * 3600 * 1000);
  store.tidy();
  expect(filesOf(part)).toEqual([]);
});

describe.each(['shapes', 'wasm', 'code', 'native'])('a file that is not as it was written (%s)', (kind) => {
  let name = '';
  let file = '';
  const writes = (): void => {
    name = store.add(archiveOf(3))!;
    store.setMachineCode(name, CODE);
    file = filesOf(name).find((path) => path.includes(`.${kind}`))!;
  };
  beforeEach(writes);

  const isAbsent = async (): Promise<boolean> => {
    if (kind === 'shapes') return !(await namesIn()).includes(name);
    const found = {
      wasm: () => store.module(name),
      code: () => store.archive(name),
      native: () => store.machineCode(name),
    };
    return found[kind as keyof typeof found]() === undefined;
  };
  const isReplaced = async (): Promise<void> => {
    expect(await isAbsent()).toBe(true);
    writes();
    expect(await isAbsent()).toBe(false);
  };

  test('cut off anywhere: as if there were none', async () => {
    const whole = readFileSync(file);
    for (let length = 0; length < whole.length; length += length < 64 ? 1 : 7) {
      writeFileSync(file, whole.subarray(0, length));
      expect(await isAbsent()).toBe(true);
    }
    await isReplaced();
  });

  test('any byte changed: as if there were none', async () => {
    const whole = readFileSync(file);
    for (let at = 0; at < whole.length; at += at < 64 ? 1 : 5) {
      const changed = Buffer.from(whole);
      changed[at]! ^= 1 << (at % 8);
      writeFileSync(file, changed);
      expect(await isAbsent()).toBe(true);
    }
    await isReplaced();
  });

  test("another part's, or another kind's, by its name: as if there were none", async () => {
    const other = store.add(archiveOf(4))!;
    store.setMachineCode(other, CODE);
    for (const theirs of filesOf(other)) {
      renameSync(theirs, file);
      expect(await isAbsent()).toBe(true);
    }
    await isReplaced();
  });

  test("another build's, by its name: as if there were none", async () => {
    const other = new CodeStore(dir, 'another engine');
    const theirs = other.add(archiveOf(3))!;
    other.setMachineCode(theirs, CODE);
    renameSync(filesOf(theirs).find((path) => path.includes(`.${kind}`) && path !== file)!, file);
    await isReplaced();
  });

  test('too long by far: is not read', async () => {
    truncateSync(file, 2 ** 40);
    await isReplaced();
  });

  test.each([0o666, 0o660, 0o602])('writable by others (%o): is not trusted', async (mode) => {
    chmodSync(file, mode);
    await isReplaced();
    expect(statSync(file).mode & 0o777).toBe(0o600);
  });

  test('a link: is not followed, and what it leads to stays', async () => {
    const elsewhere = join(top, 'elsewhere');
    renameSync(file, elsewhere);
    symlinkSync(elsewhere, file);
    const before = readFileSync(elsewhere);
    await isReplaced();
    expect(readFileSync(elsewhere)).toEqual(before);
  });

  test('a directory: is not replaced, and nothing is left behind', async () => {
    rmSync(file);
    mkdirSync(join(file, 'full'), { recursive: true });
    store.setMachineCode(name, CODE);
    store.add(archiveOf(3));
    expect(await isAbsent()).toBe(true);
    store.remove(name);
    expect(filesOf(name)).toEqual([file]);
    expect(paths()).toEqual([file]);
  });
});

test('a directory that others can write to is not used', () => {
  chmodSync(dir, 0o777);
  expect(CodeStore.open(dir)).toBeUndefined();
});

test('where nothing can be written, nothing is kept, and nobody is told', async () => {
  rmSync(dir, { recursive: true });
  writeFileSync(dir, '');
  expect(store.add(archiveOf(3))).toBeUndefined();
  store.setMachineCode('0'.repeat(32), CODE);
  store.tidy();
  expect(store.smallParts()).toEqual([]);
  expect(await store.parts()).toEqual([]);
});
