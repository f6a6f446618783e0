import { describe, expect, test } from '@jest/globals';
import { Random } from '../../a64/random.ts';
import {
  addImm,
  b,
  brk,
  cbnz,
  dcZva,
  ISB,
  ldp,
  ldrQ,
  ldtr,
  ldxr,
  load,
  mov,
  movz,
  mrs,
  msr,
  NOP,
  store,
  stp,
  strQ,
  sttr,
  svc,
  UDF,
} from '../a64.ts';
import { DATA, EL0T, EL1H, MAIR, MASKED, PageTables, RAM, REG, SCTLR_ON, TABLES, tcr } from '../bare-metal.ts';
import {
  eachProgram,
  haveQemuSystem,
  LOG,
  LOG_SIZE,
  SystemProgram,
  USER_TEXT,
  USER_TEXT_SIZE,
} from '../system-oracle.ts';
import { BCR, BVR, bcr, D, KDE, MDE, PSTATE_SS, SS, WCR, WVR, wcr } from './debug.ts';

/** Self-hosted debug against QEMU's: exceptions, syndromes and addresses, bit for bit. */

/** Attempts of one program, by test. */
const WATCHED = 400;
const BROKEN = 120;

const SCTLR_RES1 = 0x30d0_0980n;
/** Has no more than ours in what is compared, and blocks of 64 bytes for DC ZVA. */
const CPU = 'neoverse-n1';
const unmasked = EL1H | (MASKED & ~D);

/** With translation on, and four pages that both ELs may read and write. */
function makeProgram(): SystemProgram {
  const program = new SystemProgram();
  const tables = new PageTables(program.vm, TABLES, 12, 48);
  tables.mapRange(RAM, RAM, DATA - RAM);
  tables.mapRange(DATA, DATA, 0x4000, { ap: 1 });
  tables.mapRange(USER_TEXT, USER_TEXT, USER_TEXT_SIZE, { ap: 3 });
  tables.mapRange(LOG, LOG, LOG_SIZE);
  for (const [index, value] of [
    [REG.MAIR_EL1, MAIR],
    [REG.TCR_EL1, tcr()],
    [REG.TTBR0_EL1, BigInt(tables.root)],
    [REG.TTBR1_EL1, BigInt(tables.root)],
    [REG.SCTLR_EL1, SCTLR_ON | SCTLR_RES1],
  ] as const) {
    program.emit(...mov(0, value), msr(index, 0));
  }
  program.emit(ISB);
  return program;
}

const write = (index: number, value: bigint | number): number[] => [...mov(0, value), msr(index, 0)];

function expectEqual(program: SystemProgram, seed: number): void {
  const results = program.run(CPU);
  expect(results.length).toBeGreaterThan(0);
  const wrong = results.filter((r) => r.ours.join() !== r.qemu.join());
  expect({ seed, wrong: wrong.slice(0, 8) }).toEqual({ seed, wrong: [] });
}

