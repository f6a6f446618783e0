import { Daif } from './architecture.js';
import {
  type Breakpoint,
  breakpointsOf,
  debugAddress,
  type Watchpoint,
  watchedByte,
  watchpointsOf,
} from './breakpoints.js';
import { BREAKPOINTS, type CpuDebug, type DebugRegisters, WATCHPOINTS } from './cpu.js';
import { Offset } from './layout.js';
import type { CpuState } from './state.js';
import { DEBUG_REGISTERS, SR } from './sysregs.js';

/** MDSCR_EL1 (Arm ARM DDI 0487 D24.3.20). */
export const Mdscr = { SS: 1n << 0n, TDCC: 1n << 12n, KDE: 1n << 13n, MDE: 1n << 15n } as const;
/** What stands for EDSCR while the OS Lock is set, and is read-only else: ERR, HDE, SC2, TDA, INTdis, TXU, RXO, TXfull, RXfull. */
const MDSCR_OS_LOCKED = (1n << 6n) | (1n << 14n) | (1n << 19n) | (7n << 21n) | (3n << 26n) | (3n << 29n);
const MDSCR_WRITABLE = Mdscr.SS | Mdscr.TDCC | Mdscr.KDE | Mdscr.MDE;
/** OSLSR_EL1.OSLK. */
export const OSLSR_OSLK = 2n;
/** OSDLR_EL1.DLK. */
export const OSDLR_DLK = 1n;

const PAGE = 4096;
const EL0_BIT = 2;
const EL1_BIT = 1;

/**
 * Self-hosted debug of one vCPU (Arm ARM DDI 0487 D2): which debug exceptions there can be. Breakpoints and watchpoints cost
 * nothing elsewhere: a page that has one never gets into the translation tables, so that its accesses come to the MMU.
 */
export class DebugUnit {
  readonly #state: CpuState;
  /** Who debugs the guest from outside, if anybody does: to be followed by {@link refresh}. */
  host: CpuDebug | undefined;
  #locked = false;
  #kde = false;
  /** MDSCR_EL1.SS, with no lock set: software step is active wherever debug exceptions are enabled. */
  stepping = false;
  #breakpoints: readonly Breakpoint[] = [];
  #watchpoints: readonly Watchpoint[] = [];
  /** DBGCLAIMSET_EL1's tags, and DBGPRCR_EL1.CORENPDRQ. */
  claims = 0n;
  noPowerDown = 0n;

  constructor(state: CpuState) {
    this.#state = state;
  }

  /** Debug exceptions go to the host, whatever the guest says (MDCR_EL2.TDE). */
  get isHosts(): boolean {
    return this.host !== undefined;
  }

  /** Software step becomes active when PSTATE.D is cleared. */
  get waitsForUnmask(): boolean {
    return this.stepping && this.#kde && !this.isHosts;
  }

  reset(): void {
    this.claims = 0n;
    this.noPowerDown = 0n;
  }

  /** A register has changed. @returns whether the pages that must stay out of the translation tables may be others now */
  refresh(): boolean {
    const state = this.#state;
    const { host } = this;
    const before = this.#breakpoints.length + this.#watchpoints.length;
    const mdscr = state.get64(SR.MDSCR_EL1.offset);
    const doubleLocked = (state.get64(SR.OSDLR_EL1.offset) & OSDLR_DLK) !== 0n && this.noPowerDown === 0n;
    this.#locked = doubleLocked || (state.get64(SR.OSLSR_EL1.offset) & OSLSR_OSLK) !== 0n;
    this.#kde = (mdscr & Mdscr.KDE) !== 0n;
    this.stepping = host === undefined ? !this.#locked && (mdscr & Mdscr.SS) !== 0n : host.singleStep;
    let registers: DebugRegisters | undefined;
    if (host !== undefined) registers = host.registers;
    else if (!this.#locked && (mdscr & Mdscr.MDE) !== 0n) registers = this.#own();
    this.#breakpoints = registers === undefined ? [] : breakpointsOf(registers, this.isHosts);
    this.#watchpoints = registers === undefined ? [] : watchpointsOf(registers, this.isHosts);
    return before + this.#breakpoints.length + this.#watchpoints.length > 0;
  }

  #own(): DebugRegisters {
    const read = (n: number, which: 'bcr' | 'bvr' | 'wcr' | 'wvr'): bigint =>
      this.#state.get64(DEBUG_REGISTERS[which][n]!.offset);
    const breakpoints = Array.from({ length: BREAKPOINTS }, (_, n) => n);
    const watchpoints = Array.from({ length: WATCHPOINTS }, (_, n) => n);
    return {
      bcr: breakpoints.map((n) => read(n, 'bcr')),
      bvr: breakpoints.map((n) => read(n, 'bvr')),
      wcr: watchpoints.map((n) => read(n, 'wcr')),
      wvr: watchpoints.map((n) => read(n, 'wvr')),
    };
  }

