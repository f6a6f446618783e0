import type { MpState } from './attributes.js';
import type { KvmError } from './errors.js';
import type { MmioExit, VcpuExit } from './exits.js';

/** Holds something that must be given back. `close()` may be called twice, in any order with its relatives'. */
export interface Closable extends Disposable {
  /** Gives it back. Every other call is EBADF from then on. */
  close(): void;
  /** Whether `close()` was called. */
  readonly closed: boolean;
}

/** What `/dev/kvm` is: the system fd. */
export interface Kvm extends Closable {
  /** `'host'`: the kernel's. `'soft'`: the software KVM. */
  readonly backend: 'host' | 'soft';
  /** KVM_GET_API_VERSION: 12. */
  getApiVersion(): number;
  /** KVM_CHECK_EXTENSION on the system fd: 0 where the capability is absent. @throws KvmError EINVAL for the two that only a VM fd knows */
  checkExtension(cap: number): number;
  /** KVM_GET_VCPU_MMAP_SIZE in bytes. */
  getVcpuMmapSize(): number;
  /**
   * KVM_CREATE_VM.
   * @param type bits 7..0: IPA bits (0 means 40); bit 31: protected
   * @throws KvmError EINVAL unknown bits or an IPA size out of range; ENOMEM; EBUSY the host is being shut down
   */
  createVm(type?: number): Vm;
  /** An eventfd, counting from 0. */
  createEventFd(): EventFd;
  /** On the software KVM, whose host is the program. A real host's kernel does it by itself. */
  readonly power?: HostPower;
}

/**
 * Suspend and reboot of the host, as its kernel tells KVM (kvm_suspend, kvm_resume, kvm_shutdown), for all VMs of a {@link Kvm} at
 * once. Each call may come at any time, also from a listener inside `run()`. Calls that change nothing do nothing.
 */
export interface HostPower {
  /** `'suspended'` comes back, `'off'` does not. */
  readonly state: 'on' | 'suspended' | 'off';
  /**
   * Every `run()` in progress returns `intr`, as where Linux freezes its caller, and others return `intr` with an `idleMs` of Infinity,
   * having completed what the last exit left over and no more. The system counter goes on: it is always on.
   */
  suspend(): void;
  /** Every vCPU that was told to wait is told by `Vm.onRunnable`; timers that are due fire now. */
  resume(): void;
  /** As {@link suspend}, and for good. New VMs are EBUSY. */
  shutdown(): void;
}

/** eventfd(2): a counter that a signal adds to and a read takes. */
export interface EventFd extends Closable {
  /** Adds `n` (1 if not given, 1 to 2^53-1). */
  signal(n?: number): void;
  /** Takes the count; 0 where there is none. */
  read(): number;
  /**
   * Called after a signal, with the count already taken. On the software backend it is called at once, inside the call
   * or the guest instruction that signalled; on the host, from the event loop. `undefined` ends it.
   */
  onSignal(listener: ((count: number) => void) | undefined): void;
}

/** What guests may do with pages of memory: nothing, load and execute, or store too. */
export type PageProtection = 'none' | 'read' | 'read-write';

/**
 * What an MMU notifier tells KVM (`Documentation/mm/mmu_notifier.rst`), as calls: on the software KVM who has a memory is its
 * memory manager. Each takes effect at the next instruction of every vCPU, also from a listener inside `run()`: no translation
 * and no compiled code outlives it. Ranges are whole pages of 4,096 bytes inside the memory.
 */
