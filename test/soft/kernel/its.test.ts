import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { KvmError, VgicCtrl, VgicGroup } from '#lib/kvm/index.js';
import { CpuStop } from '#lib/soft/cpu/cpu.js';
import { VgicIrq } from '#lib/soft/kernel/vgic/irq.js';
import { IrqHeap } from '#lib/soft/kernel/vgic/irq-heap.js';
import { SoftKvm } from '#lib/soft/soft-kvm.js';
import {
  Cmd,
  Gicr,
  Gits,
  type ItsVm,
  makeIts,
  startIts,
  Table,
  TRANSLATER,
  VALID,
  type Words,
} from '../../contract/its.ts';
import { RAM, RAM_SIZE } from '../../contract/machine.ts';
import { FakeMachine } from './fake-cpu.ts';

/** The contract suite's ITS, on vCPUs that execute nothing: registers, commands and MSIs go in through the fds. */
function makeFake(vcpus = 2): { its: ItsVm; machine: FakeMachine } {
  let machine!: FakeMachine;
  const kvm = new SoftKvm({
    clock: 'virtual',
    createMachine: () => {
      machine = new FakeMachine();
      return machine;
    },
  });
  return { its: makeIts(kvm, vcpus, false), machine };
}

const onlyKvmErrors = (call: () => unknown): void => {
  try {
    call();
  } catch (error) {
    if (!KvmError.is(error)) throw error;
  }
};

/** Addresses: of the tables, next to the ends of RAM, nowhere. */
const address = fc.oneof(
  fc.constantFrom(...Object.values(Table)),
  fc.constantFrom(0, RAM, RAM + RAM_SIZE - 0x1_0000, RAM + RAM_SIZE, 0xf_ffff_ffff_0000, 0x9_0000_0000),
);
const small = fc.nat({ max: 20 });
const lpi = fc.oneof(fc.integer({ min: 8190, max: 8210 }), fc.constantFrom(0, 0xffff, 0x1_0000, 0xffff_ffff));
const word64 = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
const someCommand: fc.Arbitrary<Words> = fc.oneof(
  fc.tuple(small, fc.integer({ min: 1, max: 32 }), address, fc.boolean()).map((a) => Cmd.mapd(...a)),
  fc.tuple(small, fc.nat({ max: 4 }), fc.boolean()).map((a) => Cmd.mapc(...a)),
  fc.tuple(small, small, lpi, small).map((a) => Cmd.mapti(...a)),
  fc.tuple(small, lpi, small).map((a) => Cmd.mapi(...a)),
  fc.tuple(small, small, small).map((a) => Cmd.movi(...a)),
  fc.tuple(fc.nat({ max: 3 }), fc.nat({ max: 3 })).map((a) => Cmd.movall(...a)),
  fc.tuple(small, small).map((a) => Cmd.discard(...a)),
  fc.tuple(small, small).map((a) => Cmd.int(...a)),
  fc.tuple(small, small).map((a) => Cmd.clear(...a)),
  fc.tuple(small, small).map((a) => Cmd.inv(...a)),
  small.map((a) => Cmd.invall(a)),
  fc.tuple(word64, word64, word64, word64),
);

