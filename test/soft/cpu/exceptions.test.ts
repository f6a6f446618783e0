import { beforeAll, describe, expect, test } from '@jest/globals';
import { CpuStop } from '#lib/soft/cpu/cpu.js';
import { br, brk, daifClr, ERET, FMOV_D0_X0, load, mov, movz, mrs, msr, msrSpSel, NOP, svc, UDF } from '../a64.ts';
import { BareMetal, CODE, DATA, EL0T, EL1H, EL1T, MASKED, RAM, REG, VECTORS } from '../bare-metal.ts';

const PAN = 1n << 22n;
const UAO = 1n << 23n;
const DIT = 1n << 24n;
const SSBS = 1n << 12n;
const IL = 1n << 20n;
const SPAN = 1n << 23n;
const DSSBS = 1n << 44n;

const UNKNOWN = 0x00;
const FP = 0x07;
const ILLEGAL = 0x0e;
const SVC = 0x15;
const FETCH_LOWER = 0x20;
const FETCH = 0x21;
const PC_ALIGNMENT = 0x22;
const DATA_LOWER = 0x24;
const DATA_SAME = 0x25;
const BRK = 0x3c;

let vm: BareMetal;
beforeAll(() => {
  vm = new BareMetal();
});

/** Where nothing is: with the MMU off, an address beyond 40 bits. */
const NOWHERE = 1n << 44n;

describe('an exception', () => {
  test.each([
    ['EL0', EL0T, 0x400],
    ['EL1 on SP_EL0', EL1T, 0x000],
    ['EL1 on SP_EL1', EL1H, 0x200],
  ])('from %s goes to its group of vectors and says where it came from', (_name, mode, vector) => {
    const pstate = 0xa000_0000n | mode | 0x240n;
    const at = vm.place([NOP, svc(0x1234)]);
    const o = vm.start(at, { pstate });
    expect(o).toMatchObject({ vector, ec: SVC, iss: 0x1234, elr: BigInt(at + 8), spsr: pstate });
    expect((o.esr >> 25n) & 1n).toBe(1n);
    // PAN is set, as SCTLR_EL1.SPAN is clear after no reset of it: see below; the flags stay.
    expect(vm.cpu.getPstate() & ~PAN).toBe(0xa000_0000n | EL1H | MASKED);
  });

  test.each([
    ['SVC', [svc(7)], SVC, 7, 4],
    ['BRK', [brk(0xbeef)], BRK, 0xbeef, 0],
    ['an unallocated word', [UDF], UNKNOWN, 0, 0],
    ['HLT', [0xd4400000], UNKNOWN, 0, 0],
  ])('%s: class, syndrome and preferred return address', (_name, words, ec, iss, past) => {
    const at = vm.place(words as number[]);
    expect(vm.start(at)).toMatchObject({ vector: 0x200, ec, iss, elr: BigInt(at + (past as number)) });
  });

  test.each([
    ['EL0', EL0T, DATA_LOWER],
    ['EL1', EL1H, DATA_SAME],
  ])('a data abort from %s: address, status and direction', (_name, pstate, ec) => {
    const at = vm.place([load(8, 1, 0)]);
    expect(vm.start(at, { pstate, x: { 0: NOWHERE + 8n } })).toMatchObject({
      ec,
      iss: 0,
      far: NOWHERE + 8n,
      elr: BigInt(at),
    });
    const store = vm.place([0xf9000001]);
    expect(vm.start(store, { pstate, x: { 0: NOWHERE + 8n } })).toMatchObject({ ec, iss: 1 << 6, far: NOWHERE + 8n });
  });

  test.each([
    ['EL0', EL0T, FETCH_LOWER],
    ['EL1', EL1H, FETCH],
  ])('an instruction abort from %s', (_name, pstate, ec) => {
    // Address size, and no RAM.
    expect(vm.execute([br(0)], { pstate, x: { 0: NOWHERE } })).toMatchObject({
      ec,
      iss: 0,
      far: NOWHERE,
      elr: NOWHERE,
    });
    expect(vm.execute([br(0)], { pstate, x: { 0: 0x1000n } })).toMatchObject({
      ec,
      iss: 0x10,
      far: 0x1000n,
      elr: 0x1000n,
    });
  });

  test('a misaligned PC comes before everything else', () => {
    for (const target of [BigInt(CODE) + 2n, NOWHERE + 1n, 2n ** 64n - 1n]) {
      expect(vm.execute([br(0)], { x: { 0: target } })).toMatchObject({
        ec: PC_ALIGNMENT,
        iss: 0,
        far: target,
        elr: target,
      });
    }
  });

  test('takes SP_EL1, and leaves SP_EL0 as it was', () => {
    vm.cpu.setPstate(EL0T);
    vm.cpu.setSysreg(REG.SP_EL0, 0x1110n);
    vm.cpu.setSpEl1(0x2220n);
    // mov x1, sp; mov sp, x0 at EL0.
    const o = vm.execute([0x910003e1, 0x9100001f, svc(1)], { pstate: EL0T, x: { 0: 0x3330n } });
    expect(o.vector).toBe(0x400);
    expect(vm.cpu.getX(1)).toBe(0x1110n);
    expect(vm.cpu.getSpEl1()).toBe(0x2220n);
    expect(vm.sysreg(REG.SP_EL0)).toBe(0x3330n);
    // The handler's SP is SP_EL1.
    vm.execute([0x910003e1]);
    expect(vm.cpu.getX(1)).toBe(0x2220n);
  });

  test('VBAR_EL1: bits 10..0 are no part of the address', () => {
    vm.cpu.setSysreg(REG.VBAR_EL1, BigInt(VECTORS) | 0x7ffn);
    expect(vm.execute([svc(0)]).vector).toBe(0x200);
    vm.cpu.setSysreg(REG.VBAR_EL1, BigInt(VECTORS));
  });

  describe('PSTATE in the handler', () => {
    const handlerPstate = (sctlr: bigint, pstate: bigint): bigint => {
      vm.cpu.setSysreg(REG.SCTLR_EL1, sctlr);
      vm.execute([svc(0)], { pstate });
      vm.cpu.setSysreg(REG.SCTLR_EL1, 0n);
      return vm.cpu.getPstate();
    };
    test('SCTLR_EL1.SPAN keeps PAN, else it is set', () => {
      expect(handlerPstate(SPAN, EL0T) & PAN).toBe(0n);
      expect(handlerPstate(SPAN, EL1H | PAN) & PAN).toBe(PAN);
      expect(handlerPstate(0n, EL0T) & PAN).toBe(PAN);
    });
    test('UAO is cleared, DIT kept, SSBS is SCTLR_EL1.DSSBS', () => {
      expect(handlerPstate(SPAN, EL1H | UAO | DIT | SSBS)).toBe(EL1H | MASKED | DIT);
      expect(handlerPstate(SPAN | DSSBS, EL0T)).toBe(EL1H | MASKED | SSBS);
      expect(vm.sysreg(REG.SPSR_EL1)).toBe(EL0T);
    });
    test('SPSR_EL1 has all of it', () => {
      const pstate = 0x5000_0000n | DIT | UAO | PAN | SSBS | 0x140n | EL1H;
      expect(vm.execute([svc(0)], { pstate }).spsr).toBe(pstate);
    });
  });
});

