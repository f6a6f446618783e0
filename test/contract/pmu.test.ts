import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import {
  Cap,
  type Kvm,
  PmuAttr,
  Reg,
  sysregId,
  sysregIndex,
  TARGET_GENERIC_V8,
  type Vcpu,
  VcpuFeature,
  VcpuGroup,
  VgicAddr,
  VgicCtrl,
  VgicGroup,
} from '#lib/kvm/index.js';
import { b, daifClr, ERET, ISB, mov, mrs, msr, store } from './asm.ts';
import { backends, isEmulatedHost, onSoftOnly, since, skipped, whereGicv3 } from './backends.ts';
import {
  DEVICE,
  enableGic,
  errnoOf,
  GICD,
  GICR,
  IRQ_VECTOR,
  irqHandler,
  makeVm,
  PMU_CLEARED,
  RAM,
  runToExit,
  Sysreg,
  type TestVm,
  VECTORS,
} from './machine.ts';

const PMU = {
  INTENSET: sysregIndex(3, 0, 9, 14, 1),
  CR: sysregIndex(3, 3, 9, 12, 0),
  CNTENSET: sysregIndex(3, 3, 9, 12, 1),
  CNTENCLR: sysregIndex(3, 3, 9, 12, 2),
  OVSCLR: sysregIndex(3, 3, 9, 12, 3),
  SWINC: sysregIndex(3, 3, 9, 12, 4),
  SELR: sysregIndex(3, 3, 9, 12, 5),
  CEID0: sysregIndex(3, 3, 9, 12, 6),
  CEID1: sysregIndex(3, 3, 9, 12, 7),
  CCNTR: sysregIndex(3, 3, 9, 13, 0),
  XEVTYPER: sysregIndex(3, 3, 9, 13, 1),
  XEVCNTR: sysregIndex(3, 3, 9, 13, 2),
  USERENR: sysregIndex(3, 3, 9, 14, 0),
  OVSSET: sysregIndex(3, 3, 9, 14, 3),
  CCFILTR: sysregIndex(3, 3, 14, 15, 7),
  evcntr: (n: number): number => sysregIndex(3, 3, 14, 8 + (n >> 3), n & 7),
  evtyper: (n: number): number => sysregIndex(3, 3, 14, 12 + (n >> 3), n & 7),
} as const;
const idOf = (index: number): bigint => 0x6030_0000_0013_0000n | BigInt(index);
const DFR0 = sysregId(3, 0, 0, 5, 0);
const PPI = 23;
const FEATURES = (1 << VcpuFeature.PSCI_0_2) | (1 << VcpuFeature.PMU_V3);
const SW_INCR = 0;
const CHAIN = 0x1e;

/** Code: writes a constant to a register. Uses X0. */
const set = (index: number, value: number | bigint): number[] => [...mov(0, value), msr(index, 0)];
/** Code: tells what a register reads as. Uses X0 and X9. */
const tell = (index: number): number[] => [ISB, mrs(0, index), ...mov(9, DEVICE), store(8, 0, 9)];
const told = (value: number | bigint): string => `write 0x9000000/8 0x${value.toString(16)}`;

