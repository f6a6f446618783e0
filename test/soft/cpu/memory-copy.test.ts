import { beforeEach, describe, expect, test } from '@jest/globals';
import { sysregIndex } from '#lib/kvm/registers.js';
import { CpuStop } from '#lib/soft/cpu/cpu.js';
import { Random } from '../../a64/random.ts';
import { cpy, E, hvc, M, memset, msrPan, NOP, P } from '../a64.ts';
import { BareMetal, DATA, EL0T, EL1H, MASKED, type PageTables, RAM, REG, SCTLR_ON, withMmu } from '../bare-metal.ts';
import { D, KDE, MDE, SS, WCR, WVR, wcr } from './debug.ts';

/** Memory copies and sets (FEAT_MOPS): what memmove and memset do, wherever they are stopped and go on. */

const PAGE = 4096;
const PAGES = 96;
const VA = 0x10_0000_0000n;
const SIZE = PAGES * PAGE;
const MSCEN = 1n << 33n;
const OPTION_A = 1 << 16;
const WRONG_OPTION = 1 << 17;
const EPILOGUE = 1 << 18;
const SET = 1 << 24;
const EC = { UNKNOWN: 0, COPY: 0x27, ABORT: 0x25, WATCHPOINT: 0x35 } as const;
const WNR = 1 << 6;
/** Registers: X`rd`, X`rs`, X`rn`. */
const R = { rd: 3, rs: 7, rn: 12 } as const;
const KINDS = ['CPYF', 'CPY', 'SET'] as const;
type Kind = (typeof KINDS)[number];

const word = (
  kind: Kind,
  stage: number,
  registers: { rd: number; rs: number; rn: number; options?: number } = R,
): number => (kind === 'SET' ? memset(stage, registers) : cpy(stage, kind === 'CPY', registers));
const program = (kind: Kind): number[] => [word(kind, P), word(kind, M), word(kind, E)];

let vm: BareMetal;
let tables: PageTables;
/** The physical page of each virtual one: neighbours are none. */
let frames: number[];
beforeEach(() => {
  vm = new BareMetal();
  tables = withMmu(vm, { sctlr: SCTLR_ON | MSCEN });
  const random = new Random(7);
  frames = Array.from({ length: PAGES }, (_, n) => DATA + ((n * 37) % PAGES) * PAGE);
  frames.forEach((frame, n) => {
    tables.map(VA + BigInt(n * PAGE), frame, { ap: 1 });
    vm.memory.bytes.set(new Uint8Array(random.list64(PAGE / 8).buffer), frame - RAM);
  });
});

const contents = (): Uint8Array => {
  const out = new Uint8Array(SIZE);
  for (const [n, frame] of frames.entries())
    out.set(vm.memory.bytes.subarray(frame - RAM, frame - RAM + PAGE), n * PAGE);
  return out;
};
const unmap = (page: number): void => vm.write64(tables.entry(VA + BigInt(page * PAGE), 3), 0n);
const remap = (page: number): void => void tables.map(VA + BigInt(page * PAGE), frames[page]!, { ap: 1 });
const x = (n: number): bigint => vm.cpu.getX(n);

interface Job {
  readonly kind: Kind;
  readonly to: number;
  readonly from: number;
  readonly size: number;
}
/** What memory is afterwards. */
function model({ kind, to, from, size }: Job): Uint8Array {
  const out = contents();
  if (kind === 'SET') out.fill(0xa5, to, to + size);
  else out.copyWithin(to, from, from + size);
  return out;
}
const registersOf = ({ kind, to, from, size }: Job): Record<number, bigint> => ({
  [R.rd]: VA + BigInt(to),
  [R.rs]: kind === 'SET' ? 0x77_00a5n : VA + BigInt(from),
  [R.rn]: BigInt(size),
});
function randomJob(random: Random, most: number): Job {
  const kind = random.pick(KINDS);
  const size = random.pick([0, 1, random.below(64), random.below(PAGE), random.below(most)]);
  const to = random.below(SIZE - size);
  // Near each other, or anywhere.
  let from = random.below(2) === 0 ? random.below(SIZE - size) : Math.max(0, to - size + random.below(2 * size + 1));
  from = Math.min(from, SIZE - size);
  // CPYF only goes forwards.
  if (kind === 'CPYF' && from < to && from + size > to) from = to;
  return { kind, to, from, size };
}
/** Where memory is not as it should be, as the first few offsets. */
function differing(wanted: Uint8Array): number[] {
  const now = contents();
  const out: number[] = [];
  for (let i = 0; i < SIZE && out.length < 4; i++) if (now[i] !== wanted[i]) out.push(i);
  return out;
}

