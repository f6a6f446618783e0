import { KvmError } from '../../../kvm/index.js';
import type { IoDevice } from '../io-bus.js';
import { IIDR_PRODUCT, IIDR_REVISION_LATEST, IIDR_REVISION_SHIFT } from './distributor.js';
import { NR_PRIVATE, NR_SGIS, type VgicIrq } from './irq.js';
import { firstIrq, type IrqSource, isIrqRegister, readIrqRegister, writeIrqRegister } from './irq-registers.js';
import type { Vgic } from './vgic.js';

/** GICD registers that a GICv2 has of its own (IHI 0048, 4.3). */
const GICD_CTLR = 0x000;
const GICD_TYPER = 0x004;
const GICD_IIDR = 0x008;
const GICD_IGROUPR0 = 0x080;
const GICD_IGROUPR_END = 0x100;
const GICD_ISPENDR0 = 0x200;
const GICD_ICPENDR0 = 0x280;
const GICD_ITARGETSR = 0x800;
const GICD_ITARGETSR_END = 0xc00;
const GICD_SGIR = 0xf00;
const GICD_CPENDSGIR = 0xf10;
const GICD_SPENDSGIR = 0xf20;
const GICD_SPENDSGIR_END = 0xf30;
/** Bytes of the frame. */
export const GICD_V2_SIZE = 0x1000;

const CTLR_ENABLE = 1;
/** Of GICD_ISPENDR0 and GICD_ICPENDR0. */
const SGI_BITS = 0xffff;
const FILTER_LIST = 0;
const FILTER_OTHERS = 1;
const FILTER_SELF = 2;

/**
 * A GICv2's distributor, as the kernel's vGIC models it: one enable for both groups. The private interrupts are those of the vCPU that
 * accesses, and an SGI remembers, one bit each, which vCPUs sent it.
 */
export class DistributorV2 implements IoDevice {
  readonly #vgic: Vgic;
  #revision = IIDR_REVISION_LATEST;
  /** Who writes GICD_IIDR knows that interrupts begin in Group 0, and may restore groups. */
  #groupsRestorable = false;

  constructor(vgic: Vgic) {
    this.#vgic = vgic;
  }

  isWide(): boolean {
    return false;
  }

  read(offset: number, len: number): number {
    const vcpu = this.#vgic.current();
    return vcpu === undefined ? 0 : this.#read(vcpu.id, offset, len);
  }

  write(offset: number, len: number, value: number): void {
    const vcpu = this.#vgic.current();
    if (vcpu !== undefined) this.#write(vcpu.id, offset, len, value);
  }

  /** Whether user space may save and restore the 32-bit register at `offset`. */
  has(offset: number): boolean {
    const end = this.#vgic.nrIrqs;
    return (
      (offset & 3) === 0 &&
      offset >= 0 &&
      (offset < 0xc ||
        (isIrqRegister(offset) && firstIrq(offset) < end) ||
        (isTargets(offset) && offset - GICD_ITARGETSR < end) ||
        offset === GICD_SGIR ||
        (offset >= GICD_CPENDSGIR && offset < GICD_SPENDSGIR_END))
    );
  }

  /** KVM_DEV_ARM_VGIC_GRP_DIST_REGS, read. */
  save(vcpuId: number, offset: number): number {
    return this.#read(vcpuId, offset, 4);
  }

  /** KVM_DEV_ARM_VGIC_GRP_DIST_REGS, write. @throws KvmError EINVAL an identification that this vGIC can't have */
  restore(vcpuId: number, offset: number, value: number): void {
    if (offset === GICD_IIDR) {
      const revision = (value >>> IIDR_REVISION_SHIFT) & 0xf;
      const others = ~(0xf << IIDR_REVISION_SHIFT);
      if ((value & others) !== (IIDR_PRODUCT & others) || revision < 1 || revision > IIDR_REVISION_LATEST) {
        throw new KvmError('EINVAL', 'KVM_SET_DEVICE_ATTR', `GICD_IIDR can't be 0x${value.toString(16)}`);
      }
      this.#revision = revision;
      this.#groupsRestorable = true;
    } else if (offset >= GICD_IGROUPR0 && offset < GICD_IGROUPR_END) {
      if (this.#groupsRestorable) this.#write(vcpuId, offset, 4, value);
    } else {
      if (offset === GICD_ISPENDR0 || offset === GICD_ICPENDR0) this.#restoreSgis(vcpuId, offset, value & SGI_BITS);
      this.#write(vcpuId, offset, 4, value);
    }
  }

  /** ISPENDR and ICPENDR can't say who sent an SGI: it is the vCPU itself, or nobody, as in the kernel. */
  #restoreSgis(vcpuId: number, offset: number, sgis: number): void {
    for (let intid = 0; intid < NR_SGIS; intid++) {
      if ((sgis & (1 << intid)) === 0) continue;
      const irq = this.#vgic.redistributor(vcpuId)!.irq(intid)!;
      this.#setSources(irq, offset === GICD_ISPENDR0 ? irq.sources | (1 << vcpuId) : 0);
    }
  }

