import { isZeroing } from '../mmu/alignment.js';
import { Mmu } from '../mmu/mmu.js';
import { TLB_CONTEXTS_AREA } from '../mmu/tlb-contexts.js';
import { FaultStatus } from '../mmu/translate.js';
import { Access, fromHalves } from './access.js';
import { accessSyndrome, Esr, ExceptionClass, Sctlr, StepSyndrome, Vector } from './architecture.js';
import { type Cpu, type CpuDebug, type CpuHost, CpuStop, SERROR_ISS } from './cpu.js';
import { DebugUnit, isLoadExclusive, isStoreExclusive } from './debug.js';
import { type AccessingProcessor, DeviceAccess } from './device-access.js';
import { enterException, returnedPstate } from './exceptions.js';
import { identify, isIdentification, setPointerAuth } from './identification.js';
import { InterruptInputs } from './interrupt-inputs.js';
import { ExitCode, Offset, STATE_SIZE } from './layout.js';
import type { SoftMachine } from './machine.js';
import { Maintenance } from './maintenance.js';
import { MemoryCopy } from './memory-copy.js';
import { CpuState } from './state.js';
import { isPointerAuthKey, PSEUDO, SR, SYSREGS } from './sysregs.js';
import { SystemRegisters } from './system-registers.js';
import { Work } from './work.js';

/** Bytes of linear memory that a vCPU needs. */
export const CPU_AREA = STATE_SIZE + TLB_CONTEXTS_AREA;

const MONITOR_OPEN = 0xffff_ffff_ffff_ffffn;
/** PSTATE after reset: EL1h, all interrupts masked. */
const RESET_PSTATE = 0x3c5;
/** Largest budget of one run: what generated code counts down fits 32 bits with room for an overrun. */
const MAX_BUDGET = 0x4000_0000;
/** ISS of what traps unconditionally: CV = 1, COND = 0b1110. */
const ISS_ALWAYS = 0x1e0_0000;
/** YIELD, which leaves generated code as WFE does but is never trapped. */
const YIELD = 0xd503_203f;
/** What the last instruction was to software step: not stepped, stepped, or a Load-Exclusive that was stepped. */
const Stepped = { NO: 0, YES: 1, EXCLUSIVE: 2 } as const;
type Stepped = (typeof Stepped)[keyof typeof Stepped];

/** One vCPU: its registers, what makes generated code leave, exceptions and interrupts. */
export class Processor implements Cpu, AccessingProcessor {
  /** Who is asked for what the processor itself does not know. */
  readonly host: CpuHost;
  readonly #machine: SoftMachine;
  readonly #state: CpuState;
  readonly mmu: Mmu;
  readonly #debug: DebugUnit;
  readonly #registers: SystemRegisters;
  readonly #maintenance: Maintenance;
  readonly #memoryCopy: MemoryCopy;
  /** Where the state rests while another vCPU runs; the translation tables follow it. */
  #area: number;
  readonly access = new Access();
  hvcImmediate = 0;
  /** Instructions of earlier runs; of this run what was given, and what was taken off the budget without being executed. */
  #retired = 0;
  #given = 0;
  #stolen = 0;
  /** Executed to the end, by EL, up to when the current EL was entered; and the count of instructions then. */
  readonly #retiredAt: [number, number] = [0, 0];
  #atElSince = 0;
  #running = false;
  #destroyed = false;
  readonly #inputs = new InterruptInputs();
  /** The instruction that is executed now is stepped: software step is active-not-pending. */
  #stepActive = false;
  #stepped: Stepped = Stepped.NO;
  /** The instruction at PC is a store-exclusive, to be executed with {@link Mmu.loadsUnwatched}. */
  #storeExclusive = false;
  #stopRequested = false;
  readonly #devices: DeviceAccess;
  readonly debugEvent = { esr: 0, far: 0n };

