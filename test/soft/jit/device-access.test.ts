import { afterEach, describe, expect, test } from '@jest/globals';
import { CpuStop } from '#lib/soft/cpu/cpu.js';
import { add, addImm, b, bne, br, ERET, hvc, ldar, load, NOP, store, subsImm } from '../a64.ts';
import { type BareMetal, EL1H, MASKED, REG, VECTORS } from '../bare-metal.ts';
import { Lockstep } from './lockstep.ts';

/** Accesses to devices that are answered while compiled code runs: the host sees the state that the interpreter would show it. */

const DEVICE = 0x0900_0000;
const DONE = 1;
const EL1_IRQ = VECTORS + 0x280;
const ADDS_X12_X1_X2 = 0xab02002c;
const SUBS_X12_X1_X2 = 0xeb02002c;
const CSET_X13_CS = 0x9a9f37ed;
const LDRSB_X4_X0_16 = 0x39804004;
const tbz = (rt: number, bit: number, words: number): number => (0x36000000 | (bit << 19) | (words << 5) | rt) >>> 0;

/** What the host sees of an access, and does about it before it is answered. */
interface Seen {
  readonly log: string[];
  inCode: number;
}

let lockstep: Lockstep | undefined;
afterEach(() => lockstep?.close());

/**
 * Runs a program from its start to HVC #{@link DONE}, in slices of several sizes, on machines whose host answers all accesses.
 * @param before called for each access, with how many there were: true has it answered, false leaves it to who called `run()`, and
 * after 'instead' something else has been done
 * @returns how many accesses compiled code made itself
 */
function run(
  program: (place: (words: readonly number[], at?: number) => number) => number,
  x: Readonly<Record<number, number>>,
  before: (m: BareMetal, count: number) => boolean | 'instead' = () => true,
  pstate = EL1H | MASKED,
): number {
  const seen = new Map<BareMetal, Seen>();
  const answer = (m: BareMetal): void => {
    const { log } = seen.get(m)!;
    const { access } = m.cpu;
    if (access.isWrite) m.cpu.skipInstruction();
    else m.cpu.completeRead(Math.imul(log.length, 0x9e37_79b1), log.length);
  };
  const mmio = (m: BareMetal): boolean => {
    const s = seen.get(m)!;
    const { cpu } = m;
    const { ipa, size, isWrite, isv, value } = cpu.access;
    const registers = Array.from({ length: 16 }, (_, n) => cpu.getX(n).toString(16));
    const line = [cpu.getPc().toString(16), cpu.instructions, cpu.getPstate().toString(16), ipa, size, isWrite, isv];
    s.log.push([...line, isWrite ? value : '', ...registers].join(' '));
    if ((new Error('where').stack ?? '').includes('guest EL1')) s.inCode++;
    const what = before(m, s.log.length);
    if (what === true) answer(m);
    return what !== false;
  };
  lockstep = new Lockstep({ mmio });
  const { machines } = lockstep;
  for (const m of machines) seen.set(m, { log: [], inCode: 0 });
  const at = lockstep.same((m) => program((words, to) => m.place(words, to)));
  for (const slice of [1000, 300, 65]) {
    lockstep.context = `slices of ${slice}`;
    for (const m of machines) {
      seen.get(m)!.log.length = 0;
      for (let n = 0; n < 31; n++) m.cpu.setX(n, BigInt(x[n] ?? 0));
      m.cpu.setPstate(pstate);
      m.cpu.setPc(BigInt(at));
    }
    for (let n = 0; ; n++) {
      if (n === 20_000) throw new Error('the program does not end');
      const { stop } = lockstep.step(slice);
      if (stop === CpuStop.HVC && lockstep.same((m) => m.cpu.hvcImmediate) === DONE) break;
      if (stop === CpuStop.MMIO) for (const m of machines) answer(m);
      else if (stop !== CpuStop.BUDGET) throw new Error(`the program stops with ${stop}`);
    }
    const [interpreted, ...others] = machines.map((m) => seen.get(m)!.log);
    for (const other of others) expect(other).toEqual(interpreted);
    lockstep.compareMemory();
    lockstep.settle();
  }
  const [interpreted, compiled] = machines.map((m) => seen.get(m)!.inCode);
  expect(interpreted).toBe(0);
  return compiled!;
}

/** Reads the device at X0 until X3 is 0. */
const LOOP = [load(4, 1, 0), add(2, 2, 1), subsImm(3, 3, 1), bne(-3), hvc(DONE)];

