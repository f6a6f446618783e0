import {
  Cap,
  type CoalescedMmio,
  type Device,
  Errno,
  type GuestMemory,
  type Ioeventfd,
  type Irqfd,
  type IrqRoutingEntry,
  IrqRoutingType,
  KvmError,
  MemFlag,
  type MemoryOptions,
  type Msi,
  type UserMemoryRegion,
  type Vcpu,
  type Vm,
} from '../kvm/index.js';
import { getAttr, hasAttr, setAttr } from './attributes.js';
import { check, checkHandle, kvmError } from './call.js';
import { HostEventFd } from './eventfd.js';
import { HostMemory } from './memory.js';
import type { DeviceHandle, Native, VmHandle } from './native.js';
import { openStats, readStats } from './stats.js';
import { HostVcpu } from './vcpu.js';

/** `struct kvm_enable_cap.args`. */
const CAP_ARGS = 4;
/** KVM_MSI_VALID_DEVID, in `struct kvm_msi` and in a routing entry. */
const MSI_VALID_DEVID = 1;
/** `struct kvm_irq_routing_entry`: gsi, type, flags, pad, and a union of 32 bytes. */
const ROUTING_ENTRY_SIZE = 48;
/** KVM_ARM_FEATURE_ID_RANGE_SIZE. */
const REG_MASKS = 192;
/** `struct kvm_vcpu_init`. */
const VCPU_INIT_SIZE = 32;

/** A VM of the host's KVM. The kernel keeps it, closed, for as long as one of its vCPUs or devices is open. */
export class HostVm implements Vm {
  readonly #native: Native;
  readonly #handle: VmHandle;
  /** Of these the ring of coalesced MMIO can be seen. */
  readonly #vcpus = new Set<HostVcpu>();
  /** Bytes of each vCPU's. */
  #dirtyRingSize = 0;
  #closed = false;

  constructor(native: Native, handle: VmHandle) {
    this.#native = native;
    this.#handle = handle;
  }

  get closed(): boolean {
    return this.#closed;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#native.close(this.#handle);
  }

  [Symbol.dispose](): void {
    this.close();
  }

