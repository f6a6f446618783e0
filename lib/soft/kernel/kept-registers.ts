import { sysregIndex } from '../../kvm/index.js';
import { BREAKPOINTS, WATCHPOINTS } from '../cpu/cpu.js';
import { RESET_UNKNOWN } from './reset.js';

/** Breakpoints and watchpoints that KVM has registers for, whatever its processor has (kernel: ARM_MAX_BRP, ARM_MAX_WRP). */
const DEBUG_REGISTERS = 16;

const debug = (from: number, op2: number): [number, bigint][] =>
  Array.from({ length: DEBUG_REGISTERS - from }, (_, n) => [sysregIndex(2, 0, 0, from + n, op2), 0n]);

/** By index: the value after a reset. */
const KEPT: ReadonlyMap<number, bigint> = new Map([
  // DBGBVR<n>_EL1, DBGBCR<n>_EL1, DBGWVR<n>_EL1, DBGWCR<n>_EL1.
  ...debug(BREAKPOINTS, 4),
  ...debug(BREAKPOINTS, 5),
  ...debug(WATCHPOINTS, 6),
  ...debug(WATCHPOINTS, 7),
  // DBGVCR32_EL2, DACR32_EL2, IFSR32_EL2, FPEXC32_EL2: of an AArch32 EL1.
  [sysregIndex(2, 4, 0, 7, 0), 0n],
  [sysregIndex(3, 4, 3, 0, 0), RESET_UNKNOWN],
  [sysregIndex(3, 4, 5, 0, 1), RESET_UNKNOWN],
  [sysregIndex(3, 4, 5, 3, 0), 0x700n],
]);

/** Their indices. */
export const KEPT_REGISTERS: readonly number[] = [...KEPT.keys()];

/** Registers that KVM lists on every host and this processor has not: the guest cannot see them, user space finds what it put there. */
export class KeptRegisters {
  readonly #values = new Map(KEPT);

  get(index: number): bigint {
    return this.#values.get(index) ?? 0n;
  }

  set(index: number, value: bigint): void {
    this.#values.set(index, value);
  }

  reset(): void {
    for (const [index, value] of KEPT) this.#values.set(index, value);
  }
}
