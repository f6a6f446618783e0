import { sysregIndex } from '../../kvm/registers.js';
import type { Mmu } from '../mmu/mmu.js';
import { Daif, FPCR_MASK, FPSR_MASK, Pstate, SCTLR_PAUTH, SCTLR_RES1, SCTLR_WRITABLE, Sctlr } from './architecture.js';
import { BCR_MASK, BCR_RES1, WCR_MASK, WVR_MASK } from './breakpoints.js';
import type { CpuHost } from './cpu.js';
import { type DebugUnit, Mdscr, OSDLR_DLK, OSLSR_OSLK } from './debug.js';
import { isEmptyRegister } from './empty-registers.js';
import { ExitCode, Offset } from './layout.js';
import { pointerAuthChanged } from './pointer-auth.js';
import type { CpuState } from './state.js';
import { DEBUG_REGISTERS, isPointerAuthKey, PSEUDO, SR, type Sysreg, sysregByIndex } from './sysregs.js';

/** op0 = 3, op1 = 3, CRn = 14 of a system register's index. */
const CNT_SPACE = sysregIndex(3, 3, 14, 0, 0) >> 7;
const COUNTER_FREQUENCY = sysregIndex(3, 3, 14, 0, 0);
const OSLSR_OSLM = 0x8n;
const DBGCLAIM_BITS = 0xffn;
/** DBGPRCR_EL1.CORENPDRQ. */
const DBGPRCR_BITS = 1n;

/** The debug registers that decide which debug exceptions there can be. */
const DEBUG: ReadonlySet<number> = new Set(
  [SR.MDSCR_EL1, SR.OSLSR_EL1, SR.OSDLR_EL1, ...Object.values(DEBUG_REGISTERS).flat()].map((r) => r.index),
);

/** The registers that EL1 accesses by MRS and MSR and that have rules or effects of their own; plain ones are generated code's. */
export class SystemRegisters {
  readonly #state: CpuState;
  readonly #mmu: Mmu;
  readonly #host: CpuHost;
  readonly #pending: () => bigint;
  /** The vCPU has pointer authentication. */
  #pointerAuth = false;
  readonly #debug: DebugUnit;
  readonly #debugChanged: () => void;
  /** CCSIDR_EL1 by CSSELR_EL1: 32 KiB of L1 for data, 48 KiB for instructions, 1 MiB of L2 for both. */
  readonly #caches = [0x701f_e00an, 0x201f_e012n, 0x703f_e07an];

  /** @param pending ISR_EL1 @param debugChanged a register of self-hosted debug has changed */
  constructor(
    state: CpuState,
    mmu: Mmu,
    host: CpuHost,
    pending: () => bigint,
    debug: DebugUnit,
    debugChanged: () => void,
  ) {
    this.#state = state;
    this.#mmu = mmu;
    this.#host = host;
    this.#pending = pending;
    this.#debug = debug;
    this.#debugChanged = debugChanged;
  }

  get pointerAuth(): boolean {
    return this.#pointerAuth;
  }
  set pointerAuth(on: boolean) {
    this.#pointerAuth = on;
    this.regimeChanged();
  }

  /** A register that translation depends on has changed. */
  regimeChanged(): void {
    pointerAuthChanged(this.#state, this.#pointerAuth);
    this.#mmu.regimeChanged();
  }

  /** Whether this vCPU has the register. */
  #has(index: number): boolean {
    return this.#pointerAuth || !isPointerAuthKey(index);
  }

  // Raw access, for the kernel half.

