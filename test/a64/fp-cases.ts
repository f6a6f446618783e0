import type { Row } from '#lib/soft/a64/row.js';
import { type Random, randomFloat, specialFloats } from './fp-operands.ts';
import type { FpCase } from './fp-oracle.ts';

/** The registers that a test's instructions name. */
const REGISTERS: Readonly<Record<string, number>> = { Vd: 0, Vn: 1, Vm: 2, Va: 3, Rd: 0, Rn: 1, Rm: 2 };

/** Every instruction word of a row, but for registers, which are fixed, and data fields, of which `data` are drawn. */
export function* wordsOf(row: Row, random: Random, data = 3): Generator<number> {
  const free = row.fields.filter((f) => f.kind === 'static');
  const drawn = row.fields.filter((f) => f.kind === 'data');
  const total = free.reduce((n, f) => n * 2 ** f.width, 1);
  for (let n = 0; n < total; n++) {
    for (let d = 0; d < (drawn.length === 0 ? 1 : data); d++) {
      const raw: Record<string, number> = {};
      for (const f of row.fields) raw[f.name] = (REGISTERS[f.name] ?? 0) & ((1 << f.width) - 1);
      let rest = n;
      for (const f of free) {
        raw[f.name] = rest % 2 ** f.width;
        rest = Math.floor(rest / 2 ** f.width);
      }
      for (const f of drawn) raw[f.name] = random.below(2 ** f.width);
      if (row.when !== undefined && !row.when(raw)) continue;
      let word = row.value;
      for (const f of row.fields) word |= (raw[f.name] ?? 0) << f.lsb;
      yield word >>> 0;
    }
  }
}

/** FPCR values: each rounding mode, flushing, default NaNs, alternative half precision, and all of them. */
export const FPCRS: readonly number[] = [
  0,
  1 << 22,
  2 << 22,
  3 << 22,
  1 << 24,
  1 << 25,
  1 << 19,
  1 << 26,
  (1 << 24) | (1 << 19) | (1 << 22),
  (1 << 24) | (1 << 25) | (1 << 19) | (1 << 26) | (3 << 22),
];

const SPECIAL_INTEGERS: readonly bigint[] = [0n, 1n, 24n, 31n, 32n, 53n, 63n].flatMap((n) => {
  const p = 1n << n;
  return [p, p - 1n, p + 1n, -p, 1n - p, -p - 1n].map((v) => BigInt.asUintN(64, v));
});

/** States for a word: operands of `bytes` in every lane, special pairs crossed by chance, random ones, and integers. */
export function casesOf(word: number, bytes: 2 | 4 | 8, count: number, random: Random): FpCase[] {
  const special = specialFloats(bytes);
  const lane = (kind: number): bigint => {
    if (kind === 4) return BigInt.asUintN(bytes * 8, random.pick(SPECIAL_INTEGERS) >> BigInt(random.below(3)));
    return kind === 0 || (kind === 1 && random.below(2) === 0) ? random.pick(special) : randomFloat(bytes, random);
  };
  const vector = (kind: number): bigint => {
    let v = 0n;
    for (let i = 0; i < 16 / bytes; i++) v |= lane(kind) << BigInt(i * bytes * 8);
    return v;
  };
  const cases: FpCase[] = [];
  for (let n = 0; n < count; n++) {
    const kind = random.below(5);
    const v1 = vector(kind);
    const integer = random.below(2) === 0 ? random.pick(SPECIAL_INTEGERS) : random.u64() >> BigInt(random.below(64));
    const related = random.below(8);
    cases.push({
      word,
      nzcv: (random.below(16) << 28) >>> 0,
      fpcr: random.below(2) === 0 ? 0 : random.pick(FPCRS),
      fpsr: random.pick([0, 0x10, 0x10, 0x9f]),
      x1: integer,
      x2: random.u64(),
      // Now and then the second operand is the first, or its opposite: sums that cancel, quotients of 1.
      v: [
        vector(kind),
        v1,
        related === 0 ? v1 : related === 1 ? v1 ^ (1n << BigInt(bytes * 8 - 1)) : vector(kind),
        vector(kind),
      ],
    });
  }
  return cases;
}
