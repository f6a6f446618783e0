import { extended } from './data-processing-register.js';
import type { Emitter, Val, XOperand } from './emitter.js';
import { checkAtomicAlignment } from './faults.js';
import { type Row, row, type Syndrome } from './row.js';

/** Loads and stores of general-purpose registers (Arm ARM DDI 0487 C4.1.96); atomics.ts and simd-load-store.ts have the others. */

/** One instruction of the family: what it moves, and its size and opc fields. */
interface Access {
  readonly name: string;
  readonly size: '00' | '01' | '10' | '11';
  readonly opc: '00' | '01' | '10' | '11';
  readonly bytes: 1 | 2 | 4 | 8;
  readonly isStore: boolean;
  /** A load that sign-extends. */
  readonly signExtend: boolean;
  /** The register is 64 bits wide. */
  readonly sf: boolean;
}

const access = (
  name: string,
  encoding: string,
  bytes: 1 | 2 | 4 | 8,
  signExtend = false,
  sf = bytes === 8,
): Access => ({
  name,
  size: encoding.slice(0, 2) as Access['size'],
  opc: encoding.slice(2) as Access['opc'],
  bytes,
  isStore: encoding.endsWith('00'),
  signExtend,
  sf,
});

const STR = access('STR', '1100', 8);
const LDR = access('LDR', '1101', 8);
const ACCESSES: readonly Access[] = [
  LDR,
  STR,
  access('LDR', '1001', 4),
  access('STR', '1000', 4),
  access('LDRB', '0001', 1),
  access('STRB', '0000', 1),
  access('LDRH', '0101', 2),
  access('STRH', '0100', 2),
  access('LDRSW', '1010', 4, true, true),
  access('LDRSB', '0010', 1, true, true),
  access('LDRSB', '0011', 1, true, false),
  access('LDRSH', '0110', 2, true, true),
  access('LDRSH', '0111', 2, true, false),
];

/** The name in another form of the instruction: LDRB, LDURB, LDTRB. */
const variant = (name: string, prefix: string): string => name.replace(/^(LD|ST)R/, `$1${prefix}`);

/** A loaded value as it goes into the register: i32 for W (or zero-extended), i64 for X. */
function loaded(e: Emitter, a: Access, value: Val): Val {
  if (!a.signExtend) return value;
  const w = a.bytes === 1 ? e.op('i32.extend8_s', value) : a.bytes === 2 ? e.op('i32.extend16_s', value) : value;
  return a.sf ? e.extS(w) : w;
}

/** The transfer itself. Write back a base register after it. */
function transfer(e: Emitter, a: Access, va: Val, rt: XOperand, unprivileged = false): void {
  if (a.isStore) e.store(a.bytes, va, e.getR(a.bytes === 8 ? 1 : 0, rt), unprivileged);
  else e.setR(rt, loaded(e, a, e.load(a.bytes, va, unprivileged)));
}

const syndrome =
  (a: Access) =>
  (f: { Rt: number }): Syndrome => ({ size: a.bytes, signExtend: a.signExtend, sf: a.sf, srt: f.Rt });

const imm9 = (f: { imm9: number }): number => (f.imm9 << 23) >> 23;

/** The offset of a register-offset address: Rm extended, and shifted by the access's size where S is set. */
export function registerOffset(e: Emitter, f: { Rm: XOperand; option: number; S: number }, log2Bytes: number): Val {
  const m = extended(e, 1, f.Rm, f.option);
  return f.S === 1 ? e.shl(m, e.i64(log2Bytes)) : m;
}

/** Extensions of less than 32 bits are not allocated in addresses. */
export const registerOffsetAllocated = (f: { option: number }): boolean => (f.option & 2) !== 0;

/** What tells the 32-bit and the 64-bit form of an instruction apart: each row has a name of its own. */
const width = (a: Access): string => (a.bytes === 8 || a.sf ? '64-bit' : '32-bit');

