import { describe, expect, test } from '@jest/globals';
import { sysregIndex } from '#lib/kvm/registers.js';
import { daifClr, daifSet, ESB, mov, mrs, msr, NOP, svc } from '../a64.ts';
import { EL0T, EL1H, EL1T, REG } from '../bare-metal.ts';
import { eachProgram, haveQemuSystem, SystemProgram } from '../system-oracle.ts';

/** Virtual SErrors, ESB and DISR_EL1 as QEMU has them below a hypervisor. */

const ATTEMPTS = 500;
const ERRIDR = sysregIndex(3, 0, 5, 3, 0);
const LORID = sysregIndex(3, 0, 10, 4, 7);
/** What can be set of PSTATE: D, A, I and F. */
const MASKS = [1n << 9n, 1n << 8n, 1n << 7n, 1n << 6n] as const;
const UMA = 1n << 9n;
const IESB = 1n << 21n;
const SCTLR_RES1 = 0x30d0_0980n;

(haveQemuSystem ? describe : describe.skip)(
  `as QEMU does it${haveQemuSystem ? '' : ' (qemu-system-aarch64 is not installed)'}`,
  () => {
    test('SErrors that are masked, unmasked and deferred, at random', () => {
      eachProgram(ATTEMPTS, (random) => {
        const program = new SystemProgram();
        const words: Readonly<Record<string, number>> = {
          ESB,
          NOP,
          'MRS ISR_EL1': mrs(3, REG.ISR_EL1),
          'MRS DISR_EL1': mrs(4, REG.DISR_EL1),
          'MSR DISR_EL1': msr(REG.DISR_EL1, 5),
          'MRS ERRIDR_EL1': mrs(6, ERRIDR),
          'MRS LORID_EL1': mrs(6, LORID),
          'MSR DAIFClr, 4': daifClr(4),
          'MSR DAIFSet, 4': daifSet(4),
          SVC: svc(0),
        };
        for (let n = 0; n < ATTEMPTS; n++) {
          const pending = random.below(4) !== 0;
          const iss = random.below(1 << 25);
          const sctlr = SCTLR_RES1 | UMA | (random.below(2) === 0 ? 0n : IESB);
          const pstate = MASKS.reduce(
            (state, bit) => (random.below(2) === 0 ? state : state | bit),
            random.pick([EL0T, EL1T, EL1H, EL1H]),
          );
          // ESB is what this is about.
          const names = Array.from({ length: 4 }, () =>
            random.below(3) === 0 ? 'ESB' : random.pick(Object.keys(words)),
          );
          program.attempt(
            `${pending ? `SError 0x${iss.toString(16)}` : 'none'}, PSTATE 0x${pstate.toString(16)}, SCTLR 0x${sctlr.toString(16)}: ${names.join('; ')}`,
            {
              setup: [
                ...mov(0, sctlr),
                msr(REG.SCTLR_EL1, 0),
                msr(REG.DISR_EL1, 31),
                ...(pending ? program.injectSerror(iss) : []),
              ],
              x: { 3: 0, 4: 0, 5: random.u64(), 6: 7 },
              pstate,
              words: names.map((name) => words[name]!),
              registers: [3, 4, 6],
              sysregs: [REG.DISR_EL1, REG.ISR_EL1],
              cleanup: [ESB, ...mov(0, SCTLR_RES1), msr(REG.SCTLR_EL1, 0)],
            },
          );
        }
        const wrong = program.run().filter((r) => r.ours.join() !== r.qemu.join());
        expect({ seed: random.seed, count: wrong.length, wrong: wrong.slice(0, 8) }).toEqual({
          seed: random.seed,
          count: 0,
          wrong: [],
        });
      });
    });
  },
);
