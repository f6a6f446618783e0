import { type Row, type WordFields, wordFields } from './row.js';

/** A row that may be a word's, with the bits that say so. */
interface Candidate {
  readonly row: Row;
  readonly mask: number;
  readonly value: number;
  /** For rows that look at their fields, too. */
  readonly fields: WordFields | undefined;
}

/** Finds the row of an instruction word. Rows are tried in the table's order, so a special case stands before the general one. */
export class Decoder {
  readonly #rows: readonly Row[];
  /** Candidates by bits 28..21, gathered when the first word that has them comes. */
  readonly #buckets: (readonly Candidate[] | undefined)[] = new Array(256).fill(undefined);

  constructor(rows: readonly Row[]) {
    this.#rows = rows;
  }

  #bucket(key: number): readonly Candidate[] {
    const found = this.#rows
      .filter((r) => (((key << 21) ^ r.value) & r.mask & (0xff << 21)) === 0)
      .map((row) => ({
        row,
        mask: row.mask | 0,
        value: row.value | 0,
        fields: row.when === undefined ? undefined : wordFields(row),
      }));
    this.#buckets[key] = found;
    return found;
  }

  /** The row, or `undefined` where the word is not allocated (the instruction is UNDEFINED). */
  decode(word: number): Row | undefined {
    const key = (word >>> 21) & 0xff;
    for (const { mask, value, row, fields } of this.#buckets[key] ?? this.#bucket(key)) {
      if ((word & mask) !== value) continue;
      if (fields === undefined) return row;
      fields.word = word;
      if (row.when!(fields)) return row;
    }
    return undefined;
  }
}
