import type { Decoder } from '../a64/decode.js';
import type { Helper, Stmt } from '../a64/emitter.js';
import { fieldsOf, type Row } from '../a64/row.js';
import { emitRow, staticsOf } from './handler.js';
import { helpersOf, MACHINE_HELPERS, memoryAccesses } from './linkage.js';
import type { RawFields } from './operands.js';

/**
 * A region: the blocks of one page that are reached from a hot entry by direct branches. It is what the compiler turns into
 * one WebAssembly function, with its loops as loops.
 */
export interface Region {
  /** The entry first. */
  readonly blocks: readonly Block[];
}

/** An instruction of a region. */
export interface RegionInstruction {
  readonly row: Row;
  readonly raw: RawFields;
  readonly shape: RowShape;
}

/** A straight run of instructions, entered at the top only. */
export interface Block {
  /** Position in the page, in instructions. */
  readonly index: number;
  readonly instructions: RegionInstruction[];
  readonly end: BlockEnd;
}

/** How a block goes on. Positions are in instructions from the page's start and may lie outside it. */
export type BlockEnd =
  /** Runs into the next instruction, which starts another block or is not part of the region. */
  | { readonly kind: 'fall' }
  | { readonly kind: 'branch'; readonly target: number }
  | { readonly kind: 'conditional'; readonly target: number }
  /** To an address in a register. */
  | { readonly kind: 'indirect' };

export const PAGE_INSTRUCTIONS = 1024;
/** A region stops growing there: V8's time for a function rises faster than its size. */
const MAX_INSTRUCTIONS = 400;

/** What the page holds, for {@link formRegion}. */
export interface PageReader {
  word(index: number): number;
  /** Whether the instruction has been executed: code that never ran is left out. */
  executed(index: number): boolean;
}

/** Whether a row may be part of a region, by row: what it does, not what its fields say. */
export interface RowShape {
  readonly allowed: boolean;
  /** What a module with this instruction must import. */
  readonly helpers: readonly Helper[];
  readonly memoryFunctions: readonly string[];
  readonly end: 'none' | 'branch' | 'conditional' | 'indirect';
}
const shapes = new Map<Row, Map<string, RowShape>>();

function shapeOf(row: Row, raw: RawFields): RowShape {
  let byKey = shapes.get(row);
  if (byKey === undefined) {
    byKey = new Map();
    shapes.set(row, byKey);
  }
  const key = staticsOf(row, raw);
  let shape = byKey.get(key);
  if (shape === undefined) {
    shape = examine(row, emitRow(row, raw).body);
    byKey.set(key, shape);
  }
  return shape;
}

function examine(row: Row, body: readonly Stmt[]): RowShape {
  const last = body.at(-1);
  let end: RowShape['end'] = 'none';
  if (last?.k === 'jump') end = last.cond === undefined ? 'branch' : 'conditional';
  else if (last?.k === 'jumpTo') end = 'indirect';
  // ISB is where changed code must be seen; what else ends a run of code without branching leaves for the machine.
  const allowed =
    row.name !== 'ISB' &&
    (!row.ends || end !== 'none') &&
    ![...helpersOf(body)].some((h) => MACHINE_HELPERS.has(h.name)) &&
    !body.some((s) => s.k === 'exit');
  return { allowed, end, helpers: [...helpersOf(body)], memoryFunctions: [...memoryAccesses(body)] };
}

/** Whether a region may begin with an instruction. */
export function canStart(decoder: Decoder, word: number): boolean {
  const row = decoder.decode(word);
  return row !== undefined && shapeOf(row, fieldsOf(row, word)).allowed;
}

/** Collects the region of an entry; `undefined` where not even the first instruction can be compiled. */
export function formRegion(decoder: Decoder, page: PageReader, entry: number): Region | undefined {
  const found = new Map<number, RegionInstruction & { readonly end: BlockEnd | undefined }>();
  const leaders = new Set<number>([entry]);
  const work = [entry];
  const reach = (index: number): void => {
    if (index < 0 || index >= PAGE_INSTRUCTIONS || !page.executed(index)) return;
    leaders.add(index);
    work.push(index);
  };
  for (let next = work.shift(); next !== undefined; next = work.shift()) {
    for (let index = next; index < PAGE_INSTRUCTIONS && !found.has(index) && found.size < MAX_INSTRUCTIONS; index++) {
      const word = page.word(index);
      const row = decoder.decode(word);
      if (row === undefined) break;
      const raw = fieldsOf(row, word);
      const shape = shapeOf(row, raw);
      if (!shape.allowed) break;
      const target = shape.end === 'branch' || shape.end === 'conditional' ? index + Number(row.imm!(raw)) / 4 : 0;
      const end: BlockEnd | undefined =
        shape.end === 'none'
          ? undefined
          : shape.end === 'indirect'
            ? { kind: 'indirect' }
            : { kind: shape.end, target };
      found.set(index, { row, raw, shape, end });
      if (end === undefined) continue;
      // A call goes elsewhere and comes back through the interpreter.
      if (end.kind === 'conditional' || (end.kind === 'branch' && row.name !== 'BL')) reach(target);
      if (end.kind === 'conditional') reach(index + 1);
      break;
    }
  }
  if (!found.has(entry)) return undefined;
  const blocks: Block[] = [];
  for (const leader of [entry, ...[...leaders].filter((l) => l !== entry && found.has(l)).sort((a, b) => a - b)]) {
    const instructions: RegionInstruction[] = [];
    let end: BlockEnd = { kind: 'fall' };
    for (let index = leader; index === leader || !leaders.has(index); index++) {
      const i = found.get(index);
      if (i === undefined) break;
      instructions.push(i);
      if (i.end !== undefined) {
        end = i.end;
        break;
      }
    }
    blocks.push({ index: leader, instructions, end });
  }
  return { blocks };
}
