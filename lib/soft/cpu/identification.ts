import { sysregIndex } from '../../kvm/registers.js';
import { PAUTH_ID_FIELDS } from './pointer-auth.js';
import type { CpuState } from './state.js';
import { SR, SYSREGS, type Sysreg, sysregByIndex } from './sysregs.js';

/** What a vCPU says that it is: the registers that a reset leaves alone, and their fields that depend on how it was made. */

const ISAR0 = sysregByIndex(sysregIndex(3, 0, 0, 6, 0))!;
const ISAR1 = sysregByIndex(sysregIndex(3, 0, 0, 6, 1))!;
/** ID_AA64ISAR0_EL1.RNDR. */
const RNDR = 1n << 60n;
/** ID_AA64ISAR1_EL1: APA, API, GPA and GPI. */
const PAUTH_MASK = 0xff00_0ff0n;

export const isIdentification = (r: Sysreg): boolean =>
  (r.access === 'constant' && r !== SR.OSLSR_EL1) || r === SR.CTR_EL0 || r === SR.DCZID_EL0;

/** Sets them all. @param random there are random numbers (FEAT_RNG) */
export function identify(state: CpuState, random: boolean): void {
  for (const r of SYSREGS) if (isIdentification(r)) state.set64(r.offset, r.reset);
  if (random) state.set64(ISAR0.offset, ISAR0.reset | RNDR);
}

/** Says whether there is pointer authentication. */
export function setPointerAuth(state: CpuState, on: boolean): void {
  const others = state.get64(ISAR1.offset) & ~PAUTH_MASK;
  state.set64(ISAR1.offset, on ? others | PAUTH_ID_FIELDS : others);
}
