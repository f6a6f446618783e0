import * as soft from '../fp/softfloat.js';
import { type FpContext, Rounding } from '../fp/softfloat.js';
import { binaryOf, formatOf, fpAccess, mulAddOf, toIntOf, unaryOf } from './fp-operations.js';
import { type HelperEnv, type HelperTable, helper } from './helpers.js';

/**
 * The exact paths of vector floating point. Operands are V registers by their addresses; results go to `d`, and the rest of its
 * 128 bits becomes zero. `lanes` is how many elements there are, 1 for a scalar. Where there is an `index`, that element of
 * `m` is used in every lane; -1 is none.
 */

/** (op, lanes, d, n) */
export const fpLanes1 = helper('fpLanes1', 'iiii');
/** (op, lanes, index, d, n, m) */
export const fpLanes2 = helper('fpLanes2', 'iiiiii');
/** (op, lanes, d, n): the second operand is zero */
export const fpLanesZero = helper('fpLanesZero', 'iiii');
/** (op, lanes, index, d, n, m): d is the addend */
export const fpLanesMulAdd = helper('fpLanesMulAdd', 'iiiiii');
/** (op, lanes, d, n, m): of neighbours in n, then in m */
export const fpPairwise = helper('fpPairwise', 'iiiii');
/** (op, lanes, d, n): of all lanes, halves first */
export const fpReduce = helper('fpReduce', 'iiii');
/** (op, lanes, fraction bits, d, n) */
export const fpLanesToInt = helper('fpLanesToInt', 'iiiii');
/** (format | unsigned << 2, lanes, fraction bits, d, n) */
export const fpLanesFromInt = helper('fpLanesFromInt', 'iiiii');
/** (root, lanes, d, n): URECPE, URSQRTE */
export const fpLanesEstimate = helper('fpLanesEstimate', 'iiii');
/** (op, upper, d, n): FCVTL, FCVTL2; the op converts */
export const fpLengthen = helper('fpLengthen', 'iiii');
/** (op, lanes, upper, d, n): FCVTN, FCVTXN, and into the upper half, which leaves the lower as it is */
export const fpNarrow = helper('fpNarrow', 'iiiii');
/** (negate | upper << 1, lanes, index, d, n, m): FMLAL, FMLSL */
export const fpLanesMulAddLong = helper('fpLanesMulAddLong', 'iiiiii');
/** (format | rotation << 2, lanes, index, d, n, m): FCMLA; the index counts pairs */
export const fpComplexMulAdd = helper('fpComplexMulAdd', 'iiiiii');
/** (format | rotation << 2, lanes, d, n, m): FCADD; rotation 0 is 90 degrees, 1 is 270 */
export const fpComplexAdd = helper('fpComplexAdd', 'iiiii');

