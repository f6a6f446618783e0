import { describe, expect, test } from '@jest/globals';
import { PvtimeAttr, Reg, type Vcpu, VcpuGroup } from '#lib/kvm/index.js';
import { createMachine } from '#lib/soft/cpu/machine.js';
import type { SoftVm } from '#lib/soft/kernel/vm.js';
import { SoftKvm } from '#lib/soft/soft-kvm.js';
import { addImm, b, hvc, load, mov, store, WFI } from '../../contract/asm.ts';
import {
  DEVICE,
  describeExit,
  enableGic,
  errnoOf,
  IRQ_VECTOR,
  irqHandler,
  makeVm,
  RAM,
  runToExit,
} from '../../contract/machine.ts';

const IDLE = { reason: 'intr', idleMs: Number.POSITIVE_INFINITY };
const open = (clock: 'host' | 'virtual' = 'virtual', threshold: number | undefined = undefined): SoftKvm =>
  new SoftKvm({ clock, createMachine: () => createMachine({ threshold }) });
const instructionsOf = (vcpu: Vcpu): bigint => vcpu.readStats().get('instructions')![0]!;

/** A guest that counts in X5 and signals an eventfd each time. */
function counting(kvm: SoftKvm, onCount: (count: number) => void) {
  const machine = makeVm(kvm);
  machine.load(RAM, mov(9, DEVICE), addImm(5, 5, 1), store(4, 5, 9), b(-2));
  const fd = kvm.createEventFd();
  let count = 0;
  fd.onSignal(() => onCount(++count));
  machine.vm.ioeventfd({ fd, addr: DEVICE, len: 4 });
  return { ...machine, counted: (): bigint => machine.vcpu.getOneReg(Reg.x(5)) };
}

describe.each([
  ['interpreted', undefined],
  ['compiled', 2],
] as const)('a host that is suspended, %s', (_, threshold) => {
  test('stops a guest in the middle of its run, executes nothing, and comes back where it was', () => {
    const kvm = open('virtual', threshold);
    const { vm, vcpu, counted } = counting(kvm, (count) => {
      if (count === 100) kvm.power.suspend();
      if (count === 150) vcpu.kick();
    });
    const woken: Vcpu[] = [];
    vm.onRunnable((which) => woken.push(which));
    // As Linux freezes who called KVM_RUN: EINTR, and nothing said of when to come back.
    expect(vcpu.run()).toEqual({ reason: 'intr', idleMs: undefined });
    expect([counted(), kvm.power.state]).toEqual([100n, 'suspended']);
    const before = instructionsOf(vcpu);
    for (let i = 0; i < 3; i++) expect(vcpu.run()).toMatchObject(IDLE);
    expect([counted(), instructionsOf(vcpu), woken.length]).toEqual([100n, before, 0]);
    kvm.power.resume();
    expect([woken, kvm.power.state]).toEqual([[vcpu], 'on']);
    expect(vcpu.run()).toEqual({ reason: 'intr', idleMs: undefined });
    expect(counted()).toBe(150n);
  });
});

