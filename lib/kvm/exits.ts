/**
 * Why KVM_RUN returned, one type an exit reason of arm64 (`Documentation/virt/kvm/api.rst` 5, `struct kvm_run`).
 * The objects may be reused by the next `run()` of the same vCPU: take what you need before you call it.
 */
export type VcpuExit =
  | HypercallExit
  | DebugExit
  | MmioExit
  | FailEntryExit
  | IntrExit
  | InternalErrorExit
  | SystemEventExit
  | ArmNisvExit
  | DirtyRingFullExit
  | MemoryFaultExit
  | ArmSeaExit
  | ArmLdst64bExit;

/** The `reason` of an exit. */
export type ExitReason = VcpuExit['reason'];

/** KVM_EXIT_* as the kernel numbers them. */
export const ExitNumber: Readonly<Record<ExitReason, number>> = {
  hypercall: 3,
  debug: 4,
  mmio: 6,
  fail_entry: 9,
  intr: 10,
  internal_error: 17,
  system_event: 24,
  arm_nisv: 28,
  dirty_ring_full: 31,
  memory_fault: 39,
  arm_sea: 41,
  arm_ldst64b: 42,
};

/** KVM_EXIT_HYPERCALL: an SMCCC call that the VM's SMCCC filter forwards. PC is already past the instruction; arguments and results are in X0..X17. */
export interface HypercallExit {
  readonly reason: 'hypercall';
  /** The function identifier, W0 at the call. */
  readonly nr: number;
  /** KVM_HYPERCALL_EXIT_SMC: the guest used SMC, not HVC. */
  readonly smc: boolean;
  /** KVM_HYPERCALL_EXIT_16BIT: the conduit instruction was 16 bits wide (AArch32). */
  readonly is16bit: boolean;
}

/** KVM_EXIT_DEBUG: single step, breakpoint or watchpoint set by `setGuestDebug`. */
export interface DebugExit {
  readonly reason: 'debug';
  /** ESR_EL2, its low half: EC 0x30 breakpoint, 0x32 single step, 0x34 watchpoint, 0x3c BRK. */
  readonly hsr: number;
  /** FAR_EL2: for watchpoints the watched address, else of no meaning. */
  readonly far: bigint;
}

/** KVM_EXIT_MMIO: an access to a guest-physical address that no memslot and no in-kernel device answers. */
export interface MmioExit {
  readonly reason: 'mmio';
  /** Guest-physical address. */
  readonly physAddr: number;
  /** Bytes: 1, 2, 4 or 8. */
  readonly len: number;
  /** The guest writes; else it reads. */
  readonly isWrite: boolean;
  /** Eight bytes. A write has its value here, little-endian, in the first `len`; for a read, put it there before the next `run()`, which completes the instruction. */
  readonly data: Uint8Array;
}

/** KVM_EXIT_FAIL_ENTRY: the vCPU could not enter the guest (KVM_EXIT_FAIL_ENTRY_CPU_UNSUPPORTED: wrong physical CPU for its PMU). */
export interface FailEntryExit {
  readonly reason: 'fail_entry';
  readonly hardwareEntryFailureReason: bigint;
  readonly cpu: number;
}

/** KVM_EXIT_INTR, or EINTR from KVM_RUN: a `kick()`, `immediateExit`, or the end of the quantum. */
export interface IntrExit {
  readonly reason: 'intr';
  /**
   * Only from a backend whose vCPUs run in turn on the caller's thread, and only where this vCPU waits in WFI or is not
   * powered on: milliseconds until its own timers would wake it, `Infinity` where only an interrupt from elsewhere can.
   * Elsewhere a halted vCPU waits inside `run()` and this is `undefined`.
   */
  readonly idleMs?: number | undefined;
}

/** KVM_EXIT_INTERNAL_ERROR. */
export interface InternalErrorExit {
  readonly reason: 'internal_error';
  readonly suberror: number;
  readonly data: readonly bigint[];
}

/** KVM_SYSTEM_EVENT_* */
export const SystemEvent = { SHUTDOWN: 1, RESET: 2, CRASH: 3, WAKEUP: 4, SUSPEND: 5 } as const;
export type SystemEvent = (typeof SystemEvent)[keyof typeof SystemEvent];

/** KVM_EXIT_SYSTEM_EVENT: the guest powered off, reset, crashed or suspended itself by PSCI. */
export interface SystemEventExit {
  readonly reason: 'system_event';
  readonly type: SystemEvent;
  /** `data[0]`: KVM_SYSTEM_EVENT_{SHUTDOWN,RESET}_FLAG_PSCI_* */
  readonly data: readonly bigint[];
}

/** KVM_EXIT_ARM_NISV: a data abort without a syndrome outside memslots, where KVM_CAP_ARM_NISV_TO_USER is on. PC is not advanced. */
export interface ArmNisvExit {
  readonly reason: 'arm_nisv';
  /** ESR_EL2.ISS. */
  readonly esrIss: bigint;
  /** Guest-physical address, of the page at least. */
  readonly faultIpa: number;
}

/** KVM_EXIT_DIRTY_RING_FULL. */
export interface DirtyRingFullExit {
  readonly reason: 'dirty_ring_full';
}

/** KVM_EXIT_MEMORY_FAULT: a guest access to memory that could not be resolved. */
export interface MemoryFaultExit {
  readonly reason: 'memory_fault';
  readonly flags: bigint;
  readonly gpa: number;
  readonly size: number;
}

/** KVM_EXIT_ARM_SEA: a synchronous external abort handed to user space (KVM_CAP_ARM_SEA_TO_USER). */
export interface ArmSeaExit {
  readonly reason: 'arm_sea';
  readonly flags: bigint;
  readonly esr: bigint;
  readonly gva: bigint;
  readonly gpa: number;
}

/** KVM_EXIT_ARM_LDST64B: a 64-byte load or store (FEAT_LS64) to an emulated device. */
export interface ArmLdst64bExit {
  readonly reason: 'arm_ldst64b';
  readonly esrIss: bigint;
  readonly faultIpa: number;
}
