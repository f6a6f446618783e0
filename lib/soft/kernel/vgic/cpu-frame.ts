import type { IoDevice } from '../io-bus.js';
import type { CpuInterface } from './cpu-interface.js';
import { INTID_SPURIOUS } from './irq.js';
import type { Vgic } from './vgic.js';

/** GICC registers (IHI 0048, 4.4). */
const GICC_CTLR = 0x00;
const GICC_PMR = 0x04;
const GICC_BPR = 0x08;
const GICC_IAR = 0x0c;
const GICC_EOIR = 0x10;
const GICC_RPR = 0x14;
const GICC_HPPIR = 0x18;
const GICC_ABPR = 0x1c;
const GICC_AIAR = 0x20;
const GICC_AEOIR = 0x24;
const GICC_AHPPIR = 0x28;
const GICC_APR0 = 0xd0;
const GICC_APR_END = 0xe0;
const GICC_IIDR = 0xfc;
const GICC_DIR = 0x1000;
/** Bytes of the frame. */
export const GICC_SIZE = 0x2000;

const CTLR_ENABLE_GRP0 = 1 << 0;
const CTLR_ENABLE_GRP1 = 1 << 1;
const CTLR_ACK_CTL = 1 << 2;
const CTLR_FIQ_EN = 1 << 3;
const CTLR_CBPR = 1 << 4;
const CTLR_EOI_MODE = 1 << 9;
/** Product KVM ('K'), a GICv2, implementer Arm. */
const IIDR = (0x4b << 20) | (2 << 16) | 0x43b;
/** What GICC_IAR and GICC_HPPIR read where the interrupt is one of Group 1 and AckCtl does not let them have it. */
const INTID_OTHER_GROUP = 1022;
const INTID_MASK = 0x3ff;
/** A saved GICC_PMR is GICH_VMCR.VMPriMask: the five bits that a priority has. */
const SAVED_PMR_SHIFT = 3;

/** A GICv2's CPU interface, in memory: the vCPU that accesses has its own (on hosts: GICV, which the hardware answers). */
export class CpuFrame implements IoDevice {
  readonly #vgic: Vgic;

  constructor(vgic: Vgic) {
    this.#vgic = vgic;
  }

  isWide(): boolean {
    return false;
  }

  #current(): CpuInterface | undefined {
    const vcpu = this.#vgic.current();
    return vcpu === undefined ? undefined : this.#vgic.redistributor(vcpu.id)?.cpu;
  }

  read(offset: number, len: number): number {
    const cpu = this.#current();
    if (cpu === undefined || len !== 4) return 0;
    switch (offset) {
      case GICC_PMR:
        return cpu.pmr;
      case GICC_IAR: {
        const group = cpu.signalled?.group;
        return group === 1 && !cpu.control.ackCtl ? INTID_OTHER_GROUP : cpu.acknowledge(group ?? 0);
      }
      case GICC_AIAR:
        return cpu.acknowledge(1);
      case GICC_RPR:
        return cpu.runningPriority;
      case GICC_HPPIR: {
        const group1 = cpu.highestPending(1);
        if (group1 !== INTID_SPURIOUS) return cpu.control.ackCtl ? group1 : INTID_OTHER_GROUP;
        return cpu.highestPending(0);
      }
      case GICC_AHPPIR:
        return cpu.highestPending(1);
      default:
        return saveGicc(cpu, offset) ?? 0;
    }
  }

  write(offset: number, len: number, value: number): void {
    const cpu = this.#current();
    if (cpu === undefined || len !== 4) return;
    switch (offset) {
      case GICC_PMR:
        cpu.pmr = value;
        return;
      case GICC_EOIR:
        cpu.endOfInterrupt(cpu.activeGroup(value & INTID_MASK) ?? 0, value & INTID_MASK);
        return;
      case GICC_AEOIR:
        cpu.endOfInterrupt(1, value & INTID_MASK);
        return;
      case GICC_DIR:
        cpu.deactivate(value & INTID_MASK);
        return;
      default:
        restoreGicc(cpu, offset, value);
    }
  }
}

/** Whether user space may save and restore the 32-bit register at `offset`. */
export const hasGicc = (offset: number): boolean =>
  [GICC_CTLR, GICC_PMR, GICC_BPR, GICC_ABPR, GICC_IIDR].includes(offset) ||
  (offset >= GICC_APR0 && offset < GICC_APR_END && (offset & 3) === 0);

/** The registers that hold state: what KVM_DEV_ARM_VGIC_GRP_CPU_REGS reads. */
export function saveGicc(cpu: CpuInterface, offset: number): number | undefined {
  switch (offset) {
    case GICC_CTLR:
      return (
        (cpu.getGroupEnabled(0) ? CTLR_ENABLE_GRP0 : 0) |
        (cpu.getGroupEnabled(1) ? CTLR_ENABLE_GRP1 : 0) |
        (cpu.control.ackCtl ? CTLR_ACK_CTL : 0) |
        (cpu.control.fiqEn ? CTLR_FIQ_EN : 0) |
        (cpu.control.cbpr ? CTLR_CBPR : 0) |
        (cpu.control.eoiMode ? CTLR_EOI_MODE : 0)
      );
    case GICC_PMR:
      return cpu.pmr >> SAVED_PMR_SHIFT;
    case GICC_BPR:
      return cpu.bpr0;
    case GICC_ABPR:
      return cpu.ownBpr1;
    case GICC_APR0:
      return (cpu.getActivePriorities(0) | cpu.getActivePriorities(1)) >>> 0;
    case GICC_IIDR:
      return IIDR;
    default:
      return undefined;
  }
}

export function restoreGicc(cpu: CpuInterface, offset: number, value: number): void {
  switch (offset) {
    case GICC_CTLR:
      cpu.control = {
        cbpr: (value & CTLR_CBPR) !== 0,
        eoiMode: (value & CTLR_EOI_MODE) !== 0,
        fiqEn: (value & CTLR_FIQ_EN) !== 0,
        ackCtl: (value & CTLR_ACK_CTL) !== 0,
      };
      cpu.setGroupEnabled(0, (value & CTLR_ENABLE_GRP0) !== 0);
      cpu.setGroupEnabled(1, (value & CTLR_ENABLE_GRP1) !== 0);
      return;
    case GICC_PMR:
      cpu.pmr = value << SAVED_PMR_SHIFT;
      return;
    case GICC_BPR:
      cpu.bpr0 = value;
      return;
    case GICC_ABPR:
      cpu.ownBpr1 = value;
      return;
    case GICC_APR0:
      // One register for both groups: which of them an active priority is of makes no difference to it.
      cpu.setActivePriorities(0, 0);
      cpu.setActivePriorities(1, value);
      return;
    default:
  }
}
