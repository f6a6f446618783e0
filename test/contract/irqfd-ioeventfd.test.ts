import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { IoeventfdFlag, IrqfdFlag, type Kvm, VgicGroup } from '#lib/kvm/index.js';
import { b, daifClr, mov, store, WFI } from './asm.ts';
import { backends, whereGicv3, whereInTurn } from './backends.ts';
import { DEVICE, enableGic, errnoOf, GICD, IRQ_VECTOR, irqHandler, makeVm, RAM, runToExit } from './machine.ts';

const enableSpi40 = (edge: boolean): number[] => [
  ...mov(1, GICD),
  ...mov(0, edge ? 0xaaaaaaaa : 0),
  store(4, 0, 1, 0xc08),
  ...mov(0, 0xa0),
  store(1, 0, 1, 0x428),
  ...mov(0, 1 << 8),
  store(4, 0, 1, 0x104),
];
/** GSI 8 is SPI 8, INTID 40. */
const GSI = 8;
/** The same for KVM_IRQ_LINE. */
const SPI40 = (1 << 24) | 40;

/** Lets the event loop call listeners, as it does on the host, until there is what they should have brought. */
async function until(isThere: () => boolean): Promise<void> {
  for (let turn = 0; turn < 100 && !isThere(); turn++) await new Promise((done) => setTimeout(done, 1));
}

