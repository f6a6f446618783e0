/** What an indirect branch into a guarded page may come to (FEAT_BTI; Arm ARM DDI 0487 D8.4.6, J1.1 BTypeCompatible). */

/** The hint of a word, CRm and op2, or -1 where it is none. */
const hintOf = (word: number): number => ((word & 0xffff_f01f) >>> 0 === 0xd503_201f ? (word >>> 5) & 0x7f : -1);
const PACIASP = 0b0011_001;
const PACIBSP = 0b0011_011;
/** BTI, to which the targets are bit 1 (c) and bit 2 (j). */
const BTI = 0b0100_000;
const BTI_CALL = 0b010;
const BTI_JUMP = 0b100;

/** PSTATE.BTYPE: by BR through X16 or X17, or from a page that is not guarded; by BLR; by another BR. */
const BType = { EITHER: 0b01, CALL: 0b10, JUMP: 0b11 } as const;

/**
 * Whether an instruction is one that a branch may come to.
 * @param btype PSTATE.BTYPE, not 0
 * @param strict SCTLR_EL1.BT0 or BT1, that of the EL: PACIASP and PACIBSP are no targets of jumps
 */
export function isLandingPad(word: number, btype: number, strict: boolean): boolean {
  const hint = hintOf(word);
  if (hint === PACIASP || hint === PACIBSP) return btype !== BType.JUMP || !strict;
  if ((hint & ~(BTI_CALL | BTI_JUMP)) !== BTI) return false;
  if (btype === BType.EITHER) return hint !== BTI;
  return (hint & (btype === BType.CALL ? BTI_CALL : BTI_JUMP)) !== 0;
}

/** BRK and HLT, which take their own exception wherever they are. */
export const isBreak = (word: number): boolean => {
  const fixed = (word & 0xffe0_001f) >>> 0;
  return fixed === 0xd420_0000 || fixed === 0xd440_0000;
};
