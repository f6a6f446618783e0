import { Sctlr } from '../cpu/architecture.js';
import { ExitCode, Offset } from '../cpu/layout.js';
import { SR } from '../cpu/sysregs.js';
import type { Emitter, Val, XOperand } from './emitter.js';
import { type Row, row } from './row.js';

/**
 * Memory copy and memory set (FEAT_MOPS; Arm ARM DDI 0487 C4.1.96, C6.2 CPYFP to SETPN), each of three instructions. As Option A:
 * the prologue makes of a size what is left of it, counted up from below zero (forwards) or down (backwards); a little it does itself.
 * The main instruction does all the rest, and leaves nothing to the epilogue, which does it if it is executed alone.
 */

/** What ExitCode.COPY says in DETAIL: Rd, Rs and Rn, five bits each, these, and the options as they are encoded. */
export const CopyDetail = {
  /** SET*, else CPY*. */
  SET: 1 << 16,
  /** CPY*, which may go backwards, and not CPYF*. */
  MOVE: 1 << 17,
  EPILOGUE: 1 << 18,
  OPTIONS_SHIFT: 20,
} as const;
/** Options: accesses are unprivileged: stores, loads. What else they say is only advice. */
export const COPY_UNPRIVILEGED = { STORES: 1, LOADS: 2 } as const;

/** The largest sizes; others are taken for them. */
const LARGEST = (1n << 63n) - 1n;
const LARGEST_MOVE = (1n << 55n) - 1n;
/** The bits of addresses that decide the direction. */
const ADDRESS = (1n << 56n) - 1n;

interface Registers {
  readonly Rd: number;
  readonly Rs: number;
  readonly Rn: number;
}
/** Whether the registers differ, and are not 31: the constrained unpredictable rest is UNDEFINED. */
const areApart = ({ Rd, Rs, Rn }: Registers): boolean => Rd !== Rn && Rs !== Rd && Rs !== Rn && Rd !== 31 && Rn !== 31;

/** UNDEFINED at EL0 without SCTLR_EL1.MSCEn. */
function checkEnabled(e: Emitter): void {
  const disabled = e.eqz(e.and(e.state('i64', SR.SCTLR_EL1.offset), e.i64(1n << BigInt(Sctlr.MSCEn))));
  e.if(e.and(disabled, e.eqz(e.state('i32', Offset.EL))), () => e.exit(ExitCode.UNDEFINED));
}

/** NZCV = 0000: Option A. */
const tellOption = (e: Emitter): void => e.setFlags(e.i64(0), e.i64(1), e.i32(0), e.i64(0));

/** The lesser of a size and the largest, both unsigned. */
const saturate = (e: Emitter, size: Val, largest: bigint): Val =>
  e.select(e.ltU(e.i64(largest), size), e.i64(largest), size);

/** {@link CopyDetail}, in halves. */
const detailOf = (kind: number) => ({
  low: ({ Rd, Rs, Rn }: Registers): number => Rd | (Rs << 5) | (Rn << 10),
  high: ({ options }: { readonly options: number }): number => (kind | (options << CopyDetail.OPTIONS_SHIFT)) >>> 16,
});

/** A main instruction or an epilogue: where there is anything left, or PSTATE.C says Option B, the processor sees to it. */
function copy(e: Emitter, f: { readonly Rn: XOperand; readonly low: Val; readonly high: Val }): void {
  checkEnabled(e);
  const isNothing = e.and(e.eqz(e.getX(f.Rn)), e.eqz(e.carry()));
  e.if(e.eqz(isNothing), () => e.exit(ExitCode.COPY, e.or(f.low, e.shl(f.high, e.i32(16)))));
}

/**
 * So many bytes at most a prologue copies or sets itself. It loads all before it stores, and they do not overlap: after a fault it can be
 * executed again from the start.
 */
const LITTLE = 64n;

/**
 * Does a little, in accesses of one size that may overlap each other.
 * @param access makes one of so many bytes, at a distance (i64) from the start; it gives what is to be done after all of them are made
 * @returns what is left of the size
 */