describe('ERET', () => {
  /** Returns with that SPSR to a program, and says how it ends. */
  const eret = (spsr: bigint, target: bigint | number, pstate = EL1H | MASKED) => {
    vm.cpu.setSysreg(REG.SPSR_EL1, spsr);
    vm.cpu.setSysreg(REG.ELR_EL1, BigInt(target));
    return vm.execute([ERET], { pstate });
  };

  test.each([
    ['EL0', EL0T, 0x400],
    ['EL1 on SP_EL0', EL1T, 0],
    ['EL1 on SP_EL1', EL1H, 0x200],
  ])('to %s restores PSTATE', (_name, mode, vector) => {
    const target = vm.place([svc(3)]);
    const spsr = 0xf000_0000n | DIT | PAN | SSBS | 0x100n | mode;
    expect(eret(spsr, target)).toMatchObject({ vector, ec: SVC, iss: 3, spsr });
  });

  test('opens the exclusive monitor', () => {
    const target = vm.place([0xc8027c01, NOP, svc(0)]); // stxr w2, x1, [x0]
    vm.cpu.setSysreg(REG.SPSR_EL1, EL1H | MASKED);
    vm.cpu.setSysreg(REG.ELR_EL1, BigInt(target));
    vm.execute([0xc85f7c01, ERET], { x: { 0: DATA } });
    expect(vm.cpu.getX(2)).toBe(1n);
  });

  test.each([
    ['EL2', 0b01001n],
    ['EL3', 0b01101n],
    ['AArch32', 0b10000n],
    ['EL0 with SP_EL0 not selected', 0b00001n],
    ['a reserved mode', 0b00110n],
  ])('to %s is illegal: the EL stays, NZCV and DAIF come, and the next instruction faults', (_name, mode) => {
    const target = vm.place([svc(9)]);
    const o = eret(0x6000_0000n | mode | 0x80n, target, EL1T | MASKED | DIT | SSBS);
    expect(o).toMatchObject({ vector: 0, ec: ILLEGAL, iss: 0, elr: BigInt(target) });
    expect(o.spsr).toBe(0x6000_0000n | IL | DIT | SSBS | 0x80n | EL1T);
  });

  test('with SPSR_EL1.IL: the illegal state comes with the return', () => {
    const target = vm.place([svc(9)]);
    expect(eret(EL0T | IL, target)).toMatchObject({ vector: 0x400, ec: ILLEGAL, elr: BigInt(target), spsr: EL0T | IL });
    // To be fetched comes before to be refused.
    expect(eret(EL0T | IL, NOWHERE)).toMatchObject({ ec: FETCH_LOWER, far: NOWHERE, spsr: EL0T | IL });
    expect(eret(EL0T | IL, target + 2)).toMatchObject({ ec: PC_ALIGNMENT, spsr: EL0T | IL });
    // And PSTATE.IL is seen from outside.
    vm.cpu.setPstate(EL1H | IL);
    expect(vm.cpu.getPstate()).toBe(EL1H | IL);
    vm.cpu.setPstate(EL1H);
  });

  test('an interrupt comes before the illegal state, and returns to it', () => {
    const target = vm.place([NOP]);
    vm.cpu.setIrq(true);
    const o = eret(EL0T | IL, target);
    vm.cpu.setIrq(false);
    expect(o).toMatchObject({ vector: 0x480, spsr: EL0T | IL, elr: BigInt(target) });
    const back = vm.execute([ERET]);
    expect(back).toMatchObject({ vector: 0x400, ec: ILLEGAL, elr: BigInt(target) });
  });

  test('is UNDEFINED at EL0', () => {
    expect(vm.execute([ERET], { pstate: EL0T })).toMatchObject({ vector: 0x400, ec: UNKNOWN });
  });
});

