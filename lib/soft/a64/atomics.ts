import { Offset } from '../cpu/layout.js';
import type { Emitter, Val, XOperand } from './emitter.js';
import { checkAtomicAlignment } from './faults.js';
import { pack32, pack64 } from './load-store.js';
import { type Row, row } from './row.js';

/**
 * Exclusives, compare-and-swap and the other atomics (Arm ARM DDI 0487 C4.1.96). vCPUs run in turn on one thread, so an atomic
 * is a load and a store. The exclusive monitor remembers address, size and what was read: a store-exclusive passes if memory
 * still has that value. Acquire and release need nothing more, so their bits are left open in the patterns.
 */

type Bytes = 1 | 2 | 4 | 8;
const SIZES: readonly (readonly [string, Bytes, string])[] = [
  ['11', 8, ' (64-bit)'],
  ['10', 4, ' (32-bit)'],
  ['00', 1, 'B'],
  ['01', 2, 'H'],
];

const OPEN = -1n;

function openMonitor(e: Emitter): void {
  e.setState(Offset.MONITOR_ADDRESS, e.i64(OPEN));
}

function setMonitor(e: Emitter, va: Val, bytes: number): void {
  e.setState(Offset.MONITOR_ADDRESS, va);
  e.setState(Offset.MONITOR_SIZE, e.i64(bytes));
}

/** Runs `attempt` if the monitor is on this address and size; it says whether memory still has what was read. Writes the status. */
function storeExclusive(
  e: Emitter,
  va: Val,
  bytes: number,
  status: XOperand,
  unchanged: () => Val,
  store: () => void,
): void {
  const failed = e.variable(e.i32(1));
  const address = e.eq(e.state('i64', Offset.MONITOR_ADDRESS), va);
  const size = e.eq(e.state('i64', Offset.MONITOR_SIZE), e.i64(bytes));
  e.if(e.and(address, size), () => {
    e.if(unchanged(), () => {
      store();
      e.assign(failed, e.i32(0));
    });
  });
  openMonitor(e);
  e.setR(status, e.read(failed));
}

function exclusive(size: string, bytes: Bytes, suffix: string): Row[] {
  const sf = bytes === 8 ? 1 : 0;
  return [
    row(`LDXR${suffix}, LDAXR${suffix}`, `${size as '00'} 001000 0 1 0 xxxxx x xxxxx Rn|SP Rt`, {}, (e, f) => {
      const va = e.getX(f.Rn);
      checkAtomicAlignment(e, va, bytes, false);
      const value = e.load(bytes, va);
      setMonitor(e, va, bytes);
      e.setState(Offset.MONITOR_DATA, bytes === 8 ? value : e.extU(value));
      e.setR(f.Rt, value);
    }),
    row(`STXR${suffix}, STLXR${suffix}`, `${size as '00'} 001000 0 0 0 Rs x xxxxx Rn|SP Rt`, {}, (e, f) => {
      const va = e.getX(f.Rn);
      const value = e.getR(sf, f.Rt);
      checkAtomicAlignment(e, va, bytes, true);
      const unchanged = (): Val => {
        const now = e.load(bytes, va);
        return e.eq(bytes === 8 ? now : e.extU(now), e.state('i64', Offset.MONITOR_DATA));
      };
      storeExclusive(e, va, bytes, f.Rs, unchanged, () => e.store(bytes, va, value));
    }),
  ];
}

