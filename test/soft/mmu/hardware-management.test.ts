import { beforeEach, describe, expect, test } from '@jest/globals';
import { dcCivac, ERET, hvc, ldtr, load, msr, msrPan, NOP, store, sys } from '../a64.ts';
import {
  BareMetal,
  DATA,
  EL0T,
  EL1H,
  MASKED,
  type PageTables,
  RAM,
  REG,
  SCTLR_ON,
  TABLES,
  tcr,
  withMmu,
} from '../bare-metal.ts';

/** The access flag and dirty state in the hands of the hardware (FEAT_HAFDBS), and PAN of what EL0 may execute (FEAT_PAN3). */

const VA = 0x8080_0000_0000n;
const HA = 1n << 39n;
const HD = 1n << 40n;
const AF = 1n << 10n;
const READ_ONLY = 1n << 7n;
const DBM = 1n << 51n;
const WNR = 1 << 6;
const ACCESS_FLAG_3 = 0b001011;
const PERMISSION_3 = 0b001111;
const EPAN = 1n << 57n;
const WXN = 1n << 19n;

let vm: BareMetal;
let tables: PageTables;
const start = (control: bigint): void => {
  vm = new BareMetal();
  tables = withMmu(vm, { tcr: tcr() | control });
};

/** What is done at VA: 'ok' or the ISS; and the descriptor's AF and AP[2] afterwards. */
const attempt = (word: number, at: number, pstate?: bigint): readonly [number | 'ok', string] => {
  const o = vm.execute([word, NOP], { x: { 0: VA, 1: 1 }, ...(pstate === undefined ? {} : { pstate }) });
  const d = vm.read64(at);
  return [o.done ? 'ok' : o.iss, `${(d & AF) !== 0n ? 'A' : '-'}${(d & READ_ONLY) !== 0n ? 'r' : 'w'}`];
};
/** A page without the access flag. */
const map = (extra = 0n, ap: 0 | 1 | 2 | 3 = 1): number => {
  const at = tables.map(VA, DATA, { accessFlag: false, ap });
  vm.write64(at, vm.read64(at) | extra);
  // What was translated before is forgotten.
  vm.cpu.setSysreg(REG.TTBR0_EL1, BigInt(tables.root));
  return at;
};
const LOAD = load(8, 1, 0);
const STORE = store(8, 1, 0);

describe('TCR_EL1.HA', () => {
  test('clear: an access flag fault, whatever HD and DBM say', () => {
    start(HD);
    const at = map(DBM, 3);
    expect(attempt(LOAD, at)).toEqual([ACCESS_FLAG_3, '-r']);
    expect(attempt(STORE, at)).toEqual([ACCESS_FLAG_3 | WNR, '-r']);
  });
  test.each([
    ['a load', LOAD, EL1H | MASKED],
    ['a store', STORE, EL1H | MASKED],
    ['a load of EL0', LOAD, EL0T],
    ['an unprivileged load', ldtr(1, 0), EL1H | MASKED],
  ])('set: %s sets the flag', (_name, word, pstate) => {
    start(HA);
    const at = map();
    // EL0 must be able to fetch.
    tables.mapRange(RAM, RAM, DATA - RAM, { ap: 3 });
    expect(attempt(word, at, pstate)).toEqual(['ok', 'Aw']);
  });
  test('a fetch sets it', () => {
    start(HA);
    const at = map(0n, 0);
    const code = vm.place([0xd4024681]); // svc #0x1234
    vm.write64(at, (vm.read64(at) & ~0xffff_f000n) | BigInt(code));
    expect(vm.start(VA).iss).toBe(0x1234);
    expect(vm.read64(at) & AF).toBe(AF);
  });
  test('a block has its flag too', () => {
    start(HA);
    const block = VA + (1n << 30n);
    const at = tables.map(block, DATA, { level: 2, accessFlag: false });
    expect(vm.execute([LOAD], { x: { 0: block + 0x8n } }).done).toBe(true);
    expect(vm.read64(at) & AF).toBe(AF);
  });
  test('an access that faults leaves it, and so do AT and cache maintenance', () => {
    start(HA);
    const at = map(0n, 2);
    expect(attempt(STORE, at)).toEqual([PERMISSION_3 | WNR, '-r']);
    expect(attempt(sys(0, 7, 8, 0, 0), at)).toEqual(['ok', '-r']); // at s1e1r, x0
    expect(vm.sysreg(REG.PAR_EL1) & 1n).toBe(0n);
    expect(attempt(dcCivac(0), at)).toEqual(['ok', '-r']);
    expect(attempt(LOAD, at)).toEqual(['ok', 'Ar']);
  });
  test('tables that were decoded as code, or are watched, are written to as by a store', () => {
    const dirty: number[] = [];
    start(HA);
    const at = map();
    const page = at - (at % 4096);
    vm.machine.unmap(RAM, vm.memory.size);
    vm.machine.map(RAM, vm.memory.size, vm.memory, 0, false, (gfn) => void dirty.push(gfn));
    expect(attempt(LOAD, at)).toEqual(['ok', 'Aw']);
    expect(dirty).toContain(page / 4096);
    dirty.length = 0;
    vm.cpu.setSysreg(REG.TTBR0_EL1, BigInt(tables.root));
    expect(attempt(LOAD, at)).toEqual(['ok', 'Aw']);
    expect(dirty).not.toContain(page / 4096);
  });
  test('tables in memory that can not be written: an external abort on the walk', () => {
    start(HA);
    const at = map();
    vm.machine.unmap(RAM, vm.memory.size);
    vm.machine.map(RAM, TABLES - RAM, vm.memory, 0, false);
    vm.machine.map(TABLES, RAM + vm.memory.size - TABLES, vm.memory, TABLES - RAM, true);
    // The code's own pages have the flag.
    expect(attempt(LOAD, at)).toEqual([0b010111, '-w']);
  });
});