  checkExtension(cap: number): number {
    return check(this.#native.checkExtension(this.#handle, cap), 'KVM_CHECK_EXTENSION');
  }

  enableCap(cap: number, args: readonly (number | bigint)[] = [], flags = 0): void {
    const syscall = 'KVM_ENABLE_CAP';
    if (args.length > CAP_ARGS)
      throw new KvmError('EINVAL', syscall, `${args.length} arguments: there are ${CAP_ARGS}`);
    const [a, b, c, d] = [0, 1, 2, 3].map((i) => BigInt(args[i] ?? 0)) as [bigint, bigint, bigint, bigint];
    check(this.#native.enableCap(this.#handle, cap, flags, a, b, c, d), syscall, `capability ${cap}`);
    if (cap === Cap.DIRTY_LOG_RING_ACQ_REL || cap === Cap.DIRTY_LOG_RING) this.#dirtyRingSize = Number(args[0]);
  }

  /** Anonymous memory; with Node 20 at most 4 GiB. */
  createMemory(size: number, { hugePageSize }: MemoryOptions = {}): GuestMemory {
    this.#check('mmap');
    if (hugePageSize !== undefined) return HostMemory.createHuge(this.#native, size, hugePageSize);
    return HostMemory.create(this.#native, size);
  }

  createGuestMemfd(size: number, flags: number): GuestMemory {
    return HostMemory.createGuestMemfd(this.#native, this.#handle, size, flags);
  }

  setUserMemoryRegion(region: UserMemoryRegion): void {
    const { slot, flags = 0, guestPhysAddr, memorySize, memory, memoryOffset = 0 } = region;
    const syscall = (flags & MemFlag.GUEST_MEMFD) === 0 ? 'KVM_SET_USER_MEMORY_REGION' : 'KVM_SET_USER_MEMORY_REGION2';
    const handle = memory === undefined ? undefined : HostMemory.handleOf(memory, syscall);
    check(
      this.#native.setUserMemoryRegion(this.#handle, slot, flags, guestPhysAddr, memorySize, handle, memoryOffset),
      syscall,
      `slot ${slot}: ${memorySize} bytes at 0x${guestPhysAddr.toString(16)}`,
    );
  }

  createVcpu(id: number): Vcpu {
    const handle = checkHandle(this.#native.createVcpu(this.#handle, id), 'KVM_CREATE_VCPU', `id ${id}`);
    for (const vcpu of this.#vcpus) if (vcpu.closed) this.#vcpus.delete(vcpu);
    const vcpu = new HostVcpu(this.#native, handle, id, this.#dirtyRingSize);
    this.#vcpus.add(vcpu);
    return vcpu;
  }

  createDevice(type: number): Device {
    const syscall = 'KVM_CREATE_DEVICE';
    const handle = checkHandle(this.#native.createDevice(this.#handle, type, false), syscall, `type ${type}`);
    return new HostDevice(this.#native, handle, type);
  }

  testDevice(type: number): boolean {
    const result = this.#native.createDevice(this.#handle, type, true);
    if (result === -Errno.ENODEV) return false;
    check(result as number, 'KVM_CREATE_DEVICE', `type ${type}`);
    return true;
  }

  getPreferredTarget(): { readonly target: number; readonly features: number } {
    const bytes = new Uint8Array(VCPU_INIT_SIZE);
    check(this.#native.preferredTarget(this.#handle, bytes), 'KVM_ARM_PREFERRED_TARGET');
    const view = new DataView(bytes.buffer);
    return { target: view.getUint32(0, true), features: view.getUint32(4, true) };
  }

  createIrqchip(): void {
    check(this.#native.createIrqchip(this.#handle), 'KVM_CREATE_IRQCHIP');
  }

  irqLine(irq: number, level: boolean): void {
    const result = this.#native.irqLine(this.#handle, irq, level);
    if (result < 0) throw kvmError(result, 'KVM_IRQ_LINE', `irq 0x${irq.toString(16)}`);
  }

  setGsiRouting(entries: readonly IrqRoutingEntry[]): void {
    const view = new DataView(new ArrayBuffer(entries.length * ROUTING_ENTRY_SIZE));
    for (const [i, entry] of entries.entries()) writeRoutingEntry(view, i * ROUTING_ENTRY_SIZE, entry);
    check(this.#native.setGsiRouting(this.#handle, new Uint8Array(view.buffer)), 'KVM_SET_GSI_ROUTING');
  }

  signalMsi({ address, data, devid }: Msi): boolean {
    const flags = devid === undefined ? 0 : MSI_VALID_DEVID;
    return check(this.#native.signalMsi(this.#handle, address, data, flags, devid ?? 0), 'KVM_SIGNAL_MSI') > 0;
  }

  irqfd({ fd, gsi, flags = 0, resampleFd }: Irqfd): void {
    const syscall = 'KVM_IRQFD';
    const resample = resampleFd === undefined ? undefined : HostEventFd.handleOf(resampleFd, syscall);
    const result = this.#native.irqfd(this.#handle, HostEventFd.handleOf(fd, syscall), gsi, flags, resample);
    check(result, syscall, `gsi ${gsi}`);
  }

  ioeventfd({ fd, addr, len, datamatch = 0n, flags = 0 }: Ioeventfd): void {
    const syscall = 'KVM_IOEVENTFD';
    const result = this.#native.ioeventfd(this.#handle, HostEventFd.handleOf(fd, syscall), addr, len, flags, datamatch);
    check(result, syscall, `${len} bytes at 0x${addr.toString(16)}`);
  }

  registerCoalescedMmio(addr: number, size: number): void {
    check(this.#native.coalescedMmio(this.#handle, addr, size, true), 'KVM_REGISTER_COALESCED_MMIO');
  }

  unregisterCoalescedMmio(addr: number, size: number): void {
    check(this.#native.coalescedMmio(this.#handle, addr, size, false), 'KVM_UNREGISTER_COALESCED_MMIO');
  }

  takeCoalescedMmio(): readonly CoalescedMmio[] {
    this.#check('KVM_REGISTER_COALESCED_MMIO');
    for (const { coalescedRing } of this.#vcpus) if (coalescedRing !== undefined) return coalescedRing.take();
    return [];
  }

  getDirtyLog(slot: number): Uint8Array {
    const syscall = 'KVM_GET_DIRTY_LOG';
    const bitmap = new Uint8Array(check(this.#native.getDirtyLog(this.#handle, slot), syscall, `slot ${slot}`));
    check(this.#native.getDirtyLog(this.#handle, slot, bitmap), syscall, `slot ${slot}`);
    return bitmap;
  }

  clearDirtyLog(slot: number, firstPage: number, numPages: number, bitmap: Uint8Array): void {
    const result = this.#native.clearDirtyLog(this.#handle, slot, firstPage, numPages, bitmap);
    check(result, 'KVM_CLEAR_DIRTY_LOG', `slot ${slot}`);
  }

  /** Until there is nothing left: a signal, the timer's of a `run()` for one, makes the kernel stop in between (since Linux 6.16). */
  resetDirtyRings(): number {
    for (let total = 0; ; ) {
      const reset = check(this.#native.resetDirtyRings(this.#handle), 'KVM_RESET_DIRTY_RINGS');
      if (reset === 0) return total;
      total += reset;
    }
  }

  setCounterOffset(offset: bigint): void {
    check(this.#native.setCounterOffset(this.#handle, offset), 'KVM_ARM_SET_COUNTER_OFFSET');
  }

  getRegWritableMasks(): BigUint64Array {
    const masks = new BigUint64Array(REG_MASKS);
    const result = this.#native.getRegWritableMasks(this.#handle, new Uint8Array(masks.buffer));
    check(result, 'KVM_ARM_GET_REG_WRITABLE_MASKS');
    return masks;
  }

  setDeviceAddr(id: bigint, addr: number): void {
    check(this.#native.setDeviceAddr(this.#handle, id, addr), 'KVM_ARM_SET_DEVICE_ADDR');
  }

  mteCopyTags(guestIpa: number, length: number, tags: Uint8Array, fromGuest: boolean): number {
    const result = this.#native.mteCopyTags(this.#handle, guestIpa, length, tags, fromGuest);
    return check(result, 'KVM_ARM_MTE_COPY_TAGS');
  }

  readStats(): ReadonlyMap<string, readonly bigint[]> {
    const stats = openStats(this.#native, this.#handle);
    try {
      return readStats(this.#native, stats);
    } finally {
      this.#native.close(stats);
    }
  }

  /** Never called: a vCPU of the host waits inside its `run()`. */
  onRunnable(): void {
    this.#check('onRunnable');
  }

  /** Never called: an access is an exit here. */
  onMmio(): void {
    this.#check('onMmio');
  }

  hasDeviceAttr(group: number, attr: number | bigint): boolean {
    return hasAttr(this.#native, this.#handle, group, attr);
  }

  setDeviceAttr(group: number, attr: number | bigint, value?: number | bigint | Uint8Array): void {
    setAttr(this.#native, this.#handle, group, attr, value);
  }

  getDeviceAttr(group: number, attr: number | bigint, value?: number | bigint): bigint {
    return getAttr(this.#native, this.#handle, group, attr, value);
  }

  #check(syscall: string): void {
    if (this.#closed) throw new KvmError('EBADF', syscall, 'the VM is closed');
  }
}

/** A device fd. */
export class HostDevice implements Device {
  readonly type: number;
  readonly #native: Native;
  readonly #handle: DeviceHandle;
  #closed = false;

  constructor(native: Native, handle: DeviceHandle, type: number) {
    this.#native = native;
    this.#handle = handle;
    this.type = type;
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** The device stays the VM's. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#native.close(this.#handle);
  }

  [Symbol.dispose](): void {
    this.close();
  }

  hasDeviceAttr(group: number, attr: number | bigint): boolean {
    return hasAttr(this.#native, this.#handle, group, attr);
  }

  setDeviceAttr(group: number, attr: number | bigint, value?: number | bigint | Uint8Array): void {
    setAttr(this.#native, this.#handle, group, attr, value);
  }

  getDeviceAttr(group: number, attr: number | bigint, value?: number | bigint): bigint {
    return getAttr(this.#native, this.#handle, group, attr, value);
  }
}

function writeRoutingEntry(view: DataView, at: number, entry: IrqRoutingEntry): void {
  view.setUint32(at, entry.gsi, true);
  const union = at + 16;
  if (entry.type === 'irqchip') {
    view.setUint32(at + 4, IrqRoutingType.IRQCHIP, true);
    view.setUint32(at + 8, entry.flags ?? 0, true);
    view.setUint32(union, entry.irqchip, true);
    view.setUint32(union + 4, entry.pin, true);
    return;
  }
  view.setUint32(at + 4, IrqRoutingType.MSI, true);
  view.setUint32(at + 8, entry.devid === undefined ? 0 : MSI_VALID_DEVID, true);
  view.setBigUint64(union, entry.address, true);
  view.setUint32(union + 8, entry.data, true);
  view.setUint32(union + 12, entry.devid ?? 0, true);
}
