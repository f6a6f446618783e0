import {
  Cap,
  type CoalescedMmio,
  type Device,
  DeviceType,
  type GuestMemory,
  type Ioeventfd,
  type Irqfd,
  type IrqRoutingEntry,
  KvmError,
  type MemoryOptions,
  type MmioListener,
  type Msi,
  SmcccAttr,
  sysregIndex,
  TARGET_GENERIC_V8,
  type UserMemoryRegion,
  type Vcpu,
  VgicAddr,
  type Vm,
  VmGroup,
} from '../../kvm/index.js';
import type { Machine } from '../cpu/cpu.js';
import { createTimerVmData, type TimerVmData } from './arch-timer.js';
import { capability, MAX_VCPUS, MAX_VCPUS_GICV2 } from './capabilities.js';
import type { Clock } from './clock.js';
import { CoalescedZones } from './coalesced-mmio.js';
import { enableCap, MANUAL_PROTECT_ENABLE } from './enable-cap.js';
import { GuestAccess } from './guest-access.js';
import { GUEST_MEMFD_FLAGS, SoftGuestMemory } from './guest-memory.js';
import { HALT_POLL_NS } from './halt.js';
import type { PoweredVm, SoftHostPower } from './host-power.js';
import { readWritableMasks } from './id-regs.js';
import { IoBus } from './io-bus.js';
import { setIoeventfd } from './ioeventfd.js';
import { setIrqLine } from './irq-line.js';
import { IrqRouting } from './irq-routing.js';
import { Irqfds } from './irqfd.js';
import { Memslots, NR_MEMSLOTS, PAGE_SIZE } from './memslots.js';
import { PmuVmData } from './pmu.js';
import { createRandom } from './random.js';
import { FW_BITMAP_RESET } from './smccc.js';
import { SmcccFilter } from './smccc-filter.js';
import { readVmStats } from './stats.js';
import { SoftVcpu } from './vcpu.js';
import { MPIDR_AFFINITY } from './vcpu-init.js';
import { VgicV2Device } from './vgic/device-v2.js';
import { VgicV3Device } from './vgic/device-v3.js';
import { Its } from './vgic/its.js';
import { ItsDeviceFd } from './vgic/its-device.js';
import { Lpis } from './vgic/lpis.js';
import { Vgic } from './vgic/vgic.js';

const CREATABLE: readonly number[] = [DeviceType.ARM_VGIC_V2, DeviceType.ARM_VGIC_V3, DeviceType.ARM_VGIC_ITS];

const ID_AA64PFR0 = sysregIndex(3, 0, 0, 4, 0);
const PFR0_GIC = 0xfn << 24n;

const MSI_ERRORS = {
  ENODEV: 'there is no ITS',
  EINVAL: 'an MSI has a devid and the address of an ITS',
  EBUSY: "the ITS or the target's LPIs are off",
} as const;

/** A VM: `struct kvm`. It lives until everything that was made of it is closed. */
export class SoftVm implements Vm, PoweredVm {
  readonly machine: Machine;
  readonly clock: Clock;
  readonly power: SoftHostPower;
  readonly timers: TimerVmData;
  readonly bus = new IoBus();
  readonly memslots: Memslots;
  readonly guestMemory: GuestAccess;
  readonly coalesced = new CoalescedZones();
  readonly pmu = new PmuVmData();
  readonly smcccFilter = new SmcccFilter();
  /** KVM_REG_ARM_*_BMAP. */
  readonly fwBitmaps: bigint[] = [...FW_BITMAP_RESET];
  /** KVM_REG_ARM_PSCI_VERSION, where it was set. */
  psciVersion: bigint | undefined;
  /** The features that all vCPUs share, from the first KVM_ARM_VCPU_INIT. */
  vcpuFeatures: number | undefined;
  /** A vCPU ran: the configuration is fixed. */
  hasRun = false;
  vgic: Vgic | undefined;
  readonly lpis: Lpis;
  /** The vCPU that is inside `run()`. */
  current: SoftVcpu | undefined;
  /** KVM_CAP_ARM_NISV_TO_USER, KVM_CAP_ARM_SYSTEM_SUSPEND, KVM_CAP_ARM_WRITABLE_IMP_ID_REGS. */
  nisvToUser = false;
  systemSuspend = false;
  implementationIds = false;
  /** The most that a vCPU polls when it waits, in nanoseconds (KVM_CAP_HALT_POLL). */
  maxHaltPollNs = HALT_POLL_NS;
  /** Bytes of each vCPU's dirty ring (KVM_CAP_DIRTY_LOG_RING_ACQ_REL); 0 without. */
  dirtyRingSize = 0;
  /** What the processor had in the ID registers that were changed. */
  readonly idRegisterLimits = new Map<number, bigint>();
  /** 64 random bits for the guest; always the same ones on a virtual clock. */
  readonly random64: () => bigint;

