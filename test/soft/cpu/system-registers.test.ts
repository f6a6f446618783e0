import { beforeEach, describe, expect, test } from '@jest/globals';
import { sysregIndex } from '#lib/kvm/registers.js';
import { SYSREGS } from '#lib/soft/cpu/sysregs.js';
import { dcCivac, dcCvac, dcCvau, dcZva, icIvau, mrs, msr, msrImm, NOP, sys } from '../a64.ts';
import { BareMetal, DATA, EL0T, EL1H, EL1T, MASKED, REG } from '../bare-metal.ts';

const UNKNOWN = 0;
const SYSREG = 0x18;

let vm: BareMetal;
beforeEach(() => {
  vm = new BareMetal();
});
const sctlr = (value: bigint): void => void vm.cpu.setSysreg(REG.SCTLR_EL1, value);

type Ended = 'ok' | 'undefined' | 'trap';
function ends(word: number, pstate = EL1H | MASKED, x: Record<number, bigint | number> = {}): Ended {
  vm.cpu.setSysreg(REG.ESR_EL1, -1n);
  const o = vm.execute([word], { pstate, x });
  if (o.done) return 'ok';
  expect(o.vector).toBe((pstate & 0xfn) === 0n ? 0x400 : 0x200);
  if (o.ec === SYSREG) {
    // The syndrome is the instruction.
    const rebuilt =
      0xd500_0000 |
      ((o.iss >>> 20) << 19) |
      (((o.iss >>> 14) & 7) << 16) |
      (((o.iss >>> 10) & 15) << 12) |
      (((o.iss >>> 1) & 15) << 8) |
      (((o.iss >>> 17) & 7) << 5) |
      ((o.iss >>> 5) & 31) |
      ((o.iss & 1) << 21);
    expect(rebuilt >>> 0).toBe(word);
    return 'trap';
  }
  expect(o).toMatchObject({ ec: UNKNOWN, iss: 0 });
  return 'undefined';
}

/** Registers of op1 = 3, and what EL0 may do with SCTLR_EL1, MDSCR_EL1 and CNTKCTL_EL1 zero. */
const EL0_MAY: Readonly<Record<string, readonly [Ended, Ended]>> = {
  CTR_EL0: ['trap', 'undefined'],
  DCZID_EL0: ['ok', 'undefined'],
  TPIDR_EL0: ['ok', 'ok'],
  TPIDRRO_EL0: ['ok', 'undefined'],
  SCXTNUM_EL0: ['ok', 'ok'],
};

describe('every register', () => {
  test.each(SYSREGS.map((r) => [r.name, r] as const))('%s at EL0', (name, { index }) => {
    sctlr(0n);
    const [read, write] = EL0_MAY[name] ?? ['undefined', 'undefined'];
    expect([ends(mrs(5, index), EL0T), ends(msr(index, 5), EL0T)]).toEqual([read, write]);
  });
  test.each(SYSREGS.filter((r) => r.access === 'constant').map((r) => [r.name, r] as const))(
    '%s is constant',
    (_name, { index }) => {
      const value = vm.sysreg(index);
      expect(ends(mrs(5, index))).toBe('ok');
      expect(vm.cpu.getX(5)).toBe(value);
      expect(ends(msr(index, 6), undefined, { 6: ~value })).toBe('undefined');
      expect(vm.sysreg(index)).toBe(value);
      vm.cpu.reset();
      expect(vm.sysreg(index)).toBe(value);
    },
  );
  test.each(SYSREGS.filter((r) => r.access.startsWith('plain')).map((r) => [r.name, r] as const))(
    '%s keeps what EL1 writes',
    (_name, { index }) => {
      for (const value of [0xfedc_ba98_7654_3210n, 0n]) {
        const o = vm.execute([msr(index, 5), mrs(6, index)], { x: { 5: value } });
        expect(o.done).toBe(true);
        expect([vm.cpu.getX(6), vm.sysreg(index)]).toEqual([value, value]);
      }
    },
  );
});

