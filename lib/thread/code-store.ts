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
  writeFileSync,
} from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { setFlagsFromString } from 'node:v8';
import { threadId } from 'node:worker_threads';
import { engineId, KeptArchive, type KeptModule, parseKeptModule, serializeKeptModule, Wasm } from '../soft/index.js';
import { engineBuild } from './engine-build.js';
import { isPrivate, privateDirectory } from './private-directory.js';

/** First in each file: what it is, and the version of that. */
const MAGIC = Buffer.from('elvisor code 1\n\0', 'latin1');
/** Behind it: SHA-256 of the engine and of everything that follows. */
const DIGEST = 32;
const HEAD = MAGIC.length + DIGEST;
/** Bytes of regions that are kept, about; those that were not used for longest go first. */
const LIMIT = 16 * 2 ** 20;
const MAX_FILE = 2 * LIMIT;
/** Files of other builds of the engine are removed when nobody wrote them for so long. */
const FORGOTTEN_MS = 30 * 24 * 3600 * 1000;

const NAME = /^[0-9a-f]{32}\.(code|wasm)(\.[0-9]+-[0-9]+\.tmp)?$/;

/** An archive as it was found, and which one it is. */
export interface FoundArchive {
  readonly archive: KeptArchive;
  readonly digest: string;
}

/** The module of an archive, compiled, and which one's. */
export interface FoundModule extends Pick<KeptModule, 'imports' | 'shapes'> {
  readonly module: object;
  /** How long it was. */
  readonly bytes: number;
  readonly digest: string;
}

/**
 * Has V8's other threads compile all functions of a module. Where they are compiled when they are first called, as V8 does unless
 * told otherwise, the guest's thread does it, which is an eighth of its work until init.
 */
async function compileWhole(bytes: Uint8Array<ArrayBuffer>): Promise<object> {
  setFlagsFromString('--no-wasm-lazy-compilation');
  try {
    return await Wasm.compile(bytes);
  } finally {
    setFlagsFromString('--wasm-lazy-compilation');
  }
}

/**
 * Where compiled code is kept from one run to the next, in a directory that is the user's own: for each build of the engine an
 * archive, to which regions can be added, and the module that is linked of it, which machines can use as it is.
 */
export class CodeStore {
  readonly #directory: string;
  readonly #engine: string;
  readonly #archive: string;
  readonly #module: string;

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
    this.#archive = join(directory, `${name}.code`);
    this.#module = join(directory, `${name}.wasm`);
  }

  /** What is kept; `undefined` where there is nothing, or nothing to be trusted. */
  read(): FoundArchive | undefined {
    const found = this.#open(readOwn(this.#archive));
    const archive = found === undefined ? undefined : KeptArchive.parse(found);
    return archive === undefined ? undefined : { archive, digest: this.#digest(found!).toString('hex') };
  }

  /** The module of what is kept, without holding up the thread. */
  async readModule(): Promise<FoundModule | undefined> {
    const found = this.#open(await readOwnLater(this.#module));
    if (found === undefined || found.length < DIGEST) return undefined;
    const kept = parseKeptModule(found.subarray(DIGEST));
    if (kept === undefined) return undefined;
    const { bytes, imports, shapes } = kept;
    const digest = Buffer.from(found.subarray(0, DIGEST)).toString('hex');
    // What V8 does not take is as good as absent.
    const module = await compileWhole(bytes).catch(() => undefined);
    return module === undefined ? undefined : { module, imports, shapes, bytes: bytes.length, digest };
  }

  /** Keeps an archive, with what others have kept meanwhile. What can't be written is not kept. */
  write(archive: KeptArchive): void {
    const there = this.read();
    if (there !== undefined) archive.merge(there.archive);
    archive.trim(LIMIT);
    const bytes = archive.serialize();
    const linked = serializeKeptModule(archive.link());
    this.#put(this.#archive, [bytes]);
    this.#put(this.#module, [this.#digest(bytes), linked]);
    this.#removeForgotten();
  }

  #put(path: string, parts: readonly Uint8Array[]): void {
    const temporary = `${path}.${process.pid}-${threadId}.tmp`;
    const rest = Buffer.concat(parts);
    try {
      writeFileSync(temporary, Buffer.concat([MAGIC, this.#digest(rest), rest]), { mode: 0o600 });
      renameSync(temporary, path);
    } catch {
      discard(temporary);
    }
  }

  /** What is behind the head of a file of this engine's. */
  #open(file: Buffer<ArrayBuffer> | undefined): Uint8Array<ArrayBuffer> | undefined {
    if (file === undefined || file.length < HEAD || !file.subarray(0, MAGIC.length).equals(MAGIC)) return undefined;
    const rest = new Uint8Array(file.buffer, file.byteOffset + HEAD, file.length - HEAD);
    return file.subarray(MAGIC.length, HEAD).equals(this.#digest(rest)) ? rest : undefined;
  }

  #digest(bytes: Uint8Array): Buffer {
    return createHash('sha256').update(this.#engine).update('\0').update(bytes).digest();
  }

  #removeForgotten(): void {
    try {
      for (const name of readdirSync(this.#directory)) {
        const path = join(this.#directory, name);
        if (NAME.test(name) && statSync(path).mtimeMs < Date.now() - FORGOTTEN_MS) rmSync(path);
      }
    } catch {
      // Another process was quicker.
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

const READ = constants.O_RDONLY | (constants.O_NOFOLLOW ?? 0);
const isTrusted = (stat: Stats): boolean => stat.isFile() && isPrivate(stat) && stat.size <= MAX_FILE;

/** Reads a file that only this user can have written; `undefined` where there is none. */
function readOwn(path: string): Buffer<ArrayBuffer> | undefined {
  let fd: number | undefined;
  try {
    fd = openSync(path, READ);
    return isTrusted(fstatSync(fd)) ? readFileSync(fd) : undefined;
  } catch {
    return undefined;
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}

/** The same on another thread. */
async function readOwnLater(path: string): Promise<Buffer<ArrayBuffer> | undefined> {
  const file = await open(path, READ).catch(() => undefined);
  try {
    return file !== undefined && isTrusted(await file.stat()) ? await file.readFile() : undefined;
  } catch {
    return undefined;
  } finally {
    await file?.close();
  }
}