function checkEnd(job: Job): void {
  expect(x(R.rn)).toBe(0n);
  const isBackwards = job.kind === 'CPY' && job.from < job.to && job.from + job.size > job.to;
  expect(x(R.rd)).toBe(VA + BigInt(job.to + (isBackwards ? 0 : job.size)));
  if (job.kind !== 'SET') expect(x(R.rs)).toBe(VA + BigInt(job.from + (isBackwards ? 0 : job.size)));
  expect(vm.cpu.getPstate() >> 28n).toBe(0n);
}

test('what memmove and memset do, to every byte', () => {
  const random = new Random();
  for (let n = 0; n < 130; n++) {
    // Each of the sizes that have a way of their own, too.
    const job = n < 66 ? { ...randomJob(random, 2), size: n } : randomJob(random, SIZE / 2);
    if (job.to + job.size > SIZE || job.from + job.size > SIZE) continue;
    if (job.kind === 'CPYF' && job.from < job.to && job.from + job.size > job.to) continue;
    const wanted = model(job);
    const o = vm.execute(program(job.kind), {
      x: registersOf(job),
      at: RAM + 0x2_0000,
      pstate: EL1H | MASKED | (15n << 28n),
    });
    expect({ seed: random.seed, job, done: o.done, wrong: differing(wanted) }).toEqual({
      seed: random.seed,
      job,
      done: true,
      wrong: [],
    });
    checkEnd(job);
  }
});

test('pages that are not there: the first byte that cannot be accessed is told, what was done stays, and it goes on', () => {
  const random = new Random();
  let aborts = 0;
  for (let n = 0; n < 80; n++) {
    let job = randomJob(random, 20 * PAGE);
    // Half of them little, where pages end.
    if (n % 2 === 0) {
      const near = (): number => (1 + random.below(PAGES - 2)) * PAGE - random.below(64);
      job = { kind: random.pick(KINDS), to: near(), from: near(), size: 1 + random.below(64) };
      if (Math.abs(job.to - job.from) < PAGE) continue;
    }
    const wanted = model(job);
    const before = contents();
    const missing = new Set(
      Array.from(
        { length: 6 },
        () =>
          Math.floor((random.below(2) === 0 ? job.to : job.from) / PAGE) + random.below(Math.ceil(job.size / PAGE) + 1),
      ).filter((page) => page < PAGES),
    );
    for (const page of missing) unmap(page);
    vm.execute([0xd508_871f, 0xd503_3fdf], { at: RAM + 0x3_0000 }); // tlbi vmalle1; isb
    const start = vm.place([...program(job.kind), hvc(0)], RAM + 0x2_0000);
    let o = vm.start(start, { x: registersOf(job) });
    const isBackwards = job.kind === 'CPY' && job.from < job.to && job.from + job.size > job.to;
    for (let turn = 0; !o.done; turn++) {
      aborts++;
      if (o.elr === BigInt(start)) {
        // A little is the prologue's own: it begins again.
        const page = Number((o.far - VA) / BigInt(PAGE));
        const [base, offset] = (o.iss & WNR) !== 0 ? [job.to, R.rd] : [job.from, R.rs];
        expect([turn < 20, o.ec, missing.delete(page), x(offset)]).toEqual([true, EC.ABORT, true, VA + BigInt(base)]);
        expect(o.far).toBe(VA + BigInt(Math.max(base, page * PAGE)));
        remap(page);
        o = vm.start(start, { pstate: o.spsr });
        continue;
      }
      expect([turn < 20, o.ec, o.iss & ~(WNR | 3), o.elr]).toEqual([true, EC.ABORT, 4, BigInt(start + 4)]);
      const isWrite = (o.iss & WNR) !== 0;
      // Where it stopped, by the registers.
      const left = BigInt.asIntN(64, x(R.rn));
      expect(left > 0n).toBe(isBackwards);
      const at = (base: bigint): bigint => base + left - (isBackwards ? 1n : 0n);
      expect(o.far).toBe(at(isWrite ? x(R.rd) : x(R.rs)));
      const page = Number((o.far - VA) / BigInt(PAGE));
      expect(missing.delete(page)).toBe(true);
      const done = job.size - Number(left < 0n ? -left : left);
      const now = contents();
      const isDone = (i: number): boolean => (isBackwards ? i >= job.size - done : i < done);
      const wrong: number[] = [];
      for (let i = 0; i < job.size && wrong.length < 4; i++)
        if (now[job.to + i] !== (isDone(i) ? wanted : before)[job.to + i]) wrong.push(i);
      expect({ seed: random.seed, job, wrong }).toEqual({ seed: random.seed, job, wrong: [] });
      remap(page);
      o = vm.start(Number(o.elr), { x: {}, pstate: o.spsr });
    }
    for (const page of missing) remap(page);
    expect({ seed: random.seed, job, wrong: differing(wanted) }).toEqual({ seed: random.seed, job, wrong: [] });
    checkEnd(job);
  }
  expect(aborts).toBeGreaterThan(10);
});

