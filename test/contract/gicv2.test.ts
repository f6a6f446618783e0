import { afterEach, beforeEach, describe, expect, test as jestTest } from '@jest/globals';
import {
  Cap,
  type Device,
  type Kvm,
  Reg,
  sysregId,
  TARGET_GENERIC_V8,
  type Vcpu,
  VcpuFeature,
  VgicAddr,
  VgicCtrl,
  VgicGroup,
} from '#lib/kvm/index.js';
import { b, daifClr, ERET, load, mov, msr, NOP, store, tbnz, WFI } from './asm.ts';
import { type Backend, type Block, backends, isEmulatedHost, skipped, whereGicv3 } from './backends.ts';
import {
  DEVICE,
  errnoOf,
  FIQ_VECTOR,
  GICD,
  IRQ_VECTOR,
  makeVm,
  RAM,
  runInTurn,
  runToExit,
  Sysreg,
  VECTORS,
} from './machine.ts';

const GICC = 0x801_0000;
const Gicc = {
  CTLR: 0,
  PMR: 4,
  BPR: 8,
  IAR: 0xc,
  EOIR: 0x10,
  RPR: 0x14,
  HPPIR: 0x18,
  ABPR: 0x1c,
  AIAR: 0x20,
  AEOIR: 0x24,
  AHPPIR: 0x28,
  APR0: 0xd0,
  IIDR: 0xfc,
  DIR: 0x1000,
} as const;
const Gicd = {
  CTLR: 0,
  TYPER: 4,
  IIDR: 8,
  IGROUPR1: 0x84,
  ISENABLER1: 0x104,
  ISPENDR0: 0x200,
  ICPENDR0: 0x280,
  IPRIORITYR: 0x400,
  ITARGETSR: 0x800,
  ICFGR: 0xc00,
  SGIR: 0xf00,
  CPENDSGIR: 0xf10,
  SPENDSGIR: 0xf20,
} as const;
const SPI = (intid: number): number => (1 << 24) | intid;

/** Hosts whose GIC can't be a GICv2 for guests skip this. */
function hasGicv2({ open }: Backend): boolean {
  const kvm = open();
  const vm = kvm.createVm();
  const can = vm.testDevice(5);
  vm.close();
  kvm.close();
  return can;
}

const put = (at: number, value: number, bytes: 1 | 4 = 4): number[] => [
  ...mov(1, at),
  ...mov(0, value),
  store(bytes, 0, 1),
];

