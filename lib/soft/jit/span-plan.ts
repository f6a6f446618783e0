import type { Val } from '../a64/emitter.js';
import { Offset } from '../cpu/layout.js';
import type { Instruction } from './instruction.js';
import { TRANSLATION_HELPERS } from './linkage.js';
import type { RegionGraph } from './region-graph.js';
import { wasmOp } from './wasm-opcodes.js';
import { isKept, namedWord } from './word-use.js';

/**
 * Accesses of a region that lie near each other: the first looks for the page that all lie in, and where that was found the others
 * need not. Near are those whose addresses differ by constants, made from the same value of a register, with one way to them only.
 */
export interface Span {
  /** The number of the local that has the linear address of the first byte, or 0; several spans that are not alive at a time share it. */
  readonly local: number;
  /** Bytes from the first to the last. */
  readonly bytes: number;
}

/** An access's place in a span. */
export interface SpanPlace {
  readonly span: Span;
  /** From the span's first byte. */
  readonly offset: number;
  /** It comes first, and looks for the page. */
  readonly isFirst: boolean;
}

/** Plans are exact: where the span was found, an access of it may go there without looking at its address. */
export interface SpanPlan {
  /** How many locals there are. */
  readonly locals: number;
  /** Whether an access belongs to a span. @param n which it is of the instruction's accesses, those in branches of its program left out */
  of(position: number, n: number): SpanPlace | undefined;
}

/** A span must not be longer. SCRATCH, where an access that crosses pages is put together, must not be nearer to the start of linear memory. */
const MAX_BYTES = 512;
/** Constants that are larger don't make an address that is near. */
const MAX_CONSTANT = 4096;
/** Accesses of an instruction at most. */
const ACCESSES = 64;

/** An address: a constant from a value that nothing is known of. */
interface Address {
  readonly origin: object;
  readonly offset: number;
}

class GrowingSpan implements Span {
  readonly local: number;
  /** Where it starts and ends, from its origin. */
  low: number;
  high: number;
  members = 1;

  constructor(local: number, low: number, high: number) {
    this.local = local;
    this.low = low;
    this.high = high;
  }
  get bytes(): number {
    return this.high - this.low;
  }
  /** Grows so that the access is in it, if that leaves it short enough. */
  take(low: number, high: number): boolean {
    const newLow = Math.min(this.low, low);
    const newHigh = Math.max(this.high, high);
    if (newHigh - newLow > MAX_BYTES) return false;
    this.low = newLow;
    this.high = newHigh;
    this.members++;
    return true;
  }
}

/** What is known at some place of a path. */
interface Known {
  /** By offset of the register. */
  readonly registers: Map<number, Address>;
  /** By kind of access, and origin. */
  readonly spans: { readonly load: Map<object, GrowingSpan>; readonly store: Map<object, GrowingSpan> };
}
const nothing = (): Known => ({ registers: new Map(), spans: { load: new Map(), store: new Map() } });
const copy = ({ registers, spans: { load, store } }: Known): Known => ({
  registers: new Map(registers),
  spans: { load: new Map(load), store: new Map(store) },
});
function forget({ registers, spans }: Known): void {
  registers.clear();
  spans.load.clear();
  spans.store.clear();
}

/** Finds the spans of a region. @param devices positions of loads and stores that a device has answered: behind them all may be different */
export function planSpans({ blocks, flow }: RegionGraph, devices: ReadonlySet<number>): SpanPlan {
  const planner = new Planner();
  const ends: Known[] = [];
  /** By number of the node: spans that are alive there at most. */
  const alive: number[] = [];
  flow.order.forEach((node, n) => {
    const [before, another] = flow.predecessors[n]!;
    const isOnlyWay = before !== undefined && another === undefined && before < n;
    const known = isOnlyWay ? copy(ends[before]!) : nothing();
    planner.alive = isOnlyWay ? alive[before]! : 0;
    const block = blocks[node];
    block?.instructions.forEach((i, at) => {
      const position = block.index + at;
      if (devices.has(position)) forget(known);
      else planner.add(i, position, known);
    });
    ends.push(known);
    alive.push(planner.alive);
  });
  return planner.plan();
}

class Planner {
  /** Spans that have been opened on the way. */
  alive = 0;
  readonly #places = new Map<number, { readonly span: GrowingSpan; readonly low: number; readonly isFirst: boolean }>();
  #locals = 0;