describe('TCR_EL1.HD', () => {
  beforeEach(() => start(HA | HD));
  test('a read-only page with DBM is clean: a store makes it writable, a load does not', () => {
    const at = map(DBM, 3);
    expect(attempt(LOAD, at)).toEqual(['ok', 'Ar']);
    expect(attempt(STORE, at)).toEqual(['ok', 'Aw']);
    expect(vm.read64(DATA)).toBe(vm.cpu.getX(1));
    // With the access flag set by software.
    const again = tables.map(VA, DATA, { ap: 2 });
    vm.write64(again, vm.read64(again) | DBM);
    vm.cpu.setSysreg(REG.TTBR0_EL1, BigInt(tables.root));
    expect(attempt(STORE, again)).toEqual(['ok', 'Aw']);
  });
  test('without DBM, without HD, and under a read-only table it stays read-only', () => {
    const at = map(0n, 3);
    expect(attempt(STORE, at)).toEqual([PERMISSION_3 | WNR, '-r']);
    start(HA);
    expect(attempt(STORE, map(DBM, 3))).toEqual([PERMISSION_3 | WNR, '-r']);
    start(HA | HD);
    const other = VA + (1n << 40n);
    const leaf = tables.map(other, DATA, { ap: 3, table: 1n << 62n });
    vm.write64(leaf, vm.read64(leaf) | DBM);
    expect(vm.execute([STORE], { x: { 0: other } })).toMatchObject({ iss: PERMISSION_3 | WNR });
    expect(vm.read64(leaf) & READ_ONLY).toBe(READ_ONLY);
  });
  test('what EL0 could make dirty is writable to it, and so EL1 does not execute it', () => {
    for (const [ap, iss] of [
      [3, PERMISSION_3],
      [2, 0x1234],
    ] as const) {
      const at = map(DBM, ap);
      const code = vm.place([0xd4024681]); // svc #0x1234
      vm.write64(at, (vm.read64(at) & ~0xffff_f000n) | BigInt(code));
      expect(vm.start(VA).iss).toBe(iss);
    }
  });
  test('an atomic that reads first makes it dirty too', () => {
    const at = map(DBM, 3);
    expect(attempt(0xf8200001, at)).toEqual(['ok', 'Aw']); // ldadd x0, x1, [x0]
  });
  test('a store to a second page that faults leaves the first as it was written: clean or not, but not the data', () => {
    const at = map(DBM, 3);
    vm.write64(DATA + 0xff8, 0n);
    const o = vm.execute([STORE], { x: { 0: VA + 0xffcn, 1: -1n } });
    expect(o.iss & 0b111100).toBe(0b000100);
    expect(vm.read64(DATA + 0xff8)).toBe(0n);
    expect(vm.read64(at) & AF).toBe(AF);
  });
});

describe('PSTATE.PAN', () => {
  const executeOnly = { ap: 0, pxn: true } as const;
  test.each([
    ['EL0 may read', { ap: 1 }, 0n, false],
    ['EL0 may execute only', executeOnly, 0n, true],
    ['EL0 may execute only, with EPAN', executeOnly, EPAN, false],
    ['EL0 may do nothing, with EPAN', { ap: 0, uxn: true }, EPAN, true],
    ['EL0 could execute but for WXN, with EPAN', { ap: 1 }, EPAN | WXN, false],
  ] as const)('%s', (_name, leaf, sctlr, allowed) => {
    vm = new BareMetal();
    tables = withMmu(vm, { sctlr: SCTLR_ON | sctlr });
    if ((sctlr & WXN) !== 0n) tables.mapRange(RAM, RAM, DATA - RAM, { ap: 2 });
    tables.map(VA, DATA, leaf);
    const x = { 0: VA };
    expect(vm.execute([LOAD], { x }).done).toBe(true);
    expect(vm.execute([msrPan(1), LOAD], { x }).done).toBe(allowed);
    expect(vm.execute([msrPan(1), STORE], { x }).done).toBe(allowed);
    // AT S1E1RP and S1E1WP say the same.
    for (const op2 of [0, 1]) {
      vm.execute([msrPan(1), sys(0, 7, 9, op2, 0)], { x });
      expect(vm.sysreg(REG.PAR_EL1) & 1n).toBe(allowed ? 0n : 1n);
    }
  });
  test('is another behind an exception return within EL1', () => {
    vm = new BareMetal();
    tables = withMmu(vm);
    tables.map(VA, DATA, { ap: 1 });
    const returned = vm.place([LOAD, hvc(0)]);
    const at = vm.place([LOAD, msr(REG.SPSR_EL1, 3), msr(REG.ELR_EL1, 4), ERET]);
    for (const pan of [0n, 1n, 0n]) {
      const o = vm.start(at, { x: { 0: VA, 3: EL1H | MASKED | (pan << 22n), 4: returned } });
      expect(o.done).toBe(pan === 0n);
      if (!o.done) expect([o.elr, o.iss]).toEqual([BigInt(returned), PERMISSION_3]);
    }
  });
  test('means nothing with the MMU off', () => {
    vm = new BareMetal();
    expect(vm.execute([msrPan(1), LOAD], { x: { 0: DATA } }).done).toBe(true);
  });
});
