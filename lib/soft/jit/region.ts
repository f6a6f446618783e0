import { DECODE, RECORD_SHIFT, REGION } from './handler.js';
import type { Instruction, Instructions } from './instruction.js';

/**
 * A region: the blocks of one page that are reached from a hot entry by direct branches and calls, and those that the calls
 * return to. It is what the compiler turns into one WebAssembly function, with its loops as loops.
 */
export interface Region {
  /** The entry first. */
  readonly blocks: readonly Block[];
  /** Where it may be entered: positions of blocks, the entry first, then those that its calls return to. */
  readonly entries: readonly number[];
  /** Positions of loads and stores that a device has answered before. */
  readonly devices: ReadonlySet<number>;
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
  /** A branch that expects to be returned from, to the next instruction. */
  | { readonly kind: 'call'; readonly target: number }
  /** To the address of a call's next instruction, which is in a register. */
  | { readonly kind: 'return' }
  /** To another address in a register. */
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
  /** Whether a region can be entered at the instruction. */
  isEntry(index: number): boolean;
  /** Whether the instruction is a load or store that a device has answered. */
  accessesDevice(index: number): boolean;
}

/**
 * Reads a page of RAM and its records, wherever linear memory has been renewed to since.
 * @param page linear address of the page
 * @param records linear address of its records
 * @param guarded the page is a guarded one
 * @param devices positions of loads and stores that a device has answered
 */
export const pageReader = (
  memory: { readonly u16: Uint16Array; readonly u32: Uint32Array },
  page: number,
  records: number,
  guarded: boolean,
  devices: ReadonlySet<number>,
): PageReader => {
  const handler = (index: number): number | undefined => memory.u16[(records + (index << RECORD_SHIFT)) >>> 1];
  return {
    guarded,
    // A page that a thread does not see yet, because the memory has just grown, reads as UDF.
    word: (index) => memory.u32[(page >>> 2) + index] ?? 0,
    executed: (index) => handler(index) !== DECODE,
    accessesDevice: (index) => devices.has(index),
    isEntry: (index) => handler(index) === REGION,
  };
};

/** Collects the region of an entry; `undefined` where not even the first instruction can be compiled. */
export function formRegion(code: Instructions, page: PageReader, entry: number): Region | undefined {
  const found = new Map<number, { readonly instruction: Instruction; readonly end: BlockEnd | undefined }>();
  const leaders = new Set<number>([entry]);
  const entries = new Set<number>([entry]);
  const work = [entry];
  const reach = (index: number): boolean => {
    if (index < 0 || index >= PAGE_INSTRUCTIONS || !page.executed(index)) return false;
    leaders.add(index);
    work.push(index);
    return true;
  };
  for (let next = work.shift(); next !== undefined; next = work.shift()) {
    for (let index = next; index < PAGE_INSTRUCTIONS && !found.has(index) && found.size < MAX_INSTRUCTIONS; index++) {
      const instruction = code.of(page.word(index), page.guarded);
      if (instruction?.meaning.allowed !== true) break;
      const end = endOf(instruction, index);
      found.set(index, { instruction, end });
      if (end === undefined) continue;
      if (end.kind === 'branch') reach(end.target);
      else if (end.kind === 'conditional') {
        reach(end.target);
        reach(index + 1);
      } else if (end.kind === 'call' && reach(end.target) && reach(index + 1)) entries.add(index + 1);
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
  return {
    blocks,
    entries: [...entries].filter((index) => found.has(index)),
    devices: new Set([...found.keys()].filter((index) => page.accessesDevice(index))),
  };
}

/** How the block goes on behind an instruction; `undefined` with the next one. @param index position of the instruction */
function endOf({ meaning: { end: kind }, imm }: Instruction, index: number): BlockEnd | undefined {
  switch (kind) {
    case 'none':
      return undefined;
    case 'branch':
    case 'conditional':
    case 'call':
      return { kind, target: index + Number(imm!) / 4 };
    default:
      return { kind };
  }
}
