import type { PageProtection } from '../../kvm/contract.js';

/**
 * The seam between `kernel/` (what KVM keeps: VMs, memslots, vGIC, timers, PSCI) and the processor that executes
 * instructions. The kernel half knows no WebAssembly; the processor half knows no ioctl.
 */

/** Why {@link Cpu.run} came back. */
export const CpuStop = {
  /** The budget is spent, or {@link Cpu.requestStop} was called, or an interrupt line wants a look. PC is at the next instruction. */
  BUDGET: 0,
  /** A load or store to an address that no RAM backs (or a store to read-only RAM), and that {@link CpuHost.mmio} has not answered: see {@link Cpu.access}. PC is at the instruction. */
  MMIO: 1,
  /** WFI with nothing pending. PC is past it. */
  WFI: 2,
  /** WFE or YIELD: somebody else should run. PC is past it. */
  WFE: 3,
  /** HVC from EL1; {@link Cpu.hvcImmediate}. PC is past it. */
  HVC: 4,
  /** SMC from EL1; {@link Cpu.hvcImmediate}. PC is at it. */
  SMC: 5,
  /** A debug exception while {@link Cpu.setDebug} has them for the host: see {@link Cpu.debugEvent}. PC is the preferred return address. */
  DEBUG: 6,
  /**
   * An access, a fetch or a walk of the guest's tables needs a page that {@link MachineMemory.protect} keeps from it: of
   * {@link Cpu.access} `ipa` is valid, the page's. PC is at the instruction, which is to be executed again.
   */
  MEMORY_FAULT: 7,
} as const;
export type CpuStop = (typeof CpuStop)[keyof typeof CpuStop];

/** What an SError's syndrome says: IDS and ISS. */
export const SERROR_ISS = 0x1ff_ffffn;
/**
 * What a stop of the processor is counted as, in instructions of a budget and nanoseconds of a quantum, so that a guest
 * that does nothing but MMIO comes back to look at the clock in time.
 */
export const STOP_COST = 64;

/** The access behind CpuStop.MMIO, as ESR_EL2 would describe it (Arm ARM DDI 0487 D24.2.37, ISS for a Data Abort). */
export interface CpuAccess {
  /** Guest-physical address. */
  readonly ipa: number;
  /** Virtual address. */
  readonly va: bigint;
  readonly isWrite: boolean;
  /** ISV: the fields below are valid. Not so for pairs, write-back forms, SIMD&FP, atomics, and accesses to two pages. */
  readonly isv: boolean;
  /** Bytes: 1, 2, 4, 8. */
  readonly size: number;
  /** SSE: a load sign-extends. */
  readonly signExtend: boolean;
  /** SF: the register is 64 bits wide. */
  readonly sf: boolean;
  /** SRT: the register number; 31 is XZR. */
  readonly srt: number;
  /** The value to write, for stores: its halves, unsigned, and the whole of it. */
  readonly valueLo: number;
  readonly valueHi: number;
  readonly value: bigint;
}

/** Called by the processor for system registers that the kernel half owns (ICC_*, CNT*, PM*); index as in {@link sysregIndex}. */
export interface CpuHost {
  /** The value, or `undefined` where the access is UNDEFINED. */
  readSysreg(index: number): bigint | undefined;
  /** `false` where the access is UNDEFINED. */
  writeSysreg(index: number, value: bigint): boolean;
  /**
   * Answers {@link Cpu.access} with {@link Cpu.completeRead} or {@link Cpu.skipInstruction}, so that the run goes on; after `false`
   * it ends with CpuStop.MMIO. PC is at the instruction.
   */
  mmio?(): boolean;
  /**
   * Whether the run has lasted long enough, however little of its budget is spent: asked now and then while much is done besides
   * executing (decoding, compiling, translating, taking exceptions). `true` has the effect of {@link Cpu.requestStop}.
   */
  overdue?(): boolean;
  /** 64 random bits, for RNDR and RNDRRS. Without it there is no FEAT_RNG. */
  random64?(): bigint;
}

/** Breakpoints of a processor, the last of them that can match contexts (ID_AA64DFR0_EL1.CTX_CMPs), and watchpoints: as of a Cortex-A57. */
export const BREAKPOINTS = 6;
export const CONTEXT_BREAKPOINTS = 2;
export const WATCHPOINTS = 4;

/** DBGBCR<n>_EL1, DBGBVR<n>_EL1, DBGWCR<n>_EL1 and DBGWVR<n>_EL1, by number. */
export interface DebugRegisters {
  readonly bcr: readonly bigint[];
  readonly bvr: readonly bigint[];
  readonly wcr: readonly bigint[];
  readonly wvr: readonly bigint[];
}

/** What a host that debugs its guest wants (KVM_SET_GUEST_DEBUG). */
export interface CpuDebug {
  /** MDSCR_EL1.SS; PSTATE.SS is the caller's to set. */
  readonly singleStep: boolean;
  /** Breakpoints and watchpoints, in place of the guest's; `undefined` for none. */
  readonly registers: DebugRegisters | undefined;
}

/** One processing element: Armv8 AArch64 at EL1 and EL0. */
export interface Cpu {
  /** Runs at most about `budget` instructions (a block may overrun by a few hundred). */
  run(budget: number): CpuStop;
  /** Makes a `run()` in progress stop at the next instruction boundary it checks. For use inside {@link CpuHost} calls. */
  requestStop(): void;
  /**
   * Instructions executed since the vCPU was made; one that takes an exception instead counts as one. Inside {@link CpuHost}
   * calls, those before the one that makes the call.
   */
  readonly instructions: number;
  /** Of {@link instructions}, those that were executed at this EL to their end: without what took an exception instead (SVC and HVC do not). */
  retired(el: 0 | 1): number;

