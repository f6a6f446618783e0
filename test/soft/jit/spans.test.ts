import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { add, addImm, bne, DSB, ERET, hvc, ldp, load, mrs, msr, store, stp, subsImm, tlbiVae1 } from '../a64.ts';
import { type BareMetal, DATA, REG, SCTLR_ON, VECTORS, withMmu } from '../bare-metal.ts';
import { Lockstep } from './lockstep.ts';
import { DONE, runScenario } from './scenario.ts';

/** Accesses that rely on an earlier one's page (lib/soft/jit/span-plan.ts), where that page is not theirs. */

const VA = 0x8080_0000_0000n;
const TABLES_VA = 0x8080_0040_0000n;
const LDUR = 0xf8400000; // ldur Xt, [Xn, #imm9]
const ldur = (rt: number, rn: number, offset: number): number => (LDUR | (offset << 12) | (rn << 5) | rt) >>> 0;

let lockstep: Lockstep;
beforeEach(() => {
  lockstep = new Lockstep();
});
afterEach(() => lockstep.close());

const place = (words: readonly number[], at?: number): number => lockstep.same((m) => m.place(words, at));
/** Places a handler of synchronous exceptions that skips the instruction, and counts in X28. */
const skipFaults = (): void => {
  const skip = [addImm(28, 28, 1), mrs(29, REG.ELR_EL1), addImm(29, 29, 4), msr(REG.ELR_EL1, 29), ERET];
  for (const vector of [0x000, 0x200, 0x400]) place(skip, VECTORS + vector);
};

/** Walks over the end of a page: adds up in X2 what it loads around X0, and stores that behind it. */
const WALK = [
  load(8, 4, 0),
  load(8, 5, 0, 24),
  add(2, 2, 4),
  add(2, 2, 5),
  ldp(4, 5, 0),
  add(2, 2, 5),
  ldur(6, 0, 12),
  add(2, 2, 6),
  store(8, 2, 0, 128),
  stp(2, 4, 0),
  store(4, 2, 0, 132),
  addImm(0, 0, 8),
  subsImm(3, 3, 1),
];
const ROUNDS = 60;
const START = VA + 0x1000n - 240n;

test('the next page is elsewhere', () => {
  lockstep.each((m) => {
    const tables = withMmu(m);
    tables.map(VA, DATA);
    tables.map(VA + 0x1000n, DATA + 0x5000);
  });
  const at = place([...WALK, bne(-WALK.length), hvc(DONE)]);
  runScenario(lockstep, {
    start: (m) => {
      for (let n = 0; n < 0x2000; n += 8) m.write64(DATA + (n < 0x1000 ? n : n + 0x4000), BigInt(n) * 0x9e37_79b9n);
      return { pc: at, x: { 0: START, 2: 0, 3: ROUNDS } };
    },
    check: (m) => {
      // What is stored last lies in the second page, and the page behind the first in RAM was let alone.
      expect(m.cpu.getX(0)).toBe(START + BigInt(ROUNDS * 8));
      expect(m.read64(DATA + 0x1000)).toBe(0n);
      expect(m.read64(DATA + 0x5000 - 240 + (ROUNDS - 1) * 8)).toBe(m.cpu.getX(2));
    },
  });
});

test('the next page is not mapped', () => {
  lockstep.each((m) => withMmu(m).map(VA, DATA));
  skipFaults();
  const at = place([...WALK, bne(-WALK.length), hvc(DONE)]);
  let faults: bigint | undefined;
  runScenario(lockstep, {
    start: (m) => {
      for (let n = 0; n < 0x1000; n += 8) m.write64(DATA + n, BigInt(n) * 0x9e37_79b9n);
      return { pc: at, x: { 0: START, 2: 0, 3: ROUNDS, 28: 0 } };
    },
    check: (m) => {
      // However the run is sliced.
      faults ??= m.cpu.getX(28);
      expect(m.cpu.getX(28)).toBe(faults);
      expect(m.read64(DATA + 0x1000)).toBe(0n);
    },
  });
  // All of the last rounds' accesses fault, and in rounds before those that are further on.
  expect(faults).toBeGreaterThan(BigInt(30 * 7));
});

test('a translation that changes between two accesses', () => {
  const entries = new Map<BareMetal, { at: number; a: bigint; b: bigint }>();
  lockstep.each((m) => {
    const tables = withMmu(m);
    const at = tables.map(VA, DATA);
    tables.map(TABLES_VA, at & ~0xfff);
    entries.set(m, {
      at,
      a: tables.descriptor(DATA),
      b: tables.descriptor(DATA + 0x1000),
    });
  });
  const body = [
    load(8, 1, 0),
    load(8, 4, 0, 8),
    store(8, 7, 6),
    DSB,
    tlbiVae1(8),
    DSB,
    // The other page's, of the same addresses.
    load(8, 5, 0),
    load(8, 10, 0, 8),
    add(2, 2, 5),
    add(2, 2, 10),
    0xca0900e7, // eor x7, x7, x9
    subsImm(3, 3, 1),
  ];
  const at = place([...body, bne(-body.length), hvc(DONE)]);
  runScenario(lockstep, {
    start: (m) => {
      const { at: entry, a, b } = entries.get(m)!;
      m.write64(entry, a);
      for (const [n, value] of [1n, 2n].entries()) m.write64(DATA + n * 8, value);
      for (const [n, value] of [100n, 200n].entries()) m.write64(DATA + 0x1000 + n * 8, value);
      return { pc: at, x: { 0: VA, 2: 0, 3: 60, 6: TABLES_VA + BigInt(entry & 0xfff), 7: b, 8: VA >> 12n, 9: a ^ b } };
    },
    check: (m) => expect(m.cpu.getX(2)).toBe(30n * 300n + 30n * 3n),
  });
});

test('alignment is checked of each access', () => {
  lockstep.each((m) => withMmu(m, { sctlr: SCTLR_ON | 2n }).map(VA, DATA));
  skipFaults();
  const body = [load(8, 1, 0), ldur(4, 0, 4), load(8, 5, 0, 8), ldur(6, 0, 12), store(8, 1, 0, 16), subsImm(3, 3, 1)];
  const at = place([...body, bne(-body.length), hvc(DONE)]);
  runScenario(lockstep, {
    start: () => ({ pc: at, x: { 0: VA, 3: 40, 28: 0 } }),
    check: (m) => expect(m.cpu.getX(28)).toBe(80n),
  });
});
