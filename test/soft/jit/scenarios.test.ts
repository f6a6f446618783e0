import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { CpuStop } from '#lib/soft/cpu/cpu.js';
import {
  add,
  addImm,
  b,
  blr,
  bne,
  DSB,
  dcCvau,
  ERET,
  hvc,
  ISB,
  icIvau,
  ldp,
  ldrQ,
  ldtr,
  load,
  mov,
  mrs,
  msr,
  msrPan,
  msrSpSel,
  msrUao,
  RET,
  smc,
  store,
  stp,
  strPost,
  subsImm,
  svc,
  tlbiVae1,
  WFE,
  WFI,
  YIELD,
} from '../a64.ts';
import { type BareMetal, DATA, EL0T, EL1H, EL1T, MASKED, RAM, REG, VECTORS, withMmu } from '../bare-metal.ts';
import { Lockstep } from './lockstep.ts';
import { DONE, runScenario, type Scenario } from './scenario.ts';

/** What compiled code must get right besides computing: stops, faults, interrupts, and code that changes under it. */

/** RAM of a device's registers. */
const DEVICE = 0x0900_0000;
const movz = (rd: number, imm: number): number => (0xd2800000 | (imm << 5) | rd) >>> 0;
const FADD_D0_D0_D1 = 0x1e612800;
const LDP_POST = 0xa8c10000; // LDP Xt, Xt2, [Xn], #16
const ldpPost = (rt: number, rt2: number, rn: number): number => (LDP_POST | (rt2 << 10) | (rn << 5) | rt) >>> 0;

let lockstep: Lockstep;
beforeEach(() => {
  lockstep = new Lockstep();
});
afterEach(() => lockstep.close());

const everySlice = (scenario: Scenario, budgets?: readonly number[]): void => runScenario(lockstep, scenario, budgets);

/** Puts code at the same place in each machine. */
const place = (words: readonly number[], at?: number): number => lockstep.same((m) => m.place(words, at));
/** Places the handler of synchronous exceptions. */
const onSync = (...words: readonly number[]): void => {
  for (const vector of [0x000, 0x200, 0x400]) place([...words, ERET], VECTORS + vector);
};
/** The exception handler that skips the instruction, and counts in X28. */
const SKIP = [addImm(28, 28, 1), mrs(29, REG.ELR_EL1), addImm(29, 29, 4), msr(REG.ELR_EL1, 29)];
const x = (m: BareMetal, ...numbers: number[]): bigint[] => numbers.map((n) => m.cpu.getX(n));