function doLittle(e: Emitter, size: Val, isPossible: Val, access: (bytes: 1 | 4 | 8 | 16, at: Val) => () => void): Val {
  const left = e.variable(size);
  const all = (bytes: 1 | 4 | 8 | 16, ...places: readonly Val[]): void => {
    for (const store of places.map((at) => access(bytes, at))) store();
  };
  const first = e.i64(0);
  const last = (bytes: number): Val => e.sub(size, e.i64(bytes));
  const isBelow = (bytes: number): Val => e.ltU(size, e.i64(bytes));
  const isLittle = e.ltU(e.sub(size, e.i64(1)), e.i64(LITTLE));
  e.if(e.and(isLittle, isPossible), () => {
    e.if(
      isBelow(16),
      () =>
        e.if(
          isBelow(4),
          () => all(1, first, e.shrU(size, e.i64(1)), last(1)),
          () =>
            e.if(
              isBelow(8),
              () => all(4, first, last(4)),
              () => all(8, first, last(8)),
            ),
        ),
      () =>
        e.if(
          isBelow(33),
          () => all(16, first, last(16)),
          () => all(16, first, e.i64(16), last(32), last(16)),
        ),
    );
    e.assign(left, e.i64(0));
  });
  return e.read(left);
}

const isPrivileged = (e: Emitter, options: Val): Val =>
  e.eqz(e.and(options, e.i32(COPY_UNPRIVILEGED.STORES | COPY_UNPRIVILEGED.LOADS)));

const CPY = '00 011' as const;
const copies = (
  [
    ['CPYF', '0', 0],
    ['CPY', '1', CopyDetail.MOVE],
  ] as const
).flatMap(([name, o0, move]): Row[] => [
  row(
    `${name}P`,
    `${CPY} ${o0} 01 00 0 Rs options:4# 01 Rn Rd`,
    { when: (f) => areApart(f) && f.Rs !== 31 },
    (e, f) => {
      checkEnabled(e);
      const to = e.getX(f.Rd);
      const from = e.getX(f.Rs);
      const size = saturate(e, e.getX(f.Rn), move === 0 ? LARGEST : LARGEST_MOVE);
      const areApart = e.and(e.geU(e.sub(to, from), size), e.geU(e.sub(from, to), size));
      const left = doLittle(e, size, e.and(areApart, isPrivileged(e, f.options)), (bytes, at) => {
        const value = e.load(bytes, e.add(from, at));
        return () => e.store(bytes, e.add(to, at), value);
      });
      const backwards = move === 0 ? e.i32(0) : isBackwards(e, to, from, size);
      const end = e.select(backwards, e.i64(0), size);
      e.setR(f.Rd, e.add(to, end));
      e.setR(f.Rs, e.add(from, end));
      e.setR(f.Rn, e.select(backwards, left, e.sub(e.i64(0), left)));
      tellOption(e);
    },
  ),
  ...(
    [
      ['M', '01', 0],
      ['E', '10', CopyDetail.EPILOGUE],
    ] as const
  ).map(([stage, op1, epilogue]) =>
    row(
      `${name}${stage}`,
      `${CPY} ${o0} 01 ${op1} 0 Rs options:4# 01 Rn Rd`,
      { when: (f) => areApart(f) && f.Rs !== 31, ops: detailOf(move | epilogue) },
      copy,
    ),
  ),
]);

/** Whether a copy must go backwards: its source overlaps its destination from below (IsMemCpyForward). */
function isBackwards(e: Emitter, to: Val, from: Val, size: Val): Val {
  const low = (v: Val): Val => e.and(v, e.i64(ADDRESS));
  return e.and(e.ltU(low(from), low(to)), e.ltU(low(to), low(e.add(from, size))));
}

const sets: readonly Row[] = [
  row('SETP', '00 011 0 01 11 0 Rs 00 options:2# 01 Rn Rd', { when: areApart }, (e, f) => {
    checkEnabled(e);
    const to = e.getX(f.Rd);
    const size = saturate(e, e.getX(f.Rn), LARGEST);
    const bytes8 = e.mul(e.and(e.getX(f.Rs), e.i64(0xff)), e.i64(0x0101_0101_0101_0101n));
    const left = doLittle(e, size, isPrivileged(e, f.options), (bytes, at) => {
      const value = bytes === 16 ? e.op('i64x2.splat', bytes8) : bytes === 8 ? bytes8 : e.wrap(bytes8);
      return () => e.store(bytes, e.add(to, at), value);
    });
    e.setR(f.Rd, e.add(to, size));
    e.setR(f.Rn, e.sub(e.i64(0), left));
    tellOption(e);
  }),
  ...(
    [
      ['SETM', '01', 0],
      ['SETE', '10', CopyDetail.EPILOGUE],
    ] as const
  ).map(([name, stage, epilogue]) =>
    row(
      name,
      `00 011 0 01 11 0 Rs ${stage} options:2# 01 Rn Rd`,
      { when: areApart, ops: detailOf(CopyDetail.SET | epilogue) },
      copy,
    ),
  ),
];

export const memoryCopy: readonly Row[] = [...copies, ...sets];
