import {
  type DirtyPage,
  type GuestDebugControl,
  type HypercallExit,
  type IntrExit,
  KvmError,
  MpState,
  SystemEvent,
  sysregIndex,
  type Vcpu,
  type VcpuEvents,
  type VcpuExit,
  VcpuFeature,
} from '../../kvm/index.js';
import { type Cpu, type CpuHost, CpuStop, STOP_COST } from '../cpu/cpu.js';
import { ArchTimer } from './arch-timer.js';
import { DirtyRing } from './dirty-ring.js';
import { prepareFirstRun } from './first-run.js';
import { VcpuDebug } from './guest-debug.js';
import { Halt } from './halt.js';
import { block, pollForTimer } from './idle.js';
import { KeptRegisters } from './kept-registers.js';
import { VcpuMmio } from './mmio.js';
import { getOneReg, getRegList, setOneReg } from './one-reg.js';
import type { Pmu } from './pmu.js';
import { PSCI_0_1, PSCI_1_3 } from './psci.js';
import { StolenTime } from './pvtime.js';
import { resetProcessor } from './reset.js';
import { callSmccc } from './smccc.js';
import { VcpuStats } from './stats.js';
import { readTrapped, writeTrapped } from './trapped-registers.js';
import { getVcpuAttr, hasVcpuAttr, setVcpuAttr } from './vcpu-attributes.js';
import { getEvents, setEvents } from './vcpu-events.js';
import { affinityOf, checkInit } from './vcpu-init.js';
import { createPmu, showPmu } from './vcpu-pmu.js';
import type { CpuInterface, VgicVcpu } from './vgic/cpu-interface.js';
import type { SoftVm } from './vm.js';

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

const MPIDR_EL1 = sysregIndex(3, 0, 0, 0, 5);
const MPIDR_RES1 = 0x8000_0000n;

/** A vCPU: `struct kvm_vcpu`, with KVM_RUN's loop and what the kernel half answers the processor. */
export class SoftVcpu implements Vcpu, CpuHost, VgicVcpu {
  readonly id: number;
  readonly vm: SoftVm;
  readonly cpu: Cpu;
  readonly timer: ArchTimer;
  readonly stats = new VcpuStats();
  readonly stolenTime: StolenTime;
  readonly dirtyRing: DirtyRing | undefined;
  /** Where it was asked for (VcpuFeature.PMU_V3). */
  pmu: Pmu | undefined;
  /** SPSR_ABT, SPSR_UND, SPSR_IRQ and SPSR_FIQ: state of an AArch32 EL1 that is not there. */
  readonly aarch32Spsr = [0n, 0n, 0n, 0n];
  readonly kept = new KeptRegisters();
  /** The CPU interface of a GICv3, from the first run. */
  icc: CpuInterface | undefined;
  immediateExit = false;
  deviceIrqLevel = 0;
  signalMask: bigint | undefined;

  /** {@link VcpuFeature} bits; `undefined` before KVM_ARM_VCPU_INIT. */
  #features: number | undefined;
  #mpState: MpState = MpState.RUNNABLE;
  #affinity = 0;
  #closed = false;
  #hasRun = false;
  /** The last `run()` said that there is nothing to do; whoever changes that tells the VM. */
  #saidIdle = false;
  #kicked = false;
  /** A PSCI CPU_ON waits for the next run. */
  #reset: { entry: bigint; context: bigint } | undefined;
  #inGuest = false;
  #irq = false;
  #fiq = false;

  readonly #intr: Mutable<IntrExit> = { reason: 'intr', idleMs: undefined };
  readonly #halt: Halt;
  readonly #mmio: VcpuMmio;
  readonly #guestDebug: VcpuDebug;
  readonly #hypercall: Mutable<HypercallExit> = { reason: 'hypercall', nr: 0, smc: false, is16bit: false };

  constructor(vm: SoftVm, id: number) {
    this.vm = vm;
    this.id = id;
    this.timer = new ArchTimer(vm.timers, (intid, level) => vm.vgic?.injectPpi(id, intid, level, true));
    this.stolenTime = new StolenTime(vm.clock, vm.guestMemory);
    this.dirtyRing = vm.dirtyRingSize === 0 ? undefined : new DirtyRing(vm.dirtyRingSize);
    this.cpu = vm.machine.createCpu(this);
    this.#halt = new Halt(vm.clock, () => vm.maxHaltPollNs);
    this.#mmio = new VcpuMmio(this, vm, this.cpu, this.stats);
    this.#guestDebug = new VcpuDebug(this.cpu);
    this.mpidr = MPIDR_RES1 | BigInt(affinityOf(id));
  }

