import { describe, expect, test } from '@jest/globals';
import {
  br,
  dcCivac,
  dcCvac,
  dcIvac,
  dcZva,
  icIvau,
  ldtr,
  load,
  msr,
  msrPan,
  msrUao,
  NOP,
  store,
  sttr,
  svc,
  sys,
  TLBI_VMALLE1IS,
  tlbiAside1,
  tlbiOperand,
  tlbiVaale1is,
} from '../a64.ts';
import {
  BareMetal,
  DATA,
  EL0T,
  EL1H,
  type Granule,
  type Leaf,
  MAIR,
  MASKED,
  type MmuOptions,
  type PageTables,
  RAM,
  REG,
  SCTLR_ON,
  tcr,
  withMmu,
} from '../bare-metal.ts';

const WNR = 1 << 6;
const CM = 1 << 8;
/** Fault status codes without a level. */
const ADDRESS_SIZE = 0b000000;
const TRANSLATION = 0b000100;
const ACCESS_FLAG = 0b001000;
const PERMISSION = 0b001100;
const EXTERNAL_WALK = 0b010100;
const DATA_LOWER = 0x24;
const DATA_SAME = 0x25;
const FETCH_LOWER = 0x20;
const FETCH_SAME = 0x21;
const WXN = 1n << 19n;
const PAN = 1n << 22n;
const UAO = 1n << 23n;
const EL1 = EL1H | MASKED;

const VALUE = 0x1122_3344_5566_7788n;

/** A machine with the MMU on and something to read at DATA. */
function machine(options: MmuOptions = {}): { vm: BareMetal; tables: PageTables } {
  const vm = new BareMetal();
  vm.write64(DATA, VALUE);
  return { vm, tables: withMmu(vm, options) };
}

type Result = 'ok' | number;
/** Whether an instruction does its work, else the ISS of its data abort. */
function attempt(vm: BareMetal, word: number, va: bigint, pstate = EL1): Result {
  vm.cpu.setSysreg(REG.ESR_EL1, 0n);
  const o = vm.execute([word], { pstate, x: { 0: va, 1: VALUE } });
  if (o.done) return 'ok';
  expect(o.ec).toBe((pstate & 0xfn) === 0n ? DATA_LOWER : DATA_SAME);
  expect(o.far).toBe(BigInt.asUintN(64, va));
  return o.iss;
}
const read = (vm: BareMetal, va: bigint, pstate = EL1): Result => attempt(vm, load(8, 1, 0), va, pstate);
const write = (vm: BareMetal, va: bigint, pstate = EL1): Result => attempt(vm, store(8, 1, 0), va, pstate);
/** Whether an address can be executed, else the IFSC. */
function run(vm: BareMetal, va: bigint, pstate = EL1): Result {
  const o = vm.execute([br(0)], { pstate, x: { 0: va } });
  if (o.ec === 0x15 && o.iss === 0x123) return 'ok';
  expect(o.ec).toBe((pstate & 0xfn) === 0n ? FETCH_LOWER : FETCH_SAME);
  expect(o.far).toBe(BigInt.asUintN(64, va));
  return o.iss;
}

/** In no entry of a first level that maps the code too. */
const VA = 0x8080_0000_0000n;

