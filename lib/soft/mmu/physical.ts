/** A range of guest-physical addresses backed by memory. */
export interface RamRegion {
  readonly base: number;
  /** Exclusive. */
  readonly end: number;
  /** Address of `base` in the engine's linear memory. */
  readonly linear: number;
  readonly readonly: boolean;
  /** Pages whose first store must be reported, one byte each; 1: not yet stored to. */
  readonly clean: Uint8Array | undefined;
  readonly onDirty: ((gfn: number) => void) | undefined;
}

/** The guest-physical address space: which addresses are RAM. */
export class PhysicalMap {
  #regions: RamRegion[] = [];
  #last: RamRegion | undefined;

  get regions(): readonly RamRegion[] {
    return this.#regions;
  }

  /** The region that holds the address, or `undefined`. */
  find(pa: number): RamRegion | undefined {
    const last = this.#last;
    if (last !== undefined && pa >= last.base && pa < last.end) return last;
    for (const r of this.#regions) {
      if (pa >= r.base && pa < r.end) {
        this.#last = r;
        return r;
      }
    }
    return undefined;
  }

  add(region: RamRegion): void {
    this.#regions.push(region);
  }

  remove(base: number, end: number): void {
    this.#keep((r) => r.end <= base || r.base >= end);
  }

  /** Removes every region that is backed by the range of linear memory. */
  removeBacking(linear: number, size: number): void {
    this.#keep((r) => r.linear + (r.end - r.base) <= linear || r.linear >= linear + size);
  }

  #keep(wanted: (r: RamRegion) => boolean): void {
    this.#regions = this.#regions.filter(wanted);
    this.#last = undefined;
  }
}
