import { KeptArchive, type NewRegion } from '../soft/index.js';
import type { CodeStore } from './code-store.js';

/** What is new is written after so long, and then after twice as long each time, up to the second: programs end when they like. */
const FIRST_SAVE_MS = 1000;
const LAST_SAVE_MS = 60_000;

const minutes = (): number => Math.floor(Date.now() / 60_000);

/** What a machine uses of an archive. */
export interface Use {
  /** Which archive. */
  readonly digest: string;
  /** A byte for each of its regions, other than 0 where it is used; the machine goes on setting them. */
  readonly used: Uint8Array;
  /** So much is kept that the times of use are worth writing alone: they say what is dropped first. */
  readonly isCrowded: boolean;
}

/** Keeps what a thread compiles in a {@link CodeStore}. */
export class CodeKeeper {
  readonly #store: CodeStore;
  #added: KeptArchive | undefined;
  readonly #uses: Use[] = [];
  #timer: NodeJS.Timeout | undefined;
  #delay = FIRST_SAVE_MS;

  constructor(store: CodeStore) {
    this.#store = store;
  }

  /** Has the times of use be kept. */
  use(use: Use): void {
    this.#uses.push(use);
  }

  add(region: NewRegion): void {
    this.#added ??= new KeptArchive();
    this.#added.add(region, minutes());
    if (this.#timer !== undefined) return;
    this.#timer = setTimeout(() => this.save(), this.#delay).unref();
    this.#delay = Math.min(this.#delay * 2, LAST_SAVE_MS);
  }

  /** Writes what is new. */
  save(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const added = this.#added;
    this.#added = undefined;
    if (added === undefined && !this.#uses.some(({ isCrowded }) => isCrowded)) return;
    const found = this.#store.read();
    const archive = found?.archive ?? new KeptArchive();
    for (const { digest, used } of this.#uses) if (digest === found?.digest) archive.markUsed(used, minutes());
    if (added !== undefined) archive.merge(added);
    this.#store.write(archive);
  }
}
