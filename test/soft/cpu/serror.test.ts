import { beforeEach, describe, expect, test } from '@jest/globals';
import { sysregIndex } from '#lib/kvm/registers.js';
import { addImm, cbnz, daifClr, ESB, mov, movz, mrs, msr, NOP, subsImm } from '../a64.ts';
import { BareMetal, EL0T, EL1H, MASKED, REG } from '../bare-metal.ts';
import { EC, KDE, SS, STEPPED, THRESHOLDS } from './debug.ts';

/** The RAS extension: a virtual SError, ESB and DISR_EL1 (Arm ARM DDI 0487 D17), and registers of error records that are not there. */

const A = 0x100n;
const DEFERRED = 1n << 31n;
const SYNDROME = 0x1ab_cdefn;

describe.each(THRESHOLDS)('an SError and ESB (threshold %s)', (threshold) => {
  let vm: BareMetal;
  beforeEach(() => {
    vm = new BareMetal({ threshold });
  });

  test.each([
    ['EL1', EL1H | MASKED],
    ['EL1, where all but the SError is unmasked', EL1H | A],
    ['EL0', EL0T | A],
  ])('ESB defers one that is masked, at %s, and it is not taken later', (_name, pstate) => {
    vm.cpu.injectSerror(SYNDROME);
    expect(vm.execute([ESB, addImm(5, 5, 1)], { pstate, x: { 5: 0 } }).done).toBe(true);
    expect([vm.sysreg(REG.DISR_EL1), vm.cpu.pendingSerror, vm.cpu.getX(5)]).toEqual([
      DEFERRED | SYNDROME,
      undefined,
      1n,
    ]);
    expect(vm.cpu.interruptPending).toBe(false);
    const words = [mrs(1, REG.ISR_EL1), daifClr(15), mrs(2, REG.DISR_EL1), msr(REG.DISR_EL1, 31), mrs(3, REG.DISR_EL1)];
    expect(vm.execute(words).done).toBe(true);
    expect([1, 2, 3].map((n) => vm.cpu.getX(n))).toEqual([0n, DEFERRED | SYNDROME, 0n]);
  });

  test('ESB leaves DISR_EL1 where nothing is pending, and where an interrupt is, which it does not take', () => {
    vm.cpu.setSysreg(REG.DISR_EL1, 7n);
    expect(vm.execute([ESB]).done).toBe(true);
    vm.cpu.setIrq(true);
    expect(vm.execute([ESB]).done).toBe(true);
    expect([vm.sysreg(REG.DISR_EL1), vm.cpu.interruptPending]).toEqual([7n, true]);
  });

  test('an interrupt that waits with a deferred SError is still taken', () => {
    vm.cpu.setIrq(true);
    vm.cpu.injectSerror(SYNDROME);
    const at = vm.place([ESB, daifClr(15), NOP]);
    expect(vm.start(at)).toMatchObject({ vector: 0x280, elr: BigInt(at + 8) });
    expect(vm.sysreg(REG.DISR_EL1)).toBe(DEFERRED | SYNDROME);
  });

  test('ESB takes one that came since the last look and is not masked', () => {
    const CNTV_CTL = 0xdf19;
    const readSysreg = (): bigint => {
      vm.cpu.injectSerror(SYNDROME);
      return 0n;
    };
    vm = new BareMetal({ threshold, host: { readSysreg } });
    const at = vm.place([mrs(1, CNTV_CTL), ESB, movz(5, 1)]);
    expect(vm.start(at, { pstate: EL1H, x: { 5: 0 } })).toMatchObject({
      vector: 0x380,
      iss: Number(SYNDROME),
      elr: BigInt(at + 8),
    });
    expect([vm.sysreg(REG.DISR_EL1), vm.cpu.getX(5)]).toEqual([0n, 0n]);
  });

  test('in a loop, each that is made pending', () => {
    const orr = 0xaa020084; // orr x4, x4, x2
    const at = vm.place([ESB, mrs(2, REG.DISR_EL1), msr(REG.DISR_EL1, 31), orr, subsImm(1, 1, 1), cbnz(1, -5)]);
    vm.cpu.setPstate(EL1H | MASKED);
    vm.cpu.setPc(BigInt(at));
    vm.cpu.setX(1, 1n << 40n);
    for (let n = 1; n <= 20; n++) {
      vm.cpu.setX(4, 0n);
      vm.cpu.injectSerror(BigInt(n));
      vm.cpu.run(3000);
      expect([vm.cpu.getX(4), vm.sysreg(REG.DISR_EL1), vm.cpu.pendingSerror]).toEqual([
        DEFERRED | BigInt(n),
        0n,
        undefined,
      ]);
    }
  });

  test('a step of ESB is one step', () => {
    vm.cpu.setSysreg(REG.MDSCR_EL1, SS);
    vm.cpu.injectSerror(SYNDROME);
    const at = vm.place([ESB, NOP]);
    const pstate = EL0T | MASKED | (1n << 21n);
    expect(vm.start(at, { pstate })).toMatchObject({ ec: EC.STEP, iss: STEPPED, elr: BigInt(at + 4) });
    expect([vm.sysreg(REG.DISR_EL1), vm.sysreg(REG.MDSCR_EL1) & KDE]).toEqual([DEFERRED | SYNDROME, 0n]);
  });

  test('DISR_EL1 is not for EL0', () => {
    expect(vm.execute([mrs(1, REG.DISR_EL1)], { pstate: EL0T })).toMatchObject({ done: false, ec: 0 });
    expect(vm.execute([msr(REG.DISR_EL1, 31)], { pstate: EL0T })).toMatchObject({ done: false, ec: 0 });
  });
});

