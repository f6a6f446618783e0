import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { CpuStop } from '#lib/soft/cpu/cpu.js';
import { FlagState, flagState, flagsAtEntry, flagsToBeginWith } from '#lib/soft/jit/lazy-flags.js';
import { hvc } from '../a64.ts';
import { CODE, DATA, EL1H, RAM } from '../bare-metal.ts';
import { Lockstep } from './lockstep.ts';

/** NZCV that a region makes only where they are wanted. */

describe('where flags are at the start of a block', () => {
  const { FOUND, WORDS } = FlagState;
  const nothing = { reads: 'nothing', leaves: undefined } as const;
  const compares = { reads: 'nothing', leaves: flagState('sub', 'i64') } as const;
  const adds = { reads: 'nothing', leaves: flagState('add', 'i32') } as const;
  const wantsWords = { reads: 'words', leaves: undefined } as const;
  const asks = { reads: 'conditions', leaves: undefined } as const;

  test('as they are found where the region is entered, in operands behind a comparison', () => {
    expect(flagsAtEntry(FOUND, [[nothing], [compares], [nothing]], [[1], [2], []])).toEqual([
      FlagState.FOUND,
      FlagState.FOUND,
      compares.leaves,
    ]);
  });

  test('they vary where ways meet that left them differently, a loop at its entry too', () => {
    expect(flagsAtEntry(FOUND, [[], [compares], [adds], []], [[1, 2], [3], [3], []])[3]).toBe(FlagState.VARYING);
    expect(flagsAtEntry(FOUND, [[], [compares], [compares], []], [[1, 2], [3], [3], []])[3]).toBe(compares.leaves);
    expect(flagsAtEntry(FOUND, [[nothing, compares]], [[0]])).toEqual([FlagState.VARYING]);
  });

  test('who wants the words has them made; who asks whether a condition holds has not', () => {
    expect(flagsAtEntry(FOUND, [[compares, wantsWords], []], [[1], []])[1]).toBe(FlagState.WORDS);
    expect(flagsAtEntry(FOUND, [[compares, asks], []], [[1], []])[1]).toBe(compares.leaves);
  });

  test('a region that may want those that it finds begins with their words', () => {
    expect(flagsToBeginWith([[nothing], [compares, asks]], [[1], [0]])).toBe(FOUND);
    expect(flagsToBeginWith([[nothing], [asks]], [[1], []])).toBe(WORDS);
    expect(flagsToBeginWith([[nothing], [wantsWords]], [[1], []])).toBe(WORDS);
    expect(flagsToBeginWith([[compares, wantsWords]], [[]])).toBe(FOUND);
    // Behind two ways that set them differently, and in a loop that goes on with what it has set.
    expect(flagsToBeginWith([[], [compares], [adds], [asks]], [[1, 2], [3], [3], []])).toBe(WORDS);
    expect(flagsToBeginWith([[asks, compares]], [[0]])).toBe(WORDS);
  });
});

/** ADDS, SUBS and ANDS of Xd, X1 and X2 or of their lower halves. */
const OPERATIONS = [0xab020020, 0xeb020020, 0xea020020, 0x2b020020, 0x6b020020, 0x6a020020];
const ADCS = 0xba020020;
const OPERANDS = [0n, 1n, 0x80000000n, 0xffffffffn, 1n << 63n, (1n << 63n) - 1n, (1n << 64n) - 1n];

describe('every condition of every operation', () => {
  let lockstep: Lockstep;
  beforeAll(() => {
    lockstep = new Lockstep();
  });
  afterAll(() => lockstep.close());

  /** A loop over pairs of operands, which keeps what was found in X4 to X7. */
  const program = (operation: number, other: number, cond: number): number[] => [
    0xa8c10801, // ldp x1, x2, [x0], #16
    (operation | 3) >>> 0,
    (0x54000040 | cond) >>> 0, // b.cond over the next
    0x91000484, // add x4, x4, #1
    0xb4000041, // cbz x1, over the next: flags are of one or the other
    (other | 5) >>> 0,
    0xf9000103, // str x3, [x8]: may leave with flags to be made
    (0x9a9f07e6 | ((cond ^ 1) << 12)) >>> 0, // cset x6, cond
    0x8b060ce7, // add x7, x7, x6, lsl #3
    0xd1000529, // sub x9, x9, #1
    (0xb5000000 | (((-10 & 0x7ffff) << 5) | 9)) >>> 0, // cbnz x9, to the start
    0x9a9f17ea, // cset x10, eq: flags as the loop left them
    hvc(0),
  ];

  test.each(OPERATIONS.map((operation) => [operation.toString(16), operation] as const))('%s', (_, operation) => {
    const pairs = OPERANDS.flatMap((a) => OPERANDS.flatMap((b) => [a, b]));
    const pc = CODE + 0x1000;
    lockstep.each(({ memory }) => {
      new BigUint64Array(memory.bytes.buffer, memory.bytes.byteOffset + DATA - RAM, pairs.length).set(pairs);
    });
    for (let cond = 0; cond < 14; cond++) {
      const other = [...OPERATIONS, ADCS][cond % 7]!;
      lockstep.context = `${operation.toString(16)}, ${other.toString(16)}, cond ${cond}`;
      lockstep.each((m) => m.place(program(operation, other, cond), pc));
      for (const budget of [1_000_000, 5, 1_000_000, 7]) {
        lockstep.each(({ cpu }) => {
          for (let n = 0; n < 31; n++) cpu.setX(n, 0n);
          cpu.setX(0, BigInt(DATA));
          cpu.setX(8, BigInt(DATA + 0x1000));
          cpu.setX(9, BigInt(pairs.length / 2));
          cpu.setPstate(EL1H);
          cpu.setPc(BigInt(pc));
        });
        expect(lockstep.until(budget).stop).toBe(CpuStop.HVC);
        lockstep.settle();
      }
    }
    expect(lockstep.regions).toBeGreaterThan(14);
  });
});
