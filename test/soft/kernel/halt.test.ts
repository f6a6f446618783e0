import { describe, expect, test } from '@jest/globals';
import { Cap, IoeventfdFlag, type Kvm, Reg, type Vcpu } from '#lib/kvm/index.js';
import { createMachine } from '#lib/soft/cpu/machine.js';
import { openSoft } from '#lib/soft/index.js';
import { type Clock, type InstructionCounter, VirtualClock } from '#lib/soft/kernel/clock.js';
import { Halt } from '#lib/soft/kernel/halt.js';
import { SoftHostPower } from '#lib/soft/kernel/host-power.js';
import { SoftVm } from '#lib/soft/kernel/vm.js';
import { b, mov, msr, store, WFI } from '../../contract/asm.ts';
import { DEVICE, enableGic, makeVm, RAM, Sysreg, type TestVm } from '../../contract/machine.ts';

const US = 1000;
const MS = 1000 * US;
const VTIMER = 2 ** 27;
const NS_PER_TICK = 16;

/** The window that each of the waits has, one after the other. @param limits for each, or for all */
function windows(waits: readonly number[], limits: readonly number[] = [500 * US]): number[] {
  const clock = new VirtualClock();
  let limit = 0;
  const halt = new Halt(clock, () => limit);
  return waits.map((ns, n) => {
    limit = limits[n] ?? limits[0]!;
    halt.begin();
    const window = Math.max(halt.pollUntilNs - clock.nowNs(), 0);
    if (ns > window) halt.block();
    clock.skipTo(clock.nowNs() + ns);
    halt.wake();
    return window;
  });
}

describe('the window in which a vCPU polls', () => {
  const us = (...values: number[]): number[] => values.map((value) => value * US);

  test('starts at 10 us with the first short wait, and doubles until it covers them', () => {
    expect(windows(us(100, 100, 100, 100, 100, 100, 100))).toEqual(us(0, 10, 20, 40, 80, 160, 160));
  });

  test('is at most the limit, as it is when the wait begins', () => {
    expect(windows(us(400, 400, 400, 400, 400, 400, 400, 499, 501))).toEqual(us(0, 10, 20, 40, 80, 160, 320, 500, 500));
    const limits = us(500, 500, 500, 500, 50, 500);
    expect(windows(us(100, 100, 100, 100, 100, 100), limits)).toEqual(us(0, 10, 20, 40, 50, 25));
  });

  test('halves after a wait that no window covers, and is none below 10 us', () => {
    const waits = [...us(100, 100, 100, 100, 100), ...Array<number>(6).fill(MS)];
    expect(windows(waits)).toEqual(us(0, 10, 20, 40, 80, 160, 80, 40, 20, 10, 0));
  });

  test('stays as it is after a wait as long as the limit', () => {
    expect(windows(us(500, 100, 500, 500))).toEqual(us(0, 0, 10, 10));
  });

  test('a limit of 0 closes it at the end of a wait, however short', () => {
    let limit = 500 * US;
    const clock = new VirtualClock();
    const halt = new Halt(clock, () => limit);
    const wait = (then: number): number => {
      halt.begin();
      const window = Math.max(halt.pollUntilNs - clock.nowNs(), 0);
      clock.skipTo(clock.nowNs() + 8 * US);
      limit = then;
      halt.wake();
      return window;
    };
    halt.begin();
    halt.block();
    clock.skipTo(8 * US);
    halt.wake();
    expect([500, 500, 0].map((then) => wait(then * US))).toEqual(us(10, 10, 10));
    limit = 500 * US;
    expect(wait(limit)).toBe(0);
  });

  test('grows as an unsigned int where the limit has 32 bits', () => {
    const seen = windows(Array<number>(22).fill(0xffff_fff0), [0xffff_ffff]);
    expect(seen.slice(-3)).toEqual([2_621_440_000, (2_621_440_000 * 2) % 2 ** 32, (2_621_440_000 * 4) % 2 ** 32]);
  });
});

/** A host's clock that a test moves: by what is executed, by {@link advance} and by polling, which is noted. */
class HostTime implements Clock {
  readonly kind = 'host';
  readonly skippedNs = 0;
  readonly polls: number[] = [];
  readonly #inner = new VirtualClock();

  nowNs(): number {
    return this.#inner.nowNs();
  }
  wallMs(): number {
    return this.#inner.wallMs();
  }
  enter(cpu: InstructionCounter): void {
    this.#inner.enter(cpu);
  }
  leave(): void {
    this.#inner.leave();
  }
  budget(nowNs: number, untilNs: number): number {
    return this.#inner.budget(nowNs, untilNs);
  }
  isOverdue(): boolean {
    return false;
  }
  learn(): void {}
  skipTo(): boolean {
    return false;
  }
  pollUntil(ns: number): void {
    this.polls.push(ns - this.nowNs());
    this.#inner.skipTo(ns);
  }
  advance(ms: number): void {
    this.#inner.skipTo(this.nowNs() + ms * 1e6);
  }
}

