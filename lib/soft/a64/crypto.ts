import { elements } from './advsimd-lanes.js';
import { aes } from './aes.js';
import type { Emitter, Val } from './emitter.js';
import { type Row, row } from './row.js';

/**
 * The Cryptographic Extension: FEAT_AES, FEAT_SHA1, FEAT_SHA256, FEAT_SHA512 and FEAT_SHA3 (Arm ARM DDI 0487 C4.1.97).
 * PMULL stands with the other long multiplications.
 */

// SHA-1 and SHA-256: words in i32 values.

const words = (e: Emitter, v: Val): Val[] => [0, 1, 2, 3].map((i) => e.lane('i32x4.extract_lane', i, v));
function vectorOf(e: Emitter, w: readonly Val[]): Val {
  let v = e.op('i32x4.splat', w[0]!);
  for (let i = 1; i < 4; i++) v = e.lane('i32x4.replace_lane', i, v, w[i]!);
  return v;
}
const rol = (e: Emitter, v: Val, n: number): Val => e.rotr(v, e.i32(32 - n));
const ror = (e: Emitter, v: Val, ...by: readonly number[]): Val =>
  by.map((n) => e.rotr(v, e.i32(n))).reduce((a, b) => e.xor(a, b));
type Choice = (e: Emitter, x: Val, y: Val, z: Val) => Val;
const choose: Choice = (e, x, y, z) => e.xor(e.and(e.xor(y, z), x), z);
const parity: Choice = (e, x, y, z) => e.xor(e.xor(x, y), z);
const majority: Choice = (e, x, y, z) => e.or(e.and(x, y), e.and(e.or(x, y), z));

type ThreeSha = '01011110000 Vm 0 000 00 Vn Vd';

/** SHA1C, SHA1P, SHA1M: four rounds; the state is Vd = (a, b, c, d) and e in the low word of Vn. */
const sha1Rounds = (name: string, opcode: string, f: Choice): Row =>
  row(name, `01011110000 Vm 0 ${opcode} 00 Vn Vd` as ThreeSha, {}, (e, { Vm, Vn, Vd }) => {
    const w = words(e, e.getV(Vm));
    let y = e.getElem(Vn, 4);
    let [a, b, c, d] = words(e, e.getV(Vd)) as [Val, Val, Val, Val];
    for (let i = 0; i < 4; i++) {
      const t = e.add(e.add(e.add(y, rol(e, a, 5)), f(e, b, c, d)), w[i]!);
      [y, d, c, b, a] = [d, c, rol(e, b, 30), a, t];
    }
    e.setV(Vd, vectorOf(e, [a, b, c, d]));
  });

/** SHA256H, SHA256H2: four rounds, of which one returns (a, b, c, d) and the other (e, f, g, h). */
const sha256Rounds = (name: string, opcode: string, second: boolean): Row =>
  row(name, `01011110000 Vm 0 ${opcode} 00 Vn Vd` as ThreeSha, {}, (e, { Vm, Vn, Vd }) => {
    const w = words(e, e.getV(Vm));
    const own = words(e, e.getV(Vd));
    const other = words(e, e.getV(Vn));
    let x = second ? other : own;
    let y = second ? own : other;
    for (let i = 0; i < 4; i++) {
      const [a, b, c, d] = x as [Val, Val, Val, Val];
      const [f0, f1, f2, f3] = y as [Val, Val, Val, Val];
      const t1 = e.add(e.add(e.add(f3, ror(e, f0, 6, 11, 25)), choose(e, f0, f1, f2)), w[i]!);
      const t2 = e.add(ror(e, a, 2, 13, 22), majority(e, a, b, c));
      x = [e.add(t1, t2), a, b, c];
      y = [e.add(d, t1), f0, f1, f2];
    }
    e.setV(Vd, vectorOf(e, second ? y : x));
  });

