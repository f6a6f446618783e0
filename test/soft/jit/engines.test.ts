import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { CpuStop } from '#lib/soft/cpu/cpu.js';
import { Random } from '../../a64/random.ts';
import { addImm, ERET, hvc, mrs, msr } from '../a64.ts';
import { type BareMetal, CODE, DATA, EL0T, EL1H, EL1T, RAM, REG, VECTORS } from '../bare-metal.ts';
import { Lockstep } from './lockstep.ts';
import {
  ACKNOWLEDGE,
  BASES,
  COMPILABLE,
  DONE,
  encode,
  INDEX,
  loop,
  type Program,
  structured,
  tangle,
} from './programs.ts';

/**
 * Interpreting, compiling at once and compiling late must be the same machine: the same states and stops after the same number
 * of instructions, wherever a run ends. Random programs, in slices of every size; ELVISOR_SEED repeats a run.
 */

const random = new Random();

/** Data that programs work on: random before each run, compared after each slice. */
const WINDOW = 0x4000;
/** Where programs are: the end of this page and the ones after it. */
const PAGE = CODE + 0x1000;

/** An address without RAM. */
const DEVICE = 0x0900_0000;
/** Rows in one loop of the test that goes through all. */
const PER_LOOP = 16;

let lockstep: Lockstep;
/** What is below CODE before any program ran: page tables and vectors. */
let board: Uint8Array;
beforeAll(() => {
  lockstep = new Lockstep();
  lockstep.watch([DATA - WINDOW / 2, WINDOW]);
  lockstep.each((m) => {
    for (let n = 0; n < 16; n++) {
      // An exception skips an instruction; an interrupt is reported.
      const isInterrupt = n % 4 === 1;
      m.place(
        isInterrupt
          ? [addImm(27, 27, 1), hvc(ACKNOWLEDGE), ERET]
          : [mrs(29, REG.ELR_EL1), addImm(29, 29, 4), msr(REG.ELR_EL1, 29), ERET],
        VECTORS + n * 0x80,
      );
    }
  });
  board = lockstep.machines[0]!.memory.bytes.slice(0, CODE - RAM);
});
afterAll(() => lockstep.close());

/** A state to start from. */
interface Start {
  readonly pc: bigint;
  readonly pstate: bigint;
  readonly x: readonly bigint[];
  readonly v: readonly bigint[];
  readonly sp: bigint;
  readonly fpcr: bigint;
  readonly data: Uint8Array;
}

/** A program may have stored to what all of them need. */
function restoreBoard(m: BareMetal): void {
  if (Buffer.compare(m.memory.bytes.subarray(0, board.length), board) === 0) return;
  m.memory.bytes.set(board);
  m.memory.invalidate(0, board.length);
}

function load(program: Program): Start {
  lockstep.each(restoreBoard);
  const pc = PAGE + (program.beforePageEnd === 0 ? 0 : 0x1000 - program.beforePageEnd * 4);
  lockstep.each((m) => m.place(program.words, pc));
  const hex = program.words.map((w) => w.toString(16).padStart(8, '0')).join(' ');
  lockstep.context = `ELVISOR_SEED=${random.seed}, program at 0x${pc.toString(16)}: ${hex}`;
  const x = Array.from({ length: 31 }, () => random.interesting64());
  const somewhere = (): bigint =>
    BigInt(DATA + ((random.below(0x800) * 16 * (random.below(2) === 0 ? 1 : -1)) % (WINDOW / 4)));
  for (const base of BASES) x[base] = random.below(24) === 0 ? BigInt(random.pick([DEVICE, 0x10 ** 13])) : somewhere();
  x[INDEX] = BigInt(random.below(64));
  // RET before any call.
  x[16] = x[17] = x[30] = BigInt(pc);
  return {
    pc: BigInt(pc),
    pstate:
      random.pick([EL1H, EL1H, EL1T, EL0T]) | (BigInt(random.below(16)) << 28n) | (random.below(2) === 0 ? 0n : 0x80n),
    x,
    v: Array.from({ length: 32 }, () => (random.interesting64() << 64n) | random.interesting64()),
    sp: somewhere(),
    fpcr: random.below(2) === 0 ? 0n : BigInt(random.below(32)) << 22n,
    data: new Uint8Array(random.list64(WINDOW / 8).buffer),
  };
}

