import { createHash } from 'node:crypto';
import {
  engineId,
  KeptArchive,
  type KeptModule,
  parseKeptModule,
  parseShapes,
  serializeKeptModule,
} from '../soft/index.js';
import { engineBuild } from './engine-build.js';
import { privateDirectory } from './private-directory.js';
import { type FileInfo, SealedFiles } from './sealed-files.js';
import { startTag } from './v8-flags.js';

/** Bytes of all files of this engine, about; parts that were not used for longest go first. */
const LIMIT = 64 * 2 ** 20;
const MAX_FILE = LIMIT / 2;
/** Files, other builds' too, are removed when nobody used them for so long. */
const FORGOTTEN_MS = 30 * 24 * 3600 * 1000;
/** What a writer that was ended has left is removed when it is so old. */
const UNFINISHED_MS = 3600 * 1000;
/** Bytes of a module below which a part is small. */
const SMALL = 64 * 2 ** 10;

const NAME = /^[0-9a-f]{32}(-[0-9a-f]{32})?\.(shapes|code|wasm|native-[0-9a-f]{16})(\.[0-9]+-[0-9]+\.tmp)?$/;

const isShapes = (file: string): boolean => file.endsWith('.shapes');

const hashOf = (...values: readonly (string | Uint8Array)[]): string => {
  const hash = createHash('sha256');
  for (const value of values) hash.update(value);
  return hash.digest('hex').slice(0, 32);
};

/** A part of what is kept, as it is found. */
export interface StoredPart {
  readonly name: string;
  /** See KeptModule. */
  readonly shapes: Uint32Array;
}

/** The files of a part. */
interface PartFiles {
  readonly name: string;
  readonly files: readonly FileInfo[];
  /** The file that makes it one: it is written last and removed first. */
  readonly shapes: FileInfo | undefined;
  readonly bytes: number;
}

/**
 * Where compiled code is kept from one run to the next, in a directory that is the user's own: for each build of the engine parts,
 * each of some regions. A part never changes, and is named by what is in it: two processes that write at once do not meet. It is four files:
 * the shapes of its regions; the module that is linked of them, which machines can use as it is; V8's machine code of the module, for each
 * V8 that has made some; and the regions as an archive has them, of which other parts can be made.
 */
export class CodeStore {
  readonly #files: SealedFiles;
  readonly #engine: string;
  readonly #machineCode: string;

  /** @returns `undefined` where the directory is not one to be trusted */
  static open(directory: string): CodeStore | undefined {
    const own = privateDirectory(directory);
    return own === undefined ? undefined : new CodeStore(own, `${engineBuild()} ${engineId()}`);
  }

  /**
   * @param engine what tells the engine from every other
   * @param v8 what tells its V8 and the processor from every other
   */
  constructor(directory: string, engine: string, v8 = `${process.version} ${process.versions.v8} ${process.arch}`) {
    this.#engine = hashOf(engine);
    this.#files = new SealedFiles(directory, engine, MAX_FILE);
    this.#machineCode = `native-${hashOf(v8, '\0', startTag()).slice(0, 16)}`;
  }

