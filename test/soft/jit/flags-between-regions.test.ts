import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { CpuStop } from '#lib/soft/cpu/cpu.js';
import { addImm, bne, br, cbnz, hvc, movz, store, subsImm } from '../a64.ts';
import { CODE, DATA, EL1H, RAM } from '../bare-metal.ts';
import { Lockstep } from './lockstep.ts';

/** NZCV that one region sets and another, or nobody, asks for. */

/** ADDS, SUBS and ANDS of X3, X1 and X2 or of their lower halves. */
const OPERATIONS = [0xab020023, 0xeb020023, 0xea020023, 0x2b020023, 0x6b020023, 0x6a020023];
const OPERANDS = [0n, 1n, 0x80000000n, 0xffffffffn, 1n << 63n, (1n << 64n) - 1n];
/** Result to X6. */
const cset = (cond: number): number => (0x9a9f07e6 | ((cond ^ 1) << 12)) >>> 0;
const ADCS = 0xba020026;
const MRS_NZCV = 0xd53b4206;
const CCMP_CS = 0xfa422025; // ccmp x1, x2, #5, cs
/** X7 is X7 times X13 and X6. */
const KEEP = 0x9b0d18e7;
const LOADS = 0xa8c10801; // ldp x1, x2, [x0], #16

/** What the second region begins with; it goes on with keeping X6. */
const READERS: Readonly<Record<string, (cond: number) => readonly number[]>> = {
  'a condition': (cond) => [cset(cond)],
  'the carry': () => [ADCS],
  'all of them': () => [MRS_NZCV],
  'a condition, then others': (cond) => [CCMP_CS, cset(cond)],
  'a condition behind a store': (cond) => [store(8, 3, 8), cset(cond)],
  'conditions in a loop that sets them': (cond) => [
    movz(4, 2),
    cset(cond),
    KEEP,
    subsImm(4, 4, 1),
    bne(-3),
    cset(cond),
  ],
  'nothing but the next region': (cond) => [addImm(14, 14, 1), br(12), cset(cond)],
};

describe('flags that a region leaves', () => {
  let lockstep: Lockstep;
  beforeAll(() => {
    lockstep = new Lockstep();
  });
  afterAll(() => lockstep.close());

  const first = CODE + 0x1000;
  const second = CODE + 0x2000;

  /** @param third where in the second page it is */
  function run(operation: number, reader: readonly number[], third: number): void {
    lockstep.each((m) => {
      m.place([LOADS, operation, br(10), hvc(0)], first);
      m.place([...reader, KEEP, subsImm(9, 9, 1), 0x9a9f17e5, cbnz(9, 2), br(11), br(15)], second); // cset x5, eq
    });
    for (const budget of [1_000_000, 3, 1_000_000, 7]) {
      lockstep.each(({ cpu }) => {
        for (let n = 0; n < 31; n++) cpu.setX(n, 0n);
        cpu.setX(0, BigInt(DATA));
        cpu.setX(8, BigInt(DATA + 0x1000));
        cpu.setX(9, BigInt(OPERANDS.length ** 2));
        cpu.setX(10, BigInt(second));
        cpu.setX(11, BigInt(first + 12));
        cpu.setX(12, BigInt(second + third));
        cpu.setX(13, 0x9e3779b97f4a7c15n);
        cpu.setX(15, BigInt(first));
        cpu.setPstate(EL1H);
        cpu.setPc(BigInt(first));
      });
      expect(lockstep.until(budget).stop).toBe(CpuStop.HVC);
      lockstep.settle();
    }
  }

  test.each(Object.entries(READERS))('are found by who wants %s', (name, reader) => {
    const pairs = OPERANDS.flatMap((a) => OPERANDS.flatMap((b) => [a, b]));
    lockstep.each(({ memory }) => {
      new BigUint64Array(memory.bytes.buffer, memory.bytes.byteOffset + DATA - RAM, pairs.length).set(pairs);
    });
    const before = lockstep.regions;
    OPERATIONS.forEach((operation, n) => {
      // Each reader sees all conditions of one operation or another.
      for (let cond = n % 2; cond < 14; cond += 2) {
        lockstep.context = `${name}, ${operation.toString(16)}, cond ${cond}`;
        run(operation, reader(cond), 8);
      }
    });
    expect(lockstep.regions).toBeGreaterThan(before + 14);
  });
});
