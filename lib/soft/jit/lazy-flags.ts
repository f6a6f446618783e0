import { Emitter, type FlagOperation, type Stmt, type Val, Var } from '../a64/emitter.js';
import { addOverflow, FLAG_WORDS, subOverflow } from '../a64/flags.js';
import { Offset } from '../cpu/layout.js';
import { FLAGS } from './handler.js';

/**
 * NZCV that nobody has asked for yet. In a region, an instruction that sets flags only keeps its operands; a conditional branch compares
 * them, and the words are made where the region is left or something wants them as they are.
 */

/**
 * Where NZCV are at some place in a region: in their words, in the operands of an operation, as the region found them (in the words of
 * the state, or in operands there, see Offset.FLAGS_FROM), or in what a local says.
 */
export const FlagState = { WORDS: 0, FOUND: 14, VARYING: 15 } as const;
const OPERATIONS: readonly FlagOperation[] = ['add', 'sub', 'logical'];
/** The state after an operation: 1 to 6. */
export const flagState = (operation: FlagOperation, type: 'i32' | 'i64'): number =>
  1 + OPERATIONS.indexOf(operation) * 2 + (type === 'i64' ? 1 : 0);
export const operationOf = (state: number): FlagOperation => OPERATIONS[(state - 1) >> 1]!;
export const isI64 = (state: number): boolean => ((state - 1) & 1) === 1;

/** All states after operations. */
export const FLAG_STATES: readonly number[] = OPERATIONS.flatMap((operation) => [
  flagState(operation, 'i32'),
  flagState(operation, 'i64'),
]);

/** What an instruction does with NZCV. */
export interface FlagEffect {
  /** It reads nothing of them, conditions that hold, or their words. */
  readonly reads: 'nothing' | 'conditions' | 'words';
  /** The state it leaves them in, if it sets them. */
  readonly leaves: number | undefined;
}

const isFlag = (offset: number): boolean =>
  offset === Offset.N || offset === Offset.Z || offset === Offset.C || offset === Offset.V;

/** Whether a program sets all four, whatever way it takes. */
function setsAll(program: readonly Stmt[]): boolean {
  const written = new Set<number>();
  for (const s of program) {
    if (s.k === 'flags' || (s.k === 'if' && setsAll(s.then) && setsAll(s.otherwise))) return true;
    if (s.k === 'state' && isFlag(s.offset)) written.add(s.offset);
  }
  return written.size === 4;
}

/** Whether a program has anything to do with them. */
const touches = (program: readonly Stmt[]): boolean => program.some((s) => writes(s) || readsOf(s) !== 'nothing');
const writes = (s: Stmt): boolean =>
  s.k === 'flags' ||
  (s.k === 'state' && isFlag(s.offset)) ||
  (s.k === 'if' && (s.then.some(writes) || s.otherwise.some(writes)));
function readsOf(s: Stmt): FlagEffect['reads'] {
  if (s.k === 'if') {
    const inner = [...s.then, ...s.otherwise].some((t) => readsOf(t) !== 'nothing');
    return inner ? 'words' : 'nothing';
  }
  if (s.k !== 'def') return 'nothing';
  const { node } = s.v;
  return node.k === 'condition' ? 'conditions' : node.k === 'state' && isFlag(node.offset) ? 'words' : 'nothing';
}

/** What an instruction's program does with NZCV. */
export function flagEffect(program: readonly Stmt[]): FlagEffect {
  if (!touches(program)) return { reads: 'nothing', leaves: undefined };
  const reads = program.map(readsOf);
  const last = program.findLast(writes);
  if (last === undefined) return { reads: reads.includes('words') ? 'words' : 'conditions', leaves: undefined };
  if (last.k === 'flags' && !reads.includes('words')) {
    const type = last.a.type === 'i64' ? 'i64' : 'i32';
    return {
      reads: reads.includes('conditions') ? 'conditions' : 'nothing',
      leaves: flagState(last.operation, type),
    };
  }
  // What changes some of them only needs the words of the others.
  const whole = setsAll(program) && !reads.includes('words');
  return {
    reads: !whole ? 'words' : reads.includes('conditions') ? 'conditions' : 'nothing',
    leaves: FlagState.WORDS,
  };
}

/** The state behind an instruction, from the one before it. */
export function flagsAfter(state: number, { reads, leaves }: FlagEffect): number {
  if (leaves !== undefined) return leaves;
  return wantsWords(state, reads) ? FlagState.WORDS : state;
}

/** Whether an instruction wants the words made of what there is. */
export const wantsWords = (state: number, reads: FlagEffect['reads']): boolean =>
  reads === 'words' || (reads === 'conditions' && state >= FlagState.FOUND);

/**
 * The state that a region is to begin with: the flags as it finds them, or, if it may want those, or one operation's or another's,
 * their words, which then are in the same place as where a loop leaves them.
 * @param effects of the blocks' instructions
 */
export function flagsToBeginWith(
  effects: readonly (readonly FlagEffect[])[],
  successors: readonly (readonly number[])[],
): number {
  const at = flagsAtEntry(FlagState.FOUND, effects, successors);
  const areWanted = effects.some((block, n) => {
    let state = at[n]!;
    return block.some((effect) => {
      const before = state;
      state = flagsAfter(before, effect);
      return before >= FlagState.FOUND && wantsWords(before, effect.reads);
    });
  });
  return areWanted ? FlagState.WORDS : FlagState.FOUND;
}

