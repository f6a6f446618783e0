import { KvmError, type VcpuEvents } from '../../kvm/index.js';
import { type Cpu, SERROR_ISS } from '../cpu/cpu.js';

/** IDS: the rest of the ISS is the implementation's own. What an SError without a syndrome has (kernel: kvm_inject_serror). */
const ISS_IDS = 1n << 24n;

/**
 * KVM_GET_VCPU_EVENTS (`Documentation/virt/kvm/api.rst` 4.31). An external abort is never pending, because it is taken at once. As in
 * the kernel, the syndrome is said to be there whether or not an SError is.
 */
export function getEvents(cpu: Cpu): VcpuEvents {
  const serror = cpu.pendingSerror;
  return { serrorPending: serror !== undefined, serrorHasEsr: true, serrorEsr: serror ?? 0n, extDabtPending: false };
}

/**
 * KVM_SET_VCPU_EVENTS (4.32). An SError that PSTATE.A does not mask is taken at once (kernel: kvm_inject_serror_esr).
 * @param cancelExit forgets what an exit left to do, where an exception takes its place
 * @throws KvmError EINVAL a syndrome of more than 25 bits (`api.rst` speaks of 24, but the kernel takes IDS, too: ESR_ELx_ISS_MASK); the external abort has been taken then, as in the kernel
 */
export function setEvents(cpu: Cpu, events: Partial<VcpuEvents>, cancelExit: () => void): void {
  if (events.extDabtPending === true) {
    cancelExit();
    cpu.injectExternalAbort();
  }
  if (events.serrorPending !== true) return;
  const iss = events.serrorHasEsr === true ? (events.serrorEsr ?? 0n) : ISS_IDS;
  if ((iss & ~SERROR_ISS) !== 0n) {
    throw new KvmError('EINVAL', 'KVM_SET_VCPU_EVENTS', `an SError's syndrome has 25 bits, not 0x${iss.toString(16)}`);
  }
  cpu.injectSerror(iss);
  if (cpu.takeSerror()) cancelExit();
}
