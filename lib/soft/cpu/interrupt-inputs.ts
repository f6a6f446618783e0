import { Daif, Vector } from './architecture.js';

/** DISR_EL1.A: an SError was deferred. */
const DISR_A = 1n << 31n;

/** The asynchronous exceptions that wait at a vCPU's inputs: IRQ and FIQ as levels, a virtual SError as an event. */
export class InterruptInputs {
  irq = false;
  fiq = false;
  /** ISS of the SError that is pending. */
  serror: bigint | undefined;

  get pending(): boolean {
    return this.irq || this.fiq || this.serror !== undefined;
  }

  /** ISR_EL1. */
  get status(): bigint {
    return BigInt((this.serror !== undefined ? Daif.A : 0) | (this.irq ? Daif.I : 0) | (this.fiq ? Daif.F : 0));
  }

  /**
   * ESB (Arm ARM DDI 0487 C6.2, AArch64.vESBOperation): an SError that is masked waits no more.
   * @param masked PSTATE.DAIF
   * @returns what DISR_EL1 says of it; `undefined` where there was none
   */
  defer(masked: number): bigint | undefined {
    const { serror } = this;
    if (serror === undefined || (masked & Daif.A) === 0) return undefined;
    this.serror = undefined;
    return DISR_A | serror;
  }

  /** The vector of the one to take now; `undefined` where none is pending or PSTATE masks it. @param masked PSTATE.DAIF */
  next(masked: number): Vector | undefined {
    if (this.serror !== undefined && (masked & Daif.A) === 0) return Vector.SERROR;
    if (this.fiq && (masked & Daif.F) === 0) return Vector.FIQ;
    if (this.irq && (masked & Daif.I) === 0) return Vector.IRQ;
    return undefined;
  }
}
