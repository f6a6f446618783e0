import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { type Kvm, type MmioExit, Reg } from '#lib/kvm/index.js';
import { openSoft } from '#lib/soft/index.js';
import { addImm, b, daifClr, load, loadSigned, mov, store, storePost } from '../../contract/asm.ts';
import {
  DEVICE,
  describeExit,
  enableGic,
  GICD,
  IRQ_VECTOR,
  irqHandler,
  makeVm,
  RAM,
  runToExit,
} from '../../contract/machine.ts';

const DONE = DEVICE + 0x1000;
const done = (): number[] => [...mov(20, DONE), store(4, 31, 20), b(0)];

let kvm: Kvm;
beforeEach(() => {
  kvm = openSoft({ clock: 'virtual' });
});
afterEach(() => kvm.close());

describe('a listener for MMIO', () => {
  test('answers what would be exits, in order and with the same words', () => {
    const program = [
      mov(1, DEVICE),
      mov(2, 0x1122_3344_5566_7788n),
      ([1, 2, 4, 8] as const).flatMap((size) => [store(size, 2, 1, 8), load(size, 3, 1, 16)]),
      loadSigned(2, 4, 1),
      done(),
    ];
    const run = (listens: boolean): { seen: string[]; registers: bigint[]; accesses: unknown } => {
      const { vm, vcpu, load: put } = makeVm(kvm);
      put(RAM, ...program);
      const seen: string[] = [];
      const answer = (exit: MmioExit): void => {
        seen.push(describeExit(exit));
        if (!exit.isWrite) exit.data.set([0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8].slice(0, exit.len));
      };
      if (listens) vm.onMmio((_, exit) => (exit.physAddr === DONE ? vcpu.kick() : answer(exit)));
      for (;;) {
        const exit = vcpu.run(1);
        if (exit.reason === 'intr') break;
        if (exit.reason !== 'mmio') throw new Error(exit.reason);
        if (exit.physAddr === DONE) break;
        answer(exit);
      }
      if (!listens) vcpu.run(0);
      return {
        seen,
        registers: [Reg.x(3), Reg.x(4), Reg.PC].map((id) => vcpu.getOneReg(id)),
        accesses: vcpu.readStats().get('mmio_exit_user'),
      };
    };
    const listened = run(true);
    expect(listened).toEqual(run(false));
    expect(listened.seen.length).toBe(9);
    expect(listened.registers.slice(0, 2)).toEqual([0xf8f7_f6f5_f4f3_f2f1n, 0xffff_ffff_ffff_f2f1n]);
  });

  test('is not asked for what the kernel answers, nor for what has no syndrome', () => {
    const { vm, vcpu, load: put } = makeVm(kvm, { gic: true });
    const fd = kvm.createEventFd();
    vm.ioeventfd({ fd, addr: DEVICE, len: 4 });
    vm.registerCoalescedMmio(DEVICE + 8, 4);
    put(
      RAM,
      mov(1, DEVICE),
      mov(5, GICD),
      store(4, 31, 1),
      store(4, 31, 1, 8),
      load(4, 2, 5, 8),
      storePost(2, 1),
      b(0),
    );
    let asked = 0;
    vm.onMmio(() => asked++);
    expect(() => vcpu.run(1)).toThrow('ENOSYS');
    expect([asked, fd.read(), vm.takeCoalescedMmio().length]).toEqual([0, 1, 1]);
  });

  test('raises an interrupt, which is taken behind the access', () => {
    const { vm, vcpu, load: put } = makeVm(kvm, { gic: true });
    const SPI = 8;
    put(
      RAM,
      enableGic(0),
      [...mov(1, GICD), ...mov(0, 0xa0), store(1, 0, 1, 0x420 + SPI), ...mov(0, 1 << SPI), store(4, 0, 1, 0x104)],
      [...mov(1, DEVICE + 8), daifClr(2), store(4, 31, 1), addImm(7, 7, 1), b(-2)],
    );
    put(IRQ_VECTOR, irqHandler());
    const log: string[] = [];
    vm.onMmio((_, exit) => {
      log.push(describeExit(exit));
      // The interrupt's level falls when its handler has told its number.
      vm.irqLine((1 << 24) | (32 + SPI), exit.physAddr === DEVICE + 8);
      if (log.length === 8) vcpu.kick();
    });
    expect(vcpu.run(1)).toMatchObject({ reason: 'intr' });
    expect(log).toEqual(Array(4).fill(['write 0x9000008/4 0x0', 'write 0x9000000/4 0x28']).flat());
    expect(vcpu.getOneReg(Reg.x(7))).toBeLessThan(4n);
  });

  test('that throws leaves the access to the next run()', () => {
    const { vm, vcpu, load: put } = makeVm(kvm);
    put(RAM, mov(1, DEVICE), load(4, 3, 1), done());
    vm.onMmio((_, exit) => {
      exit.data.fill(0x11);
      throw new Error('out of order');
    });
    expect(() => vcpu.run(1)).toThrow('out of order');
    expect(vcpu.getOneReg(Reg.PC)).toBe(BigInt(RAM + 4 * mov(1, DEVICE).length));
    vm.onMmio(undefined);
    expect(runToExit(vcpu)).toBe('write 0x9001000/4 0x0');
    expect(vcpu.getOneReg(Reg.x(3))).toBe(0x1111_1111n);
  });

  test('puts an external abort in the place of the access', () => {
    const { vm, vcpu, load: put } = makeVm(kvm);
    put(RAM, mov(1, DEVICE), load(4, 3, 1), b(0));
    let asked = 0;
    vm.onMmio((which) => {
      asked++;
      which.setVcpuEvents({ extDabtPending: true });
      which.kick();
    });
    vcpu.run(1);
    expect([asked, vcpu.getOneReg(Reg.PC)]).toEqual([1, 0x200n]);
  });

  test('does not let a guest that only reads a device have the thread for longer than its quantum', () => {
    const { vm, vcpu, load: put } = makeVm(kvm);
    put(RAM, mov(1, DEVICE), load(4, 3, 1), b(-1));
    let asked = 0;
    vm.onMmio(() => asked++);
    expect(vcpu.run(1)).toMatchObject({ reason: 'intr' });
    // A millisecond of the virtual clock is a million instructions.
    expect(asked).toBeGreaterThan(1000);
    expect(asked).toBeLessThan(600_000);
  });

  test('may not run a vCPU', () => {
    const { vm, vcpu, load: put } = makeVm(kvm);
    put(RAM, mov(1, DEVICE), load(4, 3, 1), b(0));
    vm.onMmio((which) => which.run(1));
    expect(() => vcpu.run(1)).toThrow('EBUSY');
  });
});