  /** Bytes of guest-physical address space. */
  readonly ipaSize: number;
  readonly #its: Its[] = [];
  /** The first vCPU is still to come, and its ID_AA64PFR0_EL1.GIC to be hidden. */
  #hidesGic = false;
  readonly #pio = new IoBus();
  readonly #routing = new IrqRouting();
  readonly #irqfds: Irqfds;
  readonly #vcpus = new Map<number, SoftVcpu>();
  readonly #idRegisters = new Map<number, bigint>();
  #listener: ((vcpu: Vcpu) => void) | undefined;
  /** Answers MMIO in place of exits. */
  mmioListener: MmioListener | undefined;
  #dead = false;
  #closed = false;
  /** Open handles: the VM's own, its vCPUs', devices' and memories', and a run in progress. */
  #holders = 1;

  /** @param ipaBits bits of guest-physical address */
  constructor(machine: Machine, clock: Clock, ipaBits: number, power: SoftHostPower) {
    this.machine = machine;
    this.clock = clock;
    this.power = power;
    this.timers = createTimerVmData(clock);
    this.ipaSize = 2 ** ipaBits;
    this.memslots = new Memslots(machine, this.ipaSize, (slot, page) => this.current?.pageDirtied(slot, page) ?? false);
    this.guestMemory = new GuestAccess(this.memslots);
    this.lpis = new Lpis(this.guestMemory, () => this.vgic);
    this.#irqfds = new Irqfds(
      this.#routing,
      () => this.vgic,
      (msi) => void this.#sendMsi(msi),
    );
    this.random64 = createRandom(clock.kind);
    power.add(this);
  }

  // --- Life ---------------------------------------------------------------------------------------------------------

  get closed(): boolean {
    return this.#closed;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#listener = undefined;
    this.mmioListener = undefined;
    this.release();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  hold(): void {
    this.#holders++;
  }

  /** Gives up a hold; the last one ends the machine. */
  release(): void {
    if (--this.#holders > 0) return;
    this.power.remove(this);
    this.#irqfds.close();
    for (const vcpu of this.#vcpus.values()) this.machine.destroyCpu(vcpu.cpu);
    this.memslots.close();
    this.machine.close();
  }

  /** kvm_vm_dead(): from now on every call is EIO. */
  die(): void {
    this.#dead = true;
  }

  checkAlive(syscall: string): void {
    if (this.#dead) throw new KvmError('EIO', syscall, 'the VM is dead: its first run failed');
  }

  #check(syscall: string): void {
    if (this.#closed) throw new KvmError('EBADF', syscall, 'the VM is closed');
    this.checkAlive(syscall);
  }

  // --- Running ------------------------------------------------------------------------------------------------------

  enter(vcpu: SoftVcpu): void {
    this.#holders++;
    this.current = vcpu;
    this.clock.enter(vcpu.cpu);
  }

  leave(): void {
    this.clock.leave();
    this.current = undefined;
    this.release();
  }

  get running(): boolean {
    return this.current !== undefined;
  }

  hostLeaves(): void {
    for (const vcpu of this.#vcpus.values()) vcpu.hostLeaves();
  }

  hostReturns(): void {
    for (const vcpu of this.#vcpus.values()) vcpu.hostReturns();
  }

  vcpuList(): Iterable<SoftVcpu> {
    return this.#vcpus.values();
  }

  vcpuOf(id: number): SoftVcpu | undefined {
    return this.#vcpus.get(id);
  }

  /** The vCPU with this MPIDR affinity. */
  vcpuAt(affinity: bigint): SoftVcpu | undefined {
    for (const vcpu of this.#vcpus.values()) if (((vcpu.mpidr ^ affinity) & MPIDR_AFFINITY) === 0n) return vcpu;
    return undefined;
  }

  othersIdle(self: SoftVcpu): boolean {
    for (const vcpu of this.#vcpus.values()) if (vcpu !== self && !vcpu.isIdle) return false;
    return true;
  }

  /** The next event of any vCPU's timers. */
  nextDeadlineNs(now: number): number {
    let next = Number.POSITIVE_INFINITY;
    for (const vcpu of this.#vcpus.values()) next = Math.min(next, vcpu.timer.nextDeadlineNs(now));
    return next;
  }

  updateTimers(): void {
    for (const vcpu of this.#vcpus.values()) vcpu.timer.update();
  }

  rebaseTimers(): void {
    for (const vcpu of this.#vcpus.values()) vcpu.timer.rebase();
  }

  /**
   * The listener is called at once, perhaps inside another vCPU's `run()` or the call that injected an interrupt: it may
   * plan a `run()`, and not make one.
   */
  onRunnable(listener: ((vcpu: Vcpu) => void) | undefined): void {
    this.#listener = listener;
  }

  onMmio(listener: MmioListener | undefined): void {
    this.mmioListener = listener;
  }

  notifyRunnable(vcpu: SoftVcpu): void {
    if (!vcpu.closed) this.#listener?.(vcpu);
  }

  // --- Capabilities -------------------------------------------------------------------------------------------------

  checkExtension(cap: number): number {
    this.#check('KVM_CHECK_EXTENSION');
    if (cap === Cap.MAX_VCPUS) return this.#maxVcpus;
    if (cap === Cap.MSI_DEVID) return this.lpis.hasIts ? 1 : 0;
    return capability(cap);
  }

  enableCap(cap: number, args: readonly (number | bigint)[] = [], flags = 0): void {
    const syscall = 'KVM_ENABLE_CAP';
    this.#check(syscall);
    if (flags !== 0) throw new KvmError('EINVAL', syscall, 'flags are 0');
    enableCap(this, cap, args[0] ?? 0);
  }

  get hasVcpus(): boolean {
    return this.#vcpus.size > 0;
  }

  // --- Memory -------------------------------------------------------------------------------------------------------

  createMemory(size: number, { hugePageSize }: MemoryOptions = {}): GuestMemory {
    this.#check('mmap');
    if (hugePageSize !== undefined) {
      throw new KvmError('EINVAL', 'mmap', "the software KVM's memory is WebAssembly's, which has no huge pages");
    }
    return this.#allocate(size, 'mmap');
  }

  #allocate(size: number, syscall: string, memfdFlags?: number): GuestMemory {
    if (!Number.isSafeInteger(size) || size <= 0 || size % PAGE_SIZE !== 0) {
      throw new KvmError('EINVAL', syscall, `${size} bytes are not a multiple of ${PAGE_SIZE}`);
    }
    const memory = this.machine.allocate(size);
    if (memory === undefined) {
      throw new KvmError('ENOMEM', syscall, `${size} bytes asked for, ${this.machine.available} are left`);
    }
    this.hold();
    return new SoftGuestMemory(this.machine, memory, () => this.release(), memfdFlags);
  }

  setUserMemoryRegion(region: UserMemoryRegion): void {
    this.#check('KVM_SET_USER_MEMORY_REGION');
    this.memslots.set(region);
  }

  /** Memory of the machine like any other; what the flags say is who can see it. */
  createGuestMemfd(size: number, flags: number): GuestMemory {
    const syscall = 'KVM_CREATE_GUEST_MEMFD';
    this.#check(syscall);
    if ((flags & ~GUEST_MEMFD_FLAGS) !== 0) throw new KvmError('EINVAL', syscall, `flags ${flags} are 0 to 3`);
    return this.#allocate(size, syscall, flags);
  }

  getDirtyLog(slot: number): Uint8Array {
    const manual = (this.memslots.manualProtect & MANUAL_PROTECT_ENABLE) !== 0;
    const syscall = 'KVM_GET_DIRTY_LOG';
    this.#checkDirtyLog(slot, syscall);
    return this.#dirtyLog(slot, syscall).get(manual);
  }

  clearDirtyLog(slot: number, firstPage: number, numPages: number, bitmap: Uint8Array): void {
    const syscall = 'KVM_CLEAR_DIRTY_LOG';
    this.#checkDirtyLog(slot, syscall);
    if (firstPage % 64 !== 0) throw new KvmError('EINVAL', syscall, `page ${firstPage} is not a multiple of 64`);
    this.#dirtyLog(slot, syscall).clear(firstPage, numPages, bitmap);
  }

  #checkDirtyLog(slot: number, syscall: string): void {
    this.#check(syscall);
    if (!this.memslots.hasBitmaps) throw new KvmError('ENXIO', syscall, 'the VM has dirty rings and no bitmaps');
    if (!Number.isInteger(slot) || slot < 0 || slot >= NR_MEMSLOTS) {
      throw new KvmError('EINVAL', syscall, `slot ${slot} is not below ${NR_MEMSLOTS}`);
    }
  }

  #dirtyLog(slot: number, syscall: string) {
    const log = this.memslots.get(slot)?.log;
    if (log === undefined) throw new KvmError('ENOENT', syscall, `slot ${slot} does not log`);
    return log;
  }

  resetDirtyRings(): number {
    const syscall = 'KVM_RESET_DIRTY_RINGS';
    this.#check(syscall);
    if (this.dirtyRingSize === 0) throw new KvmError('EINVAL', syscall, 'the VM has no dirty rings');
    let count = 0;
    for (const vcpu of this.#vcpus.values()) {
      const pages = vcpu.dirtyRing?.reset() ?? [];
      this.memslots.protectPages(pages);
      count += pages.length;
    }
    return count;
  }

  mteCopyTags(): number {
    this.#check('KVM_ARM_MTE_COPY_TAGS');
    throw new KvmError('EINVAL', 'KVM_ARM_MTE_COPY_TAGS', 'KVM_CAP_ARM_MTE is 0');
  }

  // --- vCPUs and devices --------------------------------------------------------------------------------------------

  createVcpu(id: number): Vcpu {
    const syscall = 'KVM_CREATE_VCPU';
    this.#check(syscall);
    if (!Number.isInteger(id) || id < 0 || id >= MAX_VCPUS) {
      throw new KvmError('EINVAL', syscall, `id ${id} is not below ${MAX_VCPUS}`);
    }
    if (this.vgic?.initialized === true) throw new KvmError('EBUSY', syscall, 'the vGIC is initialised');
    if (id >= this.#maxVcpus) {
      throw new KvmError('EINVAL', syscall, `with a GICv2 id ${id} is not below ${this.#maxVcpus}`);
    }
    if (this.#vcpus.has(id)) throw new KvmError('EEXIST', syscall, `vCPU ${id} is there`);
    let vcpu: SoftVcpu;
    try {
      vcpu = new SoftVcpu(this, id);
    } catch (cause) {
      throw new KvmError('ENOMEM', syscall, 'the machine has no room for another vCPU', { cause });
    }
    for (const [index, value] of this.#idRegisters) vcpu.cpu.setSysreg(index, value);
    this.#vcpus.set(id, vcpu);
    if (this.#hidesGic) {
      this.#hidesGic = false;
      this.hideGicRegisters();
    }
    this.hold();
    return vcpu;
  }

  /** Sets an ID register of every vCPU, of those still to be made too. */
  setIdRegister(index: number, value: bigint): void {
    this.#idRegisters.set(index, value);
    for (const vcpu of this.#vcpus.values()) vcpu.cpu.setSysreg(index, value);
  }

  getPreferredTarget(): { readonly target: number; readonly features: number } {
    this.#check('KVM_ARM_PREFERRED_TARGET');
    return { target: TARGET_GENERIC_V8, features: 0 };
  }

  createDevice(type: number): Device {
    const syscall = 'KVM_CREATE_DEVICE';
    this.#check(syscall);
    if (type === DeviceType.ARM_VGIC_ITS) {
      const its = new Its(this.lpis, () => this.vgic);
      this.#its.push(its);
      this.hold();
      return new ItsDeviceFd(its, this);
    }
    if (type === DeviceType.ARM_VGIC_V2) return new VgicV2Device(this.#createVgic(2, syscall), this);
    if (type === DeviceType.ARM_VGIC_V3) return new VgicV3Device(this.#createVgic(3, syscall), this);
    throw new KvmError('ENODEV', syscall, `no device of type ${type}`);
  }

  /** kvm_vgic_create(). The VM is held for the device. */
  #createVgic(model: 2 | 3, syscall: string): Vgic {
    if (this.vgic !== undefined) throw new KvmError('EEXIST', syscall, 'the VM has a vGIC');
    if (this.hasRun) throw new KvmError('EBUSY', syscall, 'a vCPU ran');
    if (model === 2 && this.#vcpus.size > MAX_VCPUS_GICV2) {
      throw new KvmError('E2BIG', syscall, `with a GICv2 a VM has at most ${MAX_VCPUS_GICV2} vCPUs`);
    }
    const vgic = new Vgic({
      model,
      ipaSize: this.ipaSize,
      vcpus: () => this.#vcpus.values(),
      current: () => this.current,
      lpis: this.lpis,
    });
    vgic.onLevelEnded = (spi) => this.#irqfds.levelEnded(spi);
    this.vgic = vgic;
    if (model === 2) this.hideGicRegisters();
    this.hold();
    return vgic;
  }

  get #maxVcpus(): number {
    return this.vgic?.model === 2 ? MAX_VCPUS_GICV2 : MAX_VCPUS;
  }

  /** ID_AA64PFR0_EL1.GIC is 0 where the vGIC is not a GICv3. */
  hideGicRegisters(): void {
    const value = this.#idRegisters.get(ID_AA64PFR0) ?? this.#vcpus.values().next().value?.cpu.getSysreg(ID_AA64PFR0);
    if (value === undefined) this.#hidesGic = true;
    else this.setIdRegister(ID_AA64PFR0, value & ~PFR0_GIC);
  }

  testDevice(type: number): boolean {
    this.#check('KVM_CREATE_DEVICE');
    return CREATABLE.includes(type);
  }

  createIrqchip(): void {
    this.#check('KVM_CREATE_IRQCHIP');
    this.#createVgic(2, 'KVM_CREATE_IRQCHIP');
    // There is no fd to close: the vGIC is the VM's alone.
    this.release();
  }

  setDeviceAddr(id: bigint, addr: number): void {
    const syscall = 'KVM_ARM_SET_DEVICE_ADDR';
    this.#check(syscall);
    const device = Number((id >> 16n) & 0xffffn);
    const type = Number(id & 0xffffn);
    if (this.vgic?.model !== 2 || device !== 0 || type > VgicAddr.V2_CPU) {
      throw new KvmError('ENODEV', syscall, `there is no device 0x${id.toString(16)}`);
    }
    if (!Number.isSafeInteger(addr) || addr < 0) throw new KvmError('E2BIG', syscall, `${addr} is no address`);
    if (type === VgicAddr.V2_DIST) this.vgic.setDistributorBase(BigInt(addr));
    else this.vgic.setCpuBase(BigInt(addr));
  }

  // --- Interrupts ---------------------------------------------------------------------------------------------------

  irqLine(irq: number, level: boolean): void {
    this.#check('KVM_IRQ_LINE');
    setIrqLine(this, irq, level);
  }

  setGsiRouting(entries: readonly IrqRoutingEntry[]): void {
    this.#check('KVM_SET_GSI_ROUTING');
    this.#routing.set(entries);
  }

  signalMsi(msi: Msi): boolean {
    this.#check('KVM_SIGNAL_MSI');
    if (this.vgic === undefined) throw new KvmError('EINVAL', 'KVM_SIGNAL_MSI', 'there is no vGIC');
    const result = this.#sendMsi(msi);
    if (typeof result === 'boolean') return result;
    throw new KvmError(result, 'KVM_SIGNAL_MSI', MSI_ERRORS[result]);
  }

  /** @returns whether the guest has mapped the event, or the errno (kernel: vgic_its_inject_msi) */
  #sendMsi({ address, data, devid }: Msi): boolean | keyof typeof MSI_ERRORS {
    if (this.vgic?.hasIts !== true) return 'ENODEV';
    const its = this.#its.find((candidate) => candidate.answers(address));
    if (devid === undefined || its === undefined) return 'EINVAL';
    return its.trigger(devid >>> 0, data >>> 0);
  }

  /** Goes on with what guests have asked of their ITSs. @returns whether there still is something left */
  proceedCommands(): boolean {
    for (const its of this.#its) its.proceed();
    return this.#its.some((its) => its.isBusy);
  }

  finishCommands(): void {
    for (const its of this.#its) its.finish();
  }

  irqfd(irqfd: Irqfd): void {
    this.#check('KVM_IRQFD');
    this.#irqfds.set(irqfd);
  }

  ioeventfd(ioeventfd: Ioeventfd): void {
    this.#check('KVM_IOEVENTFD');
    setIoeventfd(ioeventfd, this.bus, this.#pio);
  }

  registerCoalescedMmio(addr: number, size: number): void {
    this.#check('KVM_REGISTER_COALESCED_MMIO');
    this.coalesced.add(addr, size);
  }

  unregisterCoalescedMmio(addr: number, size: number): void {
    this.#check('KVM_UNREGISTER_COALESCED_MMIO');
    this.coalesced.remove(addr, size);
  }

  takeCoalescedMmio(): CoalescedMmio[] {
    this.#check('KVM_REGISTER_COALESCED_MMIO');
    return this.coalesced.take();
  }

  // --- Registers and attributes of the VM ---------------------------------------------------------------------------

  setCounterOffset(offset: bigint): void {
    const syscall = 'KVM_ARM_SET_COUNTER_OFFSET';
    this.#check(syscall);
    if (this.running) throw new KvmError('EBUSY', syscall, 'a vCPU is running');
    if (BigInt.asUintN(64, offset) !== offset) throw new KvmError('EINVAL', syscall, 'the offset has 64 bits');
    this.timers.virtualOffset = offset;
    this.timers.physicalOffset = offset;
    this.timers.offsetIsSet = true;
    this.rebaseTimers();
  }

  getRegWritableMasks(): BigUint64Array {
    this.#check('KVM_ARM_GET_REG_WRITABLE_MASKS');
    return readWritableMasks();
  }

  hasDeviceAttr(group: number, attr: number | bigint): boolean {
    this.#check('KVM_HAS_DEVICE_ATTR');
    return group === VmGroup.SMCCC_CTRL && BigInt(attr) === BigInt(SmcccAttr.FILTER);
  }

  setDeviceAttr(group: number, attr: number | bigint, value?: number | bigint | Uint8Array): void {
    const syscall = 'KVM_SET_DEVICE_ATTR';
    if (!this.hasDeviceAttr(group, attr)) throw new KvmError('ENXIO', syscall, 'no such attribute');
    if (!(value instanceof Uint8Array)) {
      throw new KvmError('EFAULT', syscall, 'the value is a struct kvm_smccc_filter, as bytes');
    }
    this.smcccFilter.add(value, this.hasRun);
  }

  getDeviceAttr(): bigint {
    this.#check('KVM_GET_DEVICE_ATTR');
    throw new KvmError('ENXIO', 'KVM_GET_DEVICE_ATTR', 'a VM has no attribute that can be read');
  }

  readStats(): ReadonlyMap<string, readonly bigint[]> {
    this.#check('KVM_GET_STATS_FD');
    return readVmStats();
  }
}
