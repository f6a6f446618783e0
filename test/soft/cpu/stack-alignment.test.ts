import { afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { Decoder } from '#lib/soft/a64/decode.js';
import { TABLE } from '#lib/soft/a64/table.js';
import { hasSpBase } from '#lib/soft/jit/handler.js';
import { addImm, ldrQ, load, mov, msr, NOP, store, stp } from '../a64.ts';
import { BareMetal, CODE, DATA, EL0T, EL1H, EL1T, MASKED, REG } from '../bare-metal.ts';

const SA = 1n << 3n;
const SA0 = 1n << 4n;
const SP_ALIGNMENT = 0x26;
const SP = 31;

let vm: BareMetal;
beforeAll(() => {
  vm = new BareMetal();
});
afterEach(() => {
  vm.cpu.setSysreg(REG.CPACR_EL1, 3n << 20n);
});

/** Sets SP to an address and executes. */
const withSp = (address: number, words: readonly number[], pstate = EL1H | MASKED) =>
  vm.execute([addImm(SP, 9, 0), ...words], { pstate, x: { 9: address, 10: DATA }, at: CODE });

/** One of every row: an access with SP as its base, and with X10. */
const rows = TABLE.filter(hasSpBase).flatMap((row) => {
  // Fields that make the row's allocated form, found by trying.
  for (const fill of [0, 0x0000_0400, 0x4000_0000, 0x0040_0000, 0x0000_4000, 0x4000_4000, 0x0000_6000, 0x0000_2000]) {
    const word = ((row.value | (fill & ~row.mask)) & ~(31 << 5)) >>> 0;
    if (new Decoder(TABLE).decode(word | (SP << 5)) === row) return [[row.name, word] as const];
  }
  return [];
});

test('the rows that are tried are nearly all', () => {
  expect(rows.length).toBeGreaterThan(0.95 * TABLE.filter(hasSpBase).length);
});

test.each(rows)('%s', (_name, word) => {
  vm.cpu.setSysreg(REG.SCTLR_EL1, SA | SA0);
  const onSp = (word | (SP << 5)) >>> 0;
  for (const pstate of [EL1H | MASKED, EL1T | MASKED, EL0T]) {
    const wrong = withSp(DATA + 8, [onSp], pstate);
    expect({ ec: wrong.ec, iss: wrong.iss }).toEqual({ ec: SP_ALIGNMENT, iss: 0 });
  }
  // Another base may be misaligned, and SP aligned.
  vm.cpu.setSysreg(REG.ESR_EL1, 0n);
  expect(withSp(DATA, [onSp]).ec).not.toBe(SP_ALIGNMENT);
  expect(withSp(DATA + 8, [(word | (10 << 5)) >>> 0]).ec).not.toBe(SP_ALIGNMENT);
});

test('SCTLR_EL1.SA is for EL1, SA0 for EL0, whichever stack pointer it is', () => {
  for (const [sctlr, el1, el0] of [
    [0n, true, true],
    [SA, false, true],
    [SA0, true, false],
  ] as const) {
    vm.cpu.setSysreg(REG.SCTLR_EL1, sctlr);
    for (const word of [load(8, 1, SP), store(1, 1, SP, 1), stp(1, 2, SP)]) {
      expect([EL1H | MASKED, EL1T | MASKED, EL0T].map((pstate) => withSp(DATA + 8, [word], pstate).done)).toEqual([
        el1,
        el1,
        el0,
      ]);
    }
  }
});

test('a misaligned SP that nothing is accessed by is no fault; what is prefetched is no access', () => {
  vm.cpu.setSysreg(REG.SCTLR_EL1, SA);
  expect(withSp(DATA + 1, [addImm(1, SP, 8), 0xf98003e0, NOP]).done).toBe(true); // prfm pldl1keep, [sp]
  expect(vm.cpu.getX(1)).toBe(BigInt(DATA + 9));
});

test('the fault is at the instruction, and nothing of it is done', () => {
  vm.cpu.setSysreg(REG.SCTLR_EL1, SA);
  vm.write64(DATA, 5n);
  const o = withSp(DATA + 8, [NOP, 0xf81f8fe1]); // str x1, [sp, #-8]!
  expect(o.ec).toBe(SP_ALIGNMENT);
  expect(o.elr).toBe(o.elr & ~3n);
  expect(vm.read64(DATA)).toBe(5n);
  vm.cpu.setPstate(EL1H | MASKED);
  expect(vm.cpu.getSpEl1()).toBe(BigInt(DATA + 8));
});

describe('what comes first', () => {
  test('a trapped FP register, then SP, then the access', () => {
    vm.cpu.setSysreg(REG.SCTLR_EL1, SA);
    vm.cpu.setSysreg(REG.CPACR_EL1, 0n);
    expect(withSp(DATA + 8, [ldrQ(1, SP)]).ec).toBe(7);
    vm.cpu.setSysreg(REG.CPACR_EL1, 3n << 20n);
    // An address beyond 40 bits, MMU off.
    expect(vm.execute([addImm(SP, 9, 0), load(8, 1, SP)], { x: { 9: (1n << 44n) + 8n } }).ec).toBe(SP_ALIGNMENT);
    expect(vm.execute([addImm(SP, 9, 0), load(8, 1, SP)], { x: { 9: 1n << 44n } }).ec).toBe(0x25);
  });
  test('a write of SCTLR_EL1 takes effect for the next instruction', () => {
    vm.cpu.setSysreg(REG.SCTLR_EL1, 0n);
    const o = withSp(DATA + 8, [load(8, 1, SP), ...mov(1, 0x30d0_1988n), msr(REG.SCTLR_EL1, 1), load(8, 1, SP)]);
    expect(o.ec).toBe(SP_ALIGNMENT);
  });
});
