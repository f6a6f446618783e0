import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { type Kvm, Reg, type Vcpu } from '#lib/kvm/index.js';
import { b, daifClr, ISB, load, mov, mrs, msr, store, WFI } from './asm.ts';
import { describeGicv3 } from './backends.ts';
import { completeExit, copyVcpus, restoreGic, saveGic } from './gic-state.ts';
import { Cmd, type ItsVm, makeIts, startIts, Table, TRANSLATER } from './its.ts';
import { DEVICE, enableGic, GICD, IRQ_VECTOR, irqHandler, RAM, runToExit, Sysreg } from './machine.ts';

const SPI = (intid: number): number => (1 << 24) | intid;
/** Where the guest that moves starts; `ask` has its code below. */
const CODE = RAM + 0x8_0000;

/** Enables SPIs 32 to 63; edges but for 40; priorities A0, 40 for SPI 41, 20 for SPI 44. */
const setUp = [
  ...enableGic(0xffff_ffff),
  ...mov(1, GICD),
  ...mov(0, 0xaaa8_aaaa),
  store(4, 0, 1, 0xc08),
  ...Array.from({ length: 32 }, (_, i) => [
    ...mov(0, i === 9 ? 0x40 : i === 12 ? 0x20 : 0xa0),
    store(1, 0, 1, 0x420 + i),
  ]).flat(),
  ...mov(0, 0xffff_ffff),
  store(4, 0, 1, 0x104),
];