  /** MPIDR_EL1, by which interrupts and PSCI find the vCPU. */
  get mpidr(): bigint {
    return this.cpu.getSysreg(MPIDR_EL1)!;
  }

  set mpidr(value: bigint) {
    this.cpu.setSysreg(MPIDR_EL1, value);
    this.#affinity = Number(value & 0xff_ffffn) + Number((value >> 32n) & 0xffn) * 2 ** 24;
    this.vm.vgic?.indexAffinities();
  }

  /** Aff3.Aff2.Aff1.Aff0. */
  get affinity(): number {
    return this.#affinity;
  }

  // --- Life ---------------------------------------------------------------------------------------------------------

  get closed(): boolean {
    return this.#closed;
  }

  /** The id stays taken and the vCPU the VM's, as with the kernel's fd. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    if (this.#inGuest) this.cpu.requestStop();
    this.vm.release();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #check(syscall: string): void {
    if (this.#closed) throw new KvmError('EBADF', syscall, 'the vCPU is closed');
    this.vm.checkAlive(syscall);
  }

  #checkInitialized(syscall: string): void {
    this.#check(syscall);
    if (this.#features === undefined) throw new KvmError('ENOEXEC', syscall, 'the vCPU is not initialised');
  }

  get hasRun(): boolean {
    return this.#hasRun;
  }

  hasFeature(feature: number): boolean {
    return this.#features !== undefined && (this.#features & (1 << feature)) !== 0;
  }

  get psciVersion(): bigint {
    if (!this.hasFeature(VcpuFeature.PSCI_0_2)) return PSCI_0_1;
    return this.vm.psciVersion ?? PSCI_1_3;
  }

  init(target: number, features: number): void {
    this.#check('KVM_ARM_VCPU_INIT');
    const kept = checkInit(target, features, this.#features ?? this.vm.vcpuFeatures);
    const isFirst = this.vm.vcpuFeatures === undefined;
    this.vm.vcpuFeatures = kept;
    this.#features = kept;
    this.cpu.pointerAuth = this.hasFeature(VcpuFeature.PTRAUTH_ADDRESS);
    if (this.hasFeature(VcpuFeature.PMU_V3)) {
      if (isFirst) showPmu(this);
      this.pmu ??= createPmu(this);
    }
    this.#resetState();
    this.#mpState = (features & (1 << VcpuFeature.POWER_OFF)) === 0 ? MpState.RUNNABLE : MpState.STOPPED;
  }

  #resetState(): void {
    this.pmu?.reset();
    this.kept.reset();
    this.aarch32Spsr.fill(0n);
    resetProcessor(this.cpu);
    // The lines are inputs: a reset does not change them.
    this.cpu.setIrq(this.#irq);
    this.cpu.setFiq(this.#fiq);
    this.timer.reset();
    this.#halt.end();
    // What an exit left to do stays to be done, as in the kernel: it belongs to the next run().
    this.#reset = undefined;
  }

  finalize(feature: number): void {
    this.#checkInitialized('KVM_ARM_VCPU_FINALIZE');
    throw new KvmError('EINVAL', 'KVM_ARM_VCPU_FINALIZE', `feature ${feature} needs no finalisation, or is not there`);
  }

  // --- KVM_RUN ------------------------------------------------------------------------------------------------------

  run(quantumMs = Number.POSITIVE_INFINITY): VcpuExit {
    this.#checkInitialized('KVM_RUN');
    if (!(quantumMs >= 0)) throw new RangeError(`run(${quantumMs}): a quantum is a number of milliseconds from 0`);
    if (this.vm.current !== undefined) {
      throw new KvmError('EBUSY', 'KVM_RUN', 'a vCPU of this VM is inside run(): do not call it from a listener');
    }
    if (!this.#hasRun) this.#firstRun();
    this.#saidIdle = false;
    this.#guestDebug.load();
    try {
      return this.#run(quantumMs);
    } finally {
      this.#guestDebug.put();
    }
  }

  #run(quantumMs: number): VcpuExit {
    this.#mmio.enter();
    if (this.immediateExit) {
      this.stats.signalExits++;
      return this.#exitIntr(undefined);
    }
    this.vm.enter(this);
    this.#inGuest = true;
    this.stolenTime.enter();
    try {
      return this.#loop(quantumMs * 1e6);
    } finally {
      this.#inGuest = false;
      if (this.vm.vgic === undefined) this.deviceIrqLevel = this.#deviceOutputs;
      this.vm.leave();
    }
  }

  /** Fixes the VM's configuration. */
  #firstRun(): void {
    prepareFirstRun(this);
    const { vgic } = this.vm;
    if (vgic?.model === 3) this.icc = vgic.redistributor(this.id)!.cpu;
    this.#hasRun = true;
    this.vm.hasRun = true;
  }

  #loop(quantumNs: number): VcpuExit {
    const { clock } = this.vm;
    let now = clock.nowNs();
    let end = now - clock.skippedNs + quantumNs;
    for (;;) {
      if (this.#kicked || this.#closed) {
        this.#kicked = false;
        this.stats.signalExits++;
        return this.#exitIntr(undefined);
      }
      if (this.vm.power.state !== 'on') return this.#exitIntr(Number.POSITIVE_INFINITY);
      if (this.#reset !== undefined) {
        // The processor may count its instructions anew.
        clock.leave();
        this.#applyReset();
        clock.enter(this.cpu);
      }
      const hasCommands = this.vm.proceedCommands();
      this.timer.update(now);
      if (this.vm.vgic === undefined && this.#deviceOutputs !== this.deviceIrqLevel) return this.#exitIntr(undefined);
      if (this.#halt.isOn || this.#mpState !== MpState.RUNNABLE) {
        const exit = this.#wait(now, end, hasCommands);
        if (exit !== undefined) return exit;
        now = clock.nowNs();
        continue;
      }
      const left = end - (now - clock.skippedNs);
      if (left <= 0) return this.#exitPreempted();
      if (this.dirtyRing?.isFull === true) return { reason: 'dirty_ring_full' };
      const before = this.#spent;
      const exit = this.#enterGuest(clock.budget(now, Math.min(now + left, this.timer.nextDeadlineNs(now))));
      if (exit !== undefined) return exit;
      const after = clock.nowNs();
      clock.learn(this.#spent - before, after - now);
      now = after;
      // Also a guest that retires no instruction comes to the end of its quantum.
      end -= STOP_COST + this.vm.lpis.takeWork();
    }
  }

  /** What budgets were spent on so far. */
  get #spent(): number {
    return this.cpu.instructions + this.stats.exits * STOP_COST;
  }

  /** Runs the processor for `budget` instructions, as far as no exit and nothing for {@link #loop} comes before. */
  #enterGuest(budget: number): VcpuExit | undefined {
    const { cpu, stats, pmu } = this;
    let left = budget;
    while (left > this.vm.lpis.work) {
      const before = cpu.instructions;
      const stop = cpu.run(pmu === undefined ? left : Math.min(left, pmu.budget));
      stats.exits++;
      if (pmu?.isCounting === true) pmu.update();
      left -= cpu.instructions - before + STOP_COST;
      let exit: VcpuExit | undefined;
      switch (stop) {
        case CpuStop.BUDGET:
          return undefined;
        case CpuStop.MMIO:
          exit = this.#mmio.exit();
          break;
        case CpuStop.SMC:
          cpu.skipInstruction();
          exit = callSmccc(this, true);
          break;
        case CpuStop.HVC:
          stats.hvcExits++;
          exit = callSmccc(this, false);
          break;
        case CpuStop.WFI:
          stats.wfiExits++;
          this.halt();
          break;
        case CpuStop.WFE:
          stats.wfeExits++;
          // What it waits for is another vCPU's doing, and that one needs this thread.
          if (!this.vm.othersIdle(this)) return this.#exitPreempted();
          break;
        case CpuStop.DEBUG:
          exit = this.#guestDebug.exit();
          break;
        case CpuStop.MEMORY_FAULT:
          this.vm.memslots.resolve(cpu.access.ipa);
          break;
      }
      if (exit !== undefined) return exit;
      if (this.#halt.isOn || this.#kicked || this.#closed || this.#mpState !== MpState.RUNNABLE) return undefined;
      if (this.dirtyRing?.isFull === true) return undefined;
    }
    return undefined;
  }

  /**
   * Waits, in WFI, suspended or not powered on.
   * @param end of the quantum, without the time that was skipped
   * @returns the exit, or `undefined` where there is something to execute, or to be looked at again
   */
  #wait(now: number, end: number, hasCommands: boolean): VcpuExit | undefined {
    if (this.#mpState === MpState.STOPPED) return this.#exitIntr(Number.POSITIVE_INFINITY);
    this.#halt.begin();
    if (this.cpu.interruptPending) {
      this.#halt.wake();
      // A suspended vCPU stays so until user space, told of the wake-up, says otherwise.
      return this.#mpState === MpState.SUSPENDED ? this.exitSystemEvent(SystemEvent.WAKEUP) : undefined;
    }
    // What an ITS still has to do may be the interrupt that is waited for.
    if (hasCommands) return this.#exitIntr(0);
    // Whom this run has told of an access may want the thread for it.
    if (!this.#mmio.toldUser && pollForTimer(this, this.#halt, now, end)) return undefined;
    this.#halt.block();
    const idleMs = block(this, now);
    return this.cpu.interruptPending ? undefined : this.#exitIntr(idleMs);
  }

  /** Does what a PSCI CPU_ON has left to do: before the vCPU runs, and before its registers are looked at. */
  #applyReset(): void {
    if (this.#reset === undefined) return;
    const { entry, context } = this.#reset;
    this.#resetState();
    this.cpu.setPc(entry);
    this.cpu.setX(0, context);
  }

  /** KVM_ARM_DEV_*: what drives interrupts of a vCPU without a vGIC. */
  get #deviceOutputs(): number {
    return this.timer.outputs | (this.pmu?.output === true ? 4 : 0);
  }

  #exitIntr(idleMs: number | undefined): IntrExit {
    this.#saidIdle = idleMs !== undefined;
    this.#intr.idleMs = idleMs;
    return this.#intr;
  }

  /** The vCPU has something to execute, and others have a turn. */
  #exitPreempted(): IntrExit {
    this.stolenTime.wait();
    return this.#exitIntr(undefined);
  }

  exitHypercall(nr: number, smc: boolean): VcpuExit {
    this.#hypercall.nr = nr;
    this.#hypercall.smc = smc;
    return this.#hypercall;
  }

  exitSystemEvent(type: SystemEvent, ...data: readonly bigint[]): VcpuExit {
    return { reason: 'system_event', type, data };
  }

  // --- What makes a vCPU run, wait and wake -------------------------------------------------------------------------

  get mpState(): MpState {
    return this.#mpState;
  }

  /** WFI, or PSCI CPU_SUSPEND. */
  halt(): void {
    if (!this.cpu.interruptPending) this.#halt.begin();
  }

  powerOff(): void {
    this.#mpState = MpState.STOPPED;
  }

  /** SYSTEM_OFF or SYSTEM_RESET of another vCPU stopped this one. */
  stop(): void {
    this.#mpState = MpState.STOPPED;
    this.#halt.end();
  }

  /** PSCI CPU_ON: at the next run the vCPU starts at `entry` with `context` in X0. */
  powerOn(entry: bigint, context: bigint): void {
    this.#reset = { entry, context };
    this.#halt.end();
    this.#mpState = MpState.RUNNABLE;
    this.#wake();
  }

  /** Whether it has nothing to execute until an interrupt comes. */
  get isIdle(): boolean {
    if (this.#closed || this.#features === undefined || this.#mpState === MpState.STOPPED) return true;
    return (this.#halt.isOn || this.#mpState === MpState.SUSPENDED) && !this.cpu.interruptPending;
  }

  #wake(): void {
    if (!this.#saidIdle) return;
    this.#saidIdle = false;
    this.stolenTime.wait();
    this.vm.notifyRunnable(this);
  }

  /** The host goes to sleep, or down. */
  hostLeaves(): void {
    this.stolenTime.suspend();
    if (this.#inGuest) this.kick();
  }

  /** The host is awake, and may have told the vCPU to wait for that. */
  hostReturns(): void {
    this.stolenTime.resume(this.#saidIdle && !this.isIdle);
    if (!this.#saidIdle) return;
    this.#saidIdle = false;
    this.vm.notifyRunnable(this);
  }

  setInterruptLines(irq: boolean, fiq: boolean): void {
    const rises = (irq && !this.#irq) || (fiq && !this.#fiq);
    if (irq !== this.#irq) {
      this.#irq = irq;
      this.cpu.setIrq(irq);
    }
    if (fiq !== this.#fiq) {
      this.#fiq = fiq;
      this.cpu.setFiq(fiq);
    }
    if (!rises) return;
    if (this.#inGuest) this.cpu.requestStop();
    else if (this.#mpState !== MpState.STOPPED) this.#wake();
  }

  /** KVM_IRQ_LINE without a vGIC: the vCPU's own IRQ or FIQ input. */
  setCpuLine(fiq: boolean, level: boolean): void {
    if (fiq) this.setInterruptLines(this.#irq, level);
    else this.setInterruptLines(level, this.#fiq);
  }

  kick(): void {
    if (this.#closed) return;
    this.#kicked = true;
    if (this.#inGuest) this.cpu.requestStop();
    else this.#wake();
  }

  // --- What the processor asks --------------------------------------------------------------------------------------

  readSysreg(index: number): bigint | undefined {
    return readTrapped(this, index);
  }

  writeSysreg(index: number, value: bigint): boolean {
    return writeTrapped(this, index, value);
  }

  mmio(): boolean {
    this.stats.exits++;
    return this.#mmio.answer();
  }

  random64(): bigint {
    return this.vm.random64();
  }

  overdue(): boolean {
    return this.vm.clock.isOverdue();
  }

  /** W0 to W17 of an SMCCC call. */
  argument32(n: number): number {
    return Number(this.cpu.getX(n) & 0xffff_ffffn);
  }

  /** The guest, running on this vCPU, made a page dirty. @returns whether that is recorded */
  pageDirtied(slot: number, page: number): boolean {
    if (this.dirtyRing === undefined) return false;
    this.dirtyRing.push(slot, page);
    if (this.dirtyRing.isFull) this.cpu.requestStop();
    return true;
  }

  /** X0 to X3 of an SMCCC call. */
  setResult(x0: bigint, x1 = 0n, x2 = 0n, x3 = 0n): void {
    this.cpu.setX(0, BigInt.asUintN(64, x0));
    this.cpu.setX(1, x1);
    this.cpu.setX(2, x2);
    this.cpu.setX(3, x3);
  }

  // --- State --------------------------------------------------------------------------------------------------------

  getRegList(): bigint[] {
    this.#checkInitialized('KVM_GET_REG_LIST');
    return getRegList(this);
  }

  getOneReg(id: bigint): bigint {
    this.#checkInitialized('KVM_GET_ONE_REG');
    this.#applyReset();
    return getOneReg(this, id);
  }

  setOneReg(id: bigint, value: bigint): void {
    this.#checkInitialized('KVM_SET_ONE_REG');
    this.#applyReset();
    setOneReg(this, id, value);
  }

  getMpState(): MpState {
    this.#check('KVM_GET_MP_STATE');
    return this.#mpState;
  }

  setMpState(state: MpState): void {
    this.#check('KVM_SET_MP_STATE');
    if (state !== MpState.RUNNABLE && state !== MpState.STOPPED && state !== MpState.SUSPENDED) {
      throw new KvmError('EINVAL', 'KVM_SET_MP_STATE', `${state} is no state of an arm64 vCPU`);
    }
    if (this.#mpState === MpState.SUSPENDED) this.#halt.end();
    this.#mpState = state;
    if (state === MpState.RUNNABLE) this.#wake();
    else if (this.#inGuest) this.cpu.requestStop();
  }

  getVcpuEvents(): VcpuEvents {
    this.#checkInitialized('KVM_GET_VCPU_EVENTS');
    return getEvents(this.cpu);
  }

  setVcpuEvents(events: Partial<VcpuEvents>): void {
    this.#checkInitialized('KVM_SET_VCPU_EVENTS');
    setEvents(this.cpu, events, () => this.#mmio.cancel());
  }

  collectDirtyPages(): DirtyPage[] {
    this.#check('KVM_RESET_DIRTY_RINGS');
    return this.dirtyRing?.collect() ?? [];
  }

  setGuestDebug(debug: GuestDebugControl): void {
    this.#check('KVM_SET_GUEST_DEBUG');
    this.#guestDebug.set(debug);
  }

  setSignalMask(mask: bigint | undefined): void {
    this.#check('KVM_SET_SIGNAL_MASK');
    this.signalMask = mask;
  }

  readStats(): ReadonlyMap<string, readonly bigint[]> {
    this.#check('KVM_GET_STATS_FD');
    return this.stats.read(this.#halt, this.cpu.instructions);
  }

  hasDeviceAttr(group: number, attr: number | bigint): boolean {
    this.#check('KVM_HAS_DEVICE_ATTR');
    return hasVcpuAttr(this, group, BigInt(attr));
  }

  setDeviceAttr(group: number, attr: number | bigint, value?: number | bigint | Uint8Array): void {
    this.#check('KVM_SET_DEVICE_ATTR');
    setVcpuAttr(this, group, BigInt(attr), value);
  }

  getDeviceAttr(group: number, attr: number | bigint): bigint {
    this.#check('KVM_GET_DEVICE_ATTR');
    return getVcpuAttr(this, group, BigInt(attr));
  }
}