  add(i: Instruction, position: number, known: Known): void {
    const addresses = new Map<Val, Address>();
    const written = new Set<number>();
    let accesses = 0;
    for (const s of i.meaning.program) {
      if (s.k === 'store' || (s.k === 'def' && s.v.node.k === 'load')) {
        const { va, bytes, unprivileged, kind } = s.k === 'store' ? { ...s, kind: 'store' as const } : loadOf(s.v);
        const address = unprivileged ? undefined : addressOf(va, i, addresses);
        if (address !== undefined && accesses < ACCESSES)
          this.#access(position * ACCESSES + accesses, known.spans[kind], address, bytes);
        accesses++;
      } else if (s.k === 'def' && s.v.node.k === 'x' && s.v.node.wide) {
        const register = i.reads[s.v.node.reg.field]!;
        if (register !== Offset.ZR) addresses.set(s.v, addressIn(register, known));
      } else if (s.k === 'x') {
        const register = i.writes[s.reg.field]!;
        const address = addressOf(s.v, i, addresses);
        if (address === undefined) known.registers.delete(register);
        else known.registers.set(register, address);
        written.add(register);
      }
    }
    for (const name of [...i.meaning.words.writes, ...i.meaning.words.writesPerhaps]) {
      const offset = namedWord(i, name, 'writes');
      if (isKept(offset) && !written.has(offset)) known.registers.delete(offset);
    }
    for (const name of i.meaning.words.writesPerhaps) known.registers.delete(namedWord(i, name, 'writes'));
    if (i.meaning.helpers.some(({ name }) => TRANSLATION_HELPERS.has(name))) forget(known);
  }

  #access(key: number, spans: Map<object, GrowingSpan>, { origin, offset }: Address, bytes: number): void {
    let span = spans.get(origin);
    const isFirst = span?.take(offset, offset + bytes) !== true;
    if (isFirst || span === undefined) {
      span = new GrowingSpan(this.alive++, offset, offset + bytes);
      this.#locals = Math.max(this.#locals, this.alive);
      spans.set(origin, span);
    }
    this.#places.set(key, { span, low: offset, isFirst });
  }

  plan(): SpanPlan {
    return {
      locals: this.#locals,
      of: (position, n) => {
        const place = n < ACCESSES ? this.#places.get(position * ACCESSES + n) : undefined;
        if (place === undefined || place.span.members === 1) return undefined;
        const { span, low, isFirst } = place;
        return { span, offset: low - span.low, isFirst };
      },
    };
  }
}

/** The address in a register. */
function addressIn(register: number, { registers }: Known): Address {
  let value = registers.get(register);
  if (value === undefined) {
    value = { origin: {}, offset: 0 };
    registers.set(register, value);
  }
  return value;
}

function loadOf(v: Val): { va: Val; bytes: number; unprivileged: boolean; kind: 'load' } {
  const { node } = v;
  if (node.k !== 'load') throw new Error('not a load');
  return { va: node.va, bytes: node.bytes, unprivileged: node.unprivileged, kind: 'load' };
}

const ADD = wasmOp('i64.add');
const SUB = wasmOp('i64.sub');
const EXTEND = wasmOp('i64.extend_i32_s');
const EXTEND16 = wasmOp('i32.extend16_s');

/** A value as an address; `undefined` where it is no such. @param addresses of the registers that the program has read */
function addressOf(v: Val, i: Instruction, addresses: ReadonlyMap<Val, Address>): Address | undefined {
  const { node } = v;
  if (node.k !== 'op') return addresses.get(v);
  const [a, b] = node.args;
  if (node.op === ADD) {
    return (
      moved(addressOf(a!, i, addresses), constantOf(b!, i)) ?? moved(addressOf(b!, i, addresses), constantOf(a!, i))
    );
  }
  return node.op === SUB ? moved(addressOf(a!, i, addresses), constantOf(b!, i), -1) : undefined;
}

const moved = (address: Address | undefined, by: number | undefined, sign = 1): Address | undefined =>
  address === undefined || by === undefined
    ? undefined
    : { origin: address.origin, offset: address.offset + sign * by };

/** A value that an instruction's fields give, if it is near 0. */
function constantOf(v: Val, i: Instruction): number | undefined {
  const value = integerOf(v, i);
  return value !== undefined && Math.abs(value) <= MAX_CONSTANT ? value : undefined;
}

function integerOf({ node }: Val, i: Instruction): number | undefined {
  switch (node.k) {
    case 'const':
      return Number(BigInt.asIntN(64, BigInt(node.value)));
    case 'field': {
      const value = node.field === 'imm' && i.imm !== undefined ? i.imm : i.reads[node.field]!;
      return Number(BigInt.asIntN(64, BigInt(value)));
    }
    case 'op': {
      const inner = node.op === EXTEND || node.op === EXTEND16 ? integerOf(node.args[0]!, i) : undefined;
      return inner === undefined ? undefined : node.op === EXTEND16 ? (inner << 16) >> 16 : inner | 0;
    }
    default:
      return undefined;
  }
}
