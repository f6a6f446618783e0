import { sysregIndex } from '../../kvm/registers.js';
import { Daif } from '../cpu/architecture.js';
import { ExitCode, Offset } from '../cpu/layout.js';
import { PSEUDO, SR, type SysregAccess, sysregByIndex } from '../cpu/sysregs.js';
import type { Emitter, Val } from './emitter.js';
import { helper } from './helpers.js';
import { type Row, row } from './row.js';

/** System instructions: hints, barriers, PSTATE, system registers, cache and TLB maintenance, ERET (Arm ARM DDI 0487 C4.1.94). */

/** MRS of a register with rules of its own. May raise an exception. */
export const MRS = helper('mrs', 'i:l');
/** MSR of a register with rules or effects of its own. May raise an exception, or ask for a new look at the world. */
export const MSR = helper('msr', 'il:');
/** SYS: cache, TLB and address translation instructions, by the 16-bit index with op0 = 1, and the register's halves. */
export const SYS = helper('sys', 'iii:');
/** MSR (immediate) to a PSTATE field: (op1 << 3 | op2, CRm). */
export const PSTATE_IMMEDIATE = helper('pstate', 'ii:');
/** SEV: sets the event register of every vCPU. */
export const SEND_EVENT = helper('sendEvent', ':');

interface Encoding {
  readonly o0: number;
  readonly op1: number;
  readonly CRn: number;
  readonly CRm: number;
  readonly op2: number;
}
const indexOf = (f: Encoding): number => sysregIndex(2 + f.o0, f.op1, f.CRn, f.CRm, f.op2);
const hasAccess =
  (...access: SysregAccess[]) =>
  (f: Encoding): boolean => {
    const reg = sysregByIndex(indexOf(f));
    return reg !== undefined && access.includes(reg.access);
  };
const is =
  (...indices: number[]) =>
  (f: Encoding): boolean =>
    indices.includes(indexOf(f));
const offset = (f: Encoding): number => sysregByIndex(indexOf(f))?.offset ?? 0;

/** UNDEFINED at EL0. */
const onlyEl1 = (e: Emitter): void => e.if(e.eqz(e.state('i32', Offset.EL)), () => e.exit(ExitCode.UNDEFINED));
const fpTrap = (e: Emitter): void => e.if(e.state('i32', Offset.FP_TRAP), () => e.exit(ExitCode.FP_TRAP));

const REGISTER = '1 o0:1# op1:3# CRn:4# CRm:4# op2:3# Rt' as const;
const SP_EL0 = sysregIndex(3, 0, 4, 1, 0);
const HINT = { YIELD: 1, WFE: 2, WFI: 3, SEV: 4, SEVL: 5, ESB: 16 } as const;

/** Barriers order nothing here: one thread runs the VM, in program order. */
const nothing = (): void => undefined;

