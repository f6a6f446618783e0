import { sysregIndex } from '../../kvm/index.js';
import { type Clock, COUNTER_HZ, NS_PER_TICK, ticksAt } from './clock.js';

/** Encodings (Arm ARM DDI 0487 D24.10). */
const CNTFRQ = sysregIndex(3, 3, 14, 0, 0);
const CNTPCT = sysregIndex(3, 3, 14, 0, 1);
const CNTVCT = sysregIndex(3, 3, 14, 0, 2);
const CNTPCTSS = sysregIndex(3, 3, 14, 0, 5);
const CNTVCTSS = sysregIndex(3, 3, 14, 0, 6);
const CNTP_TVAL = sysregIndex(3, 3, 14, 2, 0);
const CNTP_CTL = sysregIndex(3, 3, 14, 2, 1);
const CNTP_CVAL = sysregIndex(3, 3, 14, 2, 2);
const CNTV_TVAL = sysregIndex(3, 3, 14, 3, 0);
const CNTV_CTL = sysregIndex(3, 3, 14, 3, 1);
const CNTV_CVAL = sysregIndex(3, 3, 14, 3, 2);

const CTL_ENABLE = 1;
const CTL_IMASK = 2;
const CTL_ISTATUS = 4;
const FREQUENCY = BigInt(COUNTER_HZ);

/** The PPIs of the timers and the counters' offsets, which all vCPUs of a VM share (`struct arch_timer_vm_data`). */
export interface TimerVmData {
  readonly clock: Clock;
  /** INTIDs by TimerAttr: virtual, physical, and the two of EL2, which is not there. */
  readonly ppis: number[];
  /** What CNTVCT_EL0 and CNTPCT_EL0 are behind the VM's clock. */
  virtualOffset: bigint;
  physicalOffset: bigint;
  /** KVM_ARM_SET_COUNTER_OFFSET was called: writes of the counters are ignored. */
  offsetIsSet: boolean;
}

export function createTimerVmData(clock: Clock): TimerVmData {
  return { clock, ppis: [27, 30, 28, 26], virtualOffset: 0n, physicalOffset: 0n, offsetIsSet: false };
}

/** One EL1 timer: a compare value and a control register, and its level output. */
class Timer {
  readonly #vm: TimerVmData;
  readonly #virtual: boolean;
  #ctl = 0;
  #cval = 0n;
  /** When the condition is first met, in nanoseconds of the VM's clock. */
  #deadlineNs = 0;
  /** The output, as it was last given to the interrupt controller. */
  output = false;

  constructor(vm: TimerVmData, virtual: boolean) {
    this.#vm = vm;
    this.#virtual = virtual;
  }

  reset(): void {
    this.#ctl = 0;
    this.#cval = 0n;
    this.#recompute();
  }

