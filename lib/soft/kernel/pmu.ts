import type { Cpu } from '../cpu/cpu.js';
import { RESET_UNKNOWN } from './reset.js';

/** Event counters that the PMU has: KVM_ARM_VCPU_PMU_V3_SET_NR_COUNTERS can say less. */
export const MAX_EVENT_COUNTERS = 6;
/** The cycle counter's place among the counters. */
export const CYCLE_COUNTER = 31;
/** ID_AA64DFR0_EL1.PMUVer: PMUv3 for Armv8.5, where event counters have 64 bits; 16 bits of event numbers came with 8.1. */
export const PMU_VERSION = 6;
const VERSION_V8_1 = 4;
const VERSION_V8_5 = 6;

/**
 * The events that are counted (Arm ARM DDI 0487 D14.11). FEAT_PMUv3p1 requires the stalls: as every cycle is an instruction, there
 * are none.
 */
export const PmuEvent = {
  SW_INCR: 0x00,
  INST_RETIRED: 0x08,
  CPU_CYCLES: 0x11,
  CHAIN: 0x1e,
  STALL_FRONTEND: 0x23,
  STALL_BACKEND: 0x24,
} as const;

/** Bits of PMCR_EL0. */
export const Pmcr = { E: 1n << 0n, P: 1n << 1n, C: 1n << 2n, LC: 1n << 6n, LP: 1n << 7n, N_SHIFT: 11n } as const;
/** E, P, C, D, X, DP, LC, LP. */
const PMCR_WRITABLE = 0xffn;
/** Bits of PMEVTYPER<n>_EL0 and PMCCFILTR_EL0: not counted at EL1, at EL0. */
const NOT_AT_EL1 = 1n << 31n;
const NOT_AT_EL0 = 1n << 30n;

const LOW = 0xffff_ffffn;
/** PMSELR_EL0.SEL. */
export const SELECT_MASK = 0x1f;
/** PSTATE.M[2] at EL1. */
const EL1 = 0x4n;
/** A counter that has so far to go is not looked at before. */
const FAR = Number.MAX_SAFE_INTEGER;
/** By how many instructions a counter that counts at one EL only may be late. */
const MIN_BUDGET = 256;

/** What the PMUs of a VM's vCPUs share. */
export class PmuVmData {
  /** PMCR_EL0.N. */
  eventCounters = MAX_EVENT_COUNTERS;
  /** KVM_ARM_VCPU_PMU_V3_FILTER: event numbers that are counted; `undefined` for all. */
  #allowed: Uint8Array | undefined;

  /** Adds a range of events. The first range decides what becomes of the events that no range has: the contrary. */
  filter(base: number, count: number, allow: boolean): void {
    this.#allowed ??= new Uint8Array(0x1_0000).fill(allow ? 0 : 1);
    this.#allowed.fill(allow ? 1 : 0, base, base + count);
  }

  counts(event: number): boolean {
    return this.#allowed === undefined || this.#allowed[event] === 1;
  }
}

/**
 * The PMU of a vCPU, `struct kvm_pmu`: PMUv3 whose cycle is an instruction. Counters are brought up to date when somebody looks, and
 * before the first of them overflows, from what the processor has retired at EL0 and EL1.
 */
export class Pmu {
  /** PMEVCNTR<n>_EL0, and PMCCNTR_EL0 at {@link CYCLE_COUNTER}. */
  readonly #values = new BigUint64Array(32);
  /** PMEVTYPER<n>_EL0, and PMCCFILTR_EL0. */
  readonly #types = new BigUint64Array(32);
  readonly #vm: PmuVmData;
  readonly #cpu: Cpu;
  readonly #version: () => number;
  readonly #drive: (level: boolean) => void;
  #control = Pmcr.LC;
  #enabled = 0;
  #interrupts = 0;
  #overflows = 0;
  /** What the processor had retired, by EL, when the counters were last brought up to date. */
  readonly #seen = [0, 0];
  /** KVM_ARM_VCPU_PMU_V3_IRQ: INTID of a PPI or an SPI. */
  interrupt: number | undefined;
  /** KVM_ARM_VCPU_PMU_V3_INIT was done. */
  initialized = false;
  /** The interrupt's level. */
  output = false;
  /** PMSELR_EL0 and PMUSERENR_EL0. */
  selected = 0;
  userEnable = 0;