describe.each(backends)('eventfds on $name', (backend) => {
  const { open, inTurn } = backend;
  let kvm: Kvm;
  beforeEach(() => {
    kvm = open();
  });
  afterEach(() => kvm.close());

  test('an eventfd counts, and gives its count to a reader or a listener', async () => {
    const fd = kvm.createEventFd();
    fd.signal();
    fd.signal(4);
    expect([fd.read(), fd.read()]).toEqual([5, 0]);
    const seen: number[] = [];
    fd.signal(2);
    fd.onSignal((count) => seen.push(count));
    await until(() => seen.length === 1);
    fd.signal(3);
    await until(() => seen.length === 2);
    expect(seen).toEqual([2, 3]);
    expect(fd.read()).toBe(0);
    expect([0, -1, 1.5, Number.NaN].map((n) => errnoOf(() => fd.signal(n)))).toEqual(Array(4).fill('EINVAL'));
    fd.onSignal(undefined);
    // The kernel's counter has 64 bits, the software's 53.
    for (let i = 0; i < 2048; i++) errnoOf(() => fd.signal(Number.MAX_SAFE_INTEGER));
    expect(errnoOf(() => fd.signal(Number.MAX_SAFE_INTEGER))).toBe('EAGAIN');
    fd.close();
    fd.close();
    expect([() => fd.signal(), () => fd.read(), () => fd.onSignal(undefined)].map(errnoOf)).toEqual(
      Array(3).fill('EBADF'),
    );
  });

  whereGicv3(backend)('an irqfd is an edge', () => {
    const { vm, vcpu, load: put } = makeVm(kvm, { gic: true });
    put(RAM, enableGic(0), enableSpi40(true), daifClr(2), WFI, b(-1));
    put(IRQ_VECTOR, irqHandler());
    const fd = kvm.createEventFd();
    vm.irqfd({ fd, gsi: GSI });
    expect(errnoOf(() => vm.irqfd({ fd, gsi: GSI + 1 }))).toBe('EBUSY');
    expect(runToExit(vcpu)).toBe('idle for ever');
    const woken: number[] = [];
    vm.onRunnable((v) => woken.push(v.id));
    fd.signal();
    if (inTurn) expect(woken).toEqual([0]);
    expect(runToExit(vcpu)).toBe('write 0x9000000/4 0x28');
    expect(runToExit(vcpu)).toBe('idle for ever');
    vm.irqfd({ fd, gsi: GSI, flags: IrqfdFlag.DEASSIGN });
    fd.signal();
    expect(runToExit(vcpu)).toBe('idle for ever');
    expect(fd.read()).toBe(1);
  });

  whereGicv3(backend)('a count that is there when the irqfd is made injects at once', () => {
    const { vm, vcpu, load: put } = makeVm(kvm, { gic: true });
    put(RAM, enableGic(0), enableSpi40(true), daifClr(2), WFI, b(-1));
    put(IRQ_VECTOR, irqHandler());
    const fd = kvm.createEventFd();
    fd.signal();
    vm.irqfd({ fd, gsi: GSI });
    expect(runToExit(vcpu)).toBe('write 0x9000000/4 0x28');
  });

  whereGicv3(backend)('a RESAMPLE irqfd holds the line until the guest ends the interrupt', async () => {
    const { vm, vcpu, load: put } = makeVm(kvm, { gic: true });
    put(RAM, enableGic(0), enableSpi40(false), daifClr(2), WFI, b(-1));
    put(IRQ_VECTOR, irqHandler());
    const fd = kvm.createEventFd();
    const resampleFd = kvm.createEventFd();
    expect(errnoOf(() => vm.irqfd({ fd, gsi: GSI, flags: IrqfdFlag.RESAMPLE }))).toBe('EBADF');
    vm.irqfd({ fd, gsi: GSI, flags: IrqfdFlag.RESAMPLE, resampleFd });
    let ended = 0;
    resampleFd.onSignal(() => ended++);
    expect(runToExit(vcpu)).toBe('idle for ever');
    for (const times of [1, 2]) {
      fd.signal();
      expect(runToExit(vcpu)).toBe('write 0x9000000/4 0x28');
      expect(ended).toBe(times - 1);
      expect(runToExit(vcpu)).toBe('idle for ever');
      await until(() => ended === times);
      expect(ended).toBe(times);
    }
  });

  whereInTurn(backend)('a RESAMPLE listener can raise the line again before the guest goes on', () => {
    const { vm, vcpu, load: put } = makeVm(kvm, { gic: true });
    put(RAM, enableGic(0), enableSpi40(false), daifClr(2), WFI, b(-1));
    put(IRQ_VECTOR, irqHandler());
    const [fd, resampleFd] = [kvm.createEventFd(), kvm.createEventFd()];
    vm.irqfd({ fd, gsi: GSI, flags: IrqfdFlag.RESAMPLE, resampleFd });
    let again = 2;
    resampleFd.onSignal(() => {
      if (--again > 0) fd.signal();
    });
    fd.signal();
    expect(runToExit(vcpu)).toBe('write 0x9000000/4 0x28');
    expect(runToExit(vcpu)).toBe('write 0x9000000/4 0x28');
    expect(runToExit(vcpu)).toBe('idle for ever');
    expect(again).toBe(0);
  });

  whereGicv3(backend)(
    'RESAMPLE irqfds of one GSI share its level: each is told, and the last one takes the level with it',
    () => {
      const { vm, vcpu, load: put, gic } = makeVm(kvm, { gic: true });
      put(RAM, enableGic(0), enableSpi40(false), daifClr(2), WFI, b(-1));
      put(IRQ_VECTOR, irqHandler());
      const fds = [kvm.createEventFd(), kvm.createEventFd()] as const;
      const resampled = [kvm.createEventFd(), kvm.createEventFd()] as const;
      for (const i of [0, 1] as const) {
        vm.irqfd({ fd: fds[i], gsi: GSI, flags: IrqfdFlag.RESAMPLE, resampleFd: resampled[i] });
      }
      expect(runToExit(vcpu)).toBe('idle for ever');
      fds[0].signal();
      fds[1].signal();
      expect(runToExit(vcpu)).toBe('write 0x9000000/4 0x28');
      expect(runToExit(vcpu)).toBe('idle for ever');
      expect(resampled.map((fd) => fd.read())).toEqual([1, 1]);
      const level = (): bigint => gic!.getDeviceAttr(VgicGroup.LEVEL_INFO, 32) & 0x100n;
      fds[0].signal();
      vm.irqfd({ fd: fds[0], gsi: GSI, flags: IrqfdFlag.DEASSIGN });
      expect(level()).toBe(0x100n);
      vm.irqfd({ fd: fds[1], gsi: GSI, flags: IrqfdFlag.DEASSIGN });
      expect(level()).toBe(0n);
      expect(runToExit(vcpu)).toBe('idle for ever');
    },
  );

  whereGicv3(backend)(
    'an irqfd without RESAMPLE only raises: a level-triggered interrupt stays until its line is lowered',
    () => {
      const { vm, vcpu, load: put } = makeVm(kvm, { gic: true });
      put(RAM, enableGic(0), enableSpi40(false), daifClr(2), WFI, b(-1));
      put(IRQ_VECTOR, irqHandler());
      const fd = kvm.createEventFd();
      vm.irqfd({ fd, gsi: GSI });
      expect(runToExit(vcpu)).toBe('idle for ever');
      fd.signal();
      const taken = 'write 0x9000000/4 0x28';
      expect([runToExit(vcpu), runToExit(vcpu), runToExit(vcpu)]).toEqual([taken, taken, taken]);
      vm.irqfd({ fd, gsi: GSI, flags: IrqfdFlag.DEASSIGN });
      expect(runToExit(vcpu)).toBe(taken);
      vm.irqLine(SPI40, false);
      expect(runToExit(vcpu)).toBe('idle for ever');
    },
  );

  whereGicv3(backend)(
    'a count that is there when the irqfd is made comes and goes on a level-triggered interrupt',
    () => {
      const { vm, vcpu, load: put, gic } = makeVm(kvm, { gic: true });
      put(RAM, enableGic(0), enableSpi40(false), daifClr(2), WFI, b(-1));
      put(IRQ_VECTOR, irqHandler());
      expect(runToExit(vcpu)).toBe('idle for ever');
      const fd = kvm.createEventFd();
      fd.signal();
      vm.irqfd({ fd, gsi: GSI });
      // The kernel raises and lowers it in a worker: a vCPU that runs between finds it high, or low only when it acknowledges.
      const exits = [runToExit(vcpu)];
      while (exits.at(-1) !== 'idle for ever' && exits.length < 1000) exits.push(runToExit(vcpu));
      expect(exits.pop()).toBe('idle for ever');
      expect(exits.filter((exit) => !/^write 0x9000000\/4 0x(28|3ff)$/.test(exit))).toEqual([]);
      if (inTurn) expect(exits).toEqual([]);
      expect(gic!.getDeviceAttr(VgicGroup.LEVEL_INFO, 32) & 0x100n).toBe(0n);
    },
  );

  whereGicv3(backend)('routing decides which interrupt a GSI is', () => {
    const { vm, vcpu, load: put } = makeVm(kvm, { gic: true });
    put(RAM, enableGic(0), enableSpi40(true), daifClr(2), WFI, b(-1));
    put(IRQ_VECTOR, irqHandler());
    const fd = kvm.createEventFd();
    vm.irqfd({ fd, gsi: 100 });
    vm.setGsiRouting([{ gsi: 100, type: 'irqchip', irqchip: 0, pin: 8 }]);
    expect(runToExit(vcpu)).toBe('idle for ever');
    fd.signal();
    expect(runToExit(vcpu)).toBe('write 0x9000000/4 0x28');
    const route =
      (gsi: number, pin: number, irqchip = 0) =>
      () =>
        vm.setGsiRouting([{ gsi, type: 'irqchip', irqchip, pin }]);
    expect([route(4096, 0), route(0, 988), route(0, 0, 1), route(-1, 0)].map(errnoOf)).toEqual(Array(4).fill('EINVAL'));
    const many = Array.from({ length: 4097 }, (_, gsi) => ({ gsi, type: 'irqchip', irqchip: 0, pin: 0 }) as const);
    expect(errnoOf(() => vm.setGsiRouting(many))).toBe('EINVAL');
  });

  whereGicv3(backend)('an irqfd of a gsi that has no route, and of one that can have none, leads nowhere', () => {
    const { vm, vcpu, load: put } = makeVm(kvm, { gic: true });
    put(RAM, enableGic(0), enableSpi40(true), daifClr(2), WFI, b(-1));
    put(IRQ_VECTOR, irqHandler());
    expect(errnoOf(() => vm.irqfd({ fd: kvm.createEventFd(), gsi: 2 ** 32 }))).toBe('EINVAL');
    for (const gsi of [GSI + 1, 4096, 2 ** 32 - 1]) {
      const fd = kvm.createEventFd();
      vm.irqfd({ fd, gsi });
      fd.signal();
    }
    expect(runToExit(vcpu)).toBe('idle for ever');
  });

  whereGicv3(backend)('irqfds: flags and closed eventfds are checked', () => {
    const { vm } = makeVm(kvm, { gic: true });
    const fd = kvm.createEventFd();
    expect(errnoOf(() => vm.irqfd({ fd, gsi: 0, flags: 4 }))).toBe('EINVAL');
    vm.irqfd({ fd, gsi: 0 });
    fd.close();
    expect(errnoOf(() => vm.irqfd({ fd, gsi: 0 }))).toBe('EBADF');
  });

  test('an ioeventfd takes the writes that match it, by length and value, without an exit', async () => {
    const { vm, vcpu, load: put } = makeVm(kvm);
    const [any, four, five] = [kvm.createEventFd(), kvm.createEventFd(), kvm.createEventFd()];
    vm.ioeventfd({ fd: any, addr: DEVICE + 0x10, len: 0 });
    vm.ioeventfd({ fd: four, addr: DEVICE, len: 4, datamatch: 4n, flags: IoeventfdFlag.DATAMATCH });
    vm.ioeventfd({ fd: five, addr: DEVICE, len: 4, datamatch: 5n, flags: IoeventfdFlag.DATAMATCH });
    put(
      RAM,
      mov(1, DEVICE),
      mov(4, 4),
      mov(5, 5),
      mov(6, 6),
      store(4, 4, 1),
      store(4, 5, 1),
      store(4, 5, 1),
      store(8, 6, 1, 0x10),
      store(1, 6, 1, 0x10),
      store(2, 4, 1),
      store(4, 6, 1),
    );
    const seen: number[] = [];
    five.onSignal((count) => seen.push(count));
    expect(runToExit(vcpu)).toBe('write 0x9000000/2 0x4');
    expect(runToExit(vcpu)).toBe('write 0x9000000/4 0x6');
    const heard = (): number => seen.reduce((sum, count) => sum + count, 0);
    await until(() => heard() === 2);
    expect([any.read(), four.read(), heard()]).toEqual([2, 1, 2]);
    // In turn, a listener is called at each store.
    if (inTurn) expect(seen).toEqual([1, 1]);
  });

  test('an ioeventfd ends with DEASSIGN, and takes stores on where its eventfd is closed', () => {
    const { vm, vcpu, load: put } = makeVm(kvm);
    const fd = kvm.createEventFd();
    const io = { fd, addr: DEVICE, len: 4 };
    put(RAM, mov(1, DEVICE), mov(2, 2), store(4, 2, 1), store(4, 2, 1), store(4, 2, 1, 8));
    vm.ioeventfd(io);
    expect(errnoOf(() => vm.ioeventfd({ ...io, flags: IoeventfdFlag.DEASSIGN, len: 8 }))).toBe('ENOENT');
    vm.ioeventfd({ ...io, flags: IoeventfdFlag.DEASSIGN });
    expect(runToExit(vcpu)).toBe('write 0x9000000/4 0x2');
    vm.ioeventfd(io);
    fd.close();
    expect(runToExit(vcpu)).toBe('write 0x9000008/4 0x2');
  });

  whereInTurn(backend)('run() inside a listener is refused, and the guest goes on', () => {
    const { vm, vcpu, load: put } = makeVm(kvm);
    const fd = kvm.createEventFd();
    vm.ioeventfd({ fd, addr: DEVICE, len: 0 });
    const inside: string[] = [];
    fd.onSignal(() => inside.push(errnoOf(() => vcpu.run())));
    put(RAM, mov(1, DEVICE), store(4, 1, 1), store(4, 1, 1, 4));
    expect(runToExit(vcpu)).toBe('write 0x9000004/4 0x9000000');
    expect(inside).toEqual(['EBUSY']);
  });
});
