import type { HelperEnv } from '../a64/helpers.js';
import { Daif, Pstate } from './architecture.js';
import { Offset } from './layout.js';
import { SR } from './sysregs.js';

/** From Offset.BTYPE, which is BTYPE times 4, to its place in SPSR_EL1. */
const BTYPE_SHIFT = 8;

/** One vCPU's state as words of linear memory: at STATE while the vCPU is the one that runs, else in its own area. */
export class CpuState {
  readonly #env: HelperEnv;
  /** Where the state is now. */
  base: number;
  /** PSTATE.IL, which generated code never sees: no instruction executes while it is set. */
  illegal = false;
  /** PSTATE.SS, which only software step looks at. */
  singleStep = false;

  constructor(env: HelperEnv, base: number) {
    this.#env = env;
    this.base = base;
  }

  get32(offset: number): number {
    return this.#env.i32[(this.base + offset) >>> 2]!;
  }
  set32(offset: number, value: number): void {
    this.#env.i32[(this.base + offset) >>> 2] = value;
  }
  get64(offset: number): bigint {
    return this.#env.u64[(this.base + offset) >>> 3]!;
  }
  set64(offset: number, value: bigint): void {
    this.#env.u64[(this.base + offset) >>> 3] = value;
  }

  get el(): 0 | 1 {
    return this.get32(Offset.EL) as 0 | 1;
  }

  /** Asks generated code to leave. The 0 is what a memory access that can't be done answers. */
  leave(code: number): 0 {
    this.set32(Offset.EXIT, code);
    return 0;
  }

  /** SCTLR_EL1 has any of these bits. */
  sctlr(bits: bigint): boolean {
    return (this.get64(SR.SCTLR_EL1.offset) & bits) !== 0n;
  }

  /** PSTATE as SPSR_EL1 has it. */
  getPstate(): bigint {
    const negative = (offset: number): boolean => this.get64(offset) >> 63n !== 0n;
    let nzcv = 0;
    if (negative(Offset.N)) nzcv |= 8;
    if (this.get64(Offset.Z) === 0n) nzcv |= 4;
    if (this.get32(Offset.C) !== 0) nzcv |= 2;
    if (negative(Offset.V)) nzcv |= 1;
    const mode = (this.get32(Offset.EL) << 2) | this.get32(Offset.SPSEL);
    const features = this.get32(Offset.PAN) | this.get32(Offset.UAO) | this.get32(Offset.DIT) | this.get32(Offset.SSBS);
    const low =
      mode | this.get32(Offset.DAIF) | features | (this.illegal ? Pstate.IL : 0) | (this.singleStep ? Pstate.SS : 0);
    return BigInt(((nzcv << 28) | low | (this.get32(Offset.BTYPE) << BTYPE_SHIFT)) >>> 0);
  }

  /** Sets the flags from bits 31..28. */
  setNzcv(bits: number): void {
    this.set64(Offset.N, bits & 0x8000_0000 ? 1n << 63n : 0n);
    this.set64(Offset.Z, bits & 0x4000_0000 ? 0n : 1n);
    this.set32(Offset.C, (bits >>> 29) & 1);
    this.set64(Offset.V, bits & 0x1000_0000 ? 1n << 63n : 0n);
  }

  /** The translation tables of the EL and PAN that are left are still in use: see Mmu.regimeSelected. */
  setPstate(value: bigint): void {
    const bits = Number(value & 0xffff_ffffn);
    this.bankSp();
    this.setNzcv(bits);
    this.set32(Offset.DAIF, bits & Daif.ALL);
    this.set32(Offset.PAN, bits & Pstate.PAN);
    this.set32(Offset.UAO, bits & Pstate.UAO);
    this.set32(Offset.DIT, bits & Pstate.DIT);
    this.set32(Offset.SSBS, bits & Pstate.SSBS);
    this.set32(Offset.BTYPE, (bits & Pstate.BTYPE) >> BTYPE_SHIFT);
    this.illegal = (bits & Pstate.IL) !== 0;
    this.singleStep = (bits & Pstate.SS) !== 0;
    const el = (bits >> 2) & 1;
    this.set32(Offset.EL, el);
    // EL0 has one stack pointer.
    this.set32(Offset.SPSEL, bits & el);
    this.unbankSp();
  }

  // The stack pointer in use is in SP; while another is in use, it is in the word of its register.

  #spBank(): number {
    return this.get32(Offset.SPSEL) !== 0 ? SR.SP_EL1.offset : SR.SP_EL0.offset;
  }
  bankSp(): void {
    this.set64(this.#spBank(), this.get64(Offset.SP));
  }
  unbankSp(): void {
    this.set64(Offset.SP, this.get64(this.#spBank()));
  }
  /** Sets PSTATE.SP. */
  selectSp(spsel: number): void {
    this.bankSp();
    this.set32(Offset.SPSEL, spsel);
    this.unbankSp();
  }
  /** Where SP_EL0 or SP_EL1 is now. */
  spOffset(spsel: 0 | 1): number {
    if (this.get32(Offset.SPSEL) === spsel) return Offset.SP;
    return spsel === 1 ? SR.SP_EL1.offset : SR.SP_EL0.offset;
  }
}
