import { replicate } from './advsimd-lanes.js';
import type { Emitter, Val } from './emitter.js';
import { type Row, row } from './row.js';

/**
 * FEAT_AES (Arm ARM DDI 0487 C4.1.97, FIPS 197), on all sixteen bytes at once and without a table that depends on secrets.
 *
 * The S-box's inversion in GF(2^8) is done in GF(16), where a WebAssembly swizzle is a table of all elements. A byte is i + k t with
 * i and k in GF(16) and t^2 = t + ZETA; with j = i + k its inverse is (j + k t) / N, N = i j + ZETA k^2. As Hamburg found
 * ("Accelerating AES with Vector Permute Instructions", CHES 2009), with a = 1 / ZETA
 *
 *     1 / (1/i + a/k) + j = a N / (k + a i)     and     1 / (1/j + a/k) + i = a N / (k + a j)
 *
 * whose inverses are linear in the result's two halves. Infinity is a number above 15: a swizzle makes 0 of it, and adding
 * anything to it leaves it there.
 */

const INFINITY = 0x80;

/** Product in GF(2^n), modulo a polynomial of degree n. */
function multiply(a: number, b: number, modulus: number, degree: number): number {
  let product = 0;
  for (let bit = degree - 1; bit >= 0; bit--) {
    product <<= 1;
    if (product >> degree) product ^= modulus;
    if ((b >> bit) & 1) product ^= a;
  }
  return product;
}

const multiply4 = (a: number, b: number): number => multiply(a, b, 0b1_0011, 4);
const NIBBLES = Array.from({ length: 16 }, (_, i) => i);
const BYTES = Array.from({ length: 256 }, (_, i) => i);
const inverse4 = (a: number): number => NIBBLES.find((b) => multiply4(a, b) === 1) ?? 0;

/** i + k t as a byte. */
const tower = (i: number, k: number): number => (i << 4) | k;

/** The S-box's affine map without its constant. */
const AFFINE_CONSTANT = 0x63;
const affine = (byte: number): number =>
  [1, 2, 3, 4].reduce((sum, n) => sum ^ (((byte << n) | (byte >> (8 - n))) & 0xff), byte);

/** A swizzle's table. */
const table = (f: (nibble: number) => number): bigint =>
  NIBBLES.reduce((sum, i) => sum | (BigInt(f(i)) << BigInt(8 * i)), 0n);

/** The linear maps around the inversion, as tables of the low and high half byte, and of the two fractions. */
interface Around {
  readonly low: bigint;
  readonly high: bigint;
  readonly first: bigint;
  readonly second: bigint;
}

interface Tables {
  readonly inverse: bigint;
  readonly aOver: bigint;
  readonly forward: Around;
  readonly backward: Around;
}

let made: Tables | undefined;
/** Made when the first such instruction is met: few guests have one. */
const tables = (): Tables => (made ??= makeTables());

function makeTables(): Tables {
  /** The least ZETA for which t^2 + t + ZETA has no root. */
  const zeta = NIBBLES.find((z) => NIBBLES.every((t) => (multiply4(t, t) ^ t ^ z) !== 0)) ?? 0;
  const multiplyTower = (x: number, y: number): number => {
    const [i1, k1, i2, k2] = [x >> 4, x & 15, y >> 4, y & 15];
    const kk = multiply4(k1, k2);
    return tower(multiply4(i1, i2) ^ multiply4(zeta, kk), multiply4(i1, k2) ^ multiply4(k1, i2) ^ kk);
  };
  const powerTower = (x: number, n: number): number => (n === 0 ? tower(1, 0) : multiplyTower(x, powerTower(x, n - 1)));
  /** An element of the tower that is a root of AES's polynomial x^8 + x^4 + x^3 + x + 1: where x goes. */
  const root =
    BYTES.find((g) => g > 1 && [8, 4, 3, 1, 0].map((n) => powerTower(g, n)).reduce((a, b) => a ^ b) === 0) ?? 0;
  const rootPowers = Array.from({ length: 8 }, (_, n) => powerTower(root, n));
  const toTower = (byte: number): number =>
    rootPowers.reduce((sum, power, n) => ((byte >> n) & 1 ? sum ^ power : sum), 0);
  const fromTower = new Uint8Array(256);
  const unaffine = new Uint8Array(256);
  for (const byte of BYTES) {
    fromTower[toTower(byte)] = byte;
    unaffine[affine(byte)] = byte;
  }
  const around = (before: (byte: number) => number, after: (byte: number) => number): Around => ({
    low: table((x) => toTower(before(x))),
    high: table((x) => toTower(before(x << 4))),
    first: table((x) => after(fromTower[tower(multiply4(zeta, inverse4(x)), inverse4(x))]!)),
    second: table((x) => after(fromTower[tower(inverse4(x) ^ multiply4(zeta, inverse4(x)), inverse4(x))]!)),
  });
  const same = (byte: number): number => byte;
  return {
    inverse: table((x) => (x === 0 ? INFINITY : inverse4(x))),
    aOver: table((x) => (x === 0 ? INFINITY : multiply4(inverse4(zeta), inverse4(x)))),
    forward: around(same, affine),
    backward: around((byte) => unaffine[byte]!, same),
  };
}

