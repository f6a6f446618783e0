import {
  type DirtyPage,
  Errno,
  ExitNumber,
  type GuestDebugControl,
  type IntrExit,
  KvmError,
  type MpState,
  regSize,
  type Vcpu,
  type VcpuEvents,
  type VcpuExit,
  type VcpuListener,
} from '../kvm/index.js';
import { getAttr, hasAttr, setAttr } from './attributes.js';
import { check, checkHandle, kvmError } from './call.js';
import { CoalescedRing } from './coalesced-mmio.js';
import { HostDirtyRing } from './dirty-ring.js';
import { RunArea } from './exits.js';
import type { Native, StatsHandle, VcpuHandle } from './native.js';
import { openStats, readStats } from './stats.js';

/** The longest that one call of the addon stays in KVM_RUN. */
const HEARTBEAT_MS = 20;
const NS_PER_MS = 1e6;
/** What {@link Native.vcpuRun} answers when its time is over. */
const TIME_OVER = 1;

/** `struct kvm_vcpu_events` of arm64. */
const EVENTS = { SIZE: 64, SERROR_PENDING: 0, SERROR_HAS_ESR: 1, EXT_DABT_PENDING: 2, SERROR_ESR: 8 } as const;
/** `struct kvm_guest_debug` of arm64: registers in four arrays of 16. */
const DEBUG = { SIZE: 520, REGISTERS: 8, COUNT: 16 } as const;
/** KVM_REG_SIZE_U2048. */
const MAX_REG_SIZE = 256;

/** A vCPU of the host's KVM. It halts inside `run()`: `idleMs` is never given, and a VMM lets it run on its own thread. */
export class HostVcpu implements Vcpu {
  readonly id: number;
  /** What {@link kickHostVcpu} takes, in any thread of this process. */
  readonly token: number;
  readonly #native: Native;
  readonly #handle: VcpuHandle;
  readonly #area: RunArea;
  readonly #dirtyRing: HostDirtyRing | undefined;
  #coalescedRing: CoalescedRing | undefined;
  #closed = false;
  #immediateExit = false;
  #stats: StatsHandle | undefined;

