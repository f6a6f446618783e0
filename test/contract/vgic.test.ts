import { afterEach, beforeEach, expect, test } from '@jest/globals';
import {
  type Kvm,
  Reg,
  sysregIndex,
  TARGET_GENERIC_V8,
  TimerAttr,
  type Vcpu,
  VcpuFeature,
  VcpuGroup,
  VgicAddr,
  VgicCtrl,
  VgicGroup,
} from '#lib/kvm/index.js';
import { b, daifClr, daifSet, ISB, load, mov, mrs, msr, NOP, store, tbz, WFI } from './asm.ts';
import { describeGicv3, ipaBitsOf, since } from './backends.ts';
import {
  DEVICE,
  enableGic,
  errnoOf,
  FIQ_VECTOR,
  GICD,
  GICR,
  IRQ_VECTOR,
  irqHandler,
  makeGic,
  makeVm,
  RAM,
  runInTurn,
  runToExit,
  Sysreg,
  waitForIrq,
} from './machine.ts';

const SPI = (intid: number): number => (1 << 24) | intid;
const PPI = (intid: number, vcpu = 0): number => ((2 << 24) | (vcpu << 16) | intid) >>> 0;
/** Code: enables SPI `intid`, and makes it and its neighbours level-triggered or edge. */
const enableSpi = (intid: number, edge: boolean, priority = 0xa0): number[] => [
  ...mov(1, GICD),
  ...mov(0, edge ? 0xaaaaaaaa : 0),
  store(4, 0, 1, 0xc00 + Math.floor(intid / 16) * 4),
  ...mov(0, priority),
  store(1, 0, 1, 0x400 + intid),
  ...mov(0, 2 ** (intid % 32)),
  store(4, 0, 1, 0x100 + Math.floor(intid / 32) * 4),
];
const ticksPerMs = 62_500;