const v32 = (e: Emitter, name: string, v: Val, n: number): Val => e.op(`i32x4.${name}`, v, e.i32(n));
/** Each word rotated left. */
const rolWords = (e: Emitter, v: Val, n: number): Val =>
  e.op('v128.or', v32(e, 'shl', v, n), v32(e, 'shr_u', v, 32 - n));
const wordShuffle = (e: Emitter, a: Val, b: Val, indices: readonly number[]): Val =>
  e.shuffle(a, b, elements(2, indices));
const xor3 = (e: Emitter, a: Val, b: Val, c: Val): Val => e.op('v128.xor', e.op('v128.xor', a, b), c);

/** SHA-256's message schedule functions on each word. */
const sigma = (e: Emitter, v: Val, r1: number, r2: number, s: number): Val =>
  xor3(e, rolWords(e, v, 32 - r1), rolWords(e, v, 32 - r2), v32(e, 'shr_u', v, s));

/** SHA256SU1: words 14 to 17 in order, of which the last two are what the first two become. */
const sha256Schedule1 = row('SHA256SU1', '01011110000 Vm 0 110 00 Vn Vd', {}, (e, { Vm, Vn, Vd }) => {
  const [d, n, m] = [e.getV(Vd), e.getV(Vn), e.getV(Vm)];
  const seven = e.op('i32x4.add', d, wordShuffle(e, n, m, [1, 2, 3, 4]));
  const low = e.op('i32x4.add', seven, sigma(e, wordShuffle(e, m, m, [2, 3, 2, 3]), 17, 19, 10));
  const high = e.op('i32x4.add', seven, sigma(e, wordShuffle(e, low, low, [0, 1, 0, 1]), 17, 19, 10));
  e.setV(Vd, wordShuffle(e, low, high, [0, 1, 6, 7]));
});

// SHA-512: double words in i64 values.

const ror64 = (e: Emitter, v: Val, ...by: readonly number[]): Val =>
  by.map((n) => e.rotr(v, e.i64(n))).reduce((a, b) => e.xor(a, b));
const pair = (e: Emitter, low: Val, high: Val): Val => e.lane('i64x2.replace_lane', 1, e.op('i64x2.splat', low), high);

const v64 = (e: Emitter, name: string, v: Val, n: number): Val => e.op(`i64x2.${name}`, v, e.i32(n));
/** Each double word rotated right. */
const rorDoubles = (e: Emitter, v: Val, n: number): Val =>
  n === 0 ? v : e.op('v128.or', v64(e, 'shr_u', v, n), v64(e, 'shl', v, 64 - n));

