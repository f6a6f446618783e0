import type { Decoder } from '../a64/decode.js';
import { fieldsOf, type Syndrome } from '../a64/row.js';
import type { CpuAccess } from './cpu.js';

/** The access behind an exit. Its 64-bit values are kept as halves: no BigInt is made that nobody asks for. */
export class Access implements CpuAccess {
  ipa = 0;
  /** Halves of the virtual address, 32 bits. */
  vaLo = 0;
  vaHi = 0;
  isWrite = false;
  isv = false;
  size = 0;
  signExtend = false;
  sf = false;
  srt = 0;
  valueLo = 0;
  valueHi = 0;

  get va(): bigint {
    return (BigInt(this.vaHi >>> 0) << 32n) | BigInt(this.vaLo >>> 0);
  }

  get value(): bigint {
    return (BigInt(this.valueHi >>> 0) << 32n) | BigInt(this.valueLo >>> 0);
  }
}

/** Words remembered: the few loads and stores of drivers that touch a device's registers. */
const WORDS = 64;

/** The syndromes of loads and stores by instruction word, remembered. */
export class Syndromes {
  readonly #decoder: Decoder;
  // At first word 0 (UDF) everywhere, which has none.
  readonly #words = new Uint32Array(WORDS);
  readonly #syndromes = new Array<Syndrome | undefined>(WORDS).fill(undefined);

  constructor(decoder: Decoder) {
    this.#decoder = decoder;
  }

  /** `undefined` where a fault of the instruction has no valid syndrome (ISV is 0). */
  of(word: number): Syndrome | undefined {
    // Rt and Rn differ most.
    const at = (word ^ (word >>> 10) ^ (word >>> 22)) & (WORDS - 1);
    if (this.#words[at] === word >>> 0) return this.#syndromes[at];
    const row = this.#decoder.decode(word);
    const syndrome = row?.syndrome?.(fieldsOf(row, word));
    this.#words[at] = word;
    this.#syndromes[at] = syndrome;
    return syndrome;
  }
}
