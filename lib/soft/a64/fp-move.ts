import { allocatedType, bytesOf, getBits } from './fp-emit.js';
import { type Row, row } from './row.js';

/** FMOV in all its scalar forms (Arm ARM DDI 0487 C7.2.130 to C7.2.132). */

/** VFPExpandImm: sign, a three-bit exponent and four fraction bits, for N = 16, 32 or 64. */
export function vfpExpandImm(imm8: number, bits: 16 | 32 | 64): bigint {
  const exponentBits = bits === 16 ? 5 : bits === 32 ? 8 : 11;
  const b = (imm8 >> 6) & 1;
  const repeated = b === 1 ? (1 << (exponentBits - 3)) - 1 : 0;
  const exponent = ((b ^ 1) << (exponentBits - 1)) | (repeated << 2) | ((imm8 >> 4) & 3);
  const fraction = BigInt(imm8 & 15) << BigInt(bits - exponentBits - 1 - 4);
  return (BigInt(imm8 >> 7) << BigInt(bits - 1)) | (BigInt(exponent) << BigInt(bits - exponentBits - 1)) | fraction;
}

/** Between a general-purpose register and one of the same size, or a half. */
const sameSize = (f: { readonly sf: number; readonly type: number }): boolean => f.type === 3 || f.type === f.sf;

export const fpMove: readonly Row[] = [
  row('FMOV (register)', '00011110 type:2 1 000000 10000 Vn Vd', { when: allocatedType }, (e, f) => {
    const bytes = bytesOf(f.type);
    e.setScalar(f.Vd, bytes, getBits(e, f.Vn, bytes));
  }),
  row(
    'FMOV (scalar, immediate)',
    '00011110 type:2 1 imm8:8# 100 00000 Vd',
    { when: allocatedType, imm: (f) => vfpExpandImm(f.imm8, f.type === 1 ? 64 : f.type === 0 ? 32 : 16) },
    (e, f) => {
      const bytes = bytesOf(f.type);
      e.setScalar(f.Vd, bytes, bytes === 8 ? f.imm : e.wrap(f.imm));
    },
  ),
  row('FMOV (general), to general', 'sf 0 0 11110 type:2 1 00 110 000000 Vn Rd', { when: sameSize }, (e, f) => {
    e.setR(f.Rd, getBits(e, f.Vn, bytesOf(f.type)));
  }),
  row('FMOV (general), from general', 'sf 0 0 11110 type:2 1 00 111 000000 Rn Vd', { when: sameSize }, (e, f) => {
    const bytes = bytesOf(f.type);
    e.setScalar(f.Vd, bytes, bytes === 8 ? e.getX(f.Rn) : e.getW(f.Rn));
  }),
  row('FMOV (top half, to general)', '1 0 0 11110 10 1 01 110 000000 Vn Rd', {}, (e, f) => {
    e.setR(f.Rd, e.getElem(f.Vn, 8, 1));
  }),
  row('FMOV (top half, from general)', '1 0 0 11110 10 1 01 111 000000 Rn Vd', {}, (e, f) => {
    e.setElem(f.Vd, 8, 1, e.getX(f.Rn));
  }),
];