  /** @param area linear address of CPU_AREA bytes, zeroed */
  constructor(machine: SoftMachine, host: CpuHost, area: number) {
    this.host = host;
    this.#machine = machine;
    this.#area = area;
    this.#state = new CpuState(machine.views, area);
    this.#debug = new DebugUnit(this.#state);
    const answer = (): number => this.#devices.inPlace();
    this.mmu = new Mmu(machine, this.#state, this.access, this.#debug, area + STATE_SIZE, answer);
    this.#devices = new DeviceAccess(this, machine, this.#state);
    this.#registers = new SystemRegisters(
      this.#state,
      this.mmu,
      host,
      () => this.#inputs.status,
      this.#debug,
      () => this.#debugChanged(),
    );
    this.#maintenance = new Maintenance(this.#state, this.mmu, () => machine.cpus.map((cpu) => cpu.mmu));
    this.#memoryCopy = new MemoryCopy(
      this.#state,
      this.mmu,
      () => machine.views,
      (cost) => this.charge(cost),
    );
    identify(this.#state, host.random64 !== undefined);
    this.reset();
  }

  // Where the state is.

  get area(): number {
    return this.#area;
  }
  set base(address: number) {
    this.#state.base = address;
  }

  /** The vCPU is gone: its object may still be touched, and then touches `graveyard`. */
  retire(graveyard: number): void {
    this.#destroyed = true;
    this.#area = graveyard;
    this.#state.base = graveyard;
    this.mmu.contexts.retired = true;
  }

  reset(): void {
    const state = this.#state;
    const kept = SYSREGS.filter(isIdentification).map((r) => [r.offset, state.get64(r.offset)] as const);
    // The budget of a run that is under way and the interrupt inputs are not the vCPU's to reset.
    const budget = state.get32(Offset.BUDGET);
    this.#leaveEl();
    this.#machine.views.u8.fill(0, state.base, state.base + STATE_SIZE);
    state.set32(Offset.BUDGET, budget);
    for (const r of SYSREGS) state.set64(r.offset, r.reset);
    for (const [offset, value] of kept) state.set64(offset, value);
    state.set64(Offset.MONITOR_ADDRESS, MONITOR_OPEN);
    this.#inputs.serror = undefined;
    this.#machine.changes++;
    state.setPstate(RESET_PSTATE);
    this.#stepped = Stepped.NO;
    this.#debug.reset();
    this.#debug.refresh();
    this.#registers.regimeChanged();
    this.#attention();
  }

  // Registers.

  getX(n: number): bigint {
    return this.#state.get64(Offset.X + n * 8);
  }
  setX(n: number, value: bigint): void {
    this.#state.set64(Offset.X + n * 8, value);
  }
  getPc(): bigint {
    return this.#state.get64(Offset.PC);
  }
  setPc(value: bigint): void {
    this.#machine.changes++;
    this.#state.set64(Offset.PC, value);
  }
  getV(n: number): bigint {
    const at = Offset.V0 + n * 16;
    return this.#state.get64(at) | (this.#state.get64(at + 8) << 64n);
  }
  setV(n: number, value: bigint): void {
    const at = Offset.V0 + n * 16;
    this.#state.set64(at, BigInt.asUintN(64, value));
    this.#state.set64(at + 8, BigInt.asUintN(64, value >> 64n));
  }
  getPstate(): bigint {
    return BigInt(this.#state.getPstate());
  }
  setPstate(value: bigint): void {
    this.#setPstate(Number(BigInt.asUintN(32, value)));
  }
  #setPstate(bits: number): void {
    this.#machine.changes++;
    this.#leaveEl();
    this.#state.setPstate(bits);
    this.mmu.levelSelected();
  }
  getSpEl1(): bigint {
    return this.#state.get64(this.#state.spOffset(1));
  }
  setSpEl1(value: bigint): void {
    this.#state.set64(this.#state.spOffset(1), value);
  }
  sysregs(): readonly number[] {
    const there = SYSREGS.map((r) => r.index).filter(
      (index) => this.#registers.pointerAuth || !isPointerAuthKey(index),
    );
    return [...there, PSEUDO.FPCR, PSEUDO.FPSR];
  }
  getSysreg(index: number): bigint | undefined {
    return this.#registers.get(index);
  }
  setSysreg(index: number, value: bigint): boolean {
    this.#machine.changes++;
    return this.#registers.set(index, value);
  }

