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

  /** Copies 64 bits, without a BigInt on the way. */
  copy64(to: number, from: number): void {
    this.set32(to, this.get32(from));
    this.set32(to + 4, this.get32(from + 4));
  }

  /** Whether SCTLR_EL1 has a bit. @param bit its number */
  sctlr(bit: number): boolean {
    return ((this.get32(SR.SCTLR_EL1.offset + (bit < 32 ? 0 : 4)) >>> (bit % 32)) & 1) !== 0;
  }

  /** PSTATE as SPSR_EL1 has it, whose upper half is zero: unsigned. */
  getPstate(): number {
    let nzcv = 0;
    if (this.get32(Offset.N + 4) < 0) nzcv |= 8;
    if ((this.get32(Offset.Z) | this.get32(Offset.Z + 4)) === 0) nzcv |= 4;
    if (this.get32(Offset.C) !== 0) nzcv |= 2;
    if (this.get32(Offset.V + 4) < 0) nzcv |= 1;
    const mode = (this.get32(Offset.EL) << 2) | this.get32(Offset.SPSEL);
    const features = this.get32(Offset.PAN) | this.get32(Offset.UAO) | this.get32(Offset.DIT) | this.get32(Offset.SSBS);
    const low =
      mode | this.get32(Offset.DAIF) | features | (this.illegal ? Pstate.IL : 0) | (this.singleStep ? Pstate.SS : 0);
    return ((nzcv << 28) | low | (this.get32(Offset.BTYPE) << BTYPE_SHIFT)) >>> 0;
  }

  /** Sets the flags from bits 31..28. */
  setNzcv(bits: number): void {
    this.set32(Offset.N, 0);
    this.set32(Offset.N + 4, bits & 0x8000_0000);
    this.set32(Offset.Z, bits & 0x4000_0000 ? 0 : 1);
    this.set32(Offset.Z + 4, 0);
    this.set32(Offset.C, (bits >>> 29) & 1);
    this.set32(Offset.V, 0);
    this.set32(Offset.V + 4, (bits << 3) & 0x8000_0000);
  }

  /**
   * The translation tables of the EL and PAN that are left are still in use: see Mmu.regimeSelected.
   * @param bits as {@link getPstate}, of either sign
   */
  setPstate(bits: number): void {
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
    this.selectSp(bits & el);
  }

  // The stack pointer in use is in SP; while another is in use, it is in the word of its register.

  #spBank(): number {
    return this.get32(Offset.SPSEL) !== 0 ? SR.SP_EL1.offset : SR.SP_EL0.offset;
  }
  /** Sets PSTATE.SP. */
  selectSp(spsel: number): void {
    if (this.get32(Offset.SPSEL) === spsel) return;
    this.copy64(this.#spBank(), Offset.SP);
    this.set32(Offset.SPSEL, spsel);
    this.copy64(Offset.SP, this.#spBank());
  }
  /** Where SP_EL0 or SP_EL1 is now. */
  spOffset(spsel: 0 | 1): number {
    if (this.get32(Offset.SPSEL) === spsel) return Offset.SP;
    return spsel === 1 ? SR.SP_EL1.offset : SR.SP_EL0.offset;
  }
}
