import { expect } from '@jest/globals';
import { sysregIndex } from '#lib/kvm/registers.js';
import { TABLE } from '#lib/soft/a64/table.js';
import { type Cpu, type CpuHost, CpuStop } from '#lib/soft/cpu/cpu.js';
import { Offset, STATE } from '#lib/soft/cpu/layout.js';
import { type SoftMachine, THREAD_COUNTING } from '#lib/soft/cpu/machine.js';
import { prebuildInterpreter } from '#lib/soft/cpu/prebuild.js';
import { useInterpreterImage } from '#lib/soft/jit/interpreter-image.js';
import { BareMetal, type Options, RAM, REG } from '../bare-metal.ts';
import { LateCompiler } from './late-compiler.ts';

export const CNTV_CVAL_EL0 = sysregIndex(3, 3, 14, 3, 2);

/**
 * The same machine five times: interpreting only, compiling at once, compiling what has run a few times, on another thread, and
 * using what that thread seems to have kept of earlier runs.
 */
const THRESHOLDS = { interpreted: undefined, compiled: 1, mixed: 3, threaded: 1, kept: 1 } as const;
type Name = keyof typeof THRESHOLDS;
const NAMES = Object.keys(THRESHOLDS) as Name[];

// The machine in the middle has its interpreter made ahead, as the package's bundle has it; the others make theirs.
const { counters } = THREAD_COUNTING;
useInterpreterImage(TABLE, prebuildInterpreter({ counters, threshold: THRESHOLDS.mixed }));

/** What must be the same word for word, from its first byte to its last. Flags are compared as PSTATE. */
const STATE_RANGES = [
  ['X', Offset.X, Offset.ZR],
  ['SP', Offset.SP, Offset.DISCARD],
  ['PC', Offset.PC, Offset.BUDGET],
  ['the exclusive monitor', Offset.MONITOR_ADDRESS, Offset.SCRATCH],
  ['PSTATE, FPCR, FPSR', Offset.DAIF, Offset.ATTENTION],
  ['V', Offset.V0, Offset.TLB_FETCH],
  ['system registers', Offset.SYSREG, Offset.SYSREG + 256 * 8],
] as const;

/** More ticks than the code cache lets what is hot wait. */
const WARM_RUNS = 12;

export interface Step {
  readonly stop: CpuStop;
  readonly pc: bigint;
  readonly instructions: number;
}

export interface LockstepOptions extends Omit<Options, 'threshold' | 'compiler' | 'host'> {
  /** {@link CpuHost.mmio}. */
  readonly mmio?: (m: BareMetal) => boolean;
}

/** Five machines that are given the same and must do the same. */
export class Lockstep {
  readonly machines: readonly BareMetal[];
  /** RAM that is compared after every step; the whole is by {@link compareMemory}. */
  #watched: readonly (readonly [address: number, size: number])[] = [];
  /** Said with a failure. */
  context = '';

  /** CNTVCT_EL0 is the count of instructions, as on the virtual clock; a write of CNTV_CVAL_EL0 leaves it in TPIDRRO_EL0, and asks for a stop if the value is odd. */
  constructor({ mmio, ...options }: LockstepOptions = {}) {
    this.machines = NAMES.map((name) => {
      let machine: BareMetal | undefined;
      const count = (): bigint => BigInt(machine!.cpu.instructions);
      const host: CpuHost = {
        readSysreg: (index) => (index === REG.CNTVCT_EL0 ? count() : undefined),
        writeSysreg: (index, value) => {
          const { cpu } = machine!;
          if ((value & 1n) !== 0n) cpu.requestStop();
          return index === CNTV_CVAL_EL0 && cpu.setSysreg(REG.TPIDRRO_EL0, count() ^ value);
        },
        ...(mmio === undefined ? {} : { mmio: () => mmio(machine!) }),
      };
      machine = new BareMetal({
        normal: true,
        ...options,
        host,
        threshold: THRESHOLDS[name],
        ...(name === 'threaded' || name === 'kept' ? { compiler: new LateCompiler(1, name === 'kept') } : {}),
      });
      return machine;
    });
  }

  close(): void {
    for (const m of this.machines) m.machine.close();
  }

  each(action: (m: BareMetal, name: Name) => void): void {
    this.machines.forEach((m, i) => {
      action(m, NAMES[i]!);
    });
  }