test.each(KINDS)('%s of much is interrupted on its way, and goes on', (kind) => {
  const job = { kind, to: 5, from: 17, size: SIZE - 100 };
  const wanted = model(job);
  const start = vm.place([...program(kind), hvc(0)]);
  const { cpu } = vm;
  for (const [n, value] of Object.entries(registersOf(job))) cpu.setX(Number(n), value);
  cpu.setPstate(EL1H | (MASKED & ~0x80n));
  cpu.setPc(BigInt(start));
  const lefts = new Set<bigint>();
  for (let turn = 0; ; turn++) {
    expect(turn).toBeLessThan(100);
    const stop = cpu.run(1);
    if (stop === CpuStop.HVC && cpu.hvcImmediate === 0) break;
    if (stop === CpuStop.BUDGET) {
      if (cpu.getPc() === BigInt(start + 4)) lefts.add(x(R.rn));
      cpu.setIrq(true);
      continue;
    }
    expect([stop, cpu.hvcImmediate & 0x7ff, vm.sysreg(REG.ELR_EL1) - BigInt(start) <= 12n]).toEqual([
      CpuStop.HVC,
      0x280,
      true,
    ]);
    cpu.setIrq(false);
    const elr = vm.sysreg(REG.ELR_EL1);
    cpu.setPstate(vm.sysreg(REG.SPSR_EL1));
    cpu.setPc(elr);
  }
  expect(lefts.size).toBeGreaterThan(4);
  expect(differing(wanted)).toEqual([]);
  checkEnd(job);
});

test('sizes: the largest that a prologue takes, and the direction that it chooses', () => {
  const random = new Random();
  const low = (v: bigint): bigint => BigInt.asUintN(56, v);
  for (let n = 0; n < 200; n++) {
    const kind = random.pick(KINDS);
    const size = random.pick([
      random.u64(),
      random.u64() >> 8n,
      (1n << 63n) - 1n,
      1n << 55n,
      65n + BigInt(random.below(1000)),
    ]);
    const to = random.u64();
    const from = random.below(2) === 0 ? random.u64() : BigInt.asUintN(64, to + BigInt(random.below(2000) - 1000));
    const o = vm.execute([word(kind, P)], { x: { [R.rd]: to, [R.rs]: from, [R.rn]: size }, at: RAM + 0x2_0000 });
    expect(o.done).toBe(true);
    const largest = kind === 'CPY' ? (1n << 55n) - 1n : (1n << 63n) - 1n;
    const taken = size > largest ? largest : size;
    const isBackwards = kind === 'CPY' && low(from) < low(to) && low(to) < low(from + taken);
    const end = (a: bigint): bigint => BigInt.asUintN(64, isBackwards ? a : a + taken);
    expect({ seed: random.seed, kind, x: [R.rd, R.rs, R.rn].map(x) }).toEqual({
      seed: random.seed,
      kind,
      x: [end(to), kind === 'SET' ? from : end(from), BigInt.asUintN(64, isBackwards ? taken : -taken)],
    });
  }
});