test('parts of PSTATE by MRS and MSR', () => {
  const PSTATE_REGISTERS = [
    [REG.NZCV, 0xf000_0000n, true],
    [REG.DIT, 1n << 24n, true],
    [REG.SSBS, 1n << 12n, true],
    [REG.PAN, 1n << 22n, false],
    [REG.UAO, 1n << 23n, false],
    [REG.DAIF, 0x3c0n, undefined],
  ] as const;
  for (const [index, bits, el0] of PSTATE_REGISTERS) {
    for (const value of [-1n, 0n]) {
      expect(vm.execute([msr(index, 5), mrs(6, index)], { x: { 5: value } }).done).toBe(true);
      expect(vm.cpu.getX(6)).toBe(value & bits);
      expect(vm.cpu.getPstate() & bits).toBe(value & bits);
    }
    if (el0 !== undefined)
      expect([index, ends(mrs(6, index), EL0T), ends(msr(index, 6), EL0T)]).toEqual([
        index,
        el0 ? 'ok' : 'undefined',
        el0 ? 'ok' : 'undefined',
      ]);
  }
  expect(vm.execute([mrs(6, REG.CURRENT_EL)]).done).toBe(true);
  expect(vm.cpu.getX(6)).toBe(4n);
  expect(ends(mrs(6, REG.CURRENT_EL), EL0T)).toBe('undefined');
  expect(ends(msr(REG.CURRENT_EL, 6))).toBe('undefined');
  for (const [op1, op2, el0] of [
    [0, 3, 'undefined'],
    [0, 4, 'undefined'],
    [0, 5, 'undefined'],
    [3, 1, 'ok'],
    [3, 2, 'ok'],
    [3, 6, 'trap'],
    [3, 7, 'trap'],
  ] as const) {
    sctlr(0n);
    expect([op1, op2, ends(msrImm(op1, op2, 1), EL0T)]).toEqual([op1, op2, el0]);
    expect([op1, op2, ends(msrImm(op1, op2, 1))]).toEqual([op1, op2, 'ok']);
  }
  // PSTATE.ALLINT, TCO, SVCR: not there.
  for (const [op1, op2] of [
    [1, 0],
    [3, 4],
    [3, 3],
  ] as const)
    expect(ends(msrImm(op1, op2, 1))).toBe('undefined');
});

test('FPCR and FPSR keep their bits and no others', () => {
  expect(
    vm.execute([msr(REG.FPCR, 5), mrs(6, REG.FPCR), msr(REG.FPSR, 5), mrs(7, REG.FPSR)], { x: { 5: -1n } }).done,
  ).toBe(true);
  expect([vm.cpu.getX(6), vm.cpu.getX(7)]).toEqual([0x07c8_0000n, 0x0800_009fn]);
  expect([vm.sysreg(REG.FPCR), vm.sysreg(REG.FPSR)]).toEqual([0x07c8_0000n, 0x0800_009fn]);
});

test('SCTLR_EL1: RES1 bits read as one and what is not there as zero; KVM resets it', () => {
  expect(vm.sysreg(REG.SCTLR_EL1)).toBe(0x00c5_0078n);
  const off = ~1n & ~(1n << 1n);
  expect(
    vm.execute([msr(REG.SCTLR_EL1, 5), mrs(6, REG.SCTLR_EL1), msr(REG.SCTLR_EL1, 31), mrs(7, REG.SCTLR_EL1)], {
      x: { 5: off },
    }).done,
  ).toBe(true);
  // No EE, E0E (mixed endianness), no pointer authentication, no MTE.
  expect(vm.cpu.getX(6)).toBe(0x0200_101a_34fd_dbdcn);
  expect(vm.cpu.getX(7)).toBe(0x3040_0980n);
});

