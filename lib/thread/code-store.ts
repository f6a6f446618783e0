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
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { threadId } from 'node:worker_threads';
import { engineId, KeptArchive } from '../soft/index.js';
import { engineBuild } from './engine-build.js';
import { isPrivate, privateDirectory } from './private-directory.js';

/** `elvisor code`, and the format. */
const MAGIC = Buffer.from('elvicode1\n\0\0\0\0\0\0', 'latin1');
/** Behind it: SHA-256 of engine and everything that follows the head. */
const DIGEST = 32;
const HEAD = MAGIC.length + DIGEST;
/** Bytes of regions that a file holds about; those that were not used for longest go first. */
const LIMIT = 16 * 2 ** 20;
/** What one process writes others may have grown a little. */
const MAX_FILE = 2 * LIMIT;
/** Files of other builds of the engine are removed when nobody wrote them for so long. */
const FORGOTTEN_MS = 30 * 24 * 3600 * 1000;

const NAME = /^[0-9a-f]{32}\.code(\.[0-9]+-[0-9]+\.tmp)?$/;

/** Where compiled code is kept from one run to the next: a file for each build of the engine, in a directory that is the user's own. */
export class CodeStore {
  readonly #directory: string;
  readonly #engine: string;
  readonly #file: string;

  /** @returns `undefined` where the directory is not one to be trusted */
  static open(directory: string): CodeStore | undefined {
    const own = privateDirectory(directory);
    return own === undefined ? undefined : new CodeStore(own, `${engineBuild()} ${engineId()}`);
  }

  /** @param engine what tells the engine from every other */
  constructor(directory: string, engine: string) {
    this.#directory = directory;
    this.#engine = engine;
    const name = createHash('sha256').update(engine).digest('hex').slice(0, 32);
    this.#file = join(directory, `${name}.code`);
  }

  /** What is kept; `undefined` where there is nothing, or nothing to be trusted. */
  read(): KeptArchive | undefined {
    const file = readOwn(this.#file);
    if (file === undefined || file.length < HEAD || !file.subarray(0, MAGIC.length).equals(MAGIC)) return undefined;
    const rest = file.subarray(HEAD);
    if (!file.subarray(MAGIC.length, HEAD).equals(this.#digest(rest))) return undefined;
    return KeptArchive.parse(rest);
  }

  /** Keeps an archive, with what others have kept meanwhile. What can't be written is not kept. */
  write(archive: KeptArchive): void {
    const temporary = `${this.#file}.${process.pid}-${threadId}.tmp`;
    try {
      const there = this.read();
      if (there !== undefined) archive.merge(there);
      const bytes = archive.serialize(LIMIT);
      writeFileSync(temporary, Buffer.concat([MAGIC, this.#digest(bytes), bytes]), { mode: 0o600 });
      renameSync(temporary, this.#file);
      this.#removeForgotten();
    } catch {
      discard(temporary);
    }
  }

  #digest(bytes: Uint8Array): Buffer {
    return createHash('sha256').update(this.#engine).update('\0').update(bytes).digest();
  }

  #removeForgotten(): void {
    for (const name of readdirSync(this.#directory)) {
      const path = join(this.#directory, name);
      if (NAME.test(name) && path !== this.#file && statSync(path).mtimeMs < Date.now() - FORGOTTEN_MS) rmSync(path);
    }
  }
}

function discard(path: string): void {
  try {
    rmSync(path, { force: true });
  } catch {
    // Not even its directory is there.
  }
}

/** Reads a file that only this user can have written; `undefined` where there is none. */
function readOwn(path: string): Buffer<ArrayBuffer> | undefined {
  let fd: number | undefined;
  try {
    fd = openSync(path, constants.O_RDONLY | (constants.O_NOFOLLOW ?? 0));
    const stat = fstatSync(fd);
    if (!stat.isFile() || !isPrivate(stat) || stat.size > MAX_FILE) return undefined;
    return readFileSync(fd);
  } catch {
    return undefined;
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}