  /**
   * @param version ID_AA64DFR0_EL1.PMUVer
   * @param drive takes the interrupt's level when it changes
   */
  constructor(vm: PmuVmData, cpu: Cpu, version: () => number, drive: (level: boolean) => void) {
    this.#vm = vm;
    this.#cpu = cpu;
    this.#version = version;
    this.#drive = drive;
  }

  /** What the architecture leaves UNKNOWN is what it is after KVM's reset (kernel: reset_pmu_reg, reset_pmevcntr, reset_pmevtyper). */
  reset(): void {
    this.update();
    const unknown = Number(RESET_UNKNOWN & LOW);
    this.#values.fill(RESET_UNKNOWN & LOW);
    this.#values[CYCLE_COUNTER] = RESET_UNKNOWN;
    for (let counter = 0; counter < CYCLE_COUNTER; counter++) this.setType(counter, RESET_UNKNOWN);
    this.#types[CYCLE_COUNTER] = 0n;
    this.#control = Pmcr.LC;
    this.#enabled = unknown & this.counters;
    this.#interrupts = unknown & this.counters;
    this.#overflows = unknown & this.counters;
    this.selected = unknown & SELECT_MASK;
    this.userEnable = 0;
    this.#updateOutput();
  }

  // --- Registers ----------------------------------------------------------------------------------------------------