describe('stops in a loop', () => {
  test('MMIO: each access with its PC and syndrome', () => {
    const at = place([
      load(4, 1, 0),
      add(2, 2, 1),
      store(4, 2, 0, 4),
      0x39802004, // ldrsb x4, [x0, #8]
      add(5, 5, 4),
      subsImm(3, 3, 1),
      bne(-6),
      hvc(DONE),
    ]);
    let reads = 0;
    let written: bigint[] = [];
    everySlice({
      start: () => {
        reads = 0;
        written = [];
        return { pc: at, x: { 0: DEVICE, 2: 0, 3: 40, 5: 0 } };
      },
      answer: (stop) => {
        expect(stop).toBe(CpuStop.MMIO);
        const access = lockstep.same(({ cpu }) => ({ ...cpu.access, value: cpu.access.value, pc: cpu.getPc() }));
        const offset = access.ipa - DEVICE;
        expect(access).toMatchObject({ isv: true, pc: BigInt(at + (offset === 0 ? 0 : offset === 4 ? 8 : 12)) });
        if (access.isWrite) written.push(access.value);
        else reads++;
        lockstep.each(({ cpu }) => {
          if (access.isWrite) cpu.skipInstruction();
          else cpu.completeRead(offset === 0 ? reads : 0xff, 0);
        });
      },
      check: (m) => {
        // 1 + 3 + 5 …: every other read is of the byte, which is -1.
        expect(x(m, 2, 5)).toEqual([1600n, 2n ** 64n - 40n]);
        expect(written.length).toBe(40);
        expect(written.at(-1)).toBe(1600n);
      },
    });
  });

  test('MMIO without a syndrome becomes an abort', () => {
    onSync(...SKIP);
    const at = place([ldp(1, 2, 0), stp(1, 2, 0), strPost(1, 0, 8), ldrQ(1, 0), subsImm(3, 3, 1), bne(-5), hvc(DONE)]);
    everySlice({
      start: () => ({ pc: at, x: { 0: DEVICE, 1: 11, 2: 22, 3: 30, 28: 0 } }),
      answer: () => {
        expect(lockstep.same(({ cpu }) => ({ ...cpu.access }))).toMatchObject({ isv: false, ipa: DEVICE });
        lockstep.each(({ cpu }) => cpu.injectExternalAbort());
      },
      check: (m) => expect(x(m, 0, 1, 2, 28)).toEqual([BigInt(DEVICE), 11n, 22n, 120n]),
    });
  });

  test('a fault at any place of a loop, with flags and registers half written on one way round or the other', () => {
    onSync(...SKIP);
    const at = place([
      ldpPost(5, 6, 0),
      add(7, 7, 5),
      load(8, 8, 5), // faults, with X7 written
      0xeb06011f, // cmp x8, x6
      bne(8),
      addImm(9, 9, 1),
      load(8, 10, 6), // faults, on this way alone
      0xab07014b, // adds x11, x10, x7
      mrs(12, REG.NZCV),
      add(13, 13, 12),
      0xfa470163, // ccmp x11, x7, #3, eq
      load(8, 14, 6, 8), // faults, with NZCV in their words
      0x9a8f05ef, // cinc x15, x15, ne
      subsImm(3, 3, 1),
      bne(-14),
      hvc(DONE),
    ]);
    // What X5 points to is X6 where the second way is taken.
    const pointers = [DATA, DATA + 64, DATA + 16, DEVICE, DEVICE, DATA + 64, DATA + 16, DATA + 64];
    everySlice({
      start: ({ memory }) => {
        const words = new BigUint64Array(memory.bytes.buffer, memory.bytes.byteOffset + DATA - RAM, 96);
        words[0] = BigInt(DATA + 64);
        words[2] = BigInt(DEVICE);
        for (let n = 0; n < 64; n++) words[32 + n] = BigInt(pointers[n % pointers.length]!);
        return { pc: at, x: { 0: DATA + 256, 3: 32, 7: 1, 9: 0, 13: 0, 15: 0, 28: 0 } };
      },
      answer: () => lockstep.each(({ cpu }) => cpu.injectExternalAbort()),
      check: (m) => {
        expect(x(m, 0, 3)).toEqual([BigInt(DATA + 256 + 512), 0n]);
        expect(x(m, 9, 28)).toEqual([16n, 24n]);
      },
    });
  });

  test('a fault behind two ways, of which one has written', () => {
    onSync(...SKIP);
    const at = place([
      b(1),
      0xb4000070, // cbz x16, over what writes
      addImm(17, 17, 1),
      addImm(18, 18, 2),
      load(8, 1, 0),
      add(17, 17, 18),
      hvc(DONE),
    ]);
    // What is compiled is what has run: first the way that has all of it.
    let way = 0n;
    everySlice({
      start: (m) => {
        if (m === lockstep.machines[0]) way ^= 1n;
        return { pc: at, x: { 0: DEVICE, 16: way, 17: 5, 18: 7, 28: 0 } };
      },
      answer: () => lockstep.each(({ cpu }) => cpu.injectExternalAbort()),
      check: (m) => expect(x(m, 17, 18, 28)).toEqual([12n + 3n * way, 7n + 2n * way, 1n]),
    });
  });

  test('WFI, WFE, YIELD, HVC, SMC', () => {
    const at = place([addImm(1, 1, 1), WFI, WFE, YIELD, hvc(7), smc(9), subsImm(3, 3, 1), bne(-7), hvc(DONE)]);
    let stops: CpuStop[] = [];
    everySlice({
      start: () => {
        stops = [];
        return { pc: at, x: { 1: 0, 3: 25 } };
      },
      answer: (stop) => {
        stops.push(stop);
        if (stop === CpuStop.HVC) expect(lockstep.same((m) => m.cpu.hvcImmediate)).toBe(7);
        if (stop === CpuStop.SMC) lockstep.each(({ cpu }) => cpu.skipInstruction());
      },
      check: (m) => {
        expect(m.cpu.getX(1)).toBe(25n);
        const round = [CpuStop.WFI, CpuStop.WFE, CpuStop.WFE, CpuStop.HVC, CpuStop.SMC];
        expect(stops).toEqual(Array.from({ length: 25 }, () => round).flat());
      },
    });
  });

  test('stores to read-only memory, and the first store to each page', () => {
    const ROM = 0x1000_0000;
    const LOGGED = 0x2000_0000;
    const marked = new Map<BareMetal, number[]>();
    lockstep.each((m) => {
      const memory = m.machine.allocate(0x4000)!;
      marked.set(m, []);
      m.machine.map(ROM, 0x1000, memory, 0, true);
      m.machine.map(LOGGED, 0x3000, memory, 0x1000, false, (gfn) => marked.get(m)!.push(gfn));
    });
    // Each round stores to ROM and 1 KiB on in the logged memory.
    const at = place([
      store(8, 3, 0),
      load(8, 4, 0),
      store(8, 3, 1),
      addImm(1, 1, 0x400),
      subsImm(3, 3, 1),
      bne(-5),
      hvc(DONE),
    ]);
    everySlice({
      start: (m) => {
        m.machine.rearm(LOGGED, 0x3000);
        marked.get(m)!.length = 0;
        return { pc: at, x: { 0: ROM, 1: LOGGED, 3: 12 } };
      },
      answer: () => {
        expect(lockstep.same(({ cpu }) => ({ ...cpu.access }))).toMatchObject({ isWrite: true, isv: true, ipa: ROM });
        lockstep.each(({ cpu }) => cpu.skipInstruction());
      },
      check: (m) => {
        expect(marked.get(m)).toEqual([0, 1, 2].map((n) => LOGGED / 0x1000 + n));
        expect(m.cpu.getX(4)).toBe(0n);
      },
    });
  });
});

