import { adds, amount, subs } from './arithmetic.js';
import { bitfieldMask, logicalImmediate } from './bit-masks.js';
import type { Emitter, Val } from './emitter.js';
import { logicalFlags } from './flags.js';
import { type Row, row } from './row.js';

/**
 * Data processing with an immediate (Arm ARM DDI 0487 C4.1.93). Rows that only make a frequent case cheaper (CMP, LSL, UXTB …)
 * stand before the general one.
 */

const shifted12 = (f: { sh: number; imm12: number }): number => (f.sh === 1 ? f.imm12 * 4096 : f.imm12);
const pcRelative = (f: { immhi: number; immlo: number }): number => ((f.immhi << 13) >> 11) | f.immlo;

/** The row's constant, in the width of the operation. */
const imm = (e: Emitter, f: { sf: number; imm: Val }): Val => (f.sf === 1 ? f.imm : e.wrap(f.imm));

interface BitmaskFields {
  readonly sf: number;
  readonly N: number;
  readonly immr: number;
  readonly imms: number;
}
const bitmask = {
  when: (f: BitmaskFields): boolean => logicalImmediate(f.sf, f.N, f.imms, f.immr) !== undefined,
  imm: (f: BitmaskFields): bigint => logicalImmediate(f.sf, f.N, f.imms, f.immr) ?? 0n,
};

interface WideFields {
  readonly sf: number;
  readonly hw: number;
  readonly imm16: number;
}
const moveWideAllocated = (f: WideFields): boolean => f.sf === 1 || f.hw < 2;
/** Exact: 16 bits of it count. */
const moveWide = (f: WideFields): number => f.imm16 * 2 ** (16 * f.hw);

const width = (f: { sf: number }): number => (f.sf === 1 ? 64 : 32);
const bitfieldAllocated = (f: BitmaskFields): boolean => f.N === f.sf && f.immr < width(f) && f.imms < width(f);
/** A signed bitfield move is a shift left that brings the field's top bit to the register's, and an arithmetic one back. */
const shiftLeft = (f: BitmaskFields): number => width(f) - 1 - f.imms;
const shiftBack = (f: BitmaskFields): number =>
  f.imms >= f.immr ? width(f) - 1 - f.imms + f.immr : f.immr - f.imms - 1;
/** Where BFM puts the field (its lowest bit), and how many bits of the register the field leaves. */
const insertLsb = (f: BitmaskFields): number => (f.imms >= f.immr ? 0 : width(f) - f.immr);
const insertUnused = (f: BitmaskFields): number =>
  f.imms >= f.immr ? width(f) - 1 - f.imms + f.immr : width(f) - 1 - f.imms;
/** A sign extension from bit `imms`. */
const signExtension =
  (imms: number) =>
  (f: BitmaskFields): boolean =>
    bitfieldAllocated(f) && f.immr === 0 && f.imms === imms;