describe.each(backends)('PMU on $name', (backend) => {
  const { open } = backend;
  let kvm: Kvm;
  beforeEach(() => {
    kvm = open();
  });
  afterEach(() => kvm.close());

  const attr = (vcpu: Vcpu, which: number, value?: number | Uint8Array): string =>
    errnoOf(() => vcpu.setDeviceAttr(VcpuGroup.PMU_V3_CTRL, which, value));
  /** A VM without vGIC whose vCPU has a PMU that is initialised, and whose code clears it first. */
  function start(...code: readonly (number | number[])[]): TestVm {
    const machine = makeVm(kvm, { features: FEATURES });
    machine.vcpu.setDeviceAttr(VcpuGroup.PMU_V3_CTRL, PmuAttr.INIT);
    machine.load(RAM, ...PMU_CLEARED, ...code, b(0));
    return machine;
  }
  const run = ({ vcpu }: TestVm, count: number): string[] => Array.from({ length: count }, () => runToExit(vcpu));

  onSoftOnly(backend, 'it depends on the processor how many registers a PMU has')(
    'is seen, with its registers, by vCPUs that have the feature and by no others',
    () => {
      expect(kvm.checkExtension(Cap.ARM_PMU_V3)).toBe(1);
      const { vcpu } = makeVm(kvm, { features: FEATURES });
      const without = makeVm(kvm).vcpu;
      const version = (v: Vcpu): number => Number((v.getOneReg(DFR0) >> 8n) & 15n);
      expect(version(without)).toBe(0);
      expect(version(vcpu)).toBeGreaterThanOrEqual(1);
      const more = vcpu.getRegList().filter((id) => !without.getRegList().includes(id));
      expect(more.length).toBe(75);
      for (const id of more) {
        const value = vcpu.getOneReg(id);
        expect([id.toString(16), errnoOf(() => vcpu.setOneReg(id, value))]).toEqual([id.toString(16), 'OK']);
      }
      expect(errnoOf(() => without.getOneReg(idOf(PMU.CR)))).toBe('ENOENT');
      expect(without.hasDeviceAttr(VcpuGroup.PMU_V3_CTRL, PmuAttr.INIT)).toBe(false);
      expect(attr(without, PmuAttr.INIT)).toBe('ENODEV');
      expect([0, 1, 2, 3, 4, 5].map((a) => vcpu.hasDeviceAttr(VcpuGroup.PMU_V3_CTRL, a))).toEqual([
        ...Array(5).fill(true),
        false,
      ]);
    },
  );

  since(backend, '6.7')('a version that is lowered, to none too, holds for all vCPUs', () => {
    const { vcpus } = makeVm(kvm, { features: FEATURES, vcpus: 2 });
    const value = vcpus[0]!.getOneReg(DFR0);
    expect(errnoOf(() => vcpus[0]!.setOneReg(DFR0, value & ~0xf00n))).toBe('OK');
    expect(vcpus[1]!.getOneReg(DFR0)).toBe(value & ~0xf00n);
  });

  whereGicv3(backend)('does not run before it is initialised', () => {
    const { vcpu, load: put } = makeVm(kvm, { features: FEATURES });
    put(RAM, b(0));
    expect(errnoOf(() => vcpu.run(1))).toBe('EINVAL');
    expect(attr(vcpu, PmuAttr.INIT)).toBe('OK');
    expect(attr(vcpu, PmuAttr.INIT)).toBe('EBUSY');
    expect(attr(vcpu, PmuAttr.SET_NR_COUNTERS, 1)).toBe('EBUSY');
    expect(errnoOf(() => vcpu.run(1))).toBe('OK');
    // Where there is a vGIC, too; and a run that was refused can be made again.
    const { vcpu: withGic, load: putThere } = makeVm(kvm, { features: FEATURES, gic: true });
    putThere(RAM, b(0));
    for (let i = 0; i < 2; i++) expect(errnoOf(() => withGic.run(1))).toBe('EINVAL');
    expect([attr(withGic, PmuAttr.INIT), attr(withGic, PmuAttr.IRQ, PPI)]).toEqual(['ENXIO', 'OK']);
    expect(attr(withGic, PmuAttr.INIT)).toBe('OK');
    expect(errnoOf(() => withGic.run(1))).toBe('OK');
  });

  whereGicv3(backend)("cannot have a timer's interrupt", () => {
    const { vcpu } = makeVm(kvm, { features: FEATURES, gic: true });
    expect(attr(vcpu, PmuAttr.IRQ, 27)).toBe('OK');
    expect(attr(vcpu, PmuAttr.INIT)).toBe('OK');
    expect(errnoOf(() => vcpu.run(1))).toBe('EINVAL');
  });

  whereGicv3(backend)('the interrupt is a PPI for all, or an SPI each, and known before the PMU is initialised', () => {
    const vm = kvm.createVm();
    const vcpus = [0, 1].map((id) => vm.createVcpu(id));
    for (const vcpu of vcpus) vcpu.init(TARGET_GENERIC_V8, FEATURES);
    const [one, two] = vcpus as [Vcpu, Vcpu];
    const get = (vcpu: Vcpu): string => errnoOf(() => vcpu.getDeviceAttr(VcpuGroup.PMU_V3_CTRL, PmuAttr.IRQ));
    expect(attr(one, PmuAttr.IRQ, PPI)).toBe('EINVAL');
    expect(get(one)).toBe('EINVAL');
    const gic = vm.createDevice(7);
    expect(attr(one, PmuAttr.INIT)).toBe('ENODEV');
    expect(get(one)).toBe('ENXIO');
    expect([0, 15, 1020, -1].map((intid) => attr(one, PmuAttr.IRQ, intid))).toEqual(Array(4).fill('EINVAL'));
    expect(attr(one, PmuAttr.IRQ, PPI)).toBe('OK');
    expect(attr(one, PmuAttr.IRQ, PPI)).toBe('EBUSY');
    expect(attr(two, PmuAttr.IRQ, PPI + 1)).toBe('EINVAL');
    expect(attr(two, PmuAttr.IRQ, PPI)).toBe('OK');
    expect(one.getDeviceAttr(VcpuGroup.PMU_V3_CTRL, PmuAttr.IRQ)).toBe(BigInt(PPI));
    expect(attr(one, PmuAttr.INIT)).toBe('ENODEV');
    gic.setDeviceAttr(VgicGroup.ADDR, VgicAddr.V3_DIST, GICD);
    gic.setDeviceAttr(VgicGroup.ADDR, VgicAddr.V3_REDIST, GICR);
    gic.setDeviceAttr(VgicGroup.CTRL, VgicCtrl.INIT);
    expect([one, two].map((vcpu) => attr(vcpu, PmuAttr.INIT))).toEqual(['OK', 'OK']);
    expect(attr(one, 5)).toBe('EBUSY');
  });

  since(backend, '7.3')('counters and events can be taken away before the PMU is initialised', () => {
    const filter = (base: number, count: number, action: number): Uint8Array =>
      new Uint8Array([base & 255, base >> 8, count & 255, count >> 8, action, 0, 0, 0]);
    const machine = makeVm(kvm, { features: FEATURES });
    const { vcpu, load: put } = machine;
    const counters = Number((vcpu.getOneReg(idOf(PMU.CR)) >> 11n) & 31n);
    expect(counters).toBeGreaterThanOrEqual(2);
    expect(attr(vcpu, PmuAttr.SET_NR_COUNTERS, counters + 1)).toBe('EINVAL');
    expect(attr(vcpu, PmuAttr.SET_NR_COUNTERS, 2)).toBe('OK');
    expect(attr(vcpu, PmuAttr.SET_PMU, 0x7fff_ffff)).toBe('ENXIO');
    expect(attr(vcpu, PmuAttr.FILTER, filter(0xffff, 2, 0))).toBe('EINVAL');
    expect(attr(vcpu, PmuAttr.FILTER, filter(0, 1, 2))).toBe('EINVAL');
    expect(attr(vcpu, PmuAttr.FILTER)).toBe('EFAULT');
    expect(attr(vcpu, PmuAttr.FILTER, filter(0x11, 1, 1))).toBe('OK');
    vcpu.setDeviceAttr(VcpuGroup.PMU_V3_CTRL, PmuAttr.INIT);
    put(
      RAM,
      tell(PMU.CR),
      tell(PMU.CEID0),
      [
        ...PMU_CLEARED,
        set(PMU.CNTENSET, 2 ** 32 - 1),
        tell(PMU.CNTENSET),
        set(PMU.CNTENCLR, 1),
        tell(PMU.CNTENCLR),
      ].flat(),
    );
    // Two event counters and nothing on; LC is RES1 where there is no AArch32.
    expect(runToExit(vcpu)).toMatch(/^write 0x9000000\/8 0x10[04]0$/);
    const events = BigInt(runToExit(vcpu).split(' ')[2]!);
    expect([SW_INCR, CHAIN, 0x11].map((event) => (events >> BigInt(event)) & 1n)).toEqual([1n, 1n, 0n]);
    expect(run(machine, 2)).toEqual([told(0x8000_0003n), told(0x8000_0002n)]);
  });

  onSoftOnly(backend, 'it depends on the processor how often it stalls')(
    'has the events that its version requires; no cycle goes by without an instruction',
    () => {
      const stalls = [0x23, 0x24];
      const machine = start(
        tell(PMU.CEID0),
        tell(PMU.CEID1),
        stalls.flatMap((event, n) => set(PMU.evtyper(n), event)),
        set(PMU.CNTENSET, 2 ** 32 - 1),
        set(PMU.CR, 1),
        stalls.flatMap((_, n) => tell(PMU.evcntr(n))),
      );
      const events = [0, 32].map(
        (from) => (BigInt(runToExit(machine.vcpu).split(' ')[2]!) & 0xffff_ffffn) << BigInt(from),
      );
      const has = (event: number): bigint => ((events[0]! | events[1]!) >> BigInt(event)) & 1n;
      expect([SW_INCR, 0x08, 0x11, ...stalls].map(has)).toEqual([1n, 1n, 1n, 1n, 1n]);
      expect(run(machine, 2)).toEqual([told(0), told(0)]);
    },
  );

  test('software increments count where they are enabled, and an odd counter can count its neighbour', () => {
    const machine = start(
      set(PMU.evtyper(0), SW_INCR),
      set(PMU.evtyper(1), CHAIN),
      set(PMU.evcntr(0), 0xffff_ffff),
      set(PMU.evcntr(1), 5),
      set(PMU.SWINC, 1),
      tell(PMU.evcntr(0)),
      set(PMU.CR, 1),
      set(PMU.SWINC, 1),
      tell(PMU.evcntr(0)),
      set(PMU.CNTENSET, 3),
      set(PMU.SWINC, 3),
      [mrs(1, PMU.evcntr(0)), ...mov(0, 0xffff_ffff), 0x8a000020, ...mov(9, DEVICE), store(8, 0, 9)],
      tell(PMU.evcntr(1)),
      tell(PMU.OVSSET),
      set(PMU.SWINC, 1),
      set(PMU.OVSCLR, 3),
      tell(PMU.OVSCLR),
      tell(PMU.evcntr(1)),
    );
    expect(run(machine, 7)).toEqual([
      told(0xffff_ffff),
      told(0xffff_ffff),
      told(0),
      told(6),
      told(1),
      told(0),
      told(6),
    ]);
  });

  test('a counter is reached by its number, PMSELR 31 the cycle counter; what is not there is UNDEFINED', () => {
    const undefinedAt = [
      mrs(20, PMU.SELR),
      ...mov(9, DEVICE + 8),
      store(8, 20, 9),
      mrs(21, ELR),
      ADD_4,
      msr(ELR, 21),
      ERET,
    ];
    const machine = start(
      set(Sysreg.VBAR_EL1, VECTORS),
      set(PMU.SELR, 1),
      set(PMU.XEVTYPER, CHAIN),
      set(PMU.XEVCNTR, 77),
      tell(PMU.evcntr(1)),
      tell(PMU.evtyper(1)),
      set(PMU.SELR, 31),
      set(PMU.XEVTYPER, 2 ** 30),
      tell(PMU.CCFILTR),
      set(PMU.SELR, 30),
      tell(PMU.XEVCNTR),
      tell(PMU.SELR),
      mrs(0, PMU.SWINC),
    );
    machine.load(VECTORS + 0x200, undefinedAt);
    expect(run(machine, 2)).toEqual([told(77), told(CHAIN)]);
    expect(runToExit(machine.vcpu)).toBe(told(2 ** 30));
    expect(runToExit(machine.vcpu)).toBe('write 0x9000008/8 0x1e');
    expect(run(machine, 2).at(-1)).toBe(told(30));
    expect(runToExit(machine.vcpu)).toBe('write 0x9000008/8 0x1e');
  });

  const whereKept = isEmulatedHost(backend)
    ? skipped('on the emulated host the counter that was written reads as 0')
    : test;
  whereKept('EL0 has what PMUSERENR gives it; the rest is UNDEFINED', () => {
    const EL0_CODE = RAM + 0x4000;
    const machine = start(
      set(Sysreg.VBAR_EL1, VECTORS),
      set(PMU.evtyper(0), SW_INCR),
      set(PMU.evcntr(0), 9),
      set(PMU.USERENR, 8),
      set(SPSR, 0x3c0),
      set(ELR, EL0_CODE),
      ERET,
    );
    // ER: PMSELR and event counters can be read, PMCR and the cycle counter cannot; nothing but PMSELR can be written.
    machine.load(EL0_CODE, tell(PMU.evcntr(0)), set(PMU.SELR, 0), tell(PMU.XEVCNTR), tell(PMU.USERENR), mrs(0, PMU.CR));
    machine.load(VECTORS + 0x400, mrs(20, ESR), mov(9, DEVICE + 8), store(8, 20, 9));
    expect(run(machine, 3)).toEqual([told(9), told(9), told(8)]);
    expect(runToExit(machine.vcpu)).toBe('write 0x9000008/8 0x2000000');
    for (const code of [[msr(PMU.evcntr(0), 0)], [mrs(0, PMU.CCNTR)], [msr(PMU.USERENR, 0)], [mrs(0, PMU.INTENSET)]]) {
      machine.vcpu.setOneReg(Reg.PSTATE, 0x3c0n);
      // The store of the last exit is still to be passed.
      machine.vcpu.setOneReg(Reg.PC, BigInt(EL0_CODE - 4));
      machine.load(EL0_CODE, code, b(0));
      expect([code, runToExit(machine.vcpu)]).toEqual([code, 'write 0x9000008/8 0x2000000']);
    }
  });

  whereGicv3(backend)('an overflow interrupts, once it is allowed to, until it is cleared', () => {
    const machine = makeVm(kvm, { features: FEATURES, gic: true });
    const { vcpu, load: put } = machine;
    vcpu.setDeviceAttr(VcpuGroup.PMU_V3_CTRL, PmuAttr.IRQ, PPI);
    vcpu.setDeviceAttr(VcpuGroup.PMU_V3_CTRL, PmuAttr.INIT);
    put(IRQ_VECTOR, irqHandler(...set(PMU.OVSCLR, 2 ** 32 - 1)));
    put(
      RAM,
      ...PMU_CLEARED,
      enableGic(2 ** PPI),
      daifClr(2),
      set(PMU.evtyper(0), SW_INCR),
      set(PMU.evcntr(0), 0xffff_ffff),
      set(PMU.CNTENSET, 1),
      set(PMU.CR, 1),
      set(PMU.SWINC, 1),
      tell(PMU.OVSSET),
      set(PMU.INTENSET, 1),
      ISB,
      tell(PMU.OVSSET),
      b(0),
    );
    expect(run(machine, 3)).toEqual([told(1), `write 0x9000000/4 0x${PPI.toString(16)}`, told(0)]);
    expect(errnoOf(() => machine.vm.irqLine((2 << 24) | PPI, true))).toBe('OK');
    expect(vcpu.run(1).reason).toBe('intr');
  });

  test('without a vGIC the overflow is an output of the vCPU', () => {
    const { vcpu } = start(
      set(PMU.CNTENSET, 1),
      set(PMU.CR, 1),
      set(PMU.INTENSET, 1),
      set(PMU.OVSSET, 1),
      tell(PMU.OVSSET),
      set(PMU.OVSCLR, 1),
      tell(PMU.OVSSET),
    );
    expect(runToExit(vcpu)).toBe(told(1));
    expect(vcpu.deviceIrqLevel & 4).toBe(4);
    expect(runToExit(vcpu)).toBe(told(0));
    expect(vcpu.deviceIrqLevel & 4).toBe(0);
  });

  test('its state can be saved and restored', () => {
    const { vcpu } = start();
    const { vcpu: other } = start();
    const state: [number, bigint][] = [
      [PMU.CR, 0x2041n],
      [PMU.CNTENSET, 0x8000_0001n],
      [PMU.INTENSET, 3n],
      [PMU.OVSSET, 2n],
      [PMU.evtyper(1), 0x4000_0011n],
      [PMU.evcntr(1), 0x1234n],
      [PMU.CCNTR, 0x12_3456_789an],
      [PMU.CCFILTR, 0x8000_0000n],
      [PMU.SELR, 1n],
      [PMU.USERENR, 15n],
    ];
    for (const [index, value] of state) vcpu.setOneReg(idOf(index), value);
    for (const id of vcpu.getRegList()) other.setOneReg(id, vcpu.getOneReg(id));
    for (const [index, value] of state) expect([index, other.getOneReg(idOf(index))]).toEqual([index, value]);
    // A mask is what it is set to, by the register that clears, too.
    other.setOneReg(idOf(PMU.CNTENCLR), 2n);
    expect(other.getOneReg(idOf(PMU.CNTENSET))).toBe(2n);
    const fresh = start().vcpu;
    other.init(TARGET_GENERIC_V8, FEATURES);
    for (const index of [PMU.CCNTR, PMU.evcntr(1), PMU.SELR])
      expect(other.getOneReg(idOf(index))).toBe(fresh.getOneReg(idOf(index)));
  });
});

const ELR = sysregIndex(3, 0, 4, 0, 1);
const SPSR = sysregIndex(3, 0, 4, 0, 0);
const ESR = sysregIndex(3, 0, 5, 2, 0);
/** ADD X21, X21, #4. */
const ADD_4 = 0x910012b5;
