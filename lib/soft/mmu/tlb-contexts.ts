import type { HelperEnv } from '../a64/helpers.js';
import { SECOND_TLB_AREA, SecondTlb } from './second-tlb.js';
import { TLB_AREA, Tlb } from './tlb.js';

/** Address spaces whose translations are kept side by side. */
const CONTEXTS = 8;

/** Bytes of a vCPU's translation tables. */
export const TLB_CONTEXTS_AREA = SECOND_TLB_AREA + CONTEXTS * TLB_AREA;

interface Context {
  readonly tlb: Tlb;
  /** The ASID whose translations it holds; -1 for none. */
  asid: number;
  /** When it was last selected. */
  used: number;
}

/**
 * A vCPU's translations by ASID: a switch to another address space selects other tables and empties none, and a switch back
 * finds what was there. Translations of global pages are in each of them, so what invalidates those goes through all.
 */
export class TlbContexts {
  readonly #env: HelperEnv;
  readonly #second: SecondTlb;
  /** Linear address of the first context's tables. */
  readonly #area: number;
  readonly #contexts: Context[] = [];
  #now = 0;
  #aligned = false;
  /** Counts how often a translation may have ceased to hold. */
  changes = 0;
  /** The tables of the ASID in use. */
  current: Tlb;
  /** The vCPU is gone, and its tables are somebody else's memory: they stay as they are. */
  retired = false;

  /** @param area linear address of TLB_CONTEXTS_AREA zeroed bytes */
  constructor(env: HelperEnv, area: number) {
    this.#env = env;
    this.#second = new SecondTlb(env, area);
    this.#area = area + SECOND_TLB_AREA;
    this.current = this.#claim(0);
  }

  /** Makes the tables of an ASID the current ones. */
  select(asid: number): void {
    this.changes++;
    if (this.retired) return;
    const found = this.#contexts.find((c) => c.asid === asid);
    if (found === undefined) {
      this.current = this.#claim(asid);
      return;
    }
    found.used = ++this.#now;
    this.current = found.tlb;
  }

  /** Gives an ASID empty tables: unused ones, or those that were selected longest ago. */
  #claim(asid: number): Tlb {
    const free = this.#contexts.find((c) => c.asid < 0);
    if (free === undefined && this.#contexts.length < CONTEXTS) {
      const tlb = new Tlb(this.#env, this.#area + this.#contexts.length * TLB_AREA, this.#second);
      tlb.aligned = this.#aligned;
      this.#contexts.push({ tlb, asid, used: ++this.#now });
      return tlb;
    }
    const context = free ?? this.#contexts.reduce((oldest, c) => (c.used < oldest.used ? c : oldest));
    context.tlb.flush();
    context.asid = asid;
    context.used = ++this.#now;
    return context.tlb;
  }

  /** Whether alignment is checked: then entries are for accesses that are aligned to their size. What there is is forgotten. */
  set aligned(on: boolean) {
    this.flush();
    if (on === this.#aligned || this.retired) return;
    this.#aligned = on;
    for (const { tlb } of this.#contexts) {
      tlb.flush();
      tlb.aligned = on;
    }
  }

  /** Forgets every translation. */
  flush(): void {
    this.changes++;
    if (this.retired) return;
    // The others are emptied when they are claimed again.
    for (const c of this.#contexts) if (c.tlb !== this.current) c.asid = -1;
    this.current.flush();
  }

  /** Forgets which pages are no RAM: some are from now on. */
  flushDevices(): void {
    if (this.retired) return;
    for (const { tlb } of this.#contexts) tlb.devices.flush();
  }

  /** Forgets the translations of an ASID; global ones may go too. */
  flushAsid(asid: number): void {
    this.changes++;
    for (const c of this.#contexts) {
      if (c.asid !== asid) continue;
      if (c.tlb === this.current) c.tlb.flush();
      else c.asid = -1;
    }
  }

  /** Forgets the translations of a page, in every address space. @returns whether the current fetch tables lost an entry */
  flushPage(lo: number, hi: number, granule: number): boolean {
    this.changes++;
    const first = (lo >>> granule) << granule;
    for (let n = 0; n < 1 << (granule - 12); n++) this.#second.forgetPage(first + (n << 12));
    let fetched = false;
    for (const c of this.#contexts) {
      if (c.asid < 0) continue;
      const lost = c.tlb.flushPage(lo, hi, granule);
      if (c.tlb === this.current) fetched = lost;
    }
    return fetched;
  }

  /** A region is gone: forgets where regions start. */
  forgetJumps(): void {
    for (const c of this.#contexts) if (c.asid >= 0) c.tlb.forgetJumps();
  }

  /** Forgets every translation through which a page of RAM could be stored to. @param page its linear address */
  forgetStores(page: number): void {
    // Users of the second level are numbered in the order in which they were made, as contexts are.
    this.#second.forgetStores(page, (user, lo) => this.#contexts[user]!.tlb.forgetStores(page, lo));
  }
}
