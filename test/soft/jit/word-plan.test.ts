import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { analyse, irreducibleEdges } from '#lib/soft/jit/control-flow.js';
import { RareExits } from '#lib/soft/jit/rare-exits.js';
import { type BlockWords, Place, type Places, planPlaces } from '#lib/soft/jit/word-plan.js';

/** Where a region has the words that it uses: the plan is followed along every path, and each word's value with it. */

const WORDS = 4;
const word = fc.nat(WORDS - 1);
type Action = readonly [kind: 'read' | 'write' | 'forget', word: number];
const action: fc.Arbitrary<Action> = fc.tuple(fc.constantFrom('read', 'read', 'write', 'write', 'forget'), word);
/** Blocks with their successors, as many as eight. */
const programs = fc
  .integer({ min: 1, max: 8 })
  .chain((n) =>
    fc.array(
      fc.record({ actions: fc.array(action, { maxLength: 3 }), next: fc.array(fc.nat(n - 1), { maxLength: 2 }) }),
      { minLength: n, maxLength: n },
    ),
  );
type Program = readonly { readonly actions: readonly Action[]; readonly next: readonly number[] }[];

const blockWords = (actions: readonly Action[]): BlockWords => ({
  reads: actions.filter(([kind]) => kind === 'read').map(([, w]) => w),
  writes: actions.filter(([kind]) => kind === 'write').map(([, w]) => w),
  pass: (places) => {
    for (const [kind, w] of actions) {
      if (kind === 'write') places[w] = Place.LOCAL;
      else if (kind === 'forget') places[w] = Place.MEMORY;
      else if (places[w] === Place.MEMORY) places[w] = Place.BOTH;
    }
  },
});

/** Without the edges that would make the graph irreducible, which a region has not. */
function reducible(program: Program): number[][] {
  let next = program.map((b) => [...new Set(b.next)]);
  for (;;) {
    const wrong = irreducibleEdges(analyse(next), next);
    if (wrong.length === 0) return next;
    next = next.map((out, node) => out.filter((to) => !wrong.some(([a, b]) => a === node && b === to)));
  }
}

/** What a path has seen: the value of each word, in memory and in its local; -1 for one that nobody may look at. */
interface Machine {
  readonly truth: number[];
  readonly memory: number[];
  readonly local: number[];
  readonly places: number[];
}

/** Follows every path of so many blocks, doing what the plan says. */
function follow(program: Program, visit: (from: number, to: number, loads: number, stores: number) => void): void {
  const next = reducible(program);
  const graph = analyse(next);
  const plan = planPlaces(
    graph,
    program.map((b) => blockWords(b.actions)),
    WORDS,
  );
  let values = 0;
  const check = (m: Machine, w: number, value: number | undefined): void => {
    // Not by expect: it is done some hundred thousand times.
    if (m.truth[w] !== -1 && value !== m.truth[w]) throw new Error(`word ${w} is ${value} and not ${m.truth[w]}`);
  };
  const load = (m: Machine, w: number): void => {
    m.local[w] = m.memory[w]!;
    m.places[w] = Place.BOTH;
  };
  /** Somebody leaves here: memory must have every word. */
  const leave = (m: Machine): void => {
    for (let w = 0; w < WORDS; w++) check(m, w, m.places[w] === Place.LOCAL ? m.local[w] : m.memory[w]);
  };
  const enter = (m: Machine, from: number, node: number): void => {
    let loads = 0;
    let stores = 0;
    for (let w = 0; w < WORDS; w++) {
      const want = plan[node]![w];
      if (m.places[w] === Place.LOCAL && want !== Place.LOCAL) {
        m.memory[w] = m.local[w]!;
        stores++;
      } else if (m.places[w] === Place.MEMORY && want !== Place.MEMORY) {
        load(m, w);
        loads++;
      }
      m.places[w] = want!;
      if (want === Place.MEMORY) m.local[w] = -2;
    }
    visit(from, node, loads, stores);
  };
  const run = (before: Machine, from: number, node: number, left: number): void => {
    const m: Machine = {
      truth: [...before.truth],
      memory: [...before.memory],
      local: [...before.local],
      places: [...before.places],
    };
    enter(m, from, node);
    leave(m);
    for (const [kind, w] of program[node]!.actions) {
      if (kind === 'read') {
        if (m.places[w] === Place.MEMORY) load(m, w);
        check(m, w, m.local[w]);
      } else if (kind === 'write') {
        m.truth[w] = m.local[w] = ++values;
        m.places[w] = Place.LOCAL;
      } else {
        m.truth[w] = -1;
        m.places[w] = Place.MEMORY;
      }
      leave(m);
    }
    if (left > 0) for (const to of next[node]!) run(m, node, to, left - 1);
  };
  const start = Array.from({ length: WORDS }, () => ++values);
  run({ truth: [...start], memory: [...start], local: [-2, -2, -2, -2], places: [0, 0, 0, 0] }, -1, 0, 6);
}

