import { describe, expect, test } from '@jest/globals';
import { type Kvm, Reg, type Vcpu } from '#lib/kvm/index.js';
import { openSoft } from '#lib/soft/index.js';
import { b, daifClr, mov, mrs, msr, store, WFE, WFI } from '../../contract/asm.ts';
import {
  DEVICE,
  describeExit,
  enableGic,
  IRQ_VECTOR,
  irqHandler,
  makeVm,
  RAM,
  Sysreg,
} from '../../contract/machine.ts';

const TICKS_PER_MS = 62_500;
const arm = (ms: number): number[] => [
  ...mov(10, ms * TICKS_PER_MS),
  msr(Sysreg.CNTV_TVAL, 10),
  ...mov(10, 1),
  msr(Sysreg.CNTV_CTL, 10),
];
/** Code: tells the counter, and waits for the timer, for ever. */
const ticking = (cpu: number, ms: number): number[] => {
  const loop = [...arm(ms), WFI, mrs(11, Sysreg.CNTVCT), ...mov(12, DEVICE + 8 + cpu * 0x100), store(8, 11, 12)];
  return [...enableGic(2 ** 27, cpu), daifClr(2), ...loop, b(-loop.length)];
};

/** Runs the vCPUs in turn and gives the first exits, with the instructions of each vCPU. */
function trace(kvm: Kvm, exits: number, quantum: number): string[] {
  const { vcpus, load } = makeVm(kvm, { vcpus: 2, gic: true });
  const start = [...mov(1, 1), ...mov(2, RAM + 0x1000), ...mov(3, 0), ...mov(0, 0xc4000003), 0xd4000002];
  load(RAM, start, ticking(0, 1000));
  load(RAM + 0x1000, ticking(1, 700));
  load(IRQ_VECTOR, irqHandler(...mov(22, 2), msr(Sysreg.CNTV_CTL, 22)));
  const seen: string[] = [];
  for (let turns = 0; seen.length < exits && turns < 10_000; turns++) {
    for (const vcpu of vcpus) {
      const exit = vcpu.run(quantum);
      if (exit.reason !== 'intr') seen.push(`${vcpu.id} ${describeExit(exit)} ${instructions(vcpu)}`);
    }
  }
  return seen;
}
const instructions = (vcpu: Vcpu): bigint => vcpu.readStats().get('instructions')![0]!;

describe('the virtual clock', () => {
  test('two runs are the same run, instruction for instruction', () => {
    const once = trace(openSoft({ clock: 'virtual' }), 40, 0.01);
    expect(trace(openSoft({ clock: 'virtual' }), 40, 0.01)).toEqual(once);
    expect(once.length).toBe(40);
  });

  test('skips idle time to the next timer of any vCPU, in order', () => {
    const seen = trace(openSoft({ clock: 'virtual' }), 40, 1).filter((line) => line.includes('08/8'));
    const times = seen.map((line) => Number(line.split(' ')[3]) / TICKS_PER_MS / 1000);
    expect(times).toEqual([...times].sort((a, b) => a - b));
    const first = (cpu: number): number =>
      Number(seen.find((line) => line.startsWith(`${cpu} `))!.split(' ')[3]) / TICKS_PER_MS;
    expect(first(1)).toBeGreaterThanOrEqual(700);
    expect(first(1)).toBeLessThan(701);
    expect(first(0)).toBeGreaterThanOrEqual(1000);
    expect(first(0)).toBeLessThan(1001);
  });

  test('waits are counted, with how long they were', () => {
    const { vcpu, load } = makeVm(openSoft({ clock: 'virtual' }), { gic: true });
    load(RAM, ticking(0, 2));
    load(IRQ_VECTOR, irqHandler(...mov(22, 2), msr(Sysreg.CNTV_CTL, 22)));
    // Of each round the timer's number, and the counter.
    for (let exits = 0; exits < 6; ) if (vcpu.run(1).reason === 'mmio') exits++;
    const stats = vcpu.readStats();
    const one = (name: string): number => Number(stats.get(name)![0]);
    expect([one('halt_wakeup'), one('blocking'), one('halt_attempted_poll')]).toEqual([3, 0, 0]);
    expect(one('halt_wait_ns')).toBeGreaterThan(3 * 1.99e6);
    expect(one('halt_wait_ns')).toBeLessThan(3 * 2e6);
    // 2 ms are a number of 21 bits.
    expect(stats.get('halt_wait_hist')!.map(Number)).toEqual(Array.from({ length: 32 }, (_, n) => (n === 21 ? 3 : 0)));
    const waiting = makeVm(openSoft({ clock: 'virtual' }));
    waiting.load(RAM, WFI);
    waiting.vcpu.run();
    expect(waiting.vcpu.readStats().get('blocking')).toEqual([1n]);
  });

  test('an instruction takes a nanosecond', () => {
    const { vcpu, load } = makeVm(openSoft({ clock: 'virtual' }));
    load(RAM, b(0));
    vcpu.run(3);
    const ran = Number(instructions(vcpu));
    expect(ran).toBeGreaterThanOrEqual(3_000_000);
    expect(ran).toBeLessThan(3_100_000);
    expect(Number(vcpu.getOneReg(Reg.TIMER_CNT))).toBe(Math.floor(ran / 16));
  });

  test('WFE gives the turn to a vCPU that has something to do, and only then', () => {
    const { vcpus, load } = makeVm(openSoft({ clock: 'virtual' }), { vcpus: 2 });
    load(RAM, WFE, b(-1));
    vcpus[0]!.run(1);
    expect(Number(instructions(vcpus[0]!))).toBeGreaterThan(900_000 / 65);
    vcpus[1]!.setMpState(0);
    const before = instructions(vcpus[0]!);
    vcpus[0]!.run(1);
    expect(instructions(vcpus[0]!) - before).toBeLessThan(10n);
  });

  test('the random numbers of a guest are the same in every run', () => {
    const random = (): bigint => {
      const { vcpu, load } = makeVm(openSoft({ clock: 'virtual' }));
      load(RAM, mov(1, 64), mov(0, 0xc4000053), 0xd4000002, mov(9, DEVICE), store(8, 3, 9));
      vcpu.run();
      return vcpu.getOneReg(Reg.x(3));
    };
    expect(random()).toBe(random());
    expect(random()).not.toBe(0n);
  });
});
