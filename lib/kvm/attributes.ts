/** KVM_DEV_TYPE_* that arm64 knows (`struct kvm_create_device`). */
export const DeviceType = {
  VFIO: 4,
  ARM_VGIC_V2: 5,
  ARM_VGIC_V3: 7,
  ARM_VGIC_ITS: 8,
  /** Never creatable: paravirtual time is a vCPU attribute. */
  ARM_PV_TIME: 10,
  ARM_VGIC_V5: 16,
} as const;
export type DeviceType = (typeof DeviceType)[keyof typeof DeviceType];

/** KVM_DEV_ARM_VGIC_GRP_* (`Documentation/virt/kvm/devices/arm-vgic*.rst`). */
export const VgicGroup = {
  ADDR: 0,
  DIST_REGS: 1,
  CPU_REGS: 2,
  NR_IRQS: 3,
  CTRL: 4,
  REDIST_REGS: 5,
  CPU_SYSREGS: 6,
  LEVEL_INFO: 7,
  ITS_REGS: 8,
  MAINT_IRQ: 9,
} as const;

/** Attributes of VgicGroup.ADDR. */
export const VgicAddr = {
  V2_DIST: 0,
  V2_CPU: 1,
  V3_DIST: 2,
  V3_REDIST: 3,
  ITS: 4,
  /** Value: `count << 52 | base | flags | index` (arm-vgic-v3.rst). */
  V3_REDIST_REGION: 5,
} as const;

/** Attributes of VgicGroup.CTRL. */
export const VgicCtrl = {
  INIT: 0,
  ITS_SAVE_TABLES: 1,
  ITS_RESTORE_TABLES: 2,
  SAVE_PENDING_TABLES: 3,
  ITS_RESET: 4,
} as const;

/** KVM_ARM_VCPU_*_CTRL: attribute groups of a vCPU fd (`Documentation/virt/kvm/devices/vcpu.rst`). */
export const VcpuGroup = { PMU_V3_CTRL: 0, TIMER_CTRL: 1, PVTIME_CTRL: 2 } as const;
/** Attributes of VcpuGroup.PMU_V3_CTRL. */
export const PmuAttr = { IRQ: 0, INIT: 1, FILTER: 2, SET_PMU: 3, SET_NR_COUNTERS: 4 } as const;
/** Attributes of VcpuGroup.TIMER_CTRL: the PPI (INTID 16 to 31) of each timer. */
export const TimerAttr = { VTIMER: 0, PTIMER: 1, HVTIMER: 2, HPTIMER: 3 } as const;
/** Attributes of VcpuGroup.PVTIME_CTRL. */
export const PvtimeAttr = { IPA: 0 } as const;

/** KVM_ARM_VM_SMCCC_CTRL: the attribute group of a VM fd (`Documentation/virt/kvm/devices/vm.rst` 6). */
export const VmGroup = { SMCCC_CTRL: 0 } as const;
/** Attributes of VmGroup.SMCCC_CTRL; the value is `struct kvm_smccc_filter`. */
export const SmcccAttr = { FILTER: 0 } as const;
/** Actions of `struct kvm_smccc_filter`. */
export const SmcccFilterAction = { HANDLE: 0, DENY: 1, FWD_TO_USER: 2 } as const;

/** KVM_ARM_VCPU_*: bits of `struct kvm_vcpu_init.features`. */
export const VcpuFeature = {
  POWER_OFF: 0,
  EL1_32BIT: 1,
  PSCI_0_2: 2,
  PMU_V3: 3,
  SVE: 4,
  PTRAUTH_ADDRESS: 5,
  PTRAUTH_GENERIC: 6,
  HAS_EL2: 7,
  HAS_EL2_E2H0: 8,
  PMU_V3_STRICT: 9,
} as const;
/** KVM_ARM_TARGET_GENERIC_V8: the only target a current kernel prefers. */
export const TARGET_GENERIC_V8 = 5;

/** KVM_MP_STATE_* of arm64. */
export const MpState = { RUNNABLE: 0, STOPPED: 5, SUSPENDED: 10 } as const;
export type MpState = (typeof MpState)[keyof typeof MpState];

/** KVM_MEM_*: flags of a memory region. */
export const MemFlag = { LOG_DIRTY_PAGES: 1, READONLY: 2, GUEST_MEMFD: 4 } as const;

/** KVM_IRQFD_FLAG_* */
export const IrqfdFlag = { DEASSIGN: 1, RESAMPLE: 2 } as const;
/** KVM_IOEVENTFD_FLAG_* */
export const IoeventfdFlag = { DATAMATCH: 1, PIO: 2, DEASSIGN: 4 } as const;
/** KVM_ARM_IRQ_TYPE_*: bits 27..24 of `irqLine`'s irq. */
export const IrqType = { CPU: 0, SPI: 1, PPI: 2 } as const;
/** KVM_IRQ_ROUTING_* */
export const IrqRoutingType = { IRQCHIP: 1, MSI: 2 } as const;
/** KVM_GUESTDBG_*: bits of `struct kvm_guest_debug.control`. */
export const GuestDebug = { ENABLE: 1, SINGLESTEP: 2, USE_SW_BP: 0x10000, USE_HW: 0x20000 } as const;
