import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { CpuStop } from '#lib/soft/cpu/cpu.js';
import {
  addImm,
  blr,
  bne,
  br,
  brk,
  ERET,
  hvc,
  ISB,
  load,
  mov,
  mrs,
  msr,
  NOP,
  RET,
  store,
  subsImm,
  tlbiVae1,
} from '../a64.ts';
import {
  type BareMetal,
  DATA,
  EL1H,
  MASKED,
  type PageTables,
  RAM,
  REG,
  SCTLR_ON,
  VECTORS,
  withMmu,
} from '../bare-metal.ts';
import { Lockstep } from './lockstep.ts';

/** Branch targets (FEAT_BTI) in every engine: where code is compiled, interrupted behind a branch, or mapped in two ways. */

const BTI_C = 0xd503_245f;
const BTI_J = 0xd503_249f;
const PACIASP = 0xd503_233f;
const BT1 = 1n << 36n;
const DONE = 1;
/** The same code, guarded here; where it is, it is not. */
const GUARDED = 0x10_0000_0000;
const at = (page: number, word = 0): number => page + word * 4;

let lockstep: Lockstep;
let tables: PageTables[];
beforeEach(() => {
  lockstep = new Lockstep();
  tables = [];
  lockstep.each((m) => {
    const t = withMmu(m, { sctlr: SCTLR_ON | BT1 });
    t.mapRange(DATA, DATA, 0x8000);
    tables.push(t);
  });
});
afterEach(() => lockstep.close());

const place = (words: readonly number[], where?: number): number => lockstep.same((m) => m.place(words, where));
/** Maps the page of code at an address of its own; returns that. */
function map(page: number, guarded: boolean, va = GUARDED + (page - RAM)): number {
  for (const t of tables) t.map(va, page, { guarded });
  return va;
}

/** Counts exceptions in X28 and adds up SPSR_EL1.BTYPE in X27 and ESR_EL1 in X26; then goes on at X30, with BTYPE 0. */
function onSync(): void {
  const handler = [
    addImm(28, 28, 1),
    mrs(29, REG.SPSR_EL1),
    0xd34a_2fbd, // ubfx x29, x29, #10, #2
    0x8b1d_037b, // add x27, x27, x29
    mrs(29, REG.ESR_EL1),
    0x8b1d_035a, // add x26, x26, x29
    ...mov(29, EL1H | MASKED),
    msr(REG.SPSR_EL1, 29),
    msr(REG.ELR_EL1, 30),
    ERET,
  ];
  for (const vector of [0x000, 0x200]) place(handler, VECTORS + vector);
}

function run(pc: number, x: Readonly<Record<number, number>>, budget: number, between?: () => void): void {
  lockstep.context = `slices of ${budget}`;
  lockstep.each(({ cpu }) => {
    cpu.setPstate(EL1H | MASKED);
    cpu.setPc(BigInt(pc));
    for (let n = 0; n < 31; n++) cpu.setX(n, BigInt(x[n] ?? 0));
  });
  for (let n = 0; ; n++) {
    if (n === 200_000) throw new Error('the program does not end');
    const { stop } = lockstep.step(budget);
    if (stop === CpuStop.BUDGET) {
      between?.();
      continue;
    }
    expect(stop).toBe(CpuStop.HVC);
    expect(lockstep.same((m) => m.cpu.hvcImmediate)).toBe(DONE);
    break;
  }
  lockstep.settle();
}
const everySlice = (pc: number, x: Readonly<Record<number, number>>, check: (m: BareMetal) => void): void => {
  const before = lockstep.regions;
  for (const budget of [1000, 1, 2, 3, 4, 5, 6, 7, 8, 11, 16, 23, 1000]) {
    run(pc, x, budget);
    lockstep.each(check);
  }
  expect(lockstep.regions).toBeGreaterThan(before);
};

test('calls and jumps to landing pads, from a guarded page and from one that is not', () => {
  onSync();
  const callee = place([BTI_C, addImm(1, 1, 1), br(5), NOP, BTI_J, addImm(2, 2, 1), RET]);
  const loop = [blr(4), subsImm(3, 3, 1), bne(-2), hvc(DONE)];
  const caller = place(loop);
  const to = map(callee, true);
  const x = { 3: 60, 4: at(to), 5: at(to, 4) };
  const check = (m: BareMetal): void => {
    expect([1, 2, 28].map((n) => m.cpu.getX(n))).toEqual([60n, 60n, 0n]);
  };
  everySlice(caller, x, check);
  everySlice(map(caller, true), x, check);
});

test('each branch to what is no landing pad takes an exception, however hot it is', () => {
  onSync();
  // BLR to BTI j, BLR to another instruction, BR X6 to BTI c, BR X6 to PACIASP, which SCTLR_EL1.BT1 forbids.
  const callee = place([BTI_J, RET, NOP, addImm(1, 1, 1), RET, NOP, BTI_C, RET, NOP, PACIASP, RET]);
  const to = map(callee, true);
  const adr30 = 0x1000_005e; // adr x30, #8
  const caller = map(place([blr(4), blr(5), adr30, br(6), adr30, br(7), subsImm(3, 3, 1), bne(-7), hvc(DONE)]), true);
  everySlice(caller, { 3: 60, 4: at(to), 5: at(to, 3), 6: at(to, 6), 7: at(to, 9) }, (m) => {
    expect(m.cpu.getX(28)).toBe(240n);
    const esr = 0x3600_0000n;
    expect(m.cpu.getX(26)).toBe(60n * (2n * (esr + 2n) + 2n * (esr + 3n)));
    expect(m.cpu.getX(27)).toBe(60n * (2n + 2n + 3n + 3n));
    expect(m.cpu.getX(1)).toBe(0n);
  });
});

