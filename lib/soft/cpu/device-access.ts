import type { Mmu } from '../mmu/mmu.js';
import type { Access, Syndromes } from './access.js';
import { type CpuHost, STOP_COST } from './cpu.js';
import { ExitCode, Offset, STATE } from './layout.js';
import type { CpuState } from './state.js';

/** What {@link DeviceAccess} needs to know of its processor. */
export interface AccessingProcessor {
  readonly host: CpuHost;
  readonly mmu: Mmu;
  readonly access: Access;
  /** See SoftMachine.changes. */
  readonly changes: number;
  /** Takes off the budget what was done beside executing instructions. */
  charge(cost: number): void;
  /** Something was done beside executing instructions that may have taken long. */
  worked(): void;
}

/** What became of an access that compiled code has put to the host, where that code is then left. */
const Asked = { NO: 0, DECLINED: 1, ANSWERED: 2 } as const;
type Asked = (typeof Asked)[keyof typeof Asked];

/** A vCPU's accesses to what no RAM backs: they are described, and put to the host. */
export class DeviceAccess {
  readonly #cpu: AccessingProcessor;
  readonly #state: CpuState;
  readonly #syndromes: Syndromes;
  #asked: Asked = Asked.NO;
  /** Where the guest goes on behind an access that was answered, and NZCV there, as SPSR_EL1 has them. */
  #pc = 0n;
  #nzcv = 0;

  constructor(cpu: AccessingProcessor, state: CpuState, syndromes: Syndromes) {
    this.#cpu = cpu;
    this.#state = state;
    this.#syndromes = syndromes;
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
    const { mmu, access } = this.#cpu;
    this.#describe(mmu.currentWord());
    if (access.isv) mmu.noteDeviceAccess();
    return this.#ask();
  }

  /**
   * Puts an access to the host from within compiled code, which has made the state exact.
   * @returns the linear address of what was read, and of nothing for a store; 0 where the code must be left, with EXIT set
   */
  inPlace(): number {
    const state = this.#state;
    const cpu = this.#cpu;
    const { changes } = cpu;
    const next = (state.get32(Offset.PC) + 4) | 0;
    this.#describe(state.get32(Offset.DETAIL));
    if (!this.#ask()) {
      this.#asked = Asked.DECLINED;
      return state.leave(ExitCode.MMIO);
    }
    cpu.worked();
    const budget = state.get32(Offset.BUDGET);
    // An interrupt that is to be taken has ended the budget.
    if (budget >= 0 && cpu.changes === changes && state.get32(Offset.PC) === next) {
      // The code counts the instruction itself.
      state.set32(Offset.BUDGET, budget + 1);
      return STATE + Offset.SCRATCH;
    }
    // The code is left as if the instruction had not been executed: all but these are taken from the state as it is now.
    this.#asked = Asked.ANSWERED;
    this.#pc = state.get64(Offset.PC);
    this.#nzcv = state.getPstate() & 0xf000_0000;
    return state.leave(ExitCode.MMIO);
  }

  #describe(word: number): void {
    const { mmu, access } = this.#cpu;
    access.describe(mmu.accessCrosses ? undefined : this.#syndromes.of(word), this.#state);
  }

  #ask(): boolean {
    if (this.#cpu.host.mmio?.() !== true) return false;
    this.#cpu.charge(STOP_COST);
    return true;
  }
}
