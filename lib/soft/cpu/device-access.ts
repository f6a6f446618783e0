import type { Mmu } from '../mmu/mmu.js';
import type { Access, Syndromes } from './access.js';
import { type CpuHost, STOP_COST } from './cpu.js';
import { ExitCode, Offset, STATE } from './layout.js';
import type { CpuState } from './state.js';
import { Work } from './work.js';

/** What {@link DeviceAccess} needs to know of its processor. */
export interface AccessingProcessor {
  readonly host: CpuHost;
  readonly mmu: Mmu;
  readonly access: Access;
  /** Takes off the budget what was done beside executing instructions. */
  charge(cost: number): void;
  completeRead(lo: number, hi: number): void;
}

/** And of the machine. */
export interface AccessingMachine {
  readonly syndromes: Syndromes;
  /** See SoftMachine.changes. */
  readonly changes: number;
  /** Counts what was done beside executing instructions. */
  worked(amount: number): void;
}

/** What became of an access that compiled code has put to the host, where that code is then left. */
const Asked = { NO: 0, DECLINED: 1, ANSWERED: 2 } as const;
type Asked = (typeof Asked)[keyof typeof Asked];

/** A vCPU's accesses to what no RAM backs: they are described, and put to the host. */
export class DeviceAccess {
  readonly #cpu: AccessingProcessor;
  readonly #machine: AccessingMachine;
  readonly #state: CpuState;
  #asked: Asked = Asked.NO;
  /** Compiled code waits for the host's answer. */
  #inCode = false;
  /** The host has answered it with what a load has read. */
  #isRead = false;
  /** Where the guest goes on behind an access that was answered, and NZCV there, as SPSR_EL1 has them. */
  #pc = 0n;
  #nzcv = 0;

  constructor(cpu: AccessingProcessor, machine: AccessingMachine, state: CpuState) {
    this.#cpu = cpu;
    this.#machine = machine;
    this.#state = state;
  }

  /** Behind ExitCode.MMIO: puts the access of the instruction at PC to the host. @returns whether it is done */
  afterExit(): boolean {
    const asked = this.#asked;
    this.#asked = Asked.NO;
    if (asked === Asked.DECLINED) return false;
    if (asked === Asked.ANSWERED) {
      this.#state.set64(Offset.PC, this.#pc);
      this.#state.setNzcv(this.#nzcv);
      return true;
    }
    const { mmu, access, host } = this.#cpu;
    // A host that has thrown did not come back to compiled code.
    this.#inCode = false;
    this.#describe(mmu.currentWord());
    if (access.isv) mmu.noteDeviceAccess();
    if (host.mmio?.() !== true) return false;
    this.#cpu.charge(STOP_COST);
    return true;
  }

  /**
   * Puts an access to the host from within compiled code, which has made the state exact.
   * @returns the linear address of what was read, and of nothing for a store; 0 where the code must be left, with EXIT set
   */
  inPlace(): number {
    const state = this.#state;
    const machine = this.#machine;
    const { changes } = machine;
    const pc = state.get32(Offset.PC);
    this.#describe(state.get32(Offset.DETAIL));
    this.#isRead = false;
    this.#inCode = true;
    const isDone = this.#cpu.host.mmio?.() === true;
    this.#inCode = false;
    if (!isDone) {
      this.#asked = Asked.DECLINED;
      return state.leave(ExitCode.MMIO);
    }
    this.#cpu.charge(STOP_COST);
    machine.worked(Work.CALL);
    const budget = state.get32(Offset.BUDGET) - (this.#isRead ? 1 : 0);
    // An interrupt that is to be taken has ended the budget.
    if (budget >= 0 && machine.changes === changes && state.get32(Offset.PC) === (this.#isRead ? pc : (pc + 4) | 0)) {
      // The code counts the instruction itself, and what was read it puts into the register.
      if (!this.#isRead) state.set32(Offset.BUDGET, budget + 1);
      return STATE + Offset.SCRATCH;
    }
    return this.#leaveAnswered();
  }

  /** The code is left as if the instruction had not been executed: all but PC and NZCV are taken from the state as it is now. */
  #leaveAnswered(): 0 {
    const state = this.#state;
    if (this.#isRead) this.#cpu.completeRead(state.get32(Offset.SCRATCH), state.get32(Offset.SCRATCH + 4));
    this.#asked = Asked.ANSWERED;
    this.#pc = state.get64(Offset.PC);
    this.#nzcv = state.getPstate() & 0xf000_0000;
    return state.leave(ExitCode.MMIO);
  }

  /** The host answers a load. @returns whether compiled code waits for that, and does the rest */
  takeRead(lo: number, hi: number): boolean {
    if (!this.#inCode) return false;
    this.#isRead = true;
    this.#state.set32(Offset.SCRATCH, lo);
    this.#state.set32(Offset.SCRATCH + 4, hi);
    return true;
  }

  #describe(word: number): void {
    const { mmu, access } = this.#cpu;
    access.describe(mmu.accessCrosses ? undefined : this.#machine.syndromes.of(word), this.#state);
  }
}
