import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { add, addImm, b, bl, blr, bne, br, cbnz, ERET, hvc, ISB, mrs, msr, NOP, RET, store, subsImm } from '../a64.ts';
import { type BareMetal, DATA, EL1H, MASKED, REG, SCTLR_ON, VECTORS, withMmu } from '../bare-metal.ts';
import { Lockstep } from './lockstep.ts';
import { DONE, runScenario, type Scenario } from './scenario.ts';

/** Calls and returns within compiled regions, with a stop after every instruction: all engines are the same machine. */

const STACK = DATA + 0x4000;
const DAIF_I = 0x80n;
/** The same code, guarded here. */
const GUARDED = 0x10_0000_0000;
const BT1 = 1n << 36n;
const BTI_C = 0xd503_245f;

let lockstep: Lockstep;
beforeEach(() => {
  lockstep = new Lockstep();
});
afterEach(() => lockstep.close());

const place = (words: readonly number[], at?: number): number => lockstep.same((m) => m.place(words, at));
const everySlice = (scenario: Scenario): void => runScenario(lockstep, scenario);
const x = (m: BareMetal, ...numbers: number[]): bigint[] => numbers.map((n) => m.cpu.getX(n));

const mov = (rd: number, rm: number): number => (0xaa0003e0 | (rm << 16) | rd) >>> 0;
const subImm = (rd: number, rn: number, imm: number): number => (0xd1000000 | (imm << 10) | (rn << 5) | rd) >>> 0;
const cbz = (rt: number, words: number): number => (0xb400_0000 | (words << 5) | rt) >>> 0;
const cmp = (rn: number, imm: number): number => subsImm(31, rn, imm);
const blo = (words: number): number => (0x54000003 | ((words & 0x7ffff) << 5)) >>> 0;
/** STP and LDP of X19 and X30, as functions begin and end. */
const PUSH = 0xa9bf7bf3; // stp x19, x30, [sp, #-16]!
const POP = 0xa8c17bf3; // ldp x19, x30, [sp], #16

/** A function of X0 by two calls of itself: f(n) = f(n - 1) + f(n - 2) + 1, and n below 2. */
const TREE = [
  cmp(0, 2),
  blo(12),
  PUSH,
  mov(19, 0),
  subImm(0, 0, 1),
  bl(-5),
  0xf81f_0fe0, // str x0, [sp, #-16]!
  subImm(0, 19, 2),
  bl(-8),
  0xf841_07e1, // ldr x1, [sp], #16
  add(0, 0, 1),
  addImm(0, 0, 1),
  POP,
  RET,
];

describe('recursion', () => {
  const start = (m: BareMetal, pc: number, pstate?: bigint): ReturnType<Scenario['start']> => {
    m.cpu.setSpEl1(BigInt(STACK));
    return { pc, x: { 0: 6, 28: 0 }, ...(pstate === undefined ? {} : { pstate }) };
  };
  const expected = (n: number): bigint => (n < 2 ? BigInt(n) : expected(n - 1) + expected(n - 2) + 1n);

  test('with interrupts on the way', () => {
    place([addImm(28, 28, 1), ERET], VECTORS + 0x280);
    const at = place([bl(2), hvc(DONE), ...TREE]);
    everySlice({
      start: (m) => start(m, at, EL1H | (MASKED & ~DAIF_I)),
      between: (slice) => lockstep.each(({ cpu }) => cpu.setIrq(slice % 5 === 1)),
      check: (m) => expect(x(m, 0)).toEqual([expected(6)]),
    });
  });

  test('in a guarded page, called by a register', () => {
    const at = place([blr(9), hvc(DONE), BTI_C, b(1), ...TREE]);
    lockstep.each((m) => {
      const tables = withMmu(m, { sctlr: SCTLR_ON | BT1 });
      tables.map(STACK - 0x1000, STACK - 0x1000);
      tables.map(GUARDED + (at & ~0xfff), at & ~0xfff, { guarded: true });
    });
    everySlice({
      start: (m) => {
        const { pc, x } = start(m, GUARDED + at);
        return { pc, x: { ...x, 9: GUARDED + at + 8 } };
      },
      check: (m) => expect(x(m, 0, 30)).toEqual([expected(6), BigInt(GUARDED + at + 4)]),
    });
  });
});

