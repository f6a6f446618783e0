import { beforeEach, describe, expect, test } from '@jest/globals';
import { CpuStop } from '#lib/soft/cpu/cpu.js';
import {
  dcZva,
  halves,
  ldadd,
  ldar,
  ldp,
  ldrPost,
  ldrQ,
  ldtr,
  ldxr,
  load,
  NOP,
  stlr,
  store,
  stp,
  strPre,
  strQ,
  sttr,
} from '../a64.ts';
import { BareMetal, EL0T, RAM, RAM_SIZE } from '../bare-metal.ts';

const UART = 0x900_0000;
let vm: BareMetal;
beforeEach(() => {
  vm = new BareMetal();
});

interface Form {
  readonly name: string;
  readonly word: number;
  readonly size: number;
  readonly signExtend?: boolean;
  readonly sf?: boolean;
}
/** The bits of the sizes and opcs of single-register loads and stores, from the encoding tables of C4.1.96. */
const SIZES = [1, 2, 4, 8];
const forms = (rt: number, rn: number): { loads: Form[]; stores: Form[] } => {
  const loads: Form[] = [];
  const stores: Form[] = [];
  for (const [log2, size] of SIZES.entries()) {
    const base = (log2 << 30) >>> 0;
    for (const [opc, kind] of ['store', 'load', 'signed 64', 'signed 32'].entries()) {
      if (opc === 2 && size === 8) continue;
      if (opc === 3 && size >= 4) continue;
      const addressing: [string, number][] = [
        ['unsigned offset', 0x39000000],
        ['unscaled', 0x38000000],
        ['unprivileged', 0x38000800],
        ['register', 0x38206800 | (31 << 16)],
        ['RCpc unscaled', 0x19000000],
      ];
      for (const [name, bits] of addressing) {
        const form = {
          name: `${kind} ${size}, ${name}`,
          word: (base | bits | (opc << 22) | (rn << 5) | rt) >>> 0,
          size,
          signExtend: opc >= 2,
          sf: opc === 2 || (opc < 2 && size === 8),
        };
        (opc === 0 ? stores : loads).push(form);
      }
    }
    const ordered = { size, signExtend: false, sf: size === 8 };
    loads.push({ name: `LDAR ${size}`, word: (base | 0x08dffc00 | (rn << 5) | rt) >>> 0, ...ordered });
    loads.push({ name: `LDLAR ${size}`, word: (base | 0x08df7c00 | (rn << 5) | rt) >>> 0, ...ordered });
    loads.push({ name: `LDAPR ${size}`, word: (base | 0x38bfc000 | (rn << 5) | rt) >>> 0, ...ordered });
    stores.push({ name: `STLR ${size}`, word: (base | 0x089ffc00 | (rn << 5) | rt) >>> 0, ...ordered });
    stores.push({ name: `STLLR ${size}`, word: (base | 0x089f7c00 | (rn << 5) | rt) >>> 0, ...ordered });
  }
  return { loads, stores };
};