describe.each([12, 14, 16] as const)('granule 2^%d', (granule: Granule) => {
  const levels = granule === 12 ? [0, 1, 2, 3] : granule === 14 ? [0, 1, 2, 3] : [1, 2, 3];
  const blocks = granule === 12 ? ([1, 2] as const) : ([2] as const);

  test('a page is where its descriptor says, at every offset', () => {
    const { vm, tables } = machine({ granule });
    tables.map(VA, DATA);
    for (const offset of [0, 0x7f8, 0xff8, (1 << granule) - 8]) {
      vm.write64(DATA + offset, VALUE + BigInt(offset));
      expect(read(vm, VA + BigInt(offset))).toBe('ok');
      expect(vm.cpu.getX(1)).toBe(VALUE + BigInt(offset));
      expect(attempt(vm, store(1, 1, 0), VA + BigInt(offset))).toBe('ok');
    }
    expect(read(vm, VA + BigInt(1 << granule))).toBe(TRANSLATION | 3);
    expect(write(vm, VA - 8n)).not.toBe('ok');
  });

  test.each(blocks)('a block at level %d', (level) => {
    const { vm, tables } = machine({ granule });
    const span = 2n ** BigInt(tables.shift(level));
    const va = VA + span * 8n;
    // A block bigger than RAM is mapped so that RAM is somewhere in it.
    const base = BigInt(DATA) & ~(span - 1n);
    const offset = BigInt(DATA) - base;
    tables.map(va, base, { level });
    expect(read(vm, va + offset)).toBe('ok');
    expect(vm.cpu.getX(1)).toBe(VALUE);
    vm.write64(DATA + 0x1_2340, 77n);
    expect(read(vm, va + offset + 0x1_2340n)).toBe('ok');
    expect(vm.cpu.getX(1)).toBe(77n);
  });

  test('the contiguous bit is a hint: each page is where its own descriptor says', () => {
    const { vm, tables } = machine({ granule });
    const page = 1 << granule;
    const base = VA + 2n ** BigInt(tables.shift(1)) * 5n;
    const frames = Array.from({ length: 8 }, (_, n) => DATA + (n < 4 ? n : n - 4) * page);
    frames.forEach((pa, n) => {
      const leaf = tables.map(base + BigInt(n * page), pa);
      vm.write64(leaf, vm.read64(leaf) | (1n << 52n));
      vm.write64(pa, BigInt(n % 4));
    });
    for (let n = 0; n < 8; n++) {
      expect(read(vm, base + BigInt(n * page))).toBe('ok');
      expect(vm.cpu.getX(1)).toBe(BigInt(n % 4));
    }
  });

  test.each(levels)('an invalid descriptor at level %d is a translation fault there', (level) => {
    const { vm, tables } = machine({ granule });
    const va = VA + 2n ** BigInt(tables.shift(1));
    tables.map(va, DATA);
    expect(read(vm, va)).toBe('ok');
    vm.write64(tables.entry(va, level), 0n);
    vm.cpu.setSysreg(REG.TTBR0_EL1, BigInt(tables.root));
    expect(read(vm, va)).toBe(TRANSLATION | level);
    expect(write(vm, va)).toBe(TRANSLATION | level | WNR);
    expect(read(vm, va, EL0T)).toBe(TRANSLATION | level);
    expect(run(vm, va)).toBe(TRANSLATION | level);
    expect(run(vm, va, EL0T)).toBe(TRANSLATION | level);
  });

  test('a block where none may be, and the reserved page descriptor, are translation faults', () => {
    const { vm, tables } = machine({ granule });
    for (const level of levels) {
      const va = VA + 2n ** BigInt(tables.shift(1)) * BigInt(level + 2);
      tables.map(va, DATA);
      if ((blocks as readonly number[]).includes(level)) continue;
      // Bit 1 clear: a block, or at level 3 nothing.
      const at = tables.entry(va, level);
      vm.write64(at, vm.read64(at) & ~2n);
      vm.cpu.setSysreg(REG.TTBR0_EL1, BigInt(tables.root));
      expect([level, read(vm, va)]).toEqual([level, TRANSLATION | level]);
      vm.write64(at, vm.read64(at) | 2n);
    }
  });

  test('the access flag, address size and permission faults name the level of the leaf', () => {
    for (const level of [...blocks, 3] as const) {
      const { vm, tables } = machine({ granule });
      const va = VA + 2n ** BigInt(tables.shift(1)) * 3n;
      const base = BigInt(DATA) & ~(2n ** BigInt(tables.shift(level)) - 1n);
      tables.map(va, base, { level, accessFlag: false });
      expect(read(vm, va)).toBe(ACCESS_FLAG | level);
      expect(run(vm, va)).toBe(ACCESS_FLAG | level);
      tables.map(va, base, { level, ap: 2 });
      expect(write(vm, va)).toBe(PERMISSION | level | WNR);
      tables.map(va, 1n << 40n, { level });
      expect(read(vm, va)).toBe(ADDRESS_SIZE | level);
      // TCR_EL1.IPS says 36 bits.
      vm.cpu.setSysreg(REG.TCR_EL1, (tcr(granule) & ~(7n << 32n)) | (1n << 32n));
      tables.map(va, 1n << 36n, { level });
      expect(read(vm, va)).toBe(ADDRESS_SIZE | level);
    }
  });

  test('a table outside the output size, or outside of RAM', () => {
    const { vm, tables } = machine({ granule });
    for (const level of levels.slice(0, -1)) {
      const va = VA + 2n ** BigInt(tables.shift(1)) * BigInt(level + 2);
      tables.map(va, DATA);
      const at = tables.entry(va, level);
      const old = vm.read64(at);
      vm.write64(at, (1n << 41n) | 3n);
      expect([level, read(vm, va)]).toEqual([level, ADDRESS_SIZE | level]);
      vm.write64(at, 0x1_0000_0000n | 3n);
      expect([level, read(vm, va)]).toEqual([level, EXTERNAL_WALK | (level + 1)]);
      expect([level, write(vm, va)]).toEqual([level, EXTERNAL_WALK | (level + 1) | WNR]);
      expect([level, run(vm, va)]).toEqual([level, EXTERNAL_WALK | (level + 1)]);
      vm.write64(at, old);
    }
  });

  const least = granule === 16 ? 12 : 16;
  test(`T1SZ below ${least}: nothing is translated`, () => {
    const { vm, tables } = machine({ granule });
    const va = BigInt.asUintN(64, -0x1_0000n);
    tables.map(BigInt.asUintN(48, va), DATA);
    expect(read(vm, va)).toBe('ok');
    vm.cpu.setSysreg(REG.TCR_EL1, tcr(granule, 16, least - 1));
    expect(read(vm, va)).toBe(TRANSLATION);
    expect(run(vm, va)).toBe(TRANSLATION);
    vm.cpu.setSysreg(REG.TCR_EL1, tcr(granule, 16, 16));
    expect(read(vm, va)).toBe('ok');
  });

  test.each([...(granule === 16 ? [12, 14] : []), 25, 33, 34, 36, 39])('T0SZ and T1SZ %d', (tsz) => {
    const vm = new BareMetal();
    const tables = withMmu(vm, { granule, t0sz: tsz < 34 ? tsz : 25, tcr: tcr(granule, tsz < 34 ? tsz : 25, tsz) });
    // The lower half has the code; the upper half is tried.
    const upper = new (tables.constructor as typeof PageTables)(vm, RAM + 0x70_0000, granule, 64 - tsz);
    vm.cpu.setSysreg(REG.TTBR1_EL1, BigInt(upper.root));
    vm.write64(DATA, VALUE);
    const lowest = -(2n ** BigInt(64 - tsz));
    const page = 1n << BigInt(granule);
    upper.map(BigInt.asUintN(64 - tsz, lowest), DATA);
    upper.map(BigInt.asUintN(64 - tsz, -page), DATA);
    expect(read(vm, BigInt.asUintN(64, lowest))).toBe('ok');
    expect(read(vm, BigInt.asUintN(64, -page))).toBe('ok');
    expect(vm.cpu.getX(1)).toBe(VALUE);
    // One byte below is in no half: level 0, whatever the first level is.
    expect(read(vm, BigInt.asUintN(64, lowest - 8n))).toBe(TRANSLATION);
    if (tsz < 34) expect(read(vm, 2n ** BigInt(64 - tsz))).toBe(TRANSLATION);
  });
});

