import { describe, expect, test } from '@jest/globals';
import type { MmioListener, Vcpu, VcpuExit, Vm } from '#lib/kvm/index.js';
import { MmioBus } from '#lib/vmm/mmio-bus.js';
import { TurnLoop } from '#lib/vmm/turn-loop.js';

/** What a vCPU does with its turn: takes so many milliseconds of it, at most all, and comes back. */
type Run = (quantumMs: number) => { readonly ms: number; readonly exit: VcpuExit };

/** A loop of vCPUs that follow a script, on a clock that only they move. */
class Turns {
  now = 0;
  /** Which vCPU had how long a slice, rounded to microseconds. */
  readonly slices: [number, number][] = [];
  readonly kicks: number[] = [];
  onMmio: MmioListener | undefined;
  readonly bus = new MmioBus();
  readonly loop: TurnLoop;
  readonly vcpus: readonly Vcpu[];
  #turn: (() => void) | undefined;

  constructor(runs: readonly Run[], virtualClock: boolean) {
    this.vcpus = runs.map((run, id) => {
      const vcpu = {
        run: (quantumMs: number) => {
          this.slices.push([id, Math.round(quantumMs * 1000)]);
          const { ms, exit } = run(quantumMs);
          this.now += ms;
          return exit;
        },
        kick: () => this.kicks.push(id),
      };
      return vcpu as unknown as Vcpu;
    });
    const vm = {
      closed: false,
      onRunnable: () => {},
      onMmio: (listener: MmioListener | undefined) => {
        this.onMmio = listener;
      },
    };
    const soon = (turn: () => void) => {
      this.#turn = turn;
      return () => {};
    };
    this.loop = new TurnLoop({
      vm: vm as unknown as Vm,
      vcpus: this.vcpus,
      bus: this.bus,
      scheduler: { soon, after: (_, turn) => soon(turn), hold: () => () => {}, setRef: () => {}, now: () => this.now },
      events: {
        entered: () => {},
        systemEvent: () => {},
        failed: (error) => {
          throw error;
        },
        handOut: () => {},
      },
      clock: { now: () => this.now, wallMs: () => 0 },
      virtualClock,
    });
    this.loop.start();
  }

  turn(): void {
    this.#turn!();
  }
}

const computes: Run = (quantumMs) => ({ ms: quantumMs, exit: { reason: 'intr', idleMs: undefined } });
const waits: Run = () => ({ ms: 0.01, exit: { reason: 'intr', idleMs: undefined } });
const sleeps: Run = () => ({ ms: 0.01, exit: { reason: 'intr', idleMs: Number.POSITIVE_INFINITY } });

describe.each([
  ['the host', false, 1000],
  ['virtual', true, 250],
])('slices on the clock: %s', (_name, virtualClock, slice) => {
  test('are equal for vCPUs that compute', () => {
    const turns = new Turns([computes, computes], virtualClock);
    turns.turn();
    for (const [, length] of turns.slices) expect(length).toBe(slice);
    expect(new Set(turns.slices.map(([id]) => id))).toEqual(new Set([0, 1]));
  });

  test('are short for who is waited for', () => {
    const turns = new Turns([waits, computes], virtualClock);
    turns.turn();
    const mine = turns.slices.filter(([id]) => id === 1).map(([, length]) => length);
    expect(mine.length).toBeGreaterThan(5);
    expect(new Set(mine.slice(1, -1))).toEqual(new Set([100]));
  });

  test('are as long as ever beside one that sleeps', () => {
    const turns = new Turns([sleeps, computes], virtualClock);
    turns.turn();
    for (const [id, length] of turns.slices.slice(0, 2)) expect([id, length]).toEqual([id, slice]);
  });
});

test('a vCPU that only accesses devices is sent back now and then, for the others', () => {
  const turns = new Turns([computes, computes], false);
  const data = new Uint8Array(8);
  for (let n = 0; n < 4096; n++) {
    turns.onMmio!(turns.vcpus[1]!, { reason: 'mmio', physAddr: 0, len: 4, isWrite: false, data });
    expect(turns.kicks.length).toBe(n === 4095 ? 1 : 0);
  }
  expect([turns.kicks, turns.loop.exits.mmio, turns.bus.unassigned]).toEqual([[1], 4096, 4096]);
});