describe('an access to a device in compiled code', () => {
  test('is answered there, with exact registers, flags, PC and count of instructions', () => {
    const inCode = run(
      (place) =>
        place([
          subsImm(9, 3, 10),
          load(4, 1, 0),
          bne(2),
          addImm(10, 10, 1),
          tbz(1, 0, 3),
          ADDS_X12_X1_X2,
          b(2),
          SUBS_X12_X1_X2,
          // Here one operation or the other has set the flags.
          store(8, 12, 0, 8),
          CSET_X13_CS,
          LDRSB_X4_X0_16,
          ldar(5, 6),
          load(2, 31, 0, 6),
          store(1, 31, 0, 3),
          add(2, 2, 5),
          add(14, 14, 4),
          subsImm(3, 3, 1),
          bne(-17),
          hvc(DONE),
        ]),
      { 0: DEVICE, 3: 40, 6: DEVICE + 0x40 },
    );
    expect(inCode).toBeGreaterThan(300);
  });

  test('is made with the flags that another region has left', () => {
    const inCode = run(
      (place) => {
        const at = 0x4002_0000;
        place([load(4, 1, 0), CSET_X13_CS, add(14, 14, 13), subsImm(3, 3, 1), br(11)], at + 0x1000);
        place([br(12), hvc(DONE)], at + 0x2000);
        return place([subsImm(9, 3, 20), br(10)], at);
      },
      { 0: DEVICE, 3: 40, 10: 0x4002_1000, 11: 0x4002_2000, 12: 0x4002_0000 },
      ({ cpu }, count) => {
        if (count % 40 === 39) cpu.setX(12, 0x4002_2004n);
        return true;
      },
    );
    expect(inCode).toBeGreaterThan(50);
  });

  test('may be of RAM now and of a device then', () => {
    const inCode = run(
      // X0 goes through RAM's last words into the device behind it, and begins anew.
      (place) =>
        place([load(8, 1, 0), store(8, 3, 0), addImm(0, 0, 8), add(2, 2, 1), subsImm(3, 3, 1), bne(-5), hvc(DONE)]),
      { 0: 0x4080_0000 - 20 * 8, 3: 40 },
    );
    expect(inCode).toBeGreaterThan(50);
  });

  test('is left to who called run() where the host does not answer it', () => {
    const inCode = run(
      (place) => place(LOOP),
      { 0: DEVICE, 3: 60 },
      (_, count) => count % 3 !== 0,
    );
    expect(inCode).toBeGreaterThan(100);
  });

  test('is the last instruction before an interrupt that it raises', () => {
    const inCode = run(
      (place) => {
        place([addImm(20, 20, 1), store(4, 31, 0, 0x100), ERET], EL1_IRQ);
        return place(LOOP);
      },
      { 0: DEVICE, 3: 60 },
      ({ cpu }, count) => {
        if (cpu.access.ipa === DEVICE + 0x100) cpu.setIrq(false);
        else if (count % 5 === 0) cpu.setIrq(true);
        return true;
      },
      EL1H,
    );
    expect(inCode).toBeGreaterThan(100);
    lockstep!.each((m) => expect(m.cpu.getX(20)).toBeGreaterThan(10n));
  });

  test('ends the run where the host asks for that', () => {
    run(
      (place) => place(LOOP),
      { 0: DEVICE, 3: 60 },
      ({ cpu }, count) => {
        if (count % 4 === 0) cpu.requestStop();
        return true;
      },
    );
  });

  test('goes on where the host puts PC, with what it puts into registers and flags', () => {
    const loop = [load(4, 1, 0), CSET_X13_CS, add(15, 15, 13), subsImm(3, 3, 1), bne(-4), hvc(DONE)];
    const inCode = run(
      (place) => place([...loop, addImm(2, 2, 1), add(2, 2, 7), b(-loop.length - 2)]),
      { 0: DEVICE, 3: 120 },
      ({ cpu }, count) => {
        if (count % 40 === 1) cpu.setX(7, BigInt(count));
        if (count % 40 === 2) cpu.setPstate(cpu.getPstate() ^ 0xf000_0000n);
        // Its answer moves PC on by an instruction.
        if (count % 40 === 3) cpu.setPc((cpu.getPc() & ~0xfffn) + BigInt(loop.length * 4 - 4));
        return true;
      },
    );
    expect(inCode).toBeGreaterThan(200);
  });

  test('is an exception instead where the host injects one', () => {
    run(
      (place) => {
        place([addImm(21, 21, 1), hvc(DONE)], VECTORS + 0x200);
        return place(LOOP);
      },
      { 0: DEVICE, 3: 60 },
      ({ cpu }, count) => {
        if (count !== 40) return true;
        cpu.injectUndefined();
        return 'instead';
      },
    );
    lockstep!.each((m) => expect([m.cpu.getX(21), m.cpu.getSysreg(REG.ESR_EL1)]).toEqual([1n, 0x200_0000n]));
  });

  test('is followed by the code that the host puts there', () => {
    const inCode = run(
      (place) => place([load(4, 1, 0), NOP, subsImm(3, 3, 1), bne(-3), hvc(DONE)]),
      { 0: DEVICE, 3: 120 },
      (m, count) => {
        if (count % 30 === 0) m.place([count % 60 === 0 ? NOP : addImm(8, 8, 1)], Number(m.cpu.getPc()) + 4);
        return true;
      },
    );
    expect(inCode).toBeGreaterThan(100);
    lockstep!.each((m) => expect(m.cpu.getX(8)).toBe(60n));
  });

  test('leaves exact state behind where the host throws', () => {
    let left = 0;
    const mmio = ({ cpu }: BareMetal): boolean => {
      if (left-- === 0) throw new Error('out of order');
      cpu.completeRead(left, 0);
      return true;
    };
    lockstep = new Lockstep({ mmio });
    const at = lockstep.same((m) => m.place(LOOP));
    const start = (count: number, answered: number) => (m: BareMetal) => {
      left = answered;
      m.cpu.setX(0, BigInt(DEVICE));
      m.cpu.setX(2, 0n);
      m.cpu.setX(3, BigInt(count));
      m.cpu.setPc(BigInt(at));
    };
    lockstep.each((m) => {
      start(50, 100)(m);
      m.run();
    });
    lockstep.settle();
    lockstep.each((m) => {
      start(50, 12)(m);
      expect(() => m.run()).toThrow('out of order');
      expect([m.cpu.getX(2), m.cpu.getX(3), m.cpu.getPc()]).toEqual([66n, 38n, BigInt(at)]);
      expect(m.cpu.instructions).toBe(50 * 4 + 1 + 12 * 4);
      // No code waits for the answer any more, whoever gives it.
      m.cpu.completeRead(7, 0);
      expect([m.cpu.getX(1), m.cpu.getPc()]).toEqual([7n, BigInt(at + 4)]);
      left = 100;
      m.cpu.setPc(BigInt(m.place([load(4, 5, 0), hvc(DONE)])));
      m.run();
      expect(m.cpu.getX(5)).toBe(99n);
    });
  });
});
