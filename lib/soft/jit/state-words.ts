import { Offset, STATE } from '../cpu/layout.js';
import { W } from './lower.js';
import type { FunctionBody } from './wasm-module.js';
import { Place, type Places } from './word-plan.js';
import { WORDS, wordOf } from './word-use.js';

/** The words of the state that a region has in locals, and where each is at the place that code is being written for. */
export class StateWords {
  readonly #body: FunctionBody;
  /** Offsets and locals, by number of the word. */
  readonly #kept = new Map<number, { readonly offset: number; readonly local: number }>();
  #places: Places = new Uint8Array(WORDS);

  constructor(body: FunctionBody) {
    this.#body = body;
  }

  /** Where the words are. */
  get places(): Places {
    return this.#places.slice();
  }
  /** Code that is written next is reached with the words there. */
  set places(places: Places) {
    this.#places = places.slice();
  }

  /** The word's local, once it has the value. */
  read(offset: number): number {
    const word = wordOf(offset);
    if (this.#places[word] === Place.MEMORY) this.#load(word, this.#local(offset));
    return this.#local(offset);
  }

  /** The word's local, which is about to be written. */
  write(offset: number): number {
    this.#places[wordOf(offset)] = Place.LOCAL;
    return this.#local(offset);
  }

  /** Whether the local has the value now. */
  has(offset: number): boolean {
    return this.#places[wordOf(offset)] !== Place.MEMORY;
  }

  /** The word's value is of no use any more, wherever it is. */
  forget(offset: number): void {
    this.#places[wordOf(offset)] = Place.MEMORY;
  }

  /** Makes memory have all words but those given. */
  store(except: ReadonlySet<number> = NONE): void {
    for (const word of this.#kept.keys())
      if (this.#places[word] === Place.LOCAL && !except.has(word)) this.storeWord(word);
  }

  /** Writes a word back. Where it is stays as it was: who leaves writes code for those who don't, too. */
  storeWord(word: number): void {
    const { offset, local } = this.#kept.get(word)!;
    const c = this.#body.code;
    c.raw([W.I32_CONST, 0, W.LOCAL_GET]);
    c.u32(local);
    c.raw([isShort(offset) ? W.I32_STORE : W.I64_STORE, 0]);
    c.u32(STATE + offset);
  }

  /** Memory may have changed: gives locals that have a value the one there. */
  reload(): void {
    for (const [word, { local }] of this.#kept) {
      const place = this.#places[word]!;
      if (place === Place.MEMORY) continue;
      this.#load(word, local);
      this.#places[word] = place;
    }
  }

  /** Goes on to where the words are expected in these places. */
  become(places: Places): void {
    for (let word = 0; word < WORDS; word++) {
      const have = this.#places[word];
      const want = places[word];
      if (have === Place.LOCAL && want !== Place.LOCAL) this.storeWord(word);
      else if (have === Place.MEMORY && want !== Place.MEMORY) this.#load(word, this.#local(word << 3));
    }
  }

  #load(word: number, local: number): void {
    const offset = word << 3;
    const c = this.#body.code;
    c.raw([W.I32_CONST, 0, isShort(offset) ? W.I32_LOAD : W.I64_LOAD, 0]);
    c.u32(STATE + offset);
    c.u8(W.LOCAL_SET);
    c.u32(local);
    this.#places[word] = Place.BOTH;
  }

  #local(offset: number): number {
    const word = wordOf(offset);
    let kept = this.#kept.get(word);
    if (kept === undefined) {
      kept = { offset, local: this.#body.addLocal(isShort(offset) ? 'i32' : 'i64') };
      this.#kept.set(word, kept);
    }
    return kept.local;
  }
}

const NONE: ReadonlySet<number> = new Set();
/** C alone is of 32 bits. */
const isShort = (offset: number): boolean => offset === Offset.C;