describe('a hostile guest of an ITS', () => {
  test('may give any command, any table address and any contents of tables', () => {
    const step = fc.oneof(
      { weight: 6, arbitrary: someCommand.map((words) => (its: ItsVm) => its.commands(words)) },
      fc.tuple(fc.constantFrom(...Object.values(Gits)), word64).map(
        ([at, value]) =>
          (its: ItsVm) =>
            its.set(at, value),
      ),
      fc
        .tuple(fc.constantFrom(Gits.CBASER, Gits.BASER0, Gits.BASER1), address, fc.nat({ max: 255 }), fc.boolean())
        .map(([at, base, pages, indirect]) => (its: ItsVm) => {
          its.set(Gits.CTLR, 0);
          its.set(at, VALID | (indirect ? 1n << 62n : 0n) | BigInt(base) | BigInt(pages));
          its.set(Gits.CTLR, 1);
        }),
      fc.tuple(fc.constantFrom(...Object.values(Gicr)), fc.nat({ max: 0xffff_ffff }), fc.nat({ max: 1 })).map(
        ([at, value, vcpu]) =>
          (its: ItsVm) =>
            its.setRedist(vcpu, at, value),
      ),
      fc.tuple(address, small, word64).map(([at, index, value]) => (its: ItsVm) => {
        if (at >= RAM && at + index * 8 < RAM + RAM_SIZE) its.write(at + index * 8, value);
      }),
      fc.nat({ max: 5 }).map((attr) => (its: ItsVm) => its.its.setDeviceAttr(VgicGroup.CTRL, attr)),
      fc.constant((its: ItsVm) => its.gic.setDeviceAttr(VgicGroup.CTRL, VgicCtrl.SAVE_PENDING_TABLES)),
      fc.tuple(small, small).map(
        ([data, devid]) =>
          (its: ItsVm) =>
            void its.vm.signalMsi({ address: TRANSLATER, data, devid }),
      ),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
        const { its } = makeFake();
        startIts(its);
        for (const run of steps) {
          onlyKvmErrors(() => run(its));
          expect(its.get(Gits.CREADR) < 0x10_0000n).toBe(true);
        }
        its.vm.close();
      }),
      { numRuns: 60 },
    );
  });

  test('what was saved is what is restored, whatever was mapped', () => {
    fc.assert(
      fc.property(fc.array(someCommand, { maxLength: 60 }), (commands) => {
        const { its } = makeFake();
        startIts(its);
        its.commands(Cmd.mapc(0, 0), Cmd.mapc(1, 1), Cmd.mapd(1, 4, Table.ITT), Cmd.mapd(2, 5, Table.ITT + 0x1000));
        // Only those that name no table of their own: two devices that share one can't both be told.
        const harmless = commands.filter(([w0]) => ![0x08n].includes(w0 & 0xffn));
        its.commands(...harmless);
        const control = (attr: number): void => its.its.setDeviceAttr(VgicGroup.CTRL, attr);
        const answers = (): string =>
          [1, 2]
            .flatMap((devid) =>
              Array.from({ length: 32 }, (_, data) => its.vm.signalMsi({ address: TRANSLATER, data, devid })),
            )
            .join();
        const before = answers();
        control(VgicCtrl.ITS_SAVE_TABLES);
        control(VgicCtrl.ITS_RESET);
        its.set(Gits.CBASER, VALID | BigInt(Table.QUEUE) | 15n);
        its.set(Gits.BASER0, VALID | BigInt(Table.DEVICES));
        its.set(Gits.BASER1, VALID | BigInt(Table.COLLECTIONS));
        control(VgicCtrl.ITS_RESTORE_TABLES);
        its.set(Gits.CTLR, 1);
        expect(answers()).toBe(before);
        its.vm.close();
      }),
      { numRuns: 60 },
    );
  });

  test('a long queue is done over several turns, with the guest in between', () => {
    const { its, machine } = makeFake(1);
    startIts(its);
    its.commands(Cmd.mapd(1, 16, Table.ITT), Cmd.mapc(0, 0));
    for (let i = 0; i < 2000; i++) its.commands(Cmd.mapti(1, i, 8192 + i, 0));
    its.set(Gits.CTLR, 0);
    for (let i = 0; i < 1000; i++) its.commands(Cmd.invall(0));
    const [cpu] = machine.cpus;
    const reads: number[] = [];
    const mmio =
      (isWrite: boolean, ipa: number, valueLo = 0) =>
      () => {
        Object.assign(cpu!.access, { isWrite, ipa, size: 4, isv: true, valueLo });
        return CpuStop.MMIO;
      };
    cpu!.completeRead = (lo) => void reads.push(lo);
    cpu!.script = [
      mmio(true, 0x808_0000, 1),
      ...Array.from({ length: 50 }, () => mmio(false, 0x808_0000 + Gits.CREADR)),
    ];
    its.vcpu.run(10);
    expect(reads.length).toBeGreaterThan(1);
    expect(reads[1]).toBeGreaterThan(reads[0]!);
    expect(reads[1]).toBeLessThan(reads[0]! + 32 * 10);
    // User space finds all of it done.
    expect(its.get(Gits.CREADR)).toBe(its.get(Gits.CWRITER));
  });
});

describe('the heap of pending interrupts', () => {
  test('has the interrupt first that the specification signals first, after any changes', () => {
    const change = fc.record({
      at: fc.nat({ max: 15 }),
      priority: fc.constantFrom(0, 8, 0x80, 0xf8),
      isIn: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(change, { maxLength: 80 }), (changes) => {
        const irqs = Array.from({ length: 16 }, (_, i) => new VgicIrq(32 + i, undefined, true));
        const heap = new IrqHeap();
        const inside = new Set<VgicIrq>();
        for (const { at, priority, isIn } of changes) {
          const irq = irqs[at]!;
          if (isIn) {
            irq.priority = priority;
            inside.add(irq);
            heap.put(irq);
          } else {
            inside.delete(irq);
            heap.remove(irq);
          }
          const [first] = [...inside].sort((a, b) => a.priority - b.priority || a.intid - b.intid);
          expect(heap.first).toBe(first);
        }
      }),
    );
  });
});
