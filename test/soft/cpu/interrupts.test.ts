import { beforeEach, describe, expect, test } from '@jest/globals';
import { CpuStop } from '#lib/soft/cpu/cpu.js';
import { b, daifClr, daifSet, ERET, movz, mrs, msr, NOP, subsImm, svc, WFE, WFI, YIELD } from '../a64.ts';
import { BareMetal, EL0T, EL1H, MASKED, REG } from '../bare-metal.ts';

const A = 0x100n;
const I = 0x80n;
const F = 0x40n;
const WFX = 0x01;
const SYSREG = 0x18;
const SERROR = 0x2f;
const nTWI = 1n << 16n;
const nTWE = 1n << 18n;
const UMA = 1n << 9n;

let vm: BareMetal;
beforeEach(() => {
  vm = new BareMetal();
});

type Kind = 'irq' | 'fiq' | 'serror';
const raise = (...kinds: Kind[]): void => {
  for (const kind of kinds) {
    if (kind === 'irq') vm.cpu.setIrq(true);
    else if (kind === 'fiq') vm.cpu.setFiq(true);
    else vm.cpu.injectSerror(0x1abcdn);
  }
};

describe.each([
  ['irq', I, 0x80, 0b0010],
  ['fiq', F, 0x100, 0b0001],
  ['serror', A, 0x180, 0b0100],
] as const)('%s', (kind, mask, offset, bit) => {
  test('is taken before the next instruction where it is not masked', () => {
    raise(kind);
    const at = vm.place([NOP, svc(0)]);
    const pstate = EL1H | (MASKED & ~mask);
    expect(vm.start(at, { pstate })).toMatchObject({ vector: 0x200 + offset, elr: BigInt(at), spsr: pstate });
    expect(vm.cpu.getPstate() & MASKED).toBe(MASKED);
  });
  test('from EL0', () => {
    raise(kind);
    expect(vm.execute([NOP], { pstate: EL0T }).vector).toBe(0x400 + offset);
  });
  test('waits while it is masked, at EL1 and at EL0', () => {
    raise(kind);
    expect(vm.execute([NOP, NOP]).done).toBe(true);
    expect(vm.execute([NOP, NOP], { pstate: EL0T | MASKED }).done).toBe(true);
  });
  test('is taken right after DAIFClr, MSR DAIF and ERET unmask it', () => {
    raise(kind);
    const at = vm.place([daifClr(bit), movz(5, 1)]);
    expect(vm.start(at, { x: { 5: 0 } })).toMatchObject({ vector: 0x200 + offset, elr: BigInt(at + 4) });
    expect(vm.cpu.getX(5)).toBe(0n);
    raise(kind);
    const byRegister = vm.place([msr(REG.DAIF, 1), movz(5, 1)]);
    expect(vm.start(byRegister, { x: { 1: MASKED & ~mask } })).toMatchObject({
      vector: 0x200 + offset,
      elr: BigInt(byRegister + 4),
    });
    raise(kind);
    const target = vm.place([movz(5, 1)]);
    vm.cpu.setSysreg(REG.SPSR_EL1, EL0T);
    vm.cpu.setSysreg(REG.ELR_EL1, BigInt(target));
    expect(vm.execute([ERET])).toMatchObject({ vector: 0x400 + offset, elr: BigInt(target) });
    expect(vm.cpu.getX(5)).toBe(0n);
  });
  test('is not taken when another mask is lifted', () => {
    raise(kind);
    expect(vm.execute([daifClr(0b1111 & ~bit), daifSet(0b1111), NOP]).done).toBe(true);
  });
  test('shows in ISR_EL1 and wakes WFI, masked or not', () => {
    raise(kind);
    expect(vm.cpu.interruptPending).toBe(true);
    expect(vm.execute([WFI, mrs(1, REG.ISR_EL1)]).done).toBe(true);
    expect(vm.cpu.getX(1)).toBe(mask);
  });
});

test('an SError is taken once, with its syndrome', () => {
  vm.cpu.injectSerror(0xfff_ffffn);
  expect(vm.cpu.pendingSerror).toBe(0x1ff_ffffn);
  const o = vm.execute([NOP], { pstate: EL1H });
  expect(o).toMatchObject({ vector: 0x380, ec: SERROR, iss: 0x1ff_ffff });
  expect(vm.cpu.pendingSerror).toBeUndefined();
  expect(vm.execute([NOP], { pstate: EL1H }).done).toBe(true);
});

test('SError before FIQ before IRQ; ESR_EL1 is the SErrors alone', () => {
  raise('irq', 'fiq', 'serror');
  vm.cpu.setSysreg(REG.ESR_EL1, 0n);
  expect(vm.execute([NOP], { pstate: EL1H }).vector).toBe(0x380);
  vm.cpu.setSysreg(REG.ESR_EL1, 0n);
  expect(vm.execute([NOP], { pstate: EL1H })).toMatchObject({ vector: 0x300, esr: 0n });
  vm.cpu.setFiq(false);
  expect(vm.execute([NOP], { pstate: EL1H })).toMatchObject({ vector: 0x280, esr: 0n });
  vm.cpu.setIrq(false);
  expect(vm.execute([NOP], { pstate: EL1H }).done).toBe(true);
});