describe.each([
  ['main', M, 0],
  ['epilogue', E, EPILOGUE],
] as const)('%s', (_name, stage, epilogue) => {
  test.each([EL0T, EL1H])(
    'prepared for Option B (PSTATE 0x%s): the syndrome says all that the instruction is',
    (mode) => {
      for (const kind of KINDS) {
        const options = kind === 'SET' ? 2 : 9;
        const at = RAM + 0x48_0000;
        tables.mapRange(at, at, PAGE, { ap: 3 });
        vm.place([word(kind, stage, { ...R, options }), NOP], at);
        const o = vm.start(at, {
          x: registersOf({ kind, to: 0, from: 0, size: 8 }),
          pstate: mode | MASKED | (1n << 29n),
        });
        const iss = (kind === 'SET' ? SET : 0) | (options << 19) | epilogue | WRONG_OPTION | OPTION_A;
        expect([o.ec, o.iss, o.elr]).toEqual([EC.COPY, iss | (R.rd << 10) | (R.rs << 5) | R.rn, BigInt(at)]);
        expect([x(R.rn), differing(contents())]).toEqual([8n, []]);
      }
    },
  );

  test('ill: what only goes forwards would have to count down', () => {
    for (const kind of ['CPYF', 'SET'] as const) {
      const o = vm.execute([word(kind, stage)], { x: { [R.rd]: VA, [R.rs]: VA, [R.rn]: 1n } });
      expect([o.ec, o.iss & (WRONG_OPTION | EPILOGUE)]).toEqual([EC.COPY, epilogue]);
    }
  });

  test('alone it does what is left', () => {
    const job = { kind: 'CPY', to: 100, from: 5000, size: 6000 } as const;
    const wanted = model(job);
    const end = { [R.rd]: VA + 6100n, [R.rs]: VA + 11000n, [R.rn]: BigInt.asUintN(64, -6000n) };
    expect(vm.execute([word('CPY', stage)], { x: end }).done).toBe(true);
    expect(differing(wanted)).toEqual([]);
  });
});

test('alignment is not checked: not by SCTLR_EL1.A, not in Device memory', () => {
  vm.cpu.setSysreg(REG.SCTLR_EL1, SCTLR_ON | MSCEN | 2n);
  tables.map(VA + BigInt(PAGE), frames[1]!, { ap: 1, attr: 1 });
  for (const kind of KINDS) {
    for (const size of [3, 7, 15, 31, 63, 200]) {
      const job = { kind, to: PAGE + 1001, from: 70 * PAGE + 4093, size };
      const wanted = model(job);
      expect(vm.execute(program(kind), { x: registersOf(job), at: RAM + 0x2_0000 }).done).toBe(true);
      expect([kind, size, differing(wanted)]).toEqual([kind, size, []]);
    }
  }
});

test('EL0 needs SCTLR_EL1.MSCEn', () => {
  const at = RAM + 0x48_0000;
  tables.mapRange(at, at, PAGE, { ap: 3 });
  for (const kind of KINDS) {
    for (const stage of [P, M, E]) {
      const run = (sctlr: bigint) => {
        vm.cpu.setSysreg(REG.SCTLR_EL1, sctlr);
        return vm.execute([word(kind, stage)], { at, x: { [R.rd]: VA, [R.rs]: VA, [R.rn]: 0n }, pstate: EL0T });
      };
      expect(run(SCTLR_ON)).toMatchObject({ done: false, ec: EC.UNKNOWN, elr: BigInt(at) });
      expect(run(SCTLR_ON | MSCEN).done).toBe(true);
    }
  }
  vm.cpu.setSysreg(REG.SCTLR_EL1, SCTLR_ON);
  expect(vm.execute([word('SET', P)], { x: { [R.rn]: 0n } }).done).toBe(true);
});

