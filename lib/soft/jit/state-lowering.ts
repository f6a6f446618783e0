import type { Stmt, Val } from '../a64/emitter.js';
import { Offset, STATE } from '../cpu/layout.js';
import { GuestAccessLowering } from './guest-access.js';
import {
  conditionFrom,
  FLAG_OPERAND_WORDS,
  FLAG_OPERANDS,
  type FlagEffect,
  FlagState,
  flagState,
  flagsAtEntry,
  flagsToBeginWith,
  isI64,
  operationOf,
  wordsFrom,
} from './lazy-flags.js';
import { W } from './lower.js';
import { StateWords } from './state-words.js';
import type { FunctionBody } from './wasm-module.js';
import { FLAG_WORDS, isKept } from './word-use.js';

/** Lowers for a region what is the vCPU's state: its words are in locals, NZCV in their words or in the operands that they are to be made from. */
export abstract class StateLowering extends GuestAccessLowering {
  protected readonly words: StateWords;
  /** Where NZCV are now, and at the start of blocks; states that they wait in anywhere; and the local that says where they vary. */
  protected flags: number = FlagState.FOUND;
  protected flagsAt: readonly number[] = [];
  #flagStates: readonly number[] = [];
  /** They are as the region found them all through it. */
  #onlyFound = true;
  readonly #flagsLocal: number;

  constructor(body: FunctionBody) {
    super(body);
    this.#flagsLocal = body.addLocal('i32');
    this.words = new StateWords(body);
  }

  protected open(kind: number): number {
    this.code.u8(kind);
    this.code.u8(W.VOID);
    return ++this.depth;
  }
  protected close(): void {
    this.code.u8(W.END);
    this.depth--;
  }

  /** Finds where NZCV are at the start of each block. @param effects of the blocks' instructions */
  protected planFlags(effects: readonly (readonly FlagEffect[])[], successors: readonly (readonly number[])[]): void {
    this.flags = flagsToBeginWith(effects, successors);
    this.flagsAt = flagsAtEntry(this.flags, effects, successors);
    const all = effects.flat();
    this.#onlyFound = all.every(({ reads, leaves }) => reads === 'nothing' && leaves === undefined);
    const left = new Set(all.map((effect) => effect.leaves ?? FlagState.WORDS));
    left.delete(FlagState.WORDS);
    this.#flagStates = [...left];
    if (left.size === 0) return;
    for (const variable of [...FLAG_OPERANDS.i32, ...FLAG_OPERANDS.i64])
      variable.local = this.body.addLocal(variable.type);
  }

  protected override stateLocal(offset: number, write: boolean): number | undefined {
    if (!isKept(offset)) return undefined;
    // Behind a branch of a program the word would be in two places.
    if (this.nesting > 0 && !this.words.has(offset)) return undefined;
    return write ? this.words.write(offset) : this.words.read(offset);
  }

  /** What is written on some ways of an instruction only must be in its local on all: it is in one place behind them. */
  protected keep(offset: number): void {
    if (!isKept(offset)) return;
    // Flags that wait in operands are written on all.
    if (FLAG_WORDS.includes(offset) && this.flags !== FlagState.WORDS) this.words.write(offset);
    else this.words.read(offset);
  }

  protected override setFlags(s: Extract<Stmt, { k: 'flags' }>): void {
    if (this.nesting > 0) {
      super.setFlags(s);
      return;
    }
    const type = s.a.type === 'i64' ? 'i64' : 'i32';
    const [a, b] = FLAG_OPERANDS[type];
    this.push(s.a);
    if (s.operation !== 'logical') this.push(s.b);
    if (s.operation !== 'logical') this.setLocal(b.local);
    this.setLocal(a.local);
    this.flags = flagState(s.operation, type);
    for (const offset of FLAG_WORDS) this.words.forget(offset);
  }