describe('exceptions in a loop', () => {
  test('a pair that runs into a page that is not there', () => {
    onSync(...SKIP);
    const va = 0x8080_0000_0000n;
    lockstep.each((m) => {
      withMmu(m).map(va, DATA);
    });
    // From 64 bytes before the page's end on: the pair at its end faults in its second half, those after it in the first.
    const at = place([ldp(1, 2, 0), stp(3, 1, 0), ldrQ(1, 0), addImm(0, 0, 8), subsImm(3, 3, 1), bne(-5), hvc(DONE)]);
    everySlice({
      start: (m) => {
        for (let n = 0; n < 512; n++) m.write64(DATA + n * 8, BigInt(n));
        return { pc: at, x: { 0: va + 0xfc0n, 1: 0, 2: 0, 3: 12, 28: 0 } };
      },
      check: (m) => {
        // Seven pairs are there; five times three accesses fault, and leave the registers alone.
        expect(x(m, 2, 28)).toEqual([511n, 15n]);
        expect(m.sysreg(REG.FAR_EL1)).toBe(va + 0xfc0n + 11n * 8n);
      },
    });
  });

  test('one that writes back leaves the base alone', () => {
    const va = 0x8080_0000_0000n;
    lockstep.each((m) => {
      withMmu(m).map(va, DATA);
    });
    // The handler counts, and gives the pair a base from which it passes.
    onSync(addImm(28, 28, 1), add(27, 27, 0), addImm(0, 6, 0));
    const at = place([ldpPost(1, 2, 0), add(5, 5, 1), subsImm(3, 3, 1), bne(-3), hvc(DONE)]);
    everySlice({
      start: () => ({ pc: at, x: { 0: va + 0xf88n, 1: 0, 2: 0, 3: 30, 5: 0, 6: va + 0xf00n, 27: 0, 28: 0 } }),
      check: (m) => {
        // Seven pairs up to 0xff8, then sixteen from 0xf00 to 0x1000, and so on: the base of a fault is where it was.
        expect(x(m, 28, 27)).toEqual([2n, va + 0xff8n + va + 0x1000n]);
      },
    });
  });

  test('SVC from EL0 and EL1, both on the same pages', () => {
    const code = 0x40_0000n;
    const shared = 0x50_0000n;
    const kernel = 0x60_0000n;
    const text = place([
      // The same loop at both levels: reads X0, which EL0 may not where it is the kernel's.
      load(8, 1, 0),
      add(2, 2, 1),
      subsImm(3, 3, 1),
      bne(-3),
      svc(5),
      b(-5),
    ]);
    lockstep.each((m) => {
      const tables = withMmu(m);
      tables.map(code, text, { ap: 3 });
      tables.map(shared, DATA, { ap: 1 });
      tables.map(kernel, DATA + 0x1000, { ap: 0 });
    });
    // EL0's SVC goes on at EL1 with the kernel's page; its data aborts are skipped and counted.
    place(
      [
        mrs(29, REG.ESR_EL1),
        0xd35affbd, // lsr x29, x29, #26
        subsImm(29, 29, 0x15),
        bne(7),
        addImm(0, 9, 0),
        addImm(3, 10, 0),
        movz(8, Number(EL1H | MASKED)),
        msr(REG.SPSR_EL1, 8),
        msr(REG.ELR_EL1, 11),
        ERET,
        ...SKIP,
        ERET,
      ],
      VECTORS + 0x400,
    );
    // EL1's SVC is the end.
    place([hvc(DONE)], VECTORS + 0x200);
    for (const base of [shared, kernel]) {
      everySlice({
        start: (m) => {
          m.write64(DATA, 3n);
          m.write64(DATA + 0x1000, 5n);
          return { pc: code, pstate: EL0T, x: { 0: base, 1: 1, 2: 0, 3: 20, 9: kernel, 10: 30, 11: code, 28: 0 } };
        },
        // EL0 adds what it may read, or what X1 was; EL1 the kernel's word.
        check: (m) => expect(x(m, 2, 28)).toEqual(base === shared ? [20n * 3n + 30n * 5n, 0n] : [20n + 30n * 5n, 20n]),
      });
    }
  });

  test('SP that is misaligned now and then', () => {
    // The handler has a stack pointer of its own, and skips.
    onSync(...SKIP);
    const at = place([
      stp(1, 2, 31),
      0xa9bf0be1, // stp x1, x2, [sp, #-16]!
      0xa8c113e3, // ldp x3, x4, [sp], #16
      0x910043ff, // add sp, sp, #16
      load(8, 6, 31),
      0xd10043ff, // sub sp, sp, #16
      0x8b2563ff, // add sp, sp, x5
      store(1, 1, 31, 3),
      subsImm(0, 0, 1),
      bne(-9),
      hvc(DONE),
    ]);
    everySlice({
      start: ({ cpu }) => {
        cpu.setPstate(EL1T | MASKED);
        cpu.setSysreg(REG.SP_EL0, BigInt(DATA));
        return { pc: at, pstate: EL1T | MASKED, x: { 0: 40, 1: 0x11, 2: 0x22, 5: 4, 28: 0 } };
      },
      // Of four iterations one has SP aligned for four accesses, and the one before for its store.
      check: (m) => expect(x(m, 28)).toEqual([30n * 4n + 30n]),
    });
  });

  test('FP that is trapped now and then', () => {
    // The handler turns it on; the host turns it off between slices.
    onSync(addImm(28, 28, 1), ...mov(29, 3n << 20n), msr(REG.CPACR_EL1, 29), ISB);
    const at = place([FADD_D0_D0_D1, addImm(1, 1, 1), FADD_D0_D0_D1, subsImm(3, 3, 1), bne(-4), hvc(DONE)]);
    everySlice({
      start: ({ cpu }) => {
        cpu.setV(0, 0n);
        cpu.setV(1, 0x3ff0_0000_0000_0000n);
        cpu.setSysreg(REG.CPACR_EL1, 0n);
        return { pc: at, x: { 1: 0, 3: 50, 28: 0 } };
      },
      between: (n) => {
        if (n % 3 === 0) lockstep.each(({ cpu }) => cpu.setSysreg(REG.CPACR_EL1, BigInt(n % 2) << 20n));
      },
      check: (m) => {
        expect(m.cpu.getV(0)).toBe(0x4059_0000_0000_0000n); // 100
        expect(m.cpu.getX(28)).toBeGreaterThan(0n);
      },
    });
  });

  test('PAN, UAO and unprivileged accesses', () => {
    onSync(...SKIP);
    const user = 0x8080_0000_0000n;
    const kernel = 0x8080_0010_0000n;
    lockstep.each((m) => {
      const tables = withMmu(m);
      tables.map(user, DATA, { ap: 1 });
      tables.map(kernel, DATA + 0x1000);
    });
    const at = place([
      msrPan(1),
      load(8, 2, 0), // faults
      ldtr(2, 0),
      msrPan(0),
      load(8, 2, 0),
      ldtr(2, 1), // faults
      msrUao(1),
      ldtr(2, 1),
      store(8, 3, 1),
      msrUao(0),
      subsImm(3, 3, 1),
      bne(-11),
      hvc(DONE),
    ]);
    everySlice({
      start: () => ({ pc: at, x: { 0: user, 1: kernel, 3: 30, 28: 0 } }),
      check: (m) => expect(m.cpu.getX(28)).toBe(60n),
    });
  });

  test('the stack pointer that is selected', () => {
    const push = 0xf81f0fe1; // str x1, [sp, #-16]!
    const pop = 0xf84107e2; // ldr x2, [sp], #16
    const at = place([
      addImm(6, 6, 1),
      msrSpSel(0),
      push,
      addImm(1, 1, 1),
      push,
      msrSpSel(1),
      push,
      pop,
      push,
      msrSpSel(0),
      pop,
      add(5, 5, 2),
      subsImm(3, 3, 1),
      bne(-13),
      hvc(DONE),
    ]);
    everySlice({
      start: ({ cpu }) => {
        cpu.setSysreg(REG.SP_EL0, BigInt(DATA + 0x1000));
        cpu.setSpEl1(BigInt(DATA + 0x2000));
        return { pc: at, x: { 1: 0, 3: 30, 5: 0 } };
      },
      check: (m) => {
        expect(m.cpu.getX(5)).toBe((30n * 31n) / 2n);
        expect(m.sysreg(REG.SP_EL0)).toBe(BigInt(DATA + 0x1000 - 30 * 16));
        expect(m.cpu.getSpEl1()).toBe(BigInt(DATA + 0x2000 - 30 * 16));
      },
    });
  });

  test('two vCPUs take turns in the same loop', () => {
    const at = place([load(8, 1, 0), add(1, 1, 4), store(8, 1, 0), subsImm(3, 3, 1), bne(-4), hvc(DONE)]);
    const others = new Map(lockstep.machines.map((m) => [m, m.createCpu()]));
    const second = (m: BareMetal) => others.get(m)!;
    const before = lockstep.regions;
    for (let budget = 0; budget < 20; budget++) {
      lockstep.each((m) => {
        m.write64(DATA, 0n);
        for (const [cpu, step] of [
          [m.cpu, 1n],
          [second(m), 1000n],
        ] as const) {
          cpu.setPc(BigInt(at));
          cpu.setX(0, BigInt(DATA));
          cpu.setX(3, 100n);
          cpu.setX(4, step);
        }
      });
      const left = new Set([false, true]);
      for (let n = 0; left.size > 0; n++) {
        const isSecond = n % 2 === 1;
        if (left.has(isSecond) && lockstep.step(budget, isSecond ? second : undefined).stop === CpuStop.HVC)
          left.delete(isSecond);
      }
      lockstep.each((m) => expect(m.read64(DATA)).toBe(100_100n));
    }
    expect(lockstep.regions).toBeGreaterThan(before);
  });
});