describe('an SError of the host', () => {
  const vm = new BareMetal();

  test('is taken without an instruction where it is not masked', () => {
    const at = vm.place([NOP]);
    vm.cpu.setPc(BigInt(at));
    vm.cpu.setPstate(EL0T);
    const { instructions } = vm.cpu;
    expect(vm.cpu.takeSerror()).toBe(false);
    vm.cpu.setIrq(true);
    expect(vm.cpu.takeSerror()).toBe(false);
    vm.cpu.injectSerror(SYNDROME);
    expect(vm.cpu.takeSerror()).toBe(true);
    vm.cpu.setIrq(false);
    expect([vm.sysreg(REG.ELR_EL1), vm.sysreg(REG.SPSR_EL1), vm.sysreg(REG.ESR_EL1)]).toEqual([
      BigInt(at),
      EL0T,
      0xbe00_0000n | SYNDROME,
    ]);
    expect([vm.cpu.getPc() & 0xfffn, vm.cpu.pendingSerror, vm.cpu.instructions]).toEqual([
      0x580n,
      undefined,
      instructions,
    ]);
  });

  test('waits where it is', () => {
    vm.cpu.setPstate(EL1H | A);
    vm.cpu.injectSerror(SYNDROME);
    expect([vm.cpu.takeSerror(), vm.cpu.pendingSerror]).toEqual([false, SYNDROME]);
    vm.cpu.reset();
    expect([vm.cpu.pendingSerror, vm.sysreg(REG.DISR_EL1)]).toEqual([undefined, 0n]);
  });
});

test('SCTLR_EL1.IESB can be set, and defers nothing', () => {
  const IESB = 1n << 21n;
  const vm = new BareMetal();
  vm.cpu.injectSerror(SYNDROME);
  const at = vm.place([NOP]);
  const words = [...mov(1, vm.sysreg(REG.SCTLR_EL1) | IESB), msr(REG.SCTLR_EL1, 1), mrs(2, REG.SCTLR_EL1), 0xd4000001];
  expect(vm.execute(words).vector).toBe(0x200);
  expect([vm.cpu.getX(2) & IESB, vm.sysreg(REG.DISR_EL1), vm.cpu.pendingSerror]).toEqual([IESB, 0n, SYNDROME]);
  expect(vm.start(at, { pstate: EL0T })).toMatchObject({ vector: 0x580, iss: Number(SYNDROME), elr: BigInt(at) });
});

describe('what is not there to be described', () => {
  const PFR0 = sysregIndex(3, 0, 0, 4, 0);
  const MMFR1 = sysregIndex(3, 0, 0, 7, 1);
  /** Error records: name, register, whether MSR has it. */
  const records = [
    ['ERRIDR_EL1', sysregIndex(3, 0, 5, 3, 0), false],
    ['ERRSELR_EL1', sysregIndex(3, 0, 5, 3, 1), true],
    ['ERXFR_EL1', sysregIndex(3, 0, 5, 4, 0), false],
    ['ERXCTLR_EL1', sysregIndex(3, 0, 5, 4, 1), true],
    ['ERXSTATUS_EL1', sysregIndex(3, 0, 5, 4, 2), true],
    ['ERXADDR_EL1', sysregIndex(3, 0, 5, 4, 3), true],
    ['ERXMISC0_EL1', sysregIndex(3, 0, 5, 5, 0), true],
    ['ERXMISC1_EL1', sysregIndex(3, 0, 5, 5, 1), true],
  ] as const;
  const regions = [
    ['LORSA_EL1', sysregIndex(3, 0, 10, 4, 0), true],
    ['LOREA_EL1', sysregIndex(3, 0, 10, 4, 1), true],
    ['LORN_EL1', sysregIndex(3, 0, 10, 4, 2), true],
    ['LORC_EL1', sysregIndex(3, 0, 10, 4, 3), true],
    ['LORID_EL1', sysregIndex(3, 0, 10, 4, 7), false],
  ] as const;
  const vm = new BareMetal();

  test.each([...records, ...regions])('%s is zero at EL1, and not for EL0', (_name, index, isWritable) => {
    expect(vm.execute([msr(index, 1)], { x: { 1: -1n } })).toMatchObject(
      isWritable ? { done: true } : { done: false, ec: 0 },
    );
    expect(vm.execute([movz(2, 5), mrs(2, index)]).done).toBe(true);
    expect(vm.cpu.getX(2)).toBe(0n);
    for (const word of [mrs(2, index), msr(index, 1)]) {
      expect(vm.execute([word], { pstate: EL0T })).toMatchObject({ done: false, ec: 0 });
    }
  });

  test('is UNDEFINED to a VM that is told so', () => {
    const told = new BareMetal();
    const less = (index: number, lsb: bigint): boolean =>
      told.cpu.setSysreg(index, told.sysreg(index) & ~(0xfn << lsb));
    const isThere = (index: number): boolean =>
      told.execute([mrs(2, index)]).done && told.execute([msr(index, 2)]).done;
    expect([isThere(records[1][1]), isThere(regions[0][1])]).toEqual([true, true]);
    less(PFR0, 28n);
    expect([isThere(records[1][1]), isThere(regions[0][1])]).toEqual([false, true]);
    less(MMFR1, 16n);
    expect(isThere(regions[0][1])).toBe(false);
  });
});