describe('what EL0 may do', () => {
  const bits = { UMA: 9n, DZE: 14n, UCT: 15n, UCI: 26n, TSCXT: 20n };
  test('CTR_EL0 with UCT', () => {
    sctlr(0n);
    expect(ends(mrs(9, REG.CTR_EL0), EL0T)).toBe('trap');
    expect(ends(mrs(9, REG.CTR_EL0))).toBe('ok');
    sctlr(1n << bits.UCT);
    expect(ends(mrs(9, REG.CTR_EL0), EL0T)).toBe('ok');
    expect(vm.cpu.getX(9)).toBe(vm.sysreg(REG.CTR_EL0));
  });
  test('DC ZVA with DZE, which DCZID_EL0 tells', () => {
    const x = { 3: DATA + 0x47 };
    // It zeroes Normal memory only.
    vm.normalMemory();
    const mmuOn = vm.sysreg(REG.SCTLR_EL1) & ~(1n << bits.DZE);
    sctlr(mmuOn);
    vm.fill(DATA, 256, 0xff);
    expect(ends(dcZva(3), EL0T, x)).toBe('trap');
    expect(vm.read64(DATA + 0x40)).not.toBe(0n);
    ends(mrs(9, REG.DCZID_EL0), EL0T);
    expect(vm.cpu.getX(9)).toBe(0x14n);
    sctlr(mmuOn | (1n << bits.DZE));
    ends(mrs(9, REG.DCZID_EL0), EL0T);
    expect(vm.cpu.getX(9)).toBe(4n);
    expect(ends(dcZva(3), EL0T, x)).toBe('ok');
    expect(vm.read64(DATA + 0x40)).toBe(0n);
    sctlr(mmuOn);
    expect(ends(dcZva(3), undefined, x)).toBe('ok');
    expect(ends(mrs(9, REG.DCZID_EL0))).toBe('ok');
    expect(vm.cpu.getX(9)).toBe(4n);
  });
  test('cache maintenance with UCI', () => {
    const CVAP = sys(3, 7, 12, 1, 3);
    const CVADP = sys(3, 7, 13, 1, 3);
    for (const word of [dcCvau(3), dcCvac(3), dcCivac(3), icIvau(3), CVAP, CVADP]) {
      sctlr(0n);
      expect(ends(word, EL0T, { 3: DATA })).toBe('trap');
      expect(ends(word, undefined, { 3: DATA })).toBe('ok');
      sctlr(1n << bits.UCI);
      expect(ends(word, EL0T, { 3: DATA })).toBe('ok');
    }
    // IC IALLU, IALLUIS, DC IVAC, ISW, CSW, CISW are EL1's, and what is not allocated is nobody's.
    sctlr((1n << bits.UCI) | (1n << bits.DZE));
    for (const word of [
      sys(0, 7, 5, 0),
      sys(0, 7, 1, 0),
      sys(0, 7, 6, 1, 3),
      sys(0, 7, 6, 2, 3),
      sys(0, 7, 10, 2, 3),
      sys(0, 7, 14, 2, 3),
    ]) {
      expect(ends(word, EL0T, { 3: DATA })).toBe('undefined');
      expect(ends(word, undefined, { 3: DATA })).toBe('ok');
    }
    // CFP, DVP, CPP RCTX; DC GVA, GZVA; CRn 7 of nothing.
    for (const word of [
      sys(3, 7, 3, 4, 3),
      sys(3, 7, 3, 5, 3),
      sys(3, 7, 3, 7, 3),
      sys(3, 7, 4, 3, 3),
      sys(3, 7, 4, 4, 3),
      sys(3, 7, 15, 1, 3),
      sys(3, 11, 0, 0, 3),
    ]) {
      for (const controls of [0n, (1n << bits.UCI) | (1n << bits.DZE)]) {
        sctlr(controls);
        expect([word.toString(16), ends(word, EL0T), ends(word)]).toEqual([
          word.toString(16),
          'undefined',
          'undefined',
        ]);
      }
    }
  });
  test('SCXTNUM_EL0 without TSCXT', () => {
    sctlr(1n << bits.TSCXT);
    expect([
      ends(mrs(5, REG.SCXTNUM_EL0), EL0T),
      ends(msr(REG.SCXTNUM_EL0, 5), EL0T),
      ends(mrs(5, REG.SCXTNUM_EL0)),
    ]).toEqual(['trap', 'trap', 'ok']);
    sctlr(0n);
    expect([ends(msr(REG.SCXTNUM_EL0, 5), EL0T, { 5: 99 }), ends(mrs(6, REG.SCXTNUM_EL0), EL0T)]).toEqual(['ok', 'ok']);
    expect(vm.cpu.getX(6)).toBe(99n);
  });
  test('the debug channel without MDSCR_EL1.TDCC: it reads as zero', () => {
    for (const index of [sysregIndex(2, 3, 0, 1, 0), sysregIndex(2, 3, 0, 4, 0), sysregIndex(2, 3, 0, 5, 0)]) {
      vm.cpu.setSysreg(REG.MDSCR_EL1, 0n);
      expect(ends(mrs(5, index), EL0T, { 5: 7 })).toBe('ok');
      expect(vm.cpu.getX(5)).toBe(0n);
      vm.cpu.setSysreg(REG.MDSCR_EL1, 1n << 12n);
      expect([ends(mrs(5, index), EL0T), ends(mrs(5, index))]).toEqual(['trap', 'ok']);
    }
  });
});