  /** The value, whatever EL1 may read; `undefined` where there is no such register. */
  get(index: number): bigint | undefined {
    const state = this.#state;
    if (index === PSEUDO.FPCR) return BigInt(state.get32(Offset.FPCR) >>> 0);
    if (index === PSEUDO.FPSR) return BigInt(state.get32(Offset.FPSR) >>> 0);
    const reg = sysregByIndex(index);
    if (reg === undefined || !this.#has(index)) return undefined;
    if (reg === SR.SP_EL0) return state.get64(state.spOffset(0));
    if (reg === SR.SP_EL1) return state.get64(state.spOffset(1));
    if (reg === SR.CCSIDR_EL1) return this.#ccsidr();
    return state.get64(reg.offset);
  }

  /** Sets the value, whatever EL1 may write; `false` where there is no such register. */
  set(index: number, value: bigint): boolean {
    const state = this.#state;
    if (index === PSEUDO.FPCR) state.set32(Offset.FPCR, Number(value & FPCR_MASK));
    else if (index === PSEUDO.FPSR) state.set32(Offset.FPSR, Number(value & FPSR_MASK));
    else {
      const reg = sysregByIndex(index);
      if (reg === undefined || !this.#has(index)) return false;
      if (reg === SR.SP_EL0) state.set64(state.spOffset(0), value);
      else if (reg === SR.SP_EL1) state.set64(state.spOffset(1), value);
      else if (reg === SR.CCSIDR_EL1) this.#caches[this.#selectedCache] = value;
      else {
        state.set64(reg.offset, value);
        // Whoever sets registers from outside has no TLBI: what depended on the old value goes.
        if (index === SR.TTBR0_EL1.index || index === SR.TTBR1_EL1.index) this.#mmu.regimeChanged();
        else this.#changed(index);
      }
    }
    return true;
  }

  /** A register that translations or debug exceptions depend on was written. */
  #changed(index: number): void {
    switch (index) {
      case SR.SCTLR_EL1.index:
      case SR.TCR_EL1.index:
      case SR.MAIR_EL1.index:
        this.regimeChanged();
        return;
      case SR.TTBR0_EL1.index:
      case SR.TTBR1_EL1.index:
        this.#mmu.tablesChanged();
        return;
      case SR.CPACR_EL1.index:
        this.#mmu.regimeSelected();
        return;
      default:
        if (DEBUG.has(index)) this.#debugChanged();
    }
  }

  get #selectedCache(): number {
    return Number(this.#state.get64(SR.CSSELR_EL1.offset) & 0xfn);
  }

  #ccsidr(): bigint {
    return this.#caches[this.#selectedCache] ?? 0n;
  }

  // MRS.

  /** The value; where EXIT is set, the instruction was not allowed. */
  mrs(index: number): bigint {
    const state = this.#state;
    const { el } = state;
    switch (index) {
      case PSEUDO.DAIF:
        return this.#el0Needs(Sctlr.UMA) ? BigInt(state.get32(Offset.DAIF)) : 0n;
      case PSEUDO.DIT:
        return BigInt(state.get32(Offset.DIT));
      case PSEUDO.SSBS:
        return BigInt(state.get32(Offset.SSBS));
      case PSEUDO.RNDR:
      case PSEUDO.RNDRRS:
        return this.#random();
      case SR.CTR_EL0.index:
        return this.#el0Needs(Sctlr.UCT) ? state.get64(SR.CTR_EL0.offset) : 0n;
      case SR.DCZID_EL0.index: {
        // DZP says that DC ZVA is not permitted at this EL.
        const dzp = el === 0 && !state.sctlr(Sctlr.DZE) ? 0x10n : 0n;
        return state.get64(SR.DCZID_EL0.offset) | dzp;
      }
      case SR.SCXTNUM_EL0.index:
        return this.#contextNumberAllowed() ? state.get64(SR.SCXTNUM_EL0.offset) : 0n;
      case PSEUDO.MDCCSR_EL0:
      case PSEUDO.DBGDTR_EL0:
      case PSEUDO.DBGDTRXX_EL0:
        this.#debugChannelAllowed();
        return 0n;
      default:
    }
    const value = el === 0 ? this.#mrsAtEl0(index) : (this.#mrsAtEl1(index) ?? this.#host.readSysreg(index));
    return value ?? BigInt(state.leave(ExitCode.UNDEFINED));
  }

