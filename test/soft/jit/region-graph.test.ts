import { describe, expect, test } from '@jest/globals';
import { formRegion, type Region } from '#lib/soft/jit/region.js';
import { type Candidate, compileRegions } from '#lib/soft/jit/region-compiler.js';
import { graphOf } from '#lib/soft/jit/region-graph.js';
import { Wasm } from '#lib/soft/jit/webassembly.js';
import { addImm, b, bl, cbnz, hvc, ISB, NOP, RET, subsImm } from '../a64.ts';
import { code, pageOf } from './page.ts';

/** What a region is made of, and which ways there are in it. Positions are in instructions from the page's start. */

const region = (words: readonly number[], entry = 0, executed?: (index: number) => boolean): Region =>
  formRegion(code, pageOf(words, { executed }), entry)!;

/** Edges by the positions of blocks; a dispatcher's are under the name that edges to it have. */
function edges(r: Region): Record<string, readonly (number | string)[]> {
  const { blocks, edges, hasDispatcher } = graphOf(r);
  const name = (node: number): number | string => blocks[node]?.index ?? `dispatcher ${node}`;
  return Object.fromEntries(
    blocks.map((block, node) => [
      name(node),
      block?.end.kind === 'return' && hasDispatcher
        ? ['return']
        : edges[node]!.map((e) => (e.kind === 'exit' ? `exit ${e.position}` : name(e.node))),
    ]),
  );
}

describe('calls', () => {
  // 0: calls 5 twice, in a loop; 5: calls 7, which returns.
  const words = [bl(5), bl(4), subsImm(3, 3, 1), cbnz(3, -3), hvc(1), bl(2), RET, addImm(1, 1, 1), RET];

  test('what is called is part of the region, and what is returned to, where it is entered too', () => {
    const r = region(words);
    expect(r.blocks.map((block) => block.index)).toEqual([0, 1, 2, 5, 6, 7]);
    expect(r.entries).toEqual([0, 1, 6, 2]);
    expect(edges(r)).toEqual({
      'dispatcher 0': [0, 1, 6, 2],
      0: [5],
      1: [5],
      2: [0, 'exit 4'],
      5: [7],
      6: ['return'],
      7: ['return'],
    });
  });

  test('what has not been executed is not', () => {
    expect(region(words, 0, (index) => index !== 1).entries).toEqual([0, 6]);
    const leaves = region(words, 5, (index) => index !== 7);
    expect(leaves.entries).toEqual([5]);
    expect(edges(leaves)).toEqual({ 5: ['exit 7'] });
  });

  test('the entry is returned to', () => {
    const r = region([bl(3), subsImm(3, 3, 1), cbnz(3, -2), RET], 1);
    expect(r.entries).toEqual([1]);
    expect(edges(r)).toEqual({ 'dispatcher 0': [1], 1: [0, 3], 0: [3], 3: ['return'] });
  });

  test('a call of another page ends the region, and a return without calls leaves it', () => {
    expect(edges(region([bl(2000), NOP, RET]))).toEqual({ 0: ['exit 2000'] });
    expect(edges(region([addImm(1, 1, 1), RET]))).toEqual({ 0: [] });
  });
});

test('behind ISB the region is left, whether or not it has what follows', () => {
  expect(edges(region([cbnz(0, 2), ISB, RET]))).toEqual({ 0: [2, 1], 1: ['exit 2'], 2: [] });
});

test('a loop that is entered in two places has a dispatcher at its head', () => {
  // 0: to 3, in the middle of the loop from 1 to 4.
  const words = [cbnz(0, 3), addImm(1, 1, 1), cbnz(1, 1), addImm(2, 2, 1), cbnz(2, -3), hvc(1)];
  expect(edges(region(words))).toEqual({
    0: ['dispatcher 3', 'dispatcher 3'],
    1: ['dispatcher 3', 'dispatcher 3'],
    3: ['dispatcher 3', 'exit 5'],
    'dispatcher 3': [3, 1],
  });
});

test('who waits to be compiled and can be entered in the region of another is left out', () => {
  const page = pageOf([bl(3), b(-1), NOP, addImm(1, 1, 1), RET]);
  const candidate = (entry: number, records: number): Candidate => ({ page, entry, records, name: `${entry}` });
  const list = [candidate(0, 0x1000), candidate(1, 0x1000), candidate(3, 0x1000), candidate(1, 0x9000)];
  const { bytes, regions } = compileRegions(code, list, new Set())!;
  expect(Wasm.validate(bytes)).toBe(true);
  // 1 is returned to; 3 is called, but no entry; and the other 1 is in another page.
  expect(regions.map(({ candidate: { name }, entries }) => [name, entries])).toEqual([
    ['0', [0, 1]],
    ['3', [3]],
    ['1', [1]],
  ]);
  const compiled = { ...page, isEntry: (index: number) => index === 3 };
  expect(compileRegions(code, [{ ...candidate(3, 0x1000), page: compiled }], new Set())).toBeUndefined();
});
