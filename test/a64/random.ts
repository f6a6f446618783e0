import { randomInt } from 'node:crypto';

/** A small seeded generator (xorshift128): the same seed gives the same run. */
export class Random {
  readonly seed: number;
  #a: number;
  #b = 0x9e3779b9 | 0;
  #c = 0x243f6a88;
  #d = 0xb7e15162 | 0;

  /** @param seed from the environment variable ELVISOR_SEED, or else a new one; tests print it */
  constructor(seed = Number(process.env.ELVISOR_SEED ?? randomInt(0x7fff_ffff))) {
    this.seed = seed;
    this.#a = seed | 0;
    for (let i = 0; i < 16; i++) this.u32();
  }

  /** 0 to 2^32 - 1. */
  u32(): number {
    let t = this.#a ^ (this.#a << 11);
    t ^= t >>> 8;
    const d = this.#d;
    this.#a = this.#b;
    this.#b = this.#c;
    this.#c = d;
    this.#d = t ^ d ^ (d >>> 19);
    return this.#d >>> 0;
  }

  /** 0 to n - 1. */
  below(n: number): number {
    return Math.floor((this.u32() / 0x1_0000_0000) * n);
  }

  /** So many random 64-bit numbers. */
  list64(count: number): BigUint64Array {
    const out = new BigUint64Array(count);
    const words = new Uint32Array(out.buffer);
    for (let i = 0; i < words.length; i++) words[i] = this.u32();
    return out;
  }

  pick<T>(items: readonly T[]): T {
    return items[this.below(items.length)] as T;
  }

  u64(): bigint {
    return (BigInt(this.u32()) << 32n) | BigInt(this.u32());
  }

  /** 64 bits, often one of those that break things: 0, all ones, a power of two and its neighbours, runs of ones, small numbers. */
  interesting64(): bigint {
    switch (this.below(8)) {
      case 0:
        return BigInt.asUintN(64, (1n << BigInt(this.below(64))) + BigInt(this.below(3) - 1));
      case 1:
        return BigInt.asUintN(64, -(1n << BigInt(this.below(64))) + BigInt(this.below(3) - 1));
      case 2:
        return BigInt.asUintN(64, BigInt(this.below(16) - 8));
      case 3:
        return BigInt(this.u32());
      case 4:
        return this.pick([0n, 0xffff_ffff_ffff_ffffn, 0x7fff_ffffn, 0x8000_0000n, 0x7fff_ffff_ffff_ffffn, 1n << 63n]);
      default:
        return this.u64();
    }
  }
}