  /**
   * @internal
   * @param dirtyRingSize bytes, 0 for none
   */
  constructor(native: Native, handle: VcpuHandle, id: number, dirtyRingSize: number) {
    this.#native = native;
    this.#handle = handle;
    this.id = id;
    try {
      this.#area = new RunArea(checkHandle(native.runArea(handle), 'mmap'));
      this.#dirtyRing =
        dirtyRingSize === 0
          ? undefined
          : new HostDirtyRing(checkHandle(native.dirtyRing(handle, dirtyRingSize), 'mmap'));
      this.token = check(native.vcpuToken(handle), 'KVM_CREATE_VCPU');
    } catch (error) {
      native.close(handle);
      throw error;
    }
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** The data of its exits becomes empty. The id stays taken and the vCPU the VM's, as the kernel has it. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#native.close(this.#handle);
    this.#native.detach(this.#area.buffer);
    if (this.#dirtyRing !== undefined) this.#native.detach(this.#dirtyRing.buffer);
    if (this.#stats !== undefined) this.#native.close(this.#stats);
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #check(syscall: string): void {
    if (this.#closed) throw new KvmError('EBADF', syscall, 'the vCPU is closed');
  }

  /** KVM_ARM_VCPU_INIT. @param features bits, numbered as in `VcpuFeature` */
  init(target: number, features: number): void {
    check(this.#native.vcpuInit(this.#handle, target, features), 'KVM_ARM_VCPU_INIT');
  }

  finalize(feature: number): void {
    check(this.#native.vcpuFinalize(this.#handle, feature), 'KVM_ARM_VCPU_FINALIZE');
  }

  run(quantumMs = Number.POSITIVE_INFINITY): VcpuExit {
    this.#check('KVM_RUN');
    if (!(quantumMs >= 0)) throw new RangeError(`run(${quantumMs}): a quantum is a number of milliseconds from 0`);
    if (quantumMs <= HEARTBEAT_MS) return this.#enter(quantumMs) ?? this.#area.intr;
    // Back in JavaScript at every heartbeat, so that a Worker can be terminated. Without an end no clock is read: that
    // would be a tenth of what an exit costs here.
    const end = quantumMs === Number.POSITIVE_INFINITY ? quantumMs : performance.now() + quantumMs;
    for (let left = quantumMs; left > 0; left = end - performance.now()) {
      const exit = this.#enter(left);
      if (exit !== undefined) return exit;
    }
    return this.#area.intr;
  }

  /** @returns `undefined` where nothing but the time ended it */
  #enter(limitMs: number): VcpuExit | undefined {
    const area = this.#area;
    const irqLevel = area.deviceIrqLevel;
    const result = this.#native.vcpuRun(this.#handle, Math.round(Math.min(limitMs, HEARTBEAT_MS) * NS_PER_MS));
    // A change of the timers' outputs is told once: with the time over, too.
    if (result === TIME_OVER) return area.deviceIrqLevel === irqLevel ? undefined : (area.intr satisfies IntrExit);
    return this.#exit(result);
  }

  /** The exit that KVM_RUN left. @throws KvmError where it left none */
  #exit(result: number): VcpuExit {
    const area = this.#area;
    if (result === 0) return area.exit();
    if (result === -Errno.EINTR) return area.intr;
    const isFault = result === -Errno.EFAULT || result === -Errno.EHWPOISON;
    if (isFault && area.exitReason === ExitNumber.memory_fault) return area.exit();
    throw kvmError(result, 'KVM_RUN');
  }

  start(listener: VcpuListener): void {
    this.#check('KVM_RUN');
    // KVM_GET_STATS_FD would wait for the end of KVM_RUN. Kernels before 5.14 have none.
    if (this.#stats === undefined) {
      const stats = this.#native.getStatsFd(this.#handle);
      if (typeof stats !== 'number') this.#stats = stats;
    }
    const told = (result: number): void => {
      let exit: VcpuExit;
      try {
        exit = this.#exit(result);
      } catch (error) {
        this.stop();
        listener.failed(error as KvmError);
        return;
      }
      listener.exit(exit);
    };
    const result = this.#native.vcpuStart(this.#handle, told);
    check(result, 'KVM_RUN', result === -Errno.EBUSY ? 'the vCPU is started' : undefined);
  }

  stop(): void {
    if (!this.#closed) check(this.#native.vcpuStop(this.#handle), 'KVM_RUN');
  }

  answerReads(address: number, value: number | undefined): void {
    if (!this.#closed) check(this.#native.vcpuAnswerReads(this.#handle, address, value), 'KVM_RUN');
  }

  kick(): void {
    if (!this.#closed) check(this.#native.kick(this.#handle), 'tgkill');
  }

  get immediateExit(): boolean {
    return this.#immediateExit;
  }

  set immediateExit(on: boolean) {
    this.#immediateExit = on;
    if (!this.#closed) check(this.#native.setImmediateExit(this.#handle, on), 'KVM_RUN');
  }

  /** The signal that elvisor kicks with is never blocked. */
  setSignalMask(mask: bigint | undefined): void {
    check(this.#native.setSignalMask(this.#handle, mask), 'KVM_SET_SIGNAL_MASK');
  }

  getRegList(): bigint[] {
    const syscall = 'KVM_GET_REG_LIST';
    const bytes = new Uint8Array(check(this.#native.getRegList(this.#handle), syscall) * 8);
    check(this.#native.getRegList(this.#handle, bytes), syscall);
    return [...new BigUint64Array(bytes.buffer)];
  }

  getOneReg(id: bigint): bigint {
    const bytes = registerBytes(id, 'KVM_GET_ONE_REG');
    const result = this.#native.getOneReg(this.#handle, id, bytes);
    if (result < 0) throw kvmError(result, 'KVM_GET_ONE_REG', `register 0x${id.toString(16)}`);
    let value = 0n;
    for (let i = bytes.length - 1; i >= 0; i--) value = (value << 8n) | BigInt(bytes[i]!);
    return value;
  }

  setOneReg(id: bigint, value: bigint): void {
    const bytes = registerBytes(id, 'KVM_SET_ONE_REG');
    if (value !== BigInt.asUintN(bytes.length * 8, value)) {
      const detail = `0x${value.toString(16)} is not an unsigned number of ${bytes.length} bytes`;
      throw new KvmError('EINVAL', 'KVM_SET_ONE_REG', detail);
    }
    let left = value;
    for (let i = 0; i < bytes.length; i++, left >>= 8n) bytes[i] = Number(left & 0xffn);
    const result = this.#native.setOneReg(this.#handle, id, bytes);
    if (result < 0) throw kvmError(result, 'KVM_SET_ONE_REG', `register 0x${id.toString(16)}`);
  }

  getMpState(): MpState {
    return check(this.#native.getMpState(this.#handle), 'KVM_GET_MP_STATE') as MpState;
  }

  setMpState(state: MpState): void {
    check(this.#native.setMpState(this.#handle, state), 'KVM_SET_MP_STATE', `state ${state}`);
  }

  getVcpuEvents(): VcpuEvents {
    const bytes = new Uint8Array(EVENTS.SIZE);
    check(this.#native.getVcpuEvents(this.#handle, bytes), 'KVM_GET_VCPU_EVENTS');
    return {
      serrorPending: bytes[EVENTS.SERROR_PENDING] !== 0,
      serrorHasEsr: bytes[EVENTS.SERROR_HAS_ESR] !== 0,
      serrorEsr: new DataView(bytes.buffer).getBigUint64(EVENTS.SERROR_ESR, true),
      extDabtPending: bytes[EVENTS.EXT_DABT_PENDING] !== 0,
    };
  }

  setVcpuEvents(events: Partial<VcpuEvents>): void {
    const bytes = new Uint8Array(EVENTS.SIZE);
    bytes[EVENTS.SERROR_PENDING] = events.serrorPending === true ? 1 : 0;
    bytes[EVENTS.SERROR_HAS_ESR] = events.serrorHasEsr === true ? 1 : 0;
    bytes[EVENTS.EXT_DABT_PENDING] = events.extDabtPending === true ? 1 : 0;
    new DataView(bytes.buffer).setBigUint64(EVENTS.SERROR_ESR, events.serrorEsr ?? 0n, true);
    check(this.#native.setVcpuEvents(this.#handle, bytes), 'KVM_SET_VCPU_EVENTS');
  }

  collectDirtyPages(): DirtyPage[] {
    this.#check('KVM_RESET_DIRTY_RINGS');
    return this.#dirtyRing?.collect() ?? [];
  }

  /** @internal `undefined` once closed. */
  get coalescedRing(): CoalescedRing | undefined {
    if (this.#closed) return undefined;
    this.#coalescedRing ??= new CoalescedRing(this.#area.buffer, this.#native.pageSize());
    return this.#coalescedRing;
  }

  setGuestDebug(debug: GuestDebugControl): void {
    const syscall = 'KVM_SET_GUEST_DEBUG';
    const view = new DataView(new ArrayBuffer(DEBUG.SIZE));
    view.setUint32(0, debug.control, true);
    for (const [i, registers] of [debug.bcr, debug.bvr, debug.wcr, debug.wvr].entries()) {
      if (registers === undefined) continue;
      if (registers.length > DEBUG.COUNT) {
        throw new KvmError(
          'EINVAL',
          syscall,
          `${registers.length} registers of a kind: there are at most ${DEBUG.COUNT}`,
        );
      }
      const at = DEBUG.REGISTERS + i * DEBUG.COUNT * 8;
      for (const [n, value] of registers.entries()) view.setBigUint64(at + n * 8, value, true);
    }
    check(this.#native.setGuestDebug(this.#handle, new Uint8Array(view.buffer)), syscall);
  }

  get deviceIrqLevel(): number {
    return this.#closed ? 0 : this.#area.deviceIrqLevel;
  }

  readStats(): ReadonlyMap<string, readonly bigint[]> {
    this.#check('KVM_GET_STATS_FD');
    this.#stats ??= openStats(this.#native, this.#handle);
    return readStats(this.#native, this.#stats);
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

function registerBytes(id: bigint, syscall: string): Uint8Array {
  const size = regSize(id);
  // What the kernel answers for a size that it does not have.
  if (size > MAX_REG_SIZE) throw new KvmError('ENOENT', syscall, `register 0x${id.toString(16)}`);
  return new Uint8Array(size);
}
