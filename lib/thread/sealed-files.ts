import { createHash } from 'node:crypto';
import {
  closeSync,
  constants,
  fstatSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  type Stats,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { open, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { threadId } from 'node:worker_threads';
import { isPrivate } from './private-directory.js';

/** First in each file: what it is, and the version of that. */
const MAGIC = Buffer.from('elvisor code 2\n\0', 'latin1');
/** Behind it: SHA-256 of who wrote it, the file's name, and everything that follows. */
const DIGEST = 32;
const HEAD = MAGIC.length + DIGEST;

const READ = constants.O_RDONLY | (constants.O_NOFOLLOW ?? 0);

/** A file as it was found. */
export interface FileInfo {
  readonly name: string;
  readonly bytes: number;
  /** When it was written or {@link SealedFiles.touch}ed last, in milliseconds since 1970. */
  readonly usedMs: number;
}

/**
 * Files in a directory of the user's own. What is read from one is what was written under that very name, by the same engine: anything
 * else is as good as absent, as is a file that somebody else could have written.
 */
export class SealedFiles {
  readonly #directory: string;
  readonly #writer: string;
  readonly #maxBytes: number;

  /**
   * @param directory as `privateDirectory` answers it
   * @param writer what tells who writes the files from every other
   * @param maxBytes longer files are not read
   */
  constructor(directory: string, writer: string, maxBytes: number) {
    this.#directory = directory;
    this.#writer = writer;
    this.#maxBytes = maxBytes;
  }

  /** The names of all files, others' too. */
  async namesLater(): Promise<readonly string[]> {
    return readdir(this.#directory).catch(() => []);
  }

  /** All files, others' too. */
  list(): readonly FileInfo[] {
    try {
      return readdirSync(this.#directory).flatMap((name) => this.#infoOf(name));
    } catch {
      return [];
    }
  }

  #infoOf(name: string): FileInfo[] {
    try {
      const { size, mtimeMs } = statSync(join(this.#directory, name));
      return [{ name, bytes: size, usedMs: mtimeMs }];
    } catch {
      // Another process was quicker to remove it.
      return [];
    }
  }

  /** What was written under a name; `undefined` where there is nothing, or nothing to be trusted. */
  read(name: string): Uint8Array<ArrayBuffer> | undefined {
    let fd: number | undefined;
    try {
      fd = openSync(join(this.#directory, name), READ);
      return this.#isTrusted(fstatSync(fd)) ? this.#open(name, readFileSync(fd)) : undefined;
    } catch {
      return undefined;
    } finally {
      if (fd !== undefined) closeSync(fd);
    }
  }

  /** The same without holding up the thread. */
  async readLater(name: string): Promise<Uint8Array<ArrayBuffer> | undefined> {
    const file = await open(join(this.#directory, name), READ).catch(() => undefined);
    try {
      return file !== undefined && this.#isTrusted(await file.stat())
        ? this.#open(name, await file.readFile())
        : undefined;
    } catch {
      return undefined;
    } finally {
      await file?.close();
    }
  }

  #isTrusted(stat: Stats): boolean {
    return stat.isFile() && isPrivate(stat) && stat.size <= this.#maxBytes;
  }

  /** What is behind the head of a file. */
  #open(name: string, file: Buffer<ArrayBuffer>): Uint8Array<ArrayBuffer> | undefined {
    if (file.length < HEAD || !file.subarray(0, MAGIC.length).equals(MAGIC)) return undefined;
    const rest = new Uint8Array(file.buffer, file.byteOffset + HEAD, file.length - HEAD);
    return file.subarray(MAGIC.length, HEAD).equals(this.#digest(name, rest)) ? rest : undefined;
  }

  #digest(name: string, bytes: Uint8Array): Buffer {
    return createHash('sha256').update(`${this.#writer}\0${name}\0`).update(bytes).digest();
  }

  /** Writes a file whole or not at all, beside what may be there and then in its place. @returns whether it could be written */
  write(name: string, bytes: Uint8Array): boolean {
    const path = join(this.#directory, name);
    const temporary = `${path}.${process.pid}-${threadId}.tmp`;
    try {
      writeFileSync(temporary, Buffer.concat([MAGIC, this.#digest(name, bytes), bytes]), { mode: 0o600 });
      renameSync(temporary, path);
      return true;
    } catch {
      remove(temporary);
      return false;
    }
  }

  /** Notes that a file is used. */
  touch(name: string): void {
    try {
      const now = new Date();
      utimesSync(join(this.#directory, name), now, now);
    } catch {
      // It is gone, or others have to say.
    }
  }

  remove(name: string): void {
    remove(join(this.#directory, name));
  }
}

function remove(path: string): void {
  try {
    rmSync(path, { force: true });
  } catch {
    // A directory, or not even its directory is there.
  }
}
