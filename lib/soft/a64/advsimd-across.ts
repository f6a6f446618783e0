import { elements, Lanes, vectorBytes } from './advsimd-lanes.js';
import { addLongPairwise } from './advsimd-two-misc.js';
import type { Val } from './emitter.js';
import { type Row, row } from './row.js';

/** Advanced SIMD across lanes, the integer half (Arm ARM DDI 0487 C4.1.97). */

/** Reduces the first `count` elements to one, in the lowest, by halves. */
function reduce(x: Lanes, count: number, v: Val, f: (a: Val, b: Val) => Val): Val {
  let r = v;
  for (let step = count >> 1; step > 0; step >>= 1) {
    const moved = elements(
      x.size,
      Array.from({ length: 16 >> x.size }, (_, i) => (i < step ? i + step : i)),
    );
    r = f(r, x.e.shuffle(r, r, moved));
  }
  return r;
}

type Pattern = '0 Q 0 01110 size:2 11000 00000 10 Vn Vd';

/** An instruction that reduces a vector to an element of `8 << (size + grow)` bits; `f` leaves it in the lowest lane. */
const across = (
  name: string,
  u: number,
  opcode: string,
  grow: number,
  f: (x: Lanes, count: number, n: Val) => Val,
): Row =>
  row(
    name,
    `0 Q ${u} 01110 size:2 11000 ${opcode} 10 Vn Vd` as Pattern,
    { when: (r) => r.size < 2 || (r.size === 2 && r.Q === 1) },
    (e, { Q, size, Vn, Vd }) => {
      const x = new Lanes(e, size);
      x.write(Vd, 1 << (size + grow), f(x, vectorBytes(Q) >> size, e.getV(Vn)));
    },
  );

const addAcross = (x: Lanes, count: number, n: Val): Val => reduce(x, count, n, (a, b) => x.add(a, b));
const addLongAcross =
  (signed: boolean) =>
  (x: Lanes, count: number, n: Val): Val =>
    addAcross(
      x.wider,
      count >> 1,
      addLongPairwise(signed)(x, n, () => n),
    );
const best =
  (name: string) =>
  (x: Lanes, count: number, n: Val): Val =>
    reduce(x, count, n, (a, b) => x.op(name, a, b));

export const advsimdAcross: readonly Row[] = [
  across('ADDV', 0, '11011', 0, addAcross),
  across('SADDLV', 0, '00011', 1, addLongAcross(true)),
  across('UADDLV', 1, '00011', 1, addLongAcross(false)),
  across('SMAXV', 0, '01010', 0, best('max_s')),
  across('UMAXV', 1, '01010', 0, best('max_u')),
  across('SMINV', 0, '11010', 0, best('min_s')),
  across('UMINV', 1, '11010', 0, best('min_u')),
];
