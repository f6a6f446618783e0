import { addPac, authPac } from '../a64/pointer-auth.js';
import { computePac } from '../a64/qarma.js';
import { fromBase64 } from '../jit/interpreter-image.js';
import { prebuilt } from '../jit/prebuilt.js';
import { emitFunctions, instantiateFunctions, pureFunction } from '../jit/pure-function.js';
import { granuleOf, leastTsz, MOST_TSZ } from '../mmu/translate.js';
import { Sctlr } from './architecture.js';
import { Offset } from './layout.js';
import type { CpuState } from './state.js';
import { SR } from './sysregs.js';

/** ID_AA64ISAR1_EL1.APA and GPA: FEAT_PAuth with QARMA5, for addresses and generic. */
export const PAUTH_ID_FIELDS = (1n << 4n) | (1n << 24n);

/** TCR_EL1 (Arm ARM DDI 0487 D24.2.186). */
const TSZ = [0n, 16n] as const;
const TG = [14n, 30n] as const;
const TBI = [37n, 38n] as const;
const TBID = [51n, 52n] as const;

const ENABLES = [
  [Sctlr.EnIA, 2],
  [Sctlr.EnIB, 4],
  [Sctlr.EnDA, 8],
  [Sctlr.EnDB, 16],
] as const;

/** Writes into the state what generated code must know of pointer authentication. To be called when SCTLR_EL1 or TCR_EL1 changed. */
export function pointerAuthChanged(state: CpuState, implemented: boolean): void {
  if (!implemented) {
    state.set32(Offset.PAUTH, 0);
    return;
  }
  const enabled = ENABLES.reduce((bits, [control, bit]) => (state.sctlr(control) ? bits | bit : bits), 1);
  state.set32(Offset.PAUTH, enabled);
  const tcr = state.get64(SR.TCR_EL1.offset);
  const bit = (n: bigint): boolean => ((tcr >> n) & 1n) === 1n;
  for (const [at, isData] of [
    [Offset.PAC_INSTRUCTION, false],
    [Offset.PAC_DATA, true],
  ] as const) {
    const ignoresTop = ([0, 1] as const).map((half) => bit(TBI[half]) && (isData || !bit(TBID[half])));
    for (const half of [0, 1] as const) {
      const top = ignoresTop[half]! ? 56n : 64n;
      const granule = granuleOf(half, Number((tcr >> TG[half]) & 3n));
      state.set64(at + half * 8, (1n << top) - (1n << bottomOf(Number((tcr >> TSZ[half]) & 0x3fn), granule)));
    }
    state.set64(at + 16, ignoresTop.includes(true) ? 55n : 63n);
  }
}

/** CalculateBottomPACBit: the lowest bit that is no part of the address; a size out of range acts as the limit. */
const bottomOf = (tsz: number, granule: number): bigint =>
  BigInt(64 - Math.min(Math.max(tsz, leastTsz(granule)), MOST_TSZ));

let functions: Readonly<Record<string, (...args: never[]) => bigint>> | undefined;

/** The module of the functions that the instructions call. */
export function emitPointerAuth(): Uint8Array<ArrayBuffer> {
  const operands = { pointer: 'i64', modifier: 'i64', high: 'i64', low: 'i64', lower: 'i64', upper: 'i64' } as const;
  return emitFunctions({
    computePac: pureFunction({ data: 'i64', modifier: 'i64', key0: 'i64', key1: 'i64' }, (e, a) =>
      computePac(e, a.data, a.modifier, a.key0, a.key1),
    ),
    addPac: pureFunction({ ...operands, at: 'i64' }, addPac),
    authPac: pureFunction({ ...operands, number: 'i32' }, authPac),
  });
}

/** The functions that the instructions call; compiled once, for they depend on no machine. */
export function pointerAuthFunctions(): Readonly<Record<string, (...args: never[]) => bigint>> {
  if (functions === undefined) {
    const module = prebuilt()?.pointerAuth;
    functions = instantiateFunctions(module === undefined ? emitPointerAuth() : fromBase64(module));
  }
  return functions;
}