describe('a load that no RAM answers', () => {
  test.each(forms(7, 2).loads)('$name', ({ word, size, signExtend, sf }) => {
    const at = vm.place([word]);
    for (const value of [0x8091_a2b3_c4d5_e6f7n, 0x7f6e_5d4c_3b2a_1908n]) {
      const o = vm.start(at, { x: { 2: UART + 8, 7: -1n } });
      expect(o.stop).toBe(CpuStop.MMIO);
      expect(vm.cpu.getPc()).toBe(BigInt(at));
      expect(vm.cpu.access).toMatchObject({
        ipa: UART + 8,
        va: BigInt(UART + 8),
        isWrite: false,
        isv: true,
        size,
        signExtend,
        sf,
        srt: 7,
      });
      const before = vm.cpu.instructions;
      vm.cpu.completeRead(...halves(value));
      expect(vm.cpu.instructions - before).toBe(1);
      expect(vm.cpu.getPc()).toBe(BigInt(at + 4));
      const low = BigInt.asUintN(size * 8, value);
      const expected = signExtend ? BigInt.asUintN(sf ? 64 : 32, BigInt.asIntN(size * 8, value)) : low;
      expect(vm.cpu.getX(7)).toBe(expected);
    }
  });
  test('to XZR changes no register', () => {
    vm.start(vm.place([load(4, 31, 2)]), { x: { 2: UART } });
    expect(vm.cpu.access).toMatchObject({ isv: true, srt: 31 });
    vm.cpu.setSpEl1(0x1230n);
    vm.cpu.completeRead(0xffff_ffff, 0);
    expect(vm.cpu.getSpEl1()).toBe(0x1230n);
    expect(vm.execute([0xaa1f03e1]).done).toBe(true); // mov x1, xzr
    expect(vm.cpu.getX(1)).toBe(0n);
  });
  test('a literal', () => {
    // LDR X3 from 4 KiB past the end of RAM: the program is in its last page.
    const at = RAM + RAM_SIZE - 0x100;
    const distance = 0x1000 / 4;
    vm.place([(0x58000000 | (distance << 5) | 3) >>> 0], at);
    expect(vm.start(at).stop).toBe(CpuStop.MMIO);
    expect(vm.cpu.access).toMatchObject({ ipa: at + 0x1000, isv: true, size: 8, srt: 3, sf: true });
  });
});

describe('a store that no RAM takes', () => {
  test.each(forms(7, 2).stores)('$name', ({ word, size }) => {
    const at = vm.place([word, NOP]);
    const o = vm.start(at, { x: { 2: UART, 7: 0x8091_a2b3_c4d5_e6f7n } });
    expect(o.stop).toBe(CpuStop.MMIO);
    expect(vm.cpu.access).toMatchObject({
      ipa: UART,
      isWrite: true,
      isv: true,
      size,
      srt: 7,
      value: BigInt.asUintN(size * 8, 0x8091_a2b3_c4d5_e6f7n),
    });
    vm.cpu.skipInstruction();
    expect(vm.cpu.getPc()).toBe(BigInt(at + 4));
  });
  test('of XZR is zero', () => {
    vm.start(vm.place([store(8, 31, 2)]), { x: { 2: UART } });
    expect(vm.cpu.access).toMatchObject({ isv: true, value: 0n, srt: 31 });
  });
});

test.each([
  ['LDP', ldp(1, 3, 2), false],
  ['STP', stp(1, 3, 2), true],
  ['LDR with write-back', ldrPost(1, 2, 8), false],
  ['STR with write-back', strPre(1, 2, 8), true],
  ['LDR Q', ldrQ(1, 2), false],
  ['STR Q', strQ(1, 2), true],
  ['LDXR', ldxr(1, 2), false],
  ['LDADD', ldadd(1, 3, 2), false],
  ['DC ZVA', dcZva(2), true],
])('%s has no syndrome', (_name, word, isWrite) => {
  vm.normalMemory();
  const at = vm.place([word]);
  expect(vm.start(at, { x: { 1: 5, 2: UART, 3: 6 } }).stop).toBe(CpuStop.MMIO);
  expect(vm.cpu.access).toMatchObject({ isv: false, isWrite });
  expect(vm.cpu.access.ipa & ~0x3f).toBe(UART);
  // Nothing has happened yet.
  expect([vm.cpu.getX(1), vm.cpu.getX(2), vm.cpu.getX(3), vm.cpu.getPc()]).toEqual([5n, BigInt(UART), 6n, BigInt(at)]);
});

test('at EL0, and unprivileged from EL1', () => {
  expect(vm.execute([load(4, 1, 2)], { pstate: EL0T, x: { 2: UART } }).stop).toBe(CpuStop.MMIO);
  expect(vm.execute([ldtr(1, 2)], { x: { 2: UART } }).stop).toBe(CpuStop.MMIO);
  expect(vm.execute([sttr(1, 2), stlr(1, 2), ldar(1, 2)], { x: { 2: UART } }).stop).toBe(CpuStop.MMIO);
});

