import type { CpuInterface } from './cpu-interface.js';

/** SGIs are INTIDs 0 to 15, PPIs 16 to 31, SPIs from 32 (GICv3 specification IHI 0069, 2.2.1). */
export const NR_SGIS = 16;
export const NR_PRIVATE = 32;
/** LPIs are INTIDs from 8192; GICD_TYPER.IDbits ends them at 65535. */
export const FIRST_LPI = 8192;
/** Spurious: what an acknowledge reads where nothing is pending. */
export const INTID_SPURIOUS = 1023;
/** Implemented bits of a priority, as the kernel's vGIC has them (VGIC_PRI_BITS). */
export const PRIORITY_MASK = 0xf8;

/** One interrupt: the kernel's `struct vgic_irq`. */
export class VgicIrq {
  readonly intid: number;
  enabled = false;
  active = false;
  /** Edge-triggered, as GICD_ICFGR says. SPIs begin as edge, as in the kernel. */
  edge: boolean;
  /** The input line, for level-triggered interrupts. */
  lineLevel = false;
  /** Pending by an edge or by a write to ISPENDR. */
  pendingLatch = false;
  /** GICD_IGROUPR: 0 is signalled as FIQ, 1 as IRQ. */
  group: 0 | 1 = 1;
  priority = 0;
  /** Driven by the vCPU's own timer: lines from user space are ignored. */
  owned = false;
  /** GICD_IROUTER's Aff2.Aff1.Aff0. */
  affinity = 0;
  /** GICv2: GICD_ITARGETSR, a bit a vCPU. */
  targets = 0;
  /** GICv2, SGIs: the vCPUs that sent it, a bit each. It is pending as long as there is one. */
  sources = 0;
  /** The CPU interface it goes to; `undefined` where no vCPU has the affinity. */
  target: CpuInterface | undefined;
  /** The CPU interface that lists it as pending or active. */
  holder: CpuInterface | undefined;
  /** Its place among the holder's pending interrupts; -1 where it is not one. */
  heapIndex = -1;

  constructor(intid: number, target: CpuInterface | undefined, edge: boolean) {
    this.intid = intid;
    this.target = target;
    this.edge = edge;
    this.enabled = intid < NR_SGIS;
  }

  /** What an acknowledge reads: with the sender in bits 12..10 for an SGI of a GICv2. */
  get acknowledgeId(): number {
    return this.sources === 0 ? this.intid : this.intid | ((31 - Math.clz32(this.sources & -this.sources)) << 10);
  }

  /** Takes one pending event of it: a GICv2 has its SGIs one sender at a time. */
  activate(): void {
    this.active = true;
    this.sources &= this.sources - 1;
    this.pendingLatch = this.sources !== 0;
  }

  get pending(): boolean {
    return this.pendingLatch || (this.lineLevel && !this.edge);
  }
}