const exclusivePairs: readonly Row[] = [
  row('LDXP, LDAXP (32-bit)', '10 001000 0 1 1 xxxxx x Rt2 Rn|SP Rt', {}, (e, f) => {
    const va = e.getX(f.Rn);
    checkAtomicAlignment(e, va, 8, false);
    const both = e.load(8, va);
    setMonitor(e, va, 8);
    e.setState(Offset.MONITOR_DATA, both);
    e.setR(f.Rt, e.and(both, e.i64(0xffff_ffff)));
    e.setR(f.Rt2, e.shrU(both, e.i64(32)));
  }),
  row('STXP, STLXP (32-bit)', '10 001000 0 0 1 Rs x Rt2 Rn|SP Rt', {}, (e, f) => {
    const va = e.getX(f.Rn);
    const both = pack32(e, e.getW(f.Rt), e.getW(f.Rt2));
    checkAtomicAlignment(e, va, 8, true);
    const unchanged = (): Val => e.eq(e.load(8, va), e.state('i64', Offset.MONITOR_DATA));
    storeExclusive(e, va, 8, f.Rs, unchanged, () => e.store(8, va, both));
  }),
  row('LDXP, LDAXP (64-bit)', '11 001000 0 1 1 xxxxx x Rt2 Rn|SP Rt', {}, (e, f) => {
    const va = e.getX(f.Rn);
    checkAtomicAlignment(e, va, 16, false);
    const both = e.load(16, va);
    const low = e.lane('i64x2.extract_lane', 0, both);
    const high = e.lane('i64x2.extract_lane', 1, both);
    setMonitor(e, va, 16);
    e.setState(Offset.MONITOR_DATA, low);
    e.setState(Offset.MONITOR_DATA + 8, high);
    e.setR(f.Rt, low);
    e.setR(f.Rt2, high);
  }),
  row('STXP, STLXP (64-bit)', '11 001000 0 0 1 Rs x Rt2 Rn|SP Rt', {}, (e, f) => {
    const va = e.getX(f.Rn);
    const both = pack64(e, e.getX(f.Rt), e.getX(f.Rt2));
    checkAtomicAlignment(e, va, 16, true);
    const unchanged = (): Val =>
      e.op('i64x2.all_true', e.op('i64x2.eq', e.load(16, va), e.state('v128', Offset.MONITOR_DATA)));
    storeExclusive(e, va, 16, f.Rs, unchanged, () => e.store(16, va, both));
  }),
];

/** The low bytes of a W register. */
function narrow(e: Emitter, value: Val, bytes: Bytes): Val {
  return bytes === 1 ? e.and(value, e.i32(0xff)) : bytes === 2 ? e.and(value, e.i32(0xffff)) : value;
}
function narrowSigned(e: Emitter, value: Val, bytes: Bytes): Val {
  return bytes === 1 ? e.op('i32.extend8_s', value) : bytes === 2 ? e.op('i32.extend16_s', value) : value;
}

/**
 * CAS. Where the comparison fails, what was read is stored back: the architecture checks for write permission in either case.
 */
const compareAndSwap = (size: string, bytes: Bytes, suffix: string): Row =>
  row(`CAS${suffix}`, `${size as '00'} 001000 1 x 1 Rs x 11111 Rn|SP Rt`, {}, (e, f) => {
    const sf = bytes === 8 ? 1 : 0;
    const va = e.getX(f.Rn);
    const expected = narrow(e, e.getR(sf, f.Rs), bytes);
    const value = e.getR(sf, f.Rt);
    checkAtomicAlignment(e, va, bytes, false);
    const old = e.load(bytes, va);
    e.store(bytes, va, e.select(e.eq(old, expected), value, old));
    e.setR(f.Rs, old);
  });

const X = (n: number): number => Offset.X + n * 8;
/** The second registers of CASP's pairs, as offsets in the CPU state: to read, and to write. */
const secondRegisters = {
  when: (f: { Rs: number; Rt: number }): boolean => ((f.Rs | f.Rt) & 1) === 0,
  ops: {
    expectedHigh: (f: { Rs: number }): number => (f.Rs === 30 ? Offset.ZR : X(f.Rs + 1)),
    valueHigh: (f: { Rt: number }): number => (f.Rt === 30 ? Offset.ZR : X(f.Rt + 1)),
    oldHigh: (f: { Rs: number }): number => (f.Rs === 30 ? Offset.DISCARD : X(f.Rs + 1)),
  },
};

