import type { Emitter, Val } from './emitter.js';
import { helper } from './helpers.js';

/** Takes an alignment fault (a Data Abort) for the virtual address; the second argument is 1 for a store, 0 for a load. */
export const ALIGNMENT_FAULT = helper('alignmentFault', 'li:');

/**
 * Faults where an atomic, exclusive or acquire/release access does not lie within an aligned 16 bytes
 * (FEAT_LSE2; Arm ARM DDI 0487 J1.1, AArch64.UnalignedAccessFaults, with SCTLR_ELx.nAA = 0).
 * @param isWrite a store; not an atomic that reads too, which reports WnR 0 where its read alone would fault
 */
export function checkAtomicAlignment(e: Emitter, va: Val, bytes: number, isWrite: boolean): void {
  if (bytes === 1) return;
  const within = e.and(e.wrap(va), e.i32(15));
  e.if(e.op('i32.gt_u', within, e.i32(16 - bytes)), () => {
    e.call(ALIGNMENT_FAULT, va, e.i32(isWrite ? 1 : 0));
    e.checkExit();
  });
}