  /** Valid after CpuStop.MMIO. */
  readonly access: CpuAccess;
  /**
   * Completes the load of {@link access} with the low `size` bytes of a value, given as its halves, and passes the instruction. In
   * {@link CpuHost.mmio} that is done by the time that the host has returned.
   */
  completeRead(lo: number, hi: number): void;
  /** Passes the instruction at PC without executing it (a completed MMIO store, an SMC). */
  skipInstruction(): void;
  /** The immediate of the last HVC or SMC. */
  readonly hvcImmediate: number;

  /** Architectural reset to PSTATE 0x3c5 (EL1h, DAIF), MMU off, X0..X30 and PC 0. ID registers keep their values, interrupt inputs their levels. */
  reset(): void;
  /** X0..X30. */
  getX(n: number): bigint;
  setX(n: number, value: bigint): void;
  getPc(): bigint;
  setPc(value: bigint): void;
  /** SPSR layout. */
  getPstate(): bigint;
  setPstate(value: bigint): void;
  /** V0..V31, 128 bits. */
  getV(n: number): bigint;
  setV(n: number, value: bigint): void;
  /** A system register that the processor holds (SP_EL0, ELR_EL1, TTBR0_EL1, FPCR, ID registers …), by {@link sysregIndex}; `undefined` where it has none. */
  getSysreg(index: number): bigint | undefined;
  /** Sets it raw, whatever its guest-visible access; `false` where there is none. Invalidates what depends on it. */
  setSysreg(index: number, value: bigint): boolean;
  /** Indices of every system register that the processor holds. */
  sysregs(): readonly number[];
  /**
   * Whether there is pointer authentication (FEAT_PAuth, QARMA5): its instructions, its keys, its bits of SCTLR_EL1 and TCR_EL1,
   * and its fields of ID_AA64ISAR1_EL1. There is none at first.
   */
  pointerAuth: boolean;
  /** SP_EL1, whichever stack pointer is in use. */
  getSpEl1(): bigint;
  setSpEl1(value: bigint): void;

  /** The level of the IRQ and FIQ inputs; taken when PSTATE.I or F allows. */
  setIrq(level: boolean): void;
  setFiq(level: boolean): void;
  /** Whether an IRQ or FIQ input is asserted, masked or not: what WFI wakes on. */
  readonly interruptPending: boolean;
  /** Takes a synchronous external Data Abort for {@link access}. */
  injectExternalAbort(): void;
  /** Makes an SError pending with this ISS, of which {@link SERROR_ISS} counts. */
  injectSerror(esrIss: bigint): void;
  /** ISS of the SError that is pending, if one is. */
  readonly pendingSerror: bigint | undefined;
  /** Takes an SError that is pending and not masked, without executing an instruction. @returns whether there was one */
  takeSerror(): boolean;
  /**
   * While set, debug exceptions of every EL, BRK with them, stop {@link run} instead of being the guest's, and the guest's own
   * software step, breakpoints and watchpoints rest. Not from inside `run()`.
   */
  setDebug(debug: CpuDebug | undefined): void;
  /** Valid after CpuStop.DEBUG: the syndrome as of an exception from a lower EL, and for watchpoints the address. */
  readonly debugEvent: { readonly esr: number; readonly far: bigint };
  /** Takes an Undefined Instruction exception at PC. */
  injectUndefined(): void;
}

/** Guest RAM as the machine holds it. Ranges of pages are inside it, and whole pages. */
export interface MachineMemory {
  readonly size: number;
  readonly bytes: Uint8Array;
  /** Forgets decoded and compiled code in the range. */
  invalidate(offset: number, length: number): void;
  /** Says what processors may do with a range of pages from the next instruction on; at first all. */
  protect(offset: number, length: number, use: PageProtection): void;
  /** Whether {@link protect} allows an access to the byte. */
  allows(offset: number, isWrite: boolean): boolean;
  /** Which pages of a range processors have used since {@link clearUsed}: one bit each. All, before its first call. */
  used(offset: number, length: number): Uint8Array;
  clearUsed(offset: number, length: number): void;
  /** Gives the memory back, and takes it out of the guest-physical address space where it still is mapped. */
  free(): void;
}

/** What all processors of one VM share: physical memory and code. */
export interface Machine {
  /**
   * Allocates zeroed RAM. `undefined` where there is no room.
   * @throws RangeError a size that is not a positive multiple of 4096
   */
  allocate(size: number): MachineMemory | undefined;
  /** Largest size that {@link allocate} can still give. */
  readonly available: number;
  /**
   * Backs guest-physical `gpa`..`gpa+size` with memory.
   * @param readonly stores stop with CpuStop.MMIO
   * @param onDirty called with the guest page number at the first store to each page since `map` or `rearm`
   */
  map(
    gpa: number,
    size: number,
    memory: MachineMemory,
    offset: number,
    readonly: boolean,
    onDirty?: (gfn: number) => void,
  ): void;
  unmap(gpa: number, size: number): void;
  /** Makes the next store to each page of the range call `onDirty` again. */
  rearm(gpa: number, size: number): void;
  createCpu(host: CpuHost): Cpu;
  /** Not from inside the vCPU's `run()`. Its object must not run again. */
  destroyCpu(cpu: Cpu): void;
  close(): void;
}
