import { beforeEach, describe, expect, test } from '@jest/globals';
import { CpuStop } from '#lib/soft/cpu/cpu.js';
import {
  addImm,
  cbnz,
  dcCvac,
  dcIvac,
  dcZva,
  ldadd,
  ldp,
  ldrPost,
  ldtr,
  ldxr,
  load,
  movz,
  msr,
  NOP,
  stlr,
  store,
  stp,
  strPre,
  strQ,
  sttr,
  stxr,
  subsImm,
  svc,
} from '../a64.ts';
import { BareMetal, DATA, DONE, EL0T, EL1H, MASKED, REG } from '../bare-metal.ts';
import {
  BCR,
  BVR,
  bcr,
  CM,
  CONTEXTIDR,
  D,
  EC,
  FSC,
  KDE,
  MDE,
  mapForBoth,
  OSLSR,
  THRESHOLDS,
  WCR,
  WNR,
  WVR,
  wcr,
} from './debug.ts';

const HVC = 0xd4000002;
const unmasked = EL1H | (MASKED & ~D);
const LOAD = 1n;
const STORE = 2n;
const STORE_SYNDROME = FSC | WNR;
/** CAS X2, X1, [X0] and PRFM PLDL1KEEP, [X0]. */
const CAS = 0xc8a27c01;
const PRFM = 0xf9800000;

