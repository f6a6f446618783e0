import { KvmError } from '../../kvm/index.js';
import type { Clock } from './clock.js';
import type { GuestAccess } from './guest-access.js';

/** Function identifiers of Paravirtualized Time for Arm-based Systems (Arm DEN 0057). */
export const PV_TIME_FEATURES = 0xc500_0020;
export const PV_TIME_ST = 0xc500_0021;

/** `struct pvclock_vcpu_stolen_time`: revision, attributes, the stolen nanoseconds, padding. */
const STRUCTURE_SIZE = 64;
const STOLEN_TIME = 8;
/** What the attribute says before it is set: INVALID_GPA. */
const INVALID_GPA = 0xffff_ffff_ffff_ffffn;

/**
 * The stolen time of a vCPU (`Documentation/virt/kvm/arm/pvtime.rst`): how long it had something to execute while something else
 * had its thread. Here that is from a `run()` that ended with the vCPU runnable (a quantum that was over, a yield), or from the
 * wake-up that ended its WFI, to the next `run()`. What the caller takes to answer an exit is not stolen, as in the kernel.
 */
export class StolenTime {
  readonly #clock: Clock;
  readonly #memory: GuestAccess;
  #base: number | undefined;
  #waitingSince: number | undefined;
  #waitedNs = 0;
  /** It waited when the host went to sleep. */
  #waitsOn = false;
  /** What of `#waitedNs` the guest has been told, or missed before it asked. */
  #toldNs = 0;

  constructor(clock: Clock, memory: GuestAccess) {
    this.#clock = clock;
    this.#memory = memory;
  }

  /** KVM_ARM_VCPU_PVTIME_IPA. */
  get attribute(): bigint {
    return this.#base === undefined ? INVALID_GPA : BigInt(this.#base);
  }

  /** @throws KvmError EINVAL not 64-byte aligned, or not in a writable memslot; EEXIST it was set */
  setBase(ipa: bigint): void {
    const fail = (code: 'EINVAL' | 'EEXIST', detail: string): never => {
      throw new KvmError(code, 'KVM_SET_DEVICE_ATTR', detail);
    };
    const hex = `0x${ipa.toString(16)}`;
    if (ipa % BigInt(STRUCTURE_SIZE) !== 0n) fail('EINVAL', `${hex} is no multiple of ${STRUCTURE_SIZE}`);
    if (this.#base !== undefined) fail('EEXIST', 'the address is set');
    if (!this.#memory.isWritable(Number(ipa))) {
      fail('EINVAL', `${hex} is not in a memslot that can be written`);
    }
    this.#base = Number(ipa);
  }

  get enabled(): boolean {
    return this.#base !== undefined;
  }

  /** PV_TIME_ST: the guest asks for the structure, and counting starts. @returns its address */
  start(): bigint | undefined {
    if (this.#base === undefined) return undefined;
    this.#toldNs = this.#waitedNs;
    for (let at = 0; at < STRUCTURE_SIZE; at += 8) this.#memory.write64(this.#base + at, 0n);
    return BigInt(this.#base);
  }

  /** The vCPU has something to execute and nobody executes it. */
  wait(): void {
    this.#waitingSince ??= this.#clock.nowNs();
  }

  /** The host sleeps, which steals nothing, until {@link resume}. */
  suspend(): void {
    if (this.#waitingSince === undefined) return;
    this.#endWait();
    this.#waitsOn = true;
  }

  /** @param isRunnable whether the vCPU waits from now on, also where it did not before */
  resume(isRunnable: boolean): void {
    if (this.#waitsOn || isRunnable) this.wait();
    this.#waitsOn = false;
  }

  #endWait(): void {
    if (this.#waitingSince === undefined) return;
    this.#waitedNs += this.#clock.nowNs() - this.#waitingSince;
    this.#waitingSince = undefined;
  }

  /** The vCPU has the thread: tells the guest what it waited (kernel: kvm_update_stolen_time). */
  enter(): void {
    this.#endWait();
    if (this.#base === undefined) return;
    const more = Math.floor(this.#waitedNs - this.#toldNs);
    if (more <= 0) return;
    const stolen = this.#memory.read64(this.#base + STOLEN_TIME);
    if (stolen === undefined) return;
    const updated = BigInt.asUintN(64, stolen + BigInt(more));
    if (this.#memory.write64(this.#base + STOLEN_TIME, updated)) this.#toldNs += more;
  }
}