export interface MmuNotifier {
  /**
   * As mprotect(2), or UFFDIO_REGISTER and UFFDIO_WRITEPROTECT: what guests may do with the pages, at first everything. What may
   * not be done makes `run()` fail with EFAULT, before the instruction: the next `run()` tries again. The kernel half's own
   * accesses (an ITS's tables, stolen time) fail as where there is no memory. Who has `bytes` may do everything.
   * @throws RangeError no range of pages, or no protection; KvmError EBADF closed; EINVAL a guest_memfd, which guests have
   * whatever the protection of its mapping is
   */
  protect(offset: number, length: number, protection: PageProtection): void;
  /**
   * As userfaultfd(2): called inside `run()`, before the EFAULT, with the offset of the page. Where the guest may then do more with
   * the page than before, its instruction is tried again. The listener may do what an {@link MmioListener} may; an error that it throws
   * leaves `run()`. `undefined` ends it, and so does `close()`.
   */
  onFault(listener: ((offset: number) => void) | undefined): void;
  /** As MADV_DONTNEED, or FALLOC_FL_PUNCH_HOLE: the pages are zero. Which are dirty, young or protected stays. @throws as {@link protect} */
  discard(offset: number, length: number): void;
  /**
   * Which pages guests have loaded from, stored to, executed, or had as translation tables since {@link clearYoung}; before
   * its first call, all. @returns one bit a page, as `Vm.getDirtyLog` @throws as {@link protect}
   */
  testYoung(offset: number, length: number): Uint8Array;
  /** The same, and from now on they have not. */
  clearYoung(offset: number, length: number): Uint8Array;
}

/** Memory that a VM can be given as RAM: an mmap on the host, a range of the engine's memory in software. */
export interface GuestMemory extends Closable {
  /** Bytes. */
  readonly size: number;
  /** The memory itself, no copy. Valid until `close()`. */
  readonly bytes: Uint8Array;
  /**
   * `length` of its bytes from `offset` on, no copy. Valid until `close()`. On the host's KVM, which has it in place of `bytes` for whoever
   * reaches for parts: what an ArrayBuffer stands for presses V8 to collect garbage, and `bytes` is all of a guest's RAM.
   * @throws RangeError outside the memory; KvmError EBADF closed
   */
  view?(offset: number, length: number): Uint8Array;
  /**
   * Says that `length` bytes at `offset` were written through `bytes` and may hold code that the guest has executed.
   * The software backend forgets its translations of them; on the host the CPU's caches are coherent and it does nothing.
   * @throws RangeError outside the memory
   */
  written(offset: number, length: number): void;
  /** On the software KVM. On a host there is none: its kernel's memory manager tells KVM by itself. */
  readonly notifier?: MmuNotifier;
}

/** How {@link Vm.createMemory} gets the memory. */
export interface MemoryOptions {
  /**
   * Bytes of the huge pages that it is made of: a size of which the host has set pages aside, such as 2 MiB or 1 GiB
   * (`/sys/kernel/mm/hugepages`). Default: the host's own pages, where its kernel may put huge ones together by itself.
   */
  readonly hugePageSize?: number | undefined;
}

/** `struct kvm_userspace_memory_region2`, with the memory as an object instead of an address. */
export interface UserMemoryRegion {
  /** Slot, 0 to 32,766; bits 31..16 the address space, 0 on arm64. */
  readonly slot: number;
  /** {@link MemFlag} bits. */
  readonly flags?: number;
  /** Page-aligned guest-physical address. */
  readonly guestPhysAddr: number;
  /** Bytes, page-aligned; 0 deletes the slot. */
  readonly memorySize: number;
  /** The memory behind it; absent only when the slot is deleted. */
  readonly memory?: GuestMemory;
  /** Page-aligned offset into `memory`; 0 if not given. */
  readonly memoryOffset?: number;
}

/** `struct kvm_irqfd`. */
export interface Irqfd {
  /** What injects the interrupt when it is signalled. */
  readonly fd: EventFd;
  /** The line: without a routing table of one's own, GSI n is SPI n (INTID n + 32). */
  readonly gsi: number;
  /** {@link IrqfdFlag} bits. */
  readonly flags?: number;
  /** Signalled when the guest ends a level interrupt (IrqfdFlag.RESAMPLE). */
  readonly resampleFd?: EventFd;
}

