import { ID_AA64DFR0, PMUVER_SHIFT } from './id-regs.js';
import { PMU_VERSION, Pmu } from './pmu.js';
import type { SoftVcpu } from './vcpu.js';
import { NR_PRIVATE } from './vgic/irq.js';

const dfr0Of = ({ cpu }: SoftVcpu): bigint => cpu.getSysreg(ID_AA64DFR0)!;

/** Says in ID_AA64DFR0_EL1 that the VM's vCPUs have a PMU. */
export function showPmu(vcpu: SoftVcpu): void {
  vcpu.vm.setIdRegister(ID_AA64DFR0, dfr0Of(vcpu) | (BigInt(PMU_VERSION) << PMUVER_SHIFT));
}

/** The PMU of a vCPU, wired to the interrupt that it is given. */
export function createPmu(vcpu: SoftVcpu): Pmu {
  const { vm, cpu, id } = vcpu;
  const version = (): number => Number((dfr0Of(vcpu) >> PMUVER_SHIFT) & 0xfn);
  return new Pmu(vm.pmu, cpu, version, (level) => {
    const intid = vcpu.pmu?.interrupt;
    if (intid === undefined) return;
    if (intid < NR_PRIVATE) vm.vgic?.injectPpi(id, intid, level, true);
    else vm.vgic?.injectSpi(intid, level, true);
  });
}
