import { beforeEach, describe, expect, test } from '@jest/globals';
import { sysregIndex } from '#lib/kvm/registers.js';
import { mrs, msr } from '../a64.ts';
import { BareMetal, EL0T, REG } from '../bare-metal.ts';
import { BCR, BVR, OSDLR, OSLAR, OSLSR, WCR, WVR } from './debug.ts';

const CLAIMSET = sysregIndex(2, 0, 7, 8, 6);
const CLAIMCLR = sysregIndex(2, 0, 7, 9, 6);
const PRCR = sysregIndex(2, 0, 1, 4, 4);
const DFR0 = sysregIndex(3, 0, 0, 5, 0);
const ALL = 0xffff_ffff_ffff_ffffn;

let vm: BareMetal;
beforeEach(() => {
  vm = new BareMetal();
});
/** What is read after a write at EL1. */
function written(index: number, value: bigint): bigint {
  expect(vm.execute([msr(index, 1), mrs(2, index)], { x: { 1: value } }).done).toBe(true);
  return vm.cpu.getX(2);
}
function isUndefined(word: number, pstate?: bigint): boolean {
  const o = vm.execute([word], pstate === undefined ? {} : { pstate });
  return !o.done && o.ec === 0;
}

describe('the debug registers', () => {
  test.each([
    ['DBGBVR0_EL1', BVR(0), ALL, 0n],
    ['DBGBCR1_EL1', BCR(1), 0xff_e1e7n, 0x1e0n],
    ['DBGWVR1_EL1', WVR(1), ALL - 3n, 0n],
    ['DBGWCR0_EL1', WCR(0), 0x1f1f_ffffn, 0n],
    ['OSDLR_EL1', OSDLR, 1n, 0n],
    ['DBGPRCR_EL1', PRCR, 1n, 0n],
    // SS, TDCC, KDE, MDE: the rest stands for EDSCR, which only the OS Lock opens.
    ['MDSCR_EL1', REG.MDSCR_EL1, 0xb001n, 0n],
  ])('%s keeps the bits that it has', (_name, index, ones, zeros) => {
    expect(written(index, ALL)).toBe(ones);
    expect(written(index, 0n)).toBe(zeros);
  });

  test('MDSCR_EL1 with the OS Lock set takes what stands for EDSCR too', () => {
    expect(written(REG.MDSCR_EL1, 1n << 14n)).toBe(0n);
    expect(vm.execute([msr(OSLAR, 1)], { x: { 1: 1 } }).done).toBe(true);
    expect(vm.sysreg(OSLSR)).toBe(0xan);
    const all = written(REG.MDSCR_EL1, ALL & ~1n);
    expect(all).toBe(0x6ce8_f040n);
    vm.execute([msr(OSLAR, 31)]);
    expect(vm.sysreg(OSLSR)).toBe(8n);
    expect(written(REG.MDSCR_EL1, 0n)).toBe(all & ~0xb001n);
  });

  test('as many as ID_AA64DFR0_EL1 says', () => {
    const field = (lsb: bigint): number => Number((vm.sysreg(DFR0) >> lsb) & 15n);
    for (const [of, count] of [
      [BVR, field(12n) + 1],
      [BCR, field(12n) + 1],
      [WVR, field(20n) + 1],
      [WCR, field(20n) + 1],
    ] as const) {
      for (let n = 0; n < 16; n++) {
        expect([isUndefined(mrs(1, of(n))), isUndefined(msr(of(n), 1))]).toEqual([n >= count, n >= count]);
      }
    }
    // Armv8.2 debug, without the Double Lock left out; six breakpoints, two of them aware of contexts, and four watchpoints.
    expect([field(0n), field(36n), field(12n), field(28n), field(20n)]).toEqual([8, 0, 5, 1, 3]);
  });

  test('are not for EL0, and some are only to read or only to write', () => {
    for (const index of [BVR(0), BCR(0), WVR(0), WCR(0), REG.MDSCR_EL1, OSLSR, OSDLR, PRCR, CLAIMSET]) {
      expect(isUndefined(mrs(1, index), EL0T)).toBe(true);
      expect(isUndefined(msr(index, 1), EL0T)).toBe(true);
    }
    expect([isUndefined(mrs(1, OSLAR)), isUndefined(msr(OSLSR, 1)), isUndefined(msr(OSLAR, 1), EL0T)]).toEqual([
      true,
      true,
      true,
    ]);
  });

  test('claim tags are set by one register and cleared by the other', () => {
    const run = (index: number, value: number): void => void vm.execute([msr(index, 1)], { x: { 1: value } });
    const tags = (): bigint => {
      vm.execute([mrs(2, CLAIMCLR), mrs(3, CLAIMSET)]);
      expect(vm.cpu.getX(3)).toBe(0xffn);
      return vm.cpu.getX(2);
    };
    run(CLAIMSET, 0x1a5);
    expect(tags()).toBe(0xa5n);
    run(CLAIMSET, 0x0a);
    run(CLAIMCLR, 0x21);
    expect(tags()).toBe(0x8en);
    vm.cpu.reset();
    vm.cpu.setSysreg(REG.VBAR_EL1, 0x4001_0000n);
    expect(tags()).toBe(0n);
  });

  test('without a request not to power down, the OS Double Lock holds', () => {
    vm.cpu.setSysreg(REG.MDSCR_EL1, 1n);
    const at = vm.place([0xd69f03e0]);
    const steps = (): boolean => {
      vm.cpu.setSysreg(REG.SPSR_EL1, EL0T);
      vm.cpu.setSysreg(REG.ELR_EL1, BigInt(vm.place([0xd503201f, 0xd4000001], at + 0x100)));
      return vm.start(at).ec === 0x32;
    };
    expect(steps()).toBe(true);
    vm.execute([msr(OSDLR, 1)], { x: { 1: 1 } });
    expect(steps()).toBe(false);
    vm.execute([msr(PRCR, 1)], { x: { 1: 1 } });
    expect(steps()).toBe(true);
  });
});