(haveQemuSystem ? describe : describe.skip)(
  `as QEMU does it${haveQemuSystem ? '' : ' (qemu-system-aarch64 is not installed)'}`,
  () => {
    test('watchpoints: registers and accesses at random', () => {
      eachProgram(WATCHED, (random) => {
        const program = makeProgram();
        for (let n = 0; n < WATCHED; n++) {
          // Bytes that are together: of others the architecture says nothing.
          const half = random.below(2);
          const first = random.below(half === 1 ? 4 : 8);
          const last = first + random.below((half === 1 ? 4 : 8) - first);
          const bas = BigInt((1 << (last + 1)) - (1 << first));
          const mask = random.below(4) === 0 ? 3 + random.below(9) : 0;
          const base = DATA + 0x1000 - 64 + random.below(16) * 8;
          const address = mask === 0 ? base + half * 4 : Math.floor(base / 2 ** mask) * 2 ** mask;
          const lsc = BigInt(random.below(4));
          const control = wcr({
            els: BigInt(1 + random.below(3)),
            lsc,
            bas: mask === 0 ? bas : 0xffn,
            mask: BigInt(mask),
          });
          const bytes = random.pick([1, 2, 4, 8]);
          // QEMU 7.2 takes what is not aligned apart, and so looks at more than is accessed.
          const [word, size] = random.pick([
            [load(bytes, 1, 4), bytes],
            [store(bytes, 1, 4), bytes],
            [ldp(1, 2, 4), 8],
            [stp(1, 2, 4), 8],
            [ldrQ(1, 4), 16],
            [strQ(1, 4), 16],
            [ldtr(1, 4), 8],
            [sttr(1, 4), 8],
            [dcZva(4), 64],
          ] as const);
          const near = address - 24 + random.below(48);
          const access = near - (near % size);
          const pstate = random.pick([EL0T, EL0T | MASKED, unmasked, EL1H | MASKED]);
          const mdscr = random.pick([MDE, MDE | KDE, MDE | KDE, KDE]);
          const which = random.below(4);
          program.attempt(
            `word 0x${word.toString(16)} at 0x${access.toString(16)}, WVR 0x${address.toString(16)}, WCR 0x${control.toString(16)}, MDSCR 0x${mdscr.toString(16)}`,
            {
              setup: [
                ...write(WVR(which), address),
                ...write(WCR(which), control),
                ...write(REG.MDSCR_EL1, mdscr),
                ISB,
              ],
              x: { 4: access },
              pstate,
              words: [word],
              cleanup: [msr(REG.MDSCR_EL1, 31), msr(WCR(which), 31), ISB],
            },
          );
        }
        expectEqual(program, random.seed);
      });
    });

    test('breakpoints: on, before and behind the instruction', () => {
      eachProgram(BROKEN, (random) => {
        const program = makeProgram();
        let at = USER_TEXT;
        for (let n = 0; n < BROKEN; n++) {
          const els = BigInt(random.below(4));
          const pstate = random.pick([EL0T, EL0T | MASKED, unmasked, EL1H | MASKED]);
          const mdscr = random.pick([MDE, MDE | KDE, MDE | KDE, KDE]);
          const address = at + random.below(5) * 4 - 4;
          const control = bcr({ els }) - BigInt(random.below(8) === 0 ? 1 : 0);
          program.attempt(
            `BVR 0x${address.toString(16)}, BCR 0x${control.toString(16)}, MDSCR 0x${mdscr.toString(16)}`,
            {
              setup: [...write(BVR(0), address), ...write(BCR(0), control), ...write(REG.MDSCR_EL1, mdscr), ISB],
              x: { 1: 0 },
              pstate,
              words: [addImm(1, 1, 1), addImm(1, 1, 2), addImm(1, 1, 4)],
              registers: [1],
              cleanup: [msr(REG.MDSCR_EL1, 31), msr(BCR(0), 31), ISB],
            },
          );
          at += 64;
        }
        expectEqual(program, random.seed);
      });
    });

    // What a stepped instruction masks or turns off is left out: QEMU's takes the exception all the same.
    test('software step: every kind of instruction, at both ELs', () => {
      const random = new Random();
      const program = makeProgram();
      const words: readonly [string, number[]][] = [
        ['ADD', [addImm(1, 1, 1)]],
        ['B', [b(2), NOP]],
        ['CBNZ, taken', [cbnz(4, 2), NOP]],
        ['CBNZ, not taken', [cbnz(31, 2), NOP]],
        ['LDXR', [ldxr(1, 4)]],
        ['LDAXP', [0xc87f8881]],
        ['LDR', [load(8, 1, 4)]],
        ['a load that faults', [load(8, 1, 5)]],
        ['SVC', [svc(7)]],
        ['BRK', [brk(8)]],
        ['UDF', [UDF]],
        ['MRS of EL1', [mrs(1, REG.ESR_EL1)]],
        ['MSR DAIF', [msr(REG.DAIF, 31)]],
        ['ISB', [ISB]],
        ['two', [movz(1, 1), movz(1, 2)]],
      ];
      for (const [name, list] of words) {
        for (const pstate of [EL0T, unmasked, EL1H | MASKED]) {
          for (const ss of [PSTATE_SS, 0n]) {
            for (const mdscr of [SS, SS | KDE]) {
              program.attempt(`${name}, SPSR 0x${(pstate | ss).toString(16)}, MDSCR 0x${mdscr.toString(16)}`, {
                setup: [...write(REG.MDSCR_EL1, mdscr), ISB],
                x: { 1: 0, 4: DATA, 5: 0x7000_0000 },
                pstate: pstate | ss,
                words: list,
                registers: [1],
                cleanup: [msr(REG.MDSCR_EL1, 31), ISB],
              });
            }
          }
        }
      }
      expectEqual(program, random.seed);
    });
  },
);