  /** The counters that there are, a bit each. */
  get counters(): number {
    return ((1 << CYCLE_COUNTER) | ((1 << this.#vm.eventCounters) - 1)) >>> 0;
  }

  has(counter: number): boolean {
    return counter === CYCLE_COUNTER || counter < this.#vm.eventCounters;
  }

  get control(): bigint {
    return this.#control | (BigInt(this.#vm.eventCounters) << Pmcr.N_SHIFT);
  }

  /** A write of PMCR_EL0, by the guest (which can reset counters by it) or from outside. */
  setControl(value: bigint, byGuest: boolean): void {
    this.update();
    const writable = byGuest && this.#version() < VERSION_V8_5 ? PMCR_WRITABLE & ~Pmcr.LP : PMCR_WRITABLE;
    // LC is RES1 without AArch32.
    this.#control = (value & writable & ~(Pmcr.P | Pmcr.C)) | Pmcr.LC;
    if (byGuest && (value & Pmcr.C) !== 0n) this.#values[CYCLE_COUNTER] = 0n;
    if (byGuest && (value & Pmcr.P) !== 0n) this.#values.fill(0n, 0, this.#vm.eventCounters);
    this.#updateOutput();
  }

  get enabled(): number {
    return this.#enabled & this.counters;
  }
  set enabled(mask: number) {
    this.update();
    this.#enabled = mask & this.counters;
  }

  get interrupts(): number {
    return this.#interrupts & this.counters;
  }
  set interrupts(mask: number) {
    this.#interrupts = mask & this.counters;
    this.#updateOutput();
  }

  get overflows(): number {
    this.update();
    return this.#overflows & this.counters;
  }
  set overflows(mask: number) {
    this.update();
    this.#overflows = mask & this.counters;
    this.#updateOutput();
  }

  value(counter: number): bigint {
    this.update();
    const value = this.#values[counter]!;
    return this.#isWide(counter) ? value : value & LOW;
  }

  setValue(counter: number, value: bigint): void {
    this.update();
    this.#values[counter] = this.#isWide(counter) ? value : value & LOW;
  }

  type(counter: number): bigint {
    return this.#types[counter]!;
  }

  setType(counter: number, value: bigint): void {
    this.update();
    const filters = NOT_AT_EL1 | NOT_AT_EL0;
    this.#types[counter] = value & (counter === CYCLE_COUNTER ? filters : filters | this.#eventMask());
  }

  /** PMCEID0_EL0 and PMCEID1_EL0: common events 0 to 31 in the low half, from 0x4000 in the high half. */
  identification(which: 0 | 1): bigint {
    let bits = 0n;
    for (const event of Object.values(PmuEvent)) {
      if (event >> 5 === which && this.#vm.counts(event)) bits |= 1n << BigInt(event & 31);
    }
    return bits;
  }

  /** PMSWINC_EL0. */
  softwareIncrement(mask: number): void {
    this.update();
    this.#increment(mask, PmuEvent.SW_INCR);
    this.#updateOutput();
  }

  // --- Counting -----------------------------------------------------------------------------------------------------

  #eventMask(): bigint {
    return this.#version() < VERSION_V8_1 ? 0x3ffn : 0xffffn;
  }

  /** Whether the counter has 64 bits. */
  #isWide(counter: number): boolean {
    return counter === CYCLE_COUNTER || this.#version() >= VERSION_V8_5;
  }

  /** Whether it overflows from bit 63, and not from bit 31. */
  #overflowsWide(counter: number): boolean {
    return (this.#control & (counter === CYCLE_COUNTER ? Pmcr.LC : Pmcr.LP)) !== 0n;
  }

  #event(counter: number): number {
    return counter === CYCLE_COUNTER ? PmuEvent.CPU_CYCLES : Number(this.#types[counter]! & this.#eventMask());
  }

  /** Whether the counter counts what is retired. */
  #countsInstructions(counter: number): boolean {
    if (((this.#enabled >>> counter) & 1) === 0 || !this.has(counter)) return false;
    const event = this.#event(counter);
    return (event === PmuEvent.CPU_CYCLES || event === PmuEvent.INST_RETIRED) && this.#vm.counts(event);
  }

  /** Whether there is anything to be brought up to date. */
  get isCounting(): boolean {
    return this.#enabled !== 0 && (this.#control & Pmcr.E) !== 0n;
  }

  /** Brings counters, overflows and the interrupt up to date. */
  update(): void {
    const atEl0 = this.#cpu.retired(0);
    const atEl1 = this.#cpu.retired(1);
    const delta0 = atEl0 - this.#seen[0]!;
    const delta1 = atEl1 - this.#seen[1]!;
    this.#seen[0] = atEl0;
    this.#seen[1] = atEl1;
    if (!this.isCounting || (delta0 === 0 && delta1 === 0)) return;
    for (let counter = 0; counter <= CYCLE_COUNTER; counter++) {
      if (!this.#countsInstructions(counter)) continue;
      const type = this.#types[counter]!;
      const delta = ((type & NOT_AT_EL0) === 0n ? delta0 : 0) + ((type & NOT_AT_EL1) === 0n ? delta1 : 0);
      if (delta > 0) this.#add(counter, BigInt(delta));
    }
    this.#updateOutput();
  }

  #add(counter: number, delta: bigint): void {
    const old = this.#values[counter]!;
    const wide = this.#overflowsWide(counter);
    this.#values[counter] = this.#isWide(counter) ? old + delta : (old + delta) & LOW;
    const overflowed = wide ? this.#values[counter]! < delta : (old & LOW) + delta > LOW;
    if (!overflowed) return;
    this.#overflows |= 1 << counter;
    // An even counter that overflows from bit 31 is what the odd one above it counts as CHAIN.
    if ((counter & 1) === 0 && counter + 1 < CYCLE_COUNTER && !wide)
      this.#increment(1 << (counter + 1), PmuEvent.CHAIN);
  }

  /** Adds one to those of the counters that count the event. */
  #increment(mask: number, event: number): void {
    if ((this.#control & Pmcr.E) === 0n) return;
    for (let counter = 0; counter < this.#vm.eventCounters; counter++) {
      const counts = ((mask & this.#enabled) >>> counter) & 1;
      if (counts === 1 && this.#event(counter) === event) this.#add(counter, 1n);
    }
  }

  /** Instructions to run before a counter may have overflowed by more than a few. */
  get budget(): number {
    if (!this.isCounting) return FAR;
    const notHere = (this.#cpu.getPstate() & EL1) === 0n ? NOT_AT_EL0 : NOT_AT_EL1;
    let least = FAR;
    for (let counter = 0; counter <= CYCLE_COUNTER; counter++) {
      if (!this.#countsInstructions(counter)) continue;
      const value = this.#values[counter]!;
      const left = this.#overflowsWide(counter) ? (1n << 64n) - value : (1n << 32n) - (value & LOW);
      if (left >= BigInt(least)) continue;
      // Where it does not count now, how many instructions come before it does is not known.
      least = (this.#types[counter]! & notHere) === 0n ? Number(left) : Math.max(Number(left), MIN_BUDGET);
    }
    return least;
  }

  #updateOutput(): void {
    const counting = (this.#control & Pmcr.E) !== 0n;
    const level = counting && (this.#overflows & this.#interrupts & this.counters) !== 0;
    if (level === this.output) return;
    this.output = level;
    this.#drive(level);
  }
}
