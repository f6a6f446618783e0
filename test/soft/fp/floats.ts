import { randomFloat, specialFloats } from '../../a64/fp-operands.ts';
import type { Random } from '../../a64/random.ts';

const view = new DataView(new ArrayBuffer(8));

/** A double's bits, and back. */
export function bits64(value: number): bigint {
  view.setFloat64(0, value);
  return view.getBigUint64(0);
}
export function double(bits: bigint): number {
  view.setBigUint64(0, bits);
  return view.getFloat64(0);
}
/** The bits of the single nearest to a number, and back. */
export function bits32(value: number): bigint {
  view.setFloat32(0, value);
  return BigInt(view.getUint32(0));
}
export function single(bits: bigint): number {
  view.setUint32(0, Number(bits));
  return view.getFloat32(0);
}
/** A half's value. */
export function half(bits: bigint): number {
  const b = Number(bits);
  const sign = b >> 15 === 1 ? -1 : 1;
  const field = (b >> 10) & 31;
  const fraction = b & 1023;
  if (field === 31) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return sign * (field === 0 ? fraction * 2 ** -24 : (1024 + fraction) * 2 ** (field - 25));
}

const EACH = 1200;

/** Pairs of special values, and as many random pairs. */
export function pairs(bytes: 2 | 4 | 8, random: Random): [bigint, bigint][] {
  const special = specialFloats(bytes);
  return Array.from({ length: 2 * EACH }, (_, i) =>
    i < EACH ? [random.pick(special), random.pick(special)] : [randomFloat(bytes, random), randomFloat(bytes, random)],
  );
}

/** Every special value, and as many random ones. */
export function numbers(bytes: 2 | 4 | 8, random: Random): bigint[] {
  const special = specialFloats(bytes);
  return [
    ...special,
    ...special.map(() => randomFloat(bytes, random)),
    ...special.map(() => randomFloat(bytes, random)),
  ];
}