  /** Whether debug exceptions are enabled from the current EL (AArch64.GenerateDebugExceptions); all but BRK want that. */
  get isEnabled(): boolean {
    if (this.isHosts) return true;
    if (this.#locked) return false;
    const state = this.#state;
    return state.el === 0 || (this.#kde && (state.get32(Offset.DAIF) & Daif.D) === 0);
  }

  /** What a write leaves in MDSCR_EL1. */
  mdscrWritten(value: bigint): bigint {
    const old = this.#state.get64(SR.MDSCR_EL1.offset);
    const isOsLocked = (this.#state.get64(SR.OSLSR_EL1.offset) & OSLSR_OSLK) !== 0n;
    const writable = isOsLocked ? MDSCR_WRITABLE | MDSCR_OS_LOCKED : MDSCR_WRITABLE;
    return (old & ~writable) | (value & writable);
  }

  // Breakpoints.

  /** Whether instructions of a page must be looked at one by one. */
  breaksInPage(lo: number, hi: number): boolean {
    if (this.#breakpoints.length === 0) return false;
    const page = debugAddress(lo & ~(PAGE - 1), hi);
    return this.#breakpoints.some((b) => b.address === undefined || (b.address >= page && b.address < page + PAGE));
  }

  /** Whether the instruction at that address is to take a Breakpoint exception. */
  breaksAt(lo: number, hi: number): boolean {
    if (this.#breakpoints.length === 0 || !this.isEnabled) return false;
    const address = debugAddress(lo, hi);
    const el0 = this.#state.el === 0;
    return this.#breakpoints.some((b) => (b.address === undefined || b.address === address) && this.#holds(b, el0));
  }

  // Watchpoints.

  /** Whether every access to a page must be looked at. */
  watchesPage(lo: number, hi: number): boolean {
    if (this.#watchpoints.length === 0) return false;
    const page = debugAddress(lo & ~(PAGE - 1), hi);
    return this.#watchpoints.some((w) => w.first < page + PAGE && w.end > page);
  }

  /**
   * The first byte of an access that takes a Watchpoint exception, as its distance from the address; -1 where none does.
   * @param el0 the access is one of EL0, or unprivileged
   */
  watches(lo: number, hi: number, size: number, isWrite: boolean, el0: boolean): number {
    if (this.#watchpoints.length === 0 || !this.isEnabled) return -1;
    const address = debugAddress(lo, hi);
    let first = -1;
    for (const w of this.#watchpoints) {
      if (!(isWrite ? w.stores : w.loads) || !this.#holds(w, el0)) continue;
      const at = watchedByte(w, address, size);
      if (at >= 0 && (first < 0 || at < first)) first = at;
    }
    return first;
  }

  #holds(condition: Breakpoint | Watchpoint, el0: boolean): boolean {
    if ((condition.els & (el0 ? EL0_BIT : EL1_BIT)) === 0) return false;
    const { context } = condition;
    return context === undefined || Number(BigInt.asUintN(32, this.#state.get64(SR.CONTEXTIDR_EL1.offset))) === context;
  }
}

/** Load-exclusive: LDXR, LDAXR, LDXP, LDAXP and their narrow forms. */
export const isLoadExclusive = (word: number): boolean =>
  (word & 0x3fe0_0000) === 0x0840_0000 || (word & 0xbfe0_0000) >>> 0 === 0x8860_0000;

/** Store-exclusive: STXR, STLXR, STXP, STLXP and their narrow forms. */
export const isStoreExclusive = (word: number): boolean =>
  (word & 0x3fe0_0000) === 0x0800_0000 || (word & 0xbfe0_0000) >>> 0 === 0x8820_0000;
