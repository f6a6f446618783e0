import type { Stmt } from '../a64/emitter.js';
import { Offset } from '../cpu/layout.js';
import type { Instruction } from './instruction.js';
import { FlagState, flagsAfter, wantsWords } from './lazy-flags.js';
import { type BlockWords, Place } from './word-plan.js';

/** A word of the state that an instruction's program names: its offset, or the field of the operand that has it. */
export type NamedWord = number | string;

/** Which words of the state a program reads and writes, of those that regions keep in locals. */
export interface WordUse {
  readonly reads: readonly NamedWord[];
  readonly writes: readonly NamedWord[];
  /** Those written on some of its ways only. */
  readonly writesPerhaps: readonly NamedWord[];
}

export const FLAG_WORDS: readonly number[] = [Offset.N, Offset.Z, Offset.C, Offset.V];

/** Whether regions keep the word in a local: X0 to X30, the stack pointer in use, and NZCV. */
export const isKept = (offset: number): boolean =>
  offset < Offset.ZR || offset === Offset.SP || (offset >= Offset.N && offset <= Offset.C);

/** Words by number: 64 bits each. */
export const WORDS = Offset.PC >> 3;
export const wordOf = (offset: number): number => offset >> 3;

/** What a program does with words. What conditions read is left out: it depends on where NZCV are. */
export function wordUse(program: readonly Stmt[]): WordUse {
  const reads = new Set<NamedWord>();
  const writes = new Set<NamedWord>();
  const writesPerhaps = new Set<NamedWord>();
  const walk = (stmts: readonly Stmt[], nested: boolean): void => {
    const written = nested ? writesPerhaps : writes;
    for (const s of stmts) {
      if (s.k === 'x') written.add(s.reg.field);
      else if (s.k === 'stateAt') written.add(s.field);
      else if (s.k === 'state') written.add(s.offset);
      else if (s.k === 'flags' && nested) for (const offset of FLAG_WORDS) writesPerhaps.add(offset);
      else if (s.k === 'if') {
        walk(s.then, true);
        walk(s.otherwise, true);
      } else if (s.k === 'def') {
        const { node } = s.v;
        if (node.k === 'x') reads.add(node.reg.field);
        else if (node.k === 'stateAt') reads.add(node.field);
        else if (node.k === 'state') reads.add(node.offset);
      }
    }
  };
  walk(program, false);
  return { reads: [...reads], writes: [...writes], writesPerhaps: [...writesPerhaps] };
}

/** The offset that a program's name stands for in an instruction. */
export const namedWord = (i: Instruction, name: NamedWord, kind: 'reads' | 'writes'): number =>
  typeof name === 'number' ? name : (i[kind][name] ?? i.reads[name]!);

/**
 * What a block does with words.
 * @param flags where NZCV are at its start
 */
export function blockWords(instructions: readonly Instruction[], flags: number): BlockWords {
  const reads = new Set<number>();
  const writes = new Set<number>();
  // Where the block leaves the words that it changes the place of.
  const last = new Map<number, Place>();
  const read = (offset: number): void => {
    if (!isKept(offset)) return;
    const word = wordOf(offset);
    reads.add(word);
    if (!last.has(word)) last.set(word, Place.BOTH);
  };
  const write = (offset: number): void => {
    if (!isKept(offset)) return;
    writes.add(wordOf(offset));
    last.set(wordOf(offset), Place.LOCAL);
  };
  let state = flags;
  for (const i of instructions) {
    const { flags: effect, words } = i.meaning;
    const before = state;
    state = flagsAfter(before, effect);
    if (before !== FlagState.WORDS && wantsWords(before, effect.reads)) for (const offset of FLAG_WORDS) write(offset);
    for (const name of words.reads) read(namedWord(i, name, 'reads'));
    for (const name of words.writes) write(namedWord(i, name, 'writes'));
    for (const name of words.writesPerhaps) write(namedWord(i, name, 'writes'));
    if (effect.leaves !== undefined && effect.leaves !== FlagState.WORDS)
      for (const offset of FLAG_WORDS) last.set(wordOf(offset), Place.MEMORY);
  }
  return {
    reads,
    writes,
    pass: (places) => {
      for (const [word, place] of last) if (place !== Place.BOTH || places[word] === Place.MEMORY) places[word] = place;
    },
  };
}
