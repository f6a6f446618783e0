/**
 * What an access must be aligned to where alignment is checked (SCTLR_EL1.A, or Device memory): an instruction that moves
 * several elements is checked element by element (Arm ARM DDI 0487 B2.8.1), though generated code moves them in one access.
 * @param word the load or store
 * @param bytes size of the access
 */
export function alignmentOf(word: number, bytes: number): number {
  // Memory copies and sets move bytes: 00011x01…
  if ((word & 0xfb20_0c00) === 0x1900_0400) return 1;
  // Pairs: xx101x0x.
  if ((word & 0x3a00_0000) === 0x2800_0000) {
    const opc = word >>> 30;
    return Math.min(bytes, (word & 0x0400_0000) !== 0 ? 4 << opc : opc === 2 ? 8 : 4);
  }
  // Advanced SIMD structures: 0x00110x; bit 24 is set for those of one element.
  if ((word & 0xbe00_0000) >>> 0 === 0x0c00_0000) {
    const size = (word >>> 10) & 3;
    if ((word & 0x0100_0000) === 0) return Math.min(bytes, 1 << size);
    const scale = (word >>> 14) & 3;
    if (scale === 3) return Math.min(bytes, 1 << size);
    return Math.min(bytes, scale === 2 && (size & 1) !== 0 ? 8 : 1 << scale);
  }
  return bytes;
}

/** DC ZVA, which is not allowed on Device memory at all. */
export const isZeroing = (word: number): boolean => (word & 0xffff_ffe0) >>> 0 === 0xd50b_7420;

/** LDAR, STLR, LDLAR, STLLR, LDAPR, LDAPUR, STLUR and their narrow forms: what SCTLR_EL1.nAA lets cross 16 bytes. */
export const isOrdered = (word: number): boolean =>
  (word & 0x3fa0_0000) === 0x0880_0000 || (word & 0x3fff_fc00) === 0x38bf_c000 || (word & 0x3f20_0c00) === 0x1900_0000;
