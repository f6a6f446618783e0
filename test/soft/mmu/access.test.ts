import { beforeEach, describe, expect, test } from '@jest/globals';
import { CpuStop } from '#lib/soft/cpu/cpu.js';
import {
  addImm,
  bne,
  daifClr,
  dcZva,
  hvc,
  ld1b,
  ld1d,
  ldadd,
  ldar,
  ldp,
  ldpW,
  ldrPost,
  ldrQ,
  ldtr,
  ldxr,
  load,
  NOP,
  stlr,
  store,
  stp,
  stpPre,
  strPost,
  strPre,
  strQ,
  stxr,
  subsImm,
  svc,
} from '../a64.ts';
import { BareMetal, CODE, DATA, EL0T, MAIR, type PageTables, REG, SCTLR_ON, withMmu } from '../bare-metal.ts';

const VA = 0x8080_0000_0000n;
const ALIGNMENT = 0b100001;
const TRANSLATION_0 = 0b000100;
const TRANSLATION_3 = 0b000111;
const PERMISSION_3 = 0b001111;
const WNR = 1 << 6;

let vm: BareMetal;
let tables: PageTables;
beforeEach(() => {
  vm = new BareMetal();
  tables = withMmu(vm);
});

describe.each([undefined, 1])('an access to two pages (threshold %s)', (threshold) => {
  const FIRST = DATA + 0x3000;
  const SECOND = DATA + 0x8000;
  beforeEach(() => {
    vm = new BareMetal({ threshold });
    tables = withMmu(vm);
    vm.memory.bytes.set(
      Array.from({ length: 256 }, (_, i) => i),
      FIRST + 0x1000 - 128 - 0x4000_0000,
    );
    vm.memory.bytes.set(
      Array.from({ length: 128 }, (_, i) => 128 + i),
      SECOND - 0x4000_0000,
    );
    tables.map(VA, FIRST);
    tables.map(VA + 0x1000n, SECOND);
  });
  /** Bytes n, n + 1, … as a little-endian number. */
  const bytesFrom = (n: number, size: number): bigint => {
    let value = 0n;
    for (let i = size - 1; i >= 0; i--) value = (value << 8n) | BigInt(n + i);
    return value;
  };

  test('loads put both parts together, at every distance', () => {
    for (const [size, word] of [
      [2, load(2, 1, 0)],
      [4, load(4, 1, 0)],
      [8, load(8, 1, 0)],
    ] as const) {
      for (let before = 1; before < size; before++) {
        expect(vm.execute([word], { x: { 0: VA + 0x1000n - BigInt(before) } }).done).toBe(true);
        expect(vm.cpu.getX(1)).toBe(bytesFrom(128 - before, size));
      }
    }
    for (let before = 1; before < 16; before++) {
      expect(vm.execute([ldrQ(3, 0), ldp(4, 5, 0)], { x: { 0: VA + 0x1000n - BigInt(before) } }).done).toBe(true);
      expect(vm.cpu.getV(3)).toBe(bytesFrom(128 - before, 16));
      expect([vm.cpu.getX(4), vm.cpu.getX(5)]).toEqual([bytesFrom(128 - before, 8), bytesFrom(136 - before, 8)]);
    }
  });

  test('stores write both parts and nothing else', () => {
    const value = 0xf1f2_f3f4_f5f6_f7f8n;
    for (let before = 1; before < 8; before++) {
      vm.fill(FIRST, 0x1000, 0);
      vm.fill(SECOND, 0x1000, 0);
      expect(vm.execute([store(8, 1, 0)], { x: { 0: VA + 0x1000n - BigInt(before), 1: value } }).done).toBe(true);
      const expected = new Uint8Array(new BigUint64Array([value]).buffer);
      const at = (pa: number, length: number): number[] => [
        ...vm.memory.bytes.subarray(pa - 0x4000_0000, pa - 0x4000_0000 + length),
      ];
      expect(at(FIRST + 0x1000 - 16, 16)).toEqual([...new Array(16 - before).fill(0), ...expected.subarray(0, before)]);
      expect(at(SECOND, 16)).toEqual([...expected.subarray(before), ...new Array(8 + before).fill(0)]);
    }
    vm.cpu.setV(7, 2n ** 128n - 1n);
    expect(vm.execute([strQ(7, 0), stp(1, 2, 0)], { x: { 0: VA + 0xff4n, 1: 1, 2: 2 } }).done).toBe(true);
    expect([vm.read32(FIRST + 0xff4), vm.read32(SECOND), vm.read32(SECOND + 4)]).toEqual([1, 0, 0]);
    expect(vm.read64(FIRST + 0xff4)).toBe(1n);
  });

  test.each([
    ['the second page is not there', VA + 0x2000n, TRANSLATION_3],
    ['the second page is read-only', VA + 0x3000n, PERMISSION_3],
  ])('%s: nothing is written, no base is updated', (_name, second, status) => {
    tables.map(second - 0x1000n, FIRST);
    if (status === PERMISSION_3) tables.map(second, SECOND, { ap: 2 });
    const before = vm.memory.bytes.slice(FIRST - 0x4000_0000, SECOND + 0x1000 - 0x4000_0000);
    for (const [word, base] of [
      [store(8, 1, 0), second - 4n],
      [strPre(1, 0, -8), second + 4n],
      [strPost(1, 0, 8), second - 4n],
      [stp(1, 2, 0), second - 8n],
      [stpPre(1, 2, 0), second + 8n],
      [strQ(1, 0), second - 1n],
      [stlr(1, 0), second - 4n],
    ] as const) {
      vm.cpu.setSysreg(REG.SCTLR_EL1, SCTLR_ON | (1n << 6n));
      const o = vm.execute([word], { x: { 0: base, 1: 0x55, 2: 0x66 } });
      expect(o).toMatchObject({ ec: 0x25, iss: status | WNR, far: second });
      expect(vm.cpu.getX(0)).toBe(base);
    }
    expect(vm.memory.bytes.slice(FIRST - 0x4000_0000, SECOND + 0x1000 - 0x4000_0000)).toEqual(before);
    if (status === PERMISSION_3) return;
    for (const [word, base] of [
      [load(8, 1, 0), second - 4n],
      [ldrPost(1, 0, 8), second - 4n],
      [ldp(1, 2, 0), second - 8n],
    ] as const) {
      expect(vm.execute([word], { x: { 0: base, 1: 0x55, 2: 0x66 } })).toMatchObject({ iss: status, far: second });
      expect([vm.cpu.getX(0), vm.cpu.getX(1), vm.cpu.getX(2)]).toEqual([base, 0x55n, 0x66n]);
    }
  });

  test('a fault in the first page comes first', () => {
    expect(vm.execute([store(8, 1, 0)], { x: { 0: VA - 4n } })).toMatchObject({
      iss: TRANSLATION_0 | WNR,
      far: VA - 4n,
    });
  });

  test('into what no RAM backs: no syndrome', () => {
    tables.map(VA + 0x1000n, 0x900_0000n);
    expect(vm.execute([load(8, 1, 0)], { x: { 0: VA + 0xffcn } }).stop).toBe(CpuStop.MMIO);
    expect(vm.cpu.access).toMatchObject({ isv: false, ipa: 0x900_0000, va: VA + 0x1000n, isWrite: false });
  });
});

