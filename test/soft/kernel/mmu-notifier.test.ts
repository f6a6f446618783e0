import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import {
  KvmError,
  MemFlag,
  type MmuNotifier,
  type PageProtection,
  Reg,
  sysregId,
  sysregIndex,
  type Vcpu,
  type VcpuExit,
} from '#lib/kvm/index.js';
import { createMachine } from '#lib/soft/cpu/machine.js';
import type { SoftVm } from '#lib/soft/kernel/vm.js';
import { SoftKvm } from '#lib/soft/soft-kvm.js';
import { addImm, b, ISB, load, mov, movr, msr, store } from '../../contract/asm.ts';
import { DEVICE, describeExit, errnoOf, makeVm, RAM, RAM_SIZE } from '../../contract/machine.ts';

const PAGE = 4096;
/** A page of data, as an offset, and the guest's only translation table. */
const DATA = 0x4000;
const TABLE = 0x10_0000;
const at = (page: number): string => `EFAULT at 0x${(RAM + page).toString(16)}`;

const engines = [
  ['interpreted', undefined],
  ['compiled', 2],
] as const;

/** The pages of a bitmap, by number. */
const pagesOf = (bits: Uint8Array): number[] =>
  Array.from({ length: bits.length * 8 }, (_, i) => i).filter((i) => ((bits[i >>> 3]! >>> (i & 7)) & 1) === 1);

/** Runs to an exit, and completes it: PC can then be set. */
function runToFault(vcpu: Vcpu): string {
  for (let i = 0; i < 100; i++) {
    let exit: VcpuExit;
    try {
      exit = vcpu.run(1);
    } catch (error) {
      if (!KvmError.is(error, 'EFAULT')) throw error;
      return `EFAULT at ${/IPA (0x[0-9a-f]+)/.exec(error.message)![1]}`;
    }
    if (exit.reason === 'intr') continue;
    const what = describeExit(exit);
    vcpu.immediateExit = true;
    vcpu.run();
    vcpu.immediateExit = false;
    return what;
  }
  throw new Error('the guest did not exit');
}

