import type { Random } from './random.ts';

/** Vectors that break vector instructions: extreme and nearly extreme elements of every size, small ones, runs of zeros and ones. */

const ALL_ONES = (1n << 128n) - 1n;

/** The same 128 bits from a choice of elements of `bits` bits. */
function fromElements(bits: number, pick: () => bigint): bigint {
  let out = 0n;
  for (let at = 0; at < 128; at += bits) out |= BigInt.asUintN(bits, pick()) << BigInt(at);
  return out;
}

export function randomVector(random: Random): bigint {
  const bits = 8 << random.below(4);
  const top = 1n << BigInt(bits - 1);
  switch (random.below(8)) {
    case 0:
      // The limits of signed and unsigned numbers, and their neighbours.
      return fromElements(bits, () => random.pick([0n, 1n, -1n, -2n, top, top - 1n, top + 1n, top - 2n]));
    case 1:
      // The least number everywhere, or the greatest.
      return fromElements(bits, () => top) ^ random.pick([0n, ALL_ONES]);
    case 2:
      // Small numbers of both signs: shift amounts, table indices.
      return fromElements(bits, () => BigInt(random.below(161) - 80));
    case 3:
      return fromElements(bits, () => BigInt(random.below(80) - 40) * random.pick([1n, 1n << BigInt(bits / 2)]));
    case 4:
      return fromElements(bits, () => (random.below(4) === 0 ? random.u64() : 0n));
    case 5:
      return fromElements(bits, () => random.pick([0n, -1n]));
    default:
      return (random.u64() << 64n) | random.u64();
  }
}