describe('code that changes', () => {
  /** Counts in an immediate: the function at X0 begins with MOVZ X1, #n, and each round stores one with n + 1, in X4. */
  const rounds = (...synchronise: number[]): number[] => {
    const body = [
      blr(0),
      add(2, 2, 1),
      0x11008084 /* add w4, w4, #32 */,
      store(4, 4, 0),
      ...synchronise,
      subsImm(3, 3, 1),
    ];
    return [...body, bne(-body.length), hvc(DONE)];
  };
  const sum = (n: bigint): bigint => ((n - 1n) * n) / 2n;

  test.each([
    ['with cache maintenance', [dcCvau(0), DSB, icIvau(0), DSB, ISB]],
    ['with barriers only', [DSB, ISB]],
  ])('a function in another page, %s', (_name, synchronise) => {
    const f = place([movz(1, 0), RET]);
    const at = place(rounds(...synchronise));
    everySlice({
      start: (m) => {
        m.place([movz(1, 0)], f);
        return { pc: at, x: { 0: f, 2: 0, 3: 60, 4: movz(1, 0) } };
      },
      check: (m) => expect(m.cpu.getX(2)).toBe(sum(60n)),
    });
  });

  test('in the page of the loop that changes it', () => {
    const f = place([movz(1, 0), RET]);
    const at = place(rounds(DSB, ISB), f + 0x100);
    everySlice({
      start: (m) => {
        m.place([movz(1, 0)], f);
        return { pc: at, x: { 0: f, 2: 0, 3: 60, 4: movz(1, 0) } };
      },
      check: (m) => expect(m.cpu.getX(2)).toBe(sum(60n)),
    });
  });

  /** Does something in every 16th round of X3. */
  const now = (...words: number[]): number[] => [0xf2400c7f /* tst x3, #15 */, bne(1 + words.length), ...words];

  test('a loop that writes itself', () => {
    const change = now(0x11008084, store(4, 4, 0), ISB);
    const body = [movz(1, 0), add(2, 2, 1), ...change, subsImm(3, 3, 1)];
    const loop = [...body, bne(-body.length), hvc(DONE)];
    const at = place(loop);
    everySlice({
      start: (m) => {
        m.place(loop, at);
        return { pc: at, x: { 0: at, 2: 0, 3: 159, 4: movz(1, 0) } };
      },
      // Fifteen rounds of each number: before the rounds 144, 128 … 16 change it, after them 0 is the sixteenth.
      check: (m) => expect(m.cpu.getX(2)).toBe(16n * sum(10n) - 9n),
    });
  });

  test('a loop that stores to its own page, but not to its code', () => {
    const body = [...now(store(8, 3, 0)), load(8, 1, 0), add(2, 2, 1), subsImm(3, 3, 1)];
    const at = place([...body, bne(-body.length), hvc(DONE)]);
    everySlice({
      start: () => ({ pc: at, x: { 0: at + 0x800, 2: 0, 3: 160 } }),
      check: (m) => expect(m.cpu.getX(2)).toBe(16n * 16n * sum(11n)),
    });
  });

  test('through an alias, and by EL1 under EL0', () => {
    const alias = 0x8080_0000_0000n;
    const code = 0x8080_0010_0000n;
    lockstep.each((m) => {
      const tables = withMmu(m);
      tables.map(alias, DATA);
      tables.map(code, DATA);
    });
    place([movz(1, 0), RET], DATA);
    const at = place([
      blr(0),
      add(2, 2, 1),
      0x11008084,
      store(4, 4, 5),
      DSB,
      ISB,
      subsImm(3, 3, 1),
      bne(-7),
      hvc(DONE),
    ]);
    everySlice({
      start: (m) => {
        m.place([movz(1, 0)], DATA);
        return { pc: at, x: { 0: code, 2: 0, 3: 60, 4: movz(1, 0), 5: alias } };
      },
      check: (m) => expect(m.cpu.getX(2)).toBe(sum(60n)),
    });
  });

  test('another page under the same address', () => {
    const va = 0x8080_0000_0000n;
    const entries = new Map<BareMetal, { at: bigint; a: bigint; b: bigint }>();
    const tablesVa = 0x8080_0040_0000n;
    lockstep.each((m) => {
      const tables = withMmu(m);
      const at = tables.map(va, DATA);
      tables.map(tablesVa, at & ~0xfff);
      entries.set(m, {
        at: tablesVa + BigInt(at & 0xfff),
        a: tables.descriptor(DATA),
        b: tables.descriptor(DATA + 0x1000),
      });
    });
    place([movz(1, 3), RET], DATA);
    place([load(8, 1, 0, 0x800), RET], DATA + 0x1000);
    // Each round stores the other descriptor.
    const at = place([
      blr(0),
      add(2, 2, 1),
      store(8, 7, 6),
      DSB,
      tlbiVae1(8),
      DSB,
      ISB,
      0xca0900e7, // eor x7, x7, x9
      subsImm(3, 3, 1),
      bne(-9),
      hvc(DONE),
    ]);
    everySlice({
      start: (m) => {
        const { at: entry, a, b: other } = entries.get(m)!;
        m.write64(DATA + 0x1800, 7n);
        return { pc: at, x: { 0: va, 2: 0, 3: 60, 6: entry, 7: other, 8: va >> 12n, 9: a ^ other } };
      },
      check: (m) => expect(m.cpu.getX(2)).toBe(30n * 3n + 30n * 7n),
    });
  });

  test('a page that is code, then data, then other code', () => {
    const page = DATA;
    lockstep.each((m) => m.normalMemory(false));
    const at = place([
      // Calls the page's function, fills its place with data, adds that up, and writes the function anew, one word further on.
      blr(0),
      add(2, 2, 1),
      store(8, 3, 0),
      load(8, 6, 0),
      add(2, 2, 6),
      addImm(0, 0, 8),
      store(8, 4, 0), // movz x1, #9; ret
      ISB,
      subsImm(3, 3, 1),
      bne(-9),
      hvc(DONE),
    ]);
    const f = BigInt(movz(1, 9)) | (BigInt(RET) << 32n);
    everySlice({
      start: (m) => {
        m.place([movz(1, 9), RET], page);
        return { pc: at, x: { 0: page, 2: 0, 3: 60, 4: f } };
      },
      check: (m) => expect(m.cpu.getX(2)).toBe(60n * 9n + sum(61n)),
    });
  });

  test('the host writes between slices', () => {
    const at = place([movz(1, 0), add(2, 2, 1), subsImm(3, 3, 1), bne(-3), hvc(DONE)]);
    everySlice({
      start: () => ({ pc: at, x: { 2: 0, 3: 400 } }),
      between: (n) => {
        if (n % 5 === 0) place([movz(1, n % 1000)], at);
      },
      check: (m) => expect(m.cpu.getX(2)).toBeGreaterThanOrEqual(0n),
    });
  });

  test('functions that are hot before they are decoded', () => {
    // Calls 200 functions in pages of their own, once each; changes all, and calls them again.
    lockstep.each((m) => m.normalMemory(false));
    const COUNT = 200;
    const call = [blr(0), add(2, 2, 1), 0x91400400 /* add x0, x0, #1, lsl #12 */, subsImm(3, 3, 1), bne(-4)];
    const change = [store(4, 4, 0), 0x91400400, subsImm(3, 3, 1), bne(-3)];
    const again = [addImm(0, 6, 0), addImm(3, 7, 0)];
    const at = place([...call, ...again, ...change, ISB, ...again, ...call, hvc(DONE)]);
    everySlice(
      {
        start: (m) => {
          for (let n = 0; n < COUNT; n++) m.place([movz(1, 1), RET], DATA + n * 0x1000);
          return { pc: at, x: { 0: DATA, 2: 0, 3: COUNT, 4: movz(1, 1000), 6: DATA, 7: COUNT } };
        },
        check: (m) => expect(m.cpu.getX(2)).toBe(1001n * BigInt(COUNT)),
      },
      [1000, 3, 1],
    );
  });
});