describe('the generic timer at EL0, by CNTKCTL_EL1', () => {
  const cnt = (crm: number, op2: number): number => sysregIndex(3, 3, 14, crm, op2);
  beforeEach(() => {
    vm = new BareMetal({
      host: {
        readSysreg: (index) => (((index >> 7) & 15) === 14 ? 42n : undefined),
        writeSysreg: (index) => ((index >> 3) & 15) !== 0,
      },
    });
  });
  /** Name, register, whether it can be written, and the bits of CNTKCTL_EL1 any of which allows it. */
  test.each([
    ['CNTFRQ_EL0', cnt(0, 0), false, 0b11n],
    ['CNTPCT_EL0', cnt(0, 1), false, 0b01n],
    ['CNTVCT_EL0', cnt(0, 2), false, 0b10n],
    ['CNTP_TVAL_EL0', cnt(2, 0), true, 1n << 9n],
    ['CNTP_CTL_EL0', cnt(2, 1), true, 1n << 9n],
    ['CNTP_CVAL_EL0', cnt(2, 2), true, 1n << 9n],
    ['CNTV_TVAL_EL0', cnt(3, 0), true, 1n << 8n],
    ['CNTV_CTL_EL0', cnt(3, 1), true, 1n << 8n],
    ['CNTV_CVAL_EL0', cnt(3, 2), true, 1n << 8n],
  ])('%s', (_name, index, writable, allowing) => {
    const with_ = (kctl: bigint): Ended[] => {
      vm.cpu.setSysreg(REG.CNTKCTL_EL1, kctl);
      return [ends(mrs(5, index), EL0T), writable ? ends(msr(index, 5), EL0T) : 'ok', ends(mrs(5, index))];
    };
    expect(with_(0n)).toEqual(['trap', writable ? 'trap' : 'ok', 'ok']);
    expect(with_(0x303n & ~allowing)).toEqual(['trap', writable ? 'trap' : 'ok', 'ok']);
    for (let bit = 1n; bit <= allowing; bit <<= 1n)
      if ((bit & allowing) !== 0n) expect(with_(bit)).toEqual(['ok', 'ok', 'ok']);
  });
});

test('the kernel half answers for what is not the processors, at its own EL only', () => {
  const asked: string[] = [];
  vm = new BareMetal({
    host: {
      readSysreg: (index) => {
        asked.push(`read ${index}`);
        return index === 0xc661 ? 5n : undefined;
      },
      writeSysreg: (index, value) => {
        asked.push(`write ${index} ${value}`);
        return index === 0xc661;
      },
    },
  });
  expect([
    ends(mrs(5, 0xc661)),
    vm.cpu.getX(5),
    ends(msr(0xc661, 6), undefined, { 6: -1n }),
    ends(mrs(5, 0xc662)),
    ends(msr(0xc662, 6)),
  ]).toEqual(['ok', 5n, 'ok', 'undefined', 'undefined']);
  expect(asked).toEqual(['read 50785', `write 50785 ${2n ** 64n - 1n}`, 'read 50786', `write 50786 ${2n ** 64n - 1n}`]);
  asked.length = 0;
  expect([ends(mrs(5, 0xc661), EL0T), ends(msr(0xc661, 5), EL0T)]).toEqual(['undefined', 'undefined']);
  expect(asked).toEqual([]);
});

test('TPIDR_EL0 and TPIDRRO_EL0 at EL0', () => {
  vm.cpu.setSysreg(REG.TPIDRRO_EL0, 0x77n);
  expect(
    vm.execute([msr(REG.TPIDR_EL0, 5), mrs(6, REG.TPIDR_EL0), mrs(7, REG.TPIDRRO_EL0)], {
      pstate: EL0T,
      x: { 5: 0x66 },
    }).done,
  ).toBe(true);
  expect([vm.cpu.getX(6), vm.cpu.getX(7)]).toEqual([0x66n, 0x77n]);
});

test('registers of other levels and of features that are not there are UNDEFINED', () => {
  const other = [
    sysregIndex(3, 4, 1, 0, 0), // SCTLR_EL2
    sysregIndex(3, 6, 1, 0, 0), // SCTLR_EL3
    sysregIndex(3, 4, 4, 1, 0), // SP_EL1, at EL1
    sysregIndex(3, 5, 1, 0, 0), // SCTLR_EL12
    sysregIndex(3, 0, 2, 1, 0), // APIAKeyLo_EL1
    sysregIndex(3, 0, 1, 0, 5), // RGSR_EL1
    sysregIndex(3, 0, 1, 2, 0), // ZCR_EL1
    sysregIndex(3, 3, 2, 4, 0), // RNDR
    sysregIndex(3, 4, 12, 1, 1), // VDISR_EL2
    sysregIndex(3, 0, 5, 5, 2), // ERXMISC2_EL1
    sysregIndex(3, 3, 9, 12, 0), // PMCR_EL0
    sysregIndex(2, 0, 0, 6, 4), // DBGBVR6_EL1
    sysregIndex(2, 0, 0, 4, 6), // DBGWVR4_EL1
  ];
  for (const index of other)
    expect([index, ends(mrs(5, index)), ends(msr(index, 5))]).toEqual([index, 'undefined', 'undefined']);
});

test('SPSR_EL1, ELR_EL1 and ESR_EL1 are as the exception left them', () => {
  expect(vm.execute([NOP], { pstate: EL1T | MASKED }).done).toBe(true);
  expect(vm.execute([mrs(5, REG.ELR_EL1)]).done).toBe(true);
  expect(vm.cpu.getX(5)).toBe(vm.sysreg(REG.ELR_EL1));
});