describe('TCR_EL1', () => {
  const upperVa = BigInt.asUintN(64, -0x1000n);
  test('EPD0 and EPD1 stop the walks of their half', () => {
    const { vm, tables } = machine();
    tables.map(BigInt.asUintN(48, upperVa), DATA);
    expect(read(vm, upperVa)).toBe('ok');
    vm.cpu.setSysreg(REG.TCR_EL1, tcr() | (1n << 23n));
    expect(read(vm, upperVa)).toBe(TRANSLATION);
    vm.cpu.setSysreg(REG.TCR_EL1, tcr() | (1n << 7n));
    // Nothing can be fetched any more, not even the vectors: the storm ends with the budget.
    expect(vm.execute([NOP]).done).toBe(false);
    vm.cpu.setSysreg(REG.TCR_EL1, tcr());
    expect(read(vm, upperVa)).toBe('ok');
  });
  test('TBI0 and TBI1: the top byte is ignored in their half, and kept in FAR_EL1', () => {
    const { vm, tables } = machine();
    tables.map(VA, DATA);
    tables.map(BigInt.asUintN(48, upperVa), DATA);
    const tagged = VA | (0xa5n << 56n);
    const taggedUpper = (upperVa & ~(0xffn << 56n)) | (0x3cn << 56n);
    expect(read(vm, tagged)).toBe(TRANSLATION);
    vm.cpu.setSysreg(REG.TCR_EL1, tcr() | (1n << 37n));
    expect(read(vm, tagged)).toBe('ok');
    expect(vm.cpu.getX(1)).toBe(VALUE);
    expect(read(vm, taggedUpper)).toBe(TRANSLATION);
    expect(read(vm, tagged + 0x1000n)).toBe(TRANSLATION | 3);
    // Bits 55..48 are not ignored.
    expect(read(vm, tagged | (1n << 48n))).toBe(TRANSLATION);
    vm.cpu.setSysreg(REG.TCR_EL1, tcr() | (1n << 38n));
    expect(read(vm, taggedUpper)).toBe('ok');
    expect(read(vm, tagged)).toBe(TRANSLATION);
  });
  test('TBI0: a branch drops the tag, and ELR_EL1 and the link register never see it', () => {
    const { vm } = machine({ tcr: tcr() | (1n << 37n) });
    const at = vm.place([0xd63f0000, NOP], undefined); // blr x0
    const target = vm.place([svc(0x123)]);
    const o = vm.start(at, { x: { 0: BigInt(target) | (0x77n << 56n), 30: 0 } });
    expect(o).toMatchObject({ ec: 0x15, iss: 0x123, elr: BigInt(target + 4) });
    expect(vm.cpu.getX(30)).toBe(BigInt(at + 4));
  });
  test('TBI0 with the MMU off', () => {
    const vm = new BareMetal();
    vm.write64(DATA, VALUE);
    expect(read(vm, BigInt(DATA) | (1n << 60n))).toBe(ADDRESS_SIZE);
    vm.cpu.setSysreg(REG.TCR_EL1, 1n << 37n);
    expect(read(vm, BigInt(DATA) | (1n << 60n))).toBe('ok');
    expect(read(vm, BigInt(DATA) | (1n << 40n))).toBe(ADDRESS_SIZE);
  });
  test('HPD0: permissions in tables do not count', () => {
    const { vm, tables } = machine();
    tables.map(VA, DATA, { ap: 1, table: (1n << 62n) | (1n << 61n) });
    expect(write(vm, VA)).toBe(PERMISSION | 3 | WNR);
    expect(read(vm, VA, EL0T)).toBe(PERMISSION | 3);
    vm.cpu.setSysreg(REG.TCR_EL1, tcr() | (1n << 41n));
    expect(write(vm, VA)).toBe('ok');
    expect(read(vm, VA, EL0T)).toBe('ok');
  });
  test('E0PD0: EL0 and LDTR fault without a walk', () => {
    const { vm, tables } = machine({ tcr: tcr() | (1n << 56n) });
    const low = BigInt.asUintN(48, upperVa);
    tables.map(low, DATA, { ap: 1 });
    tables.map(VA, DATA, { ap: 1 });
    expect(read(vm, upperVa)).toBe('ok');
    expect(read(vm, upperVa, EL0T)).toBe(TRANSLATION);
    expect(attempt(vm, ldtr(1, 0), upperVa)).toBe(TRANSLATION);
    expect(read(vm, VA, EL0T)).toBe('ok');
    expect(run(vm, upperVa, EL0T)).toBe(TRANSLATION);
  });
});

