import { describe, expect, jest, test } from '@jest/globals';
import { MemFlag, Reg } from '#lib/kvm/index.js';
import { createMachine } from '#lib/soft/cpu/machine.js';
import { Translator } from '#lib/soft/mmu/translate.js';
import { SoftKvm } from '#lib/soft/soft-kvm.js';
import { addImm, b, load, mov, movr, store } from '../../contract/asm.ts';
import { DEVICE, makeVm, RAM, runToExit } from '../../contract/machine.ts';

const OTHER = 0xa000_0000;
const PAGE = 4096;

/** Interpreted, and compiled as soon as a branch is taken twice. */
const engines = [
  ['interpreted', undefined],
  ['compiled', 2],
] as const;

describe.each(engines)('memory that changes under a running guest, %s', (_, threshold) => {
  /**
   * A guest that reads a word of {@link OTHER} into X2, tells X5 to an ioeventfd, and does so again; the listener is told how often.
   */
  function guestOf(change: (n: number, machine: ReturnType<typeof makeVm>) => void) {
    const kvm = new SoftKvm({ clock: 'virtual', createMachine: () => createMachine({ threshold }) });
    const machine = makeVm(kvm);
    const fd = kvm.createEventFd();
    let count = 0;
    fd.onSignal(() => {
      change(++count, machine);
    });
    machine.vm.ioeventfd({ fd, addr: DEVICE, len: 4 });
    const loop = [load(4, 2, 1), addImm(5, 5, 1), store(4, 5, 9), movr(3, 2)];
    machine.load(RAM, mov(1, OTHER), mov(9, DEVICE), loop, b(-loop.length));
    return machine;
  }

  test('a slot that is moved in a listener is gone at the next instruction', () => {
    let run: ReturnType<typeof makeVm>;
    const machine = guestOf((n) => {
      if (n === 50) run.vm.setUserMemoryRegion({ ...region, guestPhysAddr: 2 * OTHER });
    });
    run = machine;
    const memory = machine.vm.createMemory(PAGE);
    memory.bytes[0] = 7;
    const region = { slot: 1, guestPhysAddr: OTHER, memorySize: PAGE, memory };
    machine.vm.setUserMemoryRegion(region);
    expect(runToExit(machine.vcpu)).toBe('read 0xa0000000/4');
    expect(machine.vcpu.getOneReg(Reg.x(5))).toBe(50n);
    expect(machine.vcpu.getOneReg(Reg.x(3))).toBe(7n);
  });

  test('a slot that is replaced by another shows the other memory at once', () => {
    const seen: bigint[] = [];
    const machine = guestOf((n, { vm, vcpu }) => {
      seen.push(vcpu.getOneReg(Reg.x(2)));
      if (n % 20 !== 0) return;
      vm.setUserMemoryRegion({ slot: 1, guestPhysAddr: 0, memorySize: 0 });
      if (n === 60) return;
      const memory = vm.createMemory(PAGE);
      memory.bytes[0] = n;
      vm.setUserMemoryRegion({ slot: 1, guestPhysAddr: OTHER, memorySize: PAGE, memory, flags: MemFlag.READONLY });
      memory.close();
    });
    const memory = machine.vm.createMemory(PAGE);
    machine.vm.setUserMemoryRegion({ slot: 1, guestPhysAddr: OTHER, memorySize: PAGE, memory });
    expect(runToExit(machine.vcpu)).toBe('read 0xa0000000/4');
    expect(seen).toEqual(Array.from({ length: 60 }, (_, i) => BigInt(Math.floor(i / 20) * 20)));
  });

  test('a slot that appears where a device was is memory at the next access', () => {
    const seen: bigint[] = [];
    const machine = guestOf((n, { vm, vcpu }) => {
      seen.push(vcpu.getOneReg(Reg.x(2)));
      if (n === 30) {
        const memory = vm.createMemory(PAGE);
        memory.bytes[0] = 7;
        vm.setUserMemoryRegion({ slot: 1, guestPhysAddr: OTHER, memorySize: PAGE, memory });
      } else if (n === 60) {
        vm.setUserMemoryRegion({ slot: 1, guestPhysAddr: 0, memorySize: 0 });
        vm.onMmio(undefined);
      }
    });
    machine.vm.onMmio((_vcpu, exit) => {
      exit.data[0] = 5;
    });
    expect(runToExit(machine.vcpu)).toBe('read 0xa0000000/4');
    expect(seen).toEqual([...new Array(30).fill(5n), ...new Array(30).fill(7n)]);
  });

  test('slots that come and go elsewhere leave the translations of others', () => {
    const walks = jest.spyOn(Translator.prototype, 'walk');
    try {
      let before = 0;
      let after = 0;
      const machine = guestOf((n, { vm }) => {
        if (n === 40) {
          before = walks.mock.calls.length;
          const other = { slot: 2, guestPhysAddr: 2 * OTHER };
          vm.setUserMemoryRegion({ ...other, memorySize: PAGE, memory });
          vm.setUserMemoryRegion({ ...other, memorySize: 0 });
        } else if (n === 60) {
          after = walks.mock.calls.length;
          vm.setUserMemoryRegion({ slot: 1, guestPhysAddr: 0, memorySize: 0 });
        }
      });
      const memory = machine.vm.createMemory(PAGE);
      machine.vm.setUserMemoryRegion({ slot: 1, guestPhysAddr: OTHER, memorySize: PAGE, memory });
      expect(runToExit(machine.vcpu)).toBe('read 0xa0000000/4');
      // That of the eventfd's page, which might have become memory.
      expect(after - before).toBe(1);
    } finally {
      walks.mockRestore();
    }
  });

  test('the slot that the code itself is in can be replaced', () => {
    let run: ReturnType<typeof makeVm>;
    const machine = guestOf((n, { vm }) => {
      if (n !== 50) return;
      const other = vm.createMemory(0x20_0000);
      other.bytes.set(run.memory.bytes);
      // What follows the store: X3 is 77 and not X2, and the guest stops.
      const at = RAM + (mov(1, OTHER).length + mov(9, DEVICE).length + 3) * 4 - RAM;
      const words = [...mov(3, 77), ...mov(9, DEVICE + 8), store(4, 3, 9)];
      new Uint32Array(other.bytes.buffer, other.bytes.byteOffset + at).set(words);
      vm.setUserMemoryRegion({ slot: 0, guestPhysAddr: 0, memorySize: 0 });
      vm.setUserMemoryRegion({ slot: 0, guestPhysAddr: RAM, memorySize: 0x20_0000, memory: other });
    });
    run = machine;
    const memory = machine.vm.createMemory(PAGE);
    machine.vm.setUserMemoryRegion({ slot: 1, guestPhysAddr: OTHER, memorySize: PAGE, memory });
    expect(runToExit(machine.vcpu)).toBe('write 0x9000008/4 0x4d');
    expect(machine.vcpu.getOneReg(Reg.x(5))).toBe(50n);
  });
});
