import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { Cap, type Kvm, Reg, regSize, sysregId, TARGET_GENERIC_V8, VcpuFeature } from '#lib/kvm/index.js';
import { b, mov, mrs, store } from './asm.ts';
import { backends, since } from './backends.ts';
import { DEVICE, errnoOf, makeVm, RAM, runToExit, Sysreg } from './machine.ts';

const PFR0 = sysregId(3, 0, 0, 4, 0);
const ISAR0 = sysregId(3, 0, 0, 6, 0);
const MIDR = sysregId(3, 0, 0, 0, 0);
const MPIDR = sysregId(3, 0, 0, 0, 5);

describe.each(backends)('registers on $name', (backend) => {
  const { open } = backend;
  let kvm: Kvm;
  beforeEach(() => {
    kvm = open();
  });
  afterEach(() => kvm.close());

  test('every register of the list can be read and set to what it is', () => {
    const { vcpu } = makeVm(kvm);
    const list = vcpu.getRegList();
    expect(new Set(list).size).toBe(list.length);
    for (const id of list) {
      const value = vcpu.getOneReg(id);
      expect(value).toBe(BigInt.asUintN(regSize(id) * 8, value));
      expect([id.toString(16), errnoOf(() => vcpu.setOneReg(id, value))]).toEqual([id.toString(16), 'OK']);
    }
    for (const id of [Reg.x(30), Reg.PC, Reg.v(31), Reg.FPCR, Reg.TIMER_CNT, Reg.PSCI_VERSION, MPIDR]) {
      expect(list).toContain(id);
    }
  });

  since(backend, '6.4')('the physical timer is in the list', () => {
    expect(makeVm(kvm).vcpu.getRegList()).toContain(Reg.PTIMER_CVAL);
  });

  test('core registers keep what they are given', () => {
    const { vcpu } = makeVm(kvm);
    const values: [bigint, bigint][] = [
      [Reg.x(0), 1n],
      [Reg.x(30), 0xffff_ffff_ffff_fffen],
      [Reg.SP, 0x1000n],
      [Reg.SP_EL1, 0x2000n],
      [Reg.PC, 0xffff_8000_0000_0000n],
      [Reg.PSTATE, 0x6000_03c4n],
      [Reg.ELR_EL1, 3n],
      [Reg.SPSR_EL1, 5n],
      [Reg.SPSR_FIQ, 7n],
      [Reg.v(0), (1n << 127n) | 9n],
      [Reg.v(31), 2n],
      [Reg.FPSR, 0x1fn],
      [Reg.FPCR, 0x0300_0000n],
      [sysregId(3, 0, 2, 0, 0), 0xabc000n],
    ];
    for (const [id, value] of values) vcpu.setOneReg(id, value);
    expect(values.map(([id]) => vcpu.getOneReg(id))).toEqual(values.map(([, value]) => value));
  });

  test('unknown ids, sizes and values are refused', () => {
    const { vcpu } = makeVm(kvm);
    const get = (id: bigint): string => errnoOf(() => vcpu.getOneReg(id));
    expect(get(0x6030_0000_001f_ffffn)).toBe('ENOENT');
    expect(get(0x6020_0000_0010_0000n)).toBe('EINVAL');
    expect(get(0n)).toBe('EINVAL');
    expect(get(Reg.SVE_VLS)).toBe('ENOENT');
    const set = (id: bigint, value: bigint): string => errnoOf(() => vcpu.setOneReg(id, value));
    expect(set(Reg.PSTATE, 0x3c9n)).toBe('EINVAL');
    expect(set(Reg.PSTATE, 0x1d3n)).toBe('EINVAL');
    expect(set(Reg.x(0), -1n)).toBe('EINVAL');
    expect(set(Reg.FPSR, 1n << 32n)).toBe('EINVAL');
    expect(set(Reg.SMCCC_ARCH_WORKAROUND_1, 3n)).toBe('EINVAL');
    expect(set(Reg.fwFeatureBitmap(2), 4n)).toBe('EINVAL');
  });

  test("a vCPU's MPIDR can be set, is what the guest sees and PSCI knows it by", () => {
    const { vcpus, load: put } = makeVm(kvm, { vcpus: 2 });
    const [one, two] = vcpus as [(typeof vcpus)[0], (typeof vcpus)[0]];
    one.setOneReg(MPIDR, 0x5_8000_0203n);
    two.setOneReg(MPIDR, 0x8000_0007n);
    const affinityInfo = (target: number): number[] => [
      ...mov(1, target),
      ...mov(2, 0),
      ...mov(0, 0xc400_0004),
      0xd4000002,
      store(8, 0, 9),
    ];
    put(RAM, mrs(0, Sysreg.MPIDR), mov(9, DEVICE), store(8, 0, 9), affinityInfo(7), affinityInfo(1), b(0));
    expect(runToExit(one)).toBe('write 0x9000000/8 0x580000203');
    // Off is 1; INVALID_PARAMETERS where there is none.
    expect(runToExit(one)).toBe('write 0x9000000/8 0x1');
    expect(runToExit(one)).toBe('write 0x9000000/8 0xfffffffffffffffe');
  });

  // Linux 6.1 still resets it.
  since(backend, '7.3')('the MPIDR that was set stays when the vCPU is reset', () => {
    const { vcpu } = makeVm(kvm);
    vcpu.setOneReg(MPIDR, 0x8000_0007n);
    vcpu.init(TARGET_GENERIC_V8, 1 << VcpuFeature.PSCI_0_2);
    expect(vcpu.getOneReg(MPIDR)).toBe(0x8000_0007n);
  });

  test('the PSCI version can be lowered, and is what the guest sees', () => {
    const { vcpu, load: put } = makeVm(kvm);
    const newest = vcpu.getOneReg(Reg.PSCI_VERSION);
    expect(newest >> 16n).toBe(1n);
    for (const bad of [1n, newest + 1n, 0x2_0000n])
      expect(errnoOf(() => vcpu.setOneReg(Reg.PSCI_VERSION, bad))).toBe('EINVAL');
    vcpu.setOneReg(Reg.PSCI_VERSION, 2n);
    put(
      RAM,
      mov(0, 0x84000000),
      0xd4000002,
      mov(9, DEVICE),
      store(8, 0, 9),
      mov(0, 0x8400000a),
      0xd4000002,
      store(8, 0, 9),
    );
    expect(runToExit(vcpu)).toBe('write 0x9000000/8 0x2');
    expect(runToExit(vcpu)).toBe('write 0x9000000/8 0xffffffffffffffff');
  });

  test('without PSCI 0.2 the version is 0.1', () => {
    const { vcpu } = makeVm(kvm, { features: 0 });
    expect(vcpu.getOneReg(Reg.PSCI_VERSION)).toBe(1n);
    expect(errnoOf(() => vcpu.setOneReg(Reg.PSCI_VERSION, 2n))).toBe('EINVAL');
  });

  since(backend, '7.3')('an ID register can promise less, for all vCPUs, and never more', () => {
    const { vcpus, load: put } = makeVm(kvm, { vcpus: 2 });
    const [one, two] = vcpus as [(typeof vcpus)[0], (typeof vcpus)[0]];
    const atomics = 0xfn << 20n;
    const value = one.getOneReg(ISAR0);
    const less = value & ~atomics;
    expect(errnoOf(() => one.setOneReg(ISAR0, value + (1n << 20n)))).toBe('EINVAL');
    expect(errnoOf(() => one.setOneReg(PFR0, one.getOneReg(PFR0) & ~0xfn))).toBe('EINVAL');
    one.setOneReg(ISAR0, less);
    expect(two.getOneReg(ISAR0)).toBe(less);
    one.init(5, 1 << VcpuFeature.PSCI_0_2);
    expect(one.getOneReg(ISAR0)).toBe(less);
    two.setOneReg(ISAR0, value);
    one.setOneReg(ISAR0, less);
    one.setOneReg(Reg.PC, BigInt(RAM));
    put(RAM, mrs(0, 0xc030), mov(9, DEVICE), store(8, 0, 9));
    expect(runToExit(one)).toBe(`write 0x9000000/8 0x${less.toString(16)}`);
    expect(errnoOf(() => one.setOneReg(ISAR0, value))).toBe('EBUSY');
    expect(errnoOf(() => one.setOneReg(ISAR0, less))).toBe('OK');
  });

  since(backend, '6.15')('the writable masks say which', () => {
    const vm = kvm.createVm();
    const masks = vm.getRegWritableMasks();
    expect(masks.length).toBe(192);
    expect((masks[6 * 8]! >> 20n) & 0xfn).toBe(0xfn);
    expect(masks[0]).toBe(0xffff_ffffn);
    vm.enableCap(Cap.ARM_WRITABLE_IMP_ID_REGS);
    expect(vm.getRegWritableMasks()[0]).toBe(0xffff_ffffn);
    const vcpu = vm.createVcpu(0);
    vcpu.init(5, 4);
    vcpu.setOneReg(MIDR, 0x410f_d0c1n);
    expect(vcpu.getOneReg(MIDR)).toBe(0x410f_d0c1n);
    expect(errnoOf(() => vm.enableCap(Cap.ARM_WRITABLE_IMP_ID_REGS))).toBe('EINVAL');
  });

  test('counters are set by writing them, for all vCPUs', () => {
    const { vcpus, load: put } = makeVm(kvm, { vcpus: 2 });
    const vcpu = vcpus[0]!;
    vcpu.setOneReg(Reg.TIMER_CNT, 1n << 60n);
    expect(vcpus[1]!.getOneReg(Reg.TIMER_CNT) >> 40n).toBe(1n << 20n);
    put(RAM, mrs(0, Sysreg.CNTVCT), mrs(1, Sysreg.CNTFRQ), mov(9, DEVICE), store(8, 0, 9), b(0));
    expect(runToExit(vcpu)).toMatch(/^write 0x9000000\/8 0x10000000/);
    expect(vcpu.getOneReg(Reg.x(1))).toBe(62_500_000n);
  });

  since(backend, '6.4')('a counter offset ends the setting of counters', () => {
    const { vm, vcpu } = makeVm(kvm);
    vm.setCounterOffset(0n);
    vcpu.setOneReg(Reg.TIMER_CNT, 1n << 60n);
    expect(vcpu.getOneReg(Reg.TIMER_CNT) >> 40n).toBe(0n);
    expect(errnoOf(() => vm.setCounterOffset(-1n))).toBe('EINVAL');
  });

  test("a vCPU's MPIDR follows from its id, 16 to a cluster", () => {
    const vm = kvm.createVm();
    const mpidr = [0, 15, 16, 257].map((id) => {
      const vcpu = vm.createVcpu(id);
      vcpu.init(5, 4);
      return vcpu.getOneReg(MPIDR);
    });
    expect(mpidr).toEqual([0x8000_0000n, 0x8000_000fn, 0x8000_0100n, 0x8000_1001n]);
  });
});
