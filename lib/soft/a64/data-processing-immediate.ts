import { addWithCarryFlags, logicalFlags } from './flags.js';
import { type Row, row } from './row.js';

/** Data processing with an immediate (Arm ARM DDI 0487 C4.1.93). */

const shifted12 = (f: { sh: number; imm12: number }): number => (f.sh === 1 ? f.imm12 * 4096 : f.imm12);

export const dataProcessingImmediate: readonly Row[] = [
  row('ADD (immediate)', 'sf 0 0 100010 sh:1# imm12:12# Rn|SP Rd|SP', { imm: shifted12 }, (e, f) => {
    const imm = f.sf === 1 ? f.imm : e.wrap(f.imm);
    e.setR(f.Rd, e.add(e.getR(f.sf, f.Rn), imm));
  }),
  row('SUBS (immediate)', 'sf 1 1 100010 sh:1# imm12:12# Rn|SP Rd', { imm: shifted12 }, (e, f) => {
    const a = e.getR(f.sf, f.Rn);
    const b = f.sf === 1 ? f.imm : e.wrap(f.imm);
    const result = e.sub(a, b);
    addWithCarryFlags(e, a, e.not(b), result, e.geU(a, b));
    e.setR(f.Rd, result);
  }),
  row('ADR', '0 immlo:2# 10000 immhi:19# Rd', { imm: (f) => ((f.immhi << 13) >> 11) | f.immlo }, (e, f) => {
    e.setR(f.Rd, e.add(e.pc(), f.imm));
  }),
];
void logicalFlags;