export const dataProcessingImmediate: readonly Row[] = [
  row('ADR', '0 immlo:2# 10000 immhi:19# Rd', { imm: pcRelative }, (e, f) => {
    e.setR(f.Rd, e.add(e.pc(), f.imm));
  }),
  row('ADRP', '1 immlo:2# 10000 immhi:19# Rd', { imm: (f) => pcRelative(f) * 4096 }, (e, f) => {
    e.setR(f.Rd, e.add(e.and(e.pc(), e.i64(-4096)), f.imm));
  }),

  row('ADD (immediate)', 'sf 0 0 100010 sh:1# imm12:12# Rn|SP Rd|SP', { imm: shifted12 }, (e, f) => {
    e.setR(f.Rd, e.add(e.getR(f.sf, f.Rn), imm(e, f)));
  }),
  row('CMN (immediate)', 'sf 0 1 100010 sh:1# imm12:12# Rn|SP 11111', { imm: shifted12 }, (e, f) => {
    adds(e, e.getR(f.sf, f.Rn), imm(e, f));
  }),
  row('ADDS (immediate)', 'sf 0 1 100010 sh:1# imm12:12# Rn|SP Rd', { imm: shifted12 }, (e, f) => {
    e.setR(f.Rd, adds(e, e.getR(f.sf, f.Rn), imm(e, f)));
  }),
  row('SUB (immediate)', 'sf 1 0 100010 sh:1# imm12:12# Rn|SP Rd|SP', { imm: shifted12 }, (e, f) => {
    e.setR(f.Rd, e.sub(e.getR(f.sf, f.Rn), imm(e, f)));
  }),
  row('CMP (immediate)', 'sf 1 1 100010 sh:1# imm12:12# Rn|SP 11111', { imm: shifted12 }, (e, f) => {
    subs(e, e.getR(f.sf, f.Rn), imm(e, f));
  }),
  row('SUBS (immediate)', 'sf 1 1 100010 sh:1# imm12:12# Rn|SP Rd', { imm: shifted12 }, (e, f) => {
    e.setR(f.Rd, subs(e, e.getR(f.sf, f.Rn), imm(e, f)));
  }),

  row('AND (immediate)', 'sf 00 100100 N:1# immr:6# imms:6# Rn Rd|SP', bitmask, (e, f) => {
    e.setR(f.Rd, e.and(e.getR(f.sf, f.Rn), imm(e, f)));
  }),
  row('MOV (bitmask immediate)', 'sf 01 100100 N:1# immr:6# imms:6# 11111 Rd|SP', bitmask, (e, f) => {
    e.setR(f.Rd, imm(e, f));
  }),
  row('ORR (immediate)', 'sf 01 100100 N:1# immr:6# imms:6# Rn Rd|SP', bitmask, (e, f) => {
    e.setR(f.Rd, e.or(e.getR(f.sf, f.Rn), imm(e, f)));
  }),
  row('EOR (immediate)', 'sf 10 100100 N:1# immr:6# imms:6# Rn Rd|SP', bitmask, (e, f) => {
    e.setR(f.Rd, e.xor(e.getR(f.sf, f.Rn), imm(e, f)));
  }),
  row('TST (immediate)', 'sf 11 100100 N:1# immr:6# imms:6# Rn 11111', bitmask, (e, f) => {
    logicalFlags(e, e.and(e.getR(f.sf, f.Rn), imm(e, f)));
  }),
  row('ANDS (immediate)', 'sf 11 100100 N:1# immr:6# imms:6# Rn Rd', bitmask, (e, f) => {
    const result = e.and(e.getR(f.sf, f.Rn), imm(e, f));
    logicalFlags(e, result);
    e.setR(f.Rd, result);
  }),

  row(
    'MOVN',
    'sf:1# 00 100101 hw:2# imm16:16# Rd',
    { when: moveWideAllocated, imm: (f) => BigInt.asUintN(width(f), ~BigInt(moveWide(f))) },
    (e, f) => e.setR(f.Rd, f.imm),
  ),
  row('MOVZ', 'sf:1# 10 100101 hw:2# imm16:16# Rd', { when: moveWideAllocated, imm: moveWide }, (e, f) => {
    e.setR(f.Rd, f.imm);
  }),
  row('MOVK', 'sf 11 100101 hw:2 imm16:16# Rd', { when: moveWideAllocated, imm: moveWide }, (e, f) => {
    const kept = BigInt.asUintN(width(f), ~(0xffffn << BigInt(16 * f.hw)));
    e.setR(f.Rd, e.or(e.and(e.getX(f.Rd), e.i64(kept)), f.imm));
  }),

  row('SXTB', 'sf 00 100110 N:1# immr:6# imms:6# Rn Rd', { when: signExtension(7) }, (e, f) => {
    e.setR(f.Rd, f.sf === 1 ? e.op('i64.extend8_s', e.getX(f.Rn)) : e.op('i32.extend8_s', e.getW(f.Rn)));
  }),
  row('SXTH', 'sf 00 100110 N:1# immr:6# imms:6# Rn Rd', { when: signExtension(15) }, (e, f) => {
    e.setR(f.Rd, f.sf === 1 ? e.op('i64.extend16_s', e.getX(f.Rn)) : e.op('i32.extend16_s', e.getW(f.Rn)));
  }),
  row('SXTW', '1 00 100110 1 000000 011111 Rn Rd', {}, (e, f) => e.setR(f.Rd, e.extS(e.getW(f.Rn)))),
  row(
    'ASR (immediate)',
    'sf 00 100110 N:1# immr:6# imms:6# Rn Rd',
    { when: (f) => bitfieldAllocated(f) && f.imms === width(f) - 1 },
    (e, f) => {
      const n = e.getR(f.sf, f.Rn);
      e.setR(f.Rd, e.shrS(n, amount(e, n, f.immr)));
    },
  ),
  row(
    'SBFM',
    'sf 00 100110 N:1# immr:6# imms:6# Rn Rd',
    { when: bitfieldAllocated, ops: { left: shiftLeft, back: shiftBack } },
    (e, f) => {
      const n = e.getR(f.sf, f.Rn);
      e.setR(f.Rd, e.shrS(e.shl(n, amount(e, n, f.left)), amount(e, n, f.back)));
    },
  ),
  row(
    'BFM',
    'sf 01 100110 N:1# immr:6# imms:6# Rn Rd',
    { when: bitfieldAllocated, ops: { unused: insertUnused, lsb: insertLsb } },
    (e, f) => {
      const n = e.getR(f.sf, f.Rn);
      const d = e.getR(f.sf, f.Rd);
      const all = f.sf === 1 ? e.i64(-1) : e.i32(-1);
      const mask = e.shl(e.shrU(all, amount(e, n, f.unused)), amount(e, n, f.lsb));
      e.setR(f.Rd, e.xor(d, e.and(e.xor(d, e.rotr(n, amount(e, n, f.immr))), mask)));
    },
  ),
  row(
    'LSR (immediate)',
    'sf 10 100110 N:1# immr:6# imms:6# Rn Rd',
    { when: (f) => bitfieldAllocated(f) && f.imms === width(f) - 1 },
    (e, f) => {
      const n = e.getR(f.sf, f.Rn);
      e.setR(f.Rd, e.shrU(n, amount(e, n, f.immr)));
    },
  ),
  row(
    'LSL (immediate)',
    'sf 10 100110 N:1# immr:6# imms:6# Rn Rd',
    { when: (f) => bitfieldAllocated(f) && f.imms + 1 === f.immr, ops: { left: shiftLeft } },
    (e, f) => {
      const n = e.getR(f.sf, f.Rn);
      e.setR(f.Rd, e.shl(n, amount(e, n, f.left)));
    },
  ),
  // UXTB, UXTH and other fields at the bottom.
  row(
    'UBFX (from bit 0)',
    'sf 10 100110 N:1# 000000 imms:6# Rn Rd',
    {
      when: (f) => f.N === f.sf && f.imms < width(f),
      imm: (f) => bitfieldMask(f.N, f.imms, 0),
    },
    (e, f) => e.setR(f.Rd, e.and(e.getR(f.sf, f.Rn), imm(e, f))),
  ),
  row(
    'UBFM',
    'sf 10 100110 N:1# immr:6# imms:6# Rn Rd',
    { when: bitfieldAllocated, imm: (f) => bitfieldMask(f.N, f.imms, f.immr) },
    (e, f) => {
      const n = e.getR(f.sf, f.Rn);
      e.setR(f.Rd, e.and(e.rotr(n, amount(e, n, f.immr)), imm(e, f)));
    },
  ),

  row(
    'ROR (immediate)',
    'sf 00 100111 N:1# 0 Rm imms:6# Rn Rd',
    { when: (f) => f.N === f.sf && f.imms < width(f) && f.Rn === f.Rm },
    (e, f) => {
      const n = e.getR(f.sf, f.Rn);
      e.setR(f.Rd, e.rotr(n, amount(e, n, f.imms)));
    },
  ),
  row(
    'EXTR',
    'sf 00 100111 N:1# 0 Rm imms:6# Rn Rd',
    { when: (f) => f.N === f.sf && f.imms < width(f), ops: { left: (f) => width(f) - 1 - f.imms } },
    (e, f) => {
      const n = e.getR(f.sf, f.Rn);
      const m = e.getR(f.sf, f.Rm);
      // In two steps, because a shift by the whole width (lsb 0) would be one by 0.
      const high = e.shl(e.shl(n, f.sf === 1 ? e.i64(1) : e.i32(1)), amount(e, n, f.left));
      e.setR(f.Rd, e.or(high, e.shrU(m, amount(e, m, f.imms))));
    },
  ),
];
