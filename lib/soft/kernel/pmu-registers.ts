import { sysregIndex } from '../../kvm/index.js';
import { CYCLE_COUNTER, MAX_EVENT_COUNTERS, Pmcr, type Pmu, type PmuVmData, SELECT_MASK } from './pmu.js';

/** Encodings (Arm ARM DDI 0487 D24.5). */
const PMINTENSET_EL1 = sysregIndex(3, 0, 9, 14, 1);
const PMINTENCLR_EL1 = sysregIndex(3, 0, 9, 14, 2);
const PMMIR_EL1 = sysregIndex(3, 0, 9, 14, 6);
const PMCR_EL0 = sysregIndex(3, 3, 9, 12, 0);
const PMCNTENSET_EL0 = sysregIndex(3, 3, 9, 12, 1);
const PMCNTENCLR_EL0 = sysregIndex(3, 3, 9, 12, 2);
const PMOVSCLR_EL0 = sysregIndex(3, 3, 9, 12, 3);
const PMSWINC_EL0 = sysregIndex(3, 3, 9, 12, 4);
const PMSELR_EL0 = sysregIndex(3, 3, 9, 12, 5);
const PMCEID0_EL0 = sysregIndex(3, 3, 9, 12, 6);
const PMCEID1_EL0 = sysregIndex(3, 3, 9, 12, 7);
const PMCCNTR_EL0 = sysregIndex(3, 3, 9, 13, 0);
const PMXEVTYPER_EL0 = sysregIndex(3, 3, 9, 13, 1);
const PMXEVCNTR_EL0 = sysregIndex(3, 3, 9, 13, 2);
const PMUSERENR_EL0 = sysregIndex(3, 3, 9, 14, 0);
const PMOVSSET_EL0 = sysregIndex(3, 3, 9, 14, 3);
const PMEVCNTR0_EL0 = sysregIndex(3, 3, 14, 8, 0);
const PMEVTYPER0_EL0 = sysregIndex(3, 3, 14, 12, 0);
const PMCCFILTR_EL0 = sysregIndex(3, 3, 14, 15, 7);

/** Bits of PMUSERENR_EL0: what EL0 may access: everything, PMSWINC, the cycle counter, event counters. */
const UserEnable = { EN: 1, SW: 2, CR: 4, ER: 8, ALL: 15 } as const;
const LOW = 0xffff_ffffn;

/** Whether the register is the PMU's. */
export const isPmuRegister = (index: number): boolean => {
  const crn = (index >> 7) & 0xf;
  const crm = (index >> 3) & 0xf;
  return (crn === 9 && crm >= 12 && crm <= 14) || (crn === 14 && crm >= 8);
};

/** Which event counter PMEVCNTR<n>_EL0 or PMEVTYPER<n>_EL0 is; `undefined` for neither. */
function numberOf(index: number, first: number): number | undefined {
  const n = index - first;
  return n >= 0 && n < CYCLE_COUNTER ? n : undefined;
}

/** The counter whose value the register is, and what lets EL0 read it; its number may be one that is not there. */
function counterOf(pmu: Pmu, index: number): { counter: number; allowed: number } | undefined {
  if (index === PMCCNTR_EL0) return { counter: CYCLE_COUNTER, allowed: UserEnable.CR };
  const counter = index === PMXEVCNTR_EL0 ? pmu.selected : numberOf(index, PMEVCNTR0_EL0);
  return counter === undefined ? undefined : { counter, allowed: UserEnable.ER };
}

/** The counter whose type the register is. */
function typeOf(pmu: Pmu, index: number): number | undefined {
  if (index === PMCCFILTR_EL0) return CYCLE_COUNTER;
  return index === PMXEVTYPER_EL0 ? pmu.selected : numberOf(index, PMEVTYPER0_EL0);
}

/**
 * A guest's MRS. `undefined`: the access is UNDEFINED, as everything is to EL0 that PMUSERENR_EL0 does not let it do, because KVM traps it and
 * injects just that.
 */
export function readPmu(pmu: Pmu, index: number, el: 0 | 1): bigint | undefined {
  const may = (bits: number): boolean => el === 1 || (pmu.userEnable & (bits | UserEnable.EN)) !== 0;
  const ifMay = (value: () => bigint, bits = 0): bigint | undefined => (may(bits) ? value() : undefined);
  switch (index) {
    case PMINTENSET_EL1:
    case PMINTENCLR_EL1:
      return el === 1 ? BigInt(pmu.interrupts >>> 0) : undefined;
    case PMMIR_EL1:
      return el === 1 ? 0n : undefined;
    case PMCR_EL0:
      return ifMay(() => pmu.control);
    case PMCNTENSET_EL0:
    case PMCNTENCLR_EL0:
      return ifMay(() => BigInt(pmu.enabled >>> 0));
    case PMOVSCLR_EL0:
    case PMOVSSET_EL0:
      return ifMay(() => BigInt(pmu.overflows >>> 0));
    case PMSELR_EL0:
      return ifMay(() => BigInt(pmu.selected), UserEnable.ER);
    case PMCEID0_EL0:
      return ifMay(() => pmu.identification(0));
    case PMCEID1_EL0:
      return ifMay(() => pmu.identification(1));
    case PMUSERENR_EL0:
      return BigInt(pmu.userEnable);
    default:
  }
  const value = counterOf(pmu, index);
  if (value !== undefined) {
    return pmu.has(value.counter) ? ifMay(() => pmu.value(value.counter), value.allowed) : undefined;
  }
  const type = typeOf(pmu, index);
  return type !== undefined && pmu.has(type) ? ifMay(() => pmu.type(type)) : undefined;
}

