import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { analyse, dominates, irreducibleEdges, makeReducible } from '#lib/soft/jit/control-flow.js';

/** The analyses of a flow graph against their definitions, by brute force. */

type Graph = readonly (readonly number[])[];

/** Up to 14 nodes, up to three successors each: what blocks of code have, and a bit more. */
const graphs: fc.Arbitrary<Graph> = fc
  .integer({ min: 1, max: 14 })
  .chain((n) => fc.array(fc.array(fc.nat(n - 1), { maxLength: 3 }), { minLength: n, maxLength: n }));

/** Nodes that are reached from node 0 by paths that avoid one node. */
function reached(graph: Graph, without = -1): Set<number> {
  const seen = new Set<number>();
  const visit = (node: number): void => {
    if (node === without || seen.has(node)) return;
    seen.add(node);
    for (const next of graph[node]!) visit(next);
  };
  visit(0);
  return seen;
}

/** Every path to `b` goes through `a`. */
const naivelyDominates = (graph: Graph, a: number, b: number): boolean => a === b || !reached(graph, a).has(b);

function reversePostorder(graph: Graph): number[] {
  const seen = new Set<number>();
  const out: number[] = [];
  const visit = (node: number): void => {
    if (seen.has(node)) return;
    seen.add(node);
    for (const next of graph[node]!) visit(next);
    out.unshift(node);
  };
  visit(0);
  return out;
}

/**
 * Whether a graph is reducible, by Hecht and Ullman's transformations: take away loops of a node to itself (T1), merge a node
 * with one predecessor into it (T2); a reducible graph becomes a single node.
 */
function isReducible(graph: Graph): boolean {
  const nodes = reached(graph);
  const next = new Map([...nodes].map((n) => [n, new Set(graph[n]!)]));
  for (;;) {
    for (const [n, out] of next) out.delete(n);
    const mergeable = [...next.keys()].find((n) => n !== 0 && [...next].filter(([, out]) => out.has(n)).length === 1);
    if (mergeable === undefined) return next.size === 1;
    const [parent] = [...next].find(([, out]) => out.has(mergeable))!;
    next.get(parent)!.delete(mergeable);
    for (const n of next.get(mergeable)!) next.get(parent)!.add(n);
    next.delete(mergeable);
  }
}

const property = (check: (graph: Graph) => void): void => {
  fc.assert(fc.property(graphs, check), { numRuns: 2000 });
};

describe('flow graphs', () => {
  test('the order is the reverse postorder of what is reached', () => {
    property((graph) => {
      const { order, numberOf } = analyse(graph);
      expect(order).toEqual(reversePostorder(graph));
      expect(numberOf).toEqual(graph.map((_, node) => order.indexOf(node)));
    });
  });

  test('a node dominates another if every path to that goes through it', () => {
    property((graph) => {
      const g = analyse(graph);
      g.order.forEach((a, i) => {
        g.order.forEach((b, j) => {
          expect(dominates(g, i, j)).toBe(naivelyDominates(graph, a, b));
        });
      });
    });
  });

  test('the immediate dominator is the one that all others dominate', () => {
    property((graph) => {
      const g = analyse(graph);
      expect(g.dominator[0]).toBe(0);
      g.order.forEach((node, n) => {
        if (n === 0) return;
        const strict = g.order.filter((d) => d !== node && naivelyDominates(graph, d, node));
        const nearest = strict.find((d) => strict.every((other) => naivelyDominates(graph, other, d)));
        expect(g.order[g.dominator[n]!]).toBe(nearest);
      });
    });
  });

  test('loop heads are where edges go back to, merges where two or more come from before', () => {
    property((graph) => {
      const g = analyse(graph);
      const edges = g.order.flatMap((node, from) => graph[node]!.map((to) => [from, g.numberOf[to]!] as const));
      g.order.forEach((_, n) => {
        const into = edges.filter(([, to]) => to === n);
        expect(g.isLoop[n]).toBe(into.some(([from]) => from >= n));
        expect(g.isMerge[n]).toBe(into.filter(([from]) => from < n).length > 1);
      });
      // Each merge point hangs once on its dominator, the last first.
      expect(g.merges.flat().sort((a, b) => a - b)).toEqual(g.order.flatMap((_, n) => (g.isMerge[n] ? [n] : [])));
      g.merges.forEach((list, n) => {
        expect(list).toEqual([...list].sort((a, b) => b - a));
        for (const m of list) expect(g.dominator[m]).toBe(n);
      });
    });
  });

  test('irreducible edges are those back to what does not dominate them', () => {
    property((graph) => {
      const g = analyse(graph);
      const expected = g.order.flatMap((from, n) =>
        graph[from]!.filter((to) => g.numberOf[to]! <= n && !naivelyDominates(graph, to, from)).map((to) => [from, to]),
      );
      expect(irreducibleEdges(g, graph)).toEqual(expected);
      expect(expected.length === 0).toBe(isReducible(graph));
    });
  });

  test('with dispatchers a graph is reducible, and all its ways are there', () => {
    property((graph) => {
      const made = graph.map((out) => [...out]);
      const dispatcherOf = makeReducible(made);
      expect(isReducible(made)).toBe(true);
      // What was reducible has none.
      expect(dispatcherOf.size === 0).toBe(isReducible(graph));
      graph.forEach((out, from) => {
        expect(made[from]).toEqual(out.map((to) => dispatcherOf.get(to) ?? to));
      });
      made.slice(graph.length).forEach((out, n) => {
        const dispatcher = graph.length + n;
        // To each of the nodes that it stands before, of which there are at least two, in one step.
        const before = [...dispatcherOf].flatMap(([node, d]) => (d === dispatcher ? [node] : []));
        expect([...out].sort((a, b) => a - b)).toEqual(before.sort((a, b) => a - b));
        expect(before.length).toBeGreaterThan(1);
      });
    });
  });
});