/** Every addressing form of a single-register access. */
function single(a: Access): Row[] {
  const log2 = 31 - Math.clz32(a.bytes);
  const { name, size, opc } = a;
  return [
    row(
      `${name} (immediate, unsigned offset, ${width(a)})`,
      `${size as '00'} 111 0 01 ${opc as '00'} imm12:12# Rn|SP Rt`,
      { imm: (f) => f.imm12 * a.bytes, syndrome: syndrome(a) },
      (e, f) => transfer(e, a, e.add(e.getX(f.Rn), f.imm), f.Rt),
    ),
    row(
      `${variant(name, 'UR')} (${width(a)})`,
      `${size as '00'} 111 0 00 ${opc as '00'} 0 imm9:9# 00 Rn|SP Rt`,
      { imm: imm9, syndrome: syndrome(a) },
      (e, f) => transfer(e, a, e.add(e.getX(f.Rn), f.imm), f.Rt),
    ),
    row(
      `${name} (immediate, post-index, ${width(a)})`,
      `${size as '00'} 111 0 00 ${opc as '00'} 0 imm9:9# 01 Rn|SP Rt`,
      { imm: imm9 },
      (e, f) => {
        const base = e.getX(f.Rn);
        transfer(e, a, base, f.Rt);
        e.setR(f.Rn, e.add(base, f.imm));
      },
    ),
    row(
      `${variant(name, 'TR')} (${width(a)})`,
      `${size as '00'} 111 0 00 ${opc as '00'} 0 imm9:9# 10 Rn|SP Rt`,
      { imm: imm9, syndrome: syndrome(a) },
      (e, f) => transfer(e, a, e.add(e.getX(f.Rn), f.imm), f.Rt, true),
    ),
    row(
      `${name} (immediate, pre-index, ${width(a)})`,
      `${size as '00'} 111 0 00 ${opc as '00'} 0 imm9:9# 11 Rn|SP Rt`,
      { imm: imm9 },
      (e, f) => {
        const va = e.add(e.getX(f.Rn), f.imm);
        transfer(e, a, va, f.Rt);
        e.setR(f.Rn, va);
      },
    ),
    row(
      `${name} (register, ${width(a)})`,
      `${size as '00'} 111 0 00 ${opc as '00'} 1 Rm option:3 S 10 Rn|SP Rt`,
      { when: registerOffsetAllocated, syndrome: syndrome(a) },
      (e, f) => {
        const base = e.getX(f.Rn);
        transfer(e, a, e.add(base, registerOffset(e, f, log2)), f.Rt);
      },
    ),
  ];
}

const imm19 = (f: { imm19: number }): number => ((f.imm19 << 13) >> 13) * 4;

function literal(name: string, opc: '00' | '01' | '10', a: Access): Row {
  return row(
    `${name} (literal, ${width(a)})`,
    `${opc as '00'} 011 0 00 imm19:19# Rt`,
    { imm: imm19, syndrome: syndrome(a) },
    (e, f) => transfer(e, a, e.add(e.pc(), f.imm), f.Rt),
  );
}

/** A pair of registers, moved by one access to memory of twice the size. */
interface Pair {
  readonly name: string;
  readonly opc: '00' | '01' | '10';
  readonly l: '0' | '1';
  readonly bytes: 4 | 8;
}
const PAIRS: readonly Pair[] = [
  { name: 'LDP', opc: '10', l: '1', bytes: 8 },
  { name: 'STP', opc: '10', l: '0', bytes: 8 },
  { name: 'LDP', opc: '00', l: '1', bytes: 4 },
  { name: 'STP', opc: '00', l: '0', bytes: 4 },
  { name: 'LDPSW', opc: '01', l: '1', bytes: 4 },
];

/** Two i64 as the v128 that has the first at the lower address. */
export const pack64 = (e: Emitter, low: Val, high: Val): Val =>
  e.lane('i64x2.replace_lane', 1, e.op('i64x2.splat', low), high);
/** Two i32 as the i64 that has the first at the lower address. */
export const pack32 = (e: Emitter, low: Val, high: Val): Val => e.or(e.extU(low), e.shl(e.extU(high), e.i64(32)));

function transferPair(e: Emitter, p: Pair, va: Val, f: { Rt: XOperand; Rt2: XOperand }): void {
  if (p.l === '0') {
    const sf = p.bytes === 8 ? 1 : 0;
    e.storePair(p.bytes, va, e.getR(sf, f.Rt), e.getR(sf, f.Rt2));
    return;
  }
  const loaded = e.loadPair(p.bytes, va);
  const [first, second] = p.name === 'LDPSW' ? loaded.map((v) => e.extS(v)) : loaded;
  e.setR(f.Rt, first!);
  e.setR(f.Rt2, second!);
}

/** The scaled imm7 of a pair, as an operand where the record has no room for a 64-bit constant. */
export const pairOffset =
  (bytes: number) =>
  (f: { imm7: number }): number =>
    ((f.imm7 << 25) >> 25) * bytes;
export const pairOffset16 =
  (bytes: number) =>
  (f: { imm7: number }): number =>
    pairOffset(bytes)(f) & 0xffff;
export const signed16 = (e: Emitter, v: Val): Val => e.extS(e.op('i32.extend16_s', v));

