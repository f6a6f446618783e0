import { closeSync, openSync, readSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';

declare const KIND: unique symbol;
/** What the addon gives out: an object that only it can look into. It is closed by `close`, or by the garbage collector. */
export interface Handle<K extends string = string> {
  readonly [KIND]: K;
}
export type SystemHandle = Handle<'system'>;
export type VmHandle = Handle<'vm'>;
export type VcpuHandle = Handle<'vcpu'>;
export type DeviceHandle = Handle<'device'>;
export type StatsHandle = Handle<'stats'>;
export type MemoryHandle = Handle<'memory'>;
export type EventFdHandle = Handle<'eventfd'>;
/** What has attributes. */
export type AttrHandle = VmHandle | VcpuHandle | DeviceHandle;

/**
 * The addon (`native/`): one function a call. None throws: a negative number is a negative errno; -EBADF is also a handle
 * of another kind, a closed one, or one of another thread; -EINVAL also an argument of the wrong type or size; -EBUSY also a
 * vCPU that is in the guest, on its own thread.
 */
export interface Native {
  openKvm(path: string): SystemHandle | number;
  getApiVersion(system: SystemHandle): number;
  getVcpuMmapSize(system: SystemHandle): number;
  checkExtension(handle: SystemHandle | VmHandle, cap: number): number;
  createVm(system: SystemHandle, type: number): VmHandle | number;
  /** Idempotent, for every kind of handle. */
  close(handle: Handle): number;
  pageSize(): number;

  /** @param flags 1: a memfd @param hugePageShift 0, or the power of two of the size of huge pages set aside on this host */
  createMemory(size: number, flags: number, hugePageShift: number): MemoryHandle | number;
  createGuestMemfd(vm: VmHandle, size: number, flags: number): MemoryHandle | number;
  /** A new ArrayBuffer over the memory, or a part of it, which stays mapped until the buffer is detached or collected. */
  memoryBuffer(memory: MemoryHandle, offset?: number, length?: number): ArrayBuffer | number;
  detach(buffer: ArrayBuffer): number;

  enableCap(vm: VmHandle, cap: number, flags: number, a: bigint, b: bigint, c: bigint, d: bigint): number;
  setUserMemoryRegion(
    vm: VmHandle,
    slot: number,
    flags: number,
    guestPhysAddr: number,
    memorySize: number,
    memory: MemoryHandle | undefined,
    memoryOffset: number,
  ): number;
  createVcpu(vm: VmHandle, id: number): VcpuHandle | number;
  /** 0 where `test` is set and the device could be made. */
  createDevice(vm: VmHandle, type: number, test: boolean): DeviceHandle | number;
  /** @param out `struct kvm_vcpu_init`, 32 bytes */
  preferredTarget(vm: VmHandle, out: Uint8Array): number;
  createIrqchip(vm: VmHandle): number;
  irqLine(vm: VmHandle, irq: number, level: boolean): number;
  /** @param entries `struct kvm_irq_routing_entry`, 48 bytes each */
  setGsiRouting(vm: VmHandle, entries: Uint8Array): number;
  signalMsi(vm: VmHandle, address: bigint, data: number, flags: number, devid: number): number;
  irqfd(vm: VmHandle, fd: EventFdHandle, gsi: number, flags: number, resampleFd: EventFdHandle | undefined): number;
  ioeventfd(vm: VmHandle, fd: EventFdHandle, addr: number, len: number, flags: number, datamatch: bigint): number;
  coalescedMmio(vm: VmHandle, addr: number, size: number, on: boolean): number;
  /** Without a bitmap: the bytes that it must have. */
  getDirtyLog(vm: VmHandle, slot: number, bitmap?: Uint8Array): number;
  clearDirtyLog(vm: VmHandle, slot: number, firstPage: number, numPages: number, bitmap: Uint8Array): number;
  resetDirtyRings(vm: VmHandle): number;
  setCounterOffset(vm: VmHandle, offset: bigint): number;
  /** @param out 192 u64 */
  getRegWritableMasks(vm: VmHandle, out: Uint8Array): number;
  setDeviceAddr(vm: VmHandle, id: bigint, addr: number): number;
  mteCopyTags(vm: VmHandle, guestIpa: number, length: number, tags: Uint8Array, fromGuest: boolean): number;

  setDeviceAttr(handle: AttrHandle, group: number, attr: bigint, payload: Uint8Array | undefined): number;
  getDeviceAttr(handle: AttrHandle, group: number, attr: bigint, payload: Uint8Array): number;
  hasDeviceAttr(handle: AttrHandle, group: number, attr: bigint): number;
  getStatsFd(handle: VmHandle | VcpuHandle): StatsHandle | number;
  readStats(stats: StatsHandle, offset: number, buffer: Uint8Array): number;

  /** KVM_RUN for at most `limitNs`, and never more than 20 ms: 0 an exit, 1 the time is over, -EINTR a kick or immediate exit. */
  vcpuRun(vcpu: VcpuHandle, limitNs: number): number;
  /**
   * Runs the vCPU on its own thread, and calls `listener` with what each KVM_RUN answered: 0 an exit, or a negative errno. It
   * runs on when the listener returns. -EBUSY where it is started.
   */
  vcpuStart(vcpu: VcpuHandle, listener: (result: number) => void): number;
  /** When it returns, the vCPU is not in the guest. */
  vcpuStop(vcpu: VcpuHandle): number;
  /** On its own thread, reads of 1, 2 or 4 bytes at `address` are answered with `value`'s low bytes; `undefined`: told of, as all others. */
  vcpuAnswerReads(vcpu: VcpuHandle, address: number, value: number | undefined): number;
  /** `struct kvm_run` and the pages after it. */
  runArea(vcpu: VcpuHandle): ArrayBuffer | number;
  /** Its dirty ring of `size` bytes. */
  dirtyRing(vcpu: VcpuHandle, size: number): ArrayBuffer | number;
  kick(vcpu: VcpuHandle): number;
  /** What any thread of this process can give `kickToken`. */
  vcpuToken(vcpu: VcpuHandle): number;
  /** -ESRCH where the vCPU is closed. */
  kickToken(token: number): number;
  setImmediateExit(vcpu: VcpuHandle, on: boolean): number;
  setSignalMask(vcpu: VcpuHandle, mask: bigint | undefined): number;
  vcpuInit(vcpu: VcpuHandle, target: number, features: number): number;
  vcpuFinalize(vcpu: VcpuHandle, feature: number): number;
  /** The number of registers; their ids, eight bytes each, go to `out` where it is given. */
  getRegList(vcpu: VcpuHandle, out?: Uint8Array): number;
  getOneReg(vcpu: VcpuHandle, id: bigint, value: Uint8Array): number;
  setOneReg(vcpu: VcpuHandle, id: bigint, value: Uint8Array): number;
  getMpState(vcpu: VcpuHandle): number;
  setMpState(vcpu: VcpuHandle, state: number): number;
  /** @param out `struct kvm_vcpu_events`, 64 bytes */
  getVcpuEvents(vcpu: VcpuHandle, out: Uint8Array): number;
  setVcpuEvents(vcpu: VcpuHandle, events: Uint8Array): number;
  /** @param debug `struct kvm_guest_debug` of arm64, 520 bytes */
  setGuestDebug(vcpu: VcpuHandle, debug: Uint8Array): number;

  createEventFd(): EventFdHandle | number;
  eventFdSignal(fd: EventFdHandle, n: number): number;
  /** The count taken, 0 where there is none. */
  eventFdRead(fd: EventFdHandle): number;
  eventFdListen(fd: EventFdHandle, listener: ((count: number) => void) | undefined): number;

  /** On x64 only, for tests: `struct kvm_regs` (144 bytes) and `struct kvm_sregs` (312). */
  getRegs?(vcpu: VcpuHandle, out: Uint8Array): number;
  setRegs?(vcpu: VcpuHandle, regs: Uint8Array): number;
  getSregs?(vcpu: VcpuHandle, out: Uint8Array): number;
  setSregs?(vcpu: VcpuHandle, sregs: Uint8Array): number;
}

/** The addon, or why it is not there. */
export type NativeResult =
  | { readonly native: Native }
  | { readonly native: undefined /** One sentence for the user. */; readonly reason: string };

/** The package, from `dist/host/`. */
const ROOT = fileURLToPath(new URL('../../', import.meta.url));

let found: NativeResult | undefined;

/**
 * Loads the addon, at the first call: what `npm run build:native` built, else the package's prebuilt one for this machine.
 * Never throws.
 * @param file the addon's file, in place of the package's own
 */
export function loadNative(file?: string): NativeResult {
  if (process.platform !== 'linux') {
    return { native: undefined, reason: `KVM is the Linux kernel's, and this is ${process.platform}` };
  }
  if (process.arch !== 'arm64' && process.arch !== 'x64') {
    return { native: undefined, reason: `the native addon is for arm64 and x64, and this is ${process.arch}` };
  }
  const require = createRequire(import.meta.url);
  if (file !== undefined) return load(require, file);
  found ??= loadOwn(require);
  return found;
}

function loadOwn(require: NodeJS.Require): NativeResult {
  let file: string;
  try {
    file = findAddon(require);
  } catch {
    return {
      native: undefined,
      reason: notThere(`for ${process.platform}-${process.arch} (${isMusl() ? 'musl' : 'glibc'})`),
    };
  }
  return load(require, file);
}

/** @throws Error where there is none */
function findAddon(require: NodeJS.Require): string {
  // node-gyp-build takes only Alpine for a system with musl, but looks at this variable first.
  const given = process.env.LIBC;
  if (given === undefined && isMusl()) process.env.LIBC = 'musl';
  try {
    return (require('node-gyp-build') as { path(root: string): string }).path(ROOT);
  } finally {
    if (given === undefined) delete process.env.LIBC;
  }
}

/** Whether this Node was built for musl: its dynamic loader is named in its ELF file, before anything else that has a name. */
function isMusl(): boolean {
  const head = Buffer.alloc(4096);
  const fd = openSync(process.execPath, 'r');
  try {
    return head.toString('latin1', 0, readSync(fd, head)).includes('/ld-musl-');
  } finally {
    closeSync(fd);
  }
}

const notThere = (where: string): string =>
  `there is no native addon ${where} (in a checkout of elvisor's repository: npm run build:native)`;

function load(require: NodeJS.Require, file: string): NativeResult {
  try {
    const native = require(file) as Native;
    if (typeof native.openKvm === 'function' && typeof native.vcpuStart === 'function') return { native };
    return { native: undefined, reason: `the native addon does not load: ${file} is no addon of this version` };
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === 'MODULE_NOT_FOUND') return { native: undefined, reason: notThere(`at ${file}`) };
    return { native: undefined, reason: `the native addon does not load: ${file}: ${message}` };
  }
}