describe.each(engines)('what a memory manager does to memory, %s', (_, threshold) => {
  function makeGuest(...code: readonly (number | number[])[]) {
    const kvm = new SoftKvm({ clock: 'virtual', createMachine: () => createMachine({ threshold }) });
    const machine = makeVm(kvm);
    const notifier: MmuNotifier = machine.memory.notifier!;
    machine.load(RAM, ...code);
    return { ...machine, notifier, kvm };
  }

  /** Reads a word of {@link DATA} into X2, stores X5 to the page after it and to an ioeventfd, and does so again. */
  function makeLoop(change: (n: number, guest: ReturnType<typeof makeGuest>) => void) {
    const loop = [load(4, 2, 1), addImm(5, 5, 1), store(4, 5, 1, 4092), store(4, 5, 9), movr(3, 2)];
    const guest = makeGuest(mov(1, RAM + DATA), mov(9, DEVICE), loop, b(-loop.length));
    const fd = guest.kvm.createEventFd();
    let count = 0;
    fd.onSignal(() => change(++count, guest));
    guest.vm.ioeventfd({ fd, addr: DEVICE, len: 4 });
    const x = (n: number): bigint => guest.vcpu.getOneReg(Reg.x(n));
    return { ...guest, x };
  }

  test('a page that is taken away while the guest runs stops it at its next load, until it is given back', () => {
    const { vcpu, notifier, memory, x } = makeLoop((n, { notifier }) => {
      if (n % 40 === 0) notifier.protect(DATA, PAGE, 'none');
    });
    memory.bytes[DATA] = 7;
    expect(runToFault(vcpu)).toBe(at(DATA));
    expect(runToFault(vcpu)).toBe(at(DATA));
    expect([x(5), x(3)]).toEqual([40n, 7n]);
    memory.bytes[DATA] = 8;
    notifier.protect(DATA, PAGE, 'read-write');
    expect(runToFault(vcpu)).toBe(at(DATA));
    expect([x(5), x(3)]).toEqual([80n, 8n]);
  });

  test('a page that may be read only stops a store, and no load', () => {
    const { vcpu, notifier, memory, x } = makeLoop((n, { notifier }) => {
      if (n === 40) notifier.protect(DATA, PAGE, 'read');
    });
    expect(runToFault(vcpu)).toBe(at(DATA));
    const stored = new DataView(memory.bytes.buffer, memory.bytes.byteOffset + DATA + 4092, 4);
    expect([x(5), stored.getUint32(0, true)]).toEqual([41n, 40]);
    notifier.protect(DATA, PAGE, 'read-write');
    expect(vcpu.run(0.001).reason).toBe('intr');
    expect(stored.getUint32(0, true)).toBeGreaterThan(40);
  });

  test('a page that is discarded is zero for the next load', () => {
    const seen: bigint[] = [];
    const { vcpu, memory } = makeLoop((n, { notifier, vcpu }) => {
      seen.push(vcpu.getOneReg(Reg.x(2)));
      if (n === 40) notifier.discard(DATA, PAGE);
      if (n === 60) vcpu.kick();
    });
    memory.bytes[DATA] = 7;
    expect(vcpu.run().reason).toBe('intr');
    expect(seen).toEqual(Array.from({ length: 60 }, (_, i) => (i < 40 ? 7n : 0n)));
  });

  test('code that is discarded is not executed again, nor is code that is taken away', () => {
    const { vcpu, notifier, x } = makeLoop((n, { notifier }) => {
      if (n === 40) notifier.protect(0, PAGE, 'none');
    });
    expect(runToFault(vcpu)).toBe(at(0));
    expect(x(5)).toBe(40n);
    notifier.discard(0, PAGE);
    notifier.protect(0, PAGE, 'read');
    // What is zero is UDF. There is no vector at address 0 either, so the guest goes from fault to fault.
    vcpu.run(0.001);
    expect([x(5), vcpu.getOneReg(sysregId(3, 0, 5, 2, 0)) >> 26n]).toEqual([40n, 0x21n]);
  });

  test('an access that ends in a page that was taken away changes nothing', () => {
    const guest = makeGuest(mov(1, RAM + DATA + PAGE - 4), enableMmu(), 0xf9000022 /* STR X2, [X1] */, store(4, 2, 9));
    guest.memory.bytes.set(blockTable(), TABLE);
    guest.notifier.protect(DATA + PAGE, PAGE, 'read');
    guest.vcpu.setOneReg(Reg.x(2), 0x1122_3344_5566_7788n);
    guest.vcpu.setOneReg(Reg.x(9), BigInt(DEVICE));
    expect(runToFault(guest.vcpu)).toBe(at(DATA + PAGE));
    expect(guest.memory.bytes.slice(DATA + PAGE - 4, DATA + PAGE + 4)).toEqual(new Uint8Array(8));
    guest.notifier.protect(DATA + PAGE, PAGE, 'read-write');
    expect(runToFault(guest.vcpu)).toBe('write 0x9000000/4 0x55667788');
    expect(guest.memory.bytes[DATA + PAGE]).toBe(0x44);
  });

  test('a translation table that was taken away, or cannot get its access flag, stops the walk', () => {
    const guest = makeGuest(mov(1, RAM + DATA), enableMmu(), load(4, 2, 1), mov(9, DEVICE), store(4, 2, 9));
    // Without access flags, which the hardware sets (TCR_EL1.HA).
    guest.memory.bytes.set(blockTable(0x301), TABLE);
    guest.memory.bytes[DATA] = 9;
    guest.notifier.protect(TABLE, PAGE, 'none');
    expect(runToFault(guest.vcpu)).toBe(at(TABLE));
    guest.notifier.protect(TABLE, PAGE, 'read');
    expect(runToFault(guest.vcpu)).toBe(at(TABLE));
    guest.notifier.protect(TABLE, PAGE, 'read-write');
    expect(runToFault(guest.vcpu)).toBe('write 0x9000000/4 0x9');
    expect(guest.memory.bytes[TABLE + 2 * 8 + 1]! & 4).toBe(4);
  });

  test('a page is given when it is asked for, and no other; a write-protected one is told of before it changes', () => {
    const asked: number[] = [];
    // A page is more than ADD's immediate can say.
    const nextPage = Array.from({ length: 4 }, () => addImm(1, 1, PAGE / 4));
    const guest = makeGuest(mov(1, RAM + DATA), load(4, 2, 1), nextPage, store(4, 2, 9), b(-6));
    const { notifier, memory, vcpu } = guest;
    notifier.protect(DATA, 4 * PAGE, 'none');
    notifier.onFault((offset) => {
      asked.push((offset - DATA) / PAGE);
      if (offset === DATA + 3 * PAGE) return;
      memory.bytes[offset] = 10 + offset / PAGE;
      notifier.protect(offset, PAGE, 'read');
    });
    vcpu.setOneReg(Reg.x(9), BigInt(DEVICE));
    const seen = [0, 1, 2].map(() => runToFault(vcpu));
    expect(seen).toEqual([4, 5, 6].map((page) => `write 0x9000000/4 0x${(10 + page).toString(16)}`));
    expect(runToFault(vcpu)).toBe(at(DATA + 3 * PAGE));
    expect(asked).toEqual([0, 1, 2, 3]);
    // The pages were given for loads only.
    guest.load(RAM, store(4, 2, 1));
    vcpu.setOneReg(Reg.PC, BigInt(RAM));
    vcpu.setOneReg(Reg.x(1), BigInt(RAM + DATA));
    expect(runToFault(vcpu)).toBe(at(DATA));
    notifier.onFault((offset) => notifier.protect(offset, PAGE, 'read-write'));
    guest.load(RAM + 4, store(4, 2, 9));
    vcpu.setOneReg(Reg.PC, BigInt(RAM));
    expect(runToFault(vcpu)).toBe('write 0x9000000/4 0x10');
    notifier.onFault(() => {
      throw new Error('no page');
    });
    notifier.protect(DATA, PAGE, 'none');
    vcpu.setOneReg(Reg.PC, BigInt(RAM));
    expect(() => vcpu.run()).toThrow('no page');
  });

  test('a slot that is taken away by the listener is a device, not a fault', () => {
    const guest = makeGuest(mov(1, 2 * RAM), load(4, 2, 1));
    const memory = guest.vm.createMemory(PAGE);
    guest.vm.setUserMemoryRegion({ slot: 1, guestPhysAddr: 2 * RAM, memorySize: PAGE, memory });
    memory.notifier!.protect(0, PAGE, 'none');
    memory.notifier!.onFault(() => guest.vm.setUserMemoryRegion({ slot: 1, guestPhysAddr: 0, memorySize: 0 }));
    expect(runToFault(guest.vcpu)).toBe('read 0x100000000/4');
  });

  test('young pages are those that were loaded, stored to, executed or walked since', () => {
    let young: number[] = [];
    const { vcpu, notifier } = makeLoop((n, { notifier, vcpu }) => {
      if (n === 30) young = pagesOf(notifier.clearYoung(0, 8 * PAGE));
      if (n === 31) young = pagesOf(notifier.clearYoung(0, 8 * PAGE));
      if (n === 31) vcpu.kick();
    });
    expect(pagesOf(notifier.testYoung(0, 65 * PAGE))).toHaveLength(65);
    notifier.clearYoung(0, RAM_SIZE);
    expect(pagesOf(notifier.testYoung(0, RAM_SIZE))).toEqual([]);
    vcpu.run();
    expect(young).toEqual([0, 4]);
    expect(pagesOf(notifier.testYoung(DATA, PAGE))).toEqual([]);
    vcpu.run(0.001);
    expect(pagesOf(notifier.testYoung(DATA, PAGE))).toEqual([0]);

    const walker = makeGuest(enableMmu(), mov(9, DEVICE), store(4, 2, 9));
    walker.memory.bytes.set(blockTable(), TABLE);
    walker.notifier.clearYoung(0, RAM_SIZE);
    runToFault(walker.vcpu);
    expect(pagesOf(walker.notifier.testYoung(0, RAM_SIZE))).toEqual([0, TABLE / PAGE]);
  });

  test('random changes, and random accesses that are as a model has them', () => {
    const PAGES = 6;
    type Step =
      | ['load' | 'store', number]
      | ['protect', number, number, PageProtection]
      | ['clear' | 'discard', number];
    const page = fc.nat(PAGES - 1);
    const step: fc.Arbitrary<Step> = fc.oneof(
      fc.tuple(fc.constantFrom('load' as const, 'store' as const), page),
      fc.tuple(fc.constantFrom('load' as const, 'store' as const), page),
      fc.tuple(
        fc.constant('protect' as const),
        page,
        page,
        fc.constantFrom('none' as const, 'read' as const, 'read-write' as const),
      ),
      fc.tuple(fc.constantFrom('clear' as const, 'discard' as const), page),
    );
    const guest = makeGuest(mov(9, DEVICE), load(4, 2, 1), store(4, 2, 9), store(4, 3, 1), store(4, 3, 9));
    const { vcpu, notifier, memory } = guest;
    const loadAt = RAM + mov(9, DEVICE).length * 4;
    vcpu.setOneReg(Reg.x(9), BigInt(DEVICE));
    let value = 0;
    fc.assert(
      fc.property(fc.array(step, { minLength: 10, maxLength: 60 }), (steps) => {
        const model = Array.from({ length: PAGES }, () => ({ use: 'read-write', value: 0, young: false }));
        notifier.protect(DATA, PAGES * PAGE, 'read-write');
        notifier.discard(DATA, PAGES * PAGE);
        notifier.clearYoung(DATA, PAGES * PAGE);
        for (const [what, n, m = n, use = 'none'] of steps) {
          const there = model[n]!;
          const gpa = RAM + DATA + n * PAGE;
          switch (what) {
            case 'protect':
              notifier.protect(DATA + Math.min(n, m) * PAGE, (Math.abs(n - m) + 1) * PAGE, use);
              for (let i = Math.min(n, m); i <= Math.max(n, m); i++) model[i]!.use = use;
              break;
            case 'clear':
              expect(pagesOf(notifier.clearYoung(DATA + n * PAGE, PAGE))).toEqual(there.young ? [0] : []);
              there.young = false;
              break;
            case 'discard':
              notifier.discard(DATA + n * PAGE, PAGE);
              there.value = 0;
              break;
            default: {
              const allowed = there.use === 'read-write' || (what === 'load' && there.use === 'read');
              if (allowed) there.young = true;
              if (allowed && what === 'store') there.value = ++value;
              vcpu.setOneReg(Reg.PC, BigInt(loadAt + (what === 'load' ? 0 : 8)));
              vcpu.setOneReg(Reg.x(1), BigInt(gpa));
              vcpu.setOneReg(Reg.x(3), BigInt(what === 'store' && allowed ? value : 0xdead));
              const done = `write 0x9000000/4 0x${there.value.toString(16)}`;
              expect(runToFault(vcpu)).toBe(allowed ? done : at(DATA + n * PAGE));
            }
          }
        }
        const young = model.flatMap((p, i) => (p.young ? [i] : []));
        expect(pagesOf(notifier.testYoung(DATA, PAGES * PAGE))).toEqual(young);
        for (const [i, p] of model.entries())
          expect(new DataView(memory.bytes.buffer, memory.bytes.byteOffset + DATA + i * PAGE).getUint32(0, true)).toBe(
            p.value,
          );
      }),
      { numRuns: 60 },
    );
  });
});