  /** What the machine that compiles at once has compiled. */
  get regions(): number {
    return (this.machines[1]!.machine as SoftMachine).stats.regions;
  }

  /** How often kept code was put to use. */
  get reused(): number {
    return (this.machines[4]!.machine as SoftMachine).stats.reused;
  }

  watch(...ranges: readonly (readonly [address: number, size: number])[]): void {
    this.#watched = ranges;
  }

  /** Does something with each machine; the results must be equal. */
  same<T>(action: (m: BareMetal) => T): T {
    const [first, ...rest] = this.machines.map(action);
    rest.forEach((other, i) => {
      if (Object.is(other, first)) return;
      const of = `the machine "${NAMES[i + 1]}", ${this.context}`;
      expect({ of, result: other }).toEqual({ of, result: first });
    });
    return first as T;
  }

  /** Runs each machine for a budget; they must stop for the same reason in the same state. */
  step(budget: number, vcpu: (m: BareMetal) => Cpu = (m) => m.cpu): Step {
    const stop = this.same((m) => vcpu(m).run(budget));
    this.compare(vcpu);
    const cpu = vcpu(this.machines[0]!);
    return { stop, pc: cpu.getPc(), instructions: cpu.instructions };
  }

  /** Runs in slices until something but the end of a budget stops it; at most so many slices. */
  until(budget: number, slices = 10_000): Step {
    for (let n = 1; ; n++) {
      const step = this.step(budget);
      if (step.stop !== CpuStop.BUDGET || n === slices) return step;
    }
  }

  /** Compiles what was found hot, which otherwise waits for more. */
  settle(): void {
    this.each(({ machine }) => {
      for (let n = 0; n < WARM_RUNS; n++) (machine as SoftMachine).code.tick();
    });
  }

  /** Compares the state of a vCPU, the one that ran last, and what is watched of memory. */
  compare(vcpu: (m: BareMetal) => Cpu = (m) => m.cpu): void {
    const [first, ...others] = this.machines;
    others.forEach((other, i) => {
      const differences = [
        ...STATE_RANGES.flatMap(([what, from, to]) => wordDifferences(what, first!, other, from, to)),
        ...this.#watched.flatMap(([address, size]) => memoryDifferences(first!, other, address, size)),
      ];
      const summary = (m: BareMetal): string => {
        const cpu = vcpu(m);
        return `PSTATE 0x${cpu.getPstate().toString(16)}, ${cpu.instructions} instructions`;
      };
      if (summary(other) !== summary(first!)) differences.push(`${summary(other)} and not ${summary(first!)}`);
      this.#report(NAMES[i + 1]!, differences);
    });
  }

  /** Compares all of RAM. */
  compareMemory(): void {
    const [first, ...others] = this.machines;
    others.forEach((other, i) => {
      this.#report(NAMES[i + 1]!, memoryDifferences(first!, other, RAM, first!.memory.size));
    });
  }

  #report(name: Name, differences: readonly string[]): void {
    if (differences.length === 0) return;
    const pc = this.machines[0]!.cpu.getPc().toString(16);
    throw new Error(`the machine "${name}" differs at 0x${pc}:\n${differences.join('\n')}\n${this.context}`);
  }
}

function wordDifferences(what: string, a: BareMetal, b: BareMetal, from: number, to: number): string[] {
  const bytes = ({ machine }: BareMetal): Uint8Array =>
    (machine as SoftMachine).views.u8.subarray(STATE + from, STATE + to);
  if (Buffer.compare(bytes(a), bytes(b)) === 0) return [];
  const words = (m: BareMetal): readonly bigint[] => [...new BigUint64Array(bytes(m).slice().buffer)];
  const wrong = words(b);
  return words(a).flatMap((word, i) =>
    word === wrong[i] ? [] : [`${what}, word ${i}: 0x${wrong[i]!.toString(16)} and not 0x${word.toString(16)}`],
  );
}

function memoryDifferences(a: BareMetal, b: BareMetal, address: number, size: number): string[] {
  const bytes = ({ memory }: BareMetal): Uint8Array => memory.bytes.subarray(address - RAM, address - RAM + size);
  if (Buffer.compare(bytes(a), bytes(b)) === 0) return [];
  const at = bytes(a).findIndex((v, i) => v !== bytes(b)[i]);
  return [`memory at 0x${(address + at).toString(16)}: ${bytes(b)[at]} and not ${bytes(a)[at]}`];
}
