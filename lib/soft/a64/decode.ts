import { fieldsOf, type Row } from './row.js';

/** Finds the row of an instruction word. Rows are tried in the table's order, so a special case stands before the general one. */
export class Decoder {
  /** Candidates by bits 28..21. */
  readonly #buckets: (readonly Row[])[] = [];

  constructor(rows: readonly Row[]) {
    for (let key = 0; key < 256; key++) {
      const word = (key << 21) >>> 0;
      const fixed = (0xff << 21) >>> 0;
      this.#buckets.push(rows.filter((r) => ((word ^ r.value) & r.mask & fixed) === 0));
    }
  }

  /** The row, or `undefined` where the word is not allocated (the instruction is UNDEFINED). */
  decode(word: number): Row | undefined {
    for (const r of this.#buckets[(word >>> 21) & 0xff]!) {
      if ((word & r.mask) >>> 0 === r.value && (r.when === undefined || r.when(fieldsOf(r, word)))) return r;
    }
    return undefined;
  }
}