export const system: readonly Row[] = [
  row('WFI', '11010101000000110010 0000 011 11111', { ends: true }, (e) => e.exit(ExitCode.WFI)),
  row('WFE', '11010101000000110010 0000 010 11111', { ends: true }, (e) => {
    e.if(e.eqz(e.state('i32', Offset.EVENT)), () => e.exit(ExitCode.WFE));
    e.setState(Offset.EVENT, e.i32(0));
  }),
  row('YIELD', '11010101000000110010 0000 001 11111', { ends: true }, (e) => e.exit(ExitCode.WFE)),
  row('SEV', '11010101000000110010 0000 100 11111', {}, (e) => {
    e.call(SEND_EVENT);
  }),
  row('SEVL', '11010101000000110010 0000 101 11111', {}, (e) => e.setState(Offset.EVENT, e.i32(1))),
  // An SError that PSTATE masks goes to DISR_EL1. Where none is pending there is nothing to wait for.
  row('ESB', '11010101000000110010 0010 000 11111', {}, (e) => {
    e.if(e.state('i32', Offset.ATTENTION), () => e.exit(ExitCode.ERROR_BARRIER));
  }),
  row(
    'HINT',
    '11010101000000110010 CRm:4# op2:3# 11111',
    { when: (f) => f.CRm * 8 + f.op2 === 0 || (f.CRm * 8 + f.op2 > HINT.SEVL && f.CRm * 8 + f.op2 !== HINT.ESB) },
    nothing,
  ),
  row('CLREX', '11010101000000110011 xxxx 010 11111', {}, (e) => e.setState(Offset.MONITOR_ADDRESS, e.i64(-1n))),
  row('DSB', '11010101000000110011 xxxx 100 11111', {}, nothing),
  row('DMB', '11010101000000110011 xxxx 101 11111', {}, nothing),
  row('ISB', '11010101000000110011 xxxx 110 11111', {}, nothing),
  row('SB', '11010101000000110011 0000 111 11111', {}, nothing),

  row('MSR DAIFSet', '1101010100000 011 0100 CRm:4# 110 11111', { ops: { bits: (f) => f.CRm << 6 } }, (e, f) => {
    e.if(
      e.state('i32', Offset.EL),
      () => e.setState(Offset.DAIF, e.or(e.state('i32', Offset.DAIF), f.bits)),
      () => daifAtEl0(e, e.i32(0b011_110), f.CRm),
    );
  }),
  row('MSR DAIFClr', '1101010100000 011 0100 CRm:4# 111 11111', { ops: { bits: (f) => f.CRm << 6 } }, (e, f) => {
    e.if(
      e.state('i32', Offset.EL),
      () => e.setState(Offset.DAIF, e.and(e.state('i32', Offset.DAIF), e.not(f.bits))),
      () => daifAtEl0(e, e.i32(0b011_111), f.CRm),
    );
    e.if(e.state('i32', Offset.ATTENTION), () => e.exit(ExitCode.RESYNC));
  }),
  row(
    'MSR (immediate)',
    '1101010100000 op1:3# 0100 CRm:4# op2:3# 11111',
    {
      when: (f) => [0b000_011, 0b000_100, 0b000_101, 0b011_001, 0b011_010].includes((f.op1 << 3) | f.op2),
      ops: { which: (f) => (f.op1 << 3) | f.op2 },
    },
    (e, f) => {
      e.call(PSTATE_IMMEDIATE, f.which, f.CRm);
      e.checkExit();
    },
  ),
  row('CFINV', '1101010100000 000 0100 xxxx 000 11111', {}, (e) => {
    e.setState(Offset.C, e.xor(e.carry(), e.i32(1)));
  }),

  row('MRS NZCV', `1101010100 1 ${REGISTER}`, { when: is(PSEUDO.NZCV) }, (e, f) => e.setR(f.Rt, e.nzcv())),
  row('MRS FPCR', `1101010100 1 ${REGISTER}`, { when: is(PSEUDO.FPCR) }, (e, f) => {
    fpTrap(e);
    e.setR(f.Rt, e.state('i32', Offset.FPCR));
  }),
  row('MRS FPSR', `1101010100 1 ${REGISTER}`, { when: is(PSEUDO.FPSR) }, (e, f) => {
    fpTrap(e);
    e.setR(f.Rt, e.state('i32', Offset.FPSR));
  }),
  row('MRS DAIF', `1101010100 1 ${REGISTER}`, { when: is(PSEUDO.DAIF) }, (e, f) => {
    e.if(
      e.state('i32', Offset.EL),
      () => e.setR(f.Rt, e.state('i32', Offset.DAIF)),
      () => mrs(e, e.i32(PSEUDO.DAIF), (v) => e.setR(f.Rt, v)),
    );
  }),
  row('MRS SP_EL0', `1101010100 1 ${REGISTER}`, { when: is(SP_EL0), ops: { at: offset } }, (e, f) => {
    e.if(e.eqz(e.state('i32', Offset.SPSEL)), () => e.exit(ExitCode.UNDEFINED));
    e.setR(f.Rt, e.stateAt('at'));
  }),
  row(
    'MRS (word, EL0)',
    `1101010100 1 ${REGISTER}`,
    { when: hasAccess('plain-el0', 'plain-el0-read'), ops: { at: offset } },
    (e, f) => {
      e.setR(f.Rt, e.stateAt('at'));
    },
  ),
  row(
    'MRS (word)',
    `1101010100 1 ${REGISTER}`,
    { when: hasAccess('plain', 'constant'), ops: { at: offset } },
    (e, f) => {
      onlyEl1(e);
      e.setR(f.Rt, e.stateAt('at'));
    },
  ),
  // At EL0 they have rules. The kernel reads them at each page that it clears and each instruction that it patches.
  row(
    'MRS (cache type)',
    `1101010100 1 ${REGISTER}`,
    { when: is(SR.CTR_EL0.index, SR.DCZID_EL0.index), ops: { at: offset, index: indexOf } },
    (e, f) => {
      e.if(
        e.state('i32', Offset.EL),
        () => e.setR(f.Rt, e.stateAt('at')),
        () => mrs(e, f.index, (v) => e.setR(f.Rt, v)),
      );
    },
  ),
  row('MRS', `1101010100 1 ${REGISTER}`, { ops: { index: indexOf } }, (e, f) => {
    mrs(e, f.index, (v) => e.setR(f.Rt, v));
  }),

  row('MSR NZCV', `1101010100 0 ${REGISTER}`, { when: is(PSEUDO.NZCV) }, (e, f) => e.setNzcv(e.getW(f.Rt))),
  row('MSR SP_EL0', `1101010100 0 ${REGISTER}`, { when: is(SP_EL0), ops: { at: offset } }, (e, f) => {
    e.if(e.eqz(e.state('i32', Offset.SPSEL)), () => e.exit(ExitCode.UNDEFINED));
    e.setStateAt('at', e.getX(f.Rt));
  }),
  row('MSR (word, EL0)', `1101010100 0 ${REGISTER}`, { when: hasAccess('plain-el0'), ops: { at: offset } }, (e, f) => {
    e.setStateAt('at', e.getX(f.Rt));
  }),
  row(
    'MSR (word)',
    `1101010100 0 ${REGISTER}`,
    { when: hasAccess('plain', 'plain-el0-read'), ops: { at: offset } },
    (e, f) => {
      onlyEl1(e);
      e.setStateAt('at', e.getX(f.Rt));
    },
  ),
  row('MSR DAIF', `1101010100 0 ${REGISTER}`, { when: is(PSEUDO.DAIF) }, (e, f) => {
    e.if(
      e.state('i32', Offset.EL),
      () => e.setState(Offset.DAIF, e.and(e.getW(f.Rt), e.i32(Daif.ALL))),
      () => {
        e.call(MSR, e.i32(PSEUDO.DAIF), e.getX(f.Rt));
        e.checkExit();
      },
    );
    e.if(e.state('i32', Offset.ATTENTION), () => e.exit(ExitCode.RESYNC));
  }),
  row('MSR', `1101010100 0 ${REGISTER}`, { ops: { index: indexOf }, ends: true }, (e, f) => {
    e.call(MSR, f.index, e.getX(f.Rt));
    e.checkExit();
  }),

  row('DC ZVA', '1101010100 0 01 011 0111 0100 001 Rt', {}, (e, f) => {
    e.if(e.state('i32', Offset.ZVA_CHECKED), () => {
      sys(e, e.i32(sysregIndex(1, 3, 7, 4, 1)), e.getX(f.Rt));
    });
    const va = e.and(e.getX(f.Rt), e.i64(-64n));
    for (let i = 0; i < 64; i += 16) e.store(16, e.add(va, e.i64(i)), e.v128(0n));
  }),
  row(
    'SYS',
    '1101010100 0 01 op1:3# CRn:4# CRm:4# op2:3# Rt',
    { ops: { index: (f) => sysregIndex(1, f.op1, f.CRn, f.CRm, f.op2) } },
    (e, f) => {
      sys(e, f.index, e.getX(f.Rt));
    },
  ),

  row('ERET', '1101011010011111000000 11111 00000', { ends: true }, (e) => e.exit(ExitCode.ERET, e.i32(0))),
];

function mrs(e: Emitter, index: Val, use: (v: Val) => void): void {
  const value = e.call(MRS, index)!;
  e.checkExit();
  use(value);
}

function sys(e: Emitter, index: Val, value: Val): void {
  e.call(SYS, index, e.wrap(value), e.wrap(e.shrU(value, e.i64(32))));
  e.checkExit();
}

/** MSR DAIFSet and DAIFClr at EL0, which SCTLR_EL1.UMA may allow. */
function daifAtEl0(e: Emitter, which: Val, bits: Val): void {
  e.call(PSTATE_IMMEDIATE, which, bits);
  e.checkExit();
}