test('a faulting write-back leaves its base, and a faulting load its target', () => {
  const nowhere = VA + 0x9000n;
  for (const word of [ldrPost(1, 0, 8), strPost(1, 0, 8), strPre(1, 0, 8), stpPre(1, 2, 0)]) {
    expect(vm.execute([word], { x: { 0: nowhere, 1: 7 } }).done).toBe(false);
    expect([vm.cpu.getX(0), vm.cpu.getX(1)]).toEqual([nowhere, 7n]);
  }
});

describe('alignment', () => {
  const A = 1n << 1n;
  const nAA = 1n << 6n;
  const attempt = (word: number, address: bigint, pstate?: bigint) => {
    vm.cpu.setSysreg(REG.ESR_EL1, 0n);
    const o = vm.execute([word, NOP], { x: { 0: address, 1: 1, 2: 2 }, ...(pstate === undefined ? {} : { pstate }) });
    if (o.done) return 'ok';
    expect(o.far).toBe(address);
    return o.iss;
  };
  const LOADS: readonly (readonly [string, number, number])[] = [
    ['LDRH', load(2, 3, 0), 2],
    ['LDR W', load(4, 3, 0), 4],
    ['LDR X', load(8, 3, 0), 8],
    ['LDTR', ldtr(3, 0), 8],
    ['LDR Q', ldrQ(3, 0), 16],
    ['LDP X', ldp(3, 4, 0), 8],
    ['LDP W', ldpW(3, 4, 0), 4],
    ['LD1 16B', ld1b(3, 0), 1],
    ['LD1 2D', ld1d(3, 0), 8],
    ['LDRB', load(1, 3, 0), 1],
  ];
  const STORES: readonly (readonly [string, number, number])[] = [
    ['STRH', store(2, 1, 0), 2],
    ['STR X', store(8, 1, 0), 8],
    ['STR Q', strQ(3, 0), 16],
    ['STP X', stp(1, 2, 0), 8],
  ];

  test('Normal memory with SCTLR_EL1.A clear: any address', () => {
    tables.map(VA, DATA, { ap: 1 });
    for (const [, word] of [...LOADS, ...STORES])
      for (let n = 0n; n < 16n; n++) expect(attempt(word, VA + n)).toBe('ok');
  });

  test.each([
    ['SCTLR_EL1.A', 0, SCTLR_ON | A],
    ['Device memory', 1, SCTLR_ON],
  ] as const)('%s: every element must be aligned', (_name, attr, sctlr) => {
    vm.cpu.setSysreg(REG.SCTLR_EL1, sctlr);
    tables.map(VA, DATA, { ap: 1, attr });
    for (const [name, word, align] of LOADS) {
      for (let n = 0; n < 17; n++)
        expect([name, n, attempt(word, VA + BigInt(n))]).toEqual([name, n, n % align === 0 ? 'ok' : ALIGNMENT]);
    }
    for (const [name, word, align] of STORES) {
      for (let n = 0; n < 17; n++)
        expect([name, n, attempt(word, VA + BigInt(n))]).toEqual([name, n, n % align === 0 ? 'ok' : ALIGNMENT | WNR]);
    }
    // What follows in the block is done once: an exit after the access that was looked at is not lost, nor repeated.
    const twice = vm.execute([ldpW(3, 4, 0), addImm(6, 6, 1), 0xd5184106, addImm(6, 6, 1)], {
      x: { 0: VA + 4n, 6: 0 },
    });
    expect([twice.done, vm.cpu.getX(6), vm.sysreg(REG.SP_EL0)]).toEqual([true, 2n, 1n]);
    const refused = vm.execute([ldpW(3, 4, 0), addImm(6, 6, 1), svc(5)], { x: { 0: VA + 4n, 6: 0 } });
    expect([refused.ec, refused.iss, vm.cpu.getX(6)]).toEqual([0x15, 5, 1n]);
    vm.cpu.setIrq(true);
    const unmasked = vm.execute([ldpW(3, 4, 0), addImm(6, 6, 1), daifClr(2), addImm(6, 6, 1)], {
      x: { 0: VA + 4n, 6: 0 },
    });
    expect([unmasked.vector, vm.cpu.getX(6)]).toEqual([0x280, 1n]);
    vm.cpu.setIrq(false);
    // The check comes back after an instruction that was found to be in order.
    const o = vm.execute([ldpW(3, 4, 0), addImm(0, 0, 1), load(8, 5, 0)], { x: { 0: VA + 4n } });
    expect(o.done || o.iss === ALIGNMENT).toBe(true);
    expect(attempt(load(8, 3, 0), VA + 4n)).toBe(ALIGNMENT);
    expect(attempt(load(8, 3, 0), VA + 4n, EL0T)).toBe(ALIGNMENT);
  });

  test('Device memory: an alignment fault comes after translation and permission; SCTLR_EL1.A before', () => {
    tables.map(VA, DATA, { ap: 2, attr: 1 });
    expect(attempt(store(8, 1, 0), VA + 4n)).toBe(PERMISSION_3 | WNR);
    expect(attempt(load(8, 1, 0), VA + 0x5004n)).toBe(TRANSLATION_3);
    vm.cpu.setSysreg(REG.SCTLR_EL1, SCTLR_ON | A);
    expect(attempt(store(8, 1, 0), VA + 4n)).toBe(ALIGNMENT | WNR);
    expect(attempt(load(8, 1, 0), VA + 0x5004n)).toBe(ALIGNMENT);
  });

  test('Device memory: a misaligned access does not get as far as a device', () => {
    tables.map(VA, 0x900_0000n, { attr: 1 });
    expect(attempt(load(4, 1, 0), VA + 2n)).toBe(ALIGNMENT);
    expect(vm.execute([load(4, 1, 0)], { x: { 0: VA + 4n } }).stop).toBe(CpuStop.MMIO);
  });

  test('Device memory: DC ZVA is not allowed, a pair of stores is', () => {
    tables.map(VA, DATA, { attr: 1 });
    vm.fill(DATA, 128, 0xff);
    expect(attempt(dcZva(0), VA)).toBe(ALIGNMENT | WNR);
    expect(vm.read64(DATA)).toBe(2n ** 64n - 1n);
    expect(attempt(stp(1, 2, 0), VA)).toBe('ok');
    expect([vm.read64(DATA), vm.read64(DATA + 8)]).toEqual([1n, 2n]);
  });

  test('MAIR_EL1 says what is Device memory, and a write of it takes effect', () => {
    tables.map(VA, DATA, { attr: 2 });
    expect(attempt(load(8, 3, 0), VA + 1n)).toBe('ok');
    vm.cpu.setSysreg(REG.MAIR_EL1, MAIR & 0xffffn);
    expect(attempt(load(8, 3, 0), VA + 1n)).toBe(ALIGNMENT);
  });

  test('atomics and ordered accesses lie in 16 bytes; SCTLR_EL1.nAA lets ordered ones off', () => {
    tables.map(VA, DATA);
    const stx = stxr(5, 1, 0);
    for (const [word, ordered] of [
      [ldar(3, 0), true],
      [stlr(1, 0), true],
      [ldxr(3, 0), false],
      [stx, false],
      [ldadd(1, 3, 0), false],
    ] as const) {
      // An atomic that reads too would fault as a read.
      const isWrite = word === stlr(1, 0) || word === stx;
      vm.cpu.setSysreg(REG.SCTLR_EL1, SCTLR_ON);
      expect(attempt(word, VA + 7n)).toBe('ok');
      expect(attempt(word, VA + 9n)).toBe(ALIGNMENT | (isWrite ? WNR : 0));
      vm.cpu.setSysreg(REG.SCTLR_EL1, SCTLR_ON | nAA);
      expect(attempt(word, VA + 9n)).toBe(ordered ? 'ok' : ALIGNMENT | (isWrite ? WNR : 0));
      expect(attempt(word, VA + 9n)).toBe(ordered ? 'ok' : ALIGNMENT | (isWrite ? WNR : 0));
    }
  });
});

