import { type Device, type Vcpu, VgicCtrl, VgicGroup } from '#lib/kvm/index.js';
import { Gits } from './its.ts';
import { Sysreg } from './machine.ts';

/** One register of a GIC: the group and attribute that it has in the API. */
export interface SavedRegister {
  readonly group: number;
  readonly attr: bigint;
  readonly value: bigint;
}

export interface SavedGic {
  readonly registers: readonly SavedRegister[];
  readonly its: readonly SavedRegister[];
}

const range = (from: number, to: number, step: number): number[] =>
  Array.from({ length: (to - from) / step }, (_, i) => from + i * step);

/**
 * The registers in the order in which they are put back: what the GIC is, the distributor's switch (the kernel queues no interrupt
 * that becomes pending while it is off, also not when it comes on), configuration, then state.
 */
const DIST = [
  0x8,
  0x0,
  0x84,
  ...range(0xc08, 0xc10, 4),
  ...range(0x420, 0x440, 4),
  ...range(0x6100, 0x6200, 8),
  0x104,
  0x204,
  0x304,
];
const REDIST = [
  0x70,
  0x74,
  0x78,
  0x7c,
  0x1_0080,
  0x1_0c04,
  ...range(0x1_0400, 0x1_0420, 4),
  0x1_0100,
  0x1_0200,
  0x1_0300,
  0x0,
];
const ICC = [
  Sysreg.ICC_SRE,
  Sysreg.ICC_CTLR,
  Sysreg.ICC_BPR0,
  Sysreg.ICC_BPR1,
  Sysreg.ICC_PMR,
  Sysreg.ICC_AP0R0,
  Sysreg.ICC_AP1R0,
  Sysreg.ICC_IGRPEN0,
  Sysreg.ICC_IGRPEN1,
];
/** Registers of which only the ones count when they are written: each with the one that clears. */
const CLEARS: ReadonlyMap<number, number> = new Map([
  [0x100, 0x180],
  [0x300, 0x380],
]);
const ITS = [Gits.IIDR, Gits.CBASER, Gits.CREADR, Gits.CWRITER, Gits.BASER0, Gits.BASER1, Gits.CTLR];

const at = (vcpu: number, attr: number): bigint => (BigInt(vcpu) << 32n) | BigInt(attr);

/** Saves a GICv3 with 64 interrupts, and its ITS, whose tables go to RAM. */
export function saveGic(gic: Device, its: Device | undefined, vcpus: readonly Vcpu[]): SavedGic {
  const read = (device: Device, group: number, attr: bigint): SavedRegister => ({
    group,
    attr,
    value: device.getDeviceAttr(group, attr),
  });
  if (its !== undefined) {
    its.setDeviceAttr(VgicGroup.CTRL, VgicCtrl.ITS_SAVE_TABLES);
    gic.setDeviceAttr(VgicGroup.CTRL, VgicCtrl.SAVE_PENDING_TABLES);
  }
  return {
    registers: [
      ...DIST.map((attr) => read(gic, VgicGroup.DIST_REGS, BigInt(attr))),
      ...vcpus.flatMap(({ id }) => [
        ...REDIST.map((attr) => read(gic, VgicGroup.REDIST_REGS, at(id, attr))),
        ...ICC.map((attr) => read(gic, VgicGroup.CPU_SYSREGS, at(id, attr))),
        read(gic, VgicGroup.LEVEL_INFO, at(id, 0)),
      ]),
      read(gic, VgicGroup.LEVEL_INFO, 32n),
    ],
    its: its === undefined ? [] : ITS.map((attr) => read(its, VgicGroup.ITS_REGS, BigInt(attr))),
  };
}

/** Puts it into a GIC that has its addresses; RAM is there. */
export function restoreGic(gic: Device, its: Device | undefined, saved: SavedGic): void {
  for (const { group, attr, value } of saved.registers) {
    const offset = Number(attr & 0xffff_ffffn);
    const block = group === VgicGroup.CPU_SYSREGS || group === VgicGroup.LEVEL_INFO ? 0 : offset & 0xff80;
    const clear = CLEARS.get(block);
    if (clear !== undefined) gic.setDeviceAttr(group, (attr & ~0xff80n) | BigInt(clear), 0xffff_ffff);
    gic.setDeviceAttr(group, attr, value);
  }
  for (const { attr, value } of saved.its) {
    if (attr === BigInt(Gits.CTLR)) its?.setDeviceAttr(VgicGroup.CTRL, VgicCtrl.ITS_RESTORE_TABLES);
    its?.setDeviceAttr(VgicGroup.ITS_REGS, attr, value);
  }
}

/** Moves what the vCPUs hold themselves. */
export function copyVcpus(from: readonly Vcpu[], to: readonly Vcpu[]): void {
  for (const [i, vcpu] of from.entries()) {
    for (const id of vcpu.getRegList()) to[i]!.setOneReg(id, vcpu.getOneReg(id));
    to[i]!.setMpState(vcpu.getMpState());
  }
}

/** What an MMIO exit left over is done before a state is whole. */
export function completeExit(vcpu: Vcpu): void {
  vcpu.immediateExit = true;
  vcpu.run();
  vcpu.immediateExit = false;
}
