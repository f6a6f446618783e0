import { beforeEach, describe, expect, test } from '@jest/globals';
import { CpuStop } from '#lib/soft/cpu/cpu.js';
import {
  br,
  DSB,
  ISB,
  load,
  mov,
  msr,
  msrPan,
  NOP,
  store,
  svc,
  sys,
  TLBI_VMALLE1,
  TLBI_VMALLE1IS,
  tlbiAside1,
  tlbiOperand,
  tlbiVaale1is,
  tlbiVae1,
  tlbiVae1is,
} from '../a64.ts';
import { BareMetal, DATA, EL0T, EL1H, type Granule, MASKED, PageTables, RAM, REG, withMmu } from '../bare-metal.ts';

const VA = 0x8080_0000_0000n;
const A = DATA;
const B = DATA + 0x10_0000;
const IN_A = 0xaaaan;
const IN_B = 0xbbbbn;

let vm: BareMetal;
let tables: PageTables;
const start = (granule: Granule = 12): void => {
  vm = new BareMetal();
  tables = withMmu(vm, { granule });
  vm.write64(A, IN_A);
  vm.write64(B, IN_B);
};
beforeEach(() => start());

const read = (va: bigint, words: number[] = [], x1 = 0n, cpu = vm.cpu): bigint => {
  const o = vm.execute([...words, load(8, 2, 0)], { x: { 0: va, 1: x1 }, cpu });
  expect(o.done).toBe(true);
  return cpu.getX(2);
};

describe.each([
  ['VMALLE1', TLBI_VMALLE1],
  ['VMALLE1IS', TLBI_VMALLE1IS],
  ['VAE1', tlbiVae1(1)],
  ['VAE1IS', tlbiVae1is(1)],
  ['VAALE1IS', tlbiVaale1is(1)],
  ['VALE1', sys(0, 8, 7, 5, 1)],
  ['VAAE1', sys(0, 8, 7, 3, 1)],
  ['ASIDE1', tlbiAside1(1)],
  ['VMALLE1OS', sys(0, 8, 1, 0)],
  ['VAE1OS', sys(0, 8, 1, 1, 1)],
  ['VAALE1OS', sys(0, 8, 1, 7, 1)],
])('TLBI %s', (name, word) => {
  test.each([12, 14, 16] as const)('forgets a page of granule 2^%d: loads, stores and fetches', (granule) => {
    start(granule);
    const map = (pa: number, ap: 0 | 2 = 0): void => void tables.map(VA, pa, { ap });
    map(A);
    // Not the first of the 4 KiB pages that the granule holds.
    const va = VA + BigInt((1 << granule) - 0x1000);
    const shift = (1 << granule) - 0x1000;
    vm.write64(A + shift, IN_A);
    vm.write64(B + shift, IN_B);
    expect(read(va)).toBe(IN_A);
    expect(vm.execute([store(8, 3, 0)], { x: { 0: va + 8n, 3: 1 } }).done).toBe(true);
    map(B, 2);
    expect(read(va, [word], tlbiOperand(VA))).toBe(IN_B);
    expect(vm.execute([store(8, 3, 0)], { x: { 0: va + 8n, 3: 2 } }).done).toBe(false);
    expect([vm.read64(A + shift + 8), vm.read64(B + shift + 8)]).toEqual([1n, 0n]);
    // Code in the same page.
    map(A);
    vm.place([svc(1)], A + shift + 0x100);
    vm.place([svc(2)], B + shift + 0x100);
    vm.execute([word], { x: { 1: tlbiOperand(VA) } });
    const target = { 0: va + 0x100n, 1: tlbiOperand(VA) };
    expect(vm.execute([br(0)], { x: target }).iss).toBe(1);
    map(B);
    expect(vm.execute([word, DSB, ISB, br(0)], { x: target }).iss).toBe(2);
  });

  test.each([1, 2] as const)('forgets all of a block at level %d, by any address in it', (level) => {
    const span = 2n ** BigInt(tables.shift(level));
    const base = BigInt(A) & ~(span - 1n);
    const block = VA + span * 4n;
    const va = block + (BigInt(A) - base);
    tables.map(block, base, { level });
    expect(read(va)).toBe(IN_A);
    tables.map(block, base, { level, accessFlag: false });
    const other = block + span - 0x1000n;
    expect(vm.execute([word, load(8, 2, 0)], { x: { 0: va, 1: tlbiOperand(other) } })).toMatchObject({
      done: false,
      iss: 0b001000 | level,
    });
    expect(name).not.toBe('');
  });

  test('is UNDEFINED at EL0', () => {
    expect(vm.execute([word], { pstate: EL0T })).toMatchObject({ vector: 0x400, ec: 0 });
  });
});