describe.each([undefined, 1])('the MMU is off: all memory is Device-nGnRnE (threshold %s)', (threshold) => {
  beforeEach(() => {
    vm = new BareMetal({ threshold });
  });
  const aligned = (bytes: number): number => DATA + 0x100 + bytes;

  test.each([
    ['LDR X', load(8, 1, 0), 8, false],
    ['LDR W', load(4, 1, 0), 4, false],
    ['LDRH', load(2, 1, 0), 2, false],
    ['STR X', store(8, 1, 0), 8, true],
    ['STRH', store(2, 1, 0), 2, true],
    ['LDR Q', ldrQ(1, 0), 16, false],
    ['STR Q', strQ(1, 0), 16, true],
    ['LDP X', ldp(1, 2, 0), 8, false],
    ['STP X', stp(1, 2, 0), 8, true],
    ['LDP W', ldpW(1, 2, 0), 4, false],
    ['LD1 16B', ld1b(1, 0), 1, false],
    ['LD1 2D', ld1d(1, 0), 8, false],
    ['LDXR X', ldxr(1, 0), 8, false],
    ['LDAR X', ldar(1, 0), 8, false],
    ['STLR X', stlr(1, 0), 8, true],
    ['LDADD X', ldadd(1, 2, 0), 8, false],
  ] as const)('%s', (_name, word, alignment, isWrite) => {
    // A loop, so that it is compiled; nAA makes no difference.
    vm.cpu.setSysreg(REG.SCTLR_EL1, 1n << 6n);
    const at = vm.place([word, subsImm(3, 3, 1), bne(-2), hvc(0)]);
    expect(vm.start(at, { x: { 0: aligned(alignment), 3: 40 } }).done).toBe(true);
    for (const distance of [1, 2, 3, 4, 7, 8, 9, 12, 15].filter((d) => d % alignment !== 0)) {
      const va = aligned(0) + distance;
      const o = vm.start(at, { x: { 0: va, 3: 40 } });
      expect([o.ec, o.iss, o.far, o.elr]).toEqual([0x25, ALIGNMENT | (isWrite ? WNR : 0), BigInt(va), BigInt(at)]);
    }
  });

  test('DC ZVA is a fault at its address, and zeroes nothing; behind a translation that fails', () => {
    vm.fill(DATA, 64, 0x55);
    const o = vm.execute([dcZva(0)], { x: { 0: DATA + 8 } });
    expect([o.ec, o.iss, o.far]).toEqual([0x25, ALIGNMENT | WNR, BigInt(DATA + 8)]);
    expect(vm.read32(DATA)).toBe(0x5555_5555);
    expect(vm.execute([dcZva(0)], { x: { 0: 1n << 44n } }).iss).toBe(WNR);
  });

  test('what one instruction was allowed, the next is not', () => {
    // A pair at 8 bytes is in order; the load behind it, in the same run of code, is not.
    const at = vm.place([ldp(1, 2, 0), load(8, 5, 4), hvc(0)]);
    const o = vm.start(at, { x: { 0: DATA + 8, 4: DATA + 4 } });
    expect([o.ec, o.iss, o.elr]).toEqual([0x25, ALIGNMENT, BigInt(at + 4)]);
  });

  test('with the MMU on they are allowed, and off again they are not', () => {
    const word = load(8, 1, 0);
    const run = () => vm.execute([word, subsImm(3, 3, 1), bne(-2)], { x: { 0: DATA + 4, 3: 40 }, at: CODE });
    expect(run().ec).toBe(0x25);
    vm.normalMemory();
    expect(run().done).toBe(true);
    vm.cpu.setSysreg(REG.SCTLR_EL1, vm.sysreg(REG.SCTLR_EL1) & ~1n);
    vm.cpu.setSysreg(REG.ESR_EL1, 0n);
    expect(run().ec).toBe(0x25);
  });
});

test.each([0n, 1n << 6n])('SCTLR_EL1.A: ordered accesses must be aligned, whatever nAA says (nAA %s)', (nAA) => {
  tables.map(VA, DATA);
  vm.cpu.setSysreg(REG.SCTLR_EL1, SCTLR_ON | 2n | nAA);
  for (const offset of [4n, 12n]) {
    const o = vm.execute([ldar(1, 0)], { x: { 0: VA + offset } });
    expect([o.ec, o.iss, o.far]).toEqual([0x25, ALIGNMENT, VA + offset]);
  }
  expect(vm.execute([ldar(1, 0)], { x: { 0: VA + 8n } }).done).toBe(true);
});

test('an ordered access to Device memory that crosses 16 bytes is misaligned, whatever nAA says', () => {
  tables.map(VA, DATA, { attr: 1 });
  vm.cpu.setSysreg(REG.SCTLR_EL1, SCTLR_ON | (1n << 6n));
  const o = vm.execute([ldar(1, 0)], { x: { 0: VA + 12n } });
  expect([o.ec, o.iss, o.far]).toEqual([0x25, ALIGNMENT, VA + 12n]);
});