  protected override pushCondition(n: Extract<Val['node'], { k: 'condition' }>): void {
    if (this.flags === FlagState.WORDS) {
      super.pushCondition(n);
      return;
    }
    const { body, value } = conditionFrom(this.flags, n.cond);
    this.lower(body);
    this.push(value);
  }

  /** The function that makes the words in the state of what is there. */
  protected abstract flagsFunction(): number;

  /** Makes the words of NZCV, from wherever they wait. */
  protected makeWords(): void {
    if (this.flags === FlagState.VARYING) {
      for (const offset of FLAG_WORDS) this.words.read(offset);
      this.#makeWordsAsRemembered();
    } else if (this.flags !== FlagState.WORDS) this.lower(wordsFrom(this.flags));
    this.flags = FlagState.WORDS;
  }

  /** What a region begins with. To be called once they are planned, before anything else is lowered. */
  protected beginFlags(): void {
    if (this.flags === FlagState.WORDS) this.#makeFound();
    if (this.flagsAt[0] === FlagState.VARYING) this.rememberFlags();
  }

  /** Makes the words in the state, if they are not. */
  #makeFound(): void {
    this.i32Const(0);
    this.memoryOp(W.I32_LOAD, STATE + Offset.FLAGS_FROM);
    this.open(W.IF);
    this.call(this.flagsFunction());
    this.close();
  }

  #makeWordsAsRemembered(): void {
    for (const state of this.#flagStates) {
      this.#ifRemembered(state, () => {
        this.nesting++;
        this.lower(wordsFrom(state));
        this.nesting--;
      });
    }
  }

  #ifRemembered(state: number, then: () => void): void {
    this.getLocal(this.#flagsLocal);
    this.i32Const(state);
    this.code.u8(W.I32_EQ);
    this.open(W.IF);
    then();
    this.close();
  }

  /** Leaves NZCV in the state, made or not, for code that finds them there. Words in locals have been stored. */
  protected storeFlags(): void {
    if (this.flags === FlagState.VARYING) this.storeFlagsAsRemembered();
    else if (this.flags !== FlagState.FOUND) {
      this.#storeOperands(this.flags);
      this.#storeFlagsFrom(() => this.i32Const(this.flags));
    }
  }

  /** Makes them in the state, for somebody else than a region. */
  protected makeFlagsInState(): void {
    this.storeFlags();
    if (this.flags !== FlagState.WORDS) this.#makeFound();
  }

  /** The same as {@link storeFlags}, where a local says what they are. */
  protected storeFlagsAsRemembered(): void {
    if (this.#onlyFound) return;
    this.getLocal(this.#flagsLocal);
    this.i32Const(FlagState.FOUND);
    this.code.u8(W.I32_NE);
    this.open(W.IF);
    for (const state of this.#flagStates) this.#ifRemembered(state, () => this.#storeOperands(state));
    this.#storeFlagsFrom(() => this.getLocal(this.#flagsLocal));
    this.close();
  }

  #storeOperands(state: number): void {
    if (state === FlagState.WORDS) return;
    const [type, store] = isI64(state) ? (['i64', W.I64_STORE] as const) : (['i32', W.I32_STORE] as const);
    // The flags of a logical operation follow from its result alone.
    const count = operationOf(state) === 'logical' ? 1 : 2;
    FLAG_OPERANDS[type].slice(0, count).forEach(({ local }, n) => {
      this.i32Const(0);
      this.getLocal(local);
      this.memoryOp(store, STATE + FLAG_OPERAND_WORDS[n]!);
    });
  }

  #storeFlagsFrom(push: () => void): void {
    this.i32Const(0);
    push();
    this.memoryOp(W.I32_STORE, STATE + Offset.FLAGS_FROM);
  }

  /** Says in the local where NZCV are. */
  protected rememberFlags(): void {
    if (this.flags === FlagState.VARYING || this.#onlyFound) return;
    this.i32Const(this.flags);
    this.setLocal(this.#flagsLocal);
  }
}
