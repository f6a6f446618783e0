import { BREAKPOINTS, CONTEXT_BREAKPOINTS, type DebugRegisters, WATCHPOINTS } from './cpu.js';

/**
 * Breakpoints and watchpoints: what their registers mean (Arm ARM DDI 0487 D2.8, D2.10). Of what the architecture leaves open, a
 * reserved value disables; bytes that are not next to each other are watched one by one; where DBGWCR.MASK is set, BAS and
 * the masked bits of the address have no say.
 */

/** Bits that exist, of DBGBCR<n>_EL1 and DBGWCR<n>_EL1. DBGBCR.BAS is RES1 without AArch32. */
export const BCR_MASK = 0xff_e1e7n;
export const BCR_RES1 = 0x1e0n;
export const WCR_MASK = 0x1f1f_ffffn;
/** DBGWVR<n>_EL1: addresses of words. */
export const WVR_MASK = ~3n & 0xffff_ffff_ffff_ffffn;

/** DBGBCR.BT. */
const BreakpointType = { ADDRESS: 0, LINKED_ADDRESS: 1 } as const;
/** A context: that of the current EL, and, since Armv8.1, CONTEXTIDR_EL1, which at EL1 and EL0 without EL2 is the same. */
const CONTEXT: readonly number[] = [0b0010, 0b0110];
const LINKED_CONTEXT: readonly number[] = [0b0011, 0b0111];
/** DBGWCR.LSC. */
const LSC_LOAD = 1;
const LSC_STORE = 2;

/** When a breakpoint or watchpoint counts. */
interface Condition {
  /** PMC or PAC: bit 0 at EL1, bit 1 at EL0. */
  readonly els: number;
  /** CONTEXTIDR_EL1 must have this value; any where `undefined`. */
  readonly context: number | undefined;
}

export interface Breakpoint extends Condition {
  /** {@link debugAddress} of the instruction; any where `undefined`. */
  readonly address: number | undefined;
}

export interface Watchpoint extends Condition {
  /** {@link debugAddress}es of the first byte and behind the last one. */
  readonly first: number;
  readonly end: number;
  /** The bytes from the first on that are watched, one bit each; `undefined` for all. */
  readonly bytes: number | undefined;
  readonly loads: boolean;
  readonly stores: boolean;
}

/** The bits of an address that are compared: 52 to 0. */
export const debugAddress = (lo: number, hi: number): number => (hi & 0x1f_ffff) * 0x1_0000_0000 + (lo >>> 0);

const compared = (value: bigint): number => Number(BigInt.asUintN(53, value));
const bits = (value: bigint, lsb: number, width: number): number =>
  Number((value >> BigInt(lsb)) & ((1n << BigInt(width)) - 1n));
const isEnabled = (control: bigint | undefined): control is bigint => control !== undefined && (control & 1n) !== 0n;
const isContextAware = (n: number): boolean => n >= BREAKPOINTS - CONTEXT_BREAKPOINTS && n < BREAKPOINTS;

/**
 * AArch64.StateMatch, as far as it can be known beforehand. `undefined` where it never matches.
 * @param hasEl2 the registers are those of a processor with EL2, where HMC and SSC may say more than "EL1 and EL0"
 */
function conditionOf(r: DebugRegisters, control: bigint, linked: boolean, hasEl2: boolean): Condition | undefined {
  const els = bits(control, 1, 2);
  const hmc = bits(control, 13, 1);
  const ssc = bits(control, 14, 2);
  // There is no Secure state; without EL2 and EL3 any other value is reserved.
  if (hasEl2 ? ssc === 2 : hmc !== 0 || ssc !== 0) return undefined;
  if (els === 0) return undefined;
  if (!linked) return { els, context: undefined };
  const n = bits(control, 16, 4);
  const other = r.bcr[n];
  if (!isContextAware(n) || !isEnabled(other) || !LINKED_CONTEXT.includes(bits(other, 20, 4))) return undefined;
  return { els, context: Number(BigInt.asUintN(32, r.bvr[n] ?? 0n)) };
}

/** The breakpoints that can match (AArch64.BreakpointMatch). */
export function breakpointsOf(r: DebugRegisters, hasEl2: boolean): Breakpoint[] {
  return r.bcr.slice(0, BREAKPOINTS).flatMap((control, n): readonly Breakpoint[] => {
    if (!isEnabled(control)) return [];
    const type = bits(control, 20, 4);
    const isAddress = type === BreakpointType.ADDRESS || type === BreakpointType.LINKED_ADDRESS;
    if (!isAddress && !(CONTEXT.includes(type) && isContextAware(n))) return [];
    const condition = conditionOf(r, control, type === BreakpointType.LINKED_ADDRESS, hasEl2);
    if (condition === undefined) return [];
    const value = r.bvr[n] ?? 0n;
    if (isAddress) return [{ ...condition, address: compared(value & ~3n) }];
    return [{ els: condition.els, context: Number(BigInt.asUintN(32, value)), address: undefined }];
  });
}

/** The watchpoints that can match (AArch64.WatchpointMatch). */
export function watchpointsOf(r: DebugRegisters, hasEl2: boolean): Watchpoint[] {
  return r.wcr.slice(0, WATCHPOINTS).flatMap((control, n): readonly Watchpoint[] => {
    if (!isEnabled(control)) return [];
    const condition = conditionOf(r, control, bits(control, 20, 1) === 1, hasEl2);
    const range = watchedRange(r.wvr[n] ?? 0n, bits(control, 5, 8), bits(control, 24, 5));
    if (condition === undefined || range === undefined) return [];
    const lsc = bits(control, 3, 2);
    return [{ ...condition, ...range, loads: (lsc & LSC_LOAD) !== 0, stores: (lsc & LSC_STORE) !== 0 }];
  });
}

function watchedRange(
  value: bigint,
  bas: number,
  mask: number,
): { first: number; end: number; bytes: number | undefined } | undefined {
  if (mask !== 0) {
    // 1 and 2 are reserved.
    if (mask < 3) return undefined;
    const first = compared((value >> BigInt(mask)) << BigInt(mask));
    return { first, end: first + 2 ** mask, bytes: undefined };
  }
  // Bit 2 of the address says whether it is that of a word or a doubleword.
  const size = (value & 4n) !== 0n ? 4 : 8;
  const first = compared(value & ~3n);
  const bytes = bas & (2 ** size - 1);
  return bytes === 0 ? undefined : { first, end: first + size, bytes };
}

/** The first watched byte of an access, as its distance from the access's address; -1 where none is. @param address a {@link debugAddress} */
export function watchedByte(w: Watchpoint, address: number, size: number): number {
  const end = Math.min(w.end, address + size);
  for (let at = Math.max(w.first, address); at < end; at++) {
    if (w.bytes === undefined || ((w.bytes >> (at - w.first)) & 1) !== 0) return at - address;
  }
  return -1;
}