describe('CPACR_EL1.FPEN', () => {
  test.each([
    [0n, true, true],
    [1n, true, false],
    [2n, true, true],
    [3n, false, false],
  ])('%d: EL0 trapped %s, EL1 trapped %s', (fpen, el0, el1) => {
    const mrsFpcr = mrs(1, REG.FPCR);
    const msrFpsr = msr(REG.FPSR, 1);
    const ldrQ = 0x3dc00001;
    for (const word of [FMOV_D0_X0, mrsFpcr, msrFpsr, ldrQ]) {
      vm.cpu.setSysreg(REG.CPACR_EL1, fpen << 20n);
      const x = { 0: DATA, 1: 0 };
      const low = vm.execute([word], { pstate: EL0T, x });
      expect({ word, trapped: low.ec === FP && low.iss === 0x1e0_0000, done: low.done }).toEqual({
        word,
        trapped: el0,
        done: !el0,
      });
      vm.cpu.setSysreg(REG.ESR_EL1, 0n);
      const high = vm.execute([word], { x });
      expect({ word, trapped: high.ec === FP && high.vector === 0x200, done: high.done }).toEqual({
        word,
        trapped: el1,
        done: !el1,
      });
    }
    vm.cpu.setSysreg(REG.CPACR_EL1, 3n << 20n);
  });
  test('takes effect for the next instruction', () => {
    const o = vm.execute([...mov(1, 0), msr(REG.CPACR_EL1, 1), FMOV_D0_X0]);
    expect(o.ec).toBe(FP);
    vm.cpu.setSysreg(REG.CPACR_EL1, 3n << 20n);
  });
});

describe('HVC and SMC', () => {
  test('stop the run at EL1, with their immediate: HVC past it, SMC at it', () => {
    const at = vm.place([0xd4000002 | (0x321 << 5), 0xd4000003 | (0x123 << 5)]);
    expect(vm.start(at)).toMatchObject({ stop: CpuStop.HVC, hvc: 0x321 });
    expect(vm.cpu.getPc()).toBe(BigInt(at + 4));
    expect(vm.run()).toBe(CpuStop.SMC);
    expect([vm.cpu.hvcImmediate, vm.cpu.getPc()]).toEqual([0x123, BigInt(at + 4)]);
    vm.cpu.skipInstruction();
    expect(vm.cpu.getPc()).toBe(BigInt(at + 8));
  });
  test('are UNDEFINED at EL0', () => {
    for (const word of [0xd4000002, 0xd4000003]) {
      expect(vm.execute([word], { pstate: EL0T })).toMatchObject({ vector: 0x400, ec: UNKNOWN });
    }
  });
});

