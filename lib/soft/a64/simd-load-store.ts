import type { Emitter, Val, VOperand, XOperand } from './emitter.js';
import {
  pack32,
  pack64,
  pairOffset,
  pairOffset16,
  registerOffset,
  registerOffsetAllocated,
  signed16,
} from './load-store.js';
import { type Row, row } from './row.js';
import { simdStructures } from './simd-structures.js';

/** Loads and stores of SIMD&FP registers (Arm ARM DDI 0487 C4.1.96). */

type Bytes = 1 | 2 | 4 | 8 | 16;

interface Access {
  readonly letter: 'B' | 'H' | 'S' | 'D' | 'Q';
  readonly size: '00' | '01' | '10' | '11';
  /** opc<1>. */
  readonly q: '0' | '1';
  readonly bytes: Bytes;
}
const ACCESSES: readonly Access[] = [
  { letter: 'Q', size: '00', q: '1', bytes: 16 },
  { letter: 'D', size: '11', q: '0', bytes: 8 },
  { letter: 'S', size: '10', q: '0', bytes: 4 },
  { letter: 'H', size: '01', q: '0', bytes: 2 },
  { letter: 'B', size: '00', q: '0', bytes: 1 },
];

function load(e: Emitter, bytes: Bytes, va: Val, vt: VOperand): void {
  const value = e.load(bytes, va);
  if (bytes === 16) e.setV(vt, value);
  else e.setScalar(vt, bytes, value);
}

function store(e: Emitter, bytes: Bytes, va: Val, vt: VOperand): void {
  e.store(bytes, va, bytes === 16 ? e.getV(vt) : e.getElem(vt, bytes));
}

const imm9 = (f: { imm9: number }): number => (f.imm9 << 23) >> 23;
const imm19 = (f: { imm19: number }): number => ((f.imm19 << 13) >> 13) * 4;

function single(a: Access, isStore: boolean): Row[] {
  const name = isStore ? 'STR' : 'LDR';
  const l = isStore ? '0' : '1';
  const { size, q, bytes, letter } = a;
  const transfer = (e: Emitter, va: Val, vt: VOperand): void => (isStore ? store : load)(e, bytes, va, vt);
  return [
    row(
      `${name} (immediate, SIMD&FP, unsigned offset, ${letter})`,
      `${size as '00'} 111 1 01 ${q as '0'} ${l as '0'} imm12:12# Rn|SP Vt`,
      { imm: (f) => f.imm12 * bytes },
      (e, f) => transfer(e, e.add(e.getX(f.Rn), f.imm), f.Vt),
    ),
    row(
      `${name.replace('R', 'UR')} (SIMD&FP, ${letter})`,
      `${size as '00'} 111 1 00 ${q as '0'} ${l as '0'} 0 imm9:9# 00 Rn|SP Vt`,
      { imm: imm9 },
      (e, f) => transfer(e, e.add(e.getX(f.Rn), f.imm), f.Vt),
    ),
    row(
      `${name} (immediate, SIMD&FP, post-index, ${letter})`,
      `${size as '00'} 111 1 00 ${q as '0'} ${l as '0'} 0 imm9:9# 01 Rn|SP Vt`,
      { imm: imm9 },
      (e, f) => {
        const base = e.getX(f.Rn);
        transfer(e, base, f.Vt);
        e.setR(f.Rn, e.add(base, f.imm));
      },
    ),
    row(
      `${name} (immediate, SIMD&FP, pre-index, ${letter})`,
      `${size as '00'} 111 1 00 ${q as '0'} ${l as '0'} 0 imm9:9# 11 Rn|SP Vt`,
      { imm: imm9 },
      (e, f) => {
        const va = e.add(e.getX(f.Rn), f.imm);
        transfer(e, va, f.Vt);
        e.setR(f.Rn, va);
      },
    ),
    row(
      `${name} (register, SIMD&FP, ${letter})`,
      `${size as '00'} 111 1 00 ${q as '0'} ${l as '0'} 1 Rm option:3 S 10 Rn|SP Vt`,
      { when: registerOffsetAllocated },
      (e, f) => {
        const base = e.getX(f.Rn);
        transfer(e, e.add(base, registerOffset(e, f, 31 - Math.clz32(bytes))), f.Vt);
      },
    ),
  ];
}

const literal = (letter: string, opc: string, bytes: 4 | 8 | 16): Row =>
  row(`LDR (literal, SIMD&FP, ${letter})`, `${opc as '00'} 011 1 00 imm19:19# Vt`, { imm: imm19 }, (e, f) => {
    load(e, bytes, e.add(e.pc(), f.imm), f.Vt);
  });

