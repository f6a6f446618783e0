import { describe, expect, test } from '@jest/globals';
import { formRegion } from '#lib/soft/jit/region.js';
import { graphOf } from '#lib/soft/jit/region-graph.js';
import { planSpans } from '#lib/soft/jit/span-plan.js';
import {
  add,
  addImm,
  bl,
  bne,
  cbnz,
  ldrPost,
  ldtr,
  load,
  NOP,
  RET,
  store,
  stp,
  stpPre,
  subsImm,
  tlbiVae1,
} from '../a64.ts';
import { code, pageOf } from './page.ts';

/** Which accesses of a region need not look for their page, because one before has. */

const LDP_Q = 0xad400400; // ldp q0, q1, [x0]
const LDR_INDEXED = 0xf8626801; // ldr x1, [x0, x2]
const LDAXR = 0xc85ffc01; // ldaxr x1, [x0]
const ADD_W = 0x11002000; // add w0, w0, #8

/** The places of all accesses: `position: first byte of the span to its end, *` for the first. */
function spans(words: readonly number[], devices: readonly number[] = []): string[] {
  const region = formRegion(code, pageOf(words, { devices }), 0)!;
  const plan = planSpans(graphOf(region), region.devices);
  return words.flatMap((_, position) =>
    [0, 1, 2].flatMap((n) => {
      const place = plan.of(position, n);
      if (place === undefined) return [];
      return `${position}: ${place.offset} of ${place.span.bytes} in ${place.span.local}${place.isFirst ? ', first' : ''}`;
    }),
  );
}

describe('in a straight line', () => {
  test('from one register; loads and stores apart', () => {
    expect(spans([load(8, 1, 0, 16), load(4, 2, 0, 4), store(8, 3, 0), load(1, 4, 0, 30), stp(1, 2, 0), RET])).toEqual([
      '0: 12 of 27 in 0, first',
      '1: 0 of 27 in 0',
      '2: 0 of 16 in 1, first',
      '3: 26 of 27 in 0',
      '4: 0 of 16 in 1',
    ]);
  });

  test('an access alone looks for itself', () => {
    expect(spans([load(8, 1, 0), load(8, 2, 3), RET])).toEqual([]);
  });

  test('write-back and additions move an address by a constant', () => {
    expect(
      spans([
        stpPre(29, 30, 31),
        stp(1, 2, 31),
        addImm(0, 31, 32),
        store(8, 3, 0),
        addImm(5, 0, 0),
        store(8, 3, 5, 8),
        RET,
      ]),
    ).toEqual(['0: 0 of 48 in 0, first', '1: 0 of 48 in 0', '3: 32 of 48 in 0', '5: 40 of 48 in 0']);
    expect(spans([ldrPost(1, 0, -8), ldrPost(1, 0, 8), load(8, 2, 0), RET])).toEqual([
      '0: 8 of 16 in 0, first',
      '1: 0 of 16 in 0',
      '2: 8 of 16 in 0',
    ]);
  });

  test('both halves of a pair of vectors', () => {
    expect(spans([LDP_Q, RET])).toEqual(['0: 0 of 32 in 0, first', '0: 16 of 32 in 0']);
  });

  test.each([
    ['it is loaded anew', load(8, 0, 0)],
    ['another is added', add(0, 0, 3)],
    ['it is written as 32 bits', ADD_W],
    ['a constant moves it far', 0x91400400 /* add x0, x0, #1, lsl #12 */],
    ['translations may change', tlbiVae1(3)],
  ])('no more when %s', (_name, word) => {
    const found = spans([load(8, 1, 0), load(8, 2, 0, 8), word, load(8, 3, 0), load(8, 4, 0, 8), RET]);
    expect(found.filter((place) => place.endsWith('first')).map((place) => place.slice(0, 2))).toEqual(['0:', '3:']);
  });

  test('behind a device nothing is known', () => {
    const words = [load(8, 1, 0), load(8, 2, 0, 8), load(4, 3, 4), load(8, 1, 0), load(8, 2, 0, 8), RET];
    expect(spans(words).filter((place) => place.endsWith('first'))).toHaveLength(1);
    expect(spans(words, [2]).filter((place) => place.endsWith('first'))).toHaveLength(2);
  });

  test('what is too far away begins another', () => {
    expect(spans([load(8, 1, 0), load(8, 1, 0, 504), load(8, 1, 0, 512), load(8, 1, 0, 520), RET])).toEqual([
      '0: 0 of 512 in 0, first',
      '1: 504 of 512 in 0',
      '2: 0 of 16 in 1, first',
      '3: 8 of 16 in 1',
    ]);
  });

  test('unprivileged, indexed and exclusive accesses', () => {
    expect(spans([load(8, 1, 0), ldtr(2, 0), LDR_INDEXED, RET])).toEqual([]);
    // An exclusive access makes its address from the register alone.
    expect(spans([load(8, 1, 0, 8), LDAXR, RET])).toEqual(['0: 8 of 16 in 0, first', '1: 0 of 16 in 0']);
  });
});

describe('over branches', () => {
  test('where one way leads there', () => {
    // 1 goes to 4 or on; both are reached from 1 alone.
    expect(spans([load(8, 1, 0), cbnz(1, 3), load(8, 2, 0, 8), RET, load(8, 3, 0, 16), RET])).toEqual([
      '0: 0 of 24 in 0, first',
      '2: 8 of 24 in 0',
      '4: 16 of 24 in 0',
    ]);
  });

  test('not where ways meet, and not round a loop', () => {
    expect(spans([load(8, 1, 0), cbnz(1, 2), NOP, load(8, 2, 0, 8), load(8, 2, 0), RET])).toEqual([
      '3: 8 of 16 in 0, first',
      '4: 0 of 16 in 0',
    ]);
    expect(spans([load(8, 1, 0), load(8, 1, 0), load(8, 2, 0), subsImm(3, 3, 1), bne(-2), RET])).toEqual([
      '0: 0 of 8 in 0, first',
      '1: 0 of 8 in 0',
    ]);
  });

  test('not where a call returns to', () => {
    expect(spans([load(8, 1, 0), bl(3), load(8, 2, 0), RET, load(8, 2, 0, 8), RET]).at(-1)).toMatch(/^4/);
  });
});
