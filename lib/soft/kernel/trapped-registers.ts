import { isPmuRegister, readPmu, writePmu } from './pmu-registers.js';
import type { SoftVcpu } from './vcpu.js';
import { readIcc, writeIcc } from './vgic/icc.js';

/** PSTATE.M[3:2]. */
const PSTATE_EL_MASK = 0xcn;
/** CRn of the timers' registers, and of the GIC CPU interface's. */
const CRN_TIMER = 14;
const CRN_GIC_PMR = 4;
const CRN_GIC = 12;

const crnOf = (index: number): number => (index >> 7) & 0xf;
const isIcc = (index: number): boolean => crnOf(index) === CRN_GIC || crnOf(index) === CRN_GIC_PMR;
const elOf = ({ cpu }: SoftVcpu): 0 | 1 => ((cpu.getPstate() & PSTATE_EL_MASK) === 0n ? 0 : 1);

/**
 * MRS of a register that is the kernel half's: the PMU's, the timers', the GIC CPU interface's (kernel: arch/arm64/kvm/sys_regs.c).
 * @returns `undefined` where it is UNDEFINED
 */
export function readTrapped(vcpu: SoftVcpu, index: number): bigint | undefined {
  if (isPmuRegister(index)) return vcpu.pmu === undefined ? undefined : readPmu(vcpu.pmu, index, elOf(vcpu));
  if (crnOf(index) === CRN_TIMER) return vcpu.timer.readSysreg(index);
  if (vcpu.icc === undefined || !isIcc(index)) return undefined;
  const value = readIcc(vcpu.icc, index);
  return value === undefined ? undefined : BigInt(value);
}

/** MSR of one. @returns whether it is not UNDEFINED */
export function writeTrapped(vcpu: SoftVcpu, index: number, value: bigint): boolean {
  if (isPmuRegister(index)) {
    if (vcpu.pmu === undefined || !writePmu(vcpu.pmu, index, value, elOf(vcpu))) return false;
    // An overflow may now be nearer than the end of the slice.
    if (vcpu.pmu.isCounting) vcpu.cpu.requestStop();
    return true;
  }
  if (crnOf(index) === CRN_TIMER) {
    if (!vcpu.timer.writeSysreg(index, value)) return false;
    // The slice may now be longer than to the next deadline.
    if (vcpu.timer.nextDeadlineNs(0) !== Number.POSITIVE_INFINITY) vcpu.cpu.requestStop();
    return true;
  }
  return vcpu.icc !== undefined && isIcc(index) && writeIcc(vcpu.vm.vgic!, vcpu.icc, index, value);
}