describe.each(THRESHOLDS)('watchpoints (threshold %s)', (threshold) => {
  let vm: BareMetal;
  beforeEach(() => {
    vm = new BareMetal({ threshold });
    mapForBoth(vm);
    vm.cpu.setSysreg(REG.MDSCR_EL1, MDE | KDE);
  });
  const set = (n: number, address: number | bigint, control: bigint): void => {
    vm.cpu.setSysreg(WVR(n), BigInt(address));
    vm.cpu.setSysreg(WCR(n), control);
  };
  const at0 = (words: number[], base: number | bigint, x = {}): ReturnType<BareMetal['execute']> =>
    vm.execute(words, { pstate: EL0T, x: { 0: base, ...x } });

  test.each([
    ['EL0', EL0T, 0x400, EC.WATCHPOINT],
    ['EL1', unmasked, 0x200, EC.WATCHPOINT + 1],
  ])('from %s: nothing is done yet; address, direction and syndrome', (_name, pstate, vector, ec) => {
    vm.write64(DATA, 0x1234n);
    for (const n of [0, 1]) {
      set(n, DATA, wcr());
      const at = vm.place([NOP, ldrPost(1, 0, 8)]);
      expect(vm.start(at, { pstate, x: { 0: DATA, 1: 7 } })).toMatchObject({
        vector,
        ec,
        iss: FSC,
        far: BigInt(DATA),
        elr: BigInt(at + 4),
        spsr: pstate,
      });
      expect([vm.cpu.getX(0), vm.cpu.getX(1)]).toEqual([BigInt(DATA), 7n]);
      expect(vm.execute([strPre(1, 0, 8)], { pstate, x: { 0: DATA - 8, 1: 7 } })).toMatchObject({
        ec,
        iss: STORE_SYNDROME,
        far: BigInt(DATA),
      });
      expect([vm.cpu.getX(0), vm.read64(DATA)]).toEqual([BigInt(DATA - 8), 0x1234n]);
      set(n, 0, 0n);
    }
  });

  /** Register, control, the access, its address, and the first watched byte it touches, or none. */
  test.each([
    ['a byte of a doubleword', 0x10, wcr({ bas: 0x04n }), load(1, 1, 0), 0x12, 0x12],
    ['the byte before it', 0x10, wcr({ bas: 0x04n }), load(1, 1, 0), 0x11, undefined],
    ['the byte behind it', 0x10, wcr({ bas: 0x04n }), load(1, 1, 0), 0x13, undefined],
    ['an access around it', 0x10, wcr({ bas: 0x04n }), load(8, 1, 0), 0x10, 0x12],
    ['an unaligned one that ends on it', 0x10, wcr({ bas: 0x01n }), load(8, 1, 0), 0x09, 0x10],
    ['an unaligned one that ends before it', 0x10, wcr({ bas: 0x01n }), load(8, 1, 0), 0x08, undefined],
    ['a word by bit 2 of the address', 0x14, wcr({ bas: 0x03n }), load(2, 1, 0), 0x14, 0x14],
    ['its upper BAS bits have no meaning', 0x14, wcr({ bas: 0xf0n }), load(8, 1, 0), 0x10, undefined],
    ['bytes that are not together', 0x10, wcr({ bas: 0x81n }), load(1, 1, 0), 0x17, 0x17],
    ['the second register of a pair', 0x20, wcr(), ldp(1, 2, 0), 0x18, 0x20],
    ['a pair of stores', 0x20, wcr(), stp(1, 2, 0), 0x18, 0x20],
    ['a vector', 0x28, wcr({ bas: 0x80n }), strQ(1, 0), 0x20, 0x2f],
    ['a range by MASK', 0x100, wcr({ mask: 6n }), load(1, 1, 0), 0x13f, 0x13f],
    ['behind it', 0x100, wcr({ mask: 6n }), load(1, 1, 0), 0x140, undefined],
    ['a range larger than a page', 0, wcr({ mask: 13n }), load(8, 1, 0), 0x1ffc, 0x1ffc],
    ['a masked address', 0x120, wcr({ mask: 6n }), load(1, 1, 0), 0x101, 0x101],
    ['MASK 1 is reserved', 0x10, wcr({ mask: 1n }), load(8, 1, 0), 0x10, undefined],
    ['MASK 2 is reserved', 0x10, wcr({ mask: 2n }), load(8, 1, 0), 0x10, undefined],
    ['no bytes', 0x10, wcr({ bas: 0n }), load(8, 1, 0), 0x10, undefined],
    ['an access over two pages, in the first', 0xff8, wcr(), load(8, 1, 0), 0xffc, 0xffc],
    ['in the second', 0x1000, wcr(), load(8, 1, 0), 0xffc, 0x1000],
    ['its last byte', 0x1000, wcr({ bas: 0x08n }), store(8, 1, 0), 0xffc, 0x1003],
    ['behind its last byte', 0x1000, wcr({ bas: 0x10n }), store(8, 1, 0), 0xffc, undefined],
    ['DC ZVA', 0x30, wcr({ lsc: STORE }), dcZva(0), 0x07, 0x30],
    ['DC ZVA beside it', 0x40, wcr(), dcZva(0), 0x07, undefined],
    ['a prefetch', 0x10, wcr(), PRFM, 0x10, undefined],
    ['DC CVAC', 0x10, wcr(), dcCvac(0), 0x10, undefined],
  ] as const)('%s', (_name, address, control, word, access, hit) => {
    set(0, DATA + address, control);
    vm.cpu.setSysreg(REG.SCTLR_EL1, vm.sysreg(REG.SCTLR_EL1) | (1n << 26n));
    const o = at0([word], DATA + access);
    if (hit === undefined) expect(o.done).toBe(true);
    else expect(o).toMatchObject({ ec: EC.WATCHPOINT, far: BigInt(DATA + hit) });
  });

  test('DC IVAC is a store to its line', () => {
    set(0, DATA + 0x30, wcr({ lsc: STORE }));
    const o = vm.execute([dcIvac(0)], { pstate: unmasked, x: { 0: DATA + 4 } });
    expect(o).toMatchObject({ ec: EC.WATCHPOINT + 1, iss: STORE_SYNDROME | CM, far: BigInt(DATA + 4) });
    set(0, DATA + 0x30, wcr({ lsc: LOAD }));
    expect(vm.execute([dcIvac(0)], { pstate: unmasked, x: { 0: DATA + 4 } }).done).toBe(true);
  });

  /** Instruction, and what each kind of watchpoint does with it: the syndrome, or nothing. */
  test.each([
    ['a load', load(8, 1, 0), FSC, undefined, FSC],
    ['a store', store(8, 1, 0), undefined, STORE_SYNDROME, STORE_SYNDROME],
    ['an atomic', ldadd(1, 2, 0), FSC, STORE_SYNDROME, FSC],
    ['a compare and swap that fails', CAS, FSC, STORE_SYNDROME, FSC],
    ['LDXR', ldxr(1, 0), FSC, undefined, FSC],
    ['STLR', stlr(1, 0), undefined, STORE_SYNDROME, STORE_SYNDROME],
  ])('%s, by LSC', (_name, word, loads, stores, both) => {
    vm.write64(DATA, 5n);
    [loads, stores, both].forEach((iss, i) => {
      set(0, DATA, wcr({ lsc: BigInt(i + 1) }));
      const o = at0([word], DATA, { 1: 9, 2: 77 });
      if (iss === undefined) expect(o.done).toBe(true);
      else expect(o).toMatchObject({ ec: EC.WATCHPOINT, iss, far: BigInt(DATA) });
    });
    set(0, DATA, wcr({ lsc: 0n }));
    expect(at0([word], DATA, { 1: 9, 2: 77 }).done).toBe(true);
  });

  test('a store-exclusive only stores', () => {
    vm.write64(DATA, 5n);
    set(0, DATA, wcr({ lsc: STORE }));
    expect(at0([ldxr(1, 0), addImm(1, 1, 1), stxr(2, 1, 0)], DATA)).toMatchObject({
      ec: EC.WATCHPOINT,
      iss: STORE_SYNDROME,
    });
    expect(vm.read64(DATA)).toBe(5n);
    // Only STXR: the load is before the watchpoint is set.
    const at = vm.place([ldxr(1, 0), addImm(1, 1, 1), msr(WCR(0), 4), stxr(2, 1, 0), HVC]);
    set(0, DATA, 0n);
    expect(vm.start(at, { pstate: unmasked, x: { 0: DATA, 2: 9, 4: wcr({ lsc: LOAD }) } }).done).toBe(true);
    expect([vm.cpu.getX(2), vm.read64(DATA)]).toEqual([0n, 6n]);
    set(0, DATA, 0n);
    expect(vm.start(at, { pstate: unmasked, x: { 0: DATA, 4: wcr() } })).toMatchObject({ iss: STORE_SYNDROME });
  });

  test('PAC says at which EL; LDTR and STTR count as EL0', () => {
    for (const [els, el0, el1] of [
      [1n, false, true],
      [2n, true, false],
      [3n, true, true],
    ] as const) {
      set(0, DATA, wcr({ els }));
      const hit = (word: number, pstate: bigint): boolean => !vm.execute([word], { pstate, x: { 0: DATA } }).done;
      expect([hit(load(8, 1, 0), EL0T), hit(load(8, 1, 0), unmasked)]).toEqual([el0, el1]);
      expect([hit(ldtr(1, 0), unmasked), hit(sttr(1, 0), unmasked)]).toEqual([el0, el0]);
      // With PSTATE.UAO they are EL1's.
      expect(hit(ldtr(1, 0), unmasked | (1n << 23n))).toBe(el1);
    }
  });

  test.each([
    ['E clear', EL0T, wcr() - 1n, {}],
    ['HMC set', EL0T, wcr({ hmc: 1n }), {}],
    ['SSC set', EL0T, wcr({ ssc: 2n }), {}],
    ['MDE clear', EL0T, wcr(), { [REG.MDSCR_EL1]: KDE }],
    ['KDE clear, at EL1', unmasked, wcr(), { [REG.MDSCR_EL1]: MDE }],
    ['PSTATE.D set, at EL1', EL1H | MASKED, wcr(), {}],
    ['the OS Lock', EL0T, wcr(), { [OSLSR]: 0xan }],
  ] as const)('none with %s', (_name, pstate, control, registers) => {
    set(0, DATA, control);
    for (const [index, value] of Object.entries(registers)) vm.cpu.setSysreg(Number(index), value);
    expect(vm.execute([load(8, 1, 0)], { pstate, x: { 0: DATA } }).done).toBe(true);
  });

  test('linked to a context', () => {
    set(0, DATA, wcr({ wt: 1n, lbn: 5n }));
    vm.cpu.setSysreg(CONTEXTIDR, 0x77n);
    expect(at0([load(8, 1, 0)], DATA).done).toBe(true);
    vm.cpu.setSysreg(BVR(5), 0x77n);
    vm.cpu.setSysreg(BCR(5), bcr({ bt: 3n }));
    expect(at0([load(8, 1, 0)], DATA).ec).toBe(EC.WATCHPOINT);
    vm.cpu.setSysreg(CONTEXTIDR, 0x78n);
    expect(at0([load(8, 1, 0)], DATA).done).toBe(true);
  });

  test('of two that match, the first byte is told', () => {
    set(0, DATA + 8, wcr());
    set(1, DATA, wcr({ bas: 0x80n }));
    expect(at0([ldp(1, 2, 0)], DATA).far).toBe(BigInt(DATA + 7));
  });

  test('set on a page that a compiled loop stores to', () => {
    const program = [movz(1, 400), store(8, 1, 0), load(8, 2, 0), subsImm(1, 1, 1), cbnz(1, -3), svc(DONE)];
    const at = vm.place(program);
    for (let n = 0; n < 5; n++) expect(vm.start(at, { pstate: EL0T, x: { 0: DATA } }).done).toBe(true);
    // Beside the word that the loop uses: it goes on as before.
    set(0, DATA + 8, wcr());
    expect(vm.start(at, { pstate: EL0T, x: { 0: DATA } }).done).toBe(true);
    set(0, DATA, wcr({ lsc: LOAD }));
    expect(vm.start(at, { pstate: EL0T, x: { 0: DATA } })).toMatchObject({
      ec: EC.WATCHPOINT,
      elr: BigInt(at + 8),
      iss: FSC,
    });
    expect(vm.read64(DATA)).toBe(400n);
    set(0, DATA, 0n);
    expect(vm.start(at + 8, { pstate: EL0T }).done).toBe(true);
  });

  test('a Data Abort comes first, and a device does not see the access', () => {
    set(0, DATA + 0x8000, wcr());
    expect(at0([load(8, 1, 0)], DATA + 0x8000).ec).toBe(0x24);
    vm.cpu.setSysreg(REG.SCTLR_EL1, 0n);
    set(0, 0x900_0000, wcr({ bas: 0x0fn }));
    expect(at0([store(4, 1, 0)], 0x900_0000)).toMatchObject({
      ec: EC.WATCHPOINT,
      iss: STORE_SYNDROME,
      far: 0x900_0000n,
    });
    expect(at0([store(4, 1, 0)], 0x900_0004).stop).toBe(CpuStop.MMIO);
  });

  test('with alignment checked (SCTLR_EL1.A), a pair and a misaligned access', () => {
    vm.cpu.setSysreg(REG.SCTLR_EL1, vm.sysreg(REG.SCTLR_EL1) | 2n);
    set(0, DATA + 0x20, wcr());
    expect(at0([ldp(1, 2, 0)], DATA + 0x18)).toMatchObject({ ec: EC.WATCHPOINT, far: BigInt(DATA + 0x20) });
    expect(at0([load(8, 1, 0)], DATA + 0x1c)).toMatchObject({ ec: 0x24, iss: 0x21 });
  });
});
