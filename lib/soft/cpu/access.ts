import type { Decoder } from '../a64/decode.js';
import { fieldsOf, type Syndrome } from '../a64/row.js';
import type { CpuAccess } from './cpu.js';
import { Offset } from './layout.js';
import type { CpuState } from './state.js';

/** 64 bits from their halves, of either sign. */
export const fromHalves = (lo: number, hi: number): bigint => (BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0);

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
    return fromHalves(this.vaLo, this.vaHi);
  }

  get value(): bigint {
    return fromHalves(this.valueLo, this.valueHi);
  }

  /** Fills in the syndrome, and for a store the value. @param syndrome `undefined` where none is valid (ISV is 0) */
  describe(syndrome: Syndrome | undefined, state: CpuState): void {
    this.isv = syndrome !== undefined;
    this.valueLo = 0;
    this.valueHi = 0;
    this.srt = syndrome?.srt ?? 0;
    this.sf = syndrome?.sf ?? false;
    this.signExtend = syndrome?.signExtend ?? false;
    if (syndrome === undefined) return;
    const { size, srt } = syndrome;
    this.size = size;
    if (!this.isWrite || srt === 31) return;
    const at = Offset.X + srt * 8;
    const lo = state.get32(at);
    this.valueLo = size < 4 ? lo & ((1 << (size * 8)) - 1) : lo >>> 0;
    if (size === 8) this.valueHi = state.get32(at + 4) >>> 0;
  }

  /** Puts what a load has read, in halves, into its register. */
  complete(state: CpuState, lo: number, hi: number): void {
    const { size, srt, signExtend, sf } = this;
    if (srt === 31) return;
    const unused = size < 4 ? 32 - size * 8 : 0;
    const low = signExtend ? (lo << unused) >> unused : (lo << unused) >>> unused;
    const at = Offset.X + srt * 8;
    state.set32(at, low);
    state.set32(at + 4, size === 8 ? hi : signExtend && sf ? low >> 31 : 0);
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