describe('the plan of places', () => {
  test('a word has its value wherever it is read, and memory wherever somebody leaves', () => {
    fc.assert(
      fc.property(programs, (program) => follow(program, () => undefined)),
      { numRuns: 1000 },
    );
  });

  test('only an edge into a loop loads', () => {
    fc.assert(
      fc.property(programs, (program) => {
        const graph = analyse(reducible(program));
        follow(program, (_, to, loads) => {
          if (loads > 0) expect(graph.isLoop[graph.numberOf[to]!]).toBe(true);
        });
      }),
      { numRuns: 300 },
    );
  });

  test('a loop that no word is forgotten in goes round without touching memory', () => {
    const loads: number[] = [];
    const stores: number[] = [];
    const program: Program = [
      { actions: [['write', 0]], next: [1] },
      { actions: [['read', 1]], next: [2, 3] },
      { actions: [['write', 2]], next: [3] },
      { actions: [['read', 0]], next: [1, 4] },
      { actions: [['read', 3]], next: [] },
    ];
    follow(program, (from, to, loaded, stored) => {
      if (from > 0 && to < 4) {
        loads.push(loaded);
        stores.push(stored);
      }
    });
    expect(new Set([...loads, ...stores])).toEqual(new Set([0]));
  });

  test('what one of two ways has written is stored at its end, and not behind both', () => {
    const seen: [number, number, number][] = [];
    const program: Program = [
      { actions: [], next: [1, 2] },
      { actions: [['write', 0]], next: [3] },
      { actions: [['read', 1]], next: [3] },
      { actions: [], next: [] },
    ];
    follow(program, (from, to, loads, stores) => seen.push([from, to, loads + stores]));
    expect(seen).toContainEqual([1, 3, 1]);
    expect(seen).toContainEqual([2, 3, 0]);
  });
});

describe('ways out that are seldom taken', () => {
  test('each stores exactly what its block found in locals, itself or where it goes on', () => {
    const places: fc.Arbitrary<Places> = fc
      .array(fc.constantFrom(Place.MEMORY, Place.BOTH, Place.LOCAL), { minLength: 6, maxLength: 6 })
      .map((at) => Uint8Array.from(at));
    fc.assert(
      fc.property(fc.array(places, { minLength: 1, maxLength: 8 }), (at) => {
        const exits = new RareExits(at);
        at.forEach((block, node) => {
          const wanted = [...block.keys()].filter((w) => block[w] === Place.LOCAL);
          const stored: number[] = [];
          for (let exit = exits.of(node); exit !== undefined; exit = exit.next) {
            // What it goes on with is opened before, and so encloses it.
            if (exit.next !== undefined) expect(exits.list.indexOf(exit.next)).toBeLessThan(exits.list.indexOf(exit));
            stored.push(...exit.stores);
          }
          const all = exits.of(node)?.words ?? new Set();
          expect(stored.sort()).toEqual([...all].sort());
          expect(wanted.length < 3 ? [] : wanted).toEqual([...all].sort());
        });
      }),
    );
  });
});
