/**
 * A Kvm whose vCPUs play a script instead of executing instructions: enough of the contract for the VMM above it, with no
 * processor in between. A script is a generator: it yields what the guest does next, and gets what a read returned.
 */
import {
  type CoalescedMmio,
  type Device,
  type ErrnoCode,
  type EventFd,
  type GuestMemory,
  type Ioeventfd,
  type Kvm,
  KvmError,
  type MemoryOptions,
  Reg,
  SystemEvent,
  type UserMemoryRegion,
  type Vcpu,
  type VcpuExit,
  type VcpuListener,
  type Vm,
} from '#lib/kvm/index.js';

/** One step of a scripted guest. */
export type Step =
  | { write: number; value: number; len?: number }
  | { read: number; len?: number }
  /** Computes until the quantum is over. */
  | { spin: true }
  /** WFI; goes on after `wfi` milliseconds, or at an interrupt. */
  | { wfi: number }
  | { event: SystemEvent }
  | { exit: VcpuExit }
  | { fail: Error };

export type Script = (guest: FakeVm, vcpu: FakeVcpu) => Generator<Step, void, number>;

export const PL011_DR = 0x0900_0000;
/** Stores that a VM coalesces before the next is an exit. */
const RING_SIZE = 170;
/** Reads that a vCPU answers by itself before the others have their turn. */
const MAX_ANSWERED = 256;

/** The steps that print `text` on the PL011. */
export function* print(text: string): Generator<Step, void, number> {
  for (const byte of new TextEncoder().encode(text)) yield { write: PL011_DR, value: byte, len: 1 };
}

export class FakeEventFd implements EventFd {
  closed = false;
  count = 0;
  hook: ((n: number) => void) | undefined;
  #listener: ((count: number) => void) | undefined;

  signal(n = 1): void {
    this.count += n;
    this.hook?.(n);
    if (this.#listener !== undefined) this.#listener(this.read());
  }
  read(): number {
    const { count } = this;
    this.count = 0;
    return count;
  }
  onSignal(listener: ((count: number) => void) | undefined): void {
    this.#listener = listener;
  }
  close(): void {
    this.closed = true;
  }
  [Symbol.dispose](): void {
    this.close();
  }
}

class FakeMemory implements GuestMemory {
  closed = false;
  readonly size: number;
  readonly bytes: Uint8Array;
  constructor(size: number) {
    this.size = size;
    this.bytes = new Uint8Array(size);
  }
  written(offset: number, length: number): void {
    if (offset < 0 || offset + length > this.size) throw new RangeError('written outside the memory');
  }
  close(): void {
    this.closed = true;
  }
  [Symbol.dispose](): void {
    this.close();
  }
}

export class FakeVcpu {
  readonly vm: FakeVm;
  readonly id: number;
  closed = false;
  immediateExit = false;
  readonly deviceIrqLevel = 0;
  readonly regs = new Map<bigint, bigint>();
  readonly #steps: Generator<Step, void, number>;
  #answer: { data: Uint8Array; len: number } | undefined;
  #kicked = false;
  /** What reads of registers are answered with without an exit, and how many were. */
  readonly answers = new Map<number, number>();
  answered = 0;
  /** The last `run()` was ended by a kick. */
  wasKicked = false;
  #idle = false;
  runs = 0;