  get #offset(): bigint {
    return this.#virtual ? this.#vm.virtualOffset : this.#vm.physicalOffset;
  }

  /** The counter that the timer compares with. */
  get count(): bigint {
    const ticks = BigInt(ticksAt(this.#vm.clock.nowNs()));
    const offset = this.#offset;
    return offset === 0n ? ticks : BigInt.asUintN(64, ticks - offset);
  }

  get ctl(): number {
    const fired = (this.#ctl & CTL_ENABLE) !== 0 && this.#vm.clock.nowNs() >= this.#deadlineNs;
    return fired ? this.#ctl | CTL_ISTATUS : this.#ctl;
  }

  set ctl(value: number) {
    this.#ctl = value & (CTL_ENABLE | CTL_IMASK);
  }

  get cval(): bigint {
    return this.#cval;
  }

  set cval(value: bigint) {
    this.#cval = value;
    this.#recompute();
  }

  get tval(): bigint {
    return BigInt.asUintN(32, this.#cval - this.count);
  }

  set tval(value: bigint) {
    this.cval = BigInt.asUintN(64, this.count + BigInt.asIntN(32, value));
  }

  #recompute(): void {
    const now = ticksAt(this.#vm.clock.nowNs());
    const count = BigInt.asUintN(64, BigInt(now) - this.#offset);
    const left = this.#cval - count;
    // Met already, and stays so: the counter does not wrap within a lifetime. Beyond 2^53 ticks is beyond any lifetime, too.
    if (left <= 0n) this.#deadlineNs = Number.NEGATIVE_INFINITY;
    else if (left > BigInt(Number.MAX_SAFE_INTEGER)) this.#deadlineNs = Number.POSITIVE_INFINITY;
    else this.#deadlineNs = (now + Number(left)) * NS_PER_TICK;
  }

  /** After a change of the counter's offset. */
  rebase(): void {
    this.#recompute();
  }

  /** When the output rises, or rose: Infinity while disabled or masked. */
  get deadlineNs(): number {
    return (this.#ctl & (CTL_ENABLE | CTL_IMASK)) === CTL_ENABLE ? this.#deadlineNs : Number.POSITIVE_INFINITY;
  }
}

/** The generic timers of a vCPU, as KVM gives them: EL1 virtual and physical (`virt/kvm/arm/arch_timer.c`). */
export class ArchTimer {
  readonly virtual: Timer;
  readonly physical: Timer;
  readonly #vm: TimerVmData;
  readonly #drive: (intid: number, level: boolean) => void;

  /** @param drive takes the level of a timer's PPI when it changes */
  constructor(vm: TimerVmData, drive: (intid: number, level: boolean) => void) {
    this.#vm = vm;
    this.#drive = drive;
    this.virtual = new Timer(vm, true);
    this.physical = new Timer(vm, false);
  }

  reset(): void {
    this.virtual.reset();
    this.physical.reset();
    this.update();
  }

  /** The next time after `now` at which an output rises; Infinity for none. An output that is high already is no event. */
  nextDeadlineNs(now: number): number {
    const virtual = this.virtual.deadlineNs;
    const physical = this.physical.deadlineNs;
    return Math.min(
      virtual > now ? virtual : Number.POSITIVE_INFINITY,
      physical > now ? physical : Number.POSITIVE_INFINITY,
    );
  }

  /** Drives the PPIs again, whatever they were driven to: the interrupt controller is new. */
  resync(): void {
    this.virtual.output = false;
    this.physical.output = false;
    this.update();
  }

  /** Drives the PPIs by the clock. */
  update(now = this.#vm.clock.nowNs()): void {
    this.#updateOne(this.virtual, 0, now);
    this.#updateOne(this.physical, 1, now);
  }

  #updateOne(timer: Timer, which: number, now: number): void {
    const level = now >= timer.deadlineNs;
    if (level === timer.output) return;
    timer.output = level;
    this.#drive(this.#vm.ppis[which]!, level);
  }

  /** The outputs: bit 0 virtual, bit 1 physical (`kvm_sync_regs.device_irq_level`). */
  get outputs(): number {
    return (this.virtual.output ? 1 : 0) | (this.physical.output ? 2 : 0);
  }

  /** After a change of a counter's offset. */
  rebase(): void {
    this.virtual.rebase();
    this.physical.rebase();
    this.update();
  }

  /** A guest's MRS of CNT*. `undefined`: there is no such register. */
  readSysreg(index: number): bigint | undefined {
    switch (index) {
      case CNTVCT:
      case CNTVCTSS:
        return this.virtual.count;
      case CNTPCT:
      case CNTPCTSS:
        return this.physical.count;
      case CNTV_CTL:
        return BigInt(this.virtual.ctl);
      case CNTV_CVAL:
        return this.virtual.cval;
      case CNTV_TVAL:
        return this.virtual.tval;
      case CNTP_CTL:
        return BigInt(this.physical.ctl);
      case CNTP_CVAL:
        return this.physical.cval;
      case CNTP_TVAL:
        return this.physical.tval;
      case CNTFRQ:
        return FREQUENCY;
      default:
        return undefined;
    }
  }

  /** A guest's MSR to CNT*. `false`: there is no such register, or it is read-only. */
  writeSysreg(index: number, value: bigint): boolean {
    switch (index) {
      case CNTV_CTL:
        this.virtual.ctl = Number(value & 3n);
        break;
      case CNTV_CVAL:
        this.virtual.cval = value;
        break;
      case CNTV_TVAL:
        this.virtual.tval = value;
        break;
      case CNTP_CTL:
        this.physical.ctl = Number(value & 3n);
        break;
      case CNTP_CVAL:
        this.physical.cval = value;
        break;
      case CNTP_TVAL:
        this.physical.tval = value;
        break;
      default:
        return false;
    }
    this.update();
    return true;
  }
}