/** Linear map, inversion, linear map. */
function substitute(e: Emitter, direction: 'forward' | 'backward', v: Val): Val {
  const { inverse, aOver, [direction]: maps } = tables();
  const look = (of: bigint, index: Val): Val => e.op('i8x16.swizzle', e.v128(of), index);
  const xor = (a: Val, b: Val): Val => e.op('v128.xor', a, b);
  const lowNibble = (x: Val): Val => e.op('v128.and', x, e.v128(replicate(0, 15)));
  const highNibble = (x: Val): Val => e.op('i8x16.shr_u', x, e.i32(4));
  const x = xor(look(maps.low, lowNibble(v)), look(maps.high, highNibble(v)));
  const i = highNibble(x);
  const k = lowNibble(x);
  const j = xor(i, k);
  const aOverK = look(aOver, k);
  const first = xor(look(inverse, xor(look(inverse, i), aOverK)), j);
  const second = xor(look(inverse, xor(look(inverse, j), aOverK)), i);
  return xor(look(maps.first, first), look(maps.second, second));
}

/** The state's bytes with each row turned left by `direction` times its number. */
const shiftRows = (e: Emitter, v: Val, direction: 1 | -1): Val =>
  e.shuffle(
    v,
    v,
    NIBBLES.map((i) => (i + direction * 4 * (i & 3)) & 15),
  );

/** Each byte times x in GF(2^8). */
const timesX = (e: Emitter, v: Val): Val =>
  e.op(
    'v128.xor',
    e.op('i8x16.add', v, v),
    e.op('v128.and', e.op('i8x16.shr_s', v, e.i32(7)), e.v128(replicate(0, 0x1b))),
  );
/** The bytes of each column turned up by `n`. */
const turnColumn = (e: Emitter, v: Val, n: number): Val =>
  e.shuffle(
    v,
    v,
    NIBBLES.map((i) => (i & 12) | ((i + n) & 3)),
  );

/** MixColumns (FIPS 197 §5.1.3): 2a + 3b + c + d down each column. */
function mixColumns(e: Emitter, v: Val): Val {
  const next = turnColumn(e, v, 1);
  const both = e.op('v128.xor', v, next);
  return e.op('v128.xor', e.op('v128.xor', timesX(e, both), next), turnColumn(e, both, 2));
}

/** InvMixColumns (§5.3.3) is MixColumns after 4 (a + c) is added to a and c, and 4 (b + d) to b and d. */
function inverseMixColumns(e: Emitter, v: Val): Val {
  const across = e.op('v128.xor', v, turnColumn(e, v, 2));
  return mixColumns(e, e.op('v128.xor', v, timesX(e, timesX(e, across))));
}

export const aes: readonly Row[] = [
  row('AESE', '01001110 00 10100 00100 10 Vn Vd', {}, (e, { Vn, Vd }) => {
    const state = shiftRows(e, e.op('v128.xor', e.getV(Vd), e.getV(Vn)), 1);
    e.setV(Vd, e.op('v128.xor', substitute(e, 'forward', state), e.v128(replicate(0, AFFINE_CONSTANT))));
  }),
  row('AESD', '01001110 00 10100 00101 10 Vn Vd', {}, (e, { Vn, Vd }) => {
    const state = shiftRows(e, e.op('v128.xor', e.getV(Vd), e.getV(Vn)), -1);
    e.setV(Vd, substitute(e, 'backward', e.op('v128.xor', state, e.v128(replicate(0, AFFINE_CONSTANT)))));
  }),
  row('AESMC', '01001110 00 10100 00110 10 Vn Vd', {}, (e, f) => e.setV(f.Vd, mixColumns(e, e.getV(f.Vn)))),
  row('AESIMC', '01001110 00 10100 00111 10 Vn Vd', {}, (e, f) => e.setV(f.Vd, inverseMixColumns(e, e.getV(f.Vn)))),
];
