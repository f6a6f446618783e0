import { DECODE, RECORD_SHIFT } from './handler.js';
import type { Instruction, Instructions } from './instruction.js';

/**
 * A region: the blocks of one page that are reached from a hot entry by direct branches. It is what the compiler turns into
 * one WebAssembly function, with its loops as loops.
 */
export interface Region {
  /** The entry first. */
  readonly blocks: readonly Block[];
}

/** A straight run of instructions, entered at the top only. */
export interface Block {
  /** Position in the page, in instructions. */
  readonly index: number;
  readonly instructions: Instruction[];
  readonly end: BlockEnd;
}

/** How a block goes on. Positions are in instructions from the page's start and may lie outside it. */
export type BlockEnd =
  /** Runs into the next instruction, which starts another block or is not part of the region. */
  | { readonly kind: 'fall' }
  | { readonly kind: 'branch'; readonly target: number }
  | { readonly kind: 'conditional'; readonly target: number }
  /** To an address in a register. */
  | { readonly kind: 'indirect' }
  /** Goes on with the next instruction, but not within the region. */
  | { readonly kind: 'leave' };

export const PAGE_INSTRUCTIONS = 1024;
/** A region stops growing there: V8's time for a function rises faster than its size. */
const MAX_INSTRUCTIONS = 400;

/** What the page holds, for {@link formRegion}. */
export interface PageReader {
  readonly guarded: boolean;
  word(index: number): number;
  /** Whether the instruction has been executed: code that never ran is left out. */
  executed(index: number): boolean;
}

/**
 * Reads a page of RAM and its records, wherever linear memory has been renewed to since.
 * @param page linear address of the page
 * @param records linear address of its records
 * @param guarded the page is a guarded one
 */
export const pageReader = (
  memory: { readonly u16: Uint16Array; readonly u32: Uint32Array },
  page: number,
  records: number,
  guarded: boolean,
): PageReader => ({
  guarded,
  // A page that a thread does not see yet, because the memory has just grown, reads as UDF.
  word: (index) => memory.u32[(page >>> 2) + index] ?? 0,
  executed: (index) => memory.u16[(records + (index << RECORD_SHIFT)) >>> 1] !== DECODE,
});

/** Collects the region of an entry; `undefined` where not even the first instruction can be compiled. */
export function formRegion(code: Instructions, page: PageReader, entry: number): Region | undefined {
  const found = new Map<number, { readonly instruction: Instruction; readonly end: BlockEnd | undefined }>();
  const leaders = new Set<number>([entry]);
  const work = [entry];
  const reach = (index: number): void => {
    if (index < 0 || index >= PAGE_INSTRUCTIONS || !page.executed(index)) return;
    leaders.add(index);
    work.push(index);
  };
  for (let next = work.shift(); next !== undefined; next = work.shift()) {
    for (let index = next; index < PAGE_INSTRUCTIONS && !found.has(index) && found.size < MAX_INSTRUCTIONS; index++) {
      const instruction = code.of(page.word(index), page.guarded);
      if (instruction?.meaning.allowed !== true) break;
      const { end: kind } = instruction.meaning;
      const target = kind === 'branch' || kind === 'conditional' ? index + Number(instruction.imm!) / 4 : 0;
      const end: BlockEnd | undefined =
        kind === 'none' ? undefined : kind === 'indirect' || kind === 'leave' ? { kind } : { kind, target };
      found.set(index, { instruction, end });
      if (end === undefined) continue;
      // A call goes elsewhere and comes back through the interpreter.
      if (end.kind === 'conditional' || (end.kind === 'branch' && instruction.row.name !== 'BL')) reach(target);
      if (end.kind === 'conditional') reach(index + 1);
      break;
    }
  }
  if (!found.has(entry)) return undefined;
  const blocks: Block[] = [];
  for (const leader of [entry, ...[...leaders].filter((l) => l !== entry && found.has(l)).sort((a, b) => a - b)]) {
    const instructions: Instruction[] = [];
    let end: BlockEnd = { kind: 'fall' };
    for (let index = leader; index === leader || !leaders.has(index); index++) {
      const i = found.get(index);
      if (i === undefined) break;
      instructions.push(i.instruction);
      if (i.end !== undefined) {
        end = i.end;
        break;
      }
    }
    blocks.push({ index: leader, instructions, end });
  }
  return { blocks };
}