  #source(vcpuId: number): IrqSource {
    return {
      irq: (intid) => (intid < NR_PRIVATE ? this.#vgic.redistributor(vcpuId)?.irq(intid) : this.#vgic.spi(intid)),
      changed: (irq) => this.#vgic.route(irq),
    };
  }

  #read(vcpuId: number, offset: number, len: number): number {
    const source = this.#source(vcpuId);
    if (isIrqRegister(offset)) return readIrqRegister(source, offset, len, false);
    if (isTargets(offset)) return readBytes(len, (i) => source.irq(offset - GICD_ITARGETSR + i)?.targets ?? 0);
    if (isSgiPending(offset)) return readBytes(len, (i) => source.irq((offset & 0xf) + i)?.sources ?? 0);
    if (len !== 4) return 0;
    switch (offset) {
      case GICD_CTLR:
        return this.#vgic.enabled ? CTLR_ENABLE : 0;
      case GICD_TYPER:
        return (this.#vgic.nrIrqs / 32 - 1) | ((this.#vgic.vcpuCount - 1) << 5);
      case GICD_IIDR:
        return (IIDR_PRODUCT | (this.#revision << IIDR_REVISION_SHIFT)) >>> 0;
      default:
        return 0;
    }
  }

  #write(vcpuId: number, offset: number, len: number, value: number): void {
    const source = this.#source(vcpuId);
    if (isIrqRegister(offset)) {
      // GICD_SPENDSGIR and GICD_CPENDSGIR are there for SGIs.
      const ignored = offset === GICD_ISPENDR0 || offset === GICD_ICPENDR0 ? SGI_BITS : 0;
      writeIrqRegister(source, offset, len, value & ~ignored, false);
    } else if (isTargets(offset)) {
      if (len === 2) return;
      for (let i = 0; i < len; i++) {
        const irq = source.irq(offset - GICD_ITARGETSR + i);
        if (irq !== undefined && irq.intid >= NR_PRIVATE) this.#vgic.setTargets(irq, (value >>> (i * 8)) & 0xff);
      }
    } else if (isSgiPending(offset)) {
      if (len === 2) return;
      for (let i = 0; i < len; i++) {
        const irq = source.irq((offset & 0xf) + i)!;
        const byte = (value >>> (i * 8)) & 0xff;
        this.#setSources(irq, offset >= GICD_SPENDSGIR ? irq.sources | byte : irq.sources & ~byte);
      }
    } else if (len === 4 && offset === GICD_CTLR) {
      this.#vgic.setEnabled((value & CTLR_ENABLE) !== 0);
    } else if (len === 4 && offset === GICD_SGIR) {
      this.#sendSgi(vcpuId, value);
    }
  }

  #sendSgi(vcpuId: number, value: number): void {
    const self = 1 << vcpuId;
    let targets: number;
    switch ((value >>> 24) & 3) {
      case FILTER_LIST:
        targets = (value >>> 16) & 0xff;
        break;
      case FILTER_OTHERS:
        targets = 0xff & ~self;
        break;
      case FILTER_SELF:
        targets = self;
        break;
      default:
        return;
    }
    for (let id = 0; id < 8; id++) {
      const irq = (targets & (1 << id)) === 0 ? undefined : this.#vgic.redistributor(id)?.irq(value & 0xf);
      if (irq !== undefined) this.#setSources(irq, irq.sources | self);
    }
  }

  #setSources(irq: VgicIrq, sources: number): void {
    irq.sources = sources;
    irq.pendingLatch = sources !== 0;
    this.#vgic.route(irq);
  }
}

const isTargets = (offset: number): boolean => offset >= GICD_ITARGETSR && offset < GICD_ITARGETSR_END;
const isSgiPending = (offset: number): boolean => offset >= GICD_CPENDSGIR && offset < GICD_SPENDSGIR_END;

function readBytes(len: number, byte: (i: number) => number): number {
  if (len === 2) return 0;
  let value = 0;
  for (let i = 0; i < len; i++) value |= byte(i) << (i * 8);
  return value >>> 0;
}