describe('a callee that returns elsewhere', () => {
  /** A loop that calls what is at 8, and adds 1 to X1 behind it. */
  const loop = [bl(8), addImm(1, 1, 1), subsImm(3, 3, 1), bne(-3), hvc(DONE)];
  /** What the callee goes on to instead adds 100. */
  const elsewhere = [addImm(1, 1, 100), b(-4), NOP];
  const start = (pc: number, x = {}): ReturnType<Scenario['start']> => ({ pc, x: { 1: 0, 2: 0, 3: 40, 28: 0, ...x } });

  test('to what is no call’s next instruction, in the same page', () => {
    const at = place([...loop, ...elsewhere, addImm(2, 2, 1), addImm(30, 30, 16), RET]);
    everySlice({
      start: () => start(at),
      check: (m) => expect(x(m, 1, 2)).toEqual([4000n, 40n]),
    });
  });

  test('now and then', () => {
    // Every other time: X4 is 0 or 16.
    const at = place([...loop, ...elsewhere, 0xd27c_0084, add(30, 30, 4), RET]); // eor x4, x4, #16
    everySlice({
      start: () => start(at, { 4: 0 }),
      check: (m) => expect(x(m, 1)).toEqual([2020n]),
    });
  });

  test('behind another call', () => {
    // The first callee leaves its X30 in X5; the second returns there every other time, and is called again.
    const first = [mov(5, 30), RET];
    const second = [0xd240_0084, cbz(4, 2), mov(30, 5), RET]; // eor x4, x4, #1
    const at = place([
      bl(7),
      addImm(1, 1, 1),
      bl(7),
      addImm(1, 1, 100),
      subsImm(3, 3, 1),
      bne(-5),
      hvc(DONE),
      ...first,
      ...second,
    ]);
    everySlice({
      start: () => start(at, { 4: 0 }),
      check: (m) => expect(x(m, 1)).toEqual([40n * 102n]),
    });
  });

  test('to another page', () => {
    const other = place([addImm(1, 1, 1000), br(6)]);
    const at = place([...loop, ...elsewhere, mov(6, 30), mov(30, 7), RET]);
    everySlice({
      start: () => start(at, { 7: other }),
      check: (m) => expect(x(m, 1)).toEqual([40n * 1001n]),
    });
  });

  test('to an address that is misaligned', () => {
    // The handler counts, and clears the bits.
    const handler = [addImm(28, 28, 1), mrs(29, REG.ELR_EL1), 0x927e_f7bd, msr(REG.ELR_EL1, 29), ERET]; // and x29, x29, #~3
    for (const vector of [0x000, 0x200]) place(handler, VECTORS + vector);
    const at = place([...loop, ...elsewhere, addImm(30, 30, 2), RET]);
    everySlice({
      start: () => start(at),
      check: (m) => expect(x(m, 1, 28)).toEqual([40n, 40n]),
    });
  });
});

test('flags that a callee leaves, each in its way', () => {
  const at = place([
    bl(9),
    0x9a9f_17e8, // cset x8, eq
    add(1, 1, 8),
    bl(9),
    0x9a9f_37e8, // cset x8, cs
    add(2, 2, 8),
    subsImm(3, 3, 1),
    bne(-7),
    hvc(DONE),
    0x3600_0063, // tbz w3, #0, to the TST
    0x7100_1c7f, // cmp w3, #7
    RET,
    0xf27f_007f, // tst x3, #2: where the second call begins
    RET,
  ]);
  everySlice({
    start: () => ({ pc: at, x: { 1: 0, 2: 0, 3: 40 } }),
    check: (m) => {
      const counted = Array.from({ length: 40 }, (_, n) => n + 1);
      const zero = counted.filter((n) => (n % 2 === 1 ? n === 7 : (n & 2) === 0)).length;
      // TST clears C.
      expect(x(m, 1, 2)).toEqual([BigInt(zero), 0n]);
    },
  });
});

test('a callee that writes over its caller, and over itself', () => {
  // X8 is ADD X1, X1, #5, and X9 where it goes: behind the call, or into the callee.
  const at = place([
    bl(5),
    addImm(1, 1, 0),
    subsImm(3, 3, 1),
    cbnz(3, -3),
    hvc(DONE),
    store(4, 8, 9),
    ISB,
    addImm(1, 1, 0),
    RET,
  ]);
  for (const target of [at + 4, at + 28]) {
    everySlice({
      start: (m) => {
        m.place([addImm(1, 1, 0)], at + 4);
        m.place([addImm(1, 1, 0)], at + 28);
        return { pc: at, x: { 1: 0, 3: 40, 8: addImm(1, 1, 5), 9: target } };
      },
      check: (m) => expect(x(m, 1)).toEqual([200n]),
    });
  }
});