  get pointerAuth(): boolean {
    return this.#registers.pointerAuth;
  }
  set pointerAuth(on: boolean) {
    setPointerAuth(this.#state, on);
    this.#registers.pointerAuth = on;
  }

  // What generated code calls.

  mrs(index: number): bigint {
    return this.#registers.mrs(index);
  }
  msr(index: number, value: bigint): void {
    this.#registers.msr(index, value);
  }
  pstateImmediate(which: number, value: number): void {
    this.#registers.pstateImmediate(which, value);
  }
  sys(index: number, lo: number, hi: number): void {
    this.#maintenance.sys(index, lo, hi);
  }

  /** Sets the event register, which the next WFE finds. */
  sendEvent(): void {
    this.#state.set32(Offset.EVENT, 1);
  }

  // Running.

  get instructions(): number {
    return this.#running
      ? this.#retired + this.#given - this.#stolen - this.#state.get32(Offset.BUDGET)
      : this.#retired;
  }

  retired(el: 0 | 1): number {
    return this.#retiredAt[el] + (el === this.#state.el ? this.instructions - this.#atElSince : 0);
  }

  /** To be called before the EL may change. */
  #leaveEl(): void {
    const now = this.instructions;
    this.#retiredAt[this.#state.el] += now - this.#atElSince;
    this.#atElSince = now;
  }