describe('permissions', () => {
  /** AP, then what EL1 and EL0 may do: read, write. */
  test.each([
    [0, 'rw', ''],
    [1, 'rw', 'rw'],
    [2, 'r', ''],
    [3, 'r', 'r'],
  ] as const)('AP %d: EL1 %s, EL0 %s', (ap, el1, el0) => {
    const { vm, tables } = machine();
    tables.map(VA, DATA, { ap });
    const denied = PERMISSION | 3;
    expect(read(vm, VA)).toBe('ok');
    expect(write(vm, VA)).toBe(el1.includes('w') ? 'ok' : denied | WNR);
    expect(read(vm, VA, EL0T)).toBe(el0.includes('r') ? 'ok' : denied);
    expect(write(vm, VA, EL0T)).toBe(el0.includes('w') ? 'ok' : denied | WNR);
    // Unprivileged accesses from EL1 act as EL0, and with UAO as EL1.
    expect(attempt(vm, ldtr(1, 0), VA)).toBe(el0.includes('r') ? 'ok' : denied);
    expect(attempt(vm, sttr(1, 0), VA)).toBe(el0.includes('w') ? 'ok' : denied | WNR);
    expect(attempt(vm, ldtr(1, 0), VA, EL1 | UAO)).toBe('ok');
    expect(attempt(vm, sttr(1, 0), VA, EL1 | UAO)).toBe(el1.includes('w') ? 'ok' : denied | WNR);
    expect(attempt(vm, ldtr(1, 0), VA, EL0T | UAO)).toBe(el0.includes('r') ? 'ok' : denied);
    // PAN keeps EL1 from what EL0 can access, but for unprivileged accesses.
    const forEl0 = el0 !== '';
    expect(read(vm, VA, EL1 | PAN)).toBe(forEl0 ? denied : 'ok');
    expect(write(vm, VA, EL1 | PAN)).toBe(forEl0 || !el1.includes('w') ? denied | WNR : 'ok');
    expect(attempt(vm, ldtr(1, 0), VA, EL1 | PAN)).toBe(forEl0 ? 'ok' : denied);
    expect(attempt(vm, ldtr(1, 0), VA, EL1 | PAN | UAO)).toBe(forEl0 ? denied : 'ok');
    expect(read(vm, VA, EL0T | PAN)).toBe(forEl0 ? 'ok' : denied);
  });

  test('tables take permissions away: APTable', () => {
    for (const [table, expected] of [
      [1n << 61n, ['ok', 'ok', PERMISSION | 3, PERMISSION | 3 | WNR]],
      [1n << 62n, ['ok', PERMISSION | 3 | WNR, 'ok', PERMISSION | 3 | WNR]],
      [3n << 61n, ['ok', PERMISSION | 3 | WNR, PERMISSION | 3, PERMISSION | 3 | WNR]],
    ] as const) {
      const { vm, tables } = machine();
      tables.map(VA, DATA, { ap: 1, table });
      expect([read(vm, VA), write(vm, VA), read(vm, VA, EL0T), write(vm, VA, EL0T)]).toEqual(expected);
    }
  });

  /** A page of code with that leaf. */
  const executes = (leaf: Leaf, pstate: bigint, sctlr = SCTLR_ON): Result => {
    const { vm, tables } = machine({ sctlr });
    if ((sctlr & WXN) !== 0n) tables.mapRange(RAM, RAM, DATA - RAM, { ap: 2 });
    vm.write32(DATA, svc(0x123));
    tables.map(VA, DATA, leaf);
    return run(vm, VA, pstate);
  };
  const X = PERMISSION | 3;
  test.each([
    [{ ap: 0 }, 'ok', 'ok'],
    [{ ap: 0, pxn: true }, X, 'ok'],
    [{ ap: 0, uxn: true }, 'ok', X],
    [{ ap: 2 }, 'ok', 'ok'],
    // What EL0 can write, EL1 never executes.
    [{ ap: 1 }, X, 'ok'],
    [{ ap: 3 }, 'ok', 'ok'],
    [{ ap: 3, table: 1n << 59n }, X, 'ok'],
    [{ ap: 3, table: 1n << 60n }, 'ok', X],
    // A page that is read-only by its table is not writable.
    [{ ap: 1, table: 1n << 62n }, 'ok', 'ok'],
  ] as const)('execute %j: EL1 %s, EL0 %s', (leaf, el1, el0) => {
    expect([executes(leaf, EL1), executes(leaf, EL0T)]).toEqual([el1, el0]);
  });
  test.each([
    [{ ap: 0 }, X, 'ok'],
    [{ ap: 1 }, X, X],
    [{ ap: 2 }, 'ok', 'ok'],
    [{ ap: 3 }, 'ok', 'ok'],
  ] as const)('execute with SCTLR_EL1.WXN %j: EL1 %s, EL0 %s', (leaf, el1, el0) => {
    expect([executes(leaf, EL1, SCTLR_ON | WXN), executes(leaf, EL0T, SCTLR_ON | WXN)]).toEqual([el1, el0]);
  });

  test('MSR PAN and MSR UAO take effect for the next access', () => {
    const { vm, tables } = machine();
    tables.map(VA, DATA, { ap: 1 });
    const x = { 0: VA };
    expect(vm.execute([load(8, 1, 0), msrPan(1), load(8, 2, 0)], { x })).toMatchObject({
      done: false,
      iss: PERMISSION | 3,
    });
    expect(vm.execute([msrPan(1), msrPan(0), load(8, 2, 0)], { x }).done).toBe(true);
    tables.map(VA + 0x1000n, DATA);
    expect(vm.execute([msrUao(1), ldtr(1, 0), msrUao(0), ldtr(2, 0)], { x: { 0: VA + 0x1000n, 1: 0 } })).toMatchObject({
      done: false,
      iss: PERMISSION | 3,
    });
    expect(vm.cpu.getX(1)).toBe(VALUE);
  });
});