test('an interrupt behind the branch: BTYPE is in SPSR_EL1, and comes back', () => {
  // The IRQ handler gathers SPSR_EL1.BTYPE in X25.
  place([mrs(29, REG.SPSR_EL1), 0xd34a_2fbd, 0xaa1d_0339, ERET], VECTORS + 0x280); // ubfx x29, x29, #10, #2; orr x25, x25, x29
  onSync();
  const callee = place([BTI_C, addImm(1, 1, 1), RET]);
  const bad = place([addImm(2, 2, 1), RET]);
  const to = map(callee, true);
  const caller = map(place([blr(4), blr(5), subsImm(3, 3, 1), bne(-3), hvc(DONE)]), true);
  for (let budget = 0; budget < 24; budget++) {
    let slice = 0;
    lockstep.each(({ cpu }) => cpu.setIrq(false));
    run(caller, { 3: 40, 4: to, 5: map(bad, true) }, budget, () => {
      slice++;
      lockstep.each(({ cpu }) => {
        cpu.setIrq(slice % 7 === 0);
        // Unmasked, but not where the handler runs.
        if (cpu.getPc() >= BigInt(GUARDED)) cpu.setPstate(cpu.getPstate() & ~0x80n);
      });
    });
    lockstep.each((m) => {
      expect([1, 2, 28].map((n) => m.cpu.getX(n))).toEqual([40n, 0n, 40n]);
      if (budget === 0) expect(m.cpu.getX(25)).toBe(2n);
    });
  }
});

test('BRK says which branch came to it, and none where another instruction was between', () => {
  onSync();
  const adr30 = 0x1000_005e; // adr x30, #8
  const caller = place([blr(4), blr(5), blr(6), adr30, br(4), subsImm(3, 3, 1), bne(-6), hvc(DONE)]);
  const callee = place([brk(1), NOP, brk(2)]);
  // Where the caller's page takes its entry in the table of fetches.
  const free = map(callee, false, GUARDED * 2 + (caller - RAM));
  const x = { 3: 60, 4: free, 5: at(free, 1), 6: map(callee, true) };
  const check =
    (jump: bigint) =>
    ({ cpu }: BareMetal): void => {
      expect([27, 28].map((n) => cpu.getX(n))).toEqual([60n * (2n + 0n + 2n + jump), 240n]);
    };
  everySlice(caller, x, check(1n));
  everySlice(map(caller, true), x, check(3n));
});

test('a page that is mapped as guarded and not, and becomes guarded while it is hot', () => {
  onSync();
  const callee = place([addImm(1, 1, 1), RET]);
  const guarded = map(callee, true);
  const free = map(callee, false, GUARDED * 2);
  const caller = place([blr(4), blr(5), subsImm(3, 3, 1), bne(-3), hvc(DONE)]);
  everySlice(caller, { 3: 60, 4: guarded, 5: free }, (m) => {
    expect([1, 28].map((n) => m.cpu.getX(n))).toEqual([60n, 60n]);
  });
  // The loop guards the page itself, half way.
  const leaf = lockstep.same(() => tables[0]!.entry(BigInt(free), 3));
  for (const t of tables) t.map(leaf & ~0xfff, leaf & ~0xfff);
  const guards = place([
    blr(5),
    load(8, 8, 7),
    0xb24e_0108, // orr x8, x8, #1 << 50
    store(8, 8, 7),
    tlbiVae1(6),
    ISB,
    blr(5),
    load(8, 8, 7),
    0x924d_f908, // and x8, x8, #~(1 << 50)
    store(8, 8, 7),
    tlbiVae1(6),
    ISB,
    subsImm(3, 3, 1),
    bne(-13),
    hvc(DONE),
  ]);
  everySlice(guards, { 3: 30, 5: free, 6: free / 4096, 7: leaf }, (m) => {
    expect([1, 28].map((n) => m.cpu.getX(n))).toEqual([30n, 30n]);
  });
});

test('a store to a page that is mapped in both ways is seen in both', () => {
  onSync();
  const callee = place([BTI_C, addImm(1, 1, 1), RET]);
  const guarded = map(callee, true);
  for (const t of tables) t.map(GUARDED * 3, callee);
  const free = map(callee, false, GUARDED * 2);
  // X8 and X9 are ADD X1, X1, #1 and #2; each round takes the other.
  const caller = place([
    0xb900_04e8, // str w8, [x7, #4]
    ISB,
    blr(4),
    blr(5),
    0xb900_04e9, // str w9, [x7, #4]
    ISB,
    blr(4),
    blr(5),
    subsImm(3, 3, 1),
    bne(-9),
    hvc(DONE),
  ]);
  everySlice(caller, { 3: 60, 4: guarded, 5: free, 7: GUARDED * 3, 8: addImm(1, 1, 1), 9: addImm(1, 1, 2) }, (m) => {
    expect([1, 28].map((n) => m.cpu.getX(n))).toEqual([360n, 0n]);
  });
});