test('TLBI by VA leaves other pages alone, and takes those of every top byte', () => {
  vm.cpu.setSysreg(REG.TCR_EL1, vm.sysreg(REG.TCR_EL1) | (1n << 37n));
  tables.map(VA, A);
  const tagged = VA | (0x55n << 56n);
  expect(read(tagged)).toBe(IN_A);
  tables.map(VA, B);
  expect(read(tagged, [tlbiVae1(1)], tlbiOperand(VA))).toBe(IN_B);
});

describe.each([
  ['RVAE1', sys(0, 8, 6, 1, 1)],
  ['RVAALE1', sys(0, 8, 6, 7, 1)],
  ['RVAE1IS', sys(0, 8, 2, 1, 1)],
  ['RVALE1OS', sys(0, 8, 5, 5, 1)],
])('TLBI %s', (_name, word) => {
  /** From a page on, (num + 1) << (5 * scale + 1) granules. */
  const range = (va: bigint, granule: Granule, scale: bigint, num: bigint): bigint =>
    ((va >> BigInt(granule)) & 0x1f_ffff_ffffn) | (num << 39n) | (scale << 44n) | (BigInt(granule / 2 - 5) << 46n);

  test.each([
    [12, 0n, 0n, 2n],
    [12, 0n, 3n, 8n],
    [12, 1n, 1n, 128n],
    [14, 0n, 0n, 2n],
    [16, 0n, 0n, 2n],
  ] as const)('granule 2^%d, SCALE %d, NUM %d: %d granules', (granule, scale, num, count) => {
    start(granule);
    const size = 1n << BigInt(granule);
    const first = VA + size * 256n;
    for (const va of [first, first + size * (count - 1n)]) {
      tables.map(va, A);
      expect(read(va)).toBe(IN_A);
      tables.map(va, B);
      expect(read(va, [word], range(first, granule, scale, num))).toBe(IN_B);
    }
    // A range of the upper half.
    const upper = BigInt.asUintN(64, -size * 64n);
    tables.map(BigInt.asUintN(48, upper), A);
    expect(read(upper)).toBe(IN_A);
    tables.map(BigInt.asUintN(48, upper), B);
    expect(read(upper, [word], range(upper, granule, scale, num))).toBe(IN_B);
  });

  test('the code after it may have moved', () => {
    vm.place([word, svc(1)], A);
    vm.place([word, svc(2)], B);
    tables.map(VA, A);
    expect(vm.execute([br(0)], { x: { 0: VA + 4n } }).iss).toBe(1);
    tables.map(VA, B);
    expect(vm.execute([br(0)], { x: { 0: VA, 1: range(VA, 12, 0n, 0n) } }).iss).toBe(2);
  });

  test('a granule that is none asks for nothing; EL0 may not ask', () => {
    expect(vm.execute([word], { x: { 1: 0 } }).done).toBe(true);
    expect(vm.execute([word], { pstate: EL0T })).toMatchObject({ vector: 0x400, ec: 0 });
  });
});

test('unallocated TLBIs are UNDEFINED: no EL2, no stage 2, no FEAT_XS', () => {
  for (const word of [
    sys(0, 8, 1, 4),
    sys(0, 8, 2, 0),
    sys(0, 8, 2, 2, 1),
    sys(0, 8, 6, 4, 1),
    sys(4, 8, 2, 1, 1),
    sys(0, 9, 1, 0),
    sys(0, 8, 7, 4),
    sys(0, 8, 3, 6),
    sys(4, 8, 7, 0),
    sys(6, 8, 7, 0),
    sys(0, 9, 7, 0),
  ]) {
    expect(vm.execute([word]).ec).toBe(0);
  }
});

