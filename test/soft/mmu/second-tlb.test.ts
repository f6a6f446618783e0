import { beforeEach, describe, expect, test } from '@jest/globals';
import { TLB_ENTRIES } from '#lib/soft/jit/lower.js';
import {
  br,
  hvc,
  load,
  store,
  svc,
  sys,
  TLBI_VMALLE1,
  TLBI_VMALLE1IS,
  tlbiAside1,
  tlbiOperand,
  tlbiVae1,
  tlbiVae1is,
} from '../a64.ts';
import { BareMetal, DATA, EL0T, EL1H, MASKED, PageTables, RAM, REG, withMmu } from '../bare-metal.ts';

/** What has fallen out of a first-level table and is still known: every way to forget a translation must reach it. */
const VA = 0x8080_0000_0000n;
/** Another page with the same entry in the first level. */
const RIVAL = VA + BigInt(TLB_ENTRIES) * 0x1000n;
const A = DATA;
const B = DATA + 0x10_0000;
const IN_A = 0xaaaan;
const IN_B = 0xbbbbn;
let vm: BareMetal;
let tables: PageTables;
beforeEach(() => {
  vm = new BareMetal();
  tables = withMmu(vm);
  vm.write64(A, IN_A);
  vm.write64(B, IN_B);
  tables.map(RIVAL, B + 0x1000);
});

const read = (va: bigint, words: number[] = [], x1 = 0n): bigint => {
  expect(vm.execute([...words, load(8, 2, 0)], { x: { 0: va, 1: x1 } }).done).toBe(true);
  return vm.cpu.getX(2);
};
const write = (va: bigint, value: bigint, words: number[] = [], x1 = 0n): void =>
  void expect(vm.execute([...words, store(8, 3, 0)], { x: { 0: va, 1: x1, 3: value } }).done).toBe(true);

describe('without an invalidation', () => {
  test('a load finds it, and loads of the other page go on', () => {
    tables.map(VA, A);
    expect([read(VA), read(RIVAL)]).toEqual([IN_A, 0n]);
    tables.map(VA, B);
    for (let n = 0; n < 3; n++) expect([read(VA), read(RIVAL)]).toEqual([IN_A, 0n]);
  });
  test('a store finds it, and stores of the other page go on', () => {
    tables.map(VA, A);
    write(VA, 1n);
    write(RIVAL, 2n);
    tables.map(VA, B);
    write(VA, 3n);
    write(RIVAL, 4n);
    expect([vm.read64(A), vm.read64(B), vm.read64(B + 0x1000)]).toEqual([3n, IN_B, 4n]);
  });
  test('an access that crosses into the next page is put together', () => {
    tables.map(VA, A);
    tables.map(VA + 0x1000n, B);
    vm.write64(A + 0xff8, 0x1122_3344_5566_7788n);
    for (const va of [VA, VA + 0x1000n]) read(va);
    for (const va of [RIVAL, RIVAL + 0x1000n]) {
      tables.map(va, A);
      read(va);
    }
    expect(read(VA + 0xffcn)).toBe(0xbbbb_1122_3344n);
  });
  test('what EL1 knows EL0 does not, and PSTATE.PAN hides', () => {
    tables.map(VA, A);
    tables.map(RIVAL, B, { ap: 1 });
    expect([read(VA), read(RIVAL), read(VA)]).toEqual([IN_A, IN_B, IN_A]);
    expect(vm.execute([load(8, 2, 0)], { x: { 0: VA }, pstate: EL0T }).done).toBe(false);
    expect(vm.execute([load(8, 2, 0)], { x: { 0: RIVAL }, pstate: EL1H | MASKED | (1n << 22n) }).done).toBe(false);
  });
  test('a page that may be read is not stored to', () => {
    tables.map(VA, A, { ap: 2 });
    expect([read(VA), read(RIVAL)]).toEqual([IN_A, 0n]);
    expect(vm.execute([store(8, 3, 0)], { x: { 0: VA, 3: 9 } }).done).toBe(false);
    expect(vm.read64(A)).toBe(IN_A);
  });
});

test.each([
  ['VMALLE1', TLBI_VMALLE1],
  ['VMALLE1IS', TLBI_VMALLE1IS],
  ['VAE1', tlbiVae1(1)],
  ['VAE1IS', tlbiVae1is(1)],
  ['VAAE1', sys(0, 8, 7, 3, 1)],
  ['VALE1', sys(0, 8, 7, 5, 1)],
  ['ASIDE1', tlbiAside1(1)],
  ['RVAE1', sys(0, 8, 6, 1, 1), 1n << 46n],
])('TLBI %s forgets it', (_name, word, bits = 0n) => {
  tables.map(VA, A);
  expect([read(VA), read(RIVAL)]).toEqual([IN_A, 0n]);
  write(VA, 5n);
  write(RIVAL, 6n);
  tables.map(VA, B);
  expect(read(VA, [word], tlbiOperand(VA) | bits)).toBe(IN_B);
  write(VA, 7n);
  expect([vm.read64(A), vm.read64(B)]).toEqual([5n, 7n]);
});

test('TLBI of a block forgets all of its pages', () => {
  const span = 0x20_0000n;
  const block = VA + span * 16n;
  const va = block + 0x3000n;
  tables.map(block, A, { level: 2 });
  tables.map(va + BigInt(TLB_ENTRIES) * 0x1000n, B);
  expect([read(va), read(va + BigInt(TLB_ENTRIES) * 0x1000n)]).toEqual([0n, IN_B]);
  tables.map(block, A, { level: 2, accessFlag: false });
  const o = vm.execute([tlbiVae1(1), load(8, 2, 0)], { x: { 0: va, 1: tlbiOperand(block) } });
  expect(o.done).toBe(false);
});