test.each([undefined, 1])('a loop of them: each is seen once, in order, and counted (threshold %s)', (threshold) => {
  vm = new BareMetal({ threshold });
  // str w1, [x2]; ldr w3, [x2, #4]; add x1, x1, #1; subs x4, x4, #1; b.ne -4; hvc
  const at = vm.place([store(4, 1, 2), load(4, 3, 2, 4), 0x91000421, 0xf1000484, 0x54ffff81, 0xd4000002]);
  vm.cpu.setPstate(5n);
  vm.cpu.setPc(BigInt(at));
  for (const [n, value] of [
    [1, 0n],
    [2, BigInt(UART)],
    [3, 0n],
    [4, 200n],
  ] as const)
    vm.cpu.setX(n, value);
  const start = vm.cpu.instructions;
  const written: bigint[] = [];
  for (let n = 0; n < 400; n++) {
    expect(vm.run()).toBe(CpuStop.MMIO);
    const { access } = vm.cpu;
    if (access.isWrite) {
      written.push(access.value);
      vm.cpu.skipInstruction();
    } else vm.cpu.completeRead(n, 0);
  }
  expect(vm.run()).toBe(CpuStop.HVC);
  expect(written).toEqual(Array.from({ length: 200 }, (_, i) => BigInt(i)));
  expect(vm.cpu.getX(3)).toBe(399n);
  expect(vm.cpu.instructions - start).toBe(200 * 5 + 1);
});

describe('read-only memory', () => {
  const ROM = 0x1000_0000;
  beforeEach(() => {
    const rom = vm.machine.allocate(0x4000)!;
    new DataView(rom.bytes.buffer, rom.bytes.byteOffset).setBigUint64(0x1000, 0x1234n, true);
    new DataView(rom.bytes.buffer, rom.bytes.byteOffset).setUint32(0x2000, 0xd4000002, true);
    vm.machine.map(ROM, 0x4000, rom, 0, true);
  });
  test('is loaded from and executed', () => {
    expect(vm.execute([load(8, 1, 2)], { x: { 2: ROM + 0x1000 } }).done).toBe(true);
    expect(vm.cpu.getX(1)).toBe(0x1234n);
    expect(vm.start(ROM + 0x2000).done).toBe(true);
  });
  test('a store stops, and changes nothing, however often it was loaded from', () => {
    const o = vm.execute([load(8, 1, 2), store(8, 3, 2), load(8, 4, 2)], { x: { 2: ROM + 0x1000, 3: 9 } });
    expect(o.stop).toBe(CpuStop.MMIO);
    expect(vm.cpu.access).toMatchObject({ ipa: ROM + 0x1000, isWrite: true, isv: true, value: 9n });
    vm.cpu.skipInstruction();
    expect(vm.run()).toBe(CpuStop.HVC);
    expect(vm.cpu.getX(4)).toBe(0x1234n);
  });
  test('a store that crosses into it from RAM writes nothing', () => {
    vm.normalMemory();
    vm.machine.unmap(ROM, 0x4000);
    const rom = vm.machine.allocate(0x1000)!;
    vm.machine.map(RAM + RAM_SIZE, 0x1000, rom, 0, true);
    expect(vm.execute([store(8, 3, 2)], { x: { 2: RAM + RAM_SIZE - 4, 3: -1n } }).stop).toBe(CpuStop.MMIO);
    expect(vm.cpu.access).toMatchObject({ isv: false, isWrite: true, ipa: RAM + RAM_SIZE });
    expect(vm.read32(RAM + RAM_SIZE - 4)).toBe(0);
    expect(rom.bytes.every((v) => v === 0)).toBe(true);
  });
});
