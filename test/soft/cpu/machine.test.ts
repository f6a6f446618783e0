import { beforeEach, describe, expect, test } from '@jest/globals';
import { type Cpu, CpuStop } from '#lib/soft/cpu/cpu.js';
import { createMachine } from '#lib/soft/cpu/machine.js';
import { br, hvc, load, mov, movz, NOP, store, subsImm, svc } from '../a64.ts';
import { BareMetal, DATA, EL0T, EL1H, EL1T, MASKED, mapFlat, RAM, REG, VECTORS } from '../bare-metal.ts';

const GIB = 2 ** 30;

/** A loop with memory, flags, multiplication and a system call in each round. */
const WORK = [
  ...mov(1, 0x9e37_79b9_7f4a_7c15n),
  load(8, 2, 0),
  0x9b017c42, // mul x2, x2, x1
  0xca423c42, // eor x2, x2, x2, lsr #15
  0xab0200a5, // adds x5, x5, x2
  0x9a0500c6, // adc x6, x6, x5
  store(8, 2, 0),
  svc(1),
  subsImm(3, 3, 1),
  (0x54000001 | ((-8 & 0x7ffff) << 5)) >>> 0,
  hvc(0),
];

describe.each([undefined, 1, 30])('budgets (threshold %s)', (threshold) => {
  const run = (budget: number): { state: (bigint | number)[]; slices: number } => {
    const vm = new BareMetal({ threshold });
    // SVC from EL1 returns at once.
    vm.place([0xd69f03e0], VECTORS + 0x200);
    const at = vm.place(WORK);
    vm.write64(DATA, 12345n);
    const { cpu } = vm;
    cpu.setPstate(EL1H | MASKED);
    cpu.setPc(BigInt(at));
    for (const [n, value] of [
      [0, BigInt(DATA)],
      [3, 700n],
      [5, 1n],
      [6, 2n],
    ] as const)
      cpu.setX(n, value);
    const start = cpu.instructions;
    let slices = 0;
    let stop: CpuStop;
    do {
      const before = cpu.instructions;
      stop = cpu.run(budget);
      slices++;
      // A block may overrun, not more.
      expect(cpu.instructions - before).toBeLessThan(budget + 200);
      expect(cpu.instructions).toBeGreaterThanOrEqual(before);
    } while (stop === CpuStop.BUDGET && slices < 20_000);
    expect(stop).toBe(CpuStop.HVC);
    const registers = Array.from({ length: 31 }, (_, n) => cpu.getX(n));
    return { state: [...registers, cpu.getPc(), cpu.getPstate(), vm.read64(DATA), cpu.instructions - start], slices };
  };
  test('the same program in one go and in slices of any size ends in the same state and count', () => {
    const whole = run(1_000_000);
    expect(whole.slices).toBe(1);
    // Per round: 9 instructions and an ERET; then 4 of MOV and the HVC.
    expect(whole.state.at(-1)).toBe(700 * 10 + 5);
    for (const budget of [0, 1, 2, 7, 100, 997]) {
      const sliced = run(budget);
      expect(sliced.slices).toBeGreaterThan(5);
      expect(sliced.state).toEqual(whole.state);
    }
  });
  test('are numbers from 0: what is not is the nearest', () => {
    const vm = new BareMetal({ threshold });
    vm.cpu.setPc(BigInt(vm.place([NOP, (0x14000000 | (-1 & 0x3ffffff)) >>> 0])));
    for (const budget of [-5, Number.NaN, 0.5]) {
      const before = vm.cpu.instructions;
      expect(vm.cpu.run(budget)).toBe(CpuStop.BUDGET);
      expect(vm.cpu.instructions - before).toBeLessThan(10);
    }
    const at = vm.place([hvc(0)]);
    vm.cpu.setPc(BigInt(at));
    expect(vm.cpu.run(Number.POSITIVE_INFINITY)).toBe(CpuStop.HVC);
  });
});

