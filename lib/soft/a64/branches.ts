import { ExitCode, Offset } from '../cpu/layout.js';
import type { Emitter, Val } from './emitter.js';
import { type Row, row } from './row.js';

/** Branches and exception generation (Arm ARM DDI 0487 C4.1.94); system instructions are in system.ts. */

const LINK_REGISTER = Offset.X + 30 * 8;
const link = (e: Emitter): void => e.setState(LINK_REGISTER, e.add(e.pc(), e.i64(4)));

/** PSTATE.BTYPE as {@link Emitter.jumpTo} takes it: after a call, and after a jump (Arm ARM DDI 0487 C6.2, BR and BLR). */
export const BTYPE_CALL = 0b10 << 2;
export const jumpType = {
  btype: (f: { readonly Rn: number; readonly guarded: number }): number =>
    f.guarded === 1 && f.Rn !== 16 && f.Rn !== 17 ? 0b11 << 2 : 0b01 << 2,
};

/** `imm` of a branch whose signed offset in words is the `bits`-wide field. */
const offset = (field: number, bits: number): number => ((field << (32 - bits)) >> (32 - bits)) * 4;
const offset19 = { imm: (f: { imm19: number }): number => offset(f.imm19, 19), ends: true };

/** The tested bit of TBZ and TBNZ. */
const testBit = {
  imm: (f: { imm14: number }): number => offset(f.imm14, 14),
  ops: { bit: (f: { b5: number; b40: number }): number => f.b5 * 32 + f.b40 },
  ends: true,
};
const tested = (e: Emitter, value: Val, bit: Val): Val => e.and(e.wrap(e.shrU(value, e.extU(bit))), e.i32(1));

export const branches: readonly Row[] = [
  row('B', '000101 imm26:26#', { imm: (f) => offset(f.imm26, 26), ends: true }, (e, f) => e.jump(f.imm)),
  row('BL', '100101 imm26:26#', { imm: (f) => offset(f.imm26, 26), ends: true }, (e, f) => {
    link(e);
    e.jump(f.imm);
  }),
  row('B.cond', '0101010 0 imm19:19# 0 cond:4', offset19, (e, f) => {
    // NV is always true in A64, as AL is.
    if (f.cond >= 14) e.jump(f.imm);
    else e.jumpIf(e.condition(f.cond), f.imm);
  }),
  row('CBZ', 'sf 011010 0 imm19:19# Rt', offset19, (e, f) => e.jumpIf(e.eqz(e.getR(f.sf, f.Rt)), f.imm)),
  row('CBNZ', 'sf 011010 1 imm19:19# Rt', offset19, (e, f) => {
    e.jumpIf(f.sf === 1 ? e.ne(e.getX(f.Rt), e.i64(0)) : e.getW(f.Rt), f.imm);
  }),
  row('TBZ', 'b5:1# 011011 0 b40:5# imm14:14# Rt', testBit, (e, f) => {
    e.jumpIf(e.eqz(tested(e, e.getX(f.Rt), f.bit)), f.imm);
  }),
  row('TBNZ', 'b5:1# 011011 1 b40:5# imm14:14# Rt', testBit, (e, f) => {
    e.jumpIf(tested(e, e.getX(f.Rt), f.bit), f.imm);
  }),
  row('BR', '1101011 0000 11111 000000 Rn 00000', { ops: jumpType, ends: true }, (e, f) =>
    e.jumpTo(e.getX(f.Rn), f.btype),
  ),
  row('BLR', '1101011 0001 11111 000000 Rn 00000', { ends: true }, (e, f) => {
    const target = e.getX(f.Rn);
    link(e);
    e.jumpTo(target, e.i32(BTYPE_CALL));
  }),
  row('RET', '1101011 0010 11111 000000 Rn 00000', { ends: true }, (e, f) => e.jumpTo(e.getX(f.Rn))),

  // Which of these are UNDEFINED at the current EL is for those who take the exit to say.
  row('SVC', '11010100 000 imm16:16# 000 01', { ends: true }, (e, f) => e.exit(ExitCode.SVC, f.imm16)),
  row('HVC', '11010100 000 imm16:16# 000 10', { ends: true }, (e, f) => e.exit(ExitCode.HVC, f.imm16)),
  row('SMC', '11010100 000 imm16:16# 000 11', { ends: true }, (e, f) => e.exit(ExitCode.SMC, f.imm16)),
  row('BRK', '11010100 001 imm16:16# 000 00', { ends: true }, (e, f) => e.exit(ExitCode.BRK, f.imm16)),
  row('HLT', '11010100 010 imm16:16# 000 00', { ends: true }, (e, f) => e.exit(ExitCode.HLT, f.imm16)),
];