interface Pair {
  readonly letter: 'S' | 'D' | 'Q';
  readonly opc: '00' | '01' | '10';
  readonly bytes: 4 | 8 | 16;
}
const PAIRS: readonly Pair[] = [
  { letter: 'Q', opc: '10', bytes: 16 },
  { letter: 'D', opc: '01', bytes: 8 },
  { letter: 'S', opc: '00', bytes: 4 },
];

/** Two registers: by one access of twice the size where WebAssembly has one. */
function loadPair(e: Emitter, bytes: 4 | 8 | 16, va: Val, f: { Vt: VOperand; Vt2: VOperand }): void {
  if (bytes === 16) {
    const first = e.load(16, va);
    const second = e.load(16, e.add(va, e.i64(16)));
    e.setV(f.Vt, first);
    e.setV(f.Vt2, second);
  } else if (bytes === 8) {
    const both = e.load(16, va);
    e.setScalar(f.Vt, 8, e.lane('i64x2.extract_lane', 0, both));
    e.setScalar(f.Vt2, 8, e.lane('i64x2.extract_lane', 1, both));
  } else {
    const both = e.load(8, va);
    e.setScalar(f.Vt, 4, e.wrap(both));
    e.setScalar(f.Vt2, 4, e.wrap(e.shrU(both, e.i64(32))));
  }
}

function storePair(e: Emitter, bytes: 4 | 8 | 16, va: Val, f: { Vt: VOperand; Vt2: VOperand }): void {
  if (bytes === 16) {
    e.store(16, va, e.getV(f.Vt));
    e.store(16, e.add(va, e.i64(16)), e.getV(f.Vt2));
  } else if (bytes === 8) e.store(16, va, pack64(e, e.getElem(f.Vt, 8), e.getElem(f.Vt2, 8)));
  else e.store(8, va, pack32(e, e.getElem(f.Vt, 4), e.getElem(f.Vt2, 4)));
}

function pair(p: Pair, isStore: boolean): Row[] {
  const name = isStore ? 'STP' : 'LDP';
  const l = isStore ? '0' : '1';
  const { opc, bytes, letter } = p;
  const transfer = (e: Emitter, va: Val, f: { Vt: VOperand; Vt2: VOperand }): void =>
    (isStore ? storePair : loadPair)(e, bytes, va, f);
  const offset = { imm: pairOffset(bytes) };
  const writeBack = { ops: { offset: pairOffset16(bytes) } };
  const atOffset = (e: Emitter, f: { Rn: XOperand; imm: Val; Vt: VOperand; Vt2: VOperand }): void =>
    transfer(e, e.add(e.getX(f.Rn), f.imm), f);
  return [
    row(
      `${name} (SIMD&FP, signed offset, ${letter})`,
      `${opc as '00'} 101 1 010 ${l as '0'} imm7:7# Vt2 Rn|SP Vt`,
      offset,
      atOffset,
    ),
    row(
      `${name.replace('P', 'NP')} (SIMD&FP, ${letter})`,
      `${opc as '00'} 101 1 000 ${l as '0'} imm7:7# Vt2 Rn|SP Vt`,
      offset,
      atOffset,
    ),
    row(
      `${name} (SIMD&FP, post-index, ${letter})`,
      `${opc as '00'} 101 1 001 ${l as '0'} imm7:7# Vt2 Rn|SP Vt`,
      writeBack,
      (e, f) => {
        const base = e.getX(f.Rn);
        transfer(e, base, f);
        e.setR(f.Rn, e.add(base, signed16(e, f.offset)));
      },
    ),
    row(
      `${name} (SIMD&FP, pre-index, ${letter})`,
      `${opc as '00'} 101 1 011 ${l as '0'} imm7:7# Vt2 Rn|SP Vt`,
      writeBack,
      (e, f) => {
        const va = e.add(e.getX(f.Rn), signed16(e, f.offset));
        transfer(e, va, f);
        e.setR(f.Rn, va);
      },
    ),
  ];
}

export const simdLoadStore: readonly Row[] = [
  ...ACCESSES.flatMap((a) => [...single(a, false), ...single(a, true)]),
  ...PAIRS.flatMap((p) => [...pair(p, false), ...pair(p, true)]),
  literal('S', '00', 4),
  literal('D', '01', 8),
  literal('Q', '10', 16),
  ...simdStructures,
];
