import { beforeEach, expect, test } from '@jest/globals';
import { CpuStop } from '#lib/soft/cpu/cpu.js';
import { addImm, ERET, hvc, SEV, SEVL, WFE, YIELD } from '../a64.ts';
import { BareMetal, EL1H, MASKED, REG } from '../bare-metal.ts';

let vm: BareMetal;
beforeEach(() => {
  vm = new BareMetal();
});

/** How many of these instructions WFE gives the turn away at. */
function yields(words: readonly number[], cpu = vm.cpu): number {
  cpu.setPstate(EL1H | MASKED);
  cpu.setPc(BigInt(vm.place([...words, hvc(0)])));
  for (let count = 0; ; count++) {
    const stop = vm.run(1000, cpu);
    if (stop === CpuStop.HVC) return count;
    expect(stop).toBe(CpuStop.WFE);
  }
}

test('WFE finds an event once', () => {
  expect(yields([WFE])).toBe(1);
  expect(yields([SEVL, WFE])).toBe(0);
  expect(yields([SEVL, SEVL, WFE, WFE])).toBe(1);
  expect(yields([SEV, WFE, WFE])).toBe(1);
  // YIELD waits for nothing, and leaves the event.
  expect(yields([SEVL, YIELD, WFE])).toBe(1);
});

test('SEV is for every vCPU, SEVL for its own', () => {
  const other = vm.createCpu();
  expect(yields([SEVL])).toBe(0);
  expect(yields([WFE], other)).toBe(1);
  expect(yields([SEV])).toBe(0);
  expect([yields([WFE], other), yields([WFE])]).toEqual([0, 0]);
  expect([yields([WFE], other), yields([WFE])]).toEqual([1, 1]);
});

test('an exception return is an event', () => {
  const target = vm.place([addImm(1, 1, 1), WFE, hvc(0)]);
  vm.cpu.setSysreg(REG.ELR_EL1, BigInt(target));
  vm.cpu.setSysreg(REG.SPSR_EL1, EL1H | MASKED);
  expect(vm.execute([ERET]).stop).toBe(CpuStop.HVC);
});

test('an event at EL0 needs no permission; waiting does', () => {
  vm.cpu.setSysreg(REG.SCTLR_EL1, 0n);
  expect(vm.execute([SEVL, WFE], { pstate: 0n }).done).toBe(true);
  expect(vm.execute([WFE], { pstate: 0n })).toMatchObject({ done: false, ec: 1, iss: 0x1e0_0001 });
});