test('an Inner Shareable TLBI reaches the other vCPUs; a local one need not', () => {
  const other = vm.createCpu();
  for (const index of [REG.MAIR_EL1, REG.TCR_EL1, REG.TTBR0_EL1, REG.TTBR1_EL1, REG.SCTLR_EL1])
    other.setSysreg(index, vm.sysreg(index));
  tables.map(VA, A);
  expect([read(VA), read(VA, [], 0n, other)]).toEqual([IN_A, IN_A]);
  tables.map(VA, B);
  vm.execute([tlbiVae1is(1)], { x: { 1: tlbiOperand(VA) } });
  expect([read(VA), read(VA, [], 0n, other)]).toEqual([IN_B, IN_B]);
  tables.map(VA, A);
  vm.execute([TLBI_VMALLE1IS]);
  expect([read(VA), read(VA, [], 0n, other)]).toEqual([IN_A, IN_A]);
});

describe('a change of the regime takes effect at once', () => {
  test('TTBR0_EL1, TTBR1_EL1 and ASIDs', () => {
    const second = new PageTables(vm, RAM + 0x70_0000);
    second.mapRange(RAM, RAM, DATA - RAM);
    tables.map(VA, A, { notGlobal: true });
    second.map(VA, B, { notGlobal: true });
    const asid = (n: bigint, root: number): bigint => (n << 48n) | BigInt(root);
    expect(read(VA)).toBe(IN_A);
    expect(read(VA, [msr(REG.TTBR0_EL1, 1), ISB], asid(2n, second.root))).toBe(IN_B);
    // CnP is no part of the address.
    expect(read(VA, [msr(REG.TTBR0_EL1, 1), ISB], asid(1n, tables.root) | 1n)).toBe(IN_A);
    const upper = VA | (0xffffn << 48n);
    expect(read(upper)).toBe(IN_A);
    // The ASID is TTBR0's: what TTBR1 maps keeps it, and must be invalidated.
    expect(read(upper, [msr(REG.TTBR1_EL1, 1), TLBI_VMALLE1, ISB], asid(0n, second.root))).toBe(IN_B);
  });
  test('each ASID keeps its translations until they are invalidated', () => {
    const second = new PageTables(vm, RAM + 0x70_0000);
    second.mapRange(RAM, RAM, DATA - RAM);
    tables.map(VA, A, { notGlobal: true });
    second.map(VA, B, { notGlobal: true });
    const use = (n: bigint): [number[], bigint] => [
      [msr(REG.TTBR0_EL1, 1), ISB],
      (n << 48n) | BigInt(n % 2n === 1n ? tables.root : second.root),
    ];
    // More address spaces than there are tables for, in turn and back.
    for (let round = 0; round < 3; round++)
      for (let n = 1n; n <= 20n; n++) expect(read(VA, ...use(n))).toBe(n % 2n === 1n ? IN_A : IN_B);
    tables.map(VA, B, { notGlobal: true });
    // By address alone: TLBI VAAE1.
    expect(read(VA, [sys(0, 8, 7, 3, 1)], tlbiOperand(VA))).toBe(IN_B);
    for (let n = 1n; n <= 20n; n++) expect(read(VA, ...use(n))).toBe(IN_B);
  });
  test('SCTLR_EL1.M off and on', () => {
    tables.map(BigInt(A), B);
    expect(read(BigInt(A))).toBe(IN_B);
    const sctlr = vm.sysreg(REG.SCTLR_EL1);
    expect(read(BigInt(A), [msr(REG.SCTLR_EL1, 1), ISB], sctlr & ~1n)).toBe(IN_A);
    expect(read(BigInt(A), [msr(REG.SCTLR_EL1, 1), ISB], sctlr)).toBe(IN_B);
  });
  test('a new table entry where there was none needs no TLBI', () => {
    expect(vm.execute([load(8, 2, 0)], { x: { 0: VA } }).done).toBe(false);
    tables.map(VA, A);
    expect(read(VA)).toBe(IN_A);
  });
  test('the EL and PAN choose what was translated for them', () => {
    tables.map(VA, A, { ap: 1 });
    for (let n = 0; n < 3; n++) {
      expect(read(VA)).toBe(IN_A);
      expect(vm.execute([load(8, 2, 0)], { x: { 0: VA }, pstate: EL0T }).done).toBe(true);
      expect(vm.execute([msrPan(1), load(8, 2, 0)], { x: { 0: VA } }).done).toBe(false);
      expect(vm.execute([load(8, 2, 0), msrPan(0)], { x: { 0: VA }, pstate: EL1H | MASKED | (1n << 22n) }).done).toBe(
        false,
      );
      tables.map(VA + 0x1000n, B);
      expect(read(VA + 0x1000n)).toBe(IN_B);
      expect(vm.execute([load(8, 2, 0)], { x: { 0: VA + 0x1000n }, pstate: EL0T }).done).toBe(false);
    }
  });
});

