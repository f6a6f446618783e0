import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { CpuStop } from '#lib/soft/cpu/cpu.js';
import { Random } from '../../a64/random.ts';
import { addImm, blr, bne, cpy, E, hvc, ISB, M, memset, NOP, P, RET, subsImm } from '../a64.ts';
import { DATA, EL1H, MASKED, RAM } from '../bare-metal.ts';
import { Lockstep } from './lockstep.ts';

/** Memory copies and sets (FEAT_MOPS) in every engine: in hot loops, cut at any instruction, and over code that has run. */

let lockstep: Lockstep;
beforeEach(() => {
  lockstep = new Lockstep();
});
afterEach(() => lockstep.close());

const orr = (rd: number, rm: number): number => (0xaa0003e0 | (rm << 16) | rd) >>> 0;
const eor = (rd: number, rn: number, rm: number): number => (0xca000000 | (rm << 16) | (rn << 5) | rd) >>> 0;
const R = { rd: 3, rs: 7, rn: 12 };
const STAGES = [P, M, E];

function run(words: readonly number[], x: Readonly<Record<number, number>>, budget: number): void {
  const pc = lockstep.same((m) => m.place([...words, hvc(0)], RAM + 0x3_0000));
  lockstep.each(({ cpu }) => {
    cpu.setPstate(EL1H | MASKED);
    cpu.setPc(BigInt(pc));
    for (let n = 0; n < 31; n++) cpu.setX(n, BigInt(x[n] ?? 0));
  });
  lockstep.context = `slices of ${budget}`;
  expect(lockstep.until(budget, 200_000).stop).toBe(CpuStop.HVC);
  lockstep.settle();
  lockstep.compareMemory();
}

test.each([
  ['by the prologue', 8],
  ['by the main instruction', 200],
])('code that was run is copied over, %s, and runs as it is then', (_name, size) => {
  const functions = [1, 2].map((n) => lockstep.same((m) => m.place([addImm(1, 1, n), RET, ...Array(62).fill(NOP)])));
  const slot = lockstep.same((m) => m.place([RET]));
  const loop = [
    orr(R.rd, 20),
    orr(R.rs, 21),
    orr(R.rn, 22),
    ...STAGES.map((stage) => cpy(stage, true, R)),
    ISB,
    blr(20),
    eor(21, 21, 24),
    subsImm(23, 23, 1),
    bne(-10),
  ];
  const before = lockstep.regions;
  for (const budget of [1000, 1, 7, 1000]) {
    run(loop, { 20: slot, 21: functions[0]!, 22: size, 23: 60, 24: functions[0]! ^ functions[1]! }, budget);
    lockstep.each(({ cpu }) => expect(cpu.getX(1)).toBe(90n));
  }
  expect(lockstep.regions).toBeGreaterThan(before);
});

test('copies and sets of every size, in a hot loop', () => {
  const random = new Random();
  lockstep.same((m) => {
    m.memory.bytes.set(new Uint8Array(new Random(3).list64(1024).buffer), DATA - RAM);
    return 0;
  });
  // X20 to, X21 from, X22 size; each turn one byte more, and a set behind it.
  const loop = (move: boolean): number[] => [
    orr(R.rd, 20),
    orr(R.rs, 21),
    orr(R.rn, 22),
    ...STAGES.map((stage) => cpy(stage, move, R)),
    orr(R.rs, 22),
    orr(R.rn, 22),
    ...STAGES.map((stage) => memset(stage, R)),
    addImm(20, 20, 3),
    addImm(22, 22, 1),
    subsImm(23, 23, 1),
    bne(-14),
  ];
  for (const move of [false, true]) {
    for (const budget of [100_000, 1 + random.below(5), 7 + random.below(30), 100_000]) {
      const to = DATA + 0x1_0000 + random.below(4096);
      run(loop(move), { 20: to, 21: DATA + random.below(4096), 22: 0, 23: 150 }, budget);
      // Overlapping.
      if (move) run(loop(true), { 20: DATA + 1000, 21: DATA + 1000 + random.below(300), 22: 0, 23: 150 }, budget);
    }
  }
});