describeGicv3('vGIC', (backend) => {
  const { open, inTurn } = backend;
  let kvm: Kvm;
  beforeEach(() => {
    kvm = open();
  });
  afterEach(() => kvm.close());

  test('an edge-triggered SPI is taken once for an edge', () => {
    const { vm, vcpu, load: put } = makeVm(kvm, { gic: true });
    put(RAM, enableGic(0), enableSpi(40, true), daifClr(2), WFI, b(-1));
    put(IRQ_VECTOR, irqHandler());
    expect(runToExit(vcpu)).toBe('idle for ever');
    vm.irqLine(SPI(40), true);
    vm.irqLine(SPI(40), false);
    expect(runToExit(vcpu)).toBe('write 0x9000000/4 0x28');
    expect(runToExit(vcpu)).toBe('idle for ever');
    vm.irqLine(SPI(40), true);
    expect(runToExit(vcpu)).toBe('write 0x9000000/4 0x28');
  });

  test('a level-triggered SPI is taken again until the line is low', () => {
    const { vm, vcpu, load: put } = makeVm(kvm, { gic: true });
    put(RAM, enableGic(0), enableSpi(41, false), daifClr(2), WFI, b(-1));
    put(IRQ_VECTOR, irqHandler());
    expect(runToExit(vcpu)).toBe('idle for ever');
    vm.irqLine(SPI(41), true);
    expect(runToExit(vcpu)).toBe('write 0x9000000/4 0x29');
    expect(runToExit(vcpu)).toBe('write 0x9000000/4 0x29');
    vm.irqLine(SPI(41), false);
    expect(runToExit(vcpu)).toBe('idle for ever');
  });

  test('an interrupt that is not enabled, masked by priority or by PSTATE waits', () => {
    const { vm, vcpu, load: put } = makeVm(kvm, { gic: true });
    put(
      RAM,
      enableGic(0),
      daifClr(2),
      ...tell(1),
      mov(0, 0x80),
      msr(Sysreg.ICC_PMR, 0),
      enableSpi(40, true, 0x80),
      ...tell(2),
      daifSet(2),
      mov(0, 0xf0),
      msr(Sysreg.ICC_PMR, 0),
      ISB,
      ...tell(3),
      daifClr(2),
      NOP,
      ...tell(4),
    );
    put(IRQ_VECTOR, irqHandler());
    expect(runToExit(vcpu)).toBe('write 0x9000008/8 0x1');
    vm.irqLine(SPI(40), true);
    expect(runToExit(vcpu)).toBe('write 0x9000008/8 0x2');
    expect(runToExit(vcpu)).toBe('write 0x9000008/8 0x3');
    expect(runToExit(vcpu)).toBe('write 0x9000000/4 0x28');
    expect(runToExit(vcpu)).toBe('write 0x9000008/8 0x4');
  });

  test('a higher priority preempts a handler, a lower or equal one does not', () => {
    const { vm, vcpu, load: put } = makeVm(kvm, { gic: true });
    put(
      RAM,
      enableGic(0),
      enableSpi(40, true, 0x80),
      enableSpi(41, true, 0x40),
      enableSpi(42, true, 0x80),
      daifClr(2),
      WFI,
      b(-1),
    );
    // SPSR and ELR are kept in X22 and X23 around the nested interrupt.
    const ELR = 0xc201;
    const SPSR = 0xc200;
    put(
      IRQ_VECTOR,
      irqHandler(
        mrs(24, Sysreg.ICC_RPR),
        store(8, 24, 21, 8),
        mrs(22, ELR),
        mrs(23, SPSR),
        daifClr(2),
        NOP,
        NOP,
        daifSet(2),
        msr(ELR, 22),
        msr(SPSR, 23),
      ),
    );
    vm.irqLine(SPI(42), true);
    expect(runToExit(vcpu)).toBe('write 0x9000000/4 0x2a');
    vm.irqLine(SPI(40), true);
    expect(runToExit(vcpu)).toBe('write 0x9000008/8 0x80');
    vm.irqLine(SPI(41), true);
    expect(runToExit(vcpu)).toBe('write 0x9000000/4 0x29');
    expect(runToExit(vcpu)).toBe('write 0x9000008/8 0x40');
  });

  test('the highest priority comes first, and each once; a spurious acknowledge is 1023', () => {
    const { vm, vcpu, load: put } = makeVm(kvm, { gic: true });
    const acknowledge = [
      mrs(9, Sysreg.ICC_HPPIR1),
      mrs(10, Sysreg.ICC_IAR1),
      ...tell(10, 9),
      ...tell(10, 10),
      msr(Sysreg.ICC_EOIR1, 10),
    ];
    put(
      RAM,
      enableGic(0),
      [40, 41, 42].flatMap((intid) => enableSpi(intid, true, intid === 42 ? 0x40 : 0x80)),
      ...tell(1),
      ...[...acknowledge, ...acknowledge, ...acknowledge, ...acknowledge],
    );
    expect(runToExit(vcpu)).toBe('write 0x9000008/8 0x1');
    for (const intid of [41, 40, 42]) vm.irqLine(SPI(intid), true);
    const seen: number[] = [];
    for (let i = 0; i < 8; i++) seen.push(Number(runToExit(vcpu).split(' ')[2]));
    // Which of two with the same priority comes first is the interrupt controller's choice.
    const [first, , second] = seen.slice(2);
    expect([first, second].sort()).toEqual([40, 41]);
    expect(seen).toEqual([42, 42, first, first, second, second, 1023, 1023]);
  });

  test('an interrupt of equal priority is pending, and is not acknowledged before the end of the active one', () => {
    const { vm, vcpu, load: put } = makeVm(kvm, { gic: true });
    const acknowledge = [mrs(10, Sysreg.ICC_IAR1), ...tell(10, 10)];
    put(
      RAM,
      enableGic(0),
      enableSpi(40, true),
      enableSpi(41, true),
      ...tell(1),
      acknowledge,
      ...acknowledge,
      mrs(11, Sysreg.ICC_HPPIR1),
      ...tell(11, 11),
      ...mov(12, 41),
      msr(Sysreg.ICC_EOIR1, 12),
      ...acknowledge,
    );
    runToExit(vcpu);
    vm.irqLine(SPI(41), true);
    expect(runToExit(vcpu)).toBe('write 0x9000008/8 0x29');
    vm.irqLine(SPI(40), true);
    const seen = [runToExit(vcpu), runToExit(vcpu), runToExit(vcpu)];
    expect(seen.map((exit) => Number(exit.split(' ')[2]))).toEqual([1023, 40, 40]);
  });

  test('an SGI reaches the vCPUs it names, and all others by IRM', () => {
    const test = makeVm(kvm, { vcpus: 3, gic: true });
    const { load: put } = test;
    const start = (cpu: number): number[] => [
      ...mov(1, cpu),
      ...mov(2, RAM + 0x1000 * cpu),
      ...mov(3, 0),
      ...mov(0, 0xc4000003),
      0xd4000002,
    ];
    put(
      RAM,
      enableGic(0xffff),
      start(1),
      start(2),
      ...tell(1),
      ...mov(0, (5n << 24n) | 4n),
      msr(Sysreg.ICC_SGI1R, 0),
      waitForIrq(),
      ...mov(0, (6n << 24n) | (1n << 40n)),
      msr(Sysreg.ICC_SGI1R, 0),
      daifClr(2),
      WFI,
      b(-1),
    );
    for (const cpu of [1, 2])
      put(
        RAM + 0x1000 * cpu,
        enableGic(0xffff, cpu),
        ...mov(0, RAM + 0x2_0000),
        msr(Sysreg.VBAR_EL1, 0),
        daifClr(2),
        WFI,
        b(-1),
      );
    put(IRQ_VECTOR, irqHandler());
    // The others answer with SGI 7 to vCPU 0.
    put(RAM + 0x2_0280, irqHandler(...mov(23, (7n << 24n) | 1n), msr(Sysreg.ICC_SGI1R, 23)));
    const seen: string[] = [];
    for (;;) {
      const exit = runInTurn(test);
      if (exit === 'idle for ever') break;
      seen.push(exit);
      if (seen.length > 20) break;
    }
    const taken = seen.filter((s) => s.includes('0x9000000/4'));
    expect(taken.filter((s) => s.startsWith('2:'))[0]).toBe('2: write 0x9000000/4 0x5');
    expect(taken).toContain('1: write 0x9000000/4 0x6');
    expect(taken).toContain('2: write 0x9000000/4 0x6');
    expect(taken).not.toContain('1: write 0x9000000/4 0x5');
    expect(taken).toContain('0: write 0x9000000/4 0x7');
  });

  test('Group 0 is signalled as FIQ', () => {
    const { vm, vcpu, load: put } = makeVm(kvm, { gic: true });
    put(
      RAM,
      enableGic(0),
      enableSpi(40, true),
      ...mov(0, 0),
      store(4, 0, 1, 0x84),
      ...mov(0, 1),
      msr(Sysreg.ICC_IGRPEN0, 0),
      daifClr(1),
      WFI,
      b(-1),
    );
    put(
      FIQ_VECTOR,
      mrs(20, Sysreg.ICC_IAR0),
      ...mov(21, DEVICE),
      store(4, 20, 21),
      msr(Sysreg.ICC_EOIR0, 20),
      0xd69f03e0,
    );
    vm.irqLine(SPI(40), true);
    expect(runToExit(vcpu)).toBe('write 0x9000000/4 0x28');
    expect(runToExit(vcpu)).toBe('idle for ever');
  });

  test('GICD_IROUTER moves an SPI to another vCPU', () => {
    const test = makeVm(kvm, { vcpus: 2, gic: true });
    const { vm, load: put } = test;
    put(
      RAM,
      enableGic(0),
      enableSpi(40, true),
      ...mov(0, 1),
      store(8, 0, 1, 0x6000 + 8 * 40),
      load(8, 9, 1, 0x6000 + 8 * 40),
      ...mov(3, 0),
      ...mov(1, 1),
      ...mov(2, RAM + 0x1000),
      ...mov(0, 0xc4000003),
      0xd4000002,
      WFI,
      b(-1),
    );
    put(RAM + 0x1000, enableGic(0, 1), daifClr(2), WFI, b(-1));
    put(IRQ_VECTOR, irqHandler());
    expect(runInTurn(test)).toBe('idle for ever');
    const woken: number[] = [];
    vm.onRunnable((v: Vcpu) => woken.push(v.id));
    vm.irqLine(SPI(40), true);
    if (inTurn) expect(woken).toEqual([1]);
    expect(runInTurn(test)).toBe('1: write 0x9000000/4 0x28');
  });

  test("a PPI of user space's is the vCPU's alone; the timers' own are not user space's to drive", () => {
    const { vm, vcpu, load: put } = makeVm(kvm, { gic: true });
    put(RAM, enableGic(0xffff_0000), daifClr(2), WFI, b(-1));
    put(IRQ_VECTOR, irqHandler());
    expect(runToExit(vcpu)).toBe('idle for ever');
    vm.irqLine(PPI(27), true);
    expect(runToExit(vcpu)).toBe('idle for ever');
    vm.irqLine(PPI(20), true);
    expect(runToExit(vcpu)).toBe('write 0x9000000/4 0x14');
  });

  test.each([
    ['virtual', Sysreg.CNTV_TVAL, Sysreg.CNTV_CTL, 27],
    ['physical', Sysreg.CNTP_TVAL, Sysreg.CNTP_CTL, 30],
  ])('the %s timer interrupts a vCPU in WFI, and one that spins', (_, tval, ctl, intid) => {
    const { vcpu, load: put } = makeVm(kvm, { gic: true });
    const arm = [...mov(0, ticksPerMs), msr(tval, 0), ...mov(0, 1), msr(ctl, 0)];
    put(RAM, enableGic(2 ** intid), arm, waitForIrq(), daifClr(2), ISB, ...tell(1), arm, b(0));
    put(IRQ_VECTOR, irqHandler(...mov(22, 2), msr(ctl, 22)));
    const taken = `write 0x9000000/4 0x${intid.toString(16)}`;
    expect(runToExit(vcpu)).toBe(taken);
    expect(runToExit(vcpu)).toBe('write 0x9000008/8 0x1');
    expect(runToExit(vcpu)).toBe(taken);
  });

  test('a timer that is not yet due leaves a vCPU idle for that long, and not before', () => {
    const { vcpu, load: put } = makeVm(kvm, { gic: true });
    put(
      RAM,
      enableGic(2 ** 27),
      mrs(9, Sysreg.CNTVCT),
      ...mov(0, 3 * ticksPerMs),
      msr(Sysreg.CNTV_TVAL, 0),
      ...mov(0, 1),
      msr(Sysreg.CNTV_CTL, 0),
      // Until CNTV_CTL_EL0.ISTATUS: WFI may end before.
      WFI,
      mrs(10, Sysreg.CNTV_CTL),
      tbz(10, 2, -2),
      mrs(10, Sysreg.CNTVCT),
      0xcb09014a, // SUB X10, X10, X9
      ...mov(1, DEVICE),
      store(8, 10, 1),
    );
    const elapsed = Number(runToExit(vcpu).split(' ')[2]);
    expect(elapsed).toBeGreaterThanOrEqual(3 * ticksPerMs);
  });

  test('without a vGIC the timer outputs go to user space, which drives the IRQ input', () => {
    const { vm, vcpu, load: put } = makeVm(kvm);
    put(
      RAM,
      ...mov(0, RAM + 0x1_0000),
      msr(Sysreg.VBAR_EL1, 0),
      ...mov(0, 100),
      msr(Sysreg.CNTV_TVAL, 0),
      ...mov(0, 1),
      msr(Sysreg.CNTV_CTL, 0),
      daifClr(2),
      ISB,
      b(0),
    );
    put(IRQ_VECTOR, ...mov(0, 0), msr(Sysreg.CNTV_CTL, 0), ...tell(1), b(0));
    expect(vcpu.deviceIrqLevel).toBe(0);
    expect(vcpu.run()).toMatchObject({ reason: 'intr' });
    expect(vcpu.deviceIrqLevel).toBe(1);
    vm.irqLine(0, true);
    expect(runToExit(vcpu)).toBe('write 0x9000008/8 0x1');
    expect(vcpu.run(1)).toMatchObject({ reason: 'intr' });
    expect(vcpu.deviceIrqLevel).toBe(0);
  });

  // Linux 6.12 traps them. Before, it relied on ICC_SRE_EL1.SRE, which is 1 for ever where a GIC has no legacy mode, as QEMU's.
  since(backend, '6.12')('ICC registers are undefined without a vGIC', () => {
    const { vcpu, load: put } = makeVm(kvm);
    put(RAM, ...mov(0, RAM + 0x1_0000), msr(Sysreg.VBAR_EL1, 0), mrs(0, Sysreg.ICC_PMR), ...tell(6));
    put(RAM + 0x1_0200, ...tell(7));
    expect(runToExit(vcpu)).toBe('write 0x9000008/8 0x7');
  });

  test('frames identify themselves as KVM GICv3 does, and refuse odd accesses silently', () => {
    const { vcpu, load: put } = makeVm(kvm, { vcpus: 2, gic: true });
    const read = (bytes: 1 | 2 | 4 | 8, at: number): number[] => [...mov(1, at), load(bytes, 9, 1), ...tell(9, 9)];
    put(
      RAM,
      read(4, GICD),
      read(4, GICD + 4),
      read(4, GICD + 8),
      read(4, GICD + 0xffe8),
      read(8, GICR + 8),
      read(8, GICR + 0x2_0008),
      read(4, GICR + 0xffe8),
      read(2, GICD + 4),
      read(8, GICD),
      read(1, GICD + 0x400),
      read(4, GICD + 0xfff0),
      read(4, GICR + 0x1_0100),
    );
    const seen: string[] = [];
    for (let i = 0; i < 12; i++) seen.push(runToExit(vcpu).split(' ')[2]!);
    expect(seen).toEqual([
      '0x50',
      '0x480001',
      '0x4b00343b',
      '0x3b',
      '0x0',
      '0x100000110',
      '0x3b',
      '0x0',
      '0x0',
      '0x0',
      '0x0',
      '0xffff',
    ]);
  });

  test('addresses, NR_IRQS and INIT: what is refused, and what is read back', () => {
    const vm = kvm.createVm();
    vm.createVcpu(0);
    const gic = vm.createDevice(7);
    const set = (attr: number, value: number | bigint): string =>
      errnoOf(() => gic.setDeviceAttr(VgicGroup.ADDR, attr, value));
    expect(gic.getDeviceAttr(VgicGroup.ADDR, VgicAddr.V3_DIST)).toBe(0xffff_ffff_ffff_ffffn);
    expect(set(VgicAddr.V3_DIST, 2 ** ipaBitsOf(backend, kvm))).toBe('E2BIG');
    expect(set(VgicAddr.V3_REDIST_REGION, (1n << 52n) | 0x80a_0000n | 1n)).toBe('EINVAL');
    expect(set(VgicAddr.V3_REDIST_REGION, 0x80a_0000n)).toBe('EINVAL');
    expect(set(VgicAddr.V3_REDIST_REGION, (1n << 52n) | 0x80a_0000n)).toBe('OK');
    expect(set(VgicAddr.V3_REDIST_REGION, (1n << 52n) | 0x80b_0000n | 1n)).toBe('EINVAL');
    expect(set(VgicAddr.V3_REDIST_REGION, (1n << 52n) | 0x80c_0000n | 1n)).toBe('OK');
    expect(set(VgicAddr.V3_REDIST, 0x90a_0000)).toBe('EINVAL');
    expect(gic.getDeviceAttr(VgicGroup.ADDR, VgicAddr.V3_REDIST_REGION, 1n)).toBe((1n << 52n) | 0x80c_0000n | 1n);
    expect(errnoOf(() => gic.getDeviceAttr(VgicGroup.ADDR, VgicAddr.V3_REDIST_REGION, 2n))).toBe('ENOENT');
    expect(set(VgicAddr.V3_DIST, GICD)).toBe('OK');
    expect(gic.getDeviceAttr(VgicGroup.NR_IRQS, 0)).toBe(32n);
    expect(set(VgicAddr.V2_DIST, GICD)).toBe('ENXIO');
    expect(set(VgicAddr.V3_DIST, 0xffff_ffff_ffff_0000n)).toBe('EEXIST');
    expect(errnoOf(() => gic.setDeviceAttr(VgicGroup.CTRL, VgicCtrl.SAVE_PENDING_TABLES))).toBe('ENXIO');
    gic.setDeviceAttr(VgicGroup.CTRL, VgicCtrl.INIT);
    expect(gic.getDeviceAttr(VgicGroup.NR_IRQS, 0)).toBe(256n);
    expect(errnoOf(() => gic.setDeviceAttr(VgicGroup.NR_IRQS, 0, 64))).toBe('EBUSY');
    expect(errnoOf(() => gic.setDeviceAttr(99, 0, 0))).toBe('ENXIO');
    expect(gic.hasDeviceAttr(99, 0)).toBe(false);
  });

  test('the state can be saved and put back', () => {
    const make = (): ReturnType<typeof makeVm> => makeVm(kvm, { gic: true });
    const one = make();
    one.load(RAM, enableGic(1 << 27), enableSpi(40, false, 0x80), enableSpi(52, true), tell(1));
    one.vm.irqLine(SPI(52), true);
    expect(runToExit(one.vcpu)).toBe('write 0x9000008/8 0x1');
    one.vm.irqLine(SPI(40), true);
    const dist = [0x0, 0x8, 0xc08, 0xc0c, 0x84, 0x104, 0x204, 0x304, 0x428, 0x434, 0x6140, 0x6148];
    const redist = [0x1_0080, 0x1_0100, 0x1_0200, 0x1_0300, 0x1_0418, 0x1_0c04];
    const icc = [Sysreg.ICC_PMR, Sysreg.ICC_IGRPEN1, Sysreg.ICC_CTLR];
    const other = make();
    const registers: [number, readonly number[]][] = [
      [VgicGroup.DIST_REGS, dist],
      [VgicGroup.REDIST_REGS, redist],
      [VgicGroup.CPU_SYSREGS, icc],
      [VgicGroup.LEVEL_INFO, [32]],
    ];
    const all = registers.flatMap(([group, attrs]) => attrs.map((attr) => [group, attr] as const));
    const save = (gic: typeof one.gic): bigint[] => all.map(([group, attr]) => gic!.getDeviceAttr(group, attr));
    const saved = save(one.gic);
    expect(save(other.gic)).not.toEqual(saved);
    for (const [i, [group, attr]] of all.entries()) other.gic!.setDeviceAttr(group, attr, saved[i]!);
    expect(save(other.gic)).toEqual(saved);
    other.load(RAM, ...mov(0, RAM + 0x1_0000), msr(Sysreg.VBAR_EL1, 0), daifClr(2), WFI, b(-1));
    other.load(IRQ_VECTOR, irqHandler());
    expect(runToExit(other.vcpu)).toBe('write 0x9000000/4 0x28');
  });

  test('registers are refused before INIT, for no vCPU, and where there is none', () => {
    const vm = kvm.createVm();
    vm.createVcpu(0);
    const gic = vm.createDevice(7);
    const get = (group: number, attr: number | bigint): string => errnoOf(() => gic.getDeviceAttr(group, attr));
    expect(get(VgicGroup.DIST_REGS, 0)).toBe('EBUSY');
    gic.setDeviceAttr(VgicGroup.CTRL, VgicCtrl.INIT);
    expect(get(VgicGroup.DIST_REGS, 0)).toBe('OK');
    expect(gic.getDeviceAttr(VgicGroup.DIST_REGS, 0x2000)).toBe(0n);
    expect(errnoOf(() => gic.setDeviceAttr(VgicGroup.DIST_REGS, 0x2000, 1))).toBe('OK');
    expect(gic.getDeviceAttr(VgicGroup.REDIST_REGS, 0x2000)).toBe(0n);
    expect(get(VgicGroup.REDIST_REGS, 5n << 32n)).toBe('EINVAL');
    expect(get(VgicGroup.CPU_SYSREGS, Sysreg.ICC_IAR1)).toBe('ENOENT');
    expect(get(VgicGroup.LEVEL_INFO, 33)).toBe('EINVAL');
    expect(errnoOf(() => gic.setDeviceAttr(VgicGroup.DIST_REGS, 8, 0))).toBe('EINVAL');
    expect(errnoOf(() => gic.setDeviceAttr(VgicGroup.DIST_REGS, 0))).toBe('EFAULT');
    expect(errnoOf(() => gic.setDeviceAttr(VgicGroup.CPU_SYSREGS, Sysreg.ICC_CTLR, 0))).toBe('EINVAL');
  });

  test('a register file as large as the interrupts that there are', () => {
    const vm = kvm.createVm();
    vm.createVcpu(0);
    const gic = vm.createDevice(7);
    expect(errnoOf(() => gic.getDeviceAttr(VgicGroup.REDIST_REGS, 5n << 32n))).toBe('EINVAL');
    expect(errnoOf(() => gic.hasDeviceAttr(VgicGroup.REDIST_REGS, 5n << 32n))).toBe('EINVAL');
    gic.setDeviceAttr(VgicGroup.NR_IRQS, 0, 96);
    gic.setDeviceAttr(VgicGroup.CTRL, VgicCtrl.INIT);
    const there = [0x10, 0x84, 0x88, 0x45c, 0x85c, 0xc14, 0xd08, 0x62f8, 0xffe8];
    const absent = [0x14, 0x8c, 0x460, 0x860, 0xc18, 0xd0c, 0xe00, 0x6300];
    expect(there.filter((at) => !gic.hasDeviceAttr(VgicGroup.DIST_REGS, at))).toEqual([]);
    expect(absent.filter((at) => gic.hasDeviceAttr(VgicGroup.DIST_REGS, at))).toEqual([]);
    expect(gic.getDeviceAttr(VgicGroup.DIST_REGS, 0x10)).toBe(0xffff_ffffn);
    expect(gic.getDeviceAttr(VgicGroup.REDIST_REGS, 4)).toBe(0x4b00_043bn);
  });

  test('ICC registers that are saved: ICC_CTLR_EL1 with what it can do, active priorities with no more bits than there are', () => {
    const { gic } = makeVm(kvm, { gic: true });
    const ctlr = gic!.getDeviceAttr(VgicGroup.CPU_SYSREGS, Sysreg.ICC_CTLR);
    const set = (attr: number, value: bigint): string =>
      errnoOf(() => gic!.setDeviceAttr(VgicGroup.CPU_SYSREGS, attr, value));
    expect(set(Sysreg.ICC_CTLR, ctlr | 3n)).toBe('OK');
    expect(gic!.getDeviceAttr(VgicGroup.CPU_SYSREGS, Sysreg.ICC_CTLR)).toBe(ctlr | 3n);
    // More bits of priority, other features.
    expect(set(Sysreg.ICC_CTLR, ctlr | (7n << 8n))).toBe('EINVAL');
    expect(set(Sysreg.ICC_CTLR, ctlr ^ (1n << 14n))).toBe('EINVAL');
    expect(set(Sysreg.ICC_CTLR, ctlr ^ (1n << 15n))).toBe('EINVAL');
    const ap1r3 = sysregIndex(3, 0, 12, 9, 3);
    expect(gic!.hasDeviceAttr(VgicGroup.CPU_SYSREGS, ap1r3)).toBe(true);
    expect(errnoOf(() => gic!.getDeviceAttr(VgicGroup.CPU_SYSREGS, ap1r3))).toBe('EINVAL');
    expect(set(ap1r3, 0n)).toBe('EINVAL');
    const sre = sysregIndex(3, 0, 12, 12, 5);
    expect([set(sre, 7n), set(sre, 0n)]).toEqual(['OK', 'EINVAL']);
  });

  test('LEVEL_INFO tells and sets the lines of what is level-triggered', () => {
    const { gic, vm } = makeVm(kvm, { gic: true });
    const level = (): bigint => gic!.getDeviceAttr(VgicGroup.LEVEL_INFO, 32);
    // They begin as edge-triggered, and have no level then; a restored one shows when the configuration is.
    vm.irqLine(SPI(40), true);
    gic!.setDeviceAttr(VgicGroup.LEVEL_INFO, 32, 0x300);
    expect(level()).toBe(0n);
    gic!.setDeviceAttr(VgicGroup.DIST_REGS, 0xc08, 0);
    expect(level()).toBe(0x300n);
    vm.irqLine(SPI(40), false);
    vm.irqLine(SPI(42), true);
    expect(level()).toBe(0x600n);
    expect(errnoOf(() => gic!.getDeviceAttr(VgicGroup.LEVEL_INFO, 32 | (1 << 10)))).toBe('EINVAL');
  });

  test('the last redistributor is the last of what is contiguous', () => {
    const typers = (regions: readonly (readonly [base: number, count: number])[]): number[] => {
      const vm = kvm.createVm();
      for (let id = 0; id < 3; id++) vm.createVcpu(id).init(TARGET_GENERIC_V8, 1 << VcpuFeature.PSCI_0_2);
      const gic = vm.createDevice(7);
      for (const [index, [base, count]] of regions.entries()) {
        const region = (BigInt(count) << 52n) | BigInt(base) | BigInt(index);
        gic.setDeviceAttr(VgicGroup.ADDR, VgicAddr.V3_REDIST_REGION, region);
      }
      gic.setDeviceAttr(VgicGroup.CTRL, VgicCtrl.INIT);
      return [0n, 1n, 2n].map((id) => Number(gic.getDeviceAttr(VgicGroup.REDIST_REGS, (id << 32n) | 8n) & 0x10n));
    };
    const away = [
      [GICR, 2],
      [GICR + 0x10_0000, 2],
    ] as const;
    const next = [
      [GICR, 2],
      [GICR + 0x4_0000, 2],
    ] as const;
    expect(typers(away)).toEqual([0, 16, 16]);
    expect(typers(next)).toEqual([0, 0, 16]);
    expect(typers([[GICR, 4]])).toEqual([0, 0, 16]);
  });

  test('ICC_SGI1R_EL1: an Aff3 that no vCPU has sends nothing', () => {
    const { vcpu, load: put } = makeVm(kvm, { gic: true });
    const send = (value: bigint): number[] => [...mov(0, value), msr(Sysreg.ICC_SGI1R, 0)];
    const hppir = [mrs(9, Sysreg.ICC_HPPIR1), ...tell(9, 9)];
    put(
      RAM,
      enableGic(0xffff),
      send((1n << 48n) | (3n << 24n) | 1n),
      hppir,
      send((1n << 32n) | (3n << 24n) | 1n),
      hppir,
    );
    put(RAM + 0x800, NOP, send((3n << 24n) | 1n), hppir);
    expect([runToExit(vcpu), runToExit(vcpu)]).toEqual(['write 0x9000008/8 0x3ff', 'write 0x9000008/8 0x3ff']);
    vcpu.setOneReg(Reg.PC, BigInt(RAM + 0x800));
    expect(runToExit(vcpu)).toBe('write 0x9000008/8 0x3');
  });

  test("the timers' PPIs can be chosen before the first run", () => {
    const { vm, vcpu, load: put } = makeVm(kvm, { gic: true });
    vcpu.setDeviceAttr(VcpuGroup.TIMER_CTRL, TimerAttr.VTIMER, 22);
    expect(vcpu.getDeviceAttr(VcpuGroup.TIMER_CTRL, TimerAttr.VTIMER)).toBe(22n);
    put(
      RAM,
      enableGic(2 ** 22),
      ...mov(0, 100),
      msr(Sysreg.CNTV_TVAL, 0),
      ...mov(0, 1),
      msr(Sysreg.CNTV_CTL, 0),
      daifClr(2),
      WFI,
      b(-1),
    );
    put(IRQ_VECTOR, irqHandler());
    expect(runToExit(vcpu)).toBe('write 0x9000000/4 0x16');
    expect(errnoOf(() => vcpu.setDeviceAttr(VcpuGroup.TIMER_CTRL, TimerAttr.VTIMER, 23))).toBe('EBUSY');
    expect(errnoOf(() => vm.createDevice(7))).toBe('EEXIST');
  });

  test('a run before the vGIC is ready kills the VM', () => {
    const vm = kvm.createVm();
    const vcpu = vm.createVcpu(0);
    vcpu.init(5, 1 << 2);
    const gic = vm.createDevice(7);
    gic.setDeviceAttr(VgicGroup.ADDR, VgicAddr.V3_DIST, GICD);
    gic.setDeviceAttr(VgicGroup.ADDR, VgicAddr.V3_REDIST, GICR);
    expect(errnoOf(() => vcpu.run())).toBe('EBUSY');
    const calls = [
      () => vcpu.getMpState(),
      () => vm.createVcpu(1),
      () => gic.hasDeviceAttr(0, 2),
      () => vm.checkExtension(0),
    ];
    expect(calls.map(errnoOf)).toEqual(['EIO', 'EIO', 'EIO', 'EIO']);
    vm.close();
    vcpu.close();
  });

  test('makeGic is what tests mean by a GIC', () => {
    const vm = kvm.createVm();
    expect(makeGic(vm).getDeviceAttr(VgicGroup.ADDR, VgicAddr.V3_REDIST)).toBe(BigInt(GICR));
  });
});

/** Code: tells {@link DEVICE} a constant, or a register. */
function tell(value: number, register?: number): number[] {
  return [
    ...mov(21, DEVICE + 8),
    ...(register === undefined ? mov(22, value) : [0xaa0003e0 | (register << 16) | 22]),
    storeWide(22, 21),
  ].map((w) => w >>> 0);
}
/** STUR Xt, [Xn]. */
function storeWide(rt: number, rn: number): number {
  return 0xf8000000 | (rn << 5) | rt;
}