test('unprivileged stores and loads', () => {
  tables.map(VA, frames[0]!, { ap: 0 });
  const other = VA + BigInt(PAGE);
  const PERMISSION = 0b001111;
  const run = (kind: Kind, options: number, to: bigint, from: bigint) =>
    vm.execute(
      [P, M, E].map((stage) => word(kind, stage, { ...R, options })),
      { x: { [R.rd]: to, [R.rs]: from, [R.rn]: 16n } },
    );
  expect(run('CPYF', 0, VA, other).done).toBe(true);
  expect(run('CPYF', 0b1110, VA, other).done).toBe(true);
  expect(run('CPYF', 0b0001, VA, other)).toMatchObject({ ec: EC.ABORT, iss: PERMISSION | WNR, far: VA });
  expect(run('CPYF', 0b0010, other, VA)).toMatchObject({ ec: EC.ABORT, iss: PERMISSION, far: VA });
  expect(run('SET', 0b01, VA, 0n)).toMatchObject({ ec: EC.ABORT, iss: PERMISSION | WNR, far: VA });
  // With PAN, EL1 has to ask as EL0.
  const panned = (kind: Kind, options: number) => {
    vm.execute([msrPan(1)]);
    return vm.start(vm.place([...[P, M, E].map((stage) => word(kind, stage, { ...R, options })), hvc(0)]), {
      pstate: EL1H | MASKED | (1n << 22n),
      x: { [R.rd]: other, [R.rs]: other, [R.rn]: 16n },
    });
  };
  expect(panned('CPY', 0).ec).toBe(EC.ABORT);
  expect(panned('CPY', 0b0011).done).toBe(true);
});

test('a watchpoint in the middle: its bytes are not touched, those before it are done', () => {
  const watched = VA + 0x1808n;
  vm.cpu.setSysreg(WVR(0), watched);
  vm.cpu.setSysreg(WCR(0), wcr({ bas: 0xf0n }));
  vm.cpu.setSysreg(REG.MDSCR_EL1, MDE | KDE);
  for (const kind of KINDS) {
    const job = { kind, to: 0x20, from: 0x9000, size: 0x3000 };
    const wanted = model(job);
    const start = vm.place([...program(kind), hvc(0)]);
    const o = vm.start(start, { x: registersOf(job), pstate: EL1H | (MASKED & ~D) });
    expect([o.ec, o.iss & WNR, o.far, o.elr]).toEqual([EC.WATCHPOINT, WNR, watched + 4n, BigInt(start + 4)]);
    expect(x(R.rd) + x(R.rn) - (1n << 64n)).toBe(o.far);
    vm.cpu.setSysreg(REG.MDSCR_EL1, 0n);
    expect(vm.start(Number(o.elr), { pstate: o.spsr }).done).toBe(true);
    expect(differing(wanted)).toEqual([]);
    vm.cpu.setSysreg(REG.MDSCR_EL1, MDE | KDE);
  }
});

test('to software step, however much it copies, each is one instruction', () => {
  const job = { kind: 'CPY', to: 5, from: 17, size: SIZE - 100 } as const;
  const wanted = model(job);
  const start = vm.place([...program('CPY'), NOP]);
  vm.cpu.setDebug({ singleStep: true, registers: undefined });
  for (const [n, value] of Object.entries(registersOf(job))) vm.cpu.setX(Number(n), value);
  vm.cpu.setPc(BigInt(start));
  for (let step = 1; step <= 3; step++) {
    vm.cpu.setPstate(EL1H | MASKED | (SS << 21n));
    expect([vm.run(), vm.cpu.getPc()]).toEqual([CpuStop.DEBUG, BigInt(start + 4 * step)]);
  }
  expect(differing(wanted)).toEqual([]);
});

test('the ID register says that they are there', () => {
  expect((vm.sysreg(sysregIndex(3, 0, 0, 6, 2)) >> 16n) & 0xfn).toBe(1n);
});
