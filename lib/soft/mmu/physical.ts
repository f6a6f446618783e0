import type { RamPages } from './page-states.js';

/** A range of guest-physical addresses backed by memory. */
export interface RamRegion {
  readonly base: number;
  /** Exclusive. */
  readonly end: number;
  /** Address of `base` in the engine's linear memory. */
  readonly linear: number;
  /** The RAM that `base` is page `firstPage` of. */
  readonly ram: RamPages;
  readonly firstPage: number;
  readonly readonly: boolean;
  /** Pages whose first store must be reported, one byte each; 1: not yet stored to. */
  readonly clean: Uint8Array | undefined;
  readonly onDirty: ((gfn: number) => void) | undefined;
  /** A vCPU has used something of it: translation tables may lead there. */
  isUsed: boolean;
}

/** The guest-physical address space: which addresses are RAM. Regions do not overlap. */
export class PhysicalMap {
  /** By address. */
  readonly #regions: RamRegion[] = [];
  #last: RamRegion | undefined;

  get regions(): readonly RamRegion[] {
    return this.#regions;
  }

  /** The region that holds the address, or `undefined`. */
  find(pa: number): RamRegion | undefined {
    const last = this.#last;
    if (last !== undefined && pa >= last.base && pa < last.end) return last;
    const region = this.#regions[this.#countUpTo(pa) - 1];
    if (region === undefined || pa >= region.end) return undefined;
    this.#last = region;
    return region;
  }

  /** The guest-physical address of a page of linear memory, or `undefined` where it is mapped nowhere. */
  addressOf(linear: number): number | undefined {
    const region = this.#regions.find((r) => linear >= r.linear && linear - r.linear < r.end - r.base);
    return region === undefined ? undefined : region.base + (linear - region.linear);
  }

  /** How many regions begin at or below the address. */
  #countUpTo(pa: number): number {
    let low = 0;
    let high = this.#regions.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#regions[middle]!.base <= pa) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  add(region: RamRegion): void {
    this.#regions.splice(this.#countUpTo(region.base), 0, region);
  }

  /** Removes every region that has any of the range. @returns whether translation tables may lead to one of them */
  remove(base: number, end: number): boolean {
    let first = this.#countUpTo(base);
    if (first > 0 && this.#regions[first - 1]!.end > base) first--;
    let next = first;
    while (next < this.#regions.length && this.#regions[next]!.base < end) next++;
    this.#last = undefined;
    return this.#regions.splice(first, next - first).some((region) => region.isUsed);
  }

  /** Removes every region that is backed by the range of linear memory. */
  removeBacking(linear: number, size: number): void {
    const kept = this.#regions.filter((r) => r.linear + (r.end - r.base) <= linear || r.linear >= linear + size);
    if (kept.length !== this.#regions.length) this.#regions.splice(0, this.#regions.length, ...kept);
    this.#last = undefined;
  }
}
