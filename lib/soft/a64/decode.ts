import { fieldsOf, type Row } from './row.js';

/** Finds the row of an instruction word. Rows are tried in the table's order, so a special case stands before the general one. */
export class Decoder {
  readonly #rows: readonly Row[];
  /** Candidates by bits 28..21, gathered when the first word that has them comes. */
  readonly #buckets: (readonly Row[] | undefined)[] = new Array(256).fill(undefined);

  constructor(rows: readonly Row[]) {
    this.#rows = rows;
  }

  #bucket(key: number): readonly Row[] {
    const found = this.#rows.filter((r) => (((key << 21) ^ r.value) & r.mask & (0xff << 21)) === 0);
    this.#buckets[key] = found;
    return found;
  }

  /** The row, or `undefined` where the word is not allocated (the instruction is UNDEFINED). */
  decode(word: number): Row | undefined {
    const key = (word >>> 21) & 0xff;
    for (const r of this.#buckets[key] ?? this.#bucket(key)) {
      if ((word & r.mask) >>> 0 === r.value && (r.when === undefined || r.when(fieldsOf(r, word)))) return r;
    }
    return undefined;
  }
}