export const crypto: readonly Row[] = [
  ...aes,

  sha1Rounds('SHA1C', '000', choose),
  sha1Rounds('SHA1P', '001', parity),
  sha1Rounds('SHA1M', '010', majority),
  row('SHA1SU0', '01011110000 Vm 0 011 00 Vn Vd', {}, (e, { Vm, Vn, Vd }) => {
    const [d, n, m] = [e.getV(Vd), e.getV(Vn), e.getV(Vm)];
    e.setV(Vd, xor3(e, wordShuffle(e, d, n, [2, 3, 4, 5]), d, m));
  }),
  row('SHA1H', '01011110 00 10100 00000 10 Vn Vd', {}, (e, f) => e.setScalar(f.Vd, 4, rol(e, e.getElem(f.Vn, 4), 30))),
  row('SHA1SU1', '01011110 00 10100 00001 10 Vn Vd', {}, (e, { Vn, Vd }) => {
    // The last word depends on the first one of the result.
    const n = e.getV(Vn);
    const zero = e.v128(0n);
    const t = e.op('v128.xor', e.getV(Vd), wordShuffle(e, n, zero, [1, 2, 3, 4]));
    const late = rolWords(e, wordShuffle(e, zero, t, [0, 1, 2, 4]), 2);
    e.setV(Vd, e.op('v128.xor', rolWords(e, t, 1), late));
  }),
  sha256Rounds('SHA256H', '100', false),
  sha256Rounds('SHA256H2', '101', true),
  row('SHA256SU0', '01011110 00 10100 00010 10 Vn Vd', {}, (e, { Vn, Vd }) => {
    const d = e.getV(Vd);
    const next = wordShuffle(e, d, e.getV(Vn), [1, 2, 3, 4]);
    e.setV(Vd, e.op('i32x4.add', d, sigma(e, next, 7, 18, 3)));
  }),
  sha256Schedule1,

  row('SHA512H', '11001110011 Vm 1 0 00 00 Vn Vd', {}, (e, { Vm, Vn, Vd }) => {
    const [w0, w1] = [e.getElem(Vd, 8, 0), e.getElem(Vd, 8, 1)];
    const [x0, x1] = [e.getElem(Vn, 8, 0), e.getElem(Vn, 8, 1)];
    const [y0, y1] = [e.getElem(Vm, 8, 0), e.getElem(Vm, 8, 1)];
    const high = e.add(e.add(choose(e, y1, x0, x1), ror64(e, y1, 14, 18, 41)), w1);
    const next = e.add(high, y0);
    const low = e.add(e.add(choose(e, next, y1, x0), ror64(e, next, 14, 18, 41)), w0);
    e.setV(Vd, pair(e, low, high));
  }),
  row('SHA512H2', '11001110011 Vm 1 0 00 01 Vn Vd', {}, (e, { Vm, Vn, Vd }) => {
    const [w0, w1] = [e.getElem(Vd, 8, 0), e.getElem(Vd, 8, 1)];
    const x0 = e.getElem(Vn, 8, 0);
    const [y0, y1] = [e.getElem(Vm, 8, 0), e.getElem(Vm, 8, 1)];
    const high = e.add(e.add(majority(e, x0, y1, y0), ror64(e, y0, 28, 34, 39)), w1);
    const low = e.add(e.add(majority(e, high, y0, y1), ror64(e, high, 28, 34, 39)), w0);
    e.setV(Vd, pair(e, low, high));
  }),
  row('SHA512SU0', '11001110110 00000 1 0 00 00 Vn Vd', {}, (e, { Vn, Vd }) => {
    const d = e.getV(Vd);
    const next = e.shuffle(d, e.getV(Vn), elements(3, [1, 2]));
    const s = xor3(e, rorDoubles(e, next, 1), rorDoubles(e, next, 8), v64(e, 'shr_u', next, 7));
    e.setV(Vd, e.op('i64x2.add', d, s));
  }),
  row('SHA512SU1', '11001110011 Vm 1 0 00 10 Vn Vd', {}, (e, { Vm, Vn, Vd }) => {
    const n = e.getV(Vn);
    const s = xor3(e, rorDoubles(e, n, 19), rorDoubles(e, n, 61), v64(e, 'shr_u', n, 6));
    e.setV(Vd, e.op('i64x2.add', e.op('i64x2.add', e.getV(Vd), s), e.getV(Vm)));
  }),

  row('EOR3', '110011100 00 Vm 0 Va Vn Vd', {}, (e, f) =>
    e.setV(f.Vd, xor3(e, e.getV(f.Vn), e.getV(f.Vm), e.getV(f.Va))),
  ),
  row('BCAX', '110011100 01 Vm 0 Va Vn Vd', {}, (e, f) =>
    e.setV(f.Vd, e.op('v128.xor', e.getV(f.Vn), e.op('v128.andnot', e.getV(f.Vm), e.getV(f.Va)))),
  ),
  row('RAX1', '11001110011 Vm 1 0 00 11 Vn Vd', {}, (e, f) =>
    e.setV(f.Vd, e.op('v128.xor', e.getV(f.Vn), rorDoubles(e, e.getV(f.Vm), 63))),
  ),
  row('XAR', '11001110100 Vm imm6:6 Vn Vd', {}, (e, f) =>
    e.setV(f.Vd, rorDoubles(e, e.op('v128.xor', e.getV(f.Vn), e.getV(f.Vm)), f.imm6)),
  ),
];