describe('a host that is suspended', () => {
  test('completes what an exit left over, and no more', () => {
    const kvm = open();
    const { vcpu, load: put } = makeVm(kvm);
    put(RAM, mov(9, DEVICE), load(4, 2, 9), addImm(2, 2, 1), b(0));
    const exit = vcpu.run();
    expect(describeExit(exit)).toBe('read 0x9000000/4');
    if (exit.reason === 'mmio') exit.data.set([41, 0, 0, 0]);
    kvm.power.suspend();
    expect(vcpu.run()).toMatchObject(IDLE);
    expect(vcpu.getOneReg(Reg.x(2))).toBe(41n);
    kvm.power.resume();
    vcpu.run(0.001);
    expect(vcpu.getOneReg(Reg.x(2))).toBe(42n);
  });

  test.each(['host', 'virtual'] as const)('has the timers that are due fire when it is awake, %s clock', (clock) => {
    const kvm = open(clock);
    const { vm, vcpu, load: put } = makeVm(kvm, { gic: true });
    put(IRQ_VECTOR, irqHandler());
    put(RAM, enableGic(1 << 27), 0xd503_42ff /* MSR DAIFClr, #2 */, WFI, b(-1));
    let woken = 0;
    vm.onRunnable(() => woken++);
    expect(runToExit(vcpu)).toBe('idle for ever');
    // In a millisecond: 62,500 ticks.
    vcpu.setOneReg(Reg.TIMER_CVAL, vcpu.getOneReg(Reg.TIMER_CNT) + 62_500n);
    vcpu.setOneReg(Reg.TIMER_CTL, 1n);
    kvm.power.suspend();
    expect(vcpu.run()).toMatchObject(IDLE);
    const now = performance.now();
    while (clock === 'host' && performance.now() - now < 2);
    expect(vcpu.run()).toMatchObject(IDLE);
    expect(woken).toBe(0);
    kvm.power.resume();
    expect(woken).toBe(1);
    expect(runToExit(vcpu)).toBe('write 0x9000000/4 0x1b');
  });

  test('has all its VMs sleep, and no other host its own', () => {
    const [kvm, other] = [open(), open()];
    const machines = [makeVm(kvm, { vcpus: 2 }), makeVm(kvm), makeVm(other)] as const;
    for (const { load: put, vcpus } of machines) {
      put(RAM, addImm(5, 5, 1), b(-1));
      for (const vcpu of vcpus) {
        vcpu.setMpState(0);
        vcpu.setOneReg(Reg.PC, BigInt(RAM));
      }
    }
    machines[1].vm.close();
    kvm.power.suspend();
    kvm.power.suspend();
    const slept = makeVm(kvm);
    slept.load(RAM, b(0));
    const idle = [...machines, slept].map(({ vcpus }) =>
      vcpus.map((vcpu) => {
        const exit = vcpu.run(0.01);
        return exit.reason === 'intr' && exit.idleMs === Number.POSITIVE_INFINITY;
      }),
    );
    expect(idle).toEqual([[true, true], [true], [false], [true]]);
    machines[1].vcpu.close();
    kvm.power.resume();
    expect(machines[0].vcpus.map((vcpu) => vcpu.run(0.01))).toEqual(Array(2).fill({ reason: 'intr' }));
    expect(machines[0].vcpus.every((vcpu) => vcpu.getOneReg(Reg.x(5)) > 0n)).toBe(true);
  });

  test('steals no time while it sleeps', () => {
    const kvm = open();
    const { vm, vcpus, memory, load: put } = makeVm(kvm, { vcpus: 2 });
    const [one, two] = vcpus as [Vcpu, Vcpu];
    const at = RAM + 0x8000;
    // Only what executes moves the virtual clock; this is another way for time to pass.
    const sleep = (): void => void (vm as SoftVm).clock.skipTo((vm as SoftVm).clock.nowNs() + 50e6);
    const stolenMs = (): bigint =>
      new DataView(memory.bytes.buffer, memory.bytes.byteOffset).getBigUint64(at - RAM + 8, true) / 1_000_000n;
    one.setDeviceAttr(VcpuGroup.PVTIME_CTRL, PvtimeAttr.IPA, at);
    put(RAM, mov(0, 0xc500_0021), hvc(), b(0));
    put(RAM + 0x1000, b(0));
    two.init(5, 4);
    two.setOneReg(Reg.PC, BigInt(RAM + 0x1000));
    one.run(1);
    two.run(2.5);
    kvm.power.suspend();
    expect(one.run()).toMatchObject(IDLE);
    sleep();
    kvm.power.resume();
    two.run(4.5);
    one.run(1);
    expect(stolenMs()).toBe(7n);
    // Also where nobody ran it while the host slept.
    two.run(2.5);
    kvm.power.suspend();
    sleep();
    kvm.power.resume();
    two.run(3.5);
    one.run(1);
    expect(stolenMs()).toBe(13n);
  });
});

test('a host that is shut down runs no guest again, and makes no VM', () => {
  const kvm = open();
  const { vm, vcpu, counted } = counting(kvm, (count) => {
    if (count === 10) kvm.power.shutdown();
  });
  expect(vcpu.run()).toEqual({ reason: 'intr', idleMs: undefined });
  let woken = 0;
  vm.onRunnable(() => woken++);
  expect(vcpu.run()).toMatchObject(IDLE);
  kvm.power.suspend();
  kvm.power.resume();
  expect([vcpu.run(), kvm.power.state, woken]).toEqual([IDLE, 'off', 0]);
  expect(counted()).toBe(10n);
  expect(errnoOf(() => kvm.createVm())).toBe('EBUSY');
  vcpu.kick();
  expect(vcpu.run()).toEqual({ reason: 'intr', idleMs: undefined });
  expect(counted()).toBe(10n);
  for (const what of [vcpu, vm, kvm]) what.close();
});
