import type { IoDevice } from '../io-bus.js';
import type { CpuInterface } from './cpu-interface.js';
import { PIDR2_GICV3 } from './distributor.js';
import { NR_PRIVATE, NR_SGIS, VgicIrq } from './irq.js';
import { type IrqSource, isIrqRegister, readIrqRegister, writeIrqRegister } from './irq-registers.js';
import { halfOf, initialBase, sanitise, withHalf } from './table-base.js';
import type { Vgic } from './vgic.js';

/** GICR registers of the RD frame (IHI 0069, 12.11); the SGI frame follows at 64 KiB. */
const GICR_CTLR = 0x0000;
const GICR_IIDR = 0x0004;
const GICR_TYPER = 0x0008;
const GICR_TYPER_HIGH = 0x000c;
const GICR_PROPBASER = 0x0070;
const GICR_PENDBASER = 0x0078;
const GICR_INVLPIR = 0x00a0;
const GICR_INVALLR = 0x00b0;
const GICR_SYNCR = 0x00c0;
const GICR_IDREGS = 0xffd0;
const GICR_PIDR2 = 0xffe8;
const SGI_FRAME = 0x10000;
/** Bytes of a redistributor: both frames. */
export const GICR_SIZE = 0x20000;

/** GICR_CTLR.IR and CES: invalidate registers, and EnableLPIs can be cleared. */
const CTLR_FIXED = (1 << 2) | (1 << 1);
const CTLR_ENABLE_LPIS = 1;
const TYPER_PLPIS = 1;
const TYPER_LAST = 1 << 4;
/** Product KVM ('K'), implementer Arm; unlike GICD_IIDR without a revision. */
const IIDR = 0x4b00_043b;
/** GICR_PENDBASER: cacheability fields, the address, Pending Table Zero (which reads as 0), and what is RES0. */
const PEND_INNER = 7n;
const PEND_OUTER = 56n;
const PEND_ADDRESS = 0xf_ffff_ffff_0000n;
const PEND_PTZ = 1n << 62n;
const PEND_RES0 = (1n << 63n) | (7n << 59n) | (0xfn << 52n) | (0xfn << 12n) | 0x7fn;

/** A vCPU's redistributor: its SGIs and PPIs, and the switch and tables of its LPIs. */
export class Redistributor implements IrqSource {
  readonly #vgic: Vgic;
  readonly cpu: CpuInterface;
  readonly #irqs: VgicIrq[] = [];
  #lpisEnabled = false;
  #pendbaser = initialBase(PEND_INNER);

  constructor(vgic: Vgic, cpu: CpuInterface) {
    this.#vgic = vgic;
    this.cpu = cpu;
    for (let i = 0; i < NR_PRIVATE; i++) {
      const irq = new VgicIrq(i, cpu, i < NR_SGIS);
      vgic.prepare(irq);
      irq.targets = 1 << cpu.vcpu.id;
      this.#irqs.push(irq);
    }
  }

  irq(intid: number): VgicIrq | undefined {
    return this.#irqs[intid];
  }

  changed(irq: VgicIrq): void {
    this.#vgic.route(irq);
  }

  /** Whether user space may save and restore the 32-bit register at `offset`. */
  static has(offset: number): boolean {
    if ((offset & 3) !== 0 || offset < 0 || offset >= GICR_SIZE) return false;
    if (offset < SGI_FRAME) {
      return (
        offset <= 0x14 || isTableBase(offset) || isInvalidate(offset) || offset === GICR_SYNCR || offset >= GICR_IDREGS
      );
    }
    const sgi = offset - SGI_FRAME;
    if (sgi >= 0x80 && sgi < 0x400) return (sgi & 0x7f) === 0;
    return (sgi >= 0x400 && sgi < 0x420) || sgi === 0xc00 || sgi === 0xc04 || sgi === 0xd00 || sgi === 0xe00;
  }

  static isWide(offset: number): boolean {
    return offset === GICR_TYPER || ((isTableBase(offset) || isInvalidate(offset)) && offset % 8 === 0);
  }

  /** GICR_CTLR.EnableLPIs. */
  get lpisEnabled(): boolean {
    return this.#lpisEnabled;
  }

