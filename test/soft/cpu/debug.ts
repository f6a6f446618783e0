import { sysregIndex } from '#lib/kvm/registers.js';
import { type BareMetal, DATA, RAM, REG, withMmu } from '../bare-metal.ts';

/** What the tests of self-hosted debug share (Arm ARM DDI 0487 D2). */

export const BVR = (n: number): number => sysregIndex(2, 0, 0, n, 4);
export const BCR = (n: number): number => sysregIndex(2, 0, 0, n, 5);
export const WVR = (n: number): number => sysregIndex(2, 0, 0, n, 6);
export const WCR = (n: number): number => sysregIndex(2, 0, 0, n, 7);
export const OSLAR = sysregIndex(2, 0, 1, 0, 4);
export const OSLSR = sysregIndex(2, 0, 1, 1, 4);
export const OSDLR = sysregIndex(2, 0, 1, 3, 4);
export const CONTEXTIDR = sysregIndex(3, 0, 13, 0, 1);

export const SS = 1n;
export const KDE = 1n << 13n;
export const MDE = 1n << 15n;
/** PSTATE.SS and PSTATE.D. */
export const PSTATE_SS = 1n << 21n;
export const D = 1n << 9n;

/** Exception classes as from a lower EL; from the same EL it is one more. */
export const EC = { BREAKPOINT: 0x30, STEP: 0x32, WATCHPOINT: 0x34, BRK: 0x3c } as const;
/** ISS of a debug exception; of a step that stepped, and of one that stepped a Load-Exclusive. */
export const FSC = 0x22;
export const STEPPED = (1 << 24) | FSC;
export const STEPPED_EXCLUSIVE = STEPPED | (1 << 6);
export const WNR = 1 << 6;
export const CM = 1 << 8;

const E = 1n;
/** DBGBCR and DBGWCR: PMC or PAC 3, both ELs, is the default. */
export const bcr = (f: { els?: bigint; bt?: bigint; lbn?: bigint; hmc?: bigint; ssc?: bigint } = {}): bigint =>
  E |
  ((f.els ?? 3n) << 1n) |
  (0xfn << 5n) |
  ((f.hmc ?? 0n) << 13n) |
  ((f.ssc ?? 0n) << 14n) |
  ((f.lbn ?? 0n) << 16n) |
  ((f.bt ?? 0n) << 20n);
export const wcr = (
  f: {
    els?: bigint;
    lsc?: bigint;
    bas?: bigint;
    hmc?: bigint;
    ssc?: bigint;
    lbn?: bigint;
    wt?: bigint;
    mask?: bigint;
  } = {},
): bigint =>
  E |
  ((f.els ?? 3n) << 1n) |
  ((f.lsc ?? 3n) << 3n) |
  ((f.bas ?? 0xffn) << 5n) |
  ((f.hmc ?? 0n) << 13n) |
  ((f.ssc ?? 0n) << 14n) |
  ((f.lbn ?? 0n) << 16n) |
  ((f.wt ?? 0n) << 20n) |
  ((f.mask ?? 0n) << 24n);

/** Translation on: code for both ELs, and eight pages of data that both may write. */
export function mapForBoth(vm: BareMetal): void {
  const tables = withMmu(vm);
  tables.mapRange(RAM, RAM, DATA - RAM, { ap: 3 });
  tables.mapRange(DATA, DATA, 0x8000, { ap: 1 });
  vm.cpu.setSysreg(REG.SCTLR_EL1, vm.sysreg(REG.SCTLR_EL1));
}

/** Machines that only interpret, and that compile at once. */
export const THRESHOLDS = [undefined, 1] as const;
