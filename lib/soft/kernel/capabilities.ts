import { Cap } from '../../kvm/index.js';
import { BREAKPOINTS, WATCHPOINTS } from '../cpu/cpu.js';
import { DIRTY_RING_MAX_BYTES } from './dirty-ring.js';
import { GUEST_DEBUG_VALID } from './guest-debug.js';
import { GUEST_MEMFD_FLAGS } from './guest-memory.js';
import { NR_GSIS } from './irq-routing.js';
import { NR_MEMSLOTS } from './memslots.js';

/** vCPUs of a VM, and ids: what a kernel with a GICv3 has (VGIC_V3_MAX_CPUS). */
export const MAX_VCPUS = 512;
/** vCPUs that a GICv2 can have (VGIC_V2_MAX_CPUS). */
export const MAX_VCPUS_GICV2 = 8;
/** vCPUs that make sense: they run in turn on one thread. */
const RECOMMENDED_VCPUS = 8;
/** Bits of guest-physical address that a VM can have: the processor's ID_AA64MMFR0_EL1.PARange. */
export const IPA_BITS_MAX = 40;
/** A VM of type 0 has this many. */
export const IPA_BITS_DEFAULT = 40;
/** The least that the kernel takes (ARM64_MIN_PARANGE_BITS). */
export const IPA_BITS_MIN = 32;

/**
 * What KVM_CHECK_EXTENSION answers where it is not 0. What a real kernel has and this model has not is left out, and the
 * calls behind it answer as on a kernel without it.
 */
const VALUES: ReadonlyMap<number, number> = new Map([
  [Cap.IRQCHIP, 1],
  [Cap.USER_MEMORY, 1],
  [Cap.NR_VCPUS, RECOMMENDED_VCPUS],
  [Cap.NR_MEMSLOTS, NR_MEMSLOTS],
  [Cap.MP_STATE, 1],
  // The page of the ring, from the beginning of `struct kvm_run`.
  [Cap.COALESCED_MMIO, 1],
  [Cap.SYNC_MMU, 1],
  [Cap.SET_GUEST_DEBUG, 1],
  [Cap.DESTROY_MEMORY_REGION_WORKS, 1],
  [Cap.IRQ_ROUTING, NR_GSIS],
  [Cap.JOIN_MEMORY_REGIONS_WORKS, 1],
  [Cap.IRQFD, 1],
  [Cap.IOEVENTFD, 1],
  [Cap.INTERNAL_ERROR_DATA, 1],
  [Cap.VCPU_EVENTS, 1],
  [Cap.MAX_VCPUS, MAX_VCPUS],
  [Cap.ONE_REG, 1],
  [Cap.SIGNAL_MSI, 1],
  [Cap.READONLY_MEM, 1],
  [Cap.IRQFD_RESAMPLE, 1],
  [Cap.ARM_PSCI, 1],
  [Cap.ARM_SET_DEVICE_ADDR, 1],
  [Cap.DEVICE_CTRL, 1],
  [Cap.ENABLE_CAP_VM, 1],
  [Cap.ARM_PSCI_0_2, 1],
  [Cap.CHECK_EXTENSION_VM, 1],
  [Cap.IOEVENTFD_ANY_LENGTH, 1],
  [Cap.ARM_PMU_V3, 1],
  [Cap.VCPU_ATTRIBUTES, 1],
  [Cap.GUEST_DEBUG_HW_BPS, BREAKPOINTS],
  [Cap.GUEST_DEBUG_HW_WPS, WATCHPOINTS],
  [Cap.MAX_VCPU_ID, MAX_VCPUS],
  [Cap.IMMEDIATE_EXIT, 1],
  [Cap.ARM_USER_IRQ, 1],
  [Cap.ARM_INJECT_SERROR_ESR, 1],
  [Cap.ARM_VM_IPA_SIZE, IPA_BITS_MAX],
  [Cap.ARM_PTRAUTH_ADDRESS, 1],
  [Cap.ARM_PTRAUTH_GENERIC, 1],
  // KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE and KVM_DIRTY_LOG_INITIALLY_SET.
  [Cap.MANUAL_DIRTY_LOG_PROTECT2, 3],
  [Cap.ARM_IRQ_LINE_LAYOUT_2, 1],
  [Cap.ARM_NISV_TO_USER, 1],
  [Cap.ARM_INJECT_EXT_DABT, 1],
  [Cap.HALT_POLL, 1],
  [Cap.STEAL_TIME, 1],
  [Cap.PTP_KVM, 1],
  [Cap.BINARY_STATS_FD, 1],
  [Cap.SYSTEM_EVENT_DATA, 1],
  [Cap.ARM_SYSTEM_SUSPEND, 1],
  [Cap.DIRTY_LOG_RING_ACQ_REL, DIRTY_RING_MAX_BYTES],
  [Cap.DIRTY_LOG_RING_WITH_BITMAP, 1],
  [Cap.SET_GUEST_DEBUG2, GUEST_DEBUG_VALID],
  [Cap.COUNTER_OFFSET, 1],
  [Cap.ARM_SUPPORTED_REG_MASK_RANGES, 1],
  [Cap.USER_MEMORY2, 1],
  [Cap.GUEST_MEMFD, 1],
  [Cap.ARM_WRITABLE_IMP_ID_REGS, 1],
  [Cap.GUEST_MEMFD_FLAGS, GUEST_MEMFD_FLAGS],
]);

/** Known to a VM fd only; on the system fd the kernel answers EINVAL. */
export const VM_ONLY: ReadonlySet<number> = new Set([Cap.MSI_DEVID, Cap.ARM_CACHEABLE_PFNMAP_SUPPORTED]);

/** KVM_CHECK_EXTENSION's answer: 0 for what is not there. */
export const capability = (cap: number): number => VALUES.get(cap) ?? 0;