/** Descriptors of blocks of 1 GiB, mapped one to one: devices in the first, RAM in the third. @param attributes Block, AF, Inner Shareable */
function blockTable(attributes = 0x701): Uint8Array {
  const table = new BigUint64Array(512);
  table[0] = 0x701n;
  table[2] = BigInt(RAM) | BigInt(attributes);
  return new Uint8Array(table.buffer);
}

/** Code: turns the MMU on with {@link TABLE} for 39 bits of address, and hardware management of the access flag. */
function enableMmu(): number[] {
  const registers = [
    [sysregIndex(3, 0, 10, 2, 0), 0xffn], // MAIR_EL1
    [sysregIndex(3, 0, 2, 0, 2), 25n | (0b11n << 12n) | (1n << 23n) | (2n << 32n) | (1n << 39n)], // TCR_EL1
    [sysregIndex(3, 0, 2, 0, 0), BigInt(RAM + TABLE)], // TTBR0_EL1
  ] as const;
  const SCTLR_EL1 = sysregIndex(3, 0, 1, 0, 0);
  return [
    ...registers.flatMap(([index, value]) => [...mov(0, value), msr(index, 0)]),
    ISB,
    ...mov(0, 0x30d0_0801),
    msr(SCTLR_EL1, 0),
    ISB,
  ];
}