export function createFpVectorHelpers(env: HelperEnv): HelperTable {
  const { run } = fpAccess(env);
  const { u8, u32, u64 } = env;

  const get = (address: number, bytes: number, lane: number): bigint => {
    if (bytes === 8) return u64[(address >>> 3) + lane] ?? 0n;
    if (bytes === 4) return BigInt(u32[(address >>> 2) + lane] ?? 0);
    const at = address + lane * 2;
    return BigInt((u8[at] ?? 0) | ((u8[at + 1] ?? 0) << 8));
  };
  /** Puts elements together from `bit` on. */
  const pack = (values: readonly bigint[], bytes: number): bigint =>
    values.reduceRight((all, v) => (all << BigInt(bytes * 8)) | v, 0n);
  const put = (address: number, value: bigint): void => {
    u64[address >>> 3] = BigInt.asUintN(64, value);
    u64[(address >>> 3) + 1] = value >> 64n;
  };
  /** Computes every lane from the registers as they are, then writes them all. */
  const each = (d: number, lanes: number, bytes: number, lane: (i: number, ctx: FpContext) => bigint): void => {
    const values = run((ctx) => Array.from({ length: lanes }, (_, i) => lane(i, ctx)));
    put(d, pack(values, bytes));
  };
  const bytesOf = (op: number): number => formatOf(op).bits / 8;
  const at = (index: number, i: number): number => (index < 0 ? i : index);

  return {
    fpLanes1: (op: number, lanes: number, d: number, n: number) => {
      const fmt = formatOf(op);
      const f = unaryOf(op);
      const bytes = bytesOf(op);
      each(d, lanes, bytes, (i, ctx) => f(fmt, get(n, bytes, i), ctx));
      return undefined;
    },
    fpLanes2: (op: number, lanes: number, index: number, d: number, n: number, m: number) => {
      const fmt = formatOf(op);
      const f = binaryOf(op);
      const bytes = bytesOf(op);
      each(d, lanes, bytes, (i, ctx) => f(fmt, get(n, bytes, i), get(m, bytes, at(index, i)), ctx));
      return undefined;
    },
    fpLanesZero: (op: number, lanes: number, d: number, n: number) => {
      const fmt = formatOf(op);
      const f = binaryOf(op);
      const bytes = bytesOf(op);
      each(d, lanes, bytes, (i, ctx) => f(fmt, get(n, bytes, i), 0n, ctx));
      return undefined;
    },
    fpLanesMulAdd: (op: number, lanes: number, index: number, d: number, n: number, m: number) => {
      const bytes = bytesOf(op);
      each(d, lanes, bytes, (i, ctx) =>
        mulAddOf(op, get(d, bytes, i), get(n, bytes, i), get(m, bytes, at(index, i)), ctx),
      );
      return undefined;
    },
    fpPairwise: (op: number, lanes: number, d: number, n: number, m: number) => {
      const fmt = formatOf(op);
      const f = binaryOf(op);
      const bytes = bytesOf(op);
      each(d, lanes, bytes, (i, ctx) => {
        // A scalar form has one result, of the two elements of n. The two registers may be the same.
        const ofN = 2 * i < lanes;
        const from = ofN ? n : m;
        const first = ofN ? 2 * i : 2 * i - lanes;
        return f(fmt, get(from, bytes, first), get(from, bytes, first + 1), ctx);
      });
      return undefined;
    },
    fpReduce: (op: number, lanes: number, d: number, n: number) => {
      const fmt = formatOf(op);
      const f = binaryOf(op);
      const bytes = bytesOf(op);
      const reduce = (from: number, count: number, ctx: FpContext): bigint => {
        if (count === 1) return get(n, bytes, from);
        const low = reduce(from, count / 2, ctx);
        return f(fmt, low, reduce(from + count / 2, count / 2, ctx), ctx);
      };
      each(d, 1, bytes, (_, ctx) => reduce(0, lanes, ctx));
      return undefined;
    },
    fpLanesToInt: (op: number, lanes: number, fractionBits: number, d: number, n: number) => {
      const bytes = bytesOf(op);
      each(d, lanes, bytes, (i, ctx) => toIntOf(op, fractionBits, get(n, bytes, i), ctx));
      return undefined;
    },
    fpLanesFromInt: (op: number, lanes: number, fractionBits: number, d: number, n: number) => {
      const fmt = formatOf(op);
      const bytes = bytesOf(op);
      each(d, lanes, bytes, (i, ctx) => {
        const a = get(n, bytes, i);
        return soft.fromFixed(fmt, (op & 4) !== 0 ? a : BigInt.asIntN(fmt.bits, a), fractionBits, ctx);
      });
      return undefined;
    },
    fpLanesEstimate: (root: number, lanes: number, d: number, n: number) => {
      each(d, lanes, 4, (i) => {
        const a = Number(get(n, 4, i));
        return BigInt(root === 1 ? soft.unsignedRsqrt(a) : soft.unsignedRecip(a));
      });
      return undefined;
    },
    fpLengthen: (op: number, upper: number, d: number, n: number) => {
      const from = formatOf(op);
      const to = formatOf(op >> 2);
      const lanes = 128 / to.bits;
      each(d, lanes, to.bits / 8, (i, ctx) => soft.convert(from, to, get(n, from.bits / 8, upper * lanes + i), ctx));
      return undefined;
    },
    fpNarrow: (op: number, lanes: number, upper: number, d: number, n: number) => {
      const from = formatOf(op);
      const to = formatOf(op >> 2);
      const narrowed = run((ctx) => {
        const rounding = (op & 16) !== 0 ? Rounding.ODD : soft.roundingMode(ctx);
        return Array.from({ length: lanes }, (_, i) => soft.convert(from, to, get(n, from.bits / 8, i), ctx, rounding));
      });
      const packed = pack(narrowed, to.bits / 8);
      if (upper === 1) u64[(d >>> 3) + 1] = packed;
      else put(d, packed);
      return undefined;
    },
    fpLanesMulAddLong: (op: number, lanes: number, index: number, d: number, n: number, m: number) => {
      const first = (op & 2) !== 0 ? lanes : 0;
      each(d, lanes, 4, (i, ctx) => {
        const a = get(n, 2, first + i);
        const b = get(m, 2, index < 0 ? first + i : index);
        return soft.mulAddHalf(get(d, 4, i), (op & 1) !== 0 ? soft.neg(soft.HALF, a) : a, b, ctx);
      });
      return undefined;
    },
    fpComplexMulAdd: (op: number, lanes: number, index: number, d: number, n: number, m: number) => {
      const fmt = formatOf(op);
      const bytes = bytesOf(op);
      const rotation = op >> 2;
      each(d, lanes, bytes, (i, ctx) => {
        const pair = i >> 1;
        const imaginary = i & 1;
        // Rotations by 90 and 270 degrees take the imaginary part of n, and exchange the parts of m.
        const a = get(n, bytes, pair * 2 + (rotation & 1));
        const b = get(m, bytes, at(index, pair) * 2 + (imaginary ^ (rotation & 1)));
        const negative = imaginary === 1 ? rotation >= 2 : rotation === 1 || rotation === 2;
        return soft.mulAdd(fmt, get(d, bytes, i), a, negative ? soft.neg(fmt, b) : b, ctx);
      });
      return undefined;
    },
    fpComplexAdd: (op: number, lanes: number, d: number, n: number, m: number) => {
      const fmt = formatOf(op);
      const bytes = bytesOf(op);
      const rotation = op >> 2;
      each(d, lanes, bytes, (i, ctx) => {
        const b = get(m, bytes, i ^ 1);
        return soft.add(fmt, get(n, bytes, i), (i & 1) === rotation ? soft.neg(fmt, b) : b, ctx);
      });
      return undefined;
    },
  };
}