/** `struct kvm_ioeventfd`. */
export interface Ioeventfd {
  /** What a matching write signals. */
  readonly fd: EventFd;
  /** Guest-physical address of the write. */
  readonly addr: number;
  /** 0 (any length), 1, 2, 4 or 8 bytes. */
  readonly len: number;
  /** The value that matches, with IoeventfdFlag.DATAMATCH. */
  readonly datamatch?: bigint;
  /** {@link IoeventfdFlag} bits. */
  readonly flags?: number;
}

/** `struct kvm_msi`. */
export interface Msi {
  readonly address: bigint;
  readonly data: number;
  /** KVM_MSI_VALID_DEVID with this requester id. */
  readonly devid?: number;
}

/** `struct kvm_irq_routing_entry`. */
export type IrqRoutingEntry =
  | {
      readonly gsi: number;
      readonly type: 'irqchip';
      readonly irqchip: number;
      readonly pin: number;
      readonly flags?: number;
    }
  | ({ readonly gsi: number; readonly type: 'msi' } & Msi);

/** `struct kvm_coalesced_mmio`: a write that did not exit. */
export interface CoalescedMmio {
  readonly physAddr: number;
  /** Bytes: 1, 2, 4 or 8. */
  readonly len: number;
  /** The value, little-endian, in `len` bytes. */
  readonly data: Uint8Array;
}

/** A page that a vCPU has dirtied: `struct kvm_dirty_gfn`. */
export interface DirtyPage {
  readonly slot: number;
  /** Pages from the slot's first. */
  readonly offset: number;
}

/** SET, GET and HAS_DEVICE_ATTR, which VM, vCPU and device fds share. */
export interface DeviceAttrs {
  /**
   * KVM_HAS_DEVICE_ATTR.
   * @returns whether the attribute is there (errno ENXIO is `false`)
   */
  hasDeviceAttr(group: number, attr: number | bigint): boolean;
  /** KVM_SET_DEVICE_ATTR: `value` is the payload at `kvm_device_attr.addr`; integers take the size that the attribute has. @throws KvmError ENXIO no such attribute, and what the attribute says */
  setDeviceAttr(group: number, attr: number | bigint, value?: number | bigint | Uint8Array): void;
  /** KVM_GET_DEVICE_ATTR. For attributes whose payload carries input (VgicAddr.V3_REDIST_REGION), `value` is that input. */
  getDeviceAttr(group: number, attr: number | bigint, value?: number | bigint): bigint;
}