test('a line that rises inside a system register access is taken after the instruction', () => {
  const CNTV_CTL = 0xdf19;
  vm = new BareMetal({
    host: {
      writeSysreg: () => {
        vm.cpu.setIrq(true);
        return true;
      },
    },
  });
  const at = vm.place([msr(CNTV_CTL, 1), movz(5, 1)]);
  expect(vm.start(at, { pstate: EL1H })).toMatchObject({ vector: 0x280, elr: BigInt(at + 4) });
});

test.each([undefined, 1])(
  'a line that rises between two slices of a loop is taken soon (threshold %s)',
  (threshold) => {
    vm = new BareMetal({ threshold });
    const at = vm.place([subsImm(1, 1, 1), NOP, b(-2)]);
    vm.cpu.setPstate(EL1H);
    vm.cpu.setPc(BigInt(at));
    for (let n = 0; n < 20; n++) expect(vm.cpu.run(1000)).toBe(CpuStop.BUDGET);
    vm.cpu.setIrq(true);
    expect(vm.outcome(vm.cpu.run(1000)).vector).toBe(0x280);
  },
);

describe('WFI and WFE', () => {
  test('stop the run, past the instruction', () => {
    const at = vm.place([WFI, WFE, YIELD]);
    expect(vm.start(at).stop).toBe(CpuStop.WFI);
    expect(vm.cpu.getPc()).toBe(BigInt(at + 4));
    expect(vm.run()).toBe(CpuStop.WFE);
    expect(vm.run()).toBe(CpuStop.WFE);
    expect(vm.cpu.getPc()).toBe(BigInt(at + 12));
  });
  test('trap at EL0 where SCTLR_EL1 says so; YIELD and EL1 never do', () => {
    vm.cpu.setSysreg(REG.SCTLR_EL1, 0n);
    const at = vm.place([WFI]);
    expect(vm.start(at, { pstate: EL0T })).toMatchObject({ vector: 0x400, ec: WFX, iss: 0x1e0_0000, elr: BigInt(at) });
    expect(vm.execute([WFE], { pstate: EL0T })).toMatchObject({ vector: 0x400, ec: WFX, iss: 0x1e0_0001 });
    expect(vm.execute([YIELD], { pstate: EL0T }).stop).toBe(CpuStop.WFE);
    expect(vm.execute([WFI]).stop).toBe(CpuStop.WFI);
    vm.cpu.setSysreg(REG.SCTLR_EL1, nTWI | nTWE);
    expect(vm.execute([WFI], { pstate: EL0T }).stop).toBe(CpuStop.WFI);
    expect(vm.execute([WFE], { pstate: EL0T }).stop).toBe(CpuStop.WFE);
  });
  test('WFI with something pending would not wait, and does not trap', () => {
    vm.cpu.setSysreg(REG.SCTLR_EL1, 0n);
    vm.cpu.setIrq(true);
    expect(vm.execute([WFI], { pstate: EL0T | MASKED }).done).toBe(true);
  });
});

describe('PSTATE.DAIF at EL0', () => {
  test('traps without SCTLR_EL1.UMA, with the instruction as syndrome', () => {
    vm.cpu.setSysreg(REG.SCTLR_EL1, 0n);
    const pstate = EL0T;
    // Op0, Op2, Op1, CRn, Rt, CRm, direction.
    const iss = (op0: number, op1: number, crn: number, crm: number, op2: number, rt: number, read: number): number =>
      (op0 << 20) | (op2 << 17) | (op1 << 14) | (crn << 10) | (rt << 5) | (crm << 1) | read;
    expect(vm.execute([daifSet(5)], { pstate })).toMatchObject({
      vector: 0x400,
      ec: SYSREG,
      iss: iss(0, 3, 4, 5, 6, 31, 0),
    });
    expect(vm.execute([daifClr(2)], { pstate })).toMatchObject({ ec: SYSREG, iss: iss(0, 3, 4, 2, 7, 31, 0) });
    expect(vm.execute([mrs(7, REG.DAIF)], { pstate })).toMatchObject({ ec: SYSREG, iss: iss(3, 3, 4, 2, 1, 7, 1) });
    expect(vm.execute([msr(REG.DAIF, 8)], { pstate })).toMatchObject({ ec: SYSREG, iss: iss(3, 3, 4, 2, 1, 8, 0) });
  });
  test('is allowed with it, and unmasks at once', () => {
    vm.cpu.setSysreg(REG.SCTLR_EL1, UMA);
    expect(vm.execute([daifSet(0b0101), mrs(1, REG.DAIF)], { pstate: EL0T }).done).toBe(true);
    expect(vm.cpu.getX(1)).toBe(A | F);
    vm.cpu.setIrq(true);
    const at = vm.place([daifClr(2), movz(5, 1)]);
    expect(vm.start(at, { pstate: EL0T | MASKED })).toMatchObject({ vector: 0x480, elr: BigInt(at + 4) });
  });
});