  constructor(vm: FakeVm, id: number, script: Script) {
    this.vm = vm;
    this.id = id;
    this.#steps = script(vm, this);
  }
  init(): void {}
  setOneReg(id: bigint, value: bigint): void {
    this.regs.set(id, value);
  }
  getOneReg(id: bigint): bigint {
    const value = this.regs.get(id);
    if (value === undefined) throw new KvmError('ENOENT', 'KVM_GET_ONE_REG');
    return value;
  }
  readStats(): ReadonlyMap<string, readonly bigint[]> {
    return new Map([['runs', [BigInt(this.runs)]]]);
  }
  setVcpuEvents(): void {}
  setMpState(): void {}
  kick(): void {
    this.#kicked = true;
  }
  wake(): void {
    if (!this.#idle) return;
    this.#idle = false;
    this.vm.runnable?.(this as unknown as Vcpu);
  }
  run(quantumMs = 1): VcpuExit {
    if (this.closed || this.vm.closed) throw new KvmError('EIO', 'KVM_RUN');
    this.runs++;
    this.#idle = false;
    this.wasKicked = false;
    const end = performance.now() + quantumMs;
    for (const { answered } = this; this.answered - answered <= MAX_ANSWERED; ) {
      if (this.#kicked) {
        this.#kicked = false;
        this.wasKicked = true;
        return { reason: 'intr' };
      }
      let value = 0;
      if (this.#answer !== undefined) {
        for (let i = this.#answer.len - 1; i >= 0; i--) value = value * 256 + this.#answer.data[i]!;
        this.#answer = undefined;
      }
      const { value: step, done } = this.#steps.next(value);
      if (done === true) return { reason: 'system_event', type: SystemEvent.SHUTDOWN, data: [0n] };
      if ('write' in step) {
        const len = step.len ?? 4;
        const data = new Uint8Array(8);
        for (let i = 0, v = step.value; i < len; i++, v = Math.floor(v / 256)) data[i] = v & 0xff;
        if (this.vm.notify(step.write, len, step.value)) continue;
        if (this.vm.coalesce({ physAddr: step.write, len, data: data.slice(0, len) })) continue;
        return { reason: 'mmio', physAddr: step.write, len, isWrite: true, data };
      }
      if ('read' in step) {
        const len = step.len ?? 4;
        const answered = this.answers.get(step.read);
        if (answered !== undefined) {
          this.answered++;
          const data = new Uint8Array(8);
          new DataView(data.buffer).setUint32(0, answered, true);
          this.#answer = { data, len };
          continue;
        }
        this.#answer = { data: new Uint8Array(8), len };
        return { reason: 'mmio', physAddr: step.read, len, isWrite: false, data: this.#answer.data };
      }
      if ('spin' in step) {
        while (performance.now() < end);
        return { reason: 'intr' };
      }
      if ('wfi' in step) {
        this.#idle = true;
        return { reason: 'intr', idleMs: step.wfi };
      }
      if ('event' in step) return { reason: 'system_event', type: step.event, data: [0n] };
      if ('exit' in step) return step.exit;
      throw step.fail;
    }
    return { reason: 'intr' };
  }
  hasDeviceAttr(): boolean {
    return false;
  }
  close(): void {
    this.closed = true;
  }
  [Symbol.dispose](): void {
    this.close();
  }
}

/** One that plays on "a thread of its own": an exit a turn of the event loop, until it is stopped. */
export class FakeThreadVcpu extends FakeVcpu {
  listener: VcpuListener | undefined;
  starts = 0;

  start(listener: VcpuListener): void {
    if (this.listener !== undefined) throw new KvmError('EBUSY', 'KVM_RUN');
    this.listener = listener;
    this.starts++;
    this.#next(listener);
  }
  stop(): void {
    this.listener = undefined;
  }
  answerReads(address: number, value: number | undefined): void {
    if (value === undefined) this.answers.delete(address);
    else this.answers.set(address, value);
  }
  override close(): void {
    this.stop();
    super.close();
  }
  #next(listener: VcpuListener): void {
    setImmediate(() => {
      if (this.listener !== listener) return;
      let exit: VcpuExit | undefined;
      try {
        exit = this.run(0);
      } catch (error) {
        this.stop();
        listener.failed(error as KvmError);
        return;
      }
      // What ends a run() with no more to say is nobody's business here, but a kick is.
      if (exit.reason !== 'intr' || this.wasKicked) listener.exit(exit);
      if (this.listener === listener) this.#next(listener);
    });
  }
}

export class FakeVm {
  readonly kvm: FakeKvm;
  readonly boot: number;
  closed = false;
  memory: FakeMemory | undefined;
  region: UserMemoryRegion | undefined;
  readonly vcpus: FakeVcpu[] = [];
  readonly ioeventfds: Ioeventfd[] = [];
  /** Edges by GSI, and levels by `irqLine` number. */
  readonly edges = new Map<number, number>();
  readonly levels = new Map<number, boolean>();
  readonly attrs: [number, number | bigint, number | bigint | undefined][] = [];
  runnable: ((vcpu: Vcpu) => void) | undefined;

  constructor(kvm: FakeKvm, boot: number) {
    this.kvm = kvm;
    this.boot = boot;
  }
  checkExtension(): number {
    return 512;
  }
  enableCap(): void {}
  /** What huge pages its memory was asked to be of. */
  hugePageSize: number | undefined;
  createMemory(size: number, { hugePageSize }: MemoryOptions = {}): GuestMemory {
    this.hugePageSize = hugePageSize;
    if (hugePageSize !== undefined && this.kvm.refuseHugePages !== undefined) {
      throw new KvmError(this.kvm.refuseHugePages, 'mmap');
    }
    if (size > 2 ** 30) throw new KvmError('ENOMEM', 'mmap');
    const memory = new FakeMemory(size);
    this.memory = memory;
    const { parts } = this.kvm;
    if (parts === undefined) return memory;
    const view = (offset: number, length: number): Uint8Array => {
      parts.push([offset, length]);
      return memory.bytes.subarray(offset, offset + length);
    };
    return Object.assign(memory, { view });
  }
  setUserMemoryRegion(region: UserMemoryRegion): void {
    this.region = region;
  }
  createVcpu(id: number): Vcpu {
    const vcpu = new (this.kvm.threads ? FakeThreadVcpu : FakeVcpu)(this, id, this.kvm.script);
    this.vcpus.push(vcpu);
    return vcpu as unknown as Vcpu;
  }
  getPreferredTarget(): { target: number; features: number } {
    return { target: 5, features: 0 };
  }
  /** The types that the VM has been asked for. */
  readonly devices: number[] = [];
  /** A GICv3, no GICv2 and no ITS. */
  testDevice(type: number): boolean {
    return this.kvm.vgics.includes(type);
  }
  createDevice(type: number): Device {
    this.devices.push(type);
    return {
      type,
      closed: false,
      close() {},
      [Symbol.dispose]() {},
      hasDeviceAttr: () => true,
      getDeviceAttr: () => 0n,
      setDeviceAttr: (group: number, attr: number | bigint, value?: number | bigint) => {
        this.attrs.push([group, attr, value]);
      },
    } as unknown as Device;
  }
  irqfd({ fd, gsi }: { fd: EventFd; gsi: number }): void {
    (fd as FakeEventFd).hook = () => {
      this.edges.set(gsi, (this.edges.get(gsi) ?? 0) + 1);
      this.wake();
    };
  }
  irqLine(irq: number, level: boolean): void {
    this.levels.set(irq & 0xffff, level);
    if (level) this.wake();
  }
  ioeventfd(ioeventfd: Ioeventfd): void {
    this.ioeventfds.push(ioeventfd);
  }
  notify(addr: number, len: number, value: number): boolean {
    const match = this.ioeventfds.find(
      (f) => f.addr === addr && f.len === len && (f.datamatch === undefined || f.datamatch === BigInt(value)),
    );
    match?.fd.signal();
    return match !== undefined;
  }
  onRunnable(listener: ((vcpu: Vcpu) => void) | undefined): void {
    this.runnable = listener;
  }
  onMmio(): void {}
  /** Zones of coalesced MMIO, and what came to them. */
  readonly zones = new Map<number, number>();
  #ring: CoalescedMmio[] = [];
  /** How many stores were no exits. */
  coalesced = 0;
  registerCoalescedMmio(addr: number, size: number): void {
    this.zones.set(addr, size);
  }
  unregisterCoalescedMmio(addr: number): void {
    this.zones.delete(addr);
  }
  takeCoalescedMmio(): CoalescedMmio[] {
    return this.#ring.splice(0);
  }
  coalesce(write: CoalescedMmio): boolean {
    const isTaken = this.#ring.length < RING_SIZE && (this.zones.get(write.physAddr) ?? 0) >= write.len;
    if (isTaken) {
      this.#ring.push(write);
      this.coalesced++;
    }
    return isTaken;
  }
  resetDirtyRings(): number {
    return 0;
  }
  wake(): void {
    for (const vcpu of this.vcpus) vcpu.wake();
  }
  /** The device tree that the boot vCPU was given. */
  dtb(): Uint8Array {
    const at = Number(this.vcpus[0]!.getOneReg(Reg.x(0))) - this.region!.guestPhysAddr;
    const { bytes } = this.memory!;
    const size = new DataView(bytes.buffer).getUint32(at + 4);
    return bytes.slice(at, at + size);
  }
  close(): void {
    this.closed = true;
  }
  [Symbol.dispose](): void {
    this.close();
  }
}

export class FakeKvm {
  readonly backend = 'soft';
  closed = false;
  readonly vms: FakeVm[] = [];
  readonly script: Script;
  /** vCPUs that have threads of their own. */
  readonly threads: boolean;
  /** Devices that can be made: VGICs by their KVM_DEV_TYPE. */
  vgics: readonly number[] = [7];
  /** What asking for huge pages fails with. */
  refuseHugePages: ErrnoCode | undefined;
  /** Where it is set, memory can be had in parts, and these were: offsets and lengths. */
  parts: [number, number][] | undefined;

  constructor(script: Script, threads = false) {
    this.script = script;
    this.threads = threads;
  }
  createVm(): Vm {
    const vm = new FakeVm(this, this.vms.length);
    this.vms.push(vm);
    return vm as unknown as Vm;
  }
  createEventFd(): EventFd {
    return new FakeEventFd();
  }
  close(): void {
    this.closed = true;
  }
  [Symbol.dispose](): void {
    this.close();
  }
  /** As the contract types it. */
  get kvm(): Kvm {
    return this as unknown as Kvm;
  }
}

/** The smallest file that passes for an arm64 Image: a header (booting.rst, 4) and a branch to itself. */
export function tinyKernel(imageSize = 4096): Uint8Array {
  const bytes = new Uint8Array(4096);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, 0x1400_0000, true);
  view.setBigUint64(8, 0n, true);
  view.setBigUint64(16, BigInt(imageSize), true);
  view.setBigUint64(24, 0xan, true);
  view.setUint32(56, 0x644d_5241, true);
  return bytes;
}