function makeHost(vcpus = 1): TestVm & { clock: HostTime } {
  const clock = new HostTime();
  const vm = new SoftVm(createMachine({}), clock, 40, new SoftHostPower());
  return { ...makeVm({ createVm: () => vm } as unknown as Kvm, { vcpus, gic: true }), clock };
}

/** Code: waits for a timer that is due in `ns`. Uses X10. */
const sleep = (ns: number): number[] => [
  ...mov(10, ns / NS_PER_TICK),
  msr(Sysreg.CNTV_TVAL, 10),
  ...mov(10, 1),
  msr(Sysreg.CNTV_CTL, 10),
  WFI,
  msr(Sysreg.CNTV_CTL, 31),
];
const tell = [...mov(12, DEVICE), store(4, 31, 12)];

/** Runs the vCPU until it tells {@link DEVICE}, each time for as long as it is idle. @returns how often it was */
function finish({ vcpu, clock }: { vcpu: Vcpu; clock?: HostTime }, quantum?: number): number {
  for (let idle = 0, turns = 0; turns < 1000; turns++) {
    const exit = vcpu.run(quantum);
    if (exit.reason === 'mmio') return idle;
    if (exit.reason !== 'intr') throw new Error(exit.reason);
    if (exit.idleMs === undefined) continue;
    idle++;
    clock?.advance(exit.idleMs);
  }
  throw new Error('the guest never told');
}
const stat = (vcpu: Vcpu, name: string): number[] => vcpu.readStats().get(name)!.map(Number);
const polls = (vcpu: Vcpu): number[] =>
  ['halt_attempted_poll', 'halt_successful_poll', 'halt_wakeup'].flatMap((name) => stat(vcpu, name));
const times = (n: number, code: number[]): number[] => Array<number[]>(n).fill(code).flat();

