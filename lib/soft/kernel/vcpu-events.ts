import { KvmError, type VcpuEvents } from '../../kvm/index.js';
import type { Cpu } from '../cpu/cpu.js';

/** KVM_GET_VCPU_EVENTS (`Documentation/virt/kvm/api.rst` 4.31): an external abort is never pending, because it is taken at once. */
export function getEvents(cpu: Cpu): VcpuEvents {
  return { serrorPending: cpu.serrorPending, serrorHasEsr: false, serrorEsr: 0n, extDabtPending: false };
}

/**
 * KVM_SET_VCPU_EVENTS (4.32).
 * @param cancelExit forgets what an exit left to do, where an external abort takes its place
 * @throws KvmError EINVAL an SError with a syndrome; the external abort has been taken then, as in the kernel
 */
export function setEvents(cpu: Cpu, events: Partial<VcpuEvents>, cancelExit: () => void): void {
  if (events.extDabtPending === true) {
    cancelExit();
    cpu.injectExternalAbort();
  }
  if (events.serrorPending !== true) return;
  // Without RAS an SError has no syndrome (KVM_CAP_ARM_INJECT_SERROR_ESR is 0).
  if (events.serrorHasEsr === true) {
    throw new KvmError('EINVAL', 'KVM_SET_VCPU_EVENTS', 'an SError has no syndrome here');
  }
  cpu.injectSerror(0n);
}
