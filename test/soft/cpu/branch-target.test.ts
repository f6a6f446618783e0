import { describe, expect, test } from '@jest/globals';
import type { Random } from '../../a64/random.ts';
import { blr, br, brk, ERET, ISB, load, mov, msr, NOP, RET, store, svc } from '../a64.ts';
import {
  DATA,
  EL0T,
  EL1H,
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
  SystemProgram,
  USER_TEXT,
  USER_TEXT_SIZE,
} from '../system-oracle.ts';
import { BCR, BVR, bcr, D, KDE, MDE, PSTATE_SS, SS } from './debug.ts';

/** Branch targets (FEAT_BTI) as qemu-system-aarch64 has them. test/soft/jit/branch-target.test.ts has all engines, and interrupts. */

/** Attempts of one program. */
const BRANCHED = 900;

const IL = 1n << 20n;
/** Returns to X6 with PSTATE from X5. */
const RETURN = [msr(REG.SPSR_EL1, 5), msr(REG.ELR_EL1, 6), ERET];
const BT0 = 1n << 35n;
const BT1 = 1n << 36n;

/** What a branch may come to: each ends in an SVC or an exception. */
const LANDINGS: Readonly<Record<string, readonly number[]>> = {
  BTI: [0xd503_241f],
  'BTI c': [0xd503_245f],
  'BTI j': [0xd503_249f],
  'BTI jc': [0xd503_24df],
  PACIASP: [0xd503_233f],
  PACIBSP: [0xd503_237f],
  PACIAZ: [0xd503_231f],
  'HINT #32 without BTI': [0xd503_251f],
  NOP: [NOP],
  'a load': [load(8, 1, 9)],
  'a store': [store(8, 1, 9)],
  BRK: [brk(7)],
  HLT: [0xd440_0020],
  UDF: [0],
  'another branch': [br(10)],
  SVC: [svc(3)],
};
const braa = (rn: number, rm: number): number => (0xd71f_0800 | (rn << 5) | rm) >>> 0;
const blraa = (rn: number, rm: number): number => (0xd73f_0800 | (rn << 5) | rm) >>> 0;
const BRANCHES: Readonly<Record<string, (rn: number) => number>> = {
  BR: br,
  BLR: blr,
  RET: (rn) => (RET & ~0x3e0) | (rn << 5),
  BRAA: (rn) => braa(rn, 31),
  BLRAA: (rn) => blraa(rn, 31),
  BRAAZ: (rn) => (0xd61f_081f | (rn << 5)) >>> 0,
};
/** Code to branch from and to: pages that are guarded and not, each mapped for EL0 and, elsewhere, for EL1. */
const FROM = DATA + 0x2_0000;
const TO = DATA + 0x3_0000;
/** Virtual addresses, by EL. */
const FROM_AT = { 0: 0x10_0000_0000, 1: 0x20_0000_0000 } as const;
const TO_AT = { 0: 0x11_0000_0000, 1: 0x21_0000_0000 } as const;
const SLOT = 16;