/** A guest's MSR. `false`: the access is UNDEFINED. */
export function writePmu(pmu: Pmu, index: number, written: bigint, el: 0 | 1): boolean {
  const mask = Number(written & LOW);
  if (index === PMINTENSET_EL1 || index === PMINTENCLR_EL1) {
    if (el === 0) return false;
    pmu.interrupts = index === PMINTENSET_EL1 ? pmu.interrupts | mask : pmu.interrupts & ~mask;
    return true;
  }
  if (index === PMUSERENR_EL0) {
    if (el === 1) pmu.userEnable = mask & UserEnable.ALL;
    return el === 1;
  }
  if (index === PMMIR_EL1) return el === 1;
  const allowed = UserEnable.EN | (index === PMSWINC_EL0 ? UserEnable.SW : index === PMSELR_EL0 ? UserEnable.ER : 0);
  if (el === 0 && (pmu.userEnable & allowed) === 0) return false;
  switch (index) {
    case PMCR_EL0:
      pmu.setControl(written, true);
      return true;
    case PMCNTENSET_EL0:
      pmu.enabled |= mask;
      return true;
    case PMCNTENCLR_EL0:
      pmu.enabled &= ~mask;
      return true;
    case PMOVSSET_EL0:
      pmu.overflows |= mask;
      return true;
    case PMOVSCLR_EL0:
      pmu.overflows &= ~mask;
      return true;
    case PMSELR_EL0:
      pmu.selected = mask & SELECT_MASK;
      return true;
    case PMSWINC_EL0:
      pmu.softwareIncrement(mask);
      return true;
    default:
  }
  const counter = counterOf(pmu, index)?.counter;
  if (counter !== undefined) {
    if (!pmu.has(counter)) return false;
    pmu.setValue(counter, written);
    return true;
  }
  const type = typeOf(pmu, index);
  if (type === undefined || !pmu.has(type)) return false;
  pmu.setType(type, written);
  return true;
}

/** The registers that KVM_GET_ONE_REG has of a PMU: also those of event counters that are not there, as in the kernel. */
export const PMU_REGISTERS: readonly number[] = [
  ...[PMINTENSET_EL1, PMINTENCLR_EL1, PMCR_EL0, PMCNTENSET_EL0, PMCNTENCLR_EL0, PMOVSCLR_EL0, PMSWINC_EL0],
  ...[PMMIR_EL1, PMSELR_EL0, PMCCNTR_EL0, PMUSERENR_EL0, PMOVSSET_EL0, PMCCFILTR_EL0],
  ...Array.from({ length: CYCLE_COUNTER }, (_, n) => PMEVCNTR0_EL0 + n),
  ...Array.from({ length: CYCLE_COUNTER }, (_, n) => PMEVTYPER0_EL0 + n),
];

/** KVM_GET_ONE_REG of one of {@link PMU_REGISTERS}. */
export function savePmu(pmu: Pmu, index: number): bigint {
  if (index === PMSWINC_EL0) return 0n;
  const counter = counterOf(pmu, index)?.counter;
  if (counter !== undefined) return pmu.value(counter);
  const type = typeOf(pmu, index);
  return type === undefined ? readPmu(pmu, index, 1)! : pmu.type(type);
}

/** KVM_SET_ONE_REG of one of them: masks are what the value says, whether by SET or CLR. @param frozen a vCPU ran */
export function restorePmu(pmu: Pmu, vm: PmuVmData, index: number, value: bigint, frozen: boolean): void {
  const mask = Number(value & LOW);
  switch (index) {
    case PMCR_EL0: {
      const counters = Number((value >> Pmcr.N_SHIFT) & 0x1fn);
      // More than there are is ignored, and so is a change that comes too late.
      if (!frozen && counters <= MAX_EVENT_COUNTERS) vm.eventCounters = counters;
      pmu.setControl(value, false);
      return;
    }
    case PMINTENSET_EL1:
    case PMINTENCLR_EL1:
      pmu.interrupts = mask;
      return;
    case PMCNTENSET_EL0:
    case PMCNTENCLR_EL0:
      pmu.enabled = mask;
      return;
    case PMOVSSET_EL0:
    case PMOVSCLR_EL0:
      pmu.overflows = mask;
      return;
    case PMSELR_EL0:
      pmu.selected = mask & SELECT_MASK;
      return;
    case PMUSERENR_EL0:
      pmu.userEnable = mask & UserEnable.ALL;
      return;
    case PMSWINC_EL0:
      return;
    default:
  }
  const counter = counterOf(pmu, index)?.counter;
  if (counter !== undefined) {
    pmu.setValue(counter, value);
    return;
  }
  const type = typeOf(pmu, index);
  if (type !== undefined) pmu.setType(type, value);
}
