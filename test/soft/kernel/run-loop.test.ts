import { describe, expect, test } from '@jest/globals';
import type { Vcpu, Vm } from '#lib/kvm/index.js';
import { CpuStop } from '#lib/soft/cpu/cpu.js';
import { SoftKvm } from '#lib/soft/soft-kvm.js';
import { FakeMachine, type Step } from './fake-cpu.ts';

function make(...script: Step[]): { vm: Vm; vcpu: Vcpu; machine: FakeMachine } {
  const machine = new FakeMachine();
  const vm = new SoftKvm({ clock: 'virtual', createMachine: () => machine }).createVm();
  const vcpu = vm.createVcpu(0);
  vcpu.init(5, 4);
  machine.cpus[0]!.script = script;
  return { vm, vcpu, machine };
}
/** Executes the whole budget. */
const spend: Step = (cpu, budget) => {
  cpu.instructions += budget;
  return CpuStop.BUDGET;
};

describe('the run loop', () => {
  test('gives the processor the quantum as its budget, and comes back when it is spent', () => {
    const budgets: number[] = [];
    const { vcpu } = make((cpu, budget) => {
      budgets.push(budget);
      return spend(cpu, budget);
    });
    expect(vcpu.run(2)).toEqual({ reason: 'intr', idleMs: undefined });
    expect(budgets).toEqual([2_000_000]);
  });

  test('an SMC is passed before it is answered', () => {
    const { vcpu, machine } = make((cpu) => {
      cpu.setX(0, 0x84000000n);
      return CpuStop.SMC;
    });
    vcpu.run(1);
    expect(machine.cpus[0]!.log).toEqual(['skip']);
    expect(machine.cpus[0]!.getX(0)).toBe(0x10003n);
  });

  test('an SError of user space reaches the processor', () => {
    const { vcpu, machine } = make();
    const cpu = machine.cpus[0]!;
    const none = { serrorPending: false, serrorHasEsr: true, serrorEsr: 0n, extDabtPending: false };
    expect(vcpu.getVcpuEvents()).toEqual(none);
    // Without a syndrome it has IDS, and nothing else.
    vcpu.setVcpuEvents({ serrorPending: true, serrorEsr: 5n });
    expect(cpu.log).toEqual(['serror 16777216']);
    expect(vcpu.getVcpuEvents()).toEqual({ ...none, serrorPending: true, serrorEsr: 1n << 24n });
    vcpu.setVcpuEvents({ serrorPending: true, serrorHasEsr: true, serrorEsr: 0x1ff_ffffn });
    expect(vcpu.getVcpuEvents().serrorEsr).toBe(0x1ff_ffffn);
    for (const serrorEsr of [1n << 25n, 1n << 63n, -1n]) {
      expect(() => vcpu.setVcpuEvents({ serrorPending: true, serrorHasEsr: true, serrorEsr })).toThrow('EINVAL');
    }
    expect(vcpu.getVcpuEvents().serrorEsr).toBe(0x1ff_ffffn);
  });

  test('one that the guest does not mask is taken at once, and the access that an exit was for is not done', () => {
    const { vcpu, machine } = make(
      (cpu) => {
        Object.assign(cpu.access, { ipa: 0x1000, isWrite: false, isv: true, size: 4, register: 0 });
        return CpuStop.MMIO;
      },
      () => CpuStop.BUDGET,
    );
    const cpu = machine.cpus[0]!;
    expect(vcpu.run(1)).toMatchObject({ reason: 'mmio' });
    cpu.masksSerror = false;
    vcpu.setVcpuEvents({ serrorPending: true, serrorHasEsr: true, serrorEsr: 7n });
    expect(vcpu.getVcpuEvents().serrorPending).toBe(false);
    vcpu.run(1);
    expect(cpu.log).toEqual(['serror 7', 'takes it']);
  });

  test('an exit object is used again, with the bytes of its own access', () => {
    const write = (valueLo: number, size: number): Step => {
      return (cpu) => {
        Object.assign(cpu.access, { ipa: 0x1000, isWrite: true, isv: true, size, valueLo });
        return CpuStop.MMIO;
      };
    };
    const { vcpu } = make(write(0xffff_ffff, 4), write(0xff, 1));
    const first = vcpu.run(1);
    expect(first).toMatchObject({ reason: 'mmio', len: 4, isWrite: true });
    const second = vcpu.run(1);
    expect(second).toBe(first);
    expect(second).toMatchObject({ len: 1, data: Uint8Array.of(0xff, 0, 0, 0, 0, 0, 0, 0) });
  });

  test('a guest that retires nothing comes back, too', () => {
    const { vcpu, machine } = make();
    machine.cpus[0]!.run = () => CpuStop.BUDGET;
    expect(vcpu.run(0.1).reason).toBe('intr');
    machine.cpus[0]!.run = () => CpuStop.HVC;
    expect(vcpu.run(0.1).reason).toBe('intr');
  });

  test('the machine ends when the last handle is closed, whatever the order', () => {
    const { vm, vcpu, machine } = make();
    const memory = vm.createMemory(4096);
    const gic = vm.createDevice(7);
    vm.setUserMemoryRegion({ slot: 0, guestPhysAddr: 0, memorySize: 4096, memory });
    memory.close();
    vm.close();
    gic.close();
    expect(machine.log).toEqual(['map 0 4096']);
    vcpu.close();
    vcpu.close();
    expect(machine.log).toEqual(['map 0 4096', 'destroyCpu', 'unmap 0 4096', 'free 4096', 'close']);
  });
});
