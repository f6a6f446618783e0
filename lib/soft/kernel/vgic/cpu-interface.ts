import { FIRST_LPI, INTID_SPURIOUS, PRIORITY_MASK, type VgicIrq } from './irq.js';
import { IrqHeap, precedes } from './irq-heap.js';

/** What the vGIC needs of a vCPU. */
export interface VgicVcpu {
  readonly id: number;
  /** Aff2.Aff1.Aff0. */
  readonly affinity: number;
  /** The levels of the interface's IRQ and FIQ outputs. */
  setInterruptLines(irq: boolean, fiq: boolean): void;
}

/** The switches of a CPU interface: ICC_CTLR_EL1's, and those that only GICC_CTLR has. */
export interface CpuControl {
  /** Both groups use the binary point of Group 0. */
  readonly cbpr: boolean;
  /** The end of an interrupt only drops the priority. */
  readonly eoiMode: boolean;
  /** Group 0 is signalled as FIQ: always so in a GICv3. */
  readonly fiqEn: boolean;
  /** GICC_IAR acknowledges Group 1 too. */
  readonly ackCtl: boolean;
}

/** What the CPU interface tells the distributor. */
export interface Deactivation {
  /** `irq` is no longer active: route it anew. */
  deactivated(irq: VgicIrq): void;
}

/** ICC_CTLR_EL1: PRIbits (five bits of priority), IDbits 16, A3V (an SGI may name an Aff3, though no vCPU has one). */
const CTLR_PRI_BITS = 4 << 8;
const CTLR_A3V = 1 << 15;
const CTLR_CBPR = 1;
const CTLR_EOIMODE = 2;
/** The lowest ICC_BPR0_EL1 that leaves every implemented bit in the group priority. */
const BPR0_MIN = 2;
const BPR1_MIN = BPR0_MIN + 1;
const IDLE_PRIORITY = 0xff;

/**
 * A CPU interface (IHI 0069, 12.2: ICC_*; IHI 0048, 4.4: GICC_*) as a guest of KVM sees it: one Security state, five priority
 * bits, so one active-priority register a group. Holds the interrupts that are pending or active at this vCPU.
 */
export class CpuInterface {
  readonly vcpu: VgicVcpu;
  readonly #distributor: Deactivation;
  readonly #pending: readonly [IrqHeap, IrqHeap] = [new IrqHeap(), new IrqHeap()];
  readonly #active = new Map<number, VgicIrq>();
  /** The highest-priority pending interrupt of an enabled group; `undefined` for none. */
  #best: VgicIrq | undefined;
  #pmr = 0;
  #bpr0 = BPR0_MIN;
  #bpr1 = BPR1_MIN;
  #control: CpuControl = { cbpr: false, eoiMode: false, fiqEn: true, ackCtl: false };
  #groupEnabled0 = false;
  #groupEnabled1 = false;
  /** ICC_AP0R0_EL1 and ICC_AP1R0_EL1: bit n is priority n << 3. */
  #ap0r = 0;
  #ap1r = 0;

  constructor(vcpu: VgicVcpu, distributor: Deactivation) {
    this.vcpu = vcpu;
    this.#distributor = distributor;
  }

  /** Takes `irq` in, or notes that something of it changed. */
  hold(irq: VgicIrq): void {
    irq.holder = this;
    if (irq.active) this.#active.set(irq.intid, irq);
    else this.#active.delete(irq.intid);
    // Out of the other group's first: an interrupt knows one place.
    this.#pending[irq.group === 0 ? 1 : 0].remove(irq);
    if (!irq.active && irq.enabled && irq.pending) this.#pending[irq.group].put(irq);
    else this.#pending[irq.group].remove(irq);
  }

  remove(irq: VgicIrq): void {
    irq.holder = undefined;
    this.#active.delete(irq.intid);
    for (const heap of this.#pending) heap.remove(irq);
  }

  /** The LPIs that are pending here. */
  pendingLpis(): VgicIrq[] {
    return [...this.#pending[1]].filter((irq) => irq.intid >= FIRST_LPI);
  }

  /** Finds the interrupt to signal and drives the outputs. Called after every change of an interrupt held, or of ICC_*. */
  update(): void {
    const first0 = this.#groupEnabled0 ? this.#pending[0].first : undefined;
    const first1 = this.#groupEnabled1 ? this.#pending[1].first : undefined;
    const best = first0 === undefined || (first1 !== undefined && precedes(first1, first0)) ? first1 : first0;
    this.#best = best;
    const signal = best !== undefined && this.#preempts(best);
    const isFiq = signal && best.group === 0 && this.#control.fiqEn;
    this.vcpu.setInterruptLines(signal && !isFiq, isFiq);
  }

  #preempts(irq: VgicIrq): boolean {
    return irq.priority < this.#pmr && this.#groupPriority(irq.priority, irq.group) < this.#runningPriority();
  }

  #groupPriority(priority: number, group: 0 | 1): number {
    const shift = group === 0 ? this.#bpr0 + 1 : this.bpr1;
    return priority & (0xff << shift) & 0xff;
  }