test('requestStop from inside a system register access ends the run there', () => {
  const CNTV_CTL = 0xdf19;
  const vm: BareMetal = new BareMetal({
    host: {
      writeSysreg: () => {
        vm.cpu.requestStop();
        return true;
      },
    },
  });
  // msr; b .: without the stop the branch would go on to the end of the budget.
  vm.cpu.setPstate(EL1H | MASKED);
  vm.cpu.setPc(BigInt(vm.place([(0xd5000000 | (CNTV_CTL << 5)) >>> 0, 0x14000000])));
  expect(vm.cpu.run(1_000_000)).toBe(CpuStop.BUDGET);
  expect(vm.cpu.instructions).toBeLessThan(10);
});

describe('vCPUs', () => {
  test('that take turns do not disturb each other', () => {
    const vm = new BareMetal();
    vm.place([0xd69f03e0], VECTORS + 0x200);
    const cpus = [vm.cpu, vm.createCpu(), vm.createCpu()];
    const at = vm.place(WORK);
    for (const [n, cpu] of cpus.entries()) {
      vm.write64(DATA + n * 8, 100n);
      cpu.setPstate(EL1H | MASKED);
      cpu.setPc(BigInt(at));
      cpu.setX(0, BigInt(DATA + n * 8));
      cpu.setX(3, 50n);
      cpu.setV(n, BigInt(n) << 100n);
    }
    const done = new Set<Cpu>();
    for (let round = 0; done.size < 3 && round < 10_000; round++) {
      const cpu = cpus[round % 3]!;
      if (!done.has(cpu) && cpu.run(1 + (round % 13)) === CpuStop.HVC) done.add(cpu);
    }
    expect(done.size).toBe(3);
    const states = cpus.map((cpu) => [1, 2, 3, 5, 6].map((n) => cpu.getX(n)));
    expect(states[1]).toEqual(states[0]);
    expect(states[2]).toEqual(states[0]);
    expect(cpus.map((cpu, n) => cpu.getV(n))).toEqual([0n, 1n << 100n, 2n << 100n]);
    expect(new Set(cpus.map((cpu) => cpu.instructions)).size).toBe(1);
  });

  test('their whole state goes through the getters and setters, at any EL, running or not', () => {
    const vm = new BareMetal();
    const from = vm.cpu;
    const to = vm.createCpu();
    for (const pstate of [
      EL0T | 0xf000_0000n,
      EL1T | MASKED,
      EL1H | (1n << 22n) | (1n << 23n) | (1n << 24n) | (1n << 12n) | (1n << 20n),
    ]) {
      for (let n = 0; n < 31; n++) from.setX(n, BigInt.asUintN(64, BigInt(n) * 0x0123_4567_89ab_cdefn));
      for (let n = 0; n < 32; n++)
        from.setV(n, BigInt.asUintN(128, BigInt(n) * 0x0123_4567_89ab_cdef_fedc_ba98_7654_3210n));
      from.setPstate(pstate);
      from.setSpEl1(0x5a50n);
      for (const [i, index] of from.sysregs().entries()) {
        if (index >> 14 === 3 && ((index >> 7) & 15) === 0) continue;
        expect(from.setSysreg(index, (BigInt(i) * 0x10_0000_0010n) & ~0x1fn)).toBe(true);
      }
      from.setPc(0x1234_5678n);
      // Another one runs in between, so that the state moves.
      vm.execute([NOP], { cpu: vm.createCpu() });
      for (let n = 0; n < 31; n++) to.setX(n, from.getX(n));
      for (let n = 0; n < 32; n++) to.setV(n, from.getV(n));
      to.setPstate(from.getPstate());
      for (const index of from.sysregs()) to.setSysreg(index, from.getSysreg(index)!);
      to.setPc(from.getPc());
      const all = (cpu: Cpu) => ({
        x: Array.from({ length: 31 }, (_, n) => cpu.getX(n)),
        v: Array.from({ length: 32 }, (_, n) => cpu.getV(n)),
        sysregs: cpu.sysregs().map((index) => cpu.getSysreg(index)),
        rest: [cpu.getPc(), cpu.getPstate(), cpu.getSpEl1()],
      });
      expect(all(to)).toEqual(all(from));
      expect(to.getPstate()).toBe(pstate);
      expect(to.getV(3)).toBe(3n * 0x0123_4567_89ab_cdef_fedc_ba98_7654_3210n);
    }
    expect(from.getSysreg(0xffff)).toBeUndefined();
    expect(from.setSysreg(0xffff, 1n)).toBe(false);
  });

  test('reset: registers, PSTATE and the MMU go, ID registers and interrupt inputs stay', () => {
    const vm = new BareMetal();
    const { cpu } = vm;
    const MIDR = 0xc000;
    cpu.setSysreg(MIDR, 0x1234n);
    vm.execute([movz(3, 7)]);
    cpu.setV(4, 1n);
    cpu.setSysreg(REG.SCTLR_EL1, 1n);
    cpu.setIrq(true);
    cpu.injectSerror(0n);
    cpu.reset();
    expect([cpu.getX(3), cpu.getV(4), cpu.getPc(), cpu.getPstate(), cpu.getSpEl1()]).toEqual([0n, 0n, 0n, 0x3c5n, 0n]);
    expect([cpu.getSysreg(MIDR), cpu.getSysreg(REG.VBAR_EL1), cpu.getSysreg(REG.SCTLR_EL1)]).toEqual([
      0x1234n,
      0n,
      0x00c5_0078n,
    ]);
    expect([cpu.pendingSerror, cpu.interruptPending]).toEqual([undefined, true]);
    cpu.setSysreg(REG.VBAR_EL1, BigInt(VECTORS));
    expect(vm.execute([NOP], { pstate: EL1H }).vector).toBe(0x280);
  });

  test('a destroyed one runs no more, and touching it harms nobody', () => {
    const vm = new BareMetal();
    const gone = [vm.createCpu(), vm.createCpu()];
    vm.execute([movz(1, 1)], { cpu: gone[0]! });
    for (const cpu of gone) {
      vm.machine.destroyCpu(cpu);
      vm.machine.destroyCpu(cpu);
    }
    const memory = vm.machine.allocate(0x40_0000)!;
    // Where the second one was.
    const given = vm.machine.allocate(0x10_0000)!;
    const fresh = vm.createCpu();
    const before = [fresh.getX(0), fresh.getPstate(), vm.cpu.getX(0)];
    for (const cpu of gone) {
      cpu.setX(0, -1n & 0xffff_ffffn);
      cpu.setPstate(0xf000_0000n);
      for (let asid = 1n; asid < 10n; asid++) cpu.setSysreg(REG.TTBR0_EL1, (asid << 48n) | 5n);
      cpu.setSysreg(REG.SCTLR_EL1, 1n);
      cpu.setIrq(true);
      expect(() => cpu.run(10)).toThrow('destroyed');
    }
    expect([fresh.getX(0), fresh.getPstate(), vm.cpu.getX(0)]).toEqual(before);
    for (const { bytes } of [memory, given]) expect(bytes.every((v) => v === 0)).toBe(true);
    expect(vm.execute([movz(1, 9)]).done).toBe(true);
    expect(vm.execute([movz(1, 9)], { cpu: fresh }).done).toBe(true);
  });
});

