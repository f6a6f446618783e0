import { sysregIndex } from '../../kvm/index.js';
import type { Cpu } from '../cpu/cpu.js';

/** What KVM resets a register to that the architecture leaves UNKNOWN (kernel: reset_unknown). */
export const RESET_UNKNOWN = 0x1de7_ec7e_dbad_c0den;

const keys = (crm: number, count: number): number[] =>
  Array.from({ length: count }, (_, op2) => sysregIndex(3, 0, 2, crm, op2));

/** The registers whose rule that is. Of a vCPU without pointer authentication the keys are not there. */
const UNKNOWN: readonly number[] = [
  // TTBR0_EL1, TTBR1_EL1; the keys APIA, APIB, APDA, APDB and APGA.
  sysregIndex(3, 0, 2, 0, 0),
  sysregIndex(3, 0, 2, 0, 1),
  ...keys(1, 4),
  ...keys(2, 4),
  ...keys(3, 2),
  // AFSR0_EL1, AFSR1_EL1, ESR_EL1, FAR_EL1, PAR_EL1, MAIR_EL1.
  sysregIndex(3, 0, 5, 1, 0),
  sysregIndex(3, 0, 5, 1, 1),
  sysregIndex(3, 0, 5, 2, 0),
  sysregIndex(3, 0, 6, 0, 0),
  sysregIndex(3, 0, 7, 4, 0),
  sysregIndex(3, 0, 10, 2, 0),
  // TPIDR_EL1, TPIDR_EL0, TPIDRRO_EL0, CSSELR_EL1.
  sysregIndex(3, 0, 13, 0, 4),
  sysregIndex(3, 3, 13, 0, 2),
  sysregIndex(3, 3, 13, 0, 3),
  sysregIndex(3, 2, 0, 0, 0),
];

const ELR_EL1 = sysregIndex(3, 0, 4, 0, 1);
const SPSR_EL1 = sysregIndex(3, 0, 4, 0, 0);

/** Resets what a processor holds as KVM does (kernel: kvm_reset_vcpu): SP_EL1, ELR_EL1 and SPSR_EL1 stay as they are. */
export function resetProcessor(cpu: Cpu): void {
  const sp = cpu.getSpEl1();
  const kept = [ELR_EL1, SPSR_EL1].map((index) => [index, cpu.getSysreg(index)!] as const);
  cpu.reset();
  cpu.setSpEl1(sp);
  for (const [index, value] of kept) cpu.setSysreg(index, value);
  for (const index of UNKNOWN) cpu.setSysreg(index, RESET_UNKNOWN);
}
