import { describe, expect, test } from '@jest/globals';
import type { Random } from '../../a64/random.ts';
import { br, dcZva, ISB, ldadd, ldtr, load, mov, msr, store, sttr, svc, sys } from '../a64.ts';
import {
  DATA,
  EL0T,
  EL1H,
  type Granule,
  MAIR,
  MASKED,
  PageTables,
  RAM,
  RAM_SIZE,
  REG,
  SCTLR_ON,
  TABLES,
  tcr,
} from '../bare-metal.ts';
import {
  eachProgram,
  haveQemuSystem,
  LOG,
  LOG_SIZE,
  type Result,
  SystemProgram,
  USER_TEXT,
  USER_TEXT_SIZE,
} from '../system-oracle.ts';

/** Translation as qemu-system-aarch64 does it: random tables, every kind of access, in every state that it depends on. */

/** Pages that are tried; tables of 64 KiB are fewer. */
const PAGES: Readonly<Record<Granule, number>> = { 12: 48, 14: 48, 16: 12 };
const ACCESSES = 10;
/** Pages of data that random tables lead to; each word of them is an SVC, so that they can be executed. */
const FRAMES = DATA + 0x2_0000;
const FRAMES_SIZE = 0x4_0000;
const SVC_WORDS = BigInt(svc(0x77)) * 0x1_0000_0001n;

const PAN = 1n << 22n;
const UAO = 1n << 23n;
const WXN = 1n << 19n;
const HA = 1n << 39n;
const HD = 1n << 40n;
const at = (crm: number, op2: number): number => sys(0, 7, crm, op2, 0);

/** QEMU takes cache maintenance by address for nothing at all, so that it never faults: translation.test.ts holds ours. */
const ACCESS: Readonly<Record<string, readonly number[]>> = {
  load: [load(8, 1, 0)],
  'load of a byte': [load(1, 1, 0)],
  store: [store(8, 2, 0)],
  'store of a halfword': [store(2, 2, 0)],
  atomic: [ldadd(31, 1, 0)],
  'unprivileged load': [ldtr(1, 0)],
  'unprivileged store': [sttr(2, 0)],
  fetch: [br(0)],
  'DC ZVA': [dcZva(0), store(8, 2, 0)],
};
const AT_EL1 = {
  'AT S1E1R': [at(8, 0)],
  'AT S1E1W': [at(8, 1)],
  'AT S1E0R': [at(8, 2)],
  'AT S1E0W': [at(8, 3)],
  'AT S1E1RP': [at(9, 0)],
  'AT S1E1WP': [at(9, 1)],
};
const STATES = {
  EL1: EL1H | MASKED,
  'EL1, PAN': EL1H | MASKED | PAN,
  'EL1, UAO': EL1H | MASKED | UAO,
  'EL1, PAN, UAO': EL1H | MASKED | PAN | UAO,
  EL0: EL0T | MASKED,
};

/** PAR_EL1 without NS, which is UNKNOWN, and SH of Normal Non-cacheable memory, which QEMU 7.2 takes from the descriptor. */
const comparable = (result: Result): string =>
  result
    .map((line) => {
      const value = /^0x[0-9a-f]+$/.test(line) ? BigInt(line) : 0n;
      if ((value & 0x801n) !== 0x800n) return line;
      return `0x${(value & ~(value >> 56n === 0x44n ? 0x380n : 0x200n)).toString(16)}`;
    })
    .join();

