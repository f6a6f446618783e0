import { Daif, Esr, type ExceptionClass, Pstate, Sctlr, Vector, VectorGroup } from './architecture.js';
import { Offset } from './layout.js';
import type { CpuState } from './state.js';
import { SR } from './sysregs.js';

/** SPSR_EL1.M of what EL1 may return to: EL0t, EL1t, EL1h. */
const RETURN_MODES: readonly number[] = [0b00000, 0b00100, 0b00101];
/** PSTATE that an illegal return leaves as it is: SSBS, DIT, UAO and the mode. NZCV, DAIF and PAN come from SPSR_EL1. */
const KEPT_BY_ILLEGAL_RETURN = Pstate.SSBS | Pstate.DIT | Pstate.UAO | 0x1f;
/** VBAR_EL1 has no bits below. */
const VECTORS_SIZE = 0x800;

/**
 * The registers of a processor that takes an exception to EL1 (Arm ARM DDI 0487 D1.3.5, AArch64.TakeException). A guest takes
 * hundreds of thousands: no BigInt is made here.
 * @param iss of the exceptions that have a syndrome, SYNC and SERROR
 */
export function enterException(state: CpuState, kind: Vector, ec: ExceptionClass, iss: number): void {
  const group =
    state.el === 0 ? VectorGroup.EL0 : state.get32(Offset.SPSEL) === 0 ? VectorGroup.EL1T : VectorGroup.EL1H;
  state.copy64(SR.ELR_EL1.offset, Offset.PC);
  state.set32(SR.SPSR_EL1.offset, state.getPstate());
  state.set32(SR.SPSR_EL1.offset + 4, 0);
  if (kind === Vector.SYNC || kind === Vector.SERROR) {
    state.set32(SR.ESR_EL1.offset, (ec << 26) | Esr.IL | iss);
    state.set32(SR.ESR_EL1.offset + 4, 0);
  }
  state.set32(Offset.EL, 1);
  state.selectSp(1);
  state.set32(Offset.DAIF, Daif.ALL);
  state.illegal = false;
  state.singleStep = false;
  if (!state.sctlr(Sctlr.SPAN)) state.set32(Offset.PAN, Pstate.PAN);
  state.set32(Offset.UAO, 0);
  state.set32(Offset.BTYPE, 0);
  state.set32(Offset.SSBS, state.sctlr(Sctlr.DSSBS) ? Pstate.SSBS : 0);
  // Within the vectors nothing is carried into the upper half.
  state.set32(Offset.PC, (state.get32(SR.VBAR_EL1.offset) & -VECTORS_SIZE) + group + kind);
  state.set32(Offset.PC + 4, state.get32(SR.VBAR_EL1.offset + 4));
}

/** PSTATE as an exception return from EL1 leaves it, with IL where that is illegal (AArch64.ExceptionReturn, D1.3.7). */
export function returnedPstate(state: CpuState): number {
  const spsr = state.get32(SR.SPSR_EL1.offset);
  if (RETURN_MODES.includes(spsr & 0x1f)) return spsr;
  const kept = state.getPstate() & KEPT_BY_ILLEGAL_RETURN;
  return (spsr & ~KEPT_BY_ILLEGAL_RETURN) | kept | Pstate.IL;
}