  requestStop(): void {
    if (!this.#running) return;
    this.#stopRequested = true;
    const left = this.#state.get32(Offset.BUDGET);
    if (left < 0) return;
    this.#stolen += left + 1;
    this.#state.set32(Offset.BUDGET, -1);
  }

  run(budget: number): CpuStop {
    if (this.#destroyed) throw new Error('the vCPU was destroyed');
    this.#machine.activate(this);
    this.#machine.code.tick();
    // Not a number is no budget.
    this.#given = Math.floor(Math.min(Math.max(budget, 0), MAX_BUDGET)) || 0;
    this.#stolen = 0;
    this.#state.set32(Offset.BUDGET, this.#given);
    this.#running = true;
    try {
      return this.#loop();
    } finally {
      this.#retired = this.instructions;
      this.#running = false;
    }
  }

  #loop(): CpuStop {
    const machine = this.#machine;
    const { interpreter } = machine;
    const state = this.#state;
    for (;;) {
      const storeExclusive = this.#storeExclusive;
      if (!storeExclusive) this.#takeInterrupts();
      this.#stepActive = this.#debug.stepping && this.#debug.isEnabled;
      if (this.#stepActive && !state.singleStep) {
        if (this.#softwareStep()) return CpuStop.DEBUG;
        continue;
      }
      state.set32(Offset.EXIT, ExitCode.NONE);
      if (!state.illegal) {
        this.#stepped = Stepped.NO;
        if (this.#stepActive || storeExclusive || this.mmu.waives) this.#executeOne();
        else interpreter.run();
      } else if (this.mmu.fetchMiss() !== 0) {
        // No instruction executes in an illegal state, but to be fetched comes first.
        this.#refuse(ExceptionClass.ILLEGAL_STATE, 0);
        continue;
      }
      this.mmu.endWaiver();
      machine.worked(Work.EXCEPTION);
      if (state.get32(Offset.EXIT) === ExitCode.COPY && this.#memoryCopy.afterExit()) {
        this.#pass();
        continue;
      }
      switch (state.get32(Offset.EXIT)) {
        case ExitCode.BUDGET:
          if (state.get32(Offset.BUDGET) < 0) return CpuStop.BUDGET;
          break;
        case ExitCode.RESYNC:
          this.#pass();
          break;
        case ExitCode.REDIRECT:
          break;
        case ExitCode.ERROR_BARRIER:
          this.#deferError();
          this.#pass();
          break;
        case ExitCode.UNDEFINED:
        case ExitCode.HLT:
          this.#refuse(ExceptionClass.UNKNOWN, 0);
          break;
        case ExitCode.SVC:
          this.#pass();
          this.#exception(Vector.SYNC, ExceptionClass.SVC64, state.get32(Offset.DETAIL) & 0xffff);
          break;
        case ExitCode.HVC:
        case ExitCode.SMC: {
          if (state.el === 0) {
            this.#refuse(ExceptionClass.UNKNOWN, 0);
            break;
          }
          this.hvcImmediate = state.get32(Offset.DETAIL) & 0xffff;
          if (state.get32(Offset.EXIT) === ExitCode.SMC) return CpuStop.SMC;
          return this.#trapped(CpuStop.HVC);
        }
        case ExitCode.BRK:
          this.mmu.recoverBranchType();
          if (this.#softwareBreakpoint(state.get32(Offset.DETAIL) & 0xffff)) return CpuStop.DEBUG;
          break;
        case ExitCode.WFI:
          if (!this.interruptPending) {
            if (this.#trapWait(Sctlr.nTWI, 0)) break;
            return this.#trapped(CpuStop.WFI);
          }
          this.#pass();
          break;
        case ExitCode.WFE:
          if (this.#trapWait(Sctlr.nTWE, 1)) break;
          return this.#trapped(CpuStop.WFE);
        case ExitCode.ERET:
          this.#eret();
          break;
        case ExitCode.DATA_ABORT:
          if (this.mmu.fault.status === FaultStatus.ALIGNMENT && !this.mmu.isAlignmentFault()) {
            this.mmu.waiveAlignment();
            this.#storeExclusive = storeExclusive;
          } else if (this.mmu.fault.status !== FaultStatus.DEBUG) this.#takeDataAbort();
          else if (this.#watchpoint()) return CpuStop.DEBUG;
          break;
        case ExitCode.FETCH_ABORT:
          if (this.mmu.fault.status !== FaultStatus.DEBUG) this.#takeFetchAbort();
          else if (this.#debugException(ExceptionClass.BREAKPOINT_LOWER, FaultStatus.DEBUG)) return CpuStop.DEBUG;
          break;
        case ExitCode.MMIO:
          if (!this.#devices.afterExit()) return CpuStop.MMIO;
          break;
        case ExitCode.MEMORY_FAULT:
          return CpuStop.MEMORY_FAULT;
        case ExitCode.PC_ALIGNMENT:
          state.set64(SR.FAR_EL1.offset, this.getPc());
          this.#refuse(ExceptionClass.PC_ALIGNMENT, 0);
          break;
        case ExitCode.SP_ALIGNMENT:
          this.#refuse(ExceptionClass.SP_ALIGNMENT, 0);
          break;
        case ExitCode.BRANCH_TARGET:
          this.#refuse(ExceptionClass.BRANCH_TARGET, state.get32(Offset.BTYPE) >> 2);
          break;
        case ExitCode.WRONG_COPY:
          this.#refuse(ExceptionClass.MEMORY_COPY, state.get32(Offset.DETAIL));
          break;
        case ExitCode.FP_TRAP:
          this.#refuse(ExceptionClass.FP, ISS_ALWAYS);
          break;
        case ExitCode.SYSREG_TRAP:
          this.#refuse(ExceptionClass.SYSREG, accessSyndrome(this.mmu.currentWord()));
          break;
        default:
          throw new Error(`the processor left its code for no known reason (${state.get32(Offset.EXIT)})`);
      }
    }
  }

  /** Counts an instruction that generated code did not. */
  #count(): void {
    this.#state.set32(Offset.BUDGET, this.#state.get32(Offset.BUDGET) - 1);
  }

  /** The instruction at PC is done. */
  #pass(): void {
    if (this.#stepActive) this.#stepOver(this.mmu.currentWord());
    this.#advance();
    this.#count();
  }

  /** The instruction at PC is done, as far as the processor goes. */
  #trapped(stop: CpuStop): CpuStop {
    this.#pass();
    this.#stepped = Stepped.NO;
    return stop;
  }

  #advance(): void {
    const state = this.#state;
    const lo = (state.get32(Offset.PC) + 4) | 0;
    state.set32(Offset.PC, lo);
    if (lo >= 0 && lo < 4) state.set32(Offset.PC + 4, state.get32(Offset.PC + 4) + 1);
    state.set32(Offset.BTYPE, 0);
  }

  /**
   * The instruction at PC takes an exception instead. It is counted: a guest whose vectors fault has to come to the end of its
   * budget too.
   */
  #refuse(ec: ExceptionClass, iss: number): void {
    this.#count();
    this.#retiredAt[this.#state.el]--;
    this.#exception(Vector.SYNC, ec, iss);
  }

  skipInstruction(): void {
    this.#state.singleStep = false;
    this.#advance();
    if (this.#running) this.#count();
    else this.#retired++;
  }

  charge(cost: number): void {
    this.#stolen += cost;
    this.#state.set32(Offset.BUDGET, this.#state.get32(Offset.BUDGET) - cost);
  }

  /** Executes the instruction at PC and no other. EXIT is BUDGET where nothing else came of it. */
  #executeOne(): void {
    const { mmu } = this;
    const state = this.#state;
    const left = state.get32(Offset.BUDGET);
    const word = mmu.currentWord();
    mmu.loadsUnwatched = this.#storeExclusive;
    this.#storeExclusive = false;
    mmu.oneByOne = true;
    // With nothing left of the budget, generated code comes back behind the instruction.
    if (left > 0) {
      this.#stolen += left;
      state.set32(Offset.BUDGET, 0);
    }
    this.#stopRequested = false;
    this.#machine.interpreter.run();
    mmu.oneByOne = false;
    mmu.loadsUnwatched = false;
    const isDone = state.get32(Offset.EXIT) === ExitCode.BUDGET && left >= 0;
    if (left > 0 && !this.#stopRequested) {
      this.#stolen -= left;
      state.set32(Offset.BUDGET, state.get32(Offset.BUDGET) + left);
    }
    if (isDone && this.#stepActive) this.#stepOver(word);
  }

  #trapWait(control: number, isWfe: 0 | 1): boolean {
    if (this.#state.el !== 0 || this.#state.sctlr(control)) return false;
    if (isWfe === 1 && this.mmu.currentWord() === YIELD) return false;
    this.#refuse(ExceptionClass.WFX, ISS_ALWAYS | isWfe);
    return true;
  }

  // MMIO.

  completeRead(lo: number, hi: number): void {
    if (this.#running && this.#devices.takeRead(lo, hi)) return;
    this.access.complete(this.#state, lo, hi);
    this.skipInstruction();
  }

  // Exceptions.

  /** Takes an exception to EL1. PC is the preferred return address. */
  #exception(kind: Vector, ec: ExceptionClass, iss: number): void {
    this.#machine.changes++;
    this.#leaveEl();
    enterException(this.#state, kind, ec, iss);
    this.#stepped = Stepped.NO;
    this.mmu.endWaiver();
    this.mmu.levelSelected();
  }

  #eret(): void {
    const state = this.#state;
    if (state.el === 0) {
      this.#refuse(ExceptionClass.UNKNOWN, 0);
      return;
    }
    this.#count();
    const target = state.get32(Offset.DETAIL) === 1 ? Offset.SCRATCH : SR.ELR_EL1.offset;
    const wasEnabled = this.#debug.isEnabled;
    state.set64(Offset.MONITOR_ADDRESS, MONITOR_OPEN);
    this.sendEvent();
    this.#setPstate(returnedPstate(state));
    // DebugExceptionReturnSS: only a return from where debug exceptions are disabled starts a step.
    state.singleStep &&= this.#debug.stepping && !wasEnabled && this.#debug.isEnabled;
    if (this.#stepActive) this.#stepped = Stepped.YES;
    state.copy64(Offset.PC, target);
  }

  // Debug.

  setDebug(debug: CpuDebug | undefined): void {
    this.#debug.host = debug;
    this.#debugChanged();
  }

  #debugChanged(): void {
    if (this.#debug.refresh()) this.mmu.contexts.flush();
    this.#attention();
  }

  /** Software step goes from active-not-pending to active-pending, for an instruction that is done (SSAdvance). */
  #stepOver(word: number): void {
    this.#state.singleStep = false;
    this.#stepped = isLoadExclusive(word) ? Stepped.EXCLUSIVE : Stepped.YES;
  }

  /** Takes a debug exception. @param ec the class as from a lower EL @returns whether it is the host's */
  #debugException(ec: ExceptionClass, iss: number): boolean {
    if (this.#debug.isHosts) {
      this.debugEvent.esr = ((ec << 26) | Esr.IL | iss) >>> 0;
      return true;
    }
    const same = ec !== ExceptionClass.BRK64 && this.#state.el !== 0;
    this.#refuse((same ? ec + 1 : ec) as ExceptionClass, iss);
    return false;
  }

  #softwareStep(): boolean {
    const valid = this.#stepped === Stepped.NO ? 0 : StepSyndrome.ISV;
    const exclusive = this.#stepped === Stepped.EXCLUSIVE ? StepSyndrome.EX : 0;
    return this.#debugException(ExceptionClass.SOFTWARE_STEP_LOWER, valid | exclusive | FaultStatus.DEBUG);
  }

  #softwareBreakpoint(comment: number): boolean {
    return this.#debugException(ExceptionClass.BRK64, comment);
  }

  #watchpoint(): boolean {
    const { isWrite, isMaintenance } = this.mmu.fault;
    if (!isWrite && isStoreExclusive(this.mmu.currentWord())) {
      this.#storeExclusive = true;
      return false;
    }
    const far = this.#faultAddress();
    if (this.#debug.isHosts) this.debugEvent.far = far;
    else this.#state.set64(SR.FAR_EL1.offset, far);
    const iss = FaultStatus.DEBUG | (isWrite ? Esr.WNR : 0) | (isMaintenance ? Esr.CM : 0);
    return this.#debugException(ExceptionClass.WATCHPOINT_LOWER, iss);
  }

  #takeDataAbort(): void {
    const { status, isWrite, isMaintenance } = this.mmu.fault;
    const lower = this.#state.el === 0;
    this.#setFar();
    const word = isWrite ? this.mmu.currentWord() : 0;
    // DC ZVA reports the address that it was given, not that of the block (Arm ARM DDI 0487 D24.2.40, FAR_EL1).
    if (isZeroing(word)) this.#state.set64(SR.FAR_EL1.offset, (word & 31) === 31 ? 0n : this.getX(word & 31));
    const iss = status | (isWrite ? Esr.WNR : 0) | (isMaintenance ? Esr.CM : 0);
    this.#refuse(lower ? ExceptionClass.DATA_ABORT_LOWER : ExceptionClass.DATA_ABORT, iss);
  }

  #takeFetchAbort(): void {
    const lower = this.#state.el === 0;
    this.#setFar();
    this.#refuse(
      lower ? ExceptionClass.INSTRUCTION_ABORT_LOWER : ExceptionClass.INSTRUCTION_ABORT,
      this.mmu.fault.status,
    );
  }

  #setFar(): void {
    const { lo, hi } = this.mmu.fault;
    this.#state.set32(SR.FAR_EL1.offset, lo);
    this.#state.set32(SR.FAR_EL1.offset + 4, hi);
  }

