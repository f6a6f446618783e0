import { NR_SGIS, PRIORITY_MASK, type VgicIrq } from './irq.js';

/** The interrupts that a frame's registers are about. */
export interface IrqSource {
  /** The interrupt, or `undefined` where the frame has none of this INTID: its bits are RAZ/WI. */
  irq(intid: number): VgicIrq | undefined;
  /** `irq` changed in a way that may change where it goes. */
  changed(irq: VgicIrq): void;
}

/** Register blocks, the same in GICD and in GICR's SGI frame (IHI 0069, 12.9 and 12.11), 0x80 bytes of one bit an INTID each. */
const IGROUPR = 0x080;
const ISENABLER = 0x100;
const ICENABLER = 0x180;
const ISPENDR = 0x200;
const ICPENDR = 0x280;
const ISACTIVER = 0x300;
const ICACTIVER = 0x380;
const IPRIORITYR = 0x400;
const IPRIORITYR_END = 0x800;
const ICFGR = 0xc00;
const ICFGR_END = 0xd00;

/** Whether {@link readIrqRegister} and {@link writeIrqRegister} own this offset. */
export const isIrqRegister = (offset: number): boolean =>
  (offset >= IGROUPR && offset < IPRIORITYR_END) || (offset >= ICFGR && offset < ICFGR_END);

/** The first INTID that a register of these blocks is about: they have one bit an INTID, eight, or two. */
export function firstIrq(offset: number): number {
  if (offset < IPRIORITYR) return (offset & 0x7f) * 8;
  return offset < IPRIORITYR_END ? offset - IPRIORITYR : (offset - ICFGR) * 4;
}

function bitOf(irq: VgicIrq, block: number, raw: boolean): boolean {
  switch (block) {
    case IGROUPR:
      return irq.group === 1;
    case ISENABLER:
    case ICENABLER:
      return irq.enabled;
    case ISPENDR:
      return raw ? irq.pendingLatch : irq.pending;
    case ICPENDR:
      return !raw && irq.pending;
    default:
      return irq.active;
  }
}

/**
 * @param offset of a register block, aligned to `len`
 * @param raw a save by user space: ISPENDR reads the latch without the line, so that it can be restored
 */
export function readIrqRegister(source: IrqSource, offset: number, len: number, raw: boolean): number {
  let value = 0;
  if (offset < IPRIORITYR) {
    if (len !== 4) return 0;
    const block = offset & ~0x7f;
    const first = (offset & 0x7c) << 3;
    for (let i = 0; i < 32; i++) {
      const irq = source.irq(first + i);
      if (irq !== undefined && bitOf(irq, block, raw)) value |= 1 << i;
    }
  } else if (offset < IPRIORITYR_END) {
    if (len === 2) return 0;
    for (let i = 0; i < len; i++) value |= (source.irq(offset - IPRIORITYR + i)?.priority ?? 0) << (i * 8);
  } else {
    if (len !== 4) return 0;
    const first = (offset - ICFGR) << 2;
    for (let i = 0; i < 16; i++) if (source.irq(first + i)?.edge === true) value |= 2 << (i * 2);
  }
  return value >>> 0;
}

/** @param raw a restore by user space: ICPENDR is ignored and ISPENDR sets the whole latch, as arm-vgic-v3.rst says */
export function writeIrqRegister(source: IrqSource, offset: number, len: number, value: number, raw: boolean): void {
  if (offset < IPRIORITYR) {
    if (len === 4) writeBits(source, offset & ~0x7f, (offset & 0x7c) << 3, value, raw);
  } else if (offset < IPRIORITYR_END) {
    if (len === 2) return;
    for (let i = 0; i < len; i++) {
      const irq = source.irq(offset - IPRIORITYR + i);
      if (irq === undefined) continue;
      irq.priority = (value >>> (i * 8)) & PRIORITY_MASK;
      source.changed(irq);
    }
  } else if (len === 4) {
    const first = (offset - ICFGR) << 2;
    for (let i = 0; i < 16; i++) {
      const intid = first + i;
      const irq = source.irq(intid);
      // The configuration of SGIs is fixed, and that of PPIs implementation defined: the timers' are level.
      if (irq === undefined || intid < 2 * NR_SGIS) continue;
      irq.edge = ((value >>> (i * 2)) & 2) !== 0;
      source.changed(irq);
    }
  }
}

function writeBits(source: IrqSource, block: number, first: number, value: number, raw: boolean): void {
  for (let i = 0; i < 32; i++) {
    const set = ((value >>> i) & 1) !== 0;
    // IGROUPR takes every bit, and so does ISPENDR when it is restored; all others act on ones only.
    if (!set && block !== IGROUPR && !(raw && block === ISPENDR)) continue;
    const irq = source.irq(first + i);
    if (irq === undefined) continue;
    switch (block) {
      case IGROUPR:
        irq.group = set ? 1 : 0;
        break;
      case ISENABLER:
        irq.enabled = true;
        break;
      case ICENABLER:
        irq.enabled = false;
        break;
      case ISPENDR:
        irq.pendingLatch = set;
        break;
      case ICPENDR:
        if (raw) continue;
        irq.pendingLatch = false;
        break;
      case ISACTIVER:
        irq.active = true;
        break;
      case ICACTIVER:
        irq.active = false;
        break;
    }
    source.changed(irq);
  }
}