function begin(start: Start): void {
  lockstep.each((m) => {
    const { cpu } = m;
    cpu.setIrq(false);
    cpu.reset();
    cpu.setSysreg(REG.VBAR_EL1, BigInt(VECTORS));
    cpu.setSysreg(REG.CPACR_EL1, 3n << 20n);
    cpu.setSysreg(REG.FPCR, start.fpcr);
    cpu.setPstate(start.pstate);
    cpu.setSysreg(REG.SP_EL0, start.sp);
    cpu.setSpEl1(start.sp);
    start.x.forEach((value, n) => {
      cpu.setX(n, value);
    });
    start.v.forEach((value, n) => {
      cpu.setV(n, value);
    });
    cpu.setPc(start.pc);
    m.memory.bytes.set(start.data, DATA - WINDOW / 2 - RAM);
  });
}

/** Runs one slice and answers its stop; `false` once the program has ended. */
function slice(budget: number): boolean {
  const { stop } = lockstep.step(budget);
  switch (stop) {
    case CpuStop.MMIO: {
      const access = lockstep.same(({ cpu }) => ({ ...cpu.access }));
      lockstep.each(({ cpu }) => {
        if (!access.isv) cpu.injectExternalAbort();
        else if (access.isWrite) cpu.skipInstruction();
        else cpu.completeRead(0x8586_8788, 0x8182_8384);
      });
      break;
    }
    case CpuStop.HVC: {
      const immediate = lockstep.same(({ cpu }) => cpu.hvcImmediate);
      if (immediate === DONE) return false;
      if (immediate === ACKNOWLEDGE) lockstep.each(({ cpu }) => cpu.setIrq(false));
      break;
    }
    case CpuStop.SMC:
      lockstep.each(({ cpu }) => cpu.skipInstruction());
      break;
    default:
  }
  return true;
}

/** Runs a program in slices, at most so many; how many it took. */
function run(start: Start, slices: number, budget: () => number, interruptAfter = -1): number {
  begin(start);
  for (let n = 0; n < slices; n++) {
    if (n === interruptAfter) lockstep.each(({ cpu }) => cpu.setIrq(true));
    if (!slice(budget())) return n;
  }
  return slices;
}

describe.each([
  ['tangled', tangle],
  ['structured', structured],
] as const)('%s programs', (_name, make) => {
  test('in slices of any size', () => {
    const before = lockstep.regions;
    for (let n = 0; n < 150; n++) {
      const start = load(make(random));
      // First cold, then with what that found hot.
      for (let round = 0; round < 3; round++) {
        run(start, 40, () => random.below(40));
        lockstep.compareMemory();
        lockstep.settle();
      }
    }
    expect(lockstep.regions - before).toBeGreaterThan(300);
    expect(lockstep.reused).toBeGreaterThan(300);
  });

  test('in slices of every size', () => {
    const before = lockstep.regions;
    for (let n = 0; n < 30; n++) {
      const start = load(make(random));
      // What a run finds hot is compiled for the next.
      for (let budget = 0; budget < 32; budget++) {
        run(start, Math.ceil(400 / (budget + 4)), () => budget);
        lockstep.settle();
      }
      lockstep.compareMemory();
    }
    expect(lockstep.regions - before).toBeGreaterThan(30);
  });

  test('with an interrupt after every slice', () => {
    const before = lockstep.regions;
    for (let n = 0; n < 40; n++) {
      const start = load(make(random));
      const budget = random.below(4);
      const taken = run(start, 40, () => budget);
      for (let after = 0; after < taken; after++) {
        lockstep.settle();
        run(start, after + 8, () => budget, after);
      }
      lockstep.compareMemory();
    }
    expect(lockstep.regions - before).toBeGreaterThan(30);
  });
});

test('every instruction that a region may hold, in a loop', () => {
  const before = lockstep.regions;
  for (let at = 0; at < COMPILABLE.length; at += PER_LOOP) {
    const rows = COMPILABLE.slice(at, at + PER_LOOP);
    for (let round = 0; round < 3; round++) {
      const words = rows.flatMap((r) => encode(random, r) ?? []);
      const start = load(loop(words));
      for (let n = 0; n < 3; n++) {
        run(start, 12, () => 2 * words.length);
        lockstep.settle();
      }
    }
    lockstep.compareMemory();
  }
  expect(lockstep.regions - before).toBeGreaterThan(COMPILABLE.length / PER_LOOP);
});