test('the page of the TLBI itself can be remapped: what comes after ISB is the new code', () => {
  // The same program in two pages, but for the end of it.
  const place = (pa: number, n: number): void =>
    void vm.place([store(8, 3, 2), tlbiVae1(1), DSB, ISB, ...mov(5, n), svc(n), NOP], pa);
  place(A, 0x111);
  place(B, 0x222);
  const at = tables.map(VA, A);
  tables.mapRange(BigInt(at & ~0xfff), at & ~0xfff, 0x1000);
  const o = vm.start(VA, { x: { 1: tlbiOperand(VA), 2: at, 3: tables.descriptor(B) } });
  expect(o.iss).toBe(0x222);
  expect(vm.cpu.getX(5)).toBe(0x222n);
});

test('more pages than the tables have entries', () => {
  const pages = 3000;
  // Every page of VA maps one of eight pages of RAM.
  for (let n = 0; n < pages; n++) tables.map(VA + BigInt(n) * 0x1000n, A + (n % 8) * 0x1000);
  for (let n = 0; n < 8; n++) vm.write64(A + n * 0x1000 + 0x10, BigInt(n));
  for (let round = 0; round < 2; round++) {
    for (let n = 0; n < pages; n += 97) expect(read(VA + BigInt(n) * 0x1000n + 0x10n)).toBe(BigInt(n % 8));
  }
});