  /** RNDR and RNDRRS never fail here: NZCV is 0000. */
  #random(): bigint {
    const state = this.#state;
    const value = this.#host.random64?.();
    if (value === undefined) return BigInt(state.leave(ExitCode.UNDEFINED));
    state.setNzcv(0);
    return value;
  }

  /** What is left of the op1 = 3 space is the kernel half's. */
  #mrsAtEl0(index: number): bigint | undefined {
    if (((index >> 11) & 7) !== 3) return undefined;
    if (this.#timerTrapped(index)) return this.#trap();
    return this.#host.readSysreg(index);
  }

  #mrsAtEl1(index: number): bigint | undefined {
    const state = this.#state;
    switch (index) {
      case PSEUDO.CURRENT_EL:
        return 4n;
      case PSEUDO.SPSEL:
        return BigInt(state.get32(Offset.SPSEL));
      case PSEUDO.PAN:
        return BigInt(state.get32(Offset.PAN));
      case PSEUDO.UAO:
        return BigInt(state.get32(Offset.UAO));
      case PSEUDO.ISR_EL1:
        return this.#pending();
      case PSEUDO.MDRAR_EL1:
      case PSEUDO.OSDTRRX_EL1:
      case PSEUDO.OSDTRTX_EL1:
      case PSEUDO.DBGAUTHSTATUS_EL1:
        return 0n;
      case PSEUDO.DBGPRCR_EL1:
        return this.#debug.noPowerDown;
      case PSEUDO.DBGCLAIMCLR_EL1:
        return this.#debug.claims;
      case PSEUDO.DBGCLAIMSET_EL1:
        return DBGCLAIM_BITS;
      case SR.SP_EL1.index:
        return undefined;
      default: {
        if (isEmptyRegister(state, index, false)) return 0n;
        const reg = sysregByIndex(index);
        if (reg === SR.CCSIDR_EL1) return this.#ccsidr();
        if (!this.#has(index)) return undefined;
        return reg?.access === 'special' && reg !== SR.SP_EL0 ? state.get64(reg.offset) : undefined;
      }
    }
  }

  // MSR.

  /** Writes; where EXIT is set, the instruction was not allowed, or (RESYNC) is done and changes what comes next. */
  msr(index: number, signed: bigint): void {
    const state = this.#state;
    const value = BigInt.asUintN(64, signed);
    switch (index) {
      case PSEUDO.FPCR:
      case PSEUDO.FPSR:
        if (state.get32(Offset.FP_TRAP) !== 0) state.leave(ExitCode.FP_TRAP);
        else this.set(index, value);
        return;
      case PSEUDO.DAIF:
        if (!this.#el0Needs(Sctlr.UMA)) return;
        state.set32(Offset.DAIF, Number(value & BigInt(Daif.ALL)));
        this.#lookForInterrupts();
        return;
      case PSEUDO.DIT:
        state.set32(Offset.DIT, Number(value & BigInt(Pstate.DIT)));
        return;
      case PSEUDO.SSBS:
        state.set32(Offset.SSBS, Number(value & BigInt(Pstate.SSBS)));
        return;
      case SR.SCXTNUM_EL0.index:
        if (this.#contextNumberAllowed()) state.set64(SR.SCXTNUM_EL0.offset, value);
        return;
      case PSEUDO.DBGDTR_EL0:
      case PSEUDO.DBGDTRXX_EL0:
        this.#debugChannelAllowed();
        return;
      default:
    }
    if (state.el === 0) {
      if (((index >> 11) & 7) !== 3 || index === COUNTER_FREQUENCY) state.leave(ExitCode.UNDEFINED);
      else if (this.#timerTrapped(index)) this.#trap();
      else this.#msrHost(index, value);
    } else if (!this.#msrAtEl1(index, value)) this.#msrHost(index, value);
  }

  #msrHost(index: number, value: bigint): void {
    if (this.#host.writeSysreg(index, value)) this.#lookForInterrupts();
    else this.#state.leave(ExitCode.UNDEFINED);
  }

  /** Whether the register is the processor's. */
  #msrAtEl1(index: number, value: bigint): boolean {
    const state = this.#state;
    switch (index) {
      case PSEUDO.SPSEL:
        state.selectSp(Number(value & 1n));
        return true;
      case PSEUDO.PAN:
        state.set32(Offset.PAN, Number(value & BigInt(Pstate.PAN)));
        this.#mmu.regimeSelected();
        return true;
      case PSEUDO.UAO:
        state.set32(Offset.UAO, Number(value & BigInt(Pstate.UAO)));
        this.#mmu.regimeSelected();
        return true;
      case PSEUDO.OSLAR_EL1:
        return this.#write(SR.OSLSR_EL1, OSLSR_OSLM | ((value & 1n) !== 0n ? OSLSR_OSLK : 0n));
      case PSEUDO.OSDTRRX_EL1:
      case PSEUDO.OSDTRTX_EL1:
        return true;
      case PSEUDO.DBGPRCR_EL1:
        this.#debug.noPowerDown = value & DBGPRCR_BITS;
        this.#debugChanged();
        state.leave(ExitCode.RESYNC);
        return true;
      case PSEUDO.DBGCLAIMSET_EL1:
        this.#debug.claims |= value & DBGCLAIM_BITS;
        return true;
      case PSEUDO.DBGCLAIMCLR_EL1:
        this.#debug.claims &= ~value;
        return true;
      case SR.SP_EL1.index:
      case SR.CTR_EL0.index:
      case SR.DCZID_EL0.index:
      case SR.CCSIDR_EL1.index:
        return false;
      default: {
        if (isEmptyRegister(state, index, true)) return true;
        const reg = sysregByIndex(index);
        if (reg?.access !== 'special' || reg === SR.SP_EL0 || !this.#has(index)) return false;
        return this.#write(reg, this.#written(reg, value));
      }
    }
  }

  /** SCTLR_EL1 as it is after a write. */
  #sctlr(value: bigint): bigint {
    return (value & (this.#pointerAuth ? SCTLR_WRITABLE | SCTLR_PAUTH : SCTLR_WRITABLE)) | SCTLR_RES1;
  }

  /** What the guest's write leaves in a register. */
  #written(reg: Sysreg, value: bigint): bigint {
    if (reg === SR.SCTLR_EL1) return this.#sctlr(value);
    if (reg === SR.MDSCR_EL1) return this.#debug.mdscrWritten(value);
    if (reg === SR.OSDLR_EL1) return value & OSDLR_DLK;
    if (DEBUG_REGISTERS.bcr.includes(reg)) return (value & BCR_MASK) | BCR_RES1;
    if (DEBUG_REGISTERS.wcr.includes(reg)) return value & WCR_MASK;
    if (DEBUG_REGISTERS.wvr.includes(reg)) return value & WVR_MASK;
    return value;
  }

  /** Sets a register, with what depends on it. */
  #write(reg: Sysreg, value: bigint): true {
    const state = this.#state;
    if (state.get64(reg.offset) === value) return true;
    state.set64(reg.offset, value);
    if (isPointerAuthKey(reg.index)) return true;
    this.#changed(reg.index);
    // Where the next instruction comes from may have changed too.
    state.leave(ExitCode.RESYNC);
    return true;
  }

  // MSR (immediate).

  /** @param which op1 << 3 | op2 */
  pstateImmediate(which: number, value: number): void {
    const state = this.#state;
    const on = (value & 1) !== 0;
    switch (which) {
      case 0b011_110:
      case 0b011_111: {
        // DAIFSet and DAIFClr come here at EL0 only.
        if (!this.#el0Needs(Sctlr.UMA)) return;
        const daif = state.get32(Offset.DAIF);
        state.set32(Offset.DAIF, which === 0b011_110 ? daif | (value << 6) : daif & ~(value << 6));
        return;
      }
      case 0b011_001:
        state.set32(Offset.SSBS, on ? Pstate.SSBS : 0);
        return;
      case 0b011_010:
        state.set32(Offset.DIT, on ? Pstate.DIT : 0);
        return;
      default:
    }
    if (state.el === 0) {
      state.leave(ExitCode.UNDEFINED);
      return;
    }
    switch (which) {
      case 0b000_011:
        state.set32(Offset.UAO, on ? Pstate.UAO : 0);
        this.#mmu.regimeSelected();
        return;
      case 0b000_100:
        state.set32(Offset.PAN, on ? Pstate.PAN : 0);
        this.#mmu.regimeSelected();
        return;
      case 0b000_101:
        state.selectSp(on ? 1 : 0);
        return;
      default:
        state.leave(ExitCode.UNDEFINED);
    }
  }

  // What EL0 may do.

  /** An access that is EL1's, and EL0's where SCTLR_EL1 has the bit; else it traps. */
  #el0Needs(bit: number): boolean {
    if (this.#state.el !== 0 || this.#state.sctlr(bit)) return true;
    this.#trap();
    return false;
  }

  #contextNumberAllowed(): boolean {
    if (this.#state.el !== 0 || !this.#state.sctlr(Sctlr.TSCXT)) return true;
    this.#trap();
    return false;
  }

  /** There is no external debugger: the channel reads as zero and writes are ignored, as in KVM. */
  #debugChannelAllowed(): void {
    if (this.#state.el === 0 && (this.#state.get64(SR.MDSCR_EL1.offset) & Mdscr.TDCC) !== 0n) this.#trap();
  }

  /** Whether CNTKCTL_EL1 keeps a generic timer register from EL0 (Arm ARM DDI 0487 D13.8.24). */
  #timerTrapped(index: number): boolean {
    if (index >> 7 !== CNT_SPACE) return false;
    const allowed = Number(this.#state.get64(SR.CNTKCTL_EL1.offset));
    const crm = (index >> 3) & 15;
    const op2 = index & 7;
    if (op2 > 2) return false;
    if (crm === 2) return (allowed & 0x200) === 0;
    if (crm === 3) return (allowed & 0x100) === 0;
    if (crm !== 0) return false;
    if (op2 === 0) return (allowed & 3) === 0;
    return (allowed & op2) === 0;
  }

  /** EC 0x18: the syndrome is read from the instruction when the exception is taken. */
  #trap(): bigint {
    return BigInt(this.#state.leave(ExitCode.SYSREG_TRAP));
  }

  #lookForInterrupts(): void {
    if (this.#state.get32(Offset.ATTENTION) !== 0) this.#state.leave(ExitCode.RESYNC);
  }
}
