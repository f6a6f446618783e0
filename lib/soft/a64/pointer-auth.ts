import { ExitCode, Offset } from '../cpu/layout.js';
import { SR } from '../cpu/sysregs.js';
import { BTYPE_CALL, jumpType } from './branches.js';
import type { Emitter, Val, XOperand } from './emitter.js';
import { helper } from './helpers.js';
import { computePac } from './qarma.js';
import { type Row, row } from './row.js';

/**
 * Pointer authentication (FEAT_PAuth with QARMA5; Arm ARM DDI 0487 D8.8, J1.1 aarch64/functions/pac). The hints among these
 * instructions do nothing where a vCPU has not the feature or SCTLR_EL1 has not enabled the key; the others are UNDEFINED
 * without the feature.
 */

/** ComputePAC(data, modifier, key<127:64>, key<63:0>). */
const COMPUTE_PAC = helper('computePac', 'llll:l');
/** AddPAC and Auth: pointer, modifier, the key's halves, which bits an extension fills in the lower and in the upper half, then … */
const ADD_PAC = helper('addPac', 'lllllll:l');
const AUTH = helper('authPac', 'lllllli:l');

/** PAC takes the extension's bits but this one, which says which half the pointer is in. */
const HALF = 1n << 55n;

/** `mask` where bit `at` (i64) of the pointer is set, else 0; and the mask of that half. */
function halfOf(e: Emitter, pointer: Val, at: Val, lower: Val, upper: Val): { isUpper: Val; mask: Val } {
  const isUpper = e.wrap(e.and(e.shrU(pointer, at), e.i64(1)));
  return { isUpper, mask: e.select(isUpper, upper, lower) };
}

/** What is behind {@link ADD_PAC}. @param at the bit of the pointer that says which half it is in */
export function addPac(
  e: Emitter,
  a: Readonly<Record<'pointer' | 'modifier' | 'high' | 'low' | 'lower' | 'upper' | 'at', Val>>,
): Val {
  const { isUpper, mask } = halfOf(e, a.pointer, a.at, a.lower, a.upper);
  const present = e.and(a.pointer, mask);
  const address = e.xor(a.pointer, present);
  const pac = computePac(e, e.or(address, e.select(isUpper, mask, e.i64(0))), a.modifier, a.high, a.low);
  // A pointer whose extension was not all zeros or ones gets a PAC that does not authenticate.
  const isGood = e.or(e.eqz(present), e.eq(present, mask));
  const wrong = e.select(e.ltS(mask, e.i64(0)), e.i64(1n << 62n), e.i64(1n << 54n));
  const code = e.xor(pac, e.select(isGood, e.i64(0), wrong));
  const half = e.select(isUpper, e.i64(HALF), e.i64(0));
  return e.or(e.or(address, half), e.and(code, e.and(mask, e.i64(~HALF))));
}

/** What is behind {@link AUTH}. @param number 0 for an A key, 1 for a B key */
export function authPac(
  e: Emitter,
  a: Readonly<Record<'pointer' | 'modifier' | 'high' | 'low' | 'lower' | 'upper' | 'number', Val>>,
): Val {
  const { isUpper, mask } = halfOf(e, a.pointer, e.i64(55), a.lower, a.upper);
  const address = e.and(a.pointer, e.not(mask));
  const original = e.or(address, e.select(isUpper, mask, e.i64(0)));
  const pac = computePac(e, original, a.modifier, a.high, a.low);
  const differs = e.and(e.xor(pac, a.pointer), e.and(mask, e.i64(~HALF)));
  // What failed is told by two bits below the top of the extension: 01 for an A key, 10 for a B key.
  const at = e.select(e.ltS(mask, e.i64(0)), e.i64(61), e.i64(53));
  const error = e.shl(e.extU(e.add(a.number, e.i32(1))), at);
  const failed = e.or(e.and(original, e.not(e.shl(e.i64(3), at))), error);
  return e.select(e.eqz(differs), original, failed);
}

interface Key {
  readonly name: 'IA' | 'IB' | 'DA' | 'DB';
  /** Bit in Offset.PAUTH, and the offsets of its halves. */
  readonly enable: number;
  readonly high: number;
  readonly low: number;
  /** For instructions or data: where the pointer's layout stands. */
  readonly layout: number;
  /** Of a key's kind: A, B. */
  readonly number: 0 | 1;
}
const keyOf = (name: Key['name'], enable: number): Key => ({
  name,
  enable,
  high: SR[`AP${name}KeyHi_EL1`].offset,
  low: SR[`AP${name}KeyLo_EL1`].offset,
  layout: name.startsWith('I') ? Offset.PAC_INSTRUCTION : Offset.PAC_DATA,
  number: name.endsWith('A') ? 0 : 1,
});
/** In the order of the opcodes. */
const KEYS = [keyOf('IA', 2), keyOf('IB', 4), keyOf('DA', 8), keyOf('DB', 16)] as const;
const [IA, IB, DA, DB] = KEYS;
const IMPLEMENTED = 1;