function build(random: Random, count: number): SystemProgram {
  const program = new SystemProgram();
  const { vm } = program;
  vm.cpu.pointerAuth = true;
  const tables = new PageTables(vm, TABLES);
  tables.mapRange(RAM, RAM, DATA - RAM);
  tables.mapRange(USER_TEXT, USER_TEXT, USER_TEXT_SIZE, { ap: 3 });
  tables.mapRange(LOG, LOG, LOG_SIZE);
  tables.mapRange(TABLES, TABLES, RAM + RAM_SIZE - TABLES);
  // Page 0 is not guarded, page 1 is; page 2 is not there.
  for (const el of [0, 1] as const) {
    for (const guarded of [false, true]) {
      const offset = guarded ? 0x1000 : 0;
      const leaf = { ap: el === 0 ? 3 : 2, guarded } as const;
      tables.map(FROM_AT[el] + offset, FROM + offset, leaf);
      tables.map(TO_AT[el] + offset, TO + offset, leaf);
    }
  }
  const landings = Object.values(LANDINGS);
  for (const page of [0, 0x1000]) {
    landings.forEach((words, n) => {
      vm.place([...words, svc(0x30 + n), NOP, NOP].slice(0, 4), TO + page + n * SLOT);
    });
  }
  program.emit(...mov(0, MAIR), msr(REG.MAIR_EL1, 0), ...mov(0, tcr()), msr(REG.TCR_EL1, 0));
  program.emit(...mov(0, tables.root), msr(REG.TTBR0_EL1, 0), msr(REG.TTBR1_EL1, 0));
  program.emit(ISB, ...mov(0, SCTLR_ON), msr(REG.SCTLR_EL1, 0), ISB);
  // The branches: each page has every one through X8 and X16 and X17.
  const branches = Object.entries(BRANCHES).flatMap(([name, make]) =>
    [8, 16, 17].map((rn) => ({ name: `${name} X${rn}`, word: make(rn), rn })),
  );
  for (const page of [0, 0x1000]) {
    branches.forEach(({ word }, n) => {
      vm.place([word], FROM + page + n * 4);
    });
  }
  const names = Object.keys(LANDINGS);
  let sctlr = SCTLR_ON;
  for (let n = 0; n < count; n++) {
    const el = random.below(2) as 0 | 1;
    const from = random.below(2);
    const to = random.pick([0, 1, 1, 1, 1, 2]);
    const branch = random.below(branches.length);
    const landing = random.below(names.length);
    // Not each time: what has been translated is forgotten with it.
    const setup: number[] = [];
    if (n === 0 || random.below(32) === 0) {
      sctlr = SCTLR_ON | (random.below(2) === 0 ? BT0 : 0n) | (random.below(2) === 0 ? BT1 : 0n);
      setup.push(...mov(0, sctlr), msr(REG.SCTLR_EL1, 0), ISB);
    }
    // QEMU 7.2 looks for the page before it looks at the alignment.
    const misaligned = to < 2 && random.below(16) === 0 ? 2 : 0;
    const state = (el === 0 ? EL0T : EL1H) | MASKED;
    const { name, rn } = branches[branch]!;
    const target = TO_AT[el] + to * 0x1000 + landing * SLOT + misaligned;
    const x = { 1: 0, 9: el === 0 ? USER_TEXT : DATA, 10: TO_AT[el], 30: 0, [rn]: target };
    const branchAt = FROM_AT[el] + from * 0x1000 + branch * 4;
    const where = `${names[landing]} at EL${el} in page ${to}${misaligned === 0 ? '' : ' + 2'}, SCTLR 0x${sctlr.toString(16)}`;
    const kind = random.below(16);
    if (kind < 2) {
      const btype = BigInt(random.below(4));
      const illegal = random.below(4) === 0 ? IL : 0n;
      program.attempt(`ERET to ${where}, BTYPE ${btype}, IL ${illegal}`, {
        setup,
        x: { ...x, 5: state | (btype << 10n) | illegal, 6: target },
        words: RETURN,
      });
    } else if (kind < 4) {
      program.attempt(`${name} from page ${from}, stepped, to ${where}`, {
        setup: [...setup, ...mov(0, SS | KDE), msr(REG.MDSCR_EL1, 0), ISB],
        x: { ...x, 5: (state & ~D) | PSTATE_SS, 6: branchAt },
        words: RETURN,
        cleanup: [msr(REG.MDSCR_EL1, 31), ISB],
      });
    } else if (kind < 6) {
      program.attempt(`${name} from page ${from} to a breakpoint at ${where}`, {
        setup: [
          ...setup,
          ...mov(0, target & ~3),
          msr(BVR(0), 0),
          ...mov(0, bcr({ els: 3n })),
          msr(BCR(0), 0),
          ...mov(0, MDE | KDE),
          msr(REG.MDSCR_EL1, 0),
          ISB,
        ],
        x: { ...x, 5: state & ~D, 6: branchAt },
        words: RETURN,
        cleanup: [msr(REG.MDSCR_EL1, 31), msr(BCR(0), 31), ISB],
      });
    } else {
      program.attempt(`${name} from page ${from} to ${where}`, {
        setup,
        x: { ...x, 7: branchAt },
        pstate: state,
        // RET leaves no BTYPE.
        words: [(RET & ~0x3e0) | (7 << 5)],
        registers: [30],
      });
    }
  }
  return program;
}

(haveQemuSystem ? describe : describe.skip)(
  `branch targets as QEMU does them${haveQemuSystem ? '' : ' (qemu-system-aarch64 is not installed)'}`,
  () => {
    test('every branch to every landing, guarded and not', () => {
      eachProgram(BRANCHED, (random) => {
        const wrong = build(random, BRANCHED)
          .run()
          .filter((r) => r.ours.join() !== r.qemu.join());
        expect({ seed: random.seed, count: wrong.length, wrong: wrong.slice(0, 12) }).toEqual({
          seed: random.seed,
          count: 0,
          wrong: [],
        });
      });
    });
  },
);