describe('maintenance by address', () => {
  const { vm, tables } = machine();
  tables.map(VA, DATA, { ap: 0 });
  tables.map(VA + 0x1000n, DATA, { ap: 2 });
  tables.map(VA + 0x2000n, DATA, { ap: 3 });
  const missing = VA + 0x8000n;
  test('DC and IC fault as writes, with CM', () => {
    for (const word of [dcCivac(0), dcCvac(0), icIvau(0), dcIvac(0)]) {
      expect(attempt(vm, word, VA)).toBe('ok');
      expect(attempt(vm, word, missing)).toBe(TRANSLATION | 3 | WNR | CM);
      expect(attempt(vm, word, VA, EL1 | PAN)).toBe('ok');
    }
    expect(attempt(vm, dcIvac(0), VA + 0x1000n)).toBe(PERMISSION | 3 | WNR | CM);
    expect(attempt(vm, dcCvac(0), VA + 0x1000n)).toBe('ok');
    expect(attempt(vm, dcCvac(0), VA, EL0T)).toBe(PERMISSION | 3 | WNR | CM);
    expect(attempt(vm, dcCvac(0), VA + 0x2000n, EL0T)).toBe('ok');
  });
  test('a page that may be maintained is known, but not as another EL, for another instruction, or another page', () => {
    tables.map(VA + 0x3000n, DATA);
    for (const offset of [0n, 0x40n, 0xfc0n]) expect(attempt(vm, dcCvac(0), VA + 0x3000n + offset)).toBe('ok');
    expect(attempt(vm, dcCvac(0), VA + 0x3000n, EL0T)).toBe(PERMISSION | 3 | WNR | CM);
    expect(attempt(vm, dcCvac(0), VA + 0x3000n + 2n ** 32n)).not.toBe('ok');
    expect(attempt(vm, dcCvac(0), VA + 0x4000n)).toBe(TRANSLATION | 3 | WNR | CM);
    expect(attempt(vm, dcCvac(0), VA + 0x1000n)).toBe('ok');
    expect(attempt(vm, dcIvac(0), VA + 0x1000n)).toBe(PERMISSION | 3 | WNR | CM);
  });
  test.each([
    ['TLBI of the address', tlbiVaale1is(0), tlbiOperand(VA + 0x5000n)],
    ['TLBI of the ASID', tlbiAside1(0), 0n],
    ['TLBI of everything', TLBI_VMALLE1IS, 0n],
  ])('%s: what was known of a page no longer holds', (_, word, x0) => {
    const at = tables.map(VA + 0x5000n, DATA);
    expect(attempt(vm, dcCvac(0), VA + 0x5000n)).toBe('ok');
    vm.write64(at, 0n);
    expect(attempt(vm, word, x0)).toBe('ok');
    expect(attempt(vm, dcCvac(0), VA + 0x5000n)).toBe(TRANSLATION | 3 | WNR | CM);
  });
  test('another ASID: what was known of a page no longer holds', () => {
    const other = machine();
    const at = other.tables.map(VA, DATA, { notGlobal: true });
    expect(attempt(other.vm, dcCvac(0), VA)).toBe('ok');
    other.vm.write64(at, 0n);
    const x = { 0: VA, 1: BigInt(other.tables.root) | (1n << 48n) };
    const { done, iss } = other.vm.execute([msr(REG.TTBR0_EL1, 1), dcCvac(0)], { pstate: EL1, x });
    expect([done, iss]).toEqual([false, TRANSLATION | 3 | WNR | CM]);
  });
  test('DC ZVA is a store', () => {
    vm.fill(DATA, 256, 0xff);
    expect(attempt(vm, dcZva(0), VA + 0x40n)).toBe('ok');
    expect([vm.read64(DATA + 0x38), vm.read64(DATA + 0x40), vm.read64(DATA + 0x78), vm.read64(DATA + 0x80)]).toEqual([
      2n ** 64n - 1n,
      0n,
      0n,
      2n ** 64n - 1n,
    ]);
    expect(attempt(vm, dcZva(0), VA + 0x1000n)).toBe(PERMISSION | 3 | WNR);
    expect(attempt(vm, dcZva(0), missing)).toBe(TRANSLATION | 3 | WNR);
    // FAR_EL1 is the address that the instruction was given.
    expect(attempt(vm, dcZva(0), missing + 0x47n)).toBe(TRANSLATION | 3 | WNR);
  });
});

