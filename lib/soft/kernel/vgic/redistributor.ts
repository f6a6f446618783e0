import type { IoDevice } from '../io-bus.js';
import type { CpuInterface } from './cpu-interface.js';
import { PIDR2_GICV3 } from './distributor.js';
import { NR_PRIVATE, NR_SGIS, VgicIrq } from './irq.js';
import { type IrqSource, isIrqRegister, readIrqRegister, writeIrqRegister } from './irq-registers.js';
import type { Vgic } from './vgic.js';

/** GICR registers of the RD frame (IHI 0069, 12.11); the SGI frame follows at 64 KiB. */
const GICR_CTLR = 0x0000;
const GICR_IIDR = 0x0004;
const GICR_TYPER = 0x0008;
const GICR_TYPER_HIGH = 0x000c;
const GICR_PROPBASER = 0x0070;
const GICR_PENDBASER = 0x0078;
const GICR_IDREGS = 0xffd0;
const GICR_PIDR2 = 0xffe8;
const SGI_FRAME = 0x10000;
/** Bytes of a redistributor: both frames. */
export const GICR_SIZE = 0x20000;

/** GICR_CTLR.IR and CES: invalidate registers, and EnableLPIs can be cleared. */
const CTLR_FIXED = (1 << 2) | (1 << 1);
const TYPER_LAST = 1 << 4;

/** A vCPU's redistributor: its SGIs and PPIs. LPIs are not there, so their tables' registers only remember. */
export class Redistributor implements IrqSource {
  readonly #vgic: Vgic;
  readonly cpu: CpuInterface;
  readonly #irqs: VgicIrq[] = [];
  /** GICR_PROPBASER and GICR_PENDBASER, low and high halves. */
  readonly #bases = new Uint32Array(4);
  /** GICR_TYPER.Last: no redistributor follows this one in its region. */
  last = false;

  constructor(vgic: Vgic, cpu: CpuInterface) {
    this.#vgic = vgic;
    this.cpu = cpu;
    for (let i = 0; i < NR_PRIVATE; i++) this.#irqs.push(new VgicIrq(i, cpu, i < NR_SGIS));
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
    if (offset < SGI_FRAME) return offset <= 0x14 || (offset >= 0x70 && offset < 0x80) || offset >= GICR_IDREGS;
    const sgi = offset - SGI_FRAME;
    if (sgi >= 0x80 && sgi < 0x400) return (sgi & 0x7f) === 0;
    return (sgi >= 0x400 && sgi < 0x420) || sgi === 0xc00 || sgi === 0xc04 || sgi === 0xd00 || sgi === 0xe00;
  }

  static isWide(offset: number): boolean {
    return offset === GICR_TYPER || offset === GICR_PROPBASER || offset === GICR_PENDBASER;
  }

  read(offset: number, len: number, raw: boolean): number {
    if (offset >= SGI_FRAME) {
      const sgi = offset - SGI_FRAME;
      return isIrqRegister(sgi) ? readIrqRegister(this, sgi, len, raw) : 0;
    }
    if (len !== 4) return 0;
    switch (offset) {
      case GICR_CTLR:
        return this.#vgic.distributor.hasRedistributorFlags ? CTLR_FIXED : 0;
      case GICR_IIDR:
        return this.#vgic.distributor.iidr;
      case GICR_TYPER:
        return ((this.cpu.vcpu.id & 0xffff) << 8) | (this.last ? TYPER_LAST : 0);
      case GICR_TYPER_HIGH:
        return this.cpu.vcpu.affinity;
      case GICR_PIDR2:
        return PIDR2_GICV3;
      default:
        return offset >= GICR_PROPBASER && offset < GICR_PENDBASER + 8
          ? this.#bases[(offset - GICR_PROPBASER) >>> 2]!
          : 0;
    }
  }

  write(offset: number, len: number, value: number, raw: boolean): void {
    if (offset >= SGI_FRAME) {
      const sgi = offset - SGI_FRAME;
      if (isIrqRegister(sgi)) writeIrqRegister(this, sgi, len, value, raw);
    } else if (len === 4 && offset >= GICR_PROPBASER && offset < GICR_PENDBASER + 8) {
      this.#bases[(offset - GICR_PROPBASER) >>> 2] = value;
    }
  }
}

/** A region of redistributors, one after the other, on the I/O bus. */
export class RedistributorRegion implements IoDevice {
  readonly #redistributors: readonly Redistributor[];

  constructor(redistributors: readonly Redistributor[]) {
    this.#redistributors = redistributors;
    const last = redistributors.at(-1);
    if (last !== undefined) last.last = true;
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