const compareAndSwapPairs: readonly Row[] = [
  row('CASP (32-bit)', '00 001000 0 x 1 Rs x 11111 Rn|SP Rt', secondRegisters, (e, f) => {
    const va = e.getX(f.Rn);
    const expected = pack32(e, e.getW(f.Rs), e.wrap(e.stateAt('expectedHigh')));
    const value = pack32(e, e.getW(f.Rt), e.wrap(e.stateAt('valueHigh')));
    checkAtomicAlignment(e, va, 8, false);
    const old = e.load(8, va);
    e.store(8, va, e.select(e.eq(old, expected), value, old));
    e.setR(f.Rs, e.and(old, e.i64(0xffff_ffff)));
    e.setStateAt('oldHigh', e.shrU(old, e.i64(32)));
  }),
  row('CASP (64-bit)', '01 001000 0 x 1 Rs x 11111 Rn|SP Rt', secondRegisters, (e, f) => {
    const va = e.getX(f.Rn);
    const expected = pack64(e, e.getX(f.Rs), e.stateAt('expectedHigh'));
    const value = pack64(e, e.getX(f.Rt), e.stateAt('valueHigh'));
    checkAtomicAlignment(e, va, 16, false);
    const old = e.load(16, va);
    e.store(16, va, e.select(e.op('i64x2.all_true', e.op('i64x2.eq', old, expected)), value, old));
    e.setR(f.Rs, e.lane('i64x2.extract_lane', 0, old));
    e.setStateAt('oldHigh', e.lane('i64x2.extract_lane', 1, old));
  }),
];

type Combine = (e: Emitter, old: Val, operand: Val, bytes: Bytes) => Val;

const extreme =
  (compare: string, signed: boolean): Combine =>
  (e, old, operand, bytes) => {
    const a = signed ? narrowSigned(e, old, bytes) : old;
    const b = signed ? narrowSigned(e, operand, bytes) : narrow(e, operand, bytes);
    return e.select(e.op(`${a.type}.${compare}`, a, b), a, b);
  };

const OPERATIONS: readonly (readonly [string, string, Combine])[] = [
  ['LDADD', '0 000', (e, old, operand) => e.add(old, operand)],
  ['LDCLR', '0 001', (e, old, operand) => e.and(old, e.not(operand))],
  ['LDEOR', '0 010', (e, old, operand) => e.xor(old, operand)],
  ['LDSET', '0 011', (e, old, operand) => e.or(old, operand)],
  ['LDSMAX', '0 100', extreme('gt_s', true)],
  ['LDSMIN', '0 101', extreme('lt_s', true)],
  ['LDUMAX', '0 110', extreme('gt_u', false)],
  ['LDUMIN', '0 111', extreme('lt_u', false)],
  ['SWP', '1 000', (_e, _old, operand) => operand],
];

/** LDADD and its like; ST<op> is the same with Rt 31. */
const atomic = (size: string, bytes: Bytes, suffix: string): Row[] =>
  OPERATIONS.map(([name, opcode, combine]) =>
    row(`${name}${suffix}`, `${size as '00'} 111 0 00 xx 1 Rs ${opcode as '0 000'} 00 Rn|SP Rt`, {}, (e, f) => {
      const va = e.getX(f.Rn);
      const operand = e.getR(bytes === 8 ? 1 : 0, f.Rs);
      checkAtomicAlignment(e, va, bytes, false);
      const old = e.load(bytes, va);
      e.store(bytes, va, combine(e, old, operand, bytes));
      e.setR(f.Rt, old);
    }),
  );

export const atomics: readonly Row[] = [
  ...SIZES.flatMap(([size, bytes, suffix]) => exclusive(size, bytes, suffix)),
  ...exclusivePairs,
  ...SIZES.map(([size, bytes, suffix]) => compareAndSwap(size, bytes, suffix)),
  ...compareAndSwapPairs,
  ...SIZES.flatMap(([size, bytes, suffix]) => atomic(size, bytes, suffix)),
];
