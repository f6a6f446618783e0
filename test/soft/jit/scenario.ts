import { expect } from '@jest/globals';
import { CpuStop } from '#lib/soft/cpu/cpu.js';
import { type BareMetal, EL1H, MASKED } from '../bare-metal.ts';
import type { Lockstep } from './lockstep.ts';

/** HVC that ends a scenario. */
export const DONE = 1;

export interface Scenario {
  /** Puts the machine at the start, all but code, which stays compiled: registers, data. Returns where to begin. */
  readonly start: (m: BareMetal) => {
    readonly pc: number | bigint;
    readonly x?: Readonly<Record<number, number | bigint>>;
    readonly pstate?: bigint;
  };
  /** Answers a stop that is not the end of a budget. */
  readonly answer?: (stop: CpuStop) => void;
  /** Something from outside, between slices. */
  readonly between?: (slice: number) => void;
  /** At the end. */
  readonly check: (m: BareMetal) => void;
}

const SLICES = [1000, ...Array.from({ length: 25 }, (_, n) => n)];

/** Runs a scenario in slices of every size up to 24, until HVC #{@link DONE}; what is hot is compiled between. */
export function runScenario(
  lockstep: Lockstep,
  { start, answer, between, check }: Scenario,
  budgets: readonly number[] = SLICES,
): void {
  const before = lockstep.regions;
  for (const budget of budgets) {
    lockstep.context = `slices of ${budget}`;
    lockstep.each((m) => {
      const { pc, x = {}, pstate = EL1H | MASKED } = start(m);
      m.cpu.setPstate(pstate);
      m.cpu.setPc(BigInt(pc));
      for (const [n, value] of Object.entries(x)) m.cpu.setX(Number(n), BigInt.asUintN(64, BigInt(value)));
    });
    for (let n = 0; ; n++) {
      if (n === 100_000) throw new Error('the scenario does not end');
      between?.(n);
      const { stop } = lockstep.step(budget);
      if (stop === CpuStop.BUDGET) continue;
      if (stop === CpuStop.HVC && lockstep.same((m) => m.cpu.hvcImmediate) === DONE) break;
      if (answer === undefined) throw new Error(`the scenario stops with ${stop}`);
      answer(stop);
    }
    lockstep.compareMemory();
    lockstep.each(check);
    lockstep.settle();
  }
  expect(lockstep.regions).toBeGreaterThan(before);
}