describe.each(backends)('GICv2 on $name', (backend) => {
  const { open } = backend;
  const hasV2 = hasGicv2(backend);
  const test: Block = hasV2 ? jestTest : skipped("this host's GIC can't be a GICv2 for guests");
  /** What QEMU's GICV does otherwise than a GIC-400: it tells no sender of an SGI, has no AHPPIR, and masks HPPIR by PMR. */
  const onHardware = hasV2 && isEmulatedHost(backend) ? skipped("QEMU's GICV does otherwise") : test;
  const whereBoth = hasV2 ? whereGicv3(backend) : test;
  let kvm: Kvm;
  beforeEach(() => {
    kvm = open();
  });
  afterEach(() => kvm.close());

  interface V2 extends ReturnType<typeof makeVm> {
    readonly gic: Device;
    /** Has a vCPU execute code that leaves a value in X9, and tells it. */
    ask(vcpu: Vcpu, ...code: readonly (number | number[])[]): number;
    /** Has a vCPU read or write a 32-bit register of its CPU interface. */
    gicc(register: number, value?: number, vcpu?: Vcpu): number;
    gicd(register: number, value?: number, vcpu?: Vcpu): number;
  }

  /** All enabled, SPIs 32 to 63 of priority A0 to vCPU 0. */
  function makeV2(vcpus = 1): V2 {
    const made = makeVm(kvm, { vcpus });
    const gic = made.vm.createDevice(5);
    gic.setDeviceAttr(VgicGroup.ADDR, VgicAddr.V2_DIST, GICD);
    gic.setDeviceAttr(VgicGroup.ADDR, VgicAddr.V2_CPU, GICC);
    gic.setDeviceAttr(VgicGroup.NR_IRQS, 0, 64);
    gic.setDeviceAttr(VgicGroup.CTRL, VgicCtrl.INIT);
    let code = RAM + 0x2_0000;
    const ask = (vcpu: Vcpu, ...body: readonly (number | number[])[]): number => {
      const words = [NOP, ...body.flat(), ...mov(21, DEVICE), store(8, 9, 21)];
      made.load(code, words);
      vcpu.setOneReg(Reg.PC, BigInt(code));
      code += words.length * 4;
      return Number(runToExit(vcpu).split(' ')[2]);
    };
    const access =
      (base: number) =>
      (register: number, value?: number, vcpu = made.vcpu): number =>
        value === undefined
          ? ask(vcpu, ...mov(1, base + register), load(4, 9, 1))
          : ask(vcpu, put(base + register, value), ...mov(9, 0));
    const made2: V2 = { ...made, gic, ask, gicc: access(GICC), gicd: access(GICD) };
    for (const vcpu of made.vcpus) {
      vcpu.setMpState(0);
      ask(vcpu, put(GICC + Gicc.PMR, 0xff), put(GICC + Gicc.CTLR, 1), ...mov(9, 0));
    }
    ask(
      made.vcpu,
      put(GICD, 1),
      put(GICD + Gicd.ISENABLER1, -1 >>> 0),
      Array.from({ length: 8 }, (_, i) => put(GICD + Gicd.IPRIORITYR + 32 + i * 4, 0xa0a0_a0a0)).flat(),
      put(GICD + Gicd.ICFGR + 8, 0xaaaa_aaaa),
      ...mov(9, 0),
    );
    return made2;
  }

  test('registers identify it; reserved and odd accesses read as zero', () => {
    const { gicc, gicd, ask, vcpu } = makeV2(2);
    expect([Gicd.CTLR, Gicd.TYPER, Gicd.IIDR].map((at) => gicd(at))).toEqual([1, 0x21, 0x4b00_343b]);
    expect(gicd(0xfe8)).toBe(0);
    expect(gicc(Gicc.PMR)).toBe(0xf8);
    expect([Gicc.BPR, Gicc.ABPR, Gicc.RPR, Gicc.HPPIR, Gicc.IAR].map((at) => gicc(at))).toEqual([
      2, 3, 0xff, 1023, 1023,
    ]);
    expect(gicd(Gicd.ITARGETSR)).toBe(0x0101_0101);
    const read = (bytes: 1 | 2 | 8, at: number): number => ask(vcpu, ...mov(1, at), load(bytes, 9, 1));
    expect([read(2, GICD + 4), read(8, GICD), read(1, GICD + Gicd.IPRIORITYR + 33)]).toEqual([0, 0, 0xa0]);
  });

  whereBoth('ID_AA64PFR0_EL1 has no GIC system registers then, and there are none', () => {
    const pfr0 = sysregId(3, 0, 0, 4, 0);
    const v3 = makeVm(kvm, { gic: true });
    expect((v3.vcpu.getOneReg(pfr0) >> 24n) & 0xfn).toBe(1n);
    const { vcpu, ask, load: code } = makeV2();
    expect((vcpu.getOneReg(pfr0) >> 24n) & 0xfn).toBe(0n);
    code(VECTORS + 0x200, ...mov(21, DEVICE + 8), store(8, 31, 21));
    expect(ask(vcpu, [...mov(0, VECTORS), msr(Sysreg.VBAR_EL1, 0)], msr(Sysreg.ICC_PMR, 0))).toBe(0);
  });

  test('an SPI is acknowledged and ended; edges once, levels until the line is low', () => {
    const { vm, gicc, gicd } = makeV2();
    vm.irqLine(SPI(40), true);
    expect([gicc(Gicc.HPPIR), gicc(Gicc.IAR), gicc(Gicc.RPR), gicc(Gicc.IAR)]).toEqual([40, 40, 0xa0, 1023]);
    expect(gicd(0x304)).toBe(1 << 8);
    gicc(Gicc.EOIR, 40);
    expect([gicc(Gicc.RPR), gicc(Gicc.IAR), gicd(0x304)]).toEqual([0xff, 1023, 0]);
    gicd(Gicd.ICFGR + 8, 0);
    vm.irqLine(SPI(41), true);
    expect(gicc(Gicc.IAR)).toBe(41);
    gicc(Gicc.EOIR, 41);
    expect(gicc(Gicc.IAR)).toBe(41);
    vm.irqLine(SPI(41), false);
    gicc(Gicc.EOIR, 41);
    expect(gicc(Gicc.IAR)).toBe(1023);
  });

  test('Group 0 is an IRQ, and with FIQEn a FIQ', () => {
    const { vm, vcpu, load: code } = makeV2();
    const handler = (offset: number): number[] => [
      ...mov(22, GICC),
      load(4, 20, 22, Gicc.IAR),
      ...mov(21, DEVICE),
      store(4, 20, 21, offset),
      store(4, 20, 22, Gicc.EOIR),
      ERET,
    ];
    code(IRQ_VECTOR, handler(0));
    code(FIQ_VECTOR, handler(8));
    code(RAM, NOP, ...mov(0, VECTORS), msr(Sysreg.VBAR_EL1, 0), daifClr(3), NOP, put(GICC, 9), b(0));
    vm.irqLine(SPI(40), true);
    vcpu.setOneReg(Reg.PC, BigInt(RAM));
    expect(runToExit(vcpu)).toBe('write 0x9000000/4 0x28');
    vcpu.run(1);
    vm.irqLine(SPI(41), true);
    expect(runToExit(vcpu)).toBe('write 0x9000008/4 0x29');
  });

  onHardware('Group 1 wants AckCtl, or the registers of its own', () => {
    const { vm, gicc, gicd } = makeV2();
    gicd(Gicd.IGROUPR1, 1 << 8);
    gicc(Gicc.CTLR, 3);
    vm.irqLine(SPI(40), true);
    expect([gicc(Gicc.HPPIR), gicc(Gicc.AHPPIR), gicc(Gicc.IAR)]).toEqual([1022, 40, 1022]);
    expect(gicc(Gicc.AIAR)).toBe(40);
    gicc(Gicc.AEOIR, 40);
    expect(gicc(Gicc.RPR)).toBe(0xff);
    gicc(Gicc.CTLR, 7);
    vm.irqLine(SPI(40), true);
    vm.irqLine(SPI(41), true);
    expect([gicc(Gicc.HPPIR), gicc(Gicc.IAR)]).toEqual([40, 40]);
    gicc(Gicc.EOIR, 40);
    expect([gicc(Gicc.AIAR), gicc(Gicc.IAR)]).toEqual([1023, 41]);
  });

  test('EOImode splits the drop of the priority from the deactivation', () => {
    const { vm, gicc, gicd } = makeV2();
    gicc(Gicc.CTLR, 0x201);
    vm.irqLine(SPI(40), true);
    expect(gicc(Gicc.IAR)).toBe(40);
    gicc(Gicc.EOIR, 40);
    expect([gicc(Gicc.RPR), gicd(0x304)]).toEqual([0xff, 1 << 8]);
    vm.irqLine(SPI(40), true);
    expect(gicc(Gicc.IAR)).toBe(1023);
    gicc(Gicc.DIR, 40);
    expect([gicd(0x304), gicc(Gicc.IAR)]).toEqual([0, 40]);
  });

  onHardware('priorities preempt as the binary point and the mask let them', () => {
    const { vm, gicc, gicd } = makeV2();
    gicd(Gicd.IPRIORITYR + 40, 0x4060_8090);
    for (const intid of [40, 41]) vm.irqLine(SPI(intid), true);
    expect([gicc(Gicc.IAR), gicc(Gicc.IAR)]).toEqual([41, 1023]);
    vm.irqLine(SPI(42), true);
    expect([gicc(Gicc.IAR), gicc(Gicc.RPR), gicc(Gicc.APR0)]).toEqual([42, 0x60, (1 << 12) | (1 << 16)]);
    gicc(Gicc.BPR, 6);
    vm.irqLine(SPI(43), true);
    expect(gicc(Gicc.IAR)).toBe(43);
    gicc(Gicc.EOIR, 43);
    gicc(Gicc.EOIR, 42);
    gicc(Gicc.EOIR, 41);
    gicc(Gicc.PMR, 0x90);
    expect([gicc(Gicc.HPPIR), gicc(Gicc.IAR)]).toEqual([40, 1023]);
    gicc(Gicc.PMR, 0x98);
    expect(gicc(Gicc.IAR)).toBe(40);
  });

  onHardware('an SGI says who sent it, one sender at a time', () => {
    const { vcpus, gicc, gicd } = makeV2(3);
    const [, one, two] = vcpus;
    gicd(Gicd.SGIR, (1 << 16) | 5, one);
    gicd(Gicd.SGIR, (1 << 16) | 5, two);
    expect(gicd(Gicd.SPENDSGIR + 4)).toBe(6 << 8);
    expect([gicc(Gicc.HPPIR), gicc(Gicc.IAR)]).toEqual([(1 << 10) | 5, (1 << 10) | 5]);
    expect(gicc(Gicc.IAR)).toBe(1023);
    gicc(Gicc.EOIR, (1 << 10) | 5);
    expect(gicc(Gicc.IAR)).toBe((2 << 10) | 5);
    gicc(Gicc.EOIR, (2 << 10) | 5);
    expect(gicc(Gicc.IAR)).toBe(1023);
    // All but self, then self, then what is reserved.
    gicd(Gicd.SGIR, (1 << 24) | 3, one);
    expect([0, 1, 2].map((i) => gicc(Gicc.IAR, undefined, vcpus[i]))).toEqual([(1 << 10) | 3, 1023, (1 << 10) | 3]);
    gicd(Gicd.SGIR, (2 << 24) | 4, one);
    expect(gicc(Gicc.IAR, undefined, one)).toBe((1 << 10) | 4);
    gicd(Gicd.SGIR, (3 << 24) | (7 << 16) | 6, one);
    expect(gicc(Gicc.HPPIR, undefined, two)).toBe(1023);
  });

  onHardware('SPENDSGIR and CPENDSGIR, and what ISPENDR can do for SGIs: nothing', () => {
    const { gicc, gicd } = makeV2(2);
    gicd(Gicd.ISPENDR0, 0xff);
    expect(gicc(Gicc.HPPIR)).toBe(1023);
    gicd(Gicd.SPENDSGIR + 8, 0x3 << 16);
    expect([gicd(Gicd.CPENDSGIR + 8), gicd(Gicd.ISPENDR0), gicc(Gicc.HPPIR)]).toEqual([3 << 16, 1 << 10, 10]);
    gicd(Gicd.ICPENDR0, 0xffff);
    expect(gicc(Gicc.HPPIR)).toBe(10);
    gicd(Gicd.CPENDSGIR + 8, 0x1 << 16);
    expect(gicc(Gicc.HPPIR)).toBe((1 << 10) | 10);
    gicd(Gicd.CPENDSGIR + 8, 0xff << 16);
    expect(gicc(Gicc.HPPIR)).toBe(1023);
  });

  test('GICD_ITARGETSR sends SPIs to vCPUs: the first of those named', () => {
    const { vm, vcpus, gicc, gicd } = makeV2(2);
    gicd(Gicd.ITARGETSR + 40, 0x0003_ff02);
    expect(gicd(Gicd.ITARGETSR + 40)).toBe(0x0003_0302);
    vm.irqLine(SPI(40), true);
    expect([0, 1].map((i) => gicc(Gicc.IAR, undefined, vcpus[i]))).toEqual([1023, 40]);
    vm.irqLine(SPI(41), true);
    expect([0, 1].map((i) => gicc(Gicc.IAR, undefined, vcpus[i]))).toEqual([41, 1023]);
    gicd(Gicd.ITARGETSR, 0xffff_ffff);
    expect(gicd(Gicd.ITARGETSR, undefined, vcpus[1])).toBe(0x0202_0202);
  });

  test('it wakes a vCPU in WFI, also by its timer', () => {
    const made = makeV2();
    const { vcpu, load: code } = made;
    code(
      RAM,
      NOP,
      put(GICD + 0x100, 1 << 27),
      ...mov(0, 1000),
      msr(Sysreg.CNTV_TVAL, 0),
      ...mov(0, 1),
      msr(Sysreg.CNTV_CTL, 0),
      ...mov(1, GICC),
      // WFI may end before.
      WFI,
      load(4, 9, 1, Gicc.IAR),
      tbnz(9, 9, -2),
      ...mov(1, DEVICE),
      store(4, 9, 1),
    );
    vcpu.setOneReg(Reg.PC, BigInt(RAM));
    expect(runInTurn(made)).toBe('0: write 0x9000000/4 0x1b');
  });

  test('attributes: what is refused, and what is read back', () => {
    const vm = kvm.createVm();
    vm.createVcpu(0);
    const gic = vm.createDevice(5);
    const set = (group: number, attr: number | bigint, value?: number | bigint): string =>
      errnoOf(() => gic.setDeviceAttr(group, attr, value));
    expect(errnoOf(() => vm.createDevice(5))).toBe('EEXIST');
    expect(errnoOf(() => vm.createDevice(7))).toBe(vm.testDevice(7) ? 'EEXIST' : 'ENODEV');
    expect(errnoOf(() => vm.createIrqchip())).toBe('EEXIST');
    expect(gic.getDeviceAttr(VgicGroup.ADDR, VgicAddr.V2_DIST)).toBe(0xffff_ffff_ffff_ffffn);
    expect(set(VgicGroup.ADDR, VgicAddr.V2_DIST, GICD + 0x800)).toBe('EINVAL');
    expect(set(VgicGroup.ADDR, VgicAddr.V2_CPU, 2 ** 40)).toBe('E2BIG');
    expect(set(VgicGroup.ADDR, VgicAddr.V2_CPU, 2 ** 40 - 0x1000)).toBe('E2BIG');
    expect(set(VgicGroup.ADDR, VgicAddr.V3_DIST, GICD)).toBe('ENXIO');
    expect(set(VgicGroup.ADDR, VgicAddr.V2_DIST, GICD)).toBe('OK');
    expect(set(VgicGroup.ADDR, VgicAddr.V2_DIST, GICD)).toBe('EEXIST');
    expect(set(VgicGroup.ADDR, VgicAddr.V2_CPU, GICC)).toBe('OK');
    expect(gic.getDeviceAttr(VgicGroup.ADDR, VgicAddr.V2_CPU)).toBe(BigInt(GICC));
    expect(set(VgicGroup.CTRL, VgicCtrl.SAVE_PENDING_TABLES)).toBe('ENXIO');
    expect(set(VgicGroup.REDIST_REGS, 0, 0)).toBe('ENXIO');
    // The first access to a register initialises it, and no vCPU can be made then.
    expect(gic.getDeviceAttr(VgicGroup.DIST_REGS, Gicd.TYPER)).toBe(7n);
    expect(errnoOf(() => vm.createVcpu(1))).toBe('EBUSY');
    expect(set(VgicGroup.NR_IRQS, 0, 64)).toBe('EBUSY');
    expect(errnoOf(() => gic.getDeviceAttr(VgicGroup.DIST_REGS, 5n << 32n))).toBe('EINVAL');
    expect(set(VgicGroup.DIST_REGS, 0xd00, 1)).toBe('OK');
    expect(gic.getDeviceAttr(VgicGroup.DIST_REGS, 0xd00)).toBe(0n);
    expect(gic.hasDeviceAttr(VgicGroup.DIST_REGS, 0xd00)).toBe(false);
    expect(set(VgicGroup.DIST_REGS, Gicd.CTLR)).toBe('EFAULT');
    expect(set(VgicGroup.DIST_REGS, Gicd.IIDR, 0)).toBe('EINVAL');
    expect([set(VgicGroup.CPU_REGS, Gicc.IAR, 0), gic.getDeviceAttr(VgicGroup.CPU_REGS, Gicc.IAR)]).toEqual(['OK', 0n]);
    expect(gic.getDeviceAttr(VgicGroup.CPU_REGS, Gicc.IIDR)).toBe(0x4b2_043bn);
    expect(gic.hasDeviceAttr(VgicGroup.CPU_REGS, Gicc.PMR)).toBe(true);
    expect(gic.hasDeviceAttr(VgicGroup.CPU_REGS, Gicc.IAR)).toBe(false);
    expect(gic.hasDeviceAttr(VgicGroup.DIST_REGS, Gicd.SGIR)).toBe(true);
    expect(gic.hasDeviceAttr(VgicGroup.ADDR, VgicAddr.V3_DIST)).toBe(false);
  });

  whereBoth('a VM has at most eight vCPUs with it', () => {
    const vm = kvm.createVm();
    for (let id = 0; id < 9; id++) vm.createVcpu(id);
    expect(errnoOf(() => vm.createDevice(5))).toBe('E2BIG');
    const other = kvm.createVm();
    other.createDevice(5);
    expect(other.checkExtension(Cap.MAX_VCPUS)).toBe(8);
    expect(errnoOf(() => other.createVcpu(8))).toBe('EINVAL');
    expect(errnoOf(() => other.createVcpu(7))).toBe('OK');
  });

  test('KVM_CREATE_IRQCHIP and KVM_ARM_SET_DEVICE_ADDR, the old way; the first run initialises', () => {
    const made = makeVm(kvm);
    const { vm, vcpu, load: code } = made;
    expect(errnoOf(() => vm.setDeviceAddr(0n, GICD))).toBe('ENODEV');
    vm.createIrqchip();
    expect(errnoOf(() => vm.createIrqchip())).toBe('EEXIST');
    expect(errnoOf(() => vm.setDeviceAddr(2n, GICD))).toBe('ENODEV');
    expect(errnoOf(() => vm.setDeviceAddr(1n << 16n, GICD))).toBe('ENODEV');
    expect(errnoOf(() => vm.setDeviceAddr(0n, GICD + 4))).toBe('EINVAL');
    vm.setDeviceAddr(0n, GICD);
    expect(errnoOf(() => vm.setDeviceAddr(0n, GICD))).toBe('EEXIST');
    vm.setDeviceAddr(1n, GICC);
    code(RAM, ...mov(1, GICD), load(4, 9, 1, Gicd.TYPER), ...mov(1, DEVICE), store(4, 9, 1));
    expect(runToExit(vcpu)).toBe('write 0x9000000/4 0x7');
  });

  test('a run without its addresses kills the VM; one that overlaps too', () => {
    for (const [cpu, errno] of [
      [undefined, 'ENXIO'],
      [GICD, 'EINVAL'],
    ] as const) {
      const vm = kvm.createVm();
      const vcpu = vm.createVcpu(0);
      vcpu.init(TARGET_GENERIC_V8, 1 << VcpuFeature.PSCI_0_2);
      const gic = vm.createDevice(5);
      gic.setDeviceAttr(VgicGroup.ADDR, VgicAddr.V2_DIST, GICD);
      if (cpu !== undefined) gic.setDeviceAttr(VgicGroup.ADDR, VgicAddr.V2_CPU, cpu);
      expect(errnoOf(() => vcpu.run())).toBe(errno);
      expect(errnoOf(() => vcpu.getMpState())).toBe('EIO');
    }
  });

  onHardware('the state moves to another VM, with an interrupt active and SGIs pending', () => {
    const one = makeV2(2);
    const two = makeV2(2);
    one.gicd(Gicd.IPRIORITYR + 40, 0x8090_a0a0);
    one.gicd(Gicd.ITARGETSR + 40, 0x0101_0201);
    one.gicd(Gicd.IGROUPR1, 1 << 9);
    one.gicc(Gicc.CTLR, 7);
    one.gicc(Gicc.BPR, 3);
    for (const intid of [40, 42, 50]) one.vm.irqLine(SPI(intid), true);
    expect(one.gicc(Gicc.IAR)).toBe(42);
    one.gicd(Gicd.SGIR, (1 << 16) | 9, one.vcpus[1]);
    const dist = [Gicd.IIDR, 0x80, 0x84, 0x100, 0x104, 0x200, 0x204, 0x300, 0x304, 0xc04, 0xc08, 0xc0c];
    for (let at = 0; at < 64; at += 4) dist.push(Gicd.IPRIORITYR + at, Gicd.ITARGETSR + at);
    for (let at = 0; at < 16; at += 4) dist.push(Gicd.SPENDSGIR + at);
    dist.push(Gicd.CTLR);
    const cpu = [Gicc.CTLR, Gicc.PMR, Gicc.BPR, Gicc.ABPR, Gicc.APR0];
    const registers = [0n, 1n].flatMap((id) => [
      ...dist.map((at) => [VgicGroup.DIST_REGS, (id << 32n) | BigInt(at)] as const),
      ...cpu.map((at) => [VgicGroup.CPU_REGS, (id << 32n) | BigInt(at)] as const),
    ]);
    const save = ({ gic }: V2): bigint[] => registers.map(([group, attr]) => gic.getDeviceAttr(group, attr));
    const saved = save(one);
    expect(save(two)).not.toEqual(saved);
    // What is pending by ISPENDR has itself as its sender, until SPENDSGIR says who it was.
    for (const [i, [group, attr]] of registers.entries()) {
      const offset = Number(attr & 0xfffn);
      const cleared = offset - Gicd.SPENDSGIR + Gicd.CPENDSGIR;
      if (group === VgicGroup.DIST_REGS && offset >= Gicd.SPENDSGIR) {
        two.gic.setDeviceAttr(group, (attr & ~0xfffn) | BigInt(cleared), 0xffff_ffff);
      }
      two.gic.setDeviceAttr(group, attr, saved[i]!);
    }
    expect(save(two)).toEqual(saved);
    for (const vm of [one, two]) {
      expect([vm.gicc(Gicc.RPR), vm.gicc(Gicc.HPPIR)]).toEqual([0x90, (1 << 10) | 9]);
      expect(vm.gicc(Gicc.IAR)).toBe((1 << 10) | 9);
      vm.gicc(Gicc.EOIR, (1 << 10) | 9);
      vm.gicc(Gicc.EOIR, 42);
      expect([vm.gicc(Gicc.IAR), vm.gicc(Gicc.RPR)]).toEqual([40, 0xa0]);
      vm.gicc(Gicc.EOIR, 40);
      expect([vm.gicc(Gicc.IAR), vm.gicc(Gicc.RPR)]).toEqual([50, 0xa0]);
    }
  });
});
