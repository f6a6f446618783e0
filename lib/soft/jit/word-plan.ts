import { type FlowGraph, loopOf } from './control-flow.js';

/**
 * Where a region has the words of the state that it uses, at the start of each block. It reads a word from memory when a path first
 * wants it, and writes it back when the path leaves; what a loop uses is in locals all through the loop.
 */
export const Place = {
  /** In memory alone: the local holds nothing of meaning. */
  MEMORY: 0,
  /** The same value in memory and in the local. */
  BOTH: 1,
  /** In the local; what memory has may be old. */
  LOCAL: 2,
} as const;
export type Place = (typeof Place)[keyof typeof Place];

/** The place of each word, by its number. */
export type Places = Uint8Array;

/** What a block does with words. */
export interface BlockWords {
  readonly reads: Iterable<number>;
  readonly writes: Iterable<number>;
  /** Turns the places at its start into those at its end. */
  pass(places: Places): void;
}

/**
 * Plans the places at the start of each block. Edges bring them about: what the block before has otherwise is loaded or stored there.
 * In the plan an edge to a loop's head loads what the loop will want; any other edge only stores, what some way to the same block
 * does not have in a local.
 * @param blocks by the caller's nodes
 * @param words how many there are
 * @returns by the caller's nodes; for one that is not reached, all in memory
 */
export function planPlaces(graph: FlowGraph, blocks: readonly BlockWords[], words: number): Places[] {
  const { order, predecessors, isLoop } = graph;
  const starts = blocks.map(() => new Uint8Array(words));
  const ends: Places[] = [];
  order.forEach((node, n) => {
    const places = starts[node]!;
    const forward = predecessors[n]!.filter((p) => p < n).map((p) => ends[p]!);
    // The region is entered with everything in memory.
    const [first, ...others] = n === 0 ? [] : forward;
    if (first !== undefined) places.set(first);
    for (const other of others)
      for (let w = 0; w < words; w++) places[w] = meet(places[w]! as Place, other[w]! as Place);
    if (isLoop[n] === true) {
      const inside = [...loopOf(graph, n)].map((member) => blocks[order[member]!]!);
      for (const block of inside)
        for (const w of block.reads) {
          if (places[w] === Place.MEMORY)
            places[w] = forward.some((end) => end[w] === Place.LOCAL) ? Place.LOCAL : Place.BOTH;
        }
      for (const block of inside) for (const w of block.writes) places[w] = Place.LOCAL;
    }
    const end = places.slice();
    blocks[node]!.pass(end);
    ends.push(end);
  });
  return starts;
}

/** Where a word is behind two ways that meet: to store what one has in a local costs that way alone. */
const meet = (a: Place, b: Place): Place =>
  a === Place.MEMORY || b === Place.MEMORY ? Place.MEMORY : a === Place.LOCAL ? a : b;