describe('address spaces by ASID', () => {
  const A1 = 1n << 22n;
  const AS = 1n << 36n;
  const SPACES = 11;
  let spaces: PageTables[];
  beforeEach(() => {
    // Small tables: each maps the code, and VA to a page of its own.
    vm = new BareMetal({ ram: 0x400_0000 });
    tables = withMmu(vm);
    vm.cpu.setSysreg(REG.TCR_EL1, vm.sysreg(REG.TCR_EL1) | AS);
    spaces = Array.from({ length: SPACES }, (_, n) => {
      const space = new PageTables(vm, RAM + 0x100_0000 + n * 0x10_0000);
      space.mapRange(RAM, RAM, DATA - RAM);
      space.map(VA, A + n * 0x1000, { notGlobal: true });
      vm.write64(A + n * 0x1000, BigInt(0x100 + n));
      return space;
    });
  });
  const ttbr = (n: number, asid = n): bigint => (BigInt(asid) << 48n) | BigInt(spaces[n]!.root);
  const inSpace = (n: number, words: number[] = [], x3 = 0n): bigint => {
    const o = vm.execute([msr(REG.TTBR0_EL1, 1), ISB, ...words, load(8, 2, 0)], { x: { 0: VA, 1: ttbr(n), 3: x3 } });
    expect(o.done).toBe(true);
    return vm.cpu.getX(2);
  };
  const own = (n: number): bigint => BigInt(0x100 + n);
  /** Gives a space another page. */
  const remap = (n: number, to: number): void => void spaces[n]!.map(VA, A + to * 0x1000, { notGlobal: true });
  const asidOperand = (asid: number, va = 0n): bigint => (BigInt(asid) << 48n) | tlbiOperand(va);

  test('each has its own translations, with more of them than are kept', () => {
    for (const n of [0, 1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0, 10, 5, 1]) expect([n, inSpace(n)]).toEqual([n, own(n)]);
  });

  test.each([
    ['ASIDE1', tlbiAside1(3), asidOperand(2)],
    ['ASIDE1IS', sys(0, 8, 3, 2, 3), asidOperand(2)],
    ['VAE1', tlbiVae1(3), asidOperand(2, VA)],
    ['VAAE1', sys(0, 8, 7, 3, 3), asidOperand(0, VA)],
    ['VMALLE1', TLBI_VMALLE1, 0n],
  ])('TLBI %s reaches one that is not in use', (_name, word, value) => {
    expect([inSpace(2), inSpace(1)]).toEqual([own(2), own(1)]);
    remap(2, 7);
    expect(inSpace(1, [word], value)).toBe(own(1));
    expect(inSpace(2)).toBe(own(7));
  });

  test('and so does a change of TCR_EL1, SCTLR_EL1 or MAIR_EL1', () => {
    for (const [index, bit] of [
      [REG.TCR_EL1, 1n << 37n],
      [REG.SCTLR_EL1, 1n << 19n],
      [REG.MAIR_EL1, 0xffn << 56n],
    ] as const) {
      remap(2, 2);
      vm.execute([TLBI_VMALLE1]);
      expect([inSpace(2), inSpace(1)]).toEqual([own(2), own(1)]);
      remap(2, 7);
      // WXN would take the code away: the pages of these tests are writable.
      if (index === REG.SCTLR_EL1) {
        vm.cpu.setSysreg(index, vm.sysreg(index) ^ bit);
        vm.cpu.setSysreg(index, vm.sysreg(index) ^ bit);
      } else vm.cpu.setSysreg(index, vm.sysreg(index) ^ bit);
      expect(inSpace(2)).toBe(own(7));
    }
  });

  test('TCR_EL1.A1: the ASID is that of TTBR1_EL1', () => {
    vm.cpu.setSysreg(REG.TCR_EL1, vm.sysreg(REG.TCR_EL1) | A1);
    const select = (n: number): bigint => {
      const o = vm.execute([msr(REG.TTBR1_EL1, 4), msr(REG.TTBR0_EL1, 1), ISB, load(8, 2, 0)], {
        x: { 0: VA, 1: BigInt(spaces[n]!.root), 4: BigInt(n) << 48n },
      });
      expect(o.done).toBe(true);
      return vm.cpu.getX(2);
    };
    expect([select(1), select(2), select(1), select(2)]).toEqual([own(1), own(2), own(1), own(2)]);
  });

  test('TCR_EL1.AS clear: eight bits of ASID count, in TLBI too', () => {
    vm.cpu.setSysreg(REG.TCR_EL1, vm.sysreg(REG.TCR_EL1) & ~AS);
    expect([inSpace(2), inSpace(1)]).toEqual([own(2), own(1)]);
    remap(2, 7);
    expect(inSpace(1, [tlbiAside1(3)], asidOperand(0x5502))).toBe(own(1));
    expect(inSpace(2)).toBe(own(7));
  });

  test('code that one has stored to is seen to change when another has run it', () => {
    const code = A + 0x5_0000;
    const page = VA + 0x1_0000n;
    for (const n of [1, 2]) spaces[n]!.map(page, code, { notGlobal: true });
    const word = (n: number): bigint => BigInt(svc(n));
    const write = (n: number) =>
      vm.execute([msr(REG.TTBR0_EL1, 1), ISB, store(4, 3, 0)], { x: { 0: page, 1: ttbr(1), 3: word(n) } });
    const run = () => vm.execute([msr(REG.TTBR0_EL1, 1), ISB, br(0)], { x: { 0: page, 1: ttbr(2) } }).iss;
    for (let n = 1; n < 6; n++) {
      expect(write(n).done).toBe(true);
      expect(run()).toBe(n);
    }
  });

  test('memory that is unmapped is gone from all of them', () => {
    expect([inSpace(2), inSpace(1)]).toEqual([own(2), own(1)]);
    vm.machine.unmap(RAM, 0x400_0000);
    vm.machine.map(RAM, A + 0x2000 - RAM, vm.memory, 0, false);
    vm.machine.map(RAM + 0x100_0000, 0x300_0000, vm.memory, 0x100_0000, false);
    expect(inSpace(1)).toBe(own(1));
    const o = vm.execute([msr(REG.TTBR0_EL1, 1), ISB, load(8, 2, 0)], { x: { 0: VA, 1: ttbr(2) } });
    expect(o.stop).toBe(CpuStop.MMIO);
  });
});