  #runningPriority(): number {
    const active = this.#ap0r | this.#ap1r;
    return active === 0 ? IDLE_PRIORITY : (31 - Math.clz32(active & -active)) << 3;
  }

  /** ICC_IAR0_EL1, ICC_IAR1_EL1. */
  acknowledge(group: 0 | 1): number {
    const irq = this.#best;
    if (irq === undefined || irq.group !== group || !this.#preempts(irq)) return INTID_SPURIOUS;
    const id = irq.acknowledgeId;
    irq.activate();
    this.hold(irq);
    const bit = 1 << (this.#groupPriority(irq.priority, group) >> 3);
    if (group === 0) this.#ap0r |= bit;
    else this.#ap1r |= bit;
    this.update();
    return id;
  }

  /** The interrupt that an acknowledge of its group would have. */
  get signalled(): VgicIrq | undefined {
    return this.#best !== undefined && this.#preempts(this.#best) ? this.#best : undefined;
  }

  /** The group of an active interrupt. */
  activeGroup(intid: number): 0 | 1 | undefined {
    return this.#active.get(intid)?.group;
  }

  /** ICC_EOIR0_EL1, ICC_EOIR1_EL1: drops the running priority and, unless EOImode splits the two, deactivates. */
  endOfInterrupt(group: 0 | 1, intid: number): void {
    if (intid >= 1020 && intid <= INTID_SPURIOUS) return;
    const dropped = this.#dropPriority();
    // An LPI has no state that could outlive its priority drop.
    if (!this.#control.eoiMode || intid >= FIRST_LPI) {
      const irq = this.#active.get(intid);
      // An end without its acknowledge is the guest's mistake and ends nothing, as in the kernel.
      if (irq !== undefined && irq.group === group && this.#groupPriority(irq.priority, group) === dropped) {
        this.#deactivate(irq);
        return;
      }
    }
    this.update();
  }

  #dropPriority(): number {
    const active = this.#ap0r | this.#ap1r;
    if (active === 0) return IDLE_PRIORITY;
    const bit = active & -active;
    if ((this.#ap0r & bit) !== 0) this.#ap0r &= ~bit;
    else this.#ap1r &= ~bit;
    return (31 - Math.clz32(bit)) << 3;
  }

  /** ICC_DIR_EL1. */
  deactivate(intid: number): void {
    if (!this.#control.eoiMode) return;
    const irq = this.#active.get(intid);
    if (irq !== undefined) this.#deactivate(irq);
  }

  #deactivate(irq: VgicIrq): void {
    irq.active = false;
    this.#distributor.deactivated(irq);
  }

  /** ICC_HPPIR0_EL1, ICC_HPPIR1_EL1. */
  highestPending(group: 0 | 1): number {
    const irq = this.#best;
    return irq !== undefined && irq.group === group ? irq.acknowledgeId : INTID_SPURIOUS;
  }

  /** ICC_RPR_EL1. */
  get runningPriority(): number {
    return this.#runningPriority();
  }

  get pmr(): number {
    return this.#pmr;
  }

  set pmr(value: number) {
    this.#pmr = value & PRIORITY_MASK;
    this.update();
  }

  get bpr0(): number {
    return this.#bpr0;
  }

  set bpr0(value: number) {
    this.#bpr0 = Math.max(value & 7, BPR0_MIN);
    this.update();
  }

  get bpr1(): number {
    return this.#control.cbpr ? Math.min(this.#bpr0 + 1, 7) : this.#bpr1;
  }

  /** ICC_CTLR_EL1.CBPR makes writes ignored. */
  set bpr1(value: number) {
    if (!this.#control.cbpr) this.ownBpr1 = value;
  }

  /** The binary point of Group 1, in use or not: GICC_ABPR. */
  get ownBpr1(): number {
    return this.#bpr1;
  }

  set ownBpr1(value: number) {
    this.#bpr1 = Math.max(value & 7, BPR1_MIN);
    this.update();
  }

  get control(): CpuControl {
    return this.#control;
  }

  set control(control: CpuControl) {
    this.#control = control;
    this.update();
  }

  get ctlr(): number {
    return CTLR_A3V | CTLR_PRI_BITS | (this.#control.cbpr ? CTLR_CBPR : 0) | (this.#control.eoiMode ? CTLR_EOIMODE : 0);
  }

  set ctlr(value: number) {
    this.control = { ...this.#control, cbpr: (value & CTLR_CBPR) !== 0, eoiMode: (value & CTLR_EOIMODE) !== 0 };
  }

  getGroupEnabled(group: 0 | 1): boolean {
    return group === 0 ? this.#groupEnabled0 : this.#groupEnabled1;
  }

  setGroupEnabled(group: 0 | 1, enabled: boolean): void {
    if (group === 0) this.#groupEnabled0 = enabled;
    else this.#groupEnabled1 = enabled;
    this.update();
  }

  /** ICC_AP0R0_EL1, ICC_AP1R0_EL1. */
  getActivePriorities(group: 0 | 1): number {
    return (group === 0 ? this.#ap0r : this.#ap1r) >>> 0;
  }

  setActivePriorities(group: 0 | 1, value: number): void {
    if (group === 0) this.#ap0r = value | 0;
    else this.#ap1r = value | 0;
    this.update();
  }
}
