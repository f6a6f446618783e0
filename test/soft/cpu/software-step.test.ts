import { beforeEach, describe, expect, test } from '@jest/globals';
import { CpuStop } from '#lib/soft/cpu/cpu.js';
import {
  addImm,
  b,
  br,
  brk,
  cbnz,
  daifClr,
  daifSet,
  ERET,
  ldxr,
  load,
  mov,
  movz,
  msr,
  NOP,
  store,
  subsImm,
  svc,
  UDF,
  WFI,
} from '../a64.ts';
import { BareMetal, DATA, DONE, EL0T, EL1H, MASKED, type Outcome, REG, VECTOR_HVC } from '../bare-metal.ts';
import {
  BCR,
  BVR,
  bcr,
  D,
  EC,
  FSC,
  KDE,
  MDE,
  OSDLR,
  OSLAR,
  OSLSR,
  PSTATE_SS,
  SS,
  STEPPED,
  STEPPED_EXCLUSIVE,
  THRESHOLDS,
} from './debug.ts';

const LDAXP = 0xc87f8802;
const LDXRB = 0x085f7c01;
const CASP = 0x48207c02;

describe.each(THRESHOLDS)('software step (threshold %s)', (threshold) => {
  let vm: BareMetal;
  let eret: number;
  beforeEach(() => {
    vm = new BareMetal({ threshold });
    eret = vm.place([ERET]);
    vm.cpu.setSysreg(REG.MDSCR_EL1, SS);
  });

  /** ERET at EL1, with debug exceptions masked there, to a program. */
  function go(pc: number, spsr: bigint, x: Readonly<Record<number, bigint | number>> = {}): Outcome {
    vm.cpu.setSysreg(REG.SPSR_EL1, spsr);
    vm.cpu.setSysreg(REG.ELR_EL1, BigInt(pc));
    return vm.start(eret, { x });
  }
  /** Goes on as after the handler of the last exception. */
  const resume = (spsr = vm.sysreg(REG.SPSR_EL1) | PSTATE_SS): Outcome => go(Number(vm.sysreg(REG.ELR_EL1)), spsr);

  test('ERET with SPSR_EL1.SS set: one instruction, then the exception', () => {
    const at = vm.place([addImm(1, 1, 1), addImm(1, 1, 1)]);
    expect(go(at, EL0T | PSTATE_SS, { 1: 0 })).toMatchObject({
      vector: 0x400,
      ec: EC.STEP,
      iss: STEPPED,
      elr: BigInt(at + 4),
      spsr: EL0T,
    });
    expect(vm.cpu.getX(1)).toBe(1n);
    expect(resume()).toMatchObject({ ec: EC.STEP, elr: BigInt(at + 8) });
    expect(vm.cpu.getX(1)).toBe(2n);
  });

  test('with it clear: the exception at once, with nothing stepped', () => {
    const at = vm.place([addImm(1, 1, 1)]);
    expect(go(at, EL0T, { 1: 0 })).toMatchObject({ vector: 0x400, ec: EC.STEP, iss: FSC, elr: BigInt(at) });
    expect(vm.cpu.getX(1)).toBe(0n);
  });

  test.each([
    ['LDXR', ldxr(1, 0), STEPPED_EXCLUSIVE],
    ['LDXRB', LDXRB, STEPPED_EXCLUSIVE],
    ['LDAXP', LDAXP, STEPPED_EXCLUSIVE],
    ['CASP', CASP, STEPPED],
    ['LDR', load(8, 1, 0), STEPPED],
    ['STR', store(8, 1, 0), STEPPED],
  ])('%s: the syndrome says whether it is a Load-Exclusive', (_name, word, iss) => {
    expect(go(vm.place([word]), EL0T | PSTATE_SS, { 0: DATA })).toMatchObject({ ec: EC.STEP, iss });
  });

  test('a program of branches, loads and stores, stepped to its end, does what it does in one go', () => {
    const program = [
      ...mov(0, DATA),
      movz(1, 5),
      movz(2, 0),
      store(8, 1, 0),
      load(8, 3, 0),
      addImm(2, 3, 7),
      subsImm(1, 1, 1),
      cbnz(1, -4),
      b(2),
      UDF,
      ...mov(4, 0x1234_5678_9abc_def0n),
    ];
    const at = vm.place([...program, svc(DONE)]);
    let steps = 0;
    let last = go(at, EL0T | PSTATE_SS);
    for (; last.ec === EC.STEP; steps++) last = resume();
    expect(last.done).toBe(true);
    const results = [1, 2, 3, 4].map((n) => vm.cpu.getX(n));
    // SVC ends the last step as it ends the program.
    expect(steps).toBe(6 + 5 * 5 + 1 + 4);
    vm.cpu.setSysreg(REG.MDSCR_EL1, 0n);
    expect(vm.start(at, { pstate: EL0T }).done).toBe(true);
    expect([1, 2, 3, 4].map((n) => vm.cpu.getX(n))).toEqual(results);
  });

  test('over the end of a page, and to another one by a branch', () => {
    const page = vm.place(Array.from({ length: 1025 }, () => NOP));
    expect(go(page + 4092, EL0T | PSTATE_SS)).toMatchObject({ ec: EC.STEP, elr: BigInt(page + 4096) });
    const far = vm.place([br(1)]);
    expect(go(far, EL0T | PSTATE_SS, { 1: page + 8 })).toMatchObject({ ec: EC.STEP, elr: BigInt(page + 8) });
  });

  test('SVC is stepped: its exception finds SPSR_EL1.SS clear, and the step comes when it returns', () => {
    const at = vm.place([svc(3), NOP]);
    expect(go(at, EL0T | PSTATE_SS)).toMatchObject({ ec: 0x15, iss: 3, elr: BigInt(at + 4), spsr: EL0T });
    expect(resume(vm.sysreg(REG.SPSR_EL1))).toMatchObject({ ec: EC.STEP, iss: FSC, elr: BigInt(at + 4) });
  });

  test.each([
    ['UDF', UDF, 0],
    ['BRK', brk(9), 0x3c],
    ['a load from nowhere', load(8, 1, 2), 0x24],
  ])('%s is not stepped: SPSR_EL1.SS stays set', (_name, word, ec) => {
    const at = vm.place([word]);
    const o = go(at, EL0T | PSTATE_SS, { 2: 1n << 44n });
    expect(o).toMatchObject({ ec, elr: BigInt(at), spsr: EL0T | PSTATE_SS });
  });

  test('an interrupt comes before the step, and leaves it to do', () => {
    vm.cpu.setIrq(true);
    const at = vm.place([addImm(1, 1, 1)]);
    expect(go(at, EL0T | PSTATE_SS)).toMatchObject({ vector: 0x480, elr: BigInt(at), spsr: EL0T | PSTATE_SS });
    vm.cpu.setIrq(false);
    expect(resume(vm.sysreg(REG.SPSR_EL1))).toMatchObject({ ec: EC.STEP, iss: STEPPED, elr: BigInt(at + 4) });
  });

  test('a breakpoint on the stepped instruction comes first', () => {
    const at = vm.place([NOP]);
    vm.cpu.setSysreg(BVR(0), BigInt(at));
    vm.cpu.setSysreg(BCR(0), bcr());
    vm.cpu.setSysreg(REG.MDSCR_EL1, SS | MDE);
    expect(go(at, EL0T | PSTATE_SS)).toMatchObject({ ec: EC.BREAKPOINT, elr: BigInt(at), spsr: EL0T | PSTATE_SS });
    expect(go(at, EL0T)).toMatchObject({ ec: EC.STEP, iss: FSC, elr: BigInt(at) });
  });

  test('WFI, and a device access that the host completes, are steps too', () => {
    const at = vm.place([WFI, load(4, 1, 0), NOP]);
    expect(go(at, EL0T | PSTATE_SS).stop).toBe(CpuStop.WFI);
    expect(vm.outcome(vm.run())).toMatchObject({ ec: EC.STEP, elr: BigInt(at + 4) });
    expect(go(at + 4, EL0T | PSTATE_SS, { 0: 0x900_0000 }).stop).toBe(CpuStop.MMIO);
    vm.cpu.completeRead(7, 0);
    expect(vm.outcome(vm.run())).toMatchObject({ ec: EC.STEP, elr: BigInt(at + 8) });
    expect(vm.cpu.getX(1)).toBe(7n);
  });

  test.each([
    ['without MDSCR_EL1.SS', REG.MDSCR_EL1, MDE | KDE],
    ['with the OS Lock', OSLSR, 0xan],
    ['with the OS Double Lock', OSDLR, 1n],
  ])('not %s', (_name, index, value) => {
    vm.cpu.setSysreg(index, value);
    const at = vm.place([addImm(1, 1, 1), svc(DONE)]);
    expect(go(at, EL0T | PSTATE_SS, { 1: 0 }).done).toBe(true);
    // The bit that no step used up is gone all the same: ERET looks whether there is one to do.
    expect(vm.sysreg(REG.SPSR_EL1)).toBe(EL0T);
  });

  describe('at EL1', () => {
    const unmasked = EL1H | (MASKED & ~D);
    test('with MDSCR_EL1.KDE and PSTATE.D clear', () => {
      vm.cpu.setSysreg(REG.MDSCR_EL1, SS | KDE);
      const at = vm.place([addImm(1, 1, 1), NOP]);
      expect(go(at, unmasked | PSTATE_SS, { 1: 0 })).toMatchObject({
        vector: 0x200,
        ec: EC.STEP + 1,
        iss: STEPPED,
        elr: BigInt(at + 4),
        spsr: unmasked,
      });
      expect(vm.cpu.getPstate() & MASKED).toBe(MASKED);
    });
    test.each([
      ['KDE clear', SS, unmasked],
      ['PSTATE.D set', SS | KDE, EL1H | MASKED],
    ])('not with %s', (_name, mdscr, spsr) => {
      vm.cpu.setSysreg(REG.MDSCR_EL1, mdscr);
      const at = vm.place([addImm(1, 1, 1), 0xd4000002]);
      expect(go(at, spsr | PSTATE_SS).done).toBe(true);
    });

    test.each([
      ['DAIFClr', [daifClr(8), NOP], SS | KDE, {}],
      ['MSR DAIF', [msr(REG.DAIF, 1), NOP], SS | KDE, { 1: 0 }],
    ] as const)('%s makes it active at the next instruction', (_name, words, mdscr, x) => {
      vm.cpu.setSysreg(REG.MDSCR_EL1, mdscr);
      const at = vm.place(words);
      expect(vm.start(at, { x })).toMatchObject({ ec: EC.STEP + 1, iss: FSC, elr: BigInt(at + 4) });
    });
    test.each([
      ['MSR MDSCR_EL1', REG.MDSCR_EL1, 0x8n, SS | KDE],
      ['MSR OSLAR_EL1', OSLAR, 0xan, 0n],
      ['MSR OSDLR_EL1', OSDLR, 0x8n, 0n],
    ])('%s makes it active at the next instruction', (_name, index, oslsr, value) => {
      vm.cpu.setSysreg(REG.MDSCR_EL1, index === REG.MDSCR_EL1 ? 0n : SS | KDE);
      vm.cpu.setSysreg(OSLSR, oslsr);
      if (index === OSDLR) vm.cpu.setSysreg(OSDLR, 1n);
      const at = vm.place([msr(index, 1), NOP]);
      expect(vm.start(at, { pstate: unmasked, x: { 1: value } })).toMatchObject({
        ec: EC.STEP + 1,
        iss: FSC,
        elr: BigInt(at + 4),
      });
    });
    test('a stepped instruction that masks it, or ends it, is the last', () => {
      for (const words of [
        [daifSet(8), NOP],
        [msr(REG.MDSCR_EL1, 31), NOP],
      ]) {
        vm.cpu.setSysreg(REG.MDSCR_EL1, SS | KDE);
        const at = vm.place([...words, 0xd4000002]);
        expect(go(at, unmasked | PSTATE_SS).done).toBe(true);
      }
    });
    test('an ERET that is stepped steps no further: SPSR_EL1.SS does not count', () => {
      vm.cpu.setSysreg(REG.MDSCR_EL1, SS | KDE);
      const target = vm.place([addImm(1, 1, 1)]);
      const at = vm.place([msr(REG.ELR_EL1, 2), msr(REG.SPSR_EL1, 3), ERET]);
      const x = { 1: 0, 2: target, 3: EL0T | PSTATE_SS };
      expect(go(at, unmasked | PSTATE_SS, x).ec).toBe(EC.STEP + 1);
      expect(resume().ec).toBe(EC.STEP + 1);
      // The test's own ERET has used the registers that the program had set.
      vm.cpu.setX(2, BigInt(target));
      expect(go(at, unmasked, x)).toMatchObject({ ec: EC.STEP + 1, iss: FSC });
      const stepped = vm.place([ERET]);
      vm.cpu.setSysreg(REG.SPSR_EL1, EL0T | PSTATE_SS);
      vm.cpu.setSysreg(REG.ELR_EL1, BigInt(target));
      vm.cpu.setPstate(unmasked | PSTATE_SS);
      vm.cpu.setPc(BigInt(stepped));
      expect(vm.outcome(vm.run())).toMatchObject({ vector: 0x400, ec: EC.STEP, elr: BigInt(target), spsr: EL0T });
      expect(vm.cpu.getX(1)).toBe(0n);
    });
  });

  test('counts as executed what is stepped, and one for each exception', () => {
    const at = vm.place([NOP, NOP]);
    const before = vm.cpu.instructions;
    go(at, EL0T | PSTATE_SS);
    // ERET, NOP, the exception; the HVC of the vector.
    expect(vm.cpu.instructions - before).toBe(4);
    expect(vm.cpu.hvcImmediate).toBe(VECTOR_HVC + 0x400);
  });

  test('does not depend on where a budget ends', () => {
    const at = vm.place([ldxr(1, 0), NOP]);
    vm.cpu.setX(0, BigInt(DATA));
    vm.cpu.setSysreg(REG.SPSR_EL1, EL0T | PSTATE_SS);
    vm.cpu.setSysreg(REG.ELR_EL1, BigInt(at));
    vm.cpu.setPstate(EL1H | MASKED);
    vm.cpu.setPc(BigInt(eret));
    let stop: CpuStop;
    do stop = vm.cpu.run(0);
    while (stop === CpuStop.BUDGET);
    expect(vm.outcome(stop)).toMatchObject({ ec: EC.STEP, iss: STEPPED_EXCLUSIVE, elr: BigInt(at + 4) });
  });
});