describeGicv3('a running GIC moves to another VM', ({ open }) => {
  let kvm: Kvm;
  beforeEach(() => {
    kvm = open();
  });
  afterEach(() => kvm.close());

  /** RAM, vCPUs, GIC and ITS of one VM, in another. */
  function move(one: ItsVm): ItsVm {
    const two = makeIts(kvm, one.vcpus.length, false);
    for (const vcpu of one.vcpus) completeExit(vcpu);
    const saved = saveGic(one.gic, one.its, one.vcpus);
    two.memory.bytes.set(one.memory.bytes);
    copyVcpus(one.vcpus, two.vcpus);
    restoreGic(two.gic, two.its, saved);
    expect(saveGic(two.gic, two.its, two.vcpus)).toEqual(saved);
    return two;
  }

  function makeRunning(vcpus = 2): ItsVm {
    const vm = startIts(makeIts(kvm, vcpus));
    for (const intid of [8192, 8193, 8194]) vm.configure(intid, intid === 8193 ? 0x31 : 0xa1);
    vm.commands(
      Cmd.mapd(1, 4, Table.ITT),
      Cmd.mapc(0, 0),
      Cmd.mapc(1, 1),
      ...[0, 1, 2].map((event) => Cmd.mapti(1, event, 8192 + event, 0)),
    );
    vm.ask(vm.vcpu, setUp);
    return vm;
  }
  const msi = ({ vm }: ItsVm, data: number): boolean => vm.signalMsi({ address: TRANSLATER, data, devid: 1 });
  /** The vCPU has a store to complete, which moves the PC on. */
  const start = (vcpu: Vcpu, at: number): string => {
    vcpu.setOneReg(Reg.PC, BigInt(at - 4));
    return runToExit(vcpu);
  };

  test('in the middle of a handler, with edges, a level, an SGI and LPIs pending: both go on as one would', () => {
    const one = makeRunning();
    one.load(IRQ_VECTOR, irqHandler());
    one.load(CODE, daifClr(2), ISB, b(0));
    one.vm.irqLine(SPI(40), true);
    expect(start(one.vcpu, CODE)).toBe('write 0x9000000/4 0x28');
    // SPI 40 is active, its line still high.
    one.vm.irqLine(SPI(41), true);
    one.vm.irqLine(SPI(43), true);
    expect([msi(one, 0), msi(one, 1)]).toEqual([true, true]);
    one.ask(one.vcpus[1]!, ...mov(0, (3n << 24n) | 1n), msr(Sysreg.ICC_SGI1R, 0));
    const two = move(one);
    for (const vm of [one, two]) {
      const taken = (): number => Number(runToExit(vm.vcpu).split(' ')[2]);
      // By priority: the SGI (00), LPI 8193 (30), SPI 41 (40), and then, while its line is high, SPI 40 again and again.
      expect([taken(), taken(), taken()]).toEqual([3, 8193, 41]);
      vm.vm.irqLine(SPI(40), false);
      // Which of two with the same priority comes first is the interrupt controller's choice.
      expect([taken(), taken()].sort()).toEqual([43, 8192]);
      vm.vm.irqLine(SPI(40), true);
      expect(taken()).toBe(40);
      vm.vm.irqLine(SPI(40), false);
      expect(msi(vm, 2)).toBe(true);
      expect(taken()).toBe(8194);
    }
  });

  test('with a handler preempted, and EOImode splitting the end in two', () => {
    const one = makeRunning(1);
    const tell = (offset: number): number[] => [...mov(21, DEVICE), store(4, 9, 21, offset)];
    const take = [mrs(9, Sysreg.ICC_IAR1), ...tell(0)];
    const state = [mrs(9, Sysreg.ICC_RPR), ...tell(4), ...mov(1, GICD), load(4, 9, 1, 0x304), ...tell(8)];
    const end = (intid: number, register: number): number[] => [...mov(0, intid), msr(register, 0), ...state];
    one.load(
      CODE,
      ...mov(0, 2),
      msr(Sysreg.ICC_CTLR, 0),
      take,
      take,
      take,
      state,
      end(44, Sysreg.ICC_EOIR1),
      end(41, Sysreg.ICC_EOIR1),
      end(44, Sysreg.ICC_DIR),
      take,
      end(42, Sysreg.ICC_EOIR1),
      end(41, Sysreg.ICC_DIR),
      end(42, Sysreg.ICC_DIR),
      take,
      b(0),
    );
    for (const intid of [42]) one.vm.irqLine(SPI(intid), true);
    const first = [start(one.vcpu, CODE)];
    one.vm.irqLine(SPI(41), true);
    first.push(runToExit(one.vcpu));
    one.vm.irqLine(SPI(44), true);
    first.push(runToExit(one.vcpu));
    expect(first.map((exit) => exit.split(' ')[2])).toEqual(['0x2a', '0x29', '0x2c']);
    for (const intid of [41, 44]) one.vm.irqLine(SPI(intid), true);
    const two = move(one);
    const seen = [one, two].map(({ vcpu }) =>
      Array.from({ length: 16 }, () => runToExit(vcpu).split(' ').slice(1).join()),
    );
    expect(seen[1]).toEqual(seen[0]);
    expect(seen[0]).toEqual(
      [
        [4, 0x20, 8, 0x1600],
        [4, 0x40, 8, 0x1600],
        [4, 0xa0, 8, 0x1600],
        [4, 0xa0, 8, 0x600, 0, 44],
        [4, 0xa0, 8, 0x1600],
        [4, 0xa0, 8, 0x1400],
        [4, 0xa0, 8, 0x1000, 0, 41],
      ].flatMap(pairs),
    );
  });

  test('twice, there and back, is where it was', () => {
    const one = makeRunning();
    one.vm.irqLine(SPI(41), true);
    msi(one, 1);
    const there = move(one);
    const back = move(there);
    for (const vm of [one, there, back]) {
      expect([vm.take(), vm.take(), vm.take()]).toEqual([8193, 41, 1023]);
    }
  });

  test('idle in WFI: the interrupt that comes after the move wakes it', () => {
    const one = makeRunning();
    one.load(IRQ_VECTOR, irqHandler());
    one.load(CODE, daifClr(2), ...mov(21, DEVICE), store(4, 31, 21, 12), WFI, b(-1));
    expect(start(one.vcpu, CODE)).toBe('write 0x900000c/4 0x0');
    const two = move(one);
    for (const vm of [one, two]) {
      vm.vcpu.run(1);
      expect(msi(vm, 2)).toBe(true);
      expect(runToExit(vm.vcpu)).toBe('write 0x9000000/4 0x2002');
    }
  });
});

/** `offset, value` pairs as the exits that tell them. */
function pairs(row: readonly number[]): string[] {
  const exits: string[] = [];
  for (let i = 0; i < row.length; i += 2) {
    exits.push(`0x${(DEVICE + row[i]!).toString(16)}/4,0x${row[i + 1]!.toString(16)}`);
  }
  return exits;
}
