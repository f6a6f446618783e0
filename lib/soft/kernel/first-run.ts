import { KvmError } from '../../kvm/index.js';
import type { SoftVcpu } from './vcpu.js';
import type { Vgic } from './vgic/vgic.js';

/** Timers of EL1: the virtual and the physical one. */
const TIMERS = 2;

/**
 * What comes before a vCPU's first run: the vGIC appears, and interrupts get their owners (kernel: kvm_arch_vcpu_run_pid_change).
 * @throws KvmError EINVAL two devices have one PPI, or the PMU is not ready; EBUSY, ENXIO the vGIC is not, and the VM is dead then
 */
export function prepareFirstRun(vcpu: SoftVcpu): void {
  const { vm } = vcpu;
  const { vgic } = vm;
  if (vgic === undefined) {
    checkPmu(vcpu, vgic);
    if (!vm.hasRun) vm.hideGicRegisters();
    return;
  }
  try {
    vgic.mapResources(vm.bus);
  } catch (error) {
    vm.die();
    throw error;
  }
  const ppis = vm.timers.ppis.slice(0, TIMERS);
  const irqs = ppis.map((intid) => vgic.irq(vcpu.id, intid)!);
  if (new Set(ppis).size !== TIMERS || irqs.some((irq) => irq.owned)) {
    throw new KvmError('EINVAL', 'KVM_RUN', `PPIs ${ppis.join(' and ')} are not the timers' alone`);
  }
  checkPmu(vcpu, vgic);
  // Nothing fails from here on: a run that was refused can be made again.
  for (const irq of irqs) irq.owned = true;
  vcpu.timer.resync();
}

/** kvm_arm_pmu_v3_enable. */
function checkPmu({ pmu }: SoftVcpu, vgic: Vgic | undefined): void {
  if (pmu === undefined) return;
  const fail = (detail: string): KvmError => new KvmError('EINVAL', 'KVM_RUN', detail);
  if (!pmu.initialized) throw fail('the PMU is not initialised');
  if ((pmu.interrupt !== undefined) !== (vgic !== undefined)) {
    throw fail('the PMU has an interrupt where there is a vGIC, and else none');
  }
}