const word = (e: Emitter, offset: number): Val => e.state('i64', offset);
const has = (e: Emitter, bits: number): Val => e.and(e.state('i32', Offset.PAUTH), e.i32(bits));
const undefinedWithout = (e: Emitter): void => e.if(e.eqz(has(e, IMPLEMENTED)), () => e.exit(ExitCode.UNDEFINED));

const sign = (e: Emitter, k: Key, pointer: Val, modifier: Val): Val =>
  e.call(
    ADD_PAC,
    pointer,
    modifier,
    word(e, k.high),
    word(e, k.low),
    word(e, k.layout),
    word(e, k.layout + 8),
    word(e, k.layout + 16),
  )!;
const authenticate = (e: Emitter, k: Key, pointer: Val, modifier: Val): Val =>
  e.call(
    AUTH,
    pointer,
    modifier,
    word(e, k.high),
    word(e, k.low),
    word(e, k.layout),
    word(e, k.layout + 8),
    e.i32(k.number),
  )!;
/** The pointer, authenticated where the key is enabled. */
function authenticated(e: Emitter, k: Key, pointer: Val, modifier: () => Val): Val {
  const v = e.variable(pointer);
  e.if(has(e, k.enable), () => e.assign(v, authenticate(e, k, pointer, modifier())));
  return e.read(v);
}
/** XPACI, XPACD: the extension in the PAC's place. */
function strip(e: Emitter, pointer: Val, layout: number): Val {
  const { isUpper, mask } = halfOf(e, pointer, e.i64(55), word(e, layout), word(e, layout + 8));
  return e.or(e.and(pointer, e.not(mask)), e.select(isUpper, mask, e.i64(0)));
}

const SIGNING = [
  ['PAC', sign],
  ['AUT', authenticate],
] as const;

/** PACIA to AUTDZB. */
const dataProcessing = SIGNING.flatMap(([name, operate], isAuth) =>
  KEYS.flatMap((k, n) => {
    const opcode = `${isAuth}${(n >> 1) & 1}${n & 1}` as '000';
    const emit = (e: Emitter, rd: XOperand, modifier: () => Val): void => {
      undefinedWithout(e);
      e.if(has(e, k.enable), () => e.setR(rd, operate(e, k, e.getX(rd), modifier())));
    };
    return [
      row(`${name}${k.name}`, `1 1 0 11010110 00001 000 ${opcode} Rn|SP Rd`, {}, (e, f) =>
        emit(e, f.Rd, () => e.getX(f.Rn)),
      ),
      row(`${name}${k.name.replace(/(.)(.)/, '$1Z$2')}`, `1 1 0 11010110 00001 001 ${opcode} 11111 Rd`, {}, (e, f) =>
        emit(e, f.Rd, () => e.i64(0)),
      ),
    ];
  }),
);

const LR = Offset.X + 30 * 8;
const X16 = Offset.X + 16 * 8;
const X17 = Offset.X + 17 * 8;
const NO_MODIFIER = -1;
/** Hints, by CRm and op2: the key, the register that is signed, and the modifier. */
const HINTS = [
  ['PACIA1716', '0001 000', IA, sign, X17, X16],
  ['PACIB1716', '0001 010', IB, sign, X17, X16],
  ['AUTIA1716', '0001 100', IA, authenticate, X17, X16],
  ['AUTIB1716', '0001 110', IB, authenticate, X17, X16],
  ['PACIAZ', '0011 000', IA, sign, LR, NO_MODIFIER],
  ['PACIASP', '0011 001', IA, sign, LR, Offset.SP],
  ['PACIBZ', '0011 010', IB, sign, LR, NO_MODIFIER],
  ['PACIBSP', '0011 011', IB, sign, LR, Offset.SP],
  ['AUTIAZ', '0011 100', IA, authenticate, LR, NO_MODIFIER],
  ['AUTIASP', '0011 101', IA, authenticate, LR, Offset.SP],
  ['AUTIBZ', '0011 110', IB, authenticate, LR, NO_MODIFIER],
  ['AUTIBSP', '0011 111', IB, authenticate, LR, Offset.SP],
] as const;
const hints = HINTS.map(([name, bits, k, operate, target, modifier]) =>
  row(name, `11010101000000110010 ${bits as '0011 001'} 11111`, {}, (e) => {
    e.if(has(e, k.enable), () => {
      e.setState(target, operate(e, k, word(e, target), modifier === NO_MODIFIER ? e.i64(0) : word(e, modifier)));
    });
  }),
);

