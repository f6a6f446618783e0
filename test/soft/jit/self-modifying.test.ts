import { beforeEach, describe, expect, test } from '@jest/globals';
import { CpuStop } from '#lib/soft/cpu/cpu.js';
import { b, br, DSB, hvc, ISB, load, mov, movz, NOP, RET, store, strQ, subsImm, tlbiVae1 } from '../a64.ts';
import { BareMetal, DATA, EL1H, MASKED, withMmu } from '../bare-metal.ts';

/** Code that changes, by each of the ways in which it can: CTR_EL0.DIC and IDC promise that nothing more is needed than an ISB. */
describe.each([
  ['interpreted', undefined],
  ['compiled at once', 1],
  ['compiled when hot', 20],
])('%s', (_name, threshold) => {
  let vm: BareMetal;
  beforeEach(() => {
    vm = new BareMetal({ threshold });
  });

  /** Calls a function at X0 `times` times, and after each adds its X1 to X2; then HVC. */
  const caller = (times: number): number[] => [
    ...mov(3, times),
    movz(2, 0),
    0xd63f0000, // blr x0
    0x8b010042, // add x2, x2, x1
    subsImm(3, 3, 1),
    (0x54000001 | ((-3 & 0x7ffff) << 5)) >>> 0, // b.ne -3
    hvc(0),
  ];
  const sum = (times: number, target: number | bigint, callerAt?: number): bigint => {
    const at = vm.place(caller(times), callerAt);
    expect(vm.start(at, { x: { 0: target } }).done).toBe(true);
    return vm.cpu.getX(2);
  };

  test('the guest writes another page', () => {
    const f = vm.place([movz(1, 1), RET]);
    const at = vm.place([
      ...caller(100).slice(0, -1),
      // Replaces the function's first instruction, and calls it again.
      store(4, 5, 0),
      ISB,
      0xaa0203e6, // mov x6, x2
      ...caller(100),
    ]);
    expect(vm.start(at, { x: { 0: f, 5: movz(1, 7) } }).done).toBe(true);
    expect([vm.cpu.getX(6), vm.cpu.getX(2)]).toEqual([100n, 700n]);
  });

  test('the guest writes its own page, ahead and behind, and the next instruction', () => {
    // A counter that is an instruction: each round writes MOVZ X1, #n over what the next instruction is.
    const at = vm.place([
      movz(1, 0xfff), // replaced
      0x8b010042, // add x2, x2, x1
      0x11008084, // add w4, w4, #32: the immediate of MOVZ goes up by one
      store(4, 4, 0),
      subsImm(3, 3, 1),
      (0x54000001 | ((-5 & 0x7ffff) << 5)) >>> 0,
      hvc(0),
    ]);
    const o = vm.start(at, { x: { 0: at, 2: 0, 3: 300, 4: movz(1, 0) } });
    expect(o.done).toBe(true);
    // 0xfff first, then 1, 2, … 299.
    expect(vm.cpu.getX(2)).toBe(0xfffn + (299n * 300n) / 2n);

    const next = vm.place([store(4, 4, 0, 4), movz(1, 1), hvc(0)]);
    for (let n = 2; n < 60; n++) {
      expect(vm.start(next, { x: { 0: next, 4: movz(1, n) } }).done).toBe(true);
      expect(vm.cpu.getX(1)).toBe(BigInt(n));
    }
  });

  test('by a wide store, and by one that crosses into the page', () => {
    vm.normalMemory();
    const page = vm.place([NOP]);
    const f = vm.place([movz(1, 1), movz(1, 2), movz(1, 3), RET]);
    expect(f).toBe(page + 0x1000);
    expect(sum(50, f)).toBe(150n);
    vm.cpu.setV(
      1,
      BigInt(movz(1, 4)) | (BigInt(movz(1, 5)) << 32n) | (BigInt(movz(1, 6)) << 64n) | (BigInt(RET) << 96n),
    );
    vm.execute([strQ(1, 0), ISB], { x: { 0: f } });
    expect(sum(50, f)).toBe(300n);
    vm.execute([store(8, 1, 0), ISB], { x: { 0: f - 4, 1: BigInt(NOP) | (BigInt(RET) << 32n) } });
    expect(vm.read32(f)).toBe(RET);
    vm.cpu.setX(1, 7n);
    expect(sum(50, f)).toBe(350n);
  });

  test('through an alias', () => {
    const tables = withMmu(vm);
    const alias = 0x8080_0000_0000n;
    tables.map(alias, DATA);
    const code = 0x8080_0010_0000n;
    tables.map(code, DATA);
    vm.place([movz(1, 3), RET], DATA);
    expect(sum(50, code)).toBe(150n);
    vm.execute([store(4, 5, 4), ISB], { x: { 4: alias, 5: movz(1, 9) } });
    expect(sum(50, code)).toBe(450n);
    expect(sum(50, alias)).toBe(450n);
  });

  test('the page under a virtual address is another one', () => {
    const tables = withMmu(vm);
    const va = 0x8080_0000_0000n;
    vm.place([movz(1, 3), RET], DATA);
    vm.place([movz(1, 5), RET], DATA + 0x1000);
    for (let n = 0; n < 6; n++) {
      tables.map(va, DATA + (n % 2) * 0x1000);
      vm.execute([tlbiVae1(1), DSB, ISB], { x: { 1: va >> 12n } });
      expect(sum(60, va)).toBe(n % 2 === 0 ? 180n : 300n);
    }
  });

  test('a function that goes on in the next page, which changes', () => {
    const page = vm.place(new Array(1024).fill(NOP));
    const second = vm.place([movz(1, 2), RET]);
    expect(second).toBe(page + 0x1000);
    const f = second - 8;
    expect(sum(60, f)).toBe(120n);
    vm.execute([store(4, 5, 4), ISB], { x: { 4: second, 5: movz(1, 8) } });
    expect(sum(60, f)).toBe(480n);
    // And in virtual memory, where the next page is elsewhere.
    const tables = withMmu(vm);
    const va = 0x8080_0000_0000n;
    tables.map(va, page);
    tables.map(va + 0x1000n, DATA);
    vm.place([movz(1, 4), RET], DATA);
    expect(sum(60, va + 0xff8n)).toBe(240n);
    tables.map(va + 0x1000n, second);
    vm.execute([tlbiVae1(1), DSB, ISB], { x: { 1: (va + 0x1000n) >> 12n } });
    expect(sum(60, va + 0xff8n)).toBe(480n);
  });

  test('code in every part of a page, which is written anew', () => {
    // The last function goes on in the next page.
    const starts = Array.from({ length: 16 }, (_, n) => [n * 64, n * 64 + 60]).flat();
    starts.push(1023);
    const page = (seed: number): number[] => {
      const words: number[] = new Array(1025).fill(RET);
      for (const at of starts) words[at] = movz(1, seed + at);
      return words;
    };
    const first = vm.place(page(1));
    const callerAt = vm.place(caller(30));
    const sums = (): bigint[] => starts.map((at) => sum(30, first + at * 4, callerAt));
    for (const seed of [1, 2000, 3000]) {
      vm.place(page(seed), first);
      expect(sums()).toEqual(starts.map((at) => 30n * BigInt(seed + at)));
    }
  });

  test('the host writes, and says so', () => {
    const f = vm.place([movz(1, 3), RET]);
    const callerAt = vm.place(caller(60));
    for (let n = 3; n < 8; n++) {
      expect(sum(60, f, callerAt)).toBe(60n * BigInt(n));
      vm.place([movz(1, n + 1)], f);
    }
  });

  test('code in another vCPUs hands', () => {
    const other = vm.createCpu();
    const f = vm.place([movz(1, 3), RET]);
    const at = vm.place(caller(60));
    const run = (): bigint => {
      expect(vm.start(at, { x: { 0: f }, cpu: other }).done).toBe(true);
      return other.getX(2);
    };
    expect([sum(60, f), run()]).toEqual([180n, 180n]);
    vm.execute([store(4, 5, 4), ISB], { x: { 4: f, 5: movz(1, 4) } });
    expect([run(), sum(60, f)]).toEqual([240n, 240n]);
  });

  test('a store to data beside hot code leaves the code right', () => {
    // A loop that counts in its own page.
    const at = vm.place([
      load(8, 1, 0),
      0x91000421,
      store(8, 1, 0),
      subsImm(3, 3, 1),
      (0x54000001 | ((-4 & 0x7ffff) << 5)) >>> 0,
      hvc(0),
    ]);
    const counter = at + 0x800;
    expect(vm.start(at, { x: { 0: counter, 3: 1000 } }).done).toBe(true);
    expect(vm.read64(counter)).toBe(1000n);
  });

  test('RAM is unmapped and mapped elsewhere under running code', () => {
    const f = 0x5000_0000;
    const memory = vm.machine.allocate(0x2000)!;
    const view = new DataView(memory.bytes.buffer, memory.bytes.byteOffset);
    for (const [offset, n] of [
      [0, 3],
      [0x1000, 5],
    ] as const) {
      view.setUint32(offset, movz(1, n), true);
      view.setUint32(offset + 4, RET, true);
    }
    vm.machine.map(f, 0x1000, memory, 0, false);
    expect(sum(60, f)).toBe(180n);
    vm.machine.unmap(f, 0x1000);
    expect(vm.execute([br(0)], { x: { 0: f } })).toMatchObject({ ec: 0x21, iss: 0x10 });
    vm.machine.map(f, 0x1000, memory, 0x1000, false);
    expect(sum(60, f)).toBe(300n);
    memory.free();
    expect(vm.execute([br(0)], { x: { 0: f } })).toMatchObject({ ec: 0x21, iss: 0x10 });
  });

  test('more pages of code than the fetch table has entries', () => {
    // 400 functions in pages 4 KiB apart (ADD X0, X0, #1, LSL #12), more than the fetch table has entries.
    vm = new BareMetal({ threshold, ram: 0x200_0000 });
    const at = vm.place([0xd63f0000, 0x91400400, subsImm(3, 3, 1), (0x54000001 | ((-3 & 0x7ffff) << 5)) >>> 0, hvc(0)]);
    for (let n = 0; n < 400; n++) vm.place([0x91000442, RET], DATA + n * 0x1000); // add x2, x2, #1
    for (let round = 1; round <= 3; round++) {
      expect(vm.start(at, { x: { 0: DATA, 2: 0, 3: 400 } }).done).toBe(true);
      expect(vm.cpu.getX(2)).toBe(400n);
    }
  });
});

test('an endless loop in one page comes to the end of its budget', () => {
  for (const threshold of [undefined, 1]) {
    const vm = new BareMetal({ threshold });
    vm.cpu.setPstate(EL1H | MASKED);
    vm.cpu.setPc(BigInt(vm.place([NOP, b(-1)])));
    for (let n = 0; n < 50; n++) expect(vm.cpu.run(1000)).toBe(CpuStop.BUDGET);
  }
});
