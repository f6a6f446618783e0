import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { Cap, type Kvm, Reg, regSize, sysregId, TARGET_GENERIC_V8, type Vcpu, VcpuFeature } from '#lib/kvm/index.js';
import { b, mov, mrs, store } from './asm.ts';
import { backends, since, whereGicv3 } from './backends.ts';
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

  const reinit = (vcpu: Vcpu): void => vcpu.init(TARGET_GENERIC_V8, 1 << VcpuFeature.PSCI_0_2);

  since(backend, '7.3')(
    'there are 16 of each debug register, and those of AArch32, which keep what they are given until a reset',
    () => {
      const { vcpu } = makeVm(kvm);
      const debug = Array.from({ length: 16 }, (_, n) => [4, 5, 6, 7].map((op2) => sysregId(2, 0, 0, n, op2))).flat();
      const FPEXC32 = sysregId(3, 4, 5, 3, 0);
      const DISR = sysregId(3, 0, 12, 1, 1);
      expect(vcpu.getRegList()).toEqual(expect.arrayContaining([...debug, FPEXC32, DISR]));
      for (const [i, id] of debug.entries()) vcpu.setOneReg(id, ~0n & (0xffff_ffff_ffff_ff00n + BigInt(i)));
      expect(debug.map((id) => vcpu.getOneReg(id) & 0xffn)).toEqual(debug.map((_, i) => BigInt(i)));
      expect(vcpu.getOneReg(FPEXC32)).toBe(0x700n);
      for (const id of [FPEXC32, DISR, Reg.SPSR_ABT]) vcpu.setOneReg(id, 5n);
      expect([FPEXC32, DISR, Reg.SPSR_ABT].map((id) => vcpu.getOneReg(id))).toEqual([5n, 5n, 5n]);
      reinit(vcpu);
      expect(debug.map((id) => vcpu.getOneReg(id))).toEqual(debug.map(() => 0n));
      expect([FPEXC32, DISR, Reg.SPSR_ABT].map((id) => vcpu.getOneReg(id))).toEqual([0x700n, 0n, 0n]);
    },
  );

  since(backend, '7.3')('of OSLSR_EL1 the lock can be set, until a reset', () => {
    const { vcpu } = makeVm(kvm);
    const OSLSR = sysregId(2, 0, 1, 1, 4);
    expect([0n, 10n, 15n].map((value) => errnoOf(() => vcpu.setOneReg(OSLSR, value)))).toEqual([
      'EINVAL',
      'OK',
      'EINVAL',
    ]);
    expect(vcpu.getOneReg(OSLSR)).toBe(10n);
    reinit(vcpu);
    expect(vcpu.getOneReg(OSLSR)).toBe(8n);
  });

  since(backend, '7.3')('a vCPU can be given any caches with lines that are long enough, and keeps them', () => {
    const { vcpu, load: put } = makeVm(kvm);
    const CLIDR = sysregId(3, 1, 0, 0, 1);
    const set = (id: bigint, value: bigint): string => errnoOf(() => vcpu.setOneReg(id, value));
    expect([set(CLIDR, 1n << 47n), set(CLIDR, (1n << 47n) - 1n)]).toEqual(['EINVAL', 'OK']);
    expect([set(Reg.ccsidr(0), 1n), set(Reg.ccsidr(1), 0n), set(Reg.ccsidr(13), 1n)]).toEqual([
      'EINVAL',
      'EINVAL',
      'EINVAL',
    ]);
    expect([set(Reg.ccsidr(0), 0x701f_e01an), set(Reg.ccsidr(13), 0xf000_0002n)]).toEqual(['OK', 'OK']);
    reinit(vcpu);
    vcpu.setOneReg(Reg.PC, BigInt(RAM));
    // MSR CSSELR_EL1, X1; ISB; MRS X0, CCSIDR_EL1.
    put(RAM, mov(1, 0), 0xd51a0001, 0xd5033fdf, 0xd5390000, mov(9, DEVICE), store(8, 0, 9));
    expect(runToExit(vcpu)).toBe('write 0x9000000/8 0x701fe01a');
    expect(vcpu.getOneReg(CLIDR)).toBe((1n << 47n) - 1n);
    // Also of one that ran.
    expect(set(Reg.ccsidr(0), 0x701f_e00an)).toBe('OK');
    expect([vcpu.getOneReg(Reg.ccsidr(0)), vcpu.getOneReg(Reg.ccsidr(13))]).toEqual([0x701f_e00an, 0xf000_0002n]);
  });

  since(backend, '7.3')('the rules of single fields of ID registers', () => {
    const DFR0 = sysregId(3, 0, 0, 5, 0);
    const MMFR0 = sysregId(3, 0, 0, 7, 0);
    const CTR = sysregId(3, 3, 0, 0, 1);
    const set = (vcpu: Vcpu, id: bigint, lsb: number, width: number, value: number): string => {
      const mask = ((1n << BigInt(width)) - 1n) << BigInt(lsb);
      return errnoOf(() => vcpu.setOneReg(id, (vcpu.getOneReg(id) & ~mask) | (BigInt(value) << BigInt(lsb))));
    };
    const rules: [string, bigint, number, number, number, string][] = [
      ['DebugVer', DFR0, 0, 4, 5, 'EINVAL'],
      ['DebugVer', DFR0, 0, 4, 6, 'OK'],
      ['PMUVer of the implementation', DFR0, 8, 4, 15, 'OK'],
      ['PMUVer without a PMU', DFR0, 8, 4, 1, 'EINVAL'],
      ['WRPs', DFR0, 20, 4, 0, 'OK'],
      ['WRPs', DFR0, 20, 4, 15, 'EINVAL'],
      ['DoubleLock that is not there', DFR0, 36, 4, 15, 'OK'],
      ['EL1', PFR0, 4, 4, 0, 'EINVAL'],
      ['EL0 in AArch64 only', PFR0, 0, 4, 1, 'OK'],
      ['GIC', PFR0, 24, 4, 0, 'OK'],
      ['FP', PFR0, 16, 4, 15, 'EINVAL'],
      ['TGRAN4 that is not there', MMFR0, 28, 4, 15, 'OK'],
      ['TGRAN64 with another sign', MMFR0, 24, 4, 7, 'EINVAL'],
      ['TGRAN4_2 that is not there', MMFR0, 40, 4, 1, 'OK'],
      ['ASIDBits', MMFR0, 4, 4, 0, 'EINVAL'],
      ['L1Ip VIPT', CTR, 14, 2, 2, 'OK'],
      ['L1Ip reserved', CTR, 14, 2, 1, 'EINVAL'],
      ['DminLine', CTR, 16, 4, 3, 'OK'],
      ['DminLine', CTR, 16, 4, 15, 'EINVAL'],
    ];
    const answers = rules.map(([name, id, lsb, width, value]) => [name, set(makeVm(kvm).vcpu, id, lsb, width, value)]);
    expect(answers).toEqual(rules.map(([name, , , , , answer]) => [name, answer]));
    const { vcpu } = makeVm(kvm);
    expect(set(vcpu, DFR0, 8, 4, 15)).toBe('OK');
    expect((vcpu.getOneReg(DFR0) >> 8n) & 0xfn).toBe(0n);
    // Once a vCPU ran, every change is EBUSY but for what can never be.
    vcpu.immediateExit = true;
    vcpu.run();
    const late = rules.map(([name, id, lsb, width, value]) => [name, set(vcpu, id, lsb, width, value)]);
    const never = ['DebugVer 5', 'EL1 0', 'L1Ip reserved 1'];
    for (const [i, [name, answer]] of late.entries()) {
      const isNever = never.includes(`${name} ${rules[i]![4]}`);
      expect([name, answer === 'OK' ? 'EBUSY' : answer]).toEqual([name, isNever ? 'EINVAL' : 'EBUSY']);
    }
    expect(set(vcpu, DFR0, 36, 4, 15)).toBe('EBUSY');
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
    // A host's is what its firmware says: 1 GHz from Armv8.6 on.
    const frequency = Number(vcpu.getOneReg(Reg.x(1)));
    const [least, most] = backend.name === 'host' ? [1e6, 1e9] : [62.5e6, 62.5e6];
    expect(frequency).toBeGreaterThanOrEqual(least);
    expect(frequency).toBeLessThanOrEqual(most);
  });

  since(backend, '6.4')('a counter offset ends the setting of counters', () => {
    const { vm, vcpu } = makeVm(kvm);
    vm.setCounterOffset(0n);
    vcpu.setOneReg(Reg.TIMER_CNT, 1n << 60n);
    expect(vcpu.getOneReg(Reg.TIMER_CNT) >> 40n).toBe(0n);
    expect(errnoOf(() => vm.setCounterOffset(-1n))).toBe('EINVAL');
  });

  // With a GICv2 there are eight at most.
  whereGicv3(backend)("a vCPU's MPIDR follows from its id, 16 to a cluster", () => {
    const vm = kvm.createVm();
    const mpidr = [0, 15, 16, 257].map((id) => {
      const vcpu = vm.createVcpu(id);
      vcpu.init(5, 4);
      return vcpu.getOneReg(MPIDR);
    });
    expect(mpidr).toEqual([0x8000_0000n, 0x8000_000fn, 0x8000_0100n, 0x8000_1001n]);
  });
});