/** A VM fd. */
export interface Vm extends Closable, DeviceAttrs {
  /** KVM_CHECK_EXTENSION on the VM fd: 0 where the capability is absent. */
  checkExtension(cap: number): number;
  /** KVM_ENABLE_CAP. @throws KvmError EINVAL unknown capability, flags not 0, or too late */
  enableCap(cap: number, args?: readonly (number | bigint)[], flags?: number): void;
  /**
   * Memory for `setUserMemoryRegion`.
   * @param size bytes, a multiple of the page size
   * @throws KvmError ENOMEM, with huge pages also where too few are set aside; EINVAL, also for huge pages of a size that is not there
   */
  createMemory(size: number, options?: MemoryOptions): GuestMemory;
  /**
   * KVM_SET_USER_MEMORY_REGION: makes, moves, changes or deletes a slot.
   * @throws KvmError EINVAL alignment, size, flags, slot, resize or delete of an absent slot; EEXIST overlap; EFAULT beyond the IPA size
   */
  setUserMemoryRegion(region: UserMemoryRegion): void;
  /**
   * KVM_CREATE_VCPU.
   * @throws KvmError EEXIST the id is taken; EINVAL beyond KVM_CAP_MAX_VCPU_ID; EBUSY after the vGIC was initialised
   */
  createVcpu(id: number): Vcpu;
  /** KVM_CREATE_DEVICE. @throws KvmError ENODEV unknown type; EEXIST a second vGIC; EBUSY a vCPU ran */
  createDevice(type: number): Device;
  /** KVM_CREATE_DEVICE with KVM_CREATE_DEVICE_TEST. */
  testDevice(type: number): boolean;
  /** KVM_ARM_PREFERRED_TARGET: what to give `Vcpu.init`. */
  getPreferredTarget(): { readonly target: number; readonly features: number };
  /** KVM_CREATE_IRQCHIP: GICv2 hosts only. @throws KvmError ENODEV, EEXIST */
  createIrqchip(): void;
  /** KVM_IRQ_LINE. @param irq `type << 24 | vcpu << 16 | number`, type {@link IrqType} @throws KvmError ENXIO, EINVAL */
  irqLine(irq: number, level: boolean): void;
  /** KVM_SET_GSI_ROUTING: replaces the table that irqfds use. @throws KvmError EINVAL, ENOMEM */
  setGsiRouting(entries: readonly IrqRoutingEntry[]): void;
  /** KVM_SIGNAL_MSI. @returns whether it was delivered @throws KvmError EINVAL, ENODEV */
  signalMsi(msi: Msi): boolean;
  /** KVM_IRQFD. @throws KvmError EAGAIN before the vGIC is initialised; EBUSY the eventfd has an irqfd; EINVAL */
  irqfd(irqfd: Irqfd): void;
  /** KVM_IOEVENTFD. @throws KvmError EEXIST the same one is there; EINVAL length or flags; ENOENT nothing to deassign */
  ioeventfd(ioeventfd: Ioeventfd): void;
  /**
   * KVM_REGISTER_COALESCED_MMIO: writes to the zone are kept, as long as there is room, instead of being exits.
   * @throws KvmError ENOSPC too many zones
   */
  registerCoalescedMmio(addr: number, size: number): void;
  /** KVM_UNREGISTER_COALESCED_MMIO: of every zone that has all of the range. */
  unregisterCoalescedMmio(addr: number, size: number): void;
  /**
   * Takes the writes that are in the ring of coalesced MMIO (`struct kvm_coalesced_mmio_ring`), the oldest first. To be called
   * before an MMIO exit is answered: what is in the ring came before it.
   */
  takeCoalescedMmio(): readonly CoalescedMmio[];
  /** KVM_GET_DIRTY_LOG: one bit a page of the slot. @throws KvmError ENOENT the slot does not log; EINVAL */
  getDirtyLog(slot: number): Uint8Array;
  /** KVM_CLEAR_DIRTY_LOG. @param firstPage a multiple of 64 @throws KvmError EINVAL, ENOENT */
  clearDirtyLog(slot: number, firstPage: number, numPages: number, bitmap: Uint8Array): void;
  /** KVM_RESET_DIRTY_RINGS: pages that {@link Vcpu.collectDirtyPages} gave are tracked again. @returns how many @throws KvmError EINVAL no dirty rings */
  resetDirtyRings(): number;
  /** KVM_ARM_SET_COUNTER_OFFSET. @throws KvmError EINVAL, EBUSY */
  setCounterOffset(offset: bigint): void;
  /** KVM_ARM_GET_REG_WRITABLE_MASKS, range 0: 192 masks, by op1 (0, 1, 3), CRm 0..7 and op2 of the op0=3, CRn=0 space. */
  getRegWritableMasks(): BigUint64Array;
  /** KVM_ARM_SET_DEVICE_ADDR (deprecated, GICv2). */
  setDeviceAddr(id: bigint, addr: number): void;
  /** KVM_ARM_MTE_COPY_TAGS. @returns bytes done @throws KvmError EINVAL */
  mteCopyTags(guestIpa: number, length: number, tags: Uint8Array, fromGuest: boolean): number;
  /** KVM_CREATE_GUEST_MEMFD. @param flags 1 MMAP, 2 INIT_SHARED @throws KvmError EINVAL */
  createGuestMemfd(size: number, flags: number): GuestMemory;
  /** KVM_GET_STATS_FD, read: name to values. */
  readStats(): ReadonlyMap<string, readonly bigint[]>;
  /** Called when a vCPU that `run()` returned idle has something to do (backends whose vCPUs run in turn on one thread). */
  onRunnable(listener: ((vcpu: Vcpu) => void) | undefined): void;
  /**
   * Answers MMIO inside `run()`, so that an access is no exit: only on backends whose vCPUs run in turn on the caller's thread,
   * others return the exit all the same and never call the listener. What it leaves in `exit.data` completes a read. It may do
   * what may be done between two `run()`s, but run no vCPU; `kick()` makes the `run()` return behind the access. An error that it
   * throws leaves `run()`, and the access stays the one that the next `run()` completes.
   */
  onMmio(listener: MmioListener | undefined): void;
}

