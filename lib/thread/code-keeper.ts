import { KeptArchive, type NewRegion, regionHash } from '../soft/index.js';
import type { CodeStore } from './code-store.js';

/** What is new is written after so long, and then after twice as long each time, up to the second: programs end when they like. */
const FIRST_SAVE_MS = 1000;
const LAST_SAVE_MS = 60_000;
/** Bytes of regions in a part, about: V8 takes its machine code in a millisecond or two, and a guest that needs one needs most. */
const PART = 256 * 2 ** 10;
/** When there are more small parts than so many, one is made of them. */
const MAX_SMALL = 6;
/** Regions of which it is known that they are kept already. */
const MAX_SEEN = 2 ** 16;

/** Regions that are going to be a part. */
interface Growing {
  readonly archive: KeptArchive;
  /** As which they were written last. */
  name: string | undefined;
}

/** Keeps what a thread compiles in a {@link CodeStore}: in the order in which a guest needed it, since it will in the next run. */
export class CodeKeeper {
  readonly #store: CodeStore;
  readonly #onPart: (name: string) => void;
  #growing: Growing = { archive: new KeptArchive(), name: undefined };
  readonly #full: Growing[] = [];
  readonly #seen = new Set<number>();
  #timer: NodeJS.Timeout | undefined;
  #delay = FIRST_SAVE_MS;

  /** @param onPart hears of each part that is written and will not grow any more */
  constructor(store: CodeStore, onPart: (name: string) => void = () => {}) {
    this.#store = store;
    this.#onPart = onPart;
  }

  add(region: NewRegion): void {
    const hash = regionHash(region);
    if (this.#seen.has(hash)) return;
    if (this.#seen.size === MAX_SEEN) this.#seen.clear();
    this.#seen.add(hash);
    if (!this.#growing.archive.add(region)) return;
    if (this.#growing.archive.bytes >= PART) {
      this.#full.push(this.#growing);
      this.#growing = { archive: new KeptArchive(), name: undefined };
    }
    if (this.#timer !== undefined) return;
    this.#timer = setTimeout(() => this.save(), this.#delay).unref();
    this.#delay = Math.min(this.#delay * 2, LAST_SAVE_MS);
  }

  /** Writes what is new. */
  save(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const full = this.#full.splice(0);
    for (const part of full) this.#write(part);
    this.#write(this.#growing);
    if (full.length > 0) this.#store.tidy();
    for (const { name } of full) if (name !== undefined) this.#onPart(name);
  }

  #write(part: Growing): void {
    if (part.archive.size === 0) return;
    const name = this.#store.add(part.archive);
    if (name === part.name) return;
    if (part.name !== undefined) this.#store.remove(part.name);
    part.name = name;
  }

  /** Writes what is new, when nobody uses it any more: there may be fewer parts then. */
  close(): void {
    this.save();
    this.#growing = { archive: new KeptArchive(), name: undefined };
    const small = this.#store.smallParts();
    if (small.length > MAX_SMALL) {
      const all = new KeptArchive();
      for (const name of small) {
        const archive = this.#store.archive(name);
        if (archive !== undefined) all.merge(archive);
      }
      const made = this.#store.add(all);
      if (made !== undefined) for (const name of small) if (name !== made) this.#store.remove(name);
    }
    this.#store.tidy();
  }
}