describe('memory', () => {
  let vm: BareMetal;
  beforeEach(() => {
    vm = new BareMetal();
  });
  const peek = (address: number) => vm.execute([load(8, 1, 0)], { x: { 0: address, 1: 0xbad } });
  const poke = (address: number, value: bigint) => vm.execute([store(8, 1, 0)], { x: { 0: address, 1: value } });

  test('is zeroed, mapped in parts, and the same bytes for guest and host', () => {
    const memory = vm.machine.allocate(0x4000)!;
    expect(memory.size).toBe(0x4000);
    vm.machine.map(0x1000, 0x1000, memory, 0x2000, false);
    vm.machine.map(0x8000_0000_00, 0x1000, memory, 0x1000, false);
    expect(poke(0x1ff8, 0x77n).done).toBe(true);
    expect(new DataView(memory.bytes.buffer, memory.bytes.byteOffset).getBigUint64(0x2ff8, true)).toBe(0x77n);
    memory.bytes[0x1000] = 9;
    expect(peek(0x8000_0000_00).done).toBe(true);
    expect(vm.cpu.getX(1)).toBe(9n);
    for (const outside of [0xff8, 0x2000, 0x8000_0010_00, 0x7fff_ffff_f8])
      expect(peek(outside).stop).toBe(CpuStop.MMIO);
  });

  test('that is unmapped is a device, though it was in the translation tables', () => {
    expect(peek(DATA).done).toBe(true);
    vm.machine.unmap(RAM, vm.memory.size);
    vm.machine.map(RAM, 0x10_0000, vm.memory, 0, false);
    expect(peek(DATA).stop).toBe(CpuStop.MMIO);
    expect(poke(DATA, 1n).stop).toBe(CpuStop.MMIO);
  });

  test('onDirty is told once a page, and again after rearm', () => {
    vm.normalMemory();
    const seen: number[] = [];
    const memory = vm.machine.allocate(0x4000)!;
    vm.machine.map(0x1_0000, 0x4000, memory, 0, false, (gfn) => seen.push(gfn));
    const flush = (): number[] => seen.splice(0).sort();
    peek(0x1_0000);
    expect(flush()).toEqual([]);
    poke(0x1_0000, 1n);
    poke(0x1_0008, 1n);
    expect(flush()).toEqual([0x10]);
    // Across two pages; by a pair; by an atomic.
    poke(0x1_1ffc, 1n);
    expect(flush()).toEqual([0x11, 0x12]);
    vm.execute([0xf8230001, 0xa9000001], { x: { 0: 0x1_3000, 3: 1 } });
    expect(flush()).toEqual([0x13]);
    vm.machine.rearm(0x1_1000, 0x1000);
    for (const page of [0x1_0000, 0x1_1000, 0x1_2000, 0x1_3000]) poke(page, 2n);
    expect(flush()).toEqual([0x11]);
    vm.machine.rearm(0x1_0000, 0x4000);
    // Another vCPU's stores count too.
    const other = vm.createCpu();
    vm.execute([store(8, 1, 0)], { x: { 0: 0x1_2000 }, cpu: other });
    poke(0x1_2000, 1n);
    expect(flush()).toEqual([0x12]);
    vm.machine.rearm(0x9_0000, 0x1000);
  });

  test('sizes that are none are refused', () => {
    for (const size of [0, -4096, 1, 4097, 1.5, Number.NaN, Number.POSITIVE_INFINITY]) {
      expect(() => vm.machine.allocate(size)).toThrow(RangeError);
    }
  });

  test('a limit counts what is in use, and what was freed is given again, zeroed', () => {
    const machine = createMachine({ maxMemory: 0x100_0000 });
    expect(machine.available).toBe(0x100_0000);
    expect(machine.allocate(0x100_1000)).toBeUndefined();
    const first = machine.allocate(0x80_0000)!;
    const second = machine.allocate(0x80_0000)!;
    expect([machine.available, machine.allocate(0x1000)]).toEqual([0, undefined]);
    first.bytes.fill(0xff);
    second.bytes.fill(0xff);
    const { byteOffset } = first.bytes;
    first.free();
    first.free();
    second.free();
    expect(machine.available).toBe(0x100_0000);
    // Neighbours that were freed are one range again.
    const both = machine.allocate(0x100_0000)!;
    expect(both.bytes.byteOffset).toBe(byteOffset);
    expect(both.bytes.every((v) => v === 0)).toBe(true);
    machine.close();
  });

  test('free takes the memory out of the guests address space', () => {
    const memory = vm.machine.allocate(0x1000)!;
    vm.machine.map(0x1000, 0x1000, memory, 0, false);
    expect(poke(0x1000, 5n).done).toBe(true);
    memory.free();
    expect(poke(0x1000, 5n).stop).toBe(CpuStop.MMIO);
    expect(vm.machine.allocate(0x1000)!.bytes.every((v) => v === 0)).toBe(true);
  });

  test('close, twice, and after it nothing breaks', () => {
    vm.machine.close();
    vm.machine.close();
    expect(() => vm.cpu.run(1)).toThrow();
    expect(vm.cpu.getX(0)).toBe(0n);
    vm.cpu.setX(0, 1n);
    vm.memory.free();
  });

  test('all that 32 bits can address: RAM, tables, decoded code and vCPUs beyond 2 GiB', () => {
    const machine = createMachine();
    const size = Math.floor(machine.available / GIB) * GIB;
    expect(size).toBe(3 * GIB);
    const memory = machine.allocate(size)!;
    machine.map(RAM, size, memory, 0, false);
    const cpu = machine.createCpu({ readSysreg: () => undefined, writeSysreg: () => false });
    const view = new DataView(memory.bytes.buffer, memory.bytes.byteOffset);
    const tables = RAM + 0x8000;
    const write64 = (pa: number, value: bigint): void => view.setBigUint64(pa - RAM, value, true);
    mapFlat(cpu, write64, tables, false);
    const offset = size - 0x10_0000;
    const code = RAM + offset;
    const put = (words: readonly number[], at = offset): void => {
      for (const [i, word] of words.entries()) view.setUint32(at + i * 4, word, true);
      memory.invalidate(at, words.length * 4);
    };
    // A loop that counts in memory, and whose MOVZ is written anew each time: 0, then 1, 2, … which X7 adds up.
    put([
      load(8, 1, 0),
      0x91000421, // add x1, x1, #1
      store(8, 1, 0),
      movz(6, 0),
      0x8b0600e7, // add x7, x7, x6
      0x11008084, // add w4, w4, #32
      store(4, 4, 5),
      subsImm(3, 3, 1),
      (0x54000001 | ((-8 & 0x7ffff) << 5)) >>> 0,
      hvc(0),
    ]);
    cpu.setPc(BigInt(code));
    cpu.setX(0, BigInt(code + 0x8000));
    cpu.setX(3, 2000n);
    cpu.setX(4, BigInt(movz(6, 0)));
    cpu.setX(5, BigInt(code + 12));
    expect(cpu.run(1_000_000)).toBe(CpuStop.HVC);
    expect([cpu.getX(7), view.getBigUint64(offset + 0x8000, true)]).toEqual([(1999n * 2000n) / 2n, 2000n]);
    // Across two pages, and out of the end of RAM.
    put([store(8, 1, 0), load(8, 2, 0), br(7)]);
    cpu.setX(0, BigInt(code + 0x3ffc));
    cpu.setX(1, 0x1122_3344_5566_7788n);
    cpu.setX(7, BigInt(RAM + size));
    cpu.setPc(BigInt(code));
    cpu.setSysreg(REG.VBAR_EL1, BigInt(code + 0x1_0000));
    put([hvc(3)], offset + 0x1_0200);
    expect([cpu.run(1000), cpu.hvcImmediate, cpu.getX(2)]).toEqual([CpuStop.HVC, 3, 0x1122_3344_5566_7788n]);
    expect(cpu.getSysreg(REG.FAR_EL1)).toBe(BigInt(RAM + size));
    machine.close();
  });
});

test('EL0 runs with what it is given', () => {
  const vm = new BareMetal();
  expect(vm.execute([movz(1, 5)], { pstate: EL0T }).done).toBe(true);
});
