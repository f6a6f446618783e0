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
    vcpu.setVcpuEvents({ serrorPending: true });
    expect(machine.cpus[0]!.log).toEqual(['serror 0']);
    expect(vcpu.getVcpuEvents().serrorPending).toBe(true);
    expect(() => vcpu.setVcpuEvents({ serrorPending: true, serrorHasEsr: true })).toThrow('EINVAL');
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
