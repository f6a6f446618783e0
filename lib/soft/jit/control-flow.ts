/**
 * The shape of a flow graph, as structured control flow wants it: reverse postorder, dominators, loop heads and merge points
 * (Cooper, Harvey, Kennedy, "A Simple, Fast Dominance Algorithm", 2001; Ramsey, "Beyond Relooper", ICFP 2022).
 */
export interface FlowGraph {
  /** Nodes in reverse postorder; the entry is first. Positions in this list are the node numbers below. */
  readonly order: readonly number[];
  /** Node number by the caller's node, -1 for one that is not reached. */
  readonly numberOf: readonly number[];
  /** Immediate dominator; the entry's is itself. */
  readonly dominator: readonly number[];
  /** Children in the dominator tree that are merge points, largest number first: they follow their dominator as blocks. */
  readonly merges: readonly (readonly number[])[];
  /** Nodes with an edge to a node, once for each edge. */
  readonly predecessors: readonly (readonly number[])[];
  readonly isLoop: readonly boolean[];
  readonly isMerge: readonly boolean[];
}

/** @param successors by node; node 0 is the entry */
export function analyse(successors: readonly (readonly number[])[]): FlowGraph {
  const order = reversePostorder(successors);
  const numberOf = new Array<number>(successors.length).fill(-1);
  order.forEach((node, n) => {
    numberOf[node] = n;
  });
  const predecessors: number[][] = order.map(() => []);
  order.forEach((node, n) => {
    for (const s of successors[node]!) predecessors[numberOf[s]!]!.push(n);
  });
  const dominator = dominators(predecessors);
  const isLoop = order.map(() => false);
  const forward = order.map(() => 0);
  predecessors.forEach((from, n) => {
    for (const p of from) {
      if (p >= n) isLoop[n] = true;
      else forward[n] = forward[n]! + 1;
    }
  });
  const isMerge = forward.map((count) => count > 1);
  const merges: number[][] = order.map(() => []);
  for (let n = order.length - 1; n > 0; n--) if (isMerge[n]) merges[dominator[n]!]!.push(n);
  return { order, numberOf, dominator, predecessors, merges, isLoop, isMerge };
}

/** The nodes that a loop's head gets back to itself by, and the head. */
export function loopOf({ predecessors }: Pick<FlowGraph, 'predecessors'>, head: number): Set<number> {
  const inside = new Set([head]);
  const work = predecessors[head]!.filter((p) => p >= head);
  for (let n = work.pop(); n !== undefined; n = work.pop()) {
    if (inside.has(n)) continue;
    inside.add(n);
    work.push(...predecessors[n]!);
  }
  return inside;
}

/** Whether `a` dominates `b`. */
export function dominates(g: Pick<FlowGraph, 'dominator'>, a: number, b: number): boolean {
  let n = b;
  while (n > a) n = g.dominator[n]!;
  return n === a;
}

/** Edges back to a node that does not dominate their source: the graph is not reducible while it has any. Pairs of caller's nodes. */
export function irreducibleEdges(g: FlowGraph, successors: readonly (readonly number[])[]): [number, number][] {
  const out: [number, number][] = [];
  g.order.forEach((node, n) => {
    for (const s of successors[node]!) {
      const target = g.numberOf[s]!;
      if (target <= n && !dominates(g, target, n)) out.push([node, s]);
    }
  });
  return out;
}

/**
 * Makes a graph reducible. Where a loop is entered at more than one node, a new node takes its place at the head, a dispatcher:
 * all edges to those nodes lead there instead, and from there to each of them.
 * @param successors by node; node 0 is the entry. Edges are changed in place, dispatchers appended
 * @returns the dispatcher that stands before a node, where one does
 */
export function makeReducible(successors: number[][]): ReadonlyMap<number, number> {
  const dispatcherOf = new Map<number, number>();
  const parts = [reversePostorder(successors)];
  const reached = new Set(parts[0]);
  for (let part = parts.pop(); part !== undefined; part = parts.pop()) {
    for (const loop of loopsWithin(successors, part)) {
      const inside = new Set(loop);
      const heads = new Set<number>();
      successors.forEach((out, from) => {
        if (reached.has(from) && !inside.has(from)) for (const to of out) if (inside.has(to)) heads.add(to);
      });
      if (heads.size > 1) {
        const dispatcher = successors.length;
        for (const [from, out] of successors.entries())
          successors[from] = out.map((to) => (heads.has(to) ? dispatcher : to));
        successors.push([...heads]);
        reached.add(dispatcher);
        for (const head of heads) dispatcherOf.set(head, dispatcher);
      }
      // Nothing leads to the loop that the graph begins with.
      if (heads.size === 0) heads.add(0);
      // What is left without its head holds the loops further in.
      parts.push(loop.filter((node) => !heads.has(node)));
    }
  }
  return dispatcherOf;
}

/** The strongly connected components of a part of a graph that have an edge (Tarjan, 1972). */
function loopsWithin(successors: readonly (readonly number[])[], part: readonly number[]): number[][] {
  const inPart = new Set(part);
  const numberOf = new Map<number, number>();
  const stack: number[] = [];
  const onStack = new Set<number>();
  const loops: number[][] = [];
  const visit = (node: number): number => {
    let low = numberOf.size;
    numberOf.set(node, low);
    stack.push(node);
    onStack.add(node);
    for (const next of successors[node]!) {
      if (!inPart.has(next)) continue;
      if (!numberOf.has(next)) low = Math.min(low, visit(next));
      else if (onStack.has(next)) low = Math.min(low, numberOf.get(next)!);
    }
    if (low === numberOf.get(node)) {
      const component = stack.splice(stack.indexOf(node));
      for (const member of component) onStack.delete(member);
      if (component.length > 1 || successors[node]!.includes(node)) loops.push(component);
    }
    return low;
  };
  for (const node of part) if (!numberOf.has(node)) visit(node);
  return loops;
}

function reversePostorder(successors: readonly (readonly number[])[]): number[] {
  const seen = new Set<number>([0]);
  const out: number[] = [];
  const stack: [number, number][] = [[0, 0]];
  for (let top = stack.at(-1); top !== undefined; top = stack.at(-1)) {
    const [node, i] = top;
    const next = successors[node]![i];
    if (next === undefined) {
      out.push(node);
      stack.pop();
    } else {
      top[1]++;
      if (!seen.has(next)) {
        seen.add(next);
        stack.push([next, 0]);
      }
    }
  }
  return out.reverse();
}

function dominators(predecessors: readonly (readonly number[])[]): number[] {
  const idom = new Array<number>(predecessors.length).fill(-1);
  idom[0] = 0;
  for (let changed = true; changed; ) {
    changed = false;
    for (let n = 1; n < predecessors.length; n++) {
      let best = -1;
      for (const p of predecessors[n]!) {
        if (idom[p] === -1) continue;
        best = best === -1 ? p : intersect(idom, p, best);
      }
      if (best !== idom[n]) {
        idom[n] = best;
        changed = true;
      }
    }
  }
  return idom;
}

function intersect(idom: readonly number[], a: number, b: number): number {
  let x = a;
  let y = b;
  while (x !== y) {
    while (x > y) x = idom[x]!;
    while (y > x) y = idom[y]!;
  }
  return x;
}