describe('AT', () => {
  const { vm, tables } = machine();
  const S1E1R = sys(0, 7, 8, 0, 0);
  const S1E1W = sys(0, 7, 8, 1, 0);
  const S1E0R = sys(0, 7, 8, 2, 0);
  const S1E0W = sys(0, 7, 8, 3, 0);
  const S1E1RP = sys(0, 7, 9, 0, 0);
  const S1E1WP = sys(0, 7, 9, 1, 0);
  const RES1 = 1n << 11n;
  const at = (word: number, va: bigint, pstate = EL1): bigint => {
    expect(vm.execute([word], { pstate, x: { 0: va } }).done).toBe(true);
    return vm.sysreg(REG.PAR_EL1);
  };
  const failed = (status: number): bigint => 1n | (BigInt(status) << 1n) | RES1;
  const found = (pa: number, attr: bigint, sh: bigint): bigint => BigInt(pa) | (attr << 56n) | (sh << 7n) | RES1;

  test('gives address, attributes and shareability', () => {
    tables.map(VA, DATA, { ap: 0, attr: 0, shareability: 3 });
    tables.map(VA + 0x1000n, DATA + 0x1000, { attr: 1, shareability: 3 });
    tables.map(VA + 0x2000n, DATA, { attr: 2, shareability: 0 });
    expect(at(S1E1R, VA + 0x123n)).toBe(found(DATA, 0xffn, 3n));
    // Device and non-cacheable memory is outer shareable, whatever SH says.
    expect(at(S1E1W, VA + 0x1000n)).toBe(found(DATA + 0x1000, 0n, 2n));
    expect(at(S1E1R, VA + 0x2000n)).toBe(found(DATA, 0x44n, 2n));
  });
  test('fails as the access would', () => {
    tables.map(VA + 0x3000n, DATA, { ap: 2 });
    tables.map(VA + 0x4000n, DATA, { ap: 1 });
    expect(at(S1E0R, VA)).toBe(failed(PERMISSION | 3));
    expect(at(S1E1W, VA + 0x3000n)).toBe(failed(PERMISSION | 3));
    expect(at(S1E0R, VA + 0x4000n) & 1n).toBe(0n);
    expect(at(S1E0W, VA + 0x4000n) & 1n).toBe(0n);
    expect(at(S1E0W, VA + 0x3000n)).toBe(failed(PERMISSION | 3));
    expect(at(S1E1R, VA + 0x9000n)).toBe(failed(TRANSLATION | 3));
    expect(at(S1E1R, 1n << 50n)).toBe(failed(TRANSLATION));
  });
  test('S1E1RP and S1E1WP heed PAN, the others do not', () => {
    expect(at(S1E1R, VA + 0x4000n, EL1 | PAN) & 1n).toBe(0n);
    expect(at(S1E1RP, VA + 0x4000n, EL1 | PAN)).toBe(failed(PERMISSION | 3));
    expect(at(S1E1WP, VA + 0x4000n, EL1 | PAN)).toBe(failed(PERMISSION | 3));
    expect(at(S1E1RP, VA + 0x4000n, EL1) & 1n).toBe(0n);
  });
  test('an external abort on the walk is an exception', () => {
    const descriptor = tables.entry(VA, 2);
    const old = vm.read64(descriptor);
    vm.write64(descriptor, 0x1_0000_0003n);
    expect(vm.execute([S1E1R], { x: { 0: VA } })).toMatchObject({
      ec: DATA_SAME,
      iss: EXTERNAL_WALK | 3 | CM | WNR,
      far: VA,
    });
    vm.write64(descriptor, old);
  });
  test('is UNDEFINED at EL0, and where it is not allocated', () => {
    expect(vm.execute([S1E1R], { pstate: EL0T }).ec).toBe(0);
    for (const word of [sys(0, 7, 8, 4, 0), sys(0, 7, 9, 2, 0), sys(4, 7, 8, 0, 0), sys(0, 7, 10, 1, 0)]) {
      expect(vm.execute([word]).ec).toBe(0);
    }
  });
  test('with the MMU off: Device, outer shareable, and the address itself', () => {
    const off = new BareMetal();
    expect(off.execute([S1E1R], { x: { 0: 0x12_3456_7890n } }).done).toBe(true);
    expect(off.sysreg(REG.PAR_EL1)).toBe(0x12_3456_7000n | (2n << 7n) | RES1);
    off.execute([S1E1R], { x: { 0: 1n << 40n } });
    expect(off.sysreg(REG.PAR_EL1)).toBe(failed(ADDRESS_SIZE));
  });
});

test('the MAIR that the tests use', () => {
  expect(MAIR & 0xffn).toBe(0xffn);
});
