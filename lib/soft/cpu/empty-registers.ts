import { sysregIndex } from '../../kvm/registers.js';
import type { CpuState } from './state.js';
import { sysregByIndex } from './sysregs.js';

/**
 * Registers of EL1 that hold nothing, because there is nothing that they describe: no error record (FEAT_RAS; the architecture lets
 * their registers be UNDEFINED then, or zero, as they are in KVM) and no limited ordering region (FEAT_LOR). They read as zero, and
 * ignore what is written.
 */
interface EmptyRegister {
  readonly isWritable: boolean;
  /** Where the ID register that promises it is in the CPU state, and the lowest bit of its field. */
  readonly id: number;
  readonly lsb: bigint;
}

const ID_AA64PFR0 = sysregByIndex(sysregIndex(3, 0, 0, 4, 0))!.offset;
const ID_AA64MMFR1 = sysregByIndex(sysregIndex(3, 0, 0, 7, 1))!.offset;
const RAS = { id: ID_AA64PFR0, lsb: 28n } as const;
const LO = { id: ID_AA64MMFR1, lsb: 16n } as const;

type Place = readonly [crn: number, crm: number, op2: number];
const at = ([crn, crm, op2]: Place, isWritable: boolean, field: typeof RAS | typeof LO): [number, EmptyRegister] => [
  sysregIndex(3, 0, crn, crm, op2),
  { isWritable, ...field },
];

const REGISTERS: ReadonlyMap<number, EmptyRegister> = new Map([
  // ERRIDR_EL1, ERRSELR_EL1, ERXFR_EL1, ERXCTLR_EL1, ERXSTATUS_EL1, ERXADDR_EL1, ERXMISC0_EL1, ERXMISC1_EL1.
  at([5, 3, 0], false, RAS),
  at([5, 3, 1], true, RAS),
  at([5, 4, 0], false, RAS),
  at([5, 4, 1], true, RAS),
  at([5, 4, 2], true, RAS),
  at([5, 4, 3], true, RAS),
  at([5, 5, 0], true, RAS),
  at([5, 5, 1], true, RAS),
  // LORSA_EL1, LOREA_EL1, LORN_EL1, LORC_EL1, LORID_EL1.
  at([10, 4, 0], true, LO),
  at([10, 4, 1], true, LO),
  at([10, 4, 2], true, LO),
  at([10, 4, 3], true, LO),
  at([10, 4, 7], false, LO),
]);

/** Whether EL1 may access the register so. A VM that is told of less has less (kernel: access_ras, trap_loregion). */
export function isEmptyRegister(state: CpuState, index: number, isWrite: boolean): boolean {
  const register = REGISTERS.get(index);
  if (register === undefined || (isWrite && !register.isWritable)) return false;
  return ((state.get64(register.id) >> register.lsb) & 0xfn) !== 0n;
}
