import { Place, type Places } from './word-plan.js';

/** Code that stores some words on the way out and goes on with another's, if that stores the rest, else with what all end with. */
export interface RareExit {
  /** All that have been stored behind it. */
  readonly words: ReadonlySet<number>;
  /** Those that it stores itself. */
  readonly stores: readonly number[];
  readonly next: RareExit | undefined;
  /** Its label, once it has one. */
  label: number;
}

/** Fewer words are stored where the way out starts. */
const LEAST_WORDS = 3;

/**
 * The ways out of a region that are seldom taken, by faults and spent budgets: there is one in nearly every instruction, and each has
 * what its block found in locals to store. So blocks share that code; what they have written themselves they store before.
 */
export class RareExits {
  /** Each behind the one that it goes on with. */
  readonly list: readonly RareExit[];
  readonly #byNode: readonly (RareExit | undefined)[];

  /** @param places where words are at the start of each block */
  constructor(places: readonly Places[]) {
    const sets = places.map((at) => [...at.keys()].filter((word) => at[word] === Place.LOCAL));
    const byKey = new Map<string, RareExit>();
    const list: RareExit[] = [];
    for (const words of [...sets].sort((a, b) => a.length - b.length)) {
      if (words.length < LEAST_WORDS || byKey.has(words.join())) continue;
      const next = list.findLast((other) => [...other.words].every((word) => words.includes(word)));
      const stores = words.filter((word) => next?.words.has(word) !== true);
      const exit: RareExit = { words: new Set(words), stores, next, label: 0 };
      byKey.set(words.join(), exit);
      list.push(exit);
    }
    this.list = list;
    this.#byNode = sets.map((words) => byKey.get(words.join()));
  }

  /** The code that a block leaves by; `undefined` where it has to store all. */
  of(node: number): RareExit | undefined {
    return this.#byNode[node];
  }
}