describe('the rules of a notifier', () => {
  const kvm = new SoftKvm({ clock: 'virtual', createMachine });

  test('ranges are whole pages inside the memory, and protections are known ones', () => {
    const { memory } = makeVm(kvm);
    const notifier = memory.notifier!;
    fc.assert(
      fc.property(fc.oneof(fc.double(), fc.integer()), fc.oneof(fc.double(), fc.integer()), (offset, length) => {
        const isRange = [offset, length].every((n) => Number.isSafeInteger(n) && n >= 0 && n % PAGE === 0);
        if (isRange && offset + length <= RAM_SIZE) return;
        for (const call of [
          () => notifier.protect(offset, length, 'none'),
          () => notifier.discard(offset, length),
          () => notifier.testYoung(offset, length),
          () => notifier.clearYoung(offset, length),
        ])
          expect(call).toThrow(RangeError);
      }),
    );
    for (const bad of ['write', '', undefined, 3])
      expect(() => notifier.protect(0, PAGE, bad as PageProtection)).toThrow(RangeError);
    expect(() => notifier.protect(RAM_SIZE - PAGE, 2 * PAGE, 'none')).toThrow(RangeError);
    expect(pagesOf(notifier.clearYoung(RAM_SIZE, 0))).toEqual([]);
    memory.close();
    expect(errnoOf(() => notifier.discard(0, PAGE))).toBe('EBADF');
    expect(errnoOf(() => notifier.protect(0, PAGE, 'none'))).toBe('EBADF');
    expect(errnoOf(() => notifier.clearYoung(0, PAGE))).toBe('EBADF');
  });

  test("a guest_memfd is the guest's whatever protection its mapping has, and can be discarded", () => {
    const { vm, vcpu, load: write } = makeVm(kvm);
    const memory = vm.createGuestMemfd(PAGE, 3);
    const region = { slot: 1, guestPhysAddr: 2 * RAM, memorySize: PAGE, memory, flags: MemFlag.GUEST_MEMFD };
    vm.setUserMemoryRegion(region);
    expect(errnoOf(() => memory.notifier!.protect(0, PAGE, 'none'))).toBe('EINVAL');
    memory.bytes[0] = 7;
    write(RAM, mov(1, 2 * RAM), load(4, 2, 1), mov(9, DEVICE), store(4, 2, 9));
    expect(runToFault(vcpu)).toBe('write 0x9000000/4 0x7');
    memory.notifier!.discard(0, PAGE);
    vcpu.setOneReg(Reg.PC, BigInt(RAM));
    expect(runToFault(vcpu)).toBe('write 0x9000000/4 0x0');
  });

  test('protection is of the memory: of every slot that has it, of every vCPU, and of the kernel half', () => {
    const { vm, memory, vcpus, load: write } = makeVm(kvm, { vcpus: 2 });
    vm.setUserMemoryRegion({ slot: 1, guestPhysAddr: 2 * RAM, memorySize: PAGE, memory, memoryOffset: DATA });
    write(RAM, load(4, 2, 1), store(4, 2, 9));
    const { guestMemory } = vm as SoftVm;
    for (const vcpu of vcpus) {
      vcpu.setMpState(0);
      vcpu.setOneReg(Reg.x(1), BigInt(2 * RAM));
      vcpu.setOneReg(Reg.x(9), BigInt(DEVICE));
      const again = (): string => {
        vcpu.setOneReg(Reg.PC, BigInt(RAM));
        return runToFault(vcpu);
      };
      expect(again()).toBe('write 0x9000000/4 0x0');
      memory.notifier!.protect(DATA, PAGE, 'none');
      expect(again()).toBe('EFAULT at 0x100000000');
      expect([guestMemory.read64(RAM + DATA), guestMemory.read8(2 * RAM)]).toEqual([undefined, undefined]);
      memory.notifier!.protect(DATA, PAGE, 'read');
      expect(again()).toBe('write 0x9000000/4 0x0');
      expect([guestMemory.write64(RAM + DATA, 1n), guestMemory.write8(2 * RAM, 1)]).toEqual([false, false]);
      expect([guestMemory.read64(RAM + DATA), guestMemory.read8(2 * RAM)]).toEqual([0n, 0]);
      memory.notifier!.protect(DATA, PAGE, 'read-write');
    }
    expect(guestMemory.write64(RAM + DATA, 5n)).toBe(true);
  });
});
