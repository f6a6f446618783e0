/** A function of the kernel, or where one begins. */
export interface KernelSymbol {
  readonly name: string;
  /** Guest-physical. */
  readonly address: number;
}

/** Finds the function that an address is in. */
export class SymbolTable {
  readonly #addresses: Float64Array;
  readonly #names: readonly string[];

  readonly #end: number;

  /**
   * @param symbols in any order; of those at one address the first is taken
   * @param end where the program ends, guest-physical: the last symbol goes no further
   */
  constructor(symbols: readonly KernelSymbol[], end: number) {
    this.#end = end;
    const sorted = symbols.toSorted((a, b) => a.address - b.address);
    this.#addresses = Float64Array.from(sorted, (s) => s.address);
    this.#names = sorted.map((s) => s.name);
  }

  get size(): number {
    return this.#names.length;
  }

  /** The last symbol at or below the address, and how many bytes it is away; `undefined` outside the program. */
  find(address: number): { readonly name: string; readonly offset: number } | undefined {
    if (address >= this.#end) return undefined;
    let low = 0;
    let high = this.#addresses.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#addresses[middle]! <= address) low = middle + 1;
      else high = middle;
    }
    if (low === 0) return undefined;
    const start = this.#addresses[low - 1]!;
    let first = low - 1;
    while (first > 0 && this.#addresses[first - 1] === start) first--;
    return { name: this.#names[first]!, offset: address - start };
  }
}