/** Branches that authenticate their target: with a modifier or zero, key IA or IB. */
const branches = ([IA, IB] as const).flatMap((k) => {
  const m = `${k.number}` as '0';
  const letter = k.number === 0 ? 'A' : 'B';
  const link = (e: Emitter): void => e.setState(LR, e.add(e.pc(), e.i64(4)));
  const target = (e: Emitter, pointer: Val, modifier: () => Val): Val => {
    undefinedWithout(e);
    return authenticated(e, k, pointer, modifier);
  };
  const ends = { ends: true };
  const jumps = { ops: jumpType, ends: true };
  return [
    row(`BRA${letter}Z`, `1101011 0000 11111 00001 ${m} Rn 11111`, jumps, (e, f) =>
      e.jumpTo(
        target(e, e.getX(f.Rn), () => e.i64(0)),
        f.btype,
      ),
    ),
    row(`BRA${letter}`, `1101011 1000 11111 00001 ${m} Rn Rm|SP`, jumps, (e, f) =>
      e.jumpTo(
        target(e, e.getX(f.Rn), () => e.getX(f.Rm)),
        f.btype,
      ),
    ),
    row(`BLRA${letter}Z`, `1101011 0001 11111 00001 ${m} Rn 11111`, ends, (e, f) => {
      const to = target(e, e.getX(f.Rn), () => e.i64(0));
      link(e);
      e.jumpTo(to, e.i32(BTYPE_CALL));
    }),
    row(`BLRA${letter}`, `1101011 1001 11111 00001 ${m} Rn Rm|SP`, ends, (e, f) => {
      const to = target(e, e.getX(f.Rn), () => e.getX(f.Rm));
      link(e);
      e.jumpTo(to, e.i32(BTYPE_CALL));
    }),
    row(`RETA${letter}`, `1101011 0010 11111 00001 ${m} 11111 11111`, ends, (e) =>
      e.jumpTo(target(e, word(e, LR), () => word(e, Offset.SP))),
    ),
    row(`ERETA${letter}`, `1101011 0100 11111 00001 ${m} 11111 11111`, ends, (e) => {
      const to = target(e, word(e, SR.ELR_EL1.offset), () => word(e, Offset.SP));
      e.setState(Offset.SCRATCH, to);
      e.exit(ExitCode.ERET, e.i32(1));
    }),
  ];
});

/** LDRAA, LDRAB: the base is a data pointer signed with modifier zero. */
const offset = (f: { S: number; imm9: number }): number => (f.S === 1 ? f.imm9 - 512 : f.imm9) * 8;
const loads = ([DA, DB] as const).flatMap((k) => {
  const m = `${k.number}` as '0';
  const name = `LDRA${k.number === 0 ? 'A' : 'B'}`;
  const address = (e: Emitter, base: Val, imm: Val): Val => {
    undefinedWithout(e);
    return e.add(
      authenticated(e, k, base, () => e.i64(0)),
      imm,
    );
  };
  const syndrome = (f: { Rt: number }) => ({ size: 8, signExtend: false, sf: true, srt: f.Rt }) as const;
  return [
    row(name, `11 111 0 00 ${m} S:1# 1 imm9:9# 0 1 Rn|SP Rt`, { imm: offset, syndrome }, (e, f) => {
      e.setR(f.Rt, e.load(8, address(e, e.getX(f.Rn), f.imm)));
    }),
    row(`${name} (pre-index)`, `11 111 0 00 ${m} S:1# 1 imm9:9# 1 1 Rn|SP Rt`, { imm: offset }, (e, f) => {
      const va = address(e, e.getX(f.Rn), f.imm);
      e.setR(f.Rt, e.load(8, va));
      e.setR(f.Rn, va);
    }),
  ];
});

/** Before the other hints, which do nothing. */
export const pointerAuth: readonly Row[] = [
  ...hints,
  row('XPACLRI', '11010101000000110010 0000 111 11111', {}, (e) => {
    e.if(has(e, IMPLEMENTED), () => e.setState(LR, strip(e, word(e, LR), Offset.PAC_INSTRUCTION)));
  }),
  ...dataProcessing,
  row('XPACI', '1 1 0 11010110 00001 010000 11111 Rd', {}, (e, f) => {
    undefinedWithout(e);
    e.setR(f.Rd, strip(e, e.getX(f.Rd), Offset.PAC_INSTRUCTION));
  }),
  row('XPACD', '1 1 0 11010110 00001 010001 11111 Rd', {}, (e, f) => {
    undefinedWithout(e);
    e.setR(f.Rd, strip(e, e.getX(f.Rd), Offset.PAC_DATA));
  }),
  row('PACGA', '1 0 0 11010110 Rm|SP 001100 Rn Rd', {}, (e, f) => {
    undefinedWithout(e);
    const pac = e.call(
      COMPUTE_PAC,
      e.getX(f.Rn),
      e.getX(f.Rm),
      word(e, SR.APGAKeyHi_EL1.offset),
      word(e, SR.APGAKeyLo_EL1.offset),
    )!;
    e.setR(f.Rd, e.and(pac, e.i64(0xffff_ffff_0000_0000n)));
  }),
  ...branches,
  ...loads,
];