describe('from outside', () => {
  test('injectUndefined and injectExternalAbort take the exception at PC', () => {
    const at = vm.place([load(4, 3, 0), NOP]);
    const o = vm.start(at, { pstate: EL0T, x: { 0: 0x900_0000 } });
    expect(o.stop).toBe(CpuStop.MMIO);
    vm.cpu.injectExternalAbort();
    expect(vm.cpu.getPc()).toBe(BigInt(VECTORS + 0x400));
    expect(vm.outcome(vm.run())).toMatchObject({ ec: DATA_LOWER, iss: 0x10, far: 0x900_0000n, elr: BigInt(at) });
    vm.cpu.setPstate(EL1H);
    vm.cpu.setPc(BigInt(at));
    vm.cpu.injectUndefined();
    expect(vm.outcome(vm.run())).toMatchObject({ vector: 0x200, ec: UNKNOWN, iss: 0, elr: BigInt(at) });
  });
});

describe('a storm', () => {
  test.each([
    ['vectors that are not there', 0x10_0000n],
    ['vectors of unallocated words', BigInt(DATA)],
    ['misplaced vectors', NOWHERE],
  ])('of %s comes to the end of its budget, and counts', (_name, vbar) => {
    vm.cpu.setSysreg(REG.VBAR_EL1, vbar);
    vm.cpu.setPstate(EL1H | MASKED);
    vm.cpu.setPc(BigInt(vm.place([UDF])));
    const before = vm.cpu.instructions;
    expect(vm.cpu.run(5000)).toBe(CpuStop.BUDGET);
    expect(vm.cpu.instructions - before).toBeGreaterThanOrEqual(5000);
    expect(vm.cpu.instructions - before).toBeLessThan(5100);
    vm.cpu.setSysreg(REG.VBAR_EL1, BigInt(VECTORS));
  });
  test('of illegal states too', () => {
    const at = vm.place([ERET]);
    vm.cpu.setSysreg(REG.VBAR_EL1, BigInt(DATA));
    vm.place([ERET], DATA + 0x200);
    vm.place([ERET], DATA);
    vm.cpu.setSysreg(REG.SPSR_EL1, 0b11111n);
    vm.cpu.setSysreg(REG.ELR_EL1, BigInt(at));
    vm.cpu.setPstate(EL1H | MASKED);
    vm.cpu.setPc(BigInt(at));
    expect(vm.cpu.run(1000)).toBe(CpuStop.BUDGET);
    vm.cpu.setSysreg(REG.VBAR_EL1, BigInt(VECTORS));
  });
});

describe('the stack pointer', () => {
  test('MSR SPSel switches between SP_EL0 and SP_EL1', () => {
    vm.cpu.setPstate(EL1H);
    vm.cpu.setSysreg(REG.SP_EL0, 0x100n);
    vm.cpu.setSpEl1(0x200n);
    const o = vm.execute([
      msrSpSel(0),
      0x910003e1, // mov x1, sp
      mrs(2, REG.SPSEL),
      movz(3, 1),
      msr(REG.SPSEL, 3),
      0x910003e4, // mov x4, sp
      mrs(5, REG.SPSEL),
      mrs(6, REG.SP_EL0),
    ]);
    expect(o.done).toBe(true);
    expect([1, 2, 4, 5, 6].map((n) => vm.cpu.getX(n))).toEqual([0x100n, 0n, 0x200n, 1n, 0x100n]);
  });
  test('SP_EL0 by MRS and MSR is UNDEFINED while it is the one in use', () => {
    for (const word of [mrs(1, REG.SP_EL0), msr(REG.SP_EL0, 1)]) {
      expect(vm.execute([word], { pstate: EL1T | MASKED }).ec).toBe(UNKNOWN);
      expect(vm.execute([word], { pstate: EL0T }).ec).toBe(UNKNOWN);
    }
  });
  test('is where the getters say, whichever is in use', () => {
    for (const pstate of [EL0T, EL1T, EL1H]) {
      vm.cpu.setPstate(pstate);
      vm.cpu.setSysreg(REG.SP_EL0, 0xaaa0n);
      vm.cpu.setSpEl1(0xbbb0n);
      for (const other of [EL1H, EL0T, EL1T]) {
        vm.cpu.setPstate(other);
        expect([vm.sysreg(REG.SP_EL0), vm.cpu.getSpEl1()]).toEqual([0xaaa0n, 0xbbb0n]);
      }
    }
  });
});

test('RAM is where the tests think it is', () => {
  // Guards the harness: a program that does nothing ends, and DAIFClr at EL1 is no exception.
  expect(vm.execute([daifClr(15), NOP]).done).toBe(true);
  expect(vm.read32(VECTORS)).not.toBe(0);
  expect(RAM).toBe(0x4000_0000);
});
