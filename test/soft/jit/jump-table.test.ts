import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { addImm, blr, bne, ERET, hvc, mrs, msr, RET, subsImm } from '../a64.ts';
import { DATA, REG, VECTORS } from '../bare-metal.ts';
import { Lockstep } from './lockstep.ts';
import { DONE, runScenario } from './scenario.ts';

/** The table by which regions find each other (lib/soft/jit/fetch-table.ts). */

let lockstep: Lockstep;
beforeEach(() => {
  lockstep = new Lockstep();
  lockstep.each((m) => m.normalMemory(false));
});
afterEach(() => lockstep.close());

const place = (words: readonly number[], at?: number): number => lockstep.same((m) => m.place(words, at));

test('functions at the same place of many pages, and in the same place of the table', () => {
  const COUNT = 12;
  const addImm1000 = 0x91400400; // add x0, x0, #1, lsl #12
  const call = [blr(0), addImm1000, subsImm(3, 3, 1), bne(-3)];
  for (let n = 0; n < COUNT; n++) place([addImm(2, 2, n + 1), RET], DATA + 0x100 + n * 0x1000);
  // Position 1 of a page and 0 of the next have one entry.
  place([addImm(2, 2, 100), RET], DATA + 0x10_0004);
  place([addImm(2, 2, 1000), RET], DATA + 0x10_1000);
  const others = [blr(5), blr(6)];
  const outer = [addImm(0, 7, 0), addImm(3, 8, 0), ...call, ...others, subsImm(4, 4, 1)];
  const at = place([...outer, bne(-outer.length), hvc(DONE)]);
  const x = { 2: 0, 4: 30, 5: DATA + 0x10_0004, 6: DATA + 0x10_1000, 7: DATA + 0x100, 8: COUNT };
  runScenario(lockstep, {
    start: () => ({ pc: at, x }),
    check: (m) => expect(m.cpu.getX(2)).toBe(30n * (78n + 1100n)),
  });
});

test('addresses that no region has', () => {
  // The handler goes on behind the call.
  const back = [addImm(28, 28, 1), mrs(29, REG.ELR_EL1), msr(REG.ELR_EL1, 30), ERET];
  for (const vector of [0x000, 0x200, 0x400]) place(back, VECTORS + vector);
  const calls = [blr(5), blr(6), blr(7), blr(9), subsImm(3, 3, 1)];
  const at = place([...calls, bne(-calls.length), hvc(DONE)]);
  runScenario(lockstep, {
    start: () => ({ pc: at, x: { 3: 40, 5: -1, 6: -4, 7: 0, 9: 4, 28: 0 } }),
    check: (m) => expect(m.cpu.getX(28)).toBe(160n),
  });
});
