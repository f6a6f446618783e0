import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import {
  type Kvm,
  MpState,
  Reg,
  regSize,
  sysregId,
  sysregIndex,
  TARGET_GENERIC_V8,
  type Vcpu,
  VcpuFeature,
} from '#lib/kvm/index.js';
import { backends, since, wherePointerAuth } from './backends.ts';

/** What KVM_ARM_VCPU_INIT leaves in the registers, the first time and again. */

/** The kernel's value for what the architecture leaves UNKNOWN. */
const UNKNOWN = 0x1de7_ec7e_dbad_c0den;
const PMU = (1 << VcpuFeature.PSCI_0_2) | (1 << VcpuFeature.PMU_V3);

const PMCR_EL0 = sysregId(3, 3, 9, 12, 0);
const PMSWINC_EL0 = sysregId(3, 3, 9, 12, 4);
const TIMERS = [Reg.TIMER_CNT, Reg.PTIMER_CNT];
const KEPT = [Reg.SP_EL1, Reg.ELR_EL1, Reg.SPSR_EL1];

describe.each(backends)('reset on $name', (backend) => {
  const { open } = backend;
  let kvm: Kvm;
  let vcpu: Vcpu;
  beforeEach(() => {
    kvm = open();
    vcpu = kvm.createVm().createVcpu(0);
    vcpu.init(TARGET_GENERIC_V8, PMU);
  });
  afterEach(() => kvm.close());

  const hex = (value: bigint): string => `0x${value.toString(16)}`;
  const values = (ids: readonly bigint[]): string[] => ids.map((id) => `${hex(id)} ${hex(vcpu.getOneReg(id))}`);
  const expected = (ids: readonly bigint[], value: bigint): string[] => ids.map((id) => `${hex(id)} ${hex(value)}`);

  test('core registers are zero, but for PSTATE', () => {
    const core = vcpu.getRegList().filter((id) => ((id >> 16n) & 0xfffn) === 0x10n);
    const zero = core.filter((id) => id !== Reg.PSTATE);
    expect(zero.length).toBeGreaterThan(70);
    expect(values(zero)).toEqual(expected(zero, 0n));
    expect(vcpu.getOneReg(Reg.PSTATE)).toBe(0x3c5n);
  });

  since(backend, '7.3')('system registers: zero, a value of their own, or what the kernel takes for UNKNOWN', () => {
    const unknown = [
      sysregId(3, 0, 2, 0, 0), // TTBR0_EL1
      sysregId(3, 0, 2, 0, 1), // TTBR1_EL1
      sysregId(3, 0, 5, 1, 0), // AFSR0_EL1
      sysregId(3, 0, 5, 1, 1), // AFSR1_EL1
      sysregId(3, 0, 5, 2, 0), // ESR_EL1
      sysregId(3, 0, 6, 0, 0), // FAR_EL1
      sysregId(3, 0, 7, 4, 0), // PAR_EL1
      sysregId(3, 0, 10, 2, 0), // MAIR_EL1
      sysregId(3, 0, 13, 0, 4), // TPIDR_EL1
      sysregId(3, 3, 13, 0, 2), // TPIDR_EL0
      sysregId(3, 3, 13, 0, 3), // TPIDRRO_EL0
      sysregId(3, 2, 0, 0, 0), // CSSELR_EL1
      sysregId(3, 4, 3, 0, 0), // DACR32_EL2
      sysregId(3, 4, 5, 0, 1), // IFSR32_EL2
    ];
    expect(values(unknown)).toEqual(expected(unknown, UNKNOWN));
    const zero = [
      sysregId(2, 0, 0, 2, 0), // MDCCINT_EL1
      sysregId(2, 0, 0, 2, 2), // MDSCR_EL1
      sysregId(2, 4, 0, 7, 0), // DBGVCR32_EL2
      ...Array.from({ length: 16 }, (_, n) => [4, 5, 6, 7].map((op2) => sysregId(2, 0, 0, n, op2))).flat(),
      sysregId(3, 0, 1, 0, 2), // CPACR_EL1
      sysregId(3, 0, 2, 0, 2), // TCR_EL1
      sysregId(3, 0, 12, 0, 0), // VBAR_EL1
      sysregId(3, 0, 12, 1, 1), // DISR_EL1
      sysregId(3, 0, 13, 0, 1), // CONTEXTIDR_EL1
      sysregId(3, 0, 14, 1, 0), // CNTKCTL_EL1
      Reg.TIMER_CTL,
      Reg.TIMER_CVAL,
    ];
    expect(values(zero)).toEqual(expected(zero, 0n));
    expect(vcpu.getOneReg(sysregId(3, 0, 1, 0, 0))).toBe(0xc5_0078n); // SCTLR_EL1
    expect(vcpu.getOneReg(sysregId(2, 0, 1, 1, 4))).toBe(8n); // OSLSR_EL1
    expect(vcpu.getOneReg(sysregId(3, 4, 5, 3, 0))).toBe(0x700n); // FPEXC32_EL2
  });

  wherePointerAuth(backend)('the keys of pointer authentication', () => {
    vcpu = kvm.createVm().createVcpu(0);
    vcpu.init(TARGET_GENERIC_V8, (1 << VcpuFeature.PTRAUTH_ADDRESS) | (1 << VcpuFeature.PTRAUTH_GENERIC));
    const keys = [1, 1, 1, 1, 2, 2, 2, 2, 3, 3].map((crm, n) => sysregId(3, 0, 2, crm, n & 3));
    expect(values(keys)).toEqual(expected(keys, UNKNOWN));
  });

  test("a PMU's registers: the counters that are there, and the bits that can be set", () => {
    const counters = Number((vcpu.getOneReg(PMCR_EL0) >> 11n) & 0x1fn);
    const mask = UNKNOWN & BigInt(2 ** 31 + 2 ** counters - 1);
    const masks = [
      sysregId(3, 0, 9, 14, 1), // PMINTENSET_EL1
      sysregId(3, 0, 9, 14, 2), // PMINTENCLR_EL1
      sysregId(3, 3, 9, 12, 1), // PMCNTENSET_EL0
      sysregId(3, 3, 9, 12, 2), // PMCNTENCLR_EL0
      sysregId(3, 3, 9, 12, 3), // PMOVSCLR_EL0
      sysregId(3, 3, 9, 14, 3), // PMOVSSET_EL0
    ];
    expect(values(masks)).toEqual(expected(masks, mask));
    expect(vcpu.getOneReg(sysregId(3, 3, 9, 12, 5))).toBe(UNKNOWN & 0x1fn); // PMSELR_EL0
    expect(vcpu.getOneReg(sysregId(3, 3, 9, 13, 0))).toBe(UNKNOWN); // PMCCNTR_EL0
    expect(vcpu.getOneReg(sysregId(3, 3, 9, 14, 0))).toBe(0n); // PMUSERENR_EL0
    expect(vcpu.getOneReg(sysregId(3, 3, 14, 15, 7))).toBe(0n); // PMCCFILTR_EL0
    const values32 = Array.from({ length: 31 }, (_, n) => sysregIndex(3, 3, 14, 8, 0) + n);
    const id = (index: number): bigint => 0x6030_0000_0013_0000n | BigInt(index);
    expect(values(values32.map(id))).toEqual(expected(values32.map(id), UNKNOWN & 0xffff_ffffn));
    // Event, P and U; and NSH and its like, of exception levels that the vCPU may be said to have.
    for (let n = 0; n < 31; n++)
      expect(vcpu.getOneReg(id(sysregIndex(3, 3, 14, 12, 0) + n)) & ~0x3c00_0000n).toBe(0xc000_c0den);
  });

  since(backend, '7.3')('the next KVM_ARM_VCPU_INIT puts all back, but for SP_EL1, ELR_EL1 and SPSR_EL1', () => {
    const list = vcpu.getRegList().filter((id) => !TIMERS.includes(id) && id !== PMSWINC_EL0);
    const before = new Map(list.map((id) => [id, vcpu.getOneReg(id)]));
    const isIdentification = (index: number): boolean => index >> 14 === 3 && ((index >> 7) & 15) === 0;
    const changed = list.filter((id) => {
      const group = (id >> 16n) & 0xfffn;
      if (group !== 0x10n && (group !== 0x13n || isIdentification(Number(id & 0xffffn)))) return false;
      try {
        vcpu.setOneReg(id, BigInt.asUintN(regSize(id) * 8, before.get(id)! ^ 0x5550n));
      } catch {
        return false;
      }
      return vcpu.getOneReg(id) !== before.get(id);
    });
    expect(changed.length).toBeGreaterThan(150);
    vcpu.init(TARGET_GENERIC_V8, PMU);
    expect(values(list)).toEqual(list.map((id) => `${hex(id)} ${hex(KEPT.includes(id) ? 0x5550n : before.get(id)!)}`));
    expect(vcpu.getMpState()).toBe(MpState.RUNNABLE);
  });
});
