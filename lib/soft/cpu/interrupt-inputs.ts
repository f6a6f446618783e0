import { Daif, Vector } from './architecture.js';

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

  /** The vector of the one to take now; `undefined` where none is pending or PSTATE masks it. @param masked PSTATE.DAIF */
  next(masked: number): Vector | undefined {
    if (this.serror !== undefined && (masked & Daif.A) === 0) return Vector.SERROR;
    if (this.fiq && (masked & Daif.F) === 0) return Vector.FIQ;
    if (this.irq && (masked & Daif.I) === 0) return Vector.IRQ;
    return undefined;
  }
}
