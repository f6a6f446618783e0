import { type DebugExit, GuestDebug, type GuestDebugControl, KvmError } from '../../kvm/index.js';
import { BREAKPOINTS, type Cpu, type DebugRegisters, WATCHPOINTS } from '../cpu/cpu.js';

/** KVM_GUESTDBG_VALID_MASK, the answer of KVM_CAP_SET_GUEST_DEBUG2. */
export const GUEST_DEBUG_VALID = Object.values(GuestDebug).reduce((mask, bit) => mask | bit, 0);
/** `struct kvm_guest_debug_arch` has so many registers of a kind. */
const REGISTERS_MAX = 16;
/** PSTATE.SS. */
const SS = 1n << 21n;
/** ESR_ELx.EC of a Software Step and of a Watchpoint exception from a lower EL. */
const EC_SOFTWARE_STEP = 0x32;
const EC_WATCHPOINT = 0x34;

/** What a host debugs of a vCPU (kernel: arch/arm64/kvm/debug.c), and whose PSTATE.SS is whose. */
export class VcpuDebug {
  readonly #cpu: Cpu;
  #control = 0;
  /** VCPU flags GUEST_SS_ACTIVE_PENDING and HOST_SS_ACTIVE_PENDING: PSTATE.SS of the guest's software step, or the host's, is clear. */
  #guestPending = false;
  #hostPending = false;

  constructor(cpu: Cpu) {
    this.#cpu = cpu;
  }

  /** KVM_SET_GUEST_DEBUG. @throws KvmError EINVAL bits of `control` that have no meaning, more registers than the structure has */
  set(debug: GuestDebugControl): void {
    const { control } = debug;
    if ((control & ~GUEST_DEBUG_VALID) !== 0) {
      throw invalid(
        `control is 0x${(control >>> 0).toString(16)}: only 0x${GUEST_DEBUG_VALID.toString(16)} has a meaning`,
      );
    }
    const registers = registersOf(debug);
    if ((control & GuestDebug.ENABLE) === 0) {
      this.#control = 0;
      this.#hostPending = false;
      this.#cpu.setDebug(undefined);
      return;
    }
    this.#control = control;
    this.#cpu.setDebug({
      singleStep: this.#singleSteps,
      registers: (control & GuestDebug.USE_HW) === 0 ? undefined : registers,
    });
  }

  get #singleSteps(): boolean {
    return (this.#control & GuestDebug.SINGLESTEP) !== 0;
  }

  #setSs(on: boolean): void {
    const pstate = this.#cpu.getPstate();
    if (((pstate & SS) !== 0n) !== on) this.#cpu.setPstate(pstate ^ SS);
  }

  /** kvm_vcpu_load_debug: KVM_RUN begins, and the host's software step takes the place of the guest's. */
  load(): void {
    if (!this.#singleSteps) return;
    this.#guestPending = (this.#cpu.getPstate() & SS) === 0n;
    this.#setSs(!this.#hostPending);
  }

  /** kvm_vcpu_put_debug: KVM_RUN ends. */
  put(): void {
    if (!this.#singleSteps) return;
    this.#hostPending = (this.#cpu.getPstate() & SS) === 0n;
    this.#setSs(!this.#guestPending);
  }

  /** kvm_handle_guest_debug. */
  exit(): DebugExit {
    const { esr, far } = this.#cpu.debugEvent;
    const ec = esr >>> 26;
    // The next run steps again.
    if (ec === EC_SOFTWARE_STEP) this.#setSs(true);
    return { reason: 'debug', hsr: esr, far: ec === EC_WATCHPOINT ? far : 0n };
  }
}

function registersOf(debug: GuestDebugControl): DebugRegisters {
  const of = (name: 'bcr' | 'bvr' | 'wcr' | 'wvr', count: number): bigint[] => {
    const given = debug[name] ?? [];
    if (given.length > REGISTERS_MAX)
      throw invalid(`${name} has ${given.length} registers: there are at most ${REGISTERS_MAX}`);
    return Array.from({ length: count }, (_, n) => BigInt.asUintN(64, given[n] ?? 0n));
  };
  return {
    bcr: of('bcr', BREAKPOINTS),
    bvr: of('bvr', BREAKPOINTS),
    wcr: of('wcr', WATCHPOINTS),
    wvr: of('wvr', WATCHPOINTS),
  };
}

const invalid = (detail: string): KvmError => new KvmError('EINVAL', 'KVM_SET_GUEST_DEBUG', detail);