function build(random: Random, granule: Granule, control: bigint, sctlr: bigint, tsz: number): SystemProgram {
  const program = new SystemProgram();
  const { vm } = program;
  for (let a = FRAMES; a < FRAMES + FRAMES_SIZE; a += 8) vm.write64(a, SVC_WORDS);
  const bits = 64 - tsz;
  const lower = new PageTables(vm, TABLES, granule, bits);
  const upper = new PageTables(vm, TABLES + 0x10_0000, granule, bits);
  // The program's own pages are where they are; read-only for EL1 where it executes, so that WXN lets it.
  lower.mapRange(RAM, RAM, DATA - RAM, { ap: 2 });
  lower.mapRange(USER_TEXT, USER_TEXT, USER_TEXT_SIZE, { ap: 3 });
  lower.mapRange(LOG, LOG, LOG_SIZE);
  lower.mapRange(TABLES, TABLES, RAM + RAM_SIZE - TABLES);
  program.emit(...mov(0, MAIR), msr(REG.MAIR_EL1, 0), ...mov(0, control), msr(REG.TCR_EL1, 0));
  program.emit(...mov(0, lower.root), msr(REG.TTBR0_EL1, 0), ...mov(0, upper.root), msr(REG.TTBR1_EL1, 0));
  program.emit(ISB, ...mov(0, sctlr), msr(REG.SCTLR_EL1, 0), ISB);
  const leaves: number[] = [];
  for (let n = 0; n < PAGES[granule]; n++) {
    const isUpper = random.below(2) === 1;
    const tables = isUpper ? upper : lower;
    const levels = granule === 12 ? ([3, 3, 2, 1] as const) : ([3, 3, 2] as const);
    const level = random.pick(levels);
    const shift = BigInt(tables.shift(level));
    // Each in its own piece of the space, away from the program's.
    const piece = BigInt(Math.max(tables.shift(2), tables.shift(level)));
    const index = BigInt(n + 8) + (4n << (granule === 12 ? 0n : 5n));
    // Beyond 48 bits in a few places: tables of 64 KiB are large.
    const high = bits > 48 ? random.pick([0n, 1n, 0xan]) << 48n : 0n;
    const va = ((index << piece) | high) & ((1n << BigInt(bits)) - 1n);
    const span = 1n << shift;
    const ap = random.below(4) as 0 | 1 | 2 | 3;
    const base = BigInt(FRAMES) & ~(span - 1n);
    const leaf = tables.map(va, random.below(12) === 0 ? (1n << 41n) & ~(span - 1n) : base, {
      level,
      ap,
      uxn: random.below(3) === 0,
      pxn: random.below(3) === 0,
      accessFlag: random.below(4) !== 0,
      notGlobal: random.below(2) === 0,
      attr: random.pick([0, 0, 2]),
      shareability: random.below(4),
      table: random.below(3) === 0 ? BigInt(random.below(16)) << 59n : 0n,
    });
    // DBM; but a page that EL0 could make dirty is writable to it, and so EL1 must not execute it: QEMU 7.2 looks at AP[2] alone.
    if (random.below(3) === 0 && ap !== 3) vm.write64(leaf, vm.read64(leaf) | (1n << 51n));
    if (random.below(16) === 0) vm.write64(leaf, vm.read64(leaf) & ~1n);
    if (random.below(16) === 0) vm.write64(leaf, vm.read64(leaf) ^ 2n);
    leaves.push(leaf);
    const full = BigInt.asUintN(64, (isUpper ? -(1n << BigInt(bits)) : 0n) + va + (BigInt(FRAMES) - base));
    for (let k = 0; k < ACCESSES; k++) {
      const state = random.pick(Object.keys(STATES)) as keyof typeof STATES;
      // Whether AT sets the access flag and the dirty state is the implementation's choice: QEMU does, and we do not.
      const kinds = state === 'EL0' || (control & HA) !== 0n ? ACCESS : { ...ACCESS, ...AT_EL1 };
      const kind = random.pick(Object.keys(kinds));
      let address = full + BigInt(random.below(Math.min(Number(span), FRAMES_SIZE) / 64) * 64);
      if (random.below(10) === 0) address ^= 1n << BigInt(40 + random.below(24));
      program.attempt(
        `${kind} in ${state} at 0x${address.toString(16)}, descriptor 0x${vm.read64(leaf).toString(16)}`,
        {
          x: { 0: address, 1: 0, 2: SVC_WORDS },
          pstate: STATES[state],
          words: kinds[kind as keyof typeof kinds]!,
          registers: kind === 'load' || kind === 'atomic' ? [1] : [],
          sysregs: kind.startsWith('AT') ? [REG.PAR_EL1] : [],
        },
      );
    }
  }
  // What the hardware made of the descriptors.
  for (const leaf of leaves)
    program.attempt('a descriptor', { x: { 0: leaf }, words: [load(8, 1, 0)], registers: [1] });
  return program;
}

(haveQemuSystem ? describe : describe.skip)(
  `translation as QEMU does it${haveQemuSystem ? '' : ' (qemu-system-aarch64 is not installed)'}`,
  () => {
    test.each([
      [12, 'nothing else', 0n, SCTLR_ON, 16],
      [12, 'hardware management', HA | HD, SCTLR_ON, 20],
      [12, 'WXN', HA, SCTLR_ON | WXN, 25],
      [12, 'HPD', (3n << 41n) | HA, SCTLR_ON, 25],
      [14, 'hardware management', HA | HD, SCTLR_ON, 17],
      [14, 'TBI', 3n << 37n, SCTLR_ON, 25],
      [16, 'hardware management', HA | HD | (1n << 37n), SCTLR_ON, 22],
      [16, '52-bit addresses', HA, SCTLR_ON, 12],
      [16, '51-bit addresses, TBI', 3n << 37n, SCTLR_ON, 13],
    ] as const)('granule 2^%d, %s', (granule, _name, control, sctlr, tsz) => {
      eachProgram(PAGES[granule] * ACCESSES, (random) => {
        const program = build(random, granule, tcr(granule, tsz) | control, sctlr, tsz);
        const wrong = program.run().filter((r) => comparable(r.ours) !== comparable(r.qemu));
        expect({ seed: random.seed, count: wrong.length, wrong: wrong.slice(0, 12) }).toEqual({
          seed: random.seed,
          count: 0,
          wrong: [],
        });
      });
    });
  },
);