/**
 * The state at the start of each block.
 * @param first where the region is entered, node 0
 * @param effects of the blocks' instructions
 */
export function flagsAtEntry(
  first: number,
  effects: readonly (readonly FlagEffect[])[],
  successors: readonly (readonly number[])[],
): number[] {
  const at = new Array<number>(effects.length).fill(-1);
  at[0] = first;
  const work = [0];
  for (let node = work.pop(); node !== undefined; node = work.pop()) {
    const out = effects[node]!.reduce(flagsAfter, at[node]!);
    for (const next of successors[node]!) {
      const met = at[next] === -1 || at[next] === out ? out : FlagState.VARYING;
      if (met === at[next]) continue;
      at[next] = met;
      work.push(next);
    }
  }
  return at;
}

/** The operands that flags wait in, by type; the lowering gives them their locals. */
export const FLAG_OPERANDS = {
  i32: [new Var('i32'), new Var('i32')],
  i64: [new Var('i64'), new Var('i64')],
} as const;
/** Where a region leaves them in the state to the next, see Offset.FLAGS_FROM. */
export const FLAG_OPERAND_WORDS = [Offset.N, Offset.Z] as const;

const operands = (e: Emitter, state: number): readonly [Val, Val] => {
  const [a, b] = FLAG_OPERANDS[isI64(state) ? 'i64' : 'i32'];
  return [e.read(a), e.read(b)];
};

const wordPrograms = new Map<number, readonly Stmt[]>();

/** Makes the words from the operands. */
export function wordsFrom(state: number): readonly Stmt[] {
  let program = wordPrograms.get(state);
  if (program === undefined) {
    const e = new Emitter(FLAGS);
    const [a, b] = operands(e, state);
    const operation = operationOf(state);
    if (operation === 'logical') FLAG_WORDS.logical(e, a);
    else FLAG_WORDS[operation](e, a, b, operation === 'add' ? e.add(a, b) : e.sub(a, b));
    program = e.body;
    wordPrograms.set(state, program);
  }
  return program;
}

/** A condition's program, and its value behind it. */
export interface ConditionProgram {
  readonly body: readonly Stmt[];
  readonly value: Val;
}
const conditionPrograms = new Map<number, ConditionProgram>();

/** Whether a condition holds, from the operands. @param cond below 14 */
export function conditionFrom(state: number, cond: number): ConditionProgram {
  const key = state * 16 + cond;
  let found = conditionPrograms.get(key);
  if (found === undefined) {
    const e = new Emitter(FLAGS);
    const [a, b] = operands(e, state);
    // An odd condition is the opposite of the one before it.
    const value = CONDITIONS[operationOf(state)](e, cond >> 1, a, b);
    found = { body: e.body, value: (cond & 1) === 0 ? value : e.eqz(value) };
    conditionPrograms.set(key, found);
  }
  return found;
}

/** EQ, CS, MI, VS, HI, GE and GT by operation (Arm ARM DDI 0487 C1.2.4). @param pair cond<3:1> */
const CONDITIONS: Readonly<Record<FlagOperation, (e: Emitter, pair: number, a: Val, b: Val) => Val>> = {
  sub: (e, pair, a, b) => {
    const type = a.type;
    switch (pair) {
      case 0:
        return e.eq(a, b);
      case 1:
        return e.geU(a, b);
      case 2:
        return isNegative(e, e.sub(a, b));
      case 3:
        return isNegative(e, subOverflow(e, a, b, e.sub(a, b)));
      case 4:
        return e.op(`${type}.gt_u`, a, b);
      case 5:
        return e.geS(a, b);
      default:
        return e.op(`${type}.gt_s`, a, b);
    }
  },
  add: (e, pair, a, b) => {
    const r = e.add(a, b);
    const overflow = (): Val => addOverflow(e, a, b, r);
    switch (pair) {
      case 0:
        return e.eqz(r);
      case 1:
        return e.ltU(r, a);
      case 2:
        return isNegative(e, r);
      case 3:
        return isNegative(e, overflow());
      case 4:
        return e.and(e.ltU(r, a), e.eqz(e.eqz(r)));
      case 5:
        return e.eqz(isNegative(e, e.xor(r, overflow())));
      default:
        return e.and(e.eqz(isNegative(e, e.xor(r, overflow()))), e.eqz(e.eqz(r)));
    }
  },
  logical: (e, pair, a) => {
    switch (pair) {
      case 0:
        return e.eqz(a);
      case 2:
        return isNegative(e, a);
      case 5:
        return e.eqz(isNegative(e, a));
      case 6:
        return e.op(`${a.type}.gt_s`, a, zero(e, a));
      default:
        // CS, VS and HI: C and V are 0.
        return e.i32(0);
    }
  },
};

const zero = (e: Emitter, like: Val): Val => (like.type === 'i64' ? e.i64(0n) : e.i32(0));
const isNegative = (e: Emitter, v: Val): Val => e.ltS(v, zero(e, v));