  #faultAddress(): bigint {
    const { lo, hi } = this.mmu.fault;
    return fromHalves(lo, hi);
  }

  injectUndefined(): void {
    this.#exception(Vector.SYNC, ExceptionClass.UNKNOWN, 0);
  }

  injectExternalAbort(): void {
    const lower = this.#state.el === 0;
    this.#state.set64(SR.FAR_EL1.offset, this.access.va);
    // No WnR: this is what KVM injects (inject_abt64).
    this.#exception(
      Vector.SYNC,
      lower ? ExceptionClass.DATA_ABORT_LOWER : ExceptionClass.DATA_ABORT,
      FaultStatus.EXTERNAL,
    );
  }

  // Interrupts.

  #takeInterrupts(): void {
    const state = this.#state;
    if (state.get32(Offset.ATTENTION) === 0) return;
    const vector = this.#inputs.next(state.get32(Offset.DAIF));
    if (vector === undefined) return;
    let iss = 0;
    if (vector === Vector.SERROR) {
      iss = Number(this.#inputs.serror!);
      this.#inputs.serror = undefined;
      this.#attention();
    }
    this.#exception(vector, vector === Vector.SERROR ? ExceptionClass.SERROR : ExceptionClass.UNKNOWN, iss);
  }

  #deferError(): void {
    const deferred = this.#inputs.defer(this.#state.get32(Offset.DAIF));
    if (deferred === undefined) return;
    this.#state.set64(SR.DISR_EL1.offset, deferred);
    this.#attention();
  }

  #attention(): void {
    const any = this.interruptPending;
    // Code that clears PSTATE.D, too, has to leave then.
    this.#state.set32(Offset.ATTENTION, any || this.#debug.waitsForUnmask ? 1 : 0);
    // A newly asserted input ends the budget, so that the interrupt is taken at the next branch.
    if (any && this.#running) this.requestStop();
  }

  setIrq(level: boolean): void {
    if (level === this.#inputs.irq) return;
    this.#inputs.irq = level;
    this.#attention();
  }
  setFiq(level: boolean): void {
    if (level === this.#inputs.fiq) return;
    this.#inputs.fiq = level;
    this.#attention();
  }
  get interruptPending(): boolean {
    return this.#inputs.pending;
  }
  injectSerror(esrIss: bigint): void {
    this.#inputs.serror = esrIss & SERROR_ISS;
    this.#attention();
  }
  get pendingSerror(): bigint | undefined {
    return this.#inputs.serror;
  }
  takeSerror(): boolean {
    if (this.#inputs.next(this.#state.get32(Offset.DAIF)) !== Vector.SERROR) return false;
    this.#takeInterrupts();
    return true;
  }
}
