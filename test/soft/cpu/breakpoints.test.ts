import { beforeEach, describe, expect, test } from '@jest/globals';
import { addImm, br, cbnz, ldxr, load, mov, movz, msr, NOP, store, subsImm, svc } from '../a64.ts';
import { BareMetal, CODE, DONE, EL0T, EL1H, MASKED, REG } from '../bare-metal.ts';
import { BCR, BVR, bcr, CONTEXTIDR, D, EC, FSC, KDE, MDE, mapForBoth, OSDLR, OSLSR, THRESHOLDS } from './debug.ts';

const HVC = 0xd4000002;
const unmasked = EL1H | (MASKED & ~D);

describe.each(THRESHOLDS)('breakpoints (threshold %s)', (threshold) => {
  let vm: BareMetal;
  beforeEach(() => {
    vm = new BareMetal({ threshold });
    vm.cpu.setSysreg(REG.MDSCR_EL1, MDE | KDE);
  });
  const set = (n: number, address: number | bigint, control: bigint): void => {
    vm.cpu.setSysreg(BVR(n), BigInt(address));
    vm.cpu.setSysreg(BCR(n), control);
  };

  test.each([
    ['EL0', EL0T, 0x400, EC.BREAKPOINT],
    ['EL1', unmasked, 0x200, EC.BREAKPOINT + 1],
  ])('from %s: before the instruction, with address and syndrome', (_name, pstate, vector, ec) => {
    const at = vm.place([addImm(1, 1, 1), addImm(1, 1, 1)]);
    vm.cpu.setSysreg(REG.FAR_EL1, 0x55n);
    for (const n of [0, 1]) {
      set(n, at + 4, bcr());
      expect(vm.start(at, { pstate, x: { 1: 0 } })).toMatchObject({
        vector,
        ec,
        iss: FSC,
        elr: BigInt(at + 4),
        spsr: pstate,
        far: 0x55n,
      });
      expect(vm.cpu.getX(1)).toBe(1n);
      set(n, 0, 0n);
    }
  });

  test('compares bits 52 to 2 of the address', () => {
    const at = vm.place([NOP]);
    set(0, BigInt(at) | (0x7ffn << 53n) | 3n, bcr());
    expect(vm.start(at, { pstate: EL0T }).ec).toBe(EC.BREAKPOINT);
    set(0, BigInt(at) | (1n << 52n), bcr());
    expect(vm.execute([NOP], { at, pstate: EL0T }).done).toBe(true);
  });

  test.each([
    ['PMC for EL1 only, at EL0', EL0T, bcr({ els: 1n }), {}],
    ['PMC for EL0 only, at EL1', unmasked, bcr({ els: 2n }), {}],
    ['PMC for no EL', EL0T, bcr({ els: 0n }), {}],
    ['E clear', EL0T, bcr() - 1n, {}],
    ['HMC set, which is reserved without EL2', EL0T, bcr({ hmc: 1n }), {}],
    ['SSC set, which is reserved without EL3', EL0T, bcr({ ssc: 1n }), {}],
    ['a mismatch, which AArch64 has not', EL0T, bcr({ bt: 4n }), {}],
    ['a context match in a breakpoint that has none', EL0T, bcr({ bt: 2n }), {}],
    ['one of CONTEXTIDR_EL1', EL0T, bcr({ bt: 6n }), {}],
    ['a VMID match, without EL2', EL0T, bcr({ bt: 8n }), {}],
    ['MDSCR_EL1.MDE clear', EL0T, bcr(), { [REG.MDSCR_EL1]: KDE }],
    ['MDSCR_EL1.KDE clear, at EL1', unmasked, bcr(), { [REG.MDSCR_EL1]: MDE }],
    ['PSTATE.D set, at EL1', EL1H | MASKED, bcr(), {}],
    ['the OS Lock', EL0T, bcr(), { [OSLSR]: 0xan }],
    ['the OS Double Lock', EL0T, bcr(), { [OSDLR]: 1n }],
  ] as const)('none with %s', (_name, pstate, control, registers) => {
    const at = vm.place([NOP, pstate === EL0T ? svc(DONE) : HVC]);
    set(0, at, control);
    for (const [index, value] of Object.entries(registers)) vm.cpu.setSysreg(Number(index), value);
    expect(vm.start(at, { pstate }).done).toBe(true);
  });

  test('PSTATE.D counts at EL1 only, and KDE too', () => {
    vm.cpu.setSysreg(REG.MDSCR_EL1, MDE);
    const at = vm.place([NOP]);
    set(0, at, bcr());
    expect(vm.start(at, { pstate: EL0T | MASKED }).ec).toBe(EC.BREAKPOINT);
  });

  describe('contexts', () => {
    const context = 0xffff_ffff_1234_5678n;
    /** The first and the last that is aware of contexts. */
    const awareOf = (...types: readonly bigint[]) => [4, 5].flatMap((n) => types.map((bt) => [n, bt] as const));
    beforeEach(() => {
      vm.cpu.setSysreg(CONTEXTIDR, context);
    });
    test.each(awareOf(3n, 7n))('an address that is linked to a context, of breakpoint %i, type %i', (n, bt) => {
      const at = vm.place([NOP, svc(DONE)]);
      set(0, at, bcr({ bt: 1n, lbn: BigInt(n) }));
      set(n, context & 0xffff_ffffn, bcr({ bt, els: 0n }));
      expect(vm.start(at, { pstate: EL0T }).ec).toBe(EC.BREAKPOINT);
      vm.cpu.setSysreg(CONTEXTIDR, context + 1n);
      expect(vm.start(at, { pstate: EL0T }).done).toBe(true);
    });
    test.each([
      ['to a disabled one', 5n, bcr({ bt: 3n }) - 1n],
      ['to one that is no linked context', 5n, bcr({ bt: 2n })],
      ['to one that is no linked CONTEXTIDR_EL1', 5n, bcr({ bt: 6n })],
      ['to itself', 0n, 0n],
      ['to one that is not aware of contexts', 3n, bcr({ bt: 3n })],
      ['to one that is not there', 6n, bcr({ bt: 3n })],
    ])('never where it is linked %s', (_name, lbn, control) => {
      const at = vm.place([NOP, svc(DONE)]);
      set(0, at, bcr({ bt: 1n, lbn }));
      if (lbn === 3n || lbn === 5n) set(Number(lbn), 1n, control);
      vm.cpu.setSysreg(CONTEXTIDR, control === bcr({ bt: 2n }) || control === bcr({ bt: 6n }) ? 2n : 1n);
      expect(vm.start(at, { pstate: EL0T }).done).toBe(true);
    });
    test.each(awareOf(2n, 6n))(
      'the context alone of breakpoint %i, type %i, matches every instruction, from the one behind the write on',
      (n, bt) => {
        set(n, 0x99n, bcr({ bt, els: 1n }));
        const at = vm.place([NOP, msr(CONTEXTIDR, 1), NOP]);
        expect(vm.start(at, { pstate: unmasked, x: { 1: 0x99 } })).toMatchObject({
          ec: EC.BREAKPOINT + 1,
          elr: BigInt(at + 8),
        });
      },
    );
    test('a linked context has no effect of its own', () => {
      for (const bt of [3n, 7n]) {
        set(5, context & 0xffff_ffffn, bcr({ bt }));
        expect(vm.execute([NOP], { pstate: EL0T }).done).toBe(true);
      }
    });
  });

  describe('with translation', () => {
    beforeEach(() => {
      mapForBoth(vm);
    });
    const iterations = 300;
    /** A loop of two pages, which is hot. */
    const loop = (): number => {
      const second = CODE + 0x8000;
      vm.place([addImm(3, 3, 1), br(5)], second);
      return vm.place(
        [
          ...mov(4, second),
          movz(1, iterations),
          addImm(5, 6, 28),
          br(4),
          NOP,
          subsImm(1, 1, 1),
          cbnz(1, -3),
          svc(DONE),
        ],
        CODE + 0x9000,
      );
    };

    test.each([
      ['in the page of the loop', 0x9000 + 32],
      ['in the other page', 0x8000 + 4],
    ])('set in code that has run, and is compiled: %s', (_name, offset) => {
      const at = loop();
      const x = { 3: 0, 6: at };
      for (let n = 0; n < 5; n++) expect(vm.start(at, { pstate: EL0T, x }).done).toBe(true);
      set(0, CODE + offset, bcr());
      expect(vm.start(at, { pstate: EL0T, x })).toMatchObject({ ec: EC.BREAKPOINT, elr: BigInt(CODE + offset) });
      expect(vm.cpu.getX(3)).toBe(1n);
      // Taken away again, the loop goes on from there.
      vm.cpu.setSysreg(BCR(0), 0n);
      expect(vm.start(CODE + offset, { pstate: EL0T }).done).toBe(true);
      expect(vm.cpu.getX(3)).toBe(BigInt(iterations));
    });

    test('code of a page with a breakpoint does what it does without', () => {
      const at = loop();
      const x = { 3: 0, 6: at };
      set(0, CODE + 0x8000 + 0x100, bcr());
      set(1, CODE + 0x9000 + 0x100, bcr());
      const before = vm.cpu.instructions;
      expect(vm.start(at, { pstate: EL0T, x }).done).toBe(true);
      const slow = vm.cpu.instructions - before;
      set(0, 0, 0n);
      set(1, 0, 0n);
      expect(vm.start(at, { pstate: EL0T, x }).done).toBe(true);
      expect(vm.cpu.instructions - before).toBe(2 * slow);
      expect(vm.cpu.getX(3)).toBe(BigInt(iterations));
    });

    test('exclusives work in such a page', () => {
      const at = vm.place([ldxr(1, 0), addImm(1, 1, 1), 0xc8027c01, load(8, 3, 0), store(8, 3, 0, 8), svc(DONE)]);
      set(0, at + 0x100, bcr());
      expect(vm.start(at, { pstate: EL0T, x: { 0: 0x4040_0000 } }).done).toBe(true);
      expect([vm.cpu.getX(2), vm.cpu.getX(3)]).toEqual([0n, 1n]);
    });

    test('an Instruction Abort comes first', () => {
      const nowhere = 0x7000_0000;
      set(0, nowhere, bcr());
      expect(vm.start(nowhere, { pstate: EL0T }).ec).toBe(0x20);
    });
  });

  test('comes before an illegal execution state', () => {
    const at = vm.place([NOP]);
    set(0, at, bcr());
    const pstate = EL0T | (1n << 20n);
    expect(vm.start(at, { pstate })).toMatchObject({ ec: EC.BREAKPOINT, spsr: pstate });
    vm.cpu.setSysreg(BCR(0), 0n);
    expect(vm.start(at, { pstate }).ec).toBe(0x0e);
  });

  test('the guest itself sets one, for the next instruction', () => {
    const at = vm.place([msr(BVR(0), 1), msr(BCR(0), 2), NOP, NOP]);
    expect(vm.start(at, { pstate: unmasked, x: { 1: at + 12, 2: bcr() } })).toMatchObject({
      ec: EC.BREAKPOINT + 1,
      elr: BigInt(at + 12),
    });
    vm.cpu.setSysreg(BVR(0), BigInt(at + 8));
    vm.cpu.setSysreg(BCR(0), 0n);
    expect(vm.start(at + 4, { pstate: unmasked, x: { 2: bcr() } })).toMatchObject({ elr: BigInt(at + 8) });
  });
});
