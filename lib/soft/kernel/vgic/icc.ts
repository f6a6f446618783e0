import { sysregIndex } from '../../../kvm/index.js';
import type { CpuInterface } from './cpu-interface.js';
import type { Vgic } from './vgic.js';

/** Encodings of the GICv3 CPU interface's registers (IHI 0069, 12.2). */
const ICC_PMR = sysregIndex(3, 0, 4, 6, 0);
const ICC_IAR0 = sysregIndex(3, 0, 12, 8, 0);
const ICC_EOIR0 = sysregIndex(3, 0, 12, 8, 1);
const ICC_HPPIR0 = sysregIndex(3, 0, 12, 8, 2);
const ICC_BPR0 = sysregIndex(3, 0, 12, 8, 3);
const ICC_AP0R0 = sysregIndex(3, 0, 12, 8, 4);
const ICC_AP1R0 = sysregIndex(3, 0, 12, 9, 0);
const ICC_DIR = sysregIndex(3, 0, 12, 11, 1);
const ICC_RPR = sysregIndex(3, 0, 12, 11, 3);
const ICC_SGI1R = sysregIndex(3, 0, 12, 11, 5);
const ICC_ASGI1R = sysregIndex(3, 0, 12, 11, 6);
const ICC_SGI0R = sysregIndex(3, 0, 12, 11, 7);
const ICC_IAR1 = sysregIndex(3, 0, 12, 12, 0);
const ICC_EOIR1 = sysregIndex(3, 0, 12, 12, 1);
const ICC_HPPIR1 = sysregIndex(3, 0, 12, 12, 2);
const ICC_BPR1 = sysregIndex(3, 0, 12, 12, 3);
const ICC_CTLR = sysregIndex(3, 0, 12, 12, 4);
const ICC_SRE = sysregIndex(3, 0, 12, 12, 5);
const ICC_IGRPEN0 = sysregIndex(3, 0, 12, 12, 6);
const ICC_IGRPEN1 = sysregIndex(3, 0, 12, 12, 7);

/** ICC_SRE_EL1: system registers only (SRE, DFB, DIB). */
const SRE = 7;
/** ICC_CTLR_EL1: PRIbits, IDbits, and SEIS with A3V, which a restore must name as they are. */
const CTLR_PRI_BITS = 7 << 8;
const CTLR_ID_BITS = 7 << 11;
const CTLR_FEATURES = 3 << 14;

const INTID_MASK = 0xff_ffffn;

/** A guest's MRS of ICC_*. `undefined`: there is no such register. */
export function readIcc(cpu: CpuInterface, index: number): number | undefined {
  switch (index) {
    case ICC_IAR1:
      return cpu.acknowledge(1);
    case ICC_IAR0:
      return cpu.acknowledge(0);
    case ICC_HPPIR1:
      return cpu.highestPending(1);
    case ICC_HPPIR0:
      return cpu.highestPending(0);
    case ICC_RPR:
      return cpu.runningPriority;
    default:
      return saveIcc(cpu, index);
  }
}

/** The registers that hold state: what KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS reads. */
export function saveIcc(cpu: CpuInterface, index: number): number | undefined {
  switch (index) {
    case ICC_PMR:
      return cpu.pmr;
    case ICC_BPR0:
      return cpu.bpr0;
    case ICC_BPR1:
      return cpu.bpr1;
    case ICC_AP0R0:
      return cpu.getActivePriorities(0);
    case ICC_AP1R0:
      return cpu.getActivePriorities(1);
    case ICC_CTLR:
      return cpu.ctlr;
    case ICC_SRE:
      return SRE;
    case ICC_IGRPEN0:
      return cpu.getGroupEnabled(0) ? 1 : 0;
    case ICC_IGRPEN1:
      return cpu.getGroupEnabled(1) ? 1 : 0;
    default:
      return undefined;
  }
}

/** A guest's MSR to ICC_*. `false`: there is no such register. */
export function writeIcc(vgic: Vgic, cpu: CpuInterface, index: number, value: bigint): boolean {
  switch (index) {
    case ICC_EOIR1:
      cpu.endOfInterrupt(1, Number(value & INTID_MASK));
      return true;
    case ICC_EOIR0:
      cpu.endOfInterrupt(0, Number(value & INTID_MASK));
      return true;
    case ICC_DIR:
      cpu.deactivate(Number(value & INTID_MASK));
      return true;
    case ICC_SGI1R:
      vgic.sendSgi(cpu, value, true);
      return true;
    case ICC_SGI0R:
    case ICC_ASGI1R:
      vgic.sendSgi(cpu, value, false);
      return true;
    default:
      return restoreIcc(cpu, index, Number(value & 0xffff_ffffn));
  }
}

/** ICC_AP0R1_EL1 to ICC_AP0R3_EL1 and those of Group 1: known to a save and restore, and not there with five bits of priority. */
const isSpareActivePriority = (index: number): boolean =>
  (index > ICC_AP0R0 && index <= ICC_AP0R0 + 3) || (index > ICC_AP1R0 && index <= ICC_AP1R0 + 3);

const STATE: ReadonlySet<number> = new Set([
  ICC_PMR,
  ICC_BPR0,
  ICC_BPR1,
  ICC_AP0R0,
  ICC_AP1R0,
  ICC_CTLR,
  ICC_SRE,
  ICC_IGRPEN0,
  ICC_IGRPEN1,
]);

/** Whether KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS knows the register. */
export const isSavedIcc = (index: number): boolean => STATE.has(index) || isSpareActivePriority(index);

/**
 * Whether `value` is one that {@link restoreIcc} can put into the register (kernel: set_gic_ctlr and its neighbours): with no more bits
 * of priority and INTID than there are, and the same features.
 */
export function isRestorable(cpu: CpuInterface, index: number, value: number): boolean {
  if (index === ICC_SRE) return (value & 1) === 1;
  if (index !== ICC_CTLR) return STATE.has(index);
  const { ctlr } = cpu;
  return (
    (value & CTLR_PRI_BITS) <= (ctlr & CTLR_PRI_BITS) &&
    (value & CTLR_ID_BITS) <= (ctlr & CTLR_ID_BITS) &&
    (value & CTLR_FEATURES) === (ctlr & CTLR_FEATURES)
  );
}

export function restoreIcc(cpu: CpuInterface, index: number, value: number): boolean {
  switch (index) {
    case ICC_PMR:
      cpu.pmr = value;
      return true;
    case ICC_BPR0:
      cpu.bpr0 = value;
      return true;
    case ICC_BPR1:
      cpu.bpr1 = value;
      return true;
    case ICC_AP0R0:
      cpu.setActivePriorities(0, value);
      return true;
    case ICC_AP1R0:
      cpu.setActivePriorities(1, value);
      return true;
    case ICC_CTLR:
      cpu.ctlr = value;
      return true;
    case ICC_SRE:
      return true;
    case ICC_IGRPEN0:
      cpu.setGroupEnabled(0, (value & 1) !== 0);
      return true;
    case ICC_IGRPEN1:
      cpu.setGroupEnabled(1, (value & 1) !== 0);
      return true;
    default:
      return false;
  }
}