function pair(p: Pair): Row[] {
  const { name, opc, l, bytes } = p;
  const width = `${bytes * 8}-bit`;
  // LDPSW to one register twice, or to its own base, is CONSTRAINED UNPREDICTABLE: UNDEFINED here, as binutils has it.
  const distinct = (f: { Rt: number; Rt2: number }): boolean => name !== 'LDPSW' || f.Rt !== f.Rt2;
  const distinctBase = (f: { Rt: number; Rt2: number; Rn: number }): boolean =>
    distinct(f) && (name !== 'LDPSW' || f.Rn === 31 || (f.Rn !== f.Rt && f.Rn !== f.Rt2));
  const offset = { when: distinct, imm: pairOffset(bytes) };
  const writeBack = { when: distinctBase, ops: { offset: pairOffset16(bytes) } };
  const rows = [
    row(
      `${name} (signed offset, ${width})`,
      `${opc as '00'} 101 0 010 ${l as '0'} imm7:7# Rt2 Rn|SP Rt`,
      offset,
      (e, f) => {
        transferPair(e, p, e.add(e.getX(f.Rn), f.imm), f);
      },
    ),
    row(
      `${name} (post-index, ${width})`,
      `${opc as '00'} 101 0 001 ${l as '0'} imm7:7# Rt2 Rn|SP Rt`,
      writeBack,
      (e, f) => {
        const base = e.getX(f.Rn);
        transferPair(e, p, base, f);
        e.setR(f.Rn, e.add(base, signed16(e, f.offset)));
      },
    ),
    row(
      `${name} (pre-index, ${width})`,
      `${opc as '00'} 101 0 011 ${l as '0'} imm7:7# Rt2 Rn|SP Rt`,
      writeBack,
      (e, f) => {
        const va = e.add(e.getX(f.Rn), signed16(e, f.offset));
        transferPair(e, p, va, f);
        e.setR(f.Rn, va);
      },
    ),
  ];
  if (name === 'LDPSW') return rows;
  return [
    ...rows,
    row(
      `${name.replace('P', 'NP')} (${width})`,
      `${opc as '00'} 101 0 000 ${l as '0'} imm7:7# Rt2 Rn|SP Rt`,
      offset,
      (e, f) => {
        transferPair(e, p, e.add(e.getX(f.Rn), f.imm), f);
      },
    ),
  ];
}

/** Load-acquire and store-release with an unscaled offset (FEAT_LRCPC2); vCPUs run in turn, so order needs no more. */
function rcpcUnscaled(a: Access): Row {
  return row(
    `${variant(a.name, a.isStore ? 'LUR' : 'APUR')} (${width(a)})`,
    `${a.size as '00'} 011001 ${a.opc as '00'} 0 imm9:9# 00 Rn|SP Rt`,
    { imm: imm9, syndrome: syndrome(a) },
    (e, f) => {
      const va = e.add(e.getX(f.Rn), f.imm);
      checkAtomicAlignment(e, va, a.bytes, a.isStore);
      transfer(e, a, va, f.Rt);
    },
  );
}

/** LDAR, STLR, LDLAR, STLLR and LDAPR of one size. */
function ordered(a: Access): Row[] {
  const emit = (e: Emitter, f: { Rn: XOperand; Rt: XOperand }): void => {
    const va = e.getX(f.Rn);
    checkAtomicAlignment(e, va, a.bytes, a.isStore);
    transfer(e, a, va, f.Rt);
  };
  const options = { syndrome: syndrome(a) };
  const l = a.isStore ? '0' : '1';
  const names = a.isStore ? ['LLR', 'LR'] : ['LAR', 'AR'];
  const rows = [
    row(
      `${variant(a.name, names[0]!)} (${width(a)})`,
      `${a.size as '00'} 001000 1 ${l as '0'} 0 11111 0 11111 Rn|SP Rt`,
      options,
      emit,
    ),
    row(
      `${variant(a.name, names[1]!)} (${width(a)})`,
      `${a.size as '00'} 001000 1 ${l as '0'} 0 11111 1 11111 Rn|SP Rt`,
      options,
      emit,
    ),
  ];
  if (a.isStore) return rows;
  return [
    ...rows,
    row(
      `${variant(a.name, 'APR')} (${width(a)})`,
      `${a.size as '00'} 111 0 00 1 0 1 11111 1 100 00 Rn|SP Rt`,
      options,
      emit,
    ),
  ];
}

const isPlain = (a: Access): boolean => !a.signExtend;

export const loadStore: readonly Row[] = [
  ...ACCESSES.flatMap(single),
  ...PAIRS.flatMap(pair),
  literal('LDR', '01', LDR),
  literal('LDR', '00', access('LDR', '1001', 4)),
  literal('LDRSW', '10', access('LDRSW', '1010', 4, true, true)),
  ...ACCESSES.filter(isPlain).flatMap(ordered),
  ...ACCESSES.map(rcpcUnscaled),

  // Prefetches: hints that do nothing here, whatever the address.
  row('PRFM (immediate)', '11 111 0 01 10 xxxxxxxxxxxx xxxxx xxxxx', {}, () => {}),
  row('PRFM (literal)', '11 011 0 00 xxxxxxxxxxxxxxxxxxx xxxxx', {}, () => {}),
  row(
    'PRFM (register)',
    '11 111 0 00 10 1 xxxxx option:3 x 10 xxxxx xxxxx',
    { when: registerOffsetAllocated },
    () => {},
  ),
  row('PRFUM', '11 111 0 00 10 0 xxxxxxxxx 00 xxxxx xxxxx', {}, () => {}),
];
