import type { GuestAccess } from '../guest-access.js';
import { FIRST_LPI, PRIORITY_MASK, VgicIrq } from './irq.js';
import type { Redistributor } from './redistributor.js';
import { initialBase, sanitise } from './table-base.js';
import type { Vgic } from './vgic.js';

/** GICR_PROPBASER: cacheability fields, the address, the bits of INTID less one, and what is RES0. */
const PROP_INNER = 7n;
const PROP_OUTER = 56n;
const PROP_ADDRESS = 0xf_ffff_ffff_f000n;
const PROP_ID_BITS = 0x1fn;
const PROP_RES0 = (0x1fn << 59n) | (0xfn << 52n) | (3n << 5n);
/** Bits of an INTID that an LPI can have. */
const ID_BITS = 16;
/** A configuration table's byte: bit 0 enables, the rest is the priority. */
const PROP_ENABLED = 1;
/** What reading an LPI's configuration from memory counts as, in instructions. */
const CONFIG_COST = 64;

interface Mapped {
  readonly irq: VgicIrq;
  /** Translations that lead to it. */
  count: number;
}

/**
 * The LPIs of a VM: those that a translation of any of its ITSs leads to. Their configuration is a copy of the guest's table,
 * refreshed where the guest invalidates it; their pending state is here, and in the guest's tables only across a save.
 */
export class Lpis {
  readonly memory: GuestAccess;
  readonly #vgic: () => Vgic | undefined;
  readonly #mapped = new Map<number, Mapped>();
  #propbaser = 0n;
  #hasIts = false;
  /** What was done for the guest inside its access, in instructions that this could have been; who runs the guest takes it. */
  #work = 0;

  constructor(memory: GuestAccess, vgic: () => Vgic | undefined) {
    this.memory = memory;
    this.#vgic = vgic;
  }

  /** An ITS was made, so there are LPIs. */
  get hasIts(): boolean {
    return this.#hasIts;
  }

  addIts(): void {
    this.#hasIts = true;
    this.#propbaser = initialBase(PROP_INNER);
  }

  charge(work: number): void {
    this.#work += work;
  }

  get work(): number {
    return this.#work;
  }

  takeWork(): number {
    const work = this.#work;
    this.#work = 0;
    return work;
  }

  /** GICR_PROPBASER: one for all redistributors. */
  get propbaser(): bigint {
    return this.#propbaser;
  }

  set propbaser(value: bigint) {
    this.#propbaser = sanitise(value, PROP_INNER, PROP_OUTER) & ~PROP_RES0;
  }

  /** The first INTID beyond those that the guest's configuration table has. */
  get end(): number {
    return 2 ** Math.min(Number(this.#propbaser & PROP_ID_BITS) + 1, ID_BITS);
  }

  get(intid: number): VgicIrq | undefined {
    return this.#mapped.get(intid)?.irq;
  }

  /** How many are mapped. */
  get size(): number {
    return this.#mapped.size;
  }

  all(): VgicIrq[] {
    return [...this.#mapped.values()].map(({ irq }) => irq);
  }

  /**
   * Counts one more translation that leads to `intid`; a new LPI takes configuration and pending state from the guest's tables.
   * @returns `undefined` where a table is not in memory
   */
  acquire(intid: number, target: Redistributor | undefined): VgicIrq | undefined {
    const there = this.#mapped.get(intid);
    if (there !== undefined) {
      there.count++;
      return there.irq;
    }
    const irq = new VgicIrq(intid, target?.cpu, true);
    if (!this.configure(irq) || (target !== undefined && !this.#takePending(irq, target))) {
      irq.enabled = false;
      this.#route(irq);
      return undefined;
    }
    this.#mapped.set(intid, { irq, count: 1 });
    return irq;
  }

  /** Counts one translation less. An LPI that none leads to is no longer pending. */
  release(irq: VgicIrq): void {
    const there = this.#mapped.get(irq.intid);
    if (there === undefined || --there.count > 0) return;
    this.#mapped.delete(irq.intid);
    this.setPending(irq, false);
  }

  setPending(irq: VgicIrq, pending: boolean): void {
    irq.pendingLatch = pending;
    this.#route(irq);
  }

  setTarget(irq: VgicIrq, target: Redistributor | undefined): void {
    irq.target = target?.cpu;
    this.#route(irq);
  }

  /** Reads the configuration anew (kernel: update_lpi_config). @returns whether it is in memory */
  configure(irq: VgicIrq): boolean {
    this.charge(CONFIG_COST);
    const properties = this.memory.read8(Number(this.#propbaser & PROP_ADDRESS) + irq.intid - FIRST_LPI);
    if (properties === undefined) return false;
    irq.priority = properties & PRIORITY_MASK;
    irq.enabled = (properties & PROP_ENABLED) !== 0;
    this.#route(irq);
    return true;
  }

  /** Reads the configuration of every LPI of one vCPU anew: INVALL, GICR_INVALLR. */
  configureAll(target: Redistributor): void {
    this.charge(this.#mapped.size);
    for (const { irq } of this.#mapped.values()) if (irq.target === target.cpu) this.configure(irq);
  }

  /** MOVALL. */
  moveAll(from: Redistributor, to: Redistributor): void {
    this.charge(this.#mapped.size);
    for (const { irq } of this.#mapped.values()) if (irq.target === from.cpu) this.setTarget(irq, to);
  }

  /** GICR_CTLR.EnableLPIs: takes the pending state that is in the guest's table, as far as it is in memory. */
  readPending(target: Redistributor): void {
    this.charge(this.#mapped.size);
    for (const { irq } of this.#mapped.values()) {
      if (irq.target !== target.cpu) continue;
      this.charge(CONFIG_COST);
      const byte = this.memory.read8(target.pendingTable + (irq.intid >>> 3));
      if (byte === undefined) return;
      this.setPending(irq, (byte & (1 << (irq.intid & 7))) !== 0);
    }
  }

  /** EnableLPIs cleared: what was pending at this vCPU is forgotten. */
  dropPending(target: Redistributor): void {
    const pending = target.cpu.pendingLpis();
    this.charge(pending.length);
    for (const irq of pending) this.setPending(irq, false);
  }

  /** Moves a new LPI's pending bit from the guest's table to here (kernel: vgic_v3_lpi_sync_pending_status). */
  #takePending(irq: VgicIrq, target: Redistributor): boolean {
    const at = target.pendingTable + (irq.intid >>> 3);
    const bit = 1 << (irq.intid & 7);
    const byte = this.memory.read8(at);
    if (byte === undefined) return false;
    this.setPending(irq, (byte & bit) !== 0);
    return (byte & bit) === 0 || this.memory.write8(at, byte & ~bit);
  }

  /** KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES. @returns whether all tables are in memory */
  savePending(): boolean {
    for (const { irq } of this.#mapped.values()) {
      const target = irq.target === undefined ? undefined : this.#vgic()?.redistributor(irq.target.vcpu.id);
      if (target === undefined) continue;
      const at = target.pendingTable + (irq.intid >>> 3);
      const bit = 1 << (irq.intid & 7);
      const byte = this.memory.read8(at);
      if (byte === undefined) return false;
      const saved = irq.pendingLatch ? byte | bit : byte & ~bit;
      if (saved !== byte && !this.memory.write8(at, saved)) return false;
    }
    return true;
  }

  #route(irq: VgicIrq): void {
    this.#vgic()?.route(irq);
  }
}