/** Answers an MMIO access of a vCPU inside its `run()` ({@link Vm.onMmio}). The exit is used again for the next. */
export type MmioListener = (vcpu: Vcpu, exit: MmioExit) => void;

/** `struct kvm_vcpu_events`. */
export interface VcpuEvents {
  /** An SError is pending. */
  readonly serrorPending: boolean;
  /** It has the syndrome `serrorEsr` (KVM_CAP_ARM_INJECT_SERROR_ESR). */
  readonly serrorHasEsr: boolean;
  /** ISS of the SError, 25 bits. */
  readonly serrorEsr: bigint;
  /** Only set: the guest takes a synchronous external abort for the access of the last exit. */
  readonly extDabtPending: boolean;
}

/** `struct kvm_guest_debug`. */
export interface GuestDebugControl {
  /** {@link GuestDebug} bits. */
  readonly control: number;
  readonly bcr?: readonly bigint[];
  readonly bvr?: readonly bigint[];
  readonly wcr?: readonly bigint[];
  readonly wvr?: readonly bigint[];
}

/** What a vCPU on a thread of its own tells ({@link Vcpu.start}), from the event loop of the thread that started it. */
export interface VcpuListener {
  /** An exit. The vCPU waits until this returns, and then runs on, unless it was stopped meanwhile. */
  exit(exit: VcpuExit): void;
  /** KVM_RUN failed, and the vCPU is stopped. */
  failed(error: KvmError): void;
}