  /** Guest-physical address of the table with a bit an LPI, from GICR_PENDBASER. */
  get pendingTable(): number {
    return Number(this.#pendbaser & PEND_ADDRESS);
  }

  read(offset: number, len: number, raw: boolean): number {
    if (offset >= SGI_FRAME) {
      const sgi = offset - SGI_FRAME;
      return isIrqRegister(sgi) ? readIrqRegister(this, sgi, len, raw) : 0;
    }
    if (len !== 4) return 0;
    switch (offset) {
      case GICR_CTLR:
        return (
          (this.#lpisEnabled ? CTLR_ENABLE_LPIS : 0) | (this.#vgic.distributor.hasRedistributorFlags ? CTLR_FIXED : 0)
        );
      case GICR_IIDR:
        return IIDR;
      case GICR_TYPER:
        return (
          ((this.cpu.vcpu.id & 0xffff) << 8) |
          (this.#vgic.isLast(this) ? TYPER_LAST : 0) |
          (this.#vgic.hasIts ? TYPER_PLPIS : 0)
        );
      case GICR_TYPER_HIGH:
        return this.cpu.vcpu.affinity;
      case GICR_PIDR2:
        return PIDR2_GICV3;
      case GICR_PROPBASER:
      case GICR_PROPBASER + 4:
        return halfOf(this.#vgic.lpis.propbaser, offset !== GICR_PROPBASER);
      case GICR_PENDBASER:
      case GICR_PENDBASER + 4:
        return halfOf(this.#pendbaser & ~PEND_PTZ, offset !== GICR_PENDBASER);
      // What an invalidation asks for is done when it is asked for, so GICR_SYNCR is never busy.
      default:
        return 0;
    }
  }

  write(offset: number, len: number, value: number, raw: boolean): void {
    if (offset >= SGI_FRAME) {
      const sgi = offset - SGI_FRAME;
      if (isIrqRegister(sgi)) writeIrqRegister(this, sgi, len, value, raw);
    } else if (len === 4) {
      this.#writeControl(offset, value);
    }
  }

  #writeControl(offset: number, value: number): void {
    const { lpis } = this.#vgic;
    switch (offset) {
      case GICR_CTLR:
        this.#enableLpis((value & CTLR_ENABLE_LPIS) !== 0);
        return;
      // The tables stay where they are while LPIs are on.
      case GICR_PROPBASER:
      case GICR_PROPBASER + 4:
        if (!this.#lpisEnabled) lpis.propbaser = withHalf(lpis.propbaser, offset !== GICR_PROPBASER, value);
        return;
      case GICR_PENDBASER:
      case GICR_PENDBASER + 4: {
        if (this.#lpisEnabled) return;
        const written = withHalf(this.#pendbaser, offset !== GICR_PENDBASER, value);
        this.#pendbaser = sanitise(written, PEND_INNER, PEND_OUTER) & ~PEND_RES0;
        return;
      }
      case GICR_INVLPIR: {
        const irq = lpis.get(value);
        if (this.#lpisEnabled && irq !== undefined) lpis.configure(irq);
        return;
      }
      case GICR_INVALLR:
        if (this.#lpisEnabled) lpis.configureAll(this);
        return;
      default:
    }
  }

  #enableLpis(enabled: boolean): void {
    const { lpis } = this.#vgic;
    if (!this.#vgic.hasIts || enabled === this.#lpisEnabled) return;
    this.#lpisEnabled = enabled;
    if (!enabled) lpis.dropPending(this);
    else if ((this.#pendbaser & PEND_PTZ) === 0n) lpis.readPending(this);
  }
}

const isTableBase = (offset: number): boolean => offset >= GICR_PROPBASER && offset < GICR_PENDBASER + 8;
const isInvalidate = (offset: number): boolean => (offset & ~7) === GICR_INVLPIR || (offset & ~7) === GICR_INVALLR;

/** A region of redistributors, one after the other, on the I/O bus. */
export class RedistributorRegion implements IoDevice {
  readonly #redistributors: readonly Redistributor[];

  constructor(redistributors: readonly Redistributor[]) {
    this.#redistributors = redistributors;
  }

  isWide(offset: number): boolean {
    return Redistributor.isWide(offset % GICR_SIZE);
  }

  read(offset: number, len: number): number {
    return this.#redistributors[Math.floor(offset / GICR_SIZE)]?.read(offset % GICR_SIZE, len, false) ?? 0;
  }

  write(offset: number, len: number, value: number): void {
    this.#redistributors[Math.floor(offset / GICR_SIZE)]?.write(offset % GICR_SIZE, len, value, false);
  }
}
