import type { Random } from './random.ts';

/** Floating-point operands as TestFloat draws them: special values and their neighbours, and random ones weighted towards trouble. */

/** Bytes of a floating-point number. */
export type FloatBytes = 2 | 4 | 8;

const EXPONENT_BITS = { 2: 5, 4: 8, 8: 11 } as const;

/** Special values of a format of so many bytes, and their neighbours. */
export function specialFloats(bytes: FloatBytes): bigint[] {
  const bits = bytes * 8;
  const e = EXPONENT_BITS[bytes];
  const f = BigInt(bits - e - 1);
  const bias = (1n << BigInt(e - 1)) - 1n;
  const infinity = ((1n << BigInt(e)) - 1n) << f;
  const one = bias << f;
  const half = 1n << (f - 1n);
  const positive = [
    0n,
    1n,
    half,
    (1n << f) - 1n,
    1n << f,
    (1n << f) + 1n,
    2n << f,
    one - (1n << f),
    one - 1n,
    one,
    one + 1n,
    one + half,
    one + (1n << f),
    one + (1n << f) + (half >> 1n),
    one + (f << f),
    one + ((f + 1n) << f) + 1n,
    infinity - (1n << f),
    infinity - 1n,
    infinity,
    infinity + 1n,
    infinity + half - 1n,
    infinity + half,
    infinity + half + 5n,
  ];
  for (const n of [30n, 31n, 32n, 62n, 63n, 64n]) {
    if (n < bias) positive.push(one + (n << f), one + (n << f) - 1n, one + (n << f) + 1n);
  }
  return [...positive, ...positive.map((v) => v | (1n << BigInt(bits - 1)))];
}

/**
 * Vectors for two or three operands, made of special values: one after the other, they have every pair of them in every lane's
 * turn, and a third in an order of its own.
 */
export class CrossedFloats {
  readonly #bytes: FloatBytes;
  readonly #special: readonly bigint[];
  #next: number;

  /** @param start where in the pairs to begin */
  constructor(bytes: FloatBytes, start: number) {
    this.#bytes = bytes;
    this.#special = specialFloats(bytes);
    this.#next = start % this.#special.length ** 2;
  }

  next(): readonly [bigint, bigint, bigint] {
    const values = this.#special;
    const out: [bigint, bigint, bigint] = [0n, 0n, 0n];
    const bits = this.#bytes * 8;
    for (let bit = 0; bit < 128; bit += bits, this.#next++) {
      const n = this.#next;
      const indices = [n, Math.floor(n / values.length), n * 7 + Math.floor(n / 3)];
      indices.forEach((index, operand) => {
        out[operand] = out[operand]! | (values[index % values.length]! << BigInt(bit));
      });
    }
    return out;
  }
}

/** A random value: any bits, or a chosen exponent with a fraction of few bits or few holes. */
export function randomFloat(bytes: FloatBytes, random: Random): bigint {
  const bits = bytes * 8;
  const e = EXPONENT_BITS[bytes];
  const f = BigInt(bits - e - 1);
  const fractionMask = (1n << f) - 1n;
  const bias = (1 << (e - 1)) - 1;
  const sign = BigInt(random.below(2)) << BigInt(bits - 1);
  let exponent: number;
  switch (random.below(4)) {
    case 0:
      exponent = random.below(1 << e);
      break;
    case 1:
      exponent = random.pick([0, 1, 2, bias - 1, bias, bias + 1, 2 * bias - 1, 2 * bias]);
      break;
    case 2:
      exponent = Math.min(2 * bias, bias - 4 + random.below(2 * Number(f) + 8));
      break;
    default:
      exponent = bias - 4 + random.below(8);
  }
  let fraction = random.u64() & fractionMask;
  switch (random.below(4)) {
    case 0:
      fraction = (1n << BigInt(random.below(Number(f)))) | (1n << BigInt(random.below(Number(f))));
      break;
    case 1:
      fraction = fractionMask ^ (1n << BigInt(random.below(Number(f))));
      break;
    case 2:
      // Few bits from the top: sums and products stay exact.
      fraction &= fractionMask << BigInt(random.below(Number(f)));
      break;
    default:
  }
  return sign | (BigInt(exponent) << f) | (fraction & fractionMask);
}