test('a change of the regime forgets it', () => {
  tables.map(VA, A);
  expect([read(VA), read(RIVAL)]).toEqual([IN_A, 0n]);
  tables.map(VA, B);
  vm.cpu.setSysreg(REG.MAIR_EL1, vm.sysreg(REG.MAIR_EL1) ^ (0xffn << 56n));
  expect(read(VA)).toBe(IN_B);
});

test('address spaces do not find each other’s, nor those of who had their tables before', () => {
  const second = new PageTables(vm, RAM + 0x70_0000);
  second.mapRange(RAM, RAM, DATA - RAM);
  second.map(VA, B, { notGlobal: true });
  tables.map(VA, A, { notGlobal: true });
  second.map(RIVAL, B + 0x1000, { notGlobal: true });
  const use = (asid: bigint, va: bigint): bigint => {
    const ttbr = (asid << 48n) | BigInt(asid % 2n === 1n ? tables.root : second.root);
    vm.cpu.setSysreg(REG.TTBR0_EL1, ttbr);
    return read(va);
  };
  // More of them than have tables, so that each is forgotten and comes back.
  for (let asid = 1n; asid <= 20n; asid++)
    expect([use(asid, VA), use(asid, RIVAL), use(asid, VA)]).toEqual(
      asid % 2n === 1n ? [IN_A, 0n, IN_A] : [IN_B, 0n, IN_B],
    );
  tables.map(VA, B, { notGlobal: true });
  expect(use(1n, VA)).toBe(IN_B);
});

test('no generation comes back with what an earlier one had', () => {
  // There are 1,023 of them; what 64 in a row know is looked for when they have all been used again.
  const pages = 64;
  const at = (n: number): bigint => VA + BigInt(n) * 0x1000n;
  for (let n = 0; n < pages; n++) tables.map(at(n), A);
  for (let n = 0; n < pages; n++) expect(read(at(n))).toBe(IN_A);
  for (let n = 0; n < pages; n++) tables.map(at(n), B);
  const forget = vm.place([TLBI_VMALLE1, load(8, 2, 0), hvc(0)]);
  for (let n = 0; n < 1023 - pages / 2; n++) vm.start(forget, { x: { 0: RIVAL } });
  for (let n = 0; n < pages; n++) {
    expect(vm.start(forget, { x: { 0: at(n) } }).done).toBe(true);
    expect(vm.cpu.getX(2)).toBe(IN_B);
  }
});

describe('stores to what must be noticed', () => {
  const OTHER = VA + 0x8000n;
  const CODE = A + 0x2000;
  const code = (n: number): bigint => BigInt(svc(n));
  const run = (): number => vm.execute([br(0)], { x: { 0: VA + 0x10_0000n } }).iss;

  test.each([
    ['one address', [VA]],
    ['two addresses', [VA, OTHER]],
    ['two addresses, the last of which is used again', [VA, OTHER, OTHER]],
    ['two addresses in turn', [OTHER, OTHER + 0x1000n, OTHER, OTHER + 0x1000n]],
    ['three addresses', [VA, OTHER, OTHER + 0x1000n]],
    ['three addresses, the first of which is used again', [VA, OTHER, OTHER + 0x1000n, VA]],
    ['addresses 4 GiB apart', [VA, VA + 0x1_0000_0000n]],
  ])('code, by %s', (_name, addresses) => {
    tables.map(VA + 0x10_0000n, CODE);
    for (const va of addresses) tables.map(va, CODE);
    for (let round = 0; round < 3; round++) {
      for (const [n, va] of addresses.entries()) {
        // Known to store to the page, but fallen out of the first level.
        for (const known of addresses) write(known, code(0x40));
        for (const rival of addresses) {
          const page = rival + BigInt(TLB_ENTRIES) * 0x1000n;
          tables.map(page, B + 0x1000);
          write(page, 0n);
        }
        expect(run()).toBe(0x40);
        write(va, code(n + round));
        expect(run()).toBe(n + round);
      }
    }
  });

  test('a dirty log that was read', () => {
    const dirty: number[] = [];
    const LOGGED = 0x1000_0000;
    const memory = vm.machine.allocate(0x1_0000)!;
    vm.machine.map(LOGGED, 0x1_0000, memory, 0, false, (gfn) => dirty.push(gfn));
    tables.map(VA, LOGGED);
    write(VA, 1n);
    write(RIVAL, 2n);
    vm.machine.rearm(LOGGED, 0x1_0000);
    write(VA, 3n);
    expect(dirty).toEqual([LOGGED / 0x1000, LOGGED / 0x1000]);
  });

  test('memory that was taken away', () => {
    const EXTRA = 0x1000_0000;
    const memory = vm.machine.allocate(0x1_0000)!;
    vm.machine.map(EXTRA, 0x1_0000, memory, 0, false);
    tables.map(VA, EXTRA);
    write(VA, 1n);
    write(RIVAL, 2n);
    vm.machine.unmap(EXTRA, 0x1_0000);
    expect(vm.execute([store(8, 3, 0)], { x: { 0: VA, 3: 3 } }).done).toBe(false);
    expect(memory.bytes[0]).toBe(1);
  });
});
