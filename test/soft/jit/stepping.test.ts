import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { CpuStop } from '#lib/soft/cpu/cpu.js';
import { Random } from '../../a64/random.ts';
import { addImm, ERET, mrs, msr } from '../a64.ts';
import { type BareMetal, CODE, DATA, EL0T, EL1H, RAM, REG, VECTORS } from '../bare-metal.ts';
import { bcr, EC, PSTATE_SS, wcr } from '../cpu/debug.ts';
import { Lockstep } from './lockstep.ts';
import { BASES, DONE, INDEX, type Program, structured } from './programs.ts';

/**
 * To look at instructions, or at accesses, one by one changes nothing: random programs on the interpreter, on compiled code under
 * a single step of the host's, and on compiled code where every page has a breakpoint and all data a watchpoint that never match.
 */

const random = new Random();
const WINDOW = 0x4000;
const PROGRAM = CODE + 0x1000;
/** The machine that is stepped. */
const STEPPED = 1;
/** Instructions until a program is taken for one that never stops. */
const LIMIT = 2000;

let lockstep: Lockstep;
function makeMachines(): void {
  lockstep = new Lockstep();
  lockstep.watch([DATA - WINDOW / 2, WINDOW]);
  lockstep.each((m) => {
    for (let n = 0; n < 16; n++)
      m.place([mrs(29, REG.ELR_EL1), addImm(29, 29, 4), msr(REG.ELR_EL1, 29), ERET], VECTORS + n * 0x80);
  });
  const [, stepped, watched] = lockstep.machines;
  stepped!.cpu.setDebug({ singleStep: true, registers: undefined });
  watched!.cpu.setDebug({
    singleStep: false,
    registers: {
      // Any instruction, in a context that is never there; no access.
      bcr: [0n, bcr({ bt: 2n })],
      bvr: [0n, 0xdead_beefn],
      wcr: [wcr({ lsc: 0n, mask: 26n })],
      wvr: [BigInt(RAM)],
    },
  });
}
beforeEach(makeMachines);
afterEach(() => lockstep.close());

function begin(program: Program): void {
  const x = Array.from({ length: 31 }, () => random.interesting64());
  const somewhere = (): bigint => BigInt(DATA + random.below(0x400) * 8 - 0x1000);
  for (const base of BASES) x[base] = somewhere();
  x[INDEX] = BigInt(random.below(64));
  const pc = PROGRAM + (program.beforePageEnd === 0 ? 0 : 0x1000 - program.beforePageEnd * 4);
  x[16] = x[17] = x[30] = BigInt(pc);
  const v = Array.from({ length: 32 }, () => (random.interesting64() << 64n) | random.interesting64());
  const sp = somewhere() & ~15n;
  const pstate = random.pick([EL1H, EL0T]) | (BigInt(random.below(16)) << 28n);
  const data = new Uint8Array(random.list64(WINDOW / 8).buffer);
  lockstep.each((m) => {
    const { cpu } = m;
    m.place(program.words, pc);
    cpu.reset();
    cpu.setSysreg(REG.VBAR_EL1, BigInt(VECTORS));
    cpu.setSysreg(REG.CPACR_EL1, 3n << 20n);
    cpu.setSysreg(REG.SP_EL0, sp);
    cpu.setSpEl1(sp);
    cpu.setPstate(pstate);
    x.forEach((value, n) => {
      cpu.setX(n, value);
    });
    v.forEach((value, n) => {
      cpu.setV(n, value);
    });
    cpu.setPc(BigInt(pc));
    m.memory.bytes.set(data, DATA - WINDOW / 2 - RAM);
  });
}

interface Stop {
  readonly stop: CpuStop;
  readonly instructions: number;
}

/** Runs to a stop that is the program's; `undefined` where none comes in so many instructions. */
function runToStop(m: BareMetal, limit: number): Stop | undefined {
  const { cpu } = m;
  const isStepped = m === lockstep.machines[STEPPED];
  const before = cpu.instructions;
  while (cpu.instructions - before < limit) {
    if (isStepped) cpu.setPstate(cpu.getPstate() | PSTATE_SS);
    const stop = cpu.run(limit);
    if (stop === CpuStop.DEBUG) {
      // BRK is the host's too, and ends the program.
      if (cpu.debugEvent.esr >>> 26 !== EC.STEP) return undefined;
    } else if (stop !== CpuStop.BUDGET) {
      // What software step leaves of itself.
      cpu.setPstate(cpu.getPstate() & ~PSTATE_SS);
      cpu.setSysreg(REG.SPSR_EL1, cpu.getSysreg(REG.SPSR_EL1)! & ~PSTATE_SS);
      return { stop, instructions: cpu.instructions - before };
    }
  }
  return undefined;
}

test('random programs', () => {
  let ended = 0;
  for (let n = 0; n < 20; n++) {
    const program = structured(random);
    begin(program);
    lockstep.context = `ELVISOR_SEED=${random.seed}, program ${n}`;
    for (let stops = 0; stops < 20; stops++) {
      const stopped = lockstep.machines.map((m) => runToStop(m, LIMIT));
      if (stopped.includes(undefined)) {
        // They are at different places now.
        lockstep.close();
        makeMachines();
        break;
      }
      const { stop } = stopped[0]!;
      expect({ of: lockstep.context, stopped }).toEqual({
        of: lockstep.context,
        stopped: stopped.map(() => stopped[0]),
      });
      lockstep.compare();
      if (stop === CpuStop.HVC && lockstep.same(({ cpu }) => cpu.hvcImmediate) === DONE) {
        ended++;
        break;
      }
      lockstep.each(({ cpu }) => {
        if (stop === CpuStop.SMC) cpu.skipInstruction();
        if (stop === CpuStop.MMIO) cpu.injectExternalAbort();
      });
    }
  }
  expect(ended).toBeGreaterThan(0);
});