/** A vCPU fd. */
export interface Vcpu extends Closable, DeviceAttrs {
  /** As given to `createVcpu`. */
  readonly id: number;
  /**
   * KVM_ARM_VCPU_INIT: chooses target and features, resets the vCPU. May be called again with the same features.
   * @param features {@link VcpuFeature} bits as a mask
   * @throws KvmError EINVAL unknown target, unsupported or changed features; ENOENT a feature the kernel has not heard of
   */
  init(target: number, features: number): void;
  /** KVM_ARM_VCPU_FINALIZE. @throws KvmError EPERM twice, ENOEXEC before `init`, EINVAL */
  finalize(feature: number): void;
  /**
   * KVM_RUN: enters the guest until its next exit.
   * @param quantumMs returns `intr` after about this many milliseconds (of the VM's clock), if nothing else ended it; no limit if not given
   * @throws KvmError ENOEXEC before `init`; EPERM not finalised; ENOSYS an abort without syndrome; EIO a dead VM; EBUSY, ENXIO the vGIC is not ready (and the VM is dead)
   */
  run(quantumMs?: number): VcpuExit;
  /** Ends a `run()` in progress, or the next one, with `intr`. Safe from any thread that has the vCPU. */
  kick(): void;
  /**
   * Runs the vCPU on a thread of its own, one `run()` after the other, until `stop()`: for backends whose `run()` blocks the
   * thread, also while the guest waits in WFI. A backend that has no threads has neither of the two. Until it is stopped,
   * other calls on the vCPU, except `kick()`, `immediateExit` and `readStats()`, are EBUSY unless they come from a listener
   * of its own exit. Running does not keep the process alive.
   * @throws KvmError EBUSY it is started
   */
  start?(listener: VcpuListener): void;
  /** When it returns, the vCPU is not in the guest, and the listener is forgotten. An exit not told of yet is told after the next `start()`. */
  stop?(): void;
  /**
   * While the vCPU is started, answers the guest's reads of the register at `address`, guest-physical, with the low bytes of `value` (32 bits)
   * instead of telling of an exit, until it is told another value or `undefined`. One register at a time. For a register that a
   * guest polls and that changes only when its VMM knows it. Not on backends that have no threads.
   * @throws KvmError EINVAL not a whole number
   */
  answerReads?(address: number, value: number | undefined): void;
  /** `kvm_run.immediate_exit`: while set, `run()` only completes what the last exit left over and returns `intr`. */
  immediateExit: boolean;
  /** KVM_SET_SIGNAL_MASK: the signals blocked in KVM_RUN, as a 64-bit set; `undefined` for none of its own. */
  setSignalMask(mask: bigint | undefined): void;
  /** KVM_GET_REG_LIST. @throws KvmError ENOEXEC before `init`; EPERM not finalised */
  getRegList(): bigint[];
  /** KVM_GET_ONE_REG: the register's value, unsigned, as wide as the id says. @throws KvmError ENOENT, EPERM, ENOEXEC */
  getOneReg(id: bigint): bigint;
  /** KVM_SET_ONE_REG. @throws KvmError ENOENT, EINVAL a value the register can't take, EBUSY after the first run, EPERM, ENOEXEC */
  setOneReg(id: bigint, value: bigint): void;
  /** KVM_GET_MP_STATE. */
  getMpState(): MpState;
  /** KVM_SET_MP_STATE. @throws KvmError EINVAL */
  setMpState(state: MpState): void;
  /** KVM_GET_VCPU_EVENTS. */
  getVcpuEvents(): VcpuEvents;
  /** KVM_SET_VCPU_EVENTS. @throws KvmError EINVAL */
  setVcpuEvents(events: Partial<VcpuEvents>): void;
  /**
   * Takes what is in the vCPU's dirty ring (KVM_CAP_DIRTY_LOG_RING_ACQ_REL), the oldest first. The room is free, and the vCPU of a
   * `dirty_ring_full` exit runs on, after `Vm.resetDirtyRings`. Nothing where there is no ring.
   */
  collectDirtyPages(): DirtyPage[];
  /**
   * KVM_SET_GUEST_DEBUG: while KVM_GUESTDBG_ENABLE is set, the guest's own breakpoints, watchpoints and single step rest, and
   * every debug exception is an exit `debug`: BRK whether USE_SW_BP is set or not, each instruction with SINGLESTEP, what the
   * registers say with USE_HW (KVM_CAP_GUEST_DEBUG_HW_BPS and _WPS say how many count). After a breakpoint PC is at it: to go
   * on, step with it taken away. Without ENABLE the guest debugs itself again (Documentation/virt/kvm/api.rst 4.87).
   * @throws KvmError EINVAL bits of `control` that have no meaning; more than 16 registers of a kind
   */
  setGuestDebug(debug: GuestDebugControl): void;
  /** `kvm_run.s.regs.device_irq_level` (KVM_CAP_ARM_USER_IRQ): bit 0 virtual timer, bit 1 physical timer, bit 2 PMU. */
  readonly deviceIrqLevel: number;
  /** KVM_GET_STATS_FD, read. */
  readStats(): ReadonlyMap<string, readonly bigint[]>;
}

/** A device fd (KVM_CREATE_DEVICE). */
export interface Device extends Closable, DeviceAttrs {
  /** {@link DeviceType}, as given to `createDevice`. */
  readonly type: number;
}