  /** A file of a part. */
  #nameOf(part: string, kind: string): string {
    return `${this.#engine}-${part}.${kind}`;
  }

  /** The part that a file is of; `undefined` for other engines' files. */
  #partOf(file: string): string | undefined {
    const [, engine, part] = /^([0-9a-f]{32})-([0-9a-f]{32})\./.exec(file) ?? [];
    return engine === this.#engine ? part : undefined;
  }

  /** All parts, without holding up the thread. */
  async parts(): Promise<readonly StoredPart[]> {
    const names = await this.#files.namesLater();
    const found = await Promise.all(
      names.filter(isShapes).map(async (file) => {
        const name = this.#partOf(file);
        const bytes = name === undefined ? undefined : await this.#files.readLater(file);
        const shapes = bytes === undefined ? undefined : parseShapes(bytes);
        return name === undefined || shapes === undefined ? [] : [{ name, shapes }];
      }),
    );
    return found.flat();
  }

  /** The module of a part, which is used from now on. */
  module(part: string): Omit<KeptModule, 'shapes'> | undefined {
    const bytes = this.#files.read(this.#nameOf(part, 'wasm'));
    if (bytes === undefined) return undefined;
    this.#files.touch(this.#nameOf(part, 'shapes'));
    return parseKeptModule(bytes);
  }

  /** The machine code that this V8 has made of a part's module. */
  machineCode(part: string): Uint8Array<ArrayBuffer> | undefined {
    return this.#files.read(this.#nameOf(part, this.#machineCode));
  }

  /** Keeps machine code of a part; `undefined` keeps none any more. */
  setMachineCode(part: string, code: Uint8Array | undefined): void {
    const name = this.#nameOf(part, this.#machineCode);
    if (code === undefined) this.#files.remove(name);
    else this.#files.write(name, code);
  }

  /** What other parts can be made of. */
  archive(part: string): KeptArchive | undefined {
    const bytes = this.#files.read(this.#nameOf(part, 'code'));
    return bytes === undefined ? undefined : KeptArchive.parse(bytes);
  }

  /** Keeps regions as a part. @returns its name; `undefined` where it can't be written */
  add(archive: KeptArchive): string | undefined {
    const code = archive.serialize();
    const module = archive.link();
    const { buffer, byteOffset, byteLength } = module.shapes;
    const part = hashOf(this.#engine, code);
    const isWritten =
      this.#files.write(this.#nameOf(part, 'code'), code) &&
      this.#files.write(this.#nameOf(part, 'wasm'), serializeKeptModule(module)) &&
      this.#files.write(this.#nameOf(part, 'shapes'), new Uint8Array(buffer, byteOffset, byteLength));
    if (isWritten) return part;
    this.remove(part);
    return undefined;
  }

  /** Removes a part. Who has its shapes finds no module. */
  remove(part: string): void {
    for (const kind of ['shapes', 'wasm', 'code', this.#machineCode]) this.#files.remove(this.#nameOf(part, kind));
  }

  /** Parts so small that each is worth less than the files that it is. */
  smallParts(): readonly string[] {
    const isSmall = ({ name, bytes }: FileInfo): boolean => name.endsWith('.wasm') && bytes < SMALL;
    return this.#parts().flatMap(({ name, shapes, files }) =>
      shapes !== undefined && files.some(isSmall) ? [name] : [],
    );
  }

  #parts(all = this.#files.list()): readonly PartFiles[] {
    const byName = new Map<string, FileInfo[]>();
    for (const file of all) {
      const part = this.#partOf(file.name);
      if (part === undefined) continue;
      const files = byName.get(part) ?? [];
      files.push(file);
      byName.set(part, files);
    }
    return [...byName].map(([name, files]) => ({
      name,
      files,
      shapes: files.find((file) => isShapes(file.name)),
      bytes: files.reduce((sum, { bytes }) => sum + bytes, 0),
    }));
  }

  /** Removes what is too much, too old, or was not finished. @param limit of bytes */
  tidy(limit = LIMIT): void {
    const now = Date.now();
    const files = this.#files.list();
    const isForgotten = ({ name, usedMs }: FileInfo): boolean => NAME.test(name) && usedMs < now - FORGOTTEN_MS;
    for (const file of files) if (isForgotten(file)) this.#files.remove(file.name);
    let bytes = 0;
    const usedMs = ({ shapes }: PartFiles): number => shapes?.usedMs ?? 0;
    for (const part of this.#parts(files.filter((file) => !isForgotten(file))).toSorted(
      (a, b) => usedMs(b) - usedMs(a),
    )) {
      const isUnfinished = part.shapes === undefined;
      if (isUnfinished && part.files.some((file) => file.usedMs > now - UNFINISHED_MS)) continue;
      bytes += part.bytes;
      if (!isUnfinished && bytes <= limit) continue;
      bytes -= part.bytes;
      if (part.shapes !== undefined) this.#files.remove(part.shapes.name);
      for (const file of part.files) if (file !== part.shapes) this.#files.remove(file.name);
    }
  }
}
