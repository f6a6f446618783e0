import { KeptArchive, type KeptReply, type NewRegion, Wasm } from '../soft/index.js';
import type { CodeStore } from './code-store.js';

/** What is new is written after so long, and then after twice as long each time, up to the second: programs end when they like. */
const FIRST_SAVE_MS = 1000;
const LAST_SAVE_MS = 60_000;
/** An archive of so many bytes is written for the times of use alone, which say what is dropped first. */
const CROWDED = 8 * 2 ** 20;

const minutes = (): number => Math.floor(Date.now() / 60_000);

/** Keeps what a thread compiles in a {@link CodeStore}, and has what was kept before ready for machines. */
export class CodeKeeper {
  readonly #store: CodeStore;
  readonly #archive: KeptArchive;
  readonly #used: Uint8Array;
  /** What machines are sent; `undefined` where nothing was kept. */
  readonly reply: KeptReply | undefined;
  #hasNew = false;
  #timer: NodeJS.Timeout | undefined;
  #delay = FIRST_SAVE_MS;

  constructor(store: CodeStore) {
    this.#store = store;
    const found = store.read();
    this.#used = new Uint8Array(new SharedArrayBuffer(found?.size ?? 0));
    this.reply = found === undefined || found.size === 0 ? undefined : replyOf(found, this.#used);
    // What V8 does not take is replaced.
    this.#archive = this.reply === undefined ? new KeptArchive() : found!;
  }

  add(region: NewRegion): void {
    if (!this.#archive.add(region, minutes())) return;
    this.#hasNew = true;
    if (this.#timer !== undefined) return;
    this.#timer = setTimeout(() => this.save(), this.#delay).unref();
    this.#delay = Math.min(this.#delay * 2, LAST_SAVE_MS);
  }

  /** Writes what is new. */
  save(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (!this.#hasNew && this.#archive.bytes < CROWDED) return;
    this.#hasNew = false;
    this.#archive.markUsed(this.#used, minutes());
    this.#store.write(this.#archive);
  }
}

function replyOf(archive: KeptArchive, used: Uint8Array): KeptReply | undefined {
  const { bytes, imports, shapes } = archive.link();
  try {
    return { module: new Wasm.Module(bytes), imports, shapes, used };
  } catch {
    return undefined;
  }
}
