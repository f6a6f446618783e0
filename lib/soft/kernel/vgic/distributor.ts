import { KvmError } from '../../../kvm/index.js';
import type { IoDevice } from '../io-bus.js';
import { NR_PRIVATE, type VgicIrq } from './irq.js';
import { firstIrq, type IrqSource, isIrqRegister, readIrqRegister, writeIrqRegister } from './irq-registers.js';
import type { Vgic } from './vgic.js';

/** GICD registers (IHI 0069, 12.9). */
const GICD_CTLR = 0x0000;
const GICD_TYPER = 0x0004;
const GICD_IIDR = 0x0008;
const GICD_TYPER2 = 0x000c;
const GICD_STATUSR = 0x0010;
const GICD_ITARGETSR = 0x0800;
const GICD_IGRPMODR = 0x0d00;
const GICD_IGRPMODR_END = 0x0d80;
const GICD_IROUTER = 0x6000;
const GICD_IROUTER_END = 0x8000;
const GICD_IDREGS = 0xffd0;
const GICD_PIDR2 = 0xffe8;
/** Bytes of the frame. */
export const GICD_SIZE = 0x10000;

const CTLR_ENABLE_G1 = 1 << 1;
const CTLR_ARE = 1 << 4;
/** One Security state. */
const CTLR_DS = 1 << 6;
/** GICD_TYPER.IDbits: ten bits of INTID without LPIs, 16 with them. */
const TYPER_ID_BITS = 9 << 19;
const TYPER_ID_BITS_LPIS = 15 << 19;
const TYPER_LPIS = 1 << 17;
/** PIDR2.ArchRev: GICv3. */
export const PIDR2_GICV3 = 0x3b;
/** Product KVM ('K'), implementer Arm. */
export const IIDR_PRODUCT = (0x4b << 24) | 0x43b;
export const IIDR_REVISION_SHIFT = 12;
/** KVM_VGIC_IMP_REV_LATEST. */
export const IIDR_REVISION_LATEST = 3;

/** The distributor's frame, as the kernel's vGIC models it: ARE and DS always set, one enable for both groups, 1-of-N routing not offered. */
export class Distributor implements IoDevice, IrqSource {
  readonly #vgic: Vgic;
  #revision = IIDR_REVISION_LATEST;

  constructor(vgic: Vgic) {
    this.#vgic = vgic;
  }

  /** With ARE the private interrupts are the redistributors'. */
  irq(intid: number): VgicIrq | undefined {
    return intid < NR_PRIVATE ? undefined : this.#vgic.spi(intid);
  }

  changed(irq: VgicIrq): void {
    this.#vgic.route(irq);
  }

  get iidr(): number {
    return (IIDR_PRODUCT | (this.#revision << IIDR_REVISION_SHIFT)) >>> 0;
  }

  isWide(offset: number): boolean {
    return offset >= GICD_IROUTER && offset < GICD_IROUTER_END;
  }

  /** Whether user space may save and restore the 32-bit register at `offset`. */
  has(offset: number): boolean {
    if ((offset & 3) !== 0 || offset < 0 || offset >= GICD_SIZE) return false;
    if (offset <= GICD_STATUSR || offset >= GICD_IDREGS) return true;
    const intid = firstIntid(offset);
    return intid !== undefined && intid < this.#vgic.nrIrqs;
  }

  read(offset: number, len: number): number {
    return this.#read(offset, len, false);
  }

  write(offset: number, len: number, value: number): void {
    this.#write(offset, len, value, false);
  }

  /** KVM_DEV_ARM_VGIC_GRP_DIST_REGS, read. */
  save(offset: number): number {
    return this.#read(offset, 4, true);
  }

  /** KVM_DEV_ARM_VGIC_GRP_DIST_REGS, write. @throws KvmError EINVAL an identification that this vGIC can't have */
  restore(offset: number, value: number): void {
    if (offset === GICD_IIDR) {
      const revision = (value >>> IIDR_REVISION_SHIFT) & 0xf;
      const others = ~(0xf << IIDR_REVISION_SHIFT);
      if ((value & others) !== (IIDR_PRODUCT & others) || revision < 1 || revision > IIDR_REVISION_LATEST) {
        throw new KvmError('EINVAL', 'KVM_SET_DEVICE_ATTR', `GICD_IIDR can't be 0x${value.toString(16)}`);
      }
      this.#revision = revision;
    } else if (offset === GICD_TYPER2) {
      // What it could say (no active state of SGIs) is to be agreed on before the vGIC is initialised, and is not offered.
      if (value !== 0) {
        const code = this.#vgic.initialized ? 'EBUSY' : 'EINVAL';
        throw new KvmError(code, 'KVM_SET_DEVICE_ATTR', 'GICD_TYPER2 is 0');
      }
    } else {
      this.#write(offset, 4, value, true);
    }
  }

  /** The registers that can be set before the vGIC is initialised: what it is to be like. */
  static isEarly(offset: number): boolean {
    return offset === GICD_IIDR || offset === GICD_TYPER2;
  }

  /** Whether GICR_CTLR states its fixed bits, which revision 3 brought. */
  get hasRedistributorFlags(): boolean {
    return this.#revision >= 3;
  }

  #read(offset: number, len: number, raw: boolean): number {
    if (isIrqRegister(offset)) return readIrqRegister(this, offset, len, raw);
    if (len !== 4) return 0;
    if (offset >= GICD_IROUTER && offset < GICD_IROUTER_END) {
      // Only Aff2.Aff1.Aff0, the low half, can be set.
      return (offset & 4) === 0 ? (this.irq((offset - GICD_IROUTER) >>> 3)?.affinity ?? 0) : 0;
    }
    switch (offset) {
      case GICD_CTLR:
        return CTLR_DS | CTLR_ARE | (this.#vgic.enabled ? CTLR_ENABLE_G1 : 0);
      case GICD_TYPER:
        return (this.#vgic.hasIts ? TYPER_ID_BITS_LPIS | TYPER_LPIS : TYPER_ID_BITS) | (this.#vgic.nrIrqs / 32 - 1);
      case GICD_IIDR:
        return this.iidr;
      // Reads as ones in the kernel too: no error is ever reported.
      case GICD_STATUSR:
        return 0xffff_ffff;
      case GICD_PIDR2:
        return PIDR2_GICV3;
      default:
        return 0;
    }
  }

  #write(offset: number, len: number, value: number, raw: boolean): void {
    if (isIrqRegister(offset)) {
      writeIrqRegister(this, offset, len, value, raw);
    } else if (len !== 4) {
      return;
    } else if (offset >= GICD_IROUTER && offset < GICD_IROUTER_END) {
      const irq = (offset & 4) === 0 ? this.irq((offset - GICD_IROUTER) >>> 3) : undefined;
      if (irq !== undefined) this.#vgic.setAffinity(irq, value & 0xff_ffff);
    } else if (offset === GICD_CTLR) {
      this.#vgic.setEnabled((value & CTLR_ENABLE_G1) !== 0);
    }
  }
}

/** The first INTID of a register that is about some; `undefined` for others. */
function firstIntid(offset: number): number | undefined {
  if (isIrqRegister(offset)) return firstIrq(offset);
  if (offset >= GICD_ITARGETSR && offset < GICD_ITARGETSR + 0x400) return offset - GICD_ITARGETSR;
  if (offset >= GICD_IGRPMODR && offset < GICD_IGRPMODR_END) return (offset - GICD_IGRPMODR) * 8;
  if (offset >= GICD_IROUTER && offset < GICD_IROUTER_END) return (offset - GICD_IROUTER) >>> 3;
  return undefined;
}