describe('a halted vCPU', () => {
  const waits = [...enableGic(VTIMER), ...times(8, sleep(96 * US)), ...tell];

  test('polls for a timer within the window, and else has the caller wait', () => {
    const made = makeHost();
    made.load(RAM, waits);
    // Windows of 0, 10, 20, 40 and 80 us are too short.
    expect(finish(made)).toBe(5);
    expect(made.clock.polls.length).toBe(3);
    for (const ns of made.clock.polls) expect(ns).toBeGreaterThan(95 * US);
    const { vcpu } = made;
    expect(polls(vcpu)).toEqual([7, 3, 5]);
    expect(stat(vcpu, 'halt_poll_invalid')).toEqual([0]);
    expect(stat(vcpu, 'halt_poll_success_ns')[0]).toBeGreaterThan(3 * 95 * US);
    expect(stat(vcpu, 'halt_poll_success_ns')[0]).toBeLessThanOrEqual(3 * 96 * US);
    // 96 us are a number of 17 bits. What would have been in vain was not begun.
    expect(stat(vcpu, 'halt_poll_success_hist')).toEqual(Array.from({ length: 32 }, (_, n) => (n === 17 ? 3 : 0)));
    expect(stat(vcpu, 'halt_poll_fail_ns')).toEqual([0]);
    expect(stat(vcpu, 'halt_poll_fail_hist')).toEqual(Array.from({ length: 32 }, (_, n) => (n === 0 ? 4 : 0)));
    expect(stat(vcpu, 'halt_wait_hist')).toEqual(Array.from({ length: 32 }, (_, n) => (n === 17 ? 5 : 0)));
  });

  test('polls within what KVM_CAP_HALT_POLL says, and with 0 never', () => {
    for (const [max, expected] of [
      [0, [0, 0, 8]],
      [64 * US, [0, 0, 8]],
      [100 * US, [7, 3, 5]],
    ] as const) {
      const made = makeHost();
      made.vm.enableCap(Cap.HALT_POLL, [max]);
      made.load(RAM, waits);
      finish(made);
      expect([max, polls(made.vcpu)]).toEqual([max, expected]);
    }
  });

  test('a limit that comes later holds from the next wait on', () => {
    for (const [max, attempts] of [
      [0, 0],
      // Windows of 50, 25 and 12.5 us, which are too short.
      [50 * US, 3],
    ] as const) {
      const made = makeHost();
      made.load(RAM, [...waits, ...waits]);
      finish(made);
      expect(polls(made.vcpu)).toEqual([7, 3, 5]);
      made.vm.enableCap(Cap.HALT_POLL, [max]);
      finish(made);
      expect(polls(made.vcpu)).toEqual([7 + attempts, 3, 13]);
      expect(made.clock.polls.length).toBe(3);
    }
  });

  test('does not poll beyond the quantum of its run', () => {
    const made = makeHost();
    made.load(RAM, waits);
    expect(finish(made, 0.09)).toBe(8);
    expect(made.clock.polls).toEqual([]);
    expect(polls(made.vcpu)).toEqual([7, 0, 8]);
  });

  test('does not poll where this run has told user space something', () => {
    const signal = [...mov(12, DEVICE + 8), store(4, 31, 12)];
    for (const how of ['ioeventfd', 'listener'] as const) {
      const made = makeHost();
      made.load(RAM, [...enableGic(VTIMER), ...times(8, [...signal, ...sleep(96 * US)]), ...tell]);
      const seen: number[] = [];
      if (how === 'ioeventfd') {
        using fd = openSoft().createEventFd();
        made.vm.ioeventfd({ addr: DEVICE + 8, len: 4, fd });
        fd.onSignal(() => seen.push(1));
        expect(finish(made)).toBe(8);
      } else {
        made.vm.onMmio((vcpu, { physAddr }) => (physAddr === DEVICE ? vcpu.kick() : seen.push(1)));
        for (let turns = 0; turns < 100; turns++) {
          const exit = made.vcpu.run();
          if (exit.reason !== 'intr' || exit.idleMs === undefined) break;
          made.clock.advance(exit.idleMs);
        }
      }
      expect([how, seen.length, made.clock.polls]).toEqual([how, 8, []]);
      expect(polls(made.vcpu)).toEqual([7, 0, 8]);
    }
  });

  test('polls again in the next run', () => {
    const made = makeHost();
    made.load(RAM, [...waits, ...waits]);
    using fd = openSoft().createEventFd();
    const bell = { addr: DEVICE, len: 4, fd };
    made.vm.ioeventfd(bell);
    fd.onSignal(() => made.vm.ioeventfd({ ...bell, flags: IoeventfdFlag.DEASSIGN }));
    // Of the second eight waits, the first has its caller wait: its run has signalled.
    expect(finish(made)).toBe(6);
    expect(polls(made.vcpu)).toEqual([15, 10, 6]);
  });

  test('does not poll while another vCPU has something to execute, or will have it earlier', () => {
    for (const [other, polled] of [
      [[b(0)], 0],
      [[WFI], 3],
      // Due within the first wait that a window covers.
      [[...enableGic(VTIMER, 1), ...sleep(528 * US), b(0)], 0],
      [[...enableGic(VTIMER, 1), ...sleep(8 * MS), b(0)], 3],
    ] as const) {
      const made = makeHost(2);
      made.load(RAM, waits);
      made.load(RAM + 0x1000, [...other]);
      const second = made.vcpus[1]!;
      second.setMpState(0);
      second.setOneReg(Reg.PC, BigInt(RAM + 0x1000));
      second.run(0.01);
      finish(made);
      expect(made.clock.polls.length).toBe(polled);
      expect(stat(made.vcpu, 'halt_attempted_poll')).toEqual([7]);
    }
  });

  test('with the virtual clock waits are counted by the same rules, and nothing is waited for', () => {
    const made = makeVm(openSoft({ clock: 'virtual' }), { gic: true });
    made.load(RAM, waits);
    expect(finish(made)).toBe(0);
    expect(polls(made.vcpu)).toEqual([7, 3, 5]);
  });

  test('a suspended vCPU waits, too, until it is told to run', () => {
    const made = makeHost();
    made.load(RAM, tell);
    made.vcpu.setMpState(10);
    expect(made.vcpu.run()).toMatchObject({ reason: 'intr', idleMs: Number.POSITIVE_INFINITY });
    expect(stat(made.vcpu, 'blocking')).toEqual([1]);
    made.clock.advance(1);
    made.vcpu.setMpState(0);
    expect(stat(made.vcpu, 'blocking')).toEqual([0]);
    expect(stat(made.vcpu, 'halt_wait_ns')).toEqual([MS]);
    expect(finish(made)).toBe(0);
  });
});

describe('the clock of a host', () => {
  test('a poll ends at its time, and not before', () => {
    const vm = openSoft().createVm() as SoftVm;
    const until = vm.clock.nowNs() + 200 * US;
    vm.clock.pollUntil(until);
    expect(vm.clock.nowNs()).toBeGreaterThanOrEqual(until);
    const now = vm.clock.nowNs();
    vm.clock.pollUntil(now - 1);
    vm.close();
  });
});
