import { analyse, type FlowGraph, irreducibleEdges, makeReducible } from './control-flow.js';
import type { Block, Region } from './region.js';

/** A way to a block: its position, and its node or that of the dispatcher before it, which then must be told the position. */
export interface BlockEdge {
  readonly kind: 'block';
  readonly position: number;
  readonly node: number;
  readonly isDispatched: boolean;
}
/** A place that a node leads to: a block, or out of the region, to a position in (or beyond) the page. */
export type Edge = BlockEdge | { readonly kind: 'exit'; readonly position: number };

/** The flow graph of a region as structured control flow can say it. */
export interface RegionGraph {
  /** Blocks by node; those without one are dispatchers. Node 0 is the entry. */
  readonly blocks: readonly (Block | undefined)[];
  /** Where nodes lead: a dispatcher to each of its blocks; a return nowhere but to the entry, if that is a dispatcher. */
  readonly edges: readonly (readonly Edge[])[];
  /** The same by node. */
  readonly successors: readonly (readonly number[])[];
  readonly flow: FlowGraph;
  /** Whether the region is entered through a dispatcher, by position, which its returns go back to. */
  readonly hasDispatcher: boolean;
}

/** Finds the ways between a region's blocks. */
export function graphOf({ blocks, entries }: Region): RegionGraph {
  const hasDispatcher =
    entries.length > 1 ||
    blocks.some((b) => b.end.kind === 'call' && entries.includes(b.index + b.instructions.length));
  const nodes: (Block | undefined)[] = hasDispatcher ? [undefined, ...blocks] : [...blocks];
  const byPosition = new Map(nodes.map((block, node) => [block?.index, node]));
  const nodeAt = (position: number, from: Block | undefined): number | undefined =>
    from?.end.kind === 'leave' ? undefined : byPosition.get(position);
  const places = nodes.map((block) => (block === undefined ? entries : placesBehind(block)));
  const successors = nodes.map((block, node) =>
    block?.end.kind === 'return' && hasDispatcher ? [0] : places[node]!.flatMap((p) => nodeAt(p, block) ?? []),
  );
  let flow = analyse(successors);
  let dispatcherOf: ReadonlyMap<number, number> = new Map();
  if (irreducibleEdges(flow, successors).length > 0) {
    dispatcherOf = makeReducible(successors);
    flow = analyse(successors);
  }
  const edges = places.map((positions, from) =>
    positions.map((position): Edge => {
      const node = nodeAt(position, nodes[from]);
      if (node === undefined) return { kind: 'exit', position };
      return { kind: 'block', position, node: dispatcherOf.get(node) ?? node, isDispatched: dispatcherOf.has(node) };
    }),
  );
  for (const dispatched of successors.slice(nodes.length)) {
    edges.push(dispatched.map((node) => ({ kind: 'block', position: nodes[node]!.index, node, isDispatched: false })));
  }
  return { blocks: successors.map((_, node) => nodes[node]), edges, successors, flow, hasDispatcher };
}

/** The positions that a block goes on to; a conditional branch's target first. */
function placesBehind({ index, instructions, end }: Block): number[] {
  const next = index + instructions.length;
  switch (end.kind) {
    case 'branch':
    case 'call':
      return [end.target];
    case 'conditional':
      return [end.target, next];
    case 'return':
    case 'indirect':
      return [];
    default:
      return [next];
  }
}
