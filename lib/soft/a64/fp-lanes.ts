import type { Emitter, Val, VOperand } from './emitter.js';
import type { FpBytes } from './fp-emit.js';

/**
 * The vocabulary of the vector floating-point rows. Scalars and 64-bit vectors are spread over all 128 bits when they are
 * loaded, so that one program does for every shape and the upper lanes raise nothing that the lower do not.
 */

/** What an instruction works on: elements of so many bytes, and how many; one is a scalar. */
export interface Shape {
  readonly bytes: FpBytes;
  readonly lanes: number;
}
/** A shape that the host has operations for. */
export interface HostShape extends Shape {
  readonly bytes: 4 | 8;
}
export const isHostShape = (s: Shape): s is HostShape => s.bytes !== 2;

/** A vector of 64 or, where Q is 1, 128 bits. */
export const vectorOf = (bytes: FpBytes, q: number): Shape => ({ bytes, lanes: (q === 1 ? 16 : 8) / bytes });
export const scalarOf = (bytes: FpBytes): Shape => ({ bytes, lanes: 1 });

/** The host's name of a shape's lanes. */
export const floats = (bytes: 4 | 8): 'f32x4' | 'f64x2' => (bytes === 4 ? 'f32x4' : 'f64x2');
export const ints = (bytes: 4 | 8): 'i32x4' | 'i64x2' => (bytes === 4 ? 'i32x4' : 'i64x2');

function spread(e: Emitter, bytes: number, v: Val): Val {
  return e.op(bytes === 8 ? 'i64x2.splat' : bytes === 4 ? 'i32x4.splat' : 'i16x8.splat', v);
}

/** The lanes of a register. */
export function load(e: Emitter, reg: VOperand, s: Shape): Val {
  const bytes = s.bytes * s.lanes;
  return bytes === 16 ? e.getV(reg) : spread(e, bytes, e.getElem(reg, bytes as 2 | 4 | 8));
}
/** One element in every lane. */
export const loadElement = (e: Emitter, reg: VOperand, bytes: FpBytes, index: number): Val =>
  spread(e, bytes, e.getElem(reg, bytes, index));

/** Writes the lanes and zeroes the rest of the register. */
export function store(e: Emitter, reg: VOperand, s: Shape, v: Val): void {
  const bytes = s.bytes * s.lanes;
  if (bytes === 16) e.setV(reg, v);
  else if (bytes === 8) e.setScalar(reg, 8, e.lane('i64x2.extract_lane', 0, v));
  else if (bytes === 4) e.setScalar(reg, 4, e.lane('i32x4.extract_lane', 0, v));
  else e.setScalar(reg, 2, e.lane('i16x8.extract_lane_u', 0, v));
}

/** A bit pattern in every lane. */
export function pattern(e: Emitter, bytes: number, bits: bigint): Val {
  let all = 0n;
  for (let i = 0; i < 16; i += bytes) all |= bits << BigInt(i * 8);
  return e.v128(all);
}

/** A number in every lane. */
export function spreadNumber(e: Emitter, bytes: 4 | 8, value: number): Val {
  const view = new DataView(new ArrayBuffer(8));
  if (bytes === 8) view.setFloat64(0, value);
  else view.setFloat32(0, value);
  return pattern(e, bytes, bytes === 8 ? view.getBigUint64(0) : BigInt(view.getUint32(0)));
}

/** Whether a mask is set in every lane. */
export const everyLane = (e: Emitter, bytes: 4 | 8, mask: Val): Val => e.op(`${ints(bytes)}.all_true`, mask);

/** |v| below infinity, by lane: not for NaNs. */
export const finiteLanes = (e: Emitter, bytes: 4 | 8, v: Val): Val => {
  const t = floats(bytes);
  return e.op(`${t}.lt`, e.op(`${t}.abs`, v), spreadNumber(e, bytes, Number.POSITIVE_INFINITY));
};

/** low < |v| < high, by lane. */
export function within(e: Emitter, bytes: 4 | 8, v: Val, low: number, high: number): Val {
  const t = floats(bytes);
  const magnitude = e.op(`${t}.abs`, v);
  return e.op(
    'v128.and',
    e.op(`${t}.gt`, magnitude, spreadNumber(e, bytes, low)),
    e.op(`${t}.lt`, magnitude, spreadNumber(e, bytes, high)),
  );
}

/** Not NaN, by lane, in either. */
export function orderedLanes(e: Emitter, bytes: 4 | 8, a: Val, b?: Val): Val {
  const t = floats(bytes);
  const first = e.op(`${t}.eq`, a, a);
  return b === undefined || b === a ? first : e.op('v128.and', first, e.op(`${t}.eq`, b, b));
}

/** The upper half of a vector in its lower half. */
export const upperHalf = (e: Emitter, v: Val): Val =>
  e.shuffle(v, v, [8, 9, 10, 11, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15]);
/** The lower halves of two vectors. */
export const lowerHalves = (e: Emitter, a: Val, b: Val): Val =>
  e.shuffle(a, b, [0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23]);
