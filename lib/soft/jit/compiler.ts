import type { Helper, Stmt, Val, VOperand, XOperand } from '../a64/emitter.js';
import { ExitCode, Offset, STATE } from '../cpu/layout.js';
import { findRegion, JUMP_TABLE } from './fetch-table.js';
import type { Instruction } from './instruction.js';
import { conditionFrom, FLAG_OPERANDS, FlagState, flagState, flagsAtEntry, wordsFrom } from './lazy-flags.js';
import { MACHINE_HELPERS } from './linkage.js';
import { Lowering, type MemoryFunctions, W } from './lower.js';
import { type Block, PAGE_INSTRUCTIONS, type Region } from './region.js';
import { type BlockEdge, type Edge, graphOf, type RegionGraph } from './region-graph.js';
import type { FunctionBody } from './wasm-module.js';
import type { WasmType } from './wasm-opcodes.js';

/** Parameters of a region's function: the virtual address of the entry. */
export const REGION_PARAMS = ['i64'] as const satisfies readonly WasmType[];
/** Its result: PSTATE.BTYPE times 4 for the instruction at PC, or this where EXIT is set. */
export const REGION_RESULTS = ['i32'] as const satisfies readonly WasmType[];
export const REGION_LEFT = 4 << 2;
/** Local of the virtual address of the page that the code is in, once the prologue has made it of the parameter. */
const PAGE_VA = 0;

/**
 * Compiles a region to a function `(pc: i64)`. Registers and flags are locals inside; at every way out they go back to
 * the state with PC and the budget, so that the state is exact wherever anybody else can see it.
 */
export class RegionLowering extends Lowering {
  readonly #memory: MemoryFunctions;
  readonly #helper: (helper: Helper) => number;
  /** Locals of state words, by offset. */
  readonly #words = new Map<number, { readonly local: number; readonly type: 'i32' | 'i64'; written: boolean }>();
  readonly #linkType: number | undefined;
  readonly #budget: number;
  readonly #pc: number;
  readonly #result: number;
  #graph!: RegionGraph;
  /** Position of the block that a dispatcher is to go to. */
  readonly #wanted: number;
  /** Depth of the label to branch to, by node. */
  readonly #labels = new Map<number, number>();
  #block!: Block;
  /** Where the block leads. */
  #edges: readonly Edge[] = [];
  #node = 0;
  /** Position in the page of the instruction that is being lowered, and how many of its block come before it. */
  #position = 0;
  #before = 0;
  #instruction!: Instruction;
  /** Where NZCV are now, and at the start of blocks; states that they wait in anywhere; and the local that says where they vary. */
  #flags: number = FlagState.WORDS;
  #flagsAt: readonly number[] = [];
  #flagStates: readonly number[] = [];
  readonly #flagsLocal: number;
  /** SP was found to be aligned, or moved by a multiple of 16 since. */
  #spAligned = false;

  /** @param linkType function type of regions, where the module can call others through the table */
  constructor(
    body: FunctionBody,
    memory: MemoryFunctions,
    helper: (helper: Helper) => number,
    linkType: number | undefined,
  ) {
    super(body);
    this.#linkType = linkType;
    this.#memory = memory;
    this.#helper = helper;
    this.#budget = body.addLocal('i32');
    this.#pc = body.addLocal('i64');
    this.#result = body.addLocal('i32');
    this.#flagsLocal = body.addLocal('i32');
    this.#wanted = body.addLocal('i32');
  }

  compile(region: Region): void {
    this.#graph = graphOf(region);
    this.#planFlags();
    this.#open(W.BLOCK);
    this.#tree(0);
    this.code.u8(0x00); // unreachable: every path branches
    this.#close();
    this.#epilogue();
    this.#prologue();
  }

  // Control flow.

  /** Finds where NZCV are at the start of each block. */
  #planFlags(): void {
    const { blocks, successors } = this.#graph;
    const effects = blocks.map((b) => b?.instructions.map((i) => i.meaning.flags) ?? []);
    this.#flagsAt = flagsAtEntry(effects, successors);
    const left = new Set(effects.flat().map((effect) => effect.leaves ?? FlagState.WORDS));
    left.delete(FlagState.WORDS);
    this.#flagStates = [...left];
    if (left.size === 0) return;
    for (const variable of [...FLAG_OPERANDS.i32, ...FLAG_OPERANDS.i64])
      variable.local = this.body.addLocal(variable.type);
  }

  #open(kind: number): number {
    this.code.u8(kind);
    this.code.u8(W.VOID);
    return ++this.depth;
  }
  #close(): void {
    this.code.u8(W.END);
    this.depth--;
  }
  #branchTo(label: number): void {
    this.code.u8(W.BR);
    this.code.u32(this.depth - label);
  }

  /** A node and all that it dominates. */
  #tree(node: number): void {
    const { isLoop, merges } = this.#graph.flow;
    if (isLoop[node] === true) {
      this.#labels.set(node, this.#open(W.LOOP));
      this.#within(node, merges[node]!);
      this.#close();
    } else this.#within(node, merges[node]!);
  }

  /** Merge points stand behind the blocks that jump forward to them. */
  #within(node: number, merges: readonly number[]): void {
    const [last, ...rest] = merges;
    if (last === undefined) {
      this.#lowerNode(node);
      return;
    }
    const outer = this.#labels.get(last);
    this.#labels.set(last, this.#open(W.BLOCK));
    this.#within(node, rest);
    this.#close();
    if (outer === undefined) this.#labels.delete(last);
    else this.#labels.set(last, outer);
    this.#tree(last);
  }

  /** Follows an edge. @param taken by a branch: the place where the budget is looked at, as in the interpreter */
  #follow(e: Edge, taken: boolean): void {
    if (e.kind === 'exit') {
      if (taken || e.position === PAGE_INSTRUCTIONS) this.#checkBudget();
      if (this.#flags !== FlagState.VARYING) this.#makeWords();
      this.#exitTo(e.position);
      return;
    }
    if (taken) {
      this.getLocal(this.#budget);
      this.i32Const(0);
      this.code.u8(W.I32_LT_S);
      this.body.expect(false);
      this.#open(W.IF);
      this.#setExit(ExitCode.BUDGET);
      this.#exitTo(e.position);
      this.#close();
    }
    if (e.isDispatched) {
      this.i32Const(e.position);
      this.setLocal(this.#wanted);
    }
    this.#goTo(e.node);
  }

  #goTo(node: number): void {
    if (this.#flagsAt[node] === FlagState.VARYING) this.#rememberFlags();
    const { numberOf, isMerge } = this.#graph.flow;
    const number = numberOf[node]!;
    if (number <= this.#node || isMerge[number] === true) this.#branchTo(this.#labels.get(number)!);
    else this.#tree(number);
  }

  /**
   * Goes on to the block that is wanted.
   * @param edges to the blocks that it may be, in the order of their positions
   * @param checked it may be another, and then control comes out behind
   */
  #choose(edges: readonly BlockEdge[], checked: boolean): void {
    const half = edges.length >> 1;
    const { position, node } = edges[half]!;
    if (half > 0) {
      this.#ifWanted(W.I32_LT_U, position, () => this.#choose(edges.slice(0, half), checked));
      this.#choose(edges.slice(half), checked);
    } else if (checked) this.#ifWanted(W.I32_EQ, position, () => this.#goTo(node));
    else this.#goTo(node);
  }

  #ifWanted(comparison: number, position: number, then: () => void): void {
    const node = this.#node;
    const flags = this.#flags;
    this.getLocal(this.#wanted);
    this.i32Const(position);
    this.code.u8(comparison);
    this.#open(W.IF);
    then();
    this.#close();
    this.#node = node;
    this.#flags = flags;
  }

  /**
   * On the way out by a branch or the page's end, where the interpreter looks at the budget too.
   * @param btype pushes PSTATE.BTYPE times 4, where it is not 0
   */
  #checkBudget(btype?: () => void): void {
    this.getLocal(this.#budget);
    this.i32Const(0);
    this.code.u8(W.I32_LT_S);
    this.body.expect(false);
    this.#open(W.IF);
    if (btype !== undefined) {
      this.i32Const(0);
      btype();
      this.memoryOp(W.I32_STORE, STATE + Offset.BTYPE);
    }
    this.#setExit(ExitCode.BUDGET);
    this.#close();
  }

  /** Leaves for a position in (or beyond) the page. */
  #exitTo(position: number): void {
    this.#rememberFlags();
    this.#pushAddress(position);
    this.setLocal(this.#pc);
    this.#branchTo(1);
  }

  #pushAddress(position: number): void {
    this.getLocal(PAGE_VA);
    this.code.u8(W.I64_CONST);
    this.code.s32(position * 4);
    this.code.u8(W.I64_ADD);
  }

  #setExit(code: number): void {
    this.i32Const(0);
    this.i32Const(code);
    this.memoryOp(W.I32_STORE, STATE + Offset.EXIT);
    this.#setResult(REGION_LEFT);
  }

  #setResult(result: number): void {
    this.i32Const(result);
    this.setLocal(this.#result);
  }

  #spend(instructions: number): void {
    if (instructions === 0) return;
    this.getLocal(this.#budget);
    this.i32Const(instructions);
    this.code.u8(W.I32_SUB);
    this.setLocal(this.#budget);
  }

  #lowerNode(number: number): void {
    const node = this.#graph.flow.order[number]!;
    const block = this.#graph.blocks[node];
    this.#node = number;
    this.#flags = this.#flagsAt[node]!;
    if (block !== undefined) this.#lowerBlock(block, this.#graph.edges[node]!);
    else this.#lowerDispatcher(node);
  }

  #lowerDispatcher(node: number): void {
    const edges = this.#graph.edges[node]!.flatMap((e) => (e.kind === 'block' ? e : []));
    edges.sort((a, b) => a.position - b.position);
    const isEntry = node === 0;
    this.#choose(edges, isEntry);
    // A return to another place in the page.
    if (isEntry) this.#exit();
  }

  #lowerBlock(block: Block, edges: readonly Edge[]): void {
    this.#block = block;
    this.#edges = edges;
    this.#spAligned = false;
    block.instructions.forEach((i, n) => {
      this.#position = block.index + n;
      this.#before = n;
      this.#instruction = i;
      const program = this.#spAligned ? i.meaning.spAligned : i.meaning.program;
      this.#spAligned ||= i.isSpBased;
      const { reads, leaves } = i.meaning.flags;
      if (reads === 'words') this.#makeWords();
      this.lower(program);
      if (leaves !== undefined) this.#flags = leaves;
      this.releaseLocals();
    });
    if (block.end.kind !== 'fall' && block.end.kind !== 'leave') return;
    this.#spend(block.instructions.length);
    this.#follow(edges[0]!, false);
  }

  protected override jump(cond: (() => void) | undefined, _offset: Val): void {
    const edges = this.#edges;
    this.#spend(this.#block.instructions.length);
    if (cond === undefined) {
      this.#follow(edges[0]!, true);
      return;
    }
    const node = this.#node;
    cond();
    const flags = this.#flags;
    // What follows is other blocks' code, which may use this instruction's locals again.
    this.releaseLocals();
    this.#open(W.IF);
    this.#follow(edges[0]!, true);
    this.#close();
    this.#node = node;
    this.#flags = flags;
    this.#follow(edges[1]!, false);
  }

  protected override jumpTo(target: () => void, btype: (() => void) | undefined): void {
    this.#spend(this.#block.instructions.length);
    target();
    this.setLocal(this.#pc);
    if (this.#block.end.kind === 'return' && this.#graph.hasDispatcher) this.#returnWithin();
    if (btype !== undefined) {
      btype();
      this.setLocal(this.#result);
    }
    this.#checkBudget(btype);
    this.#exit();
  }

  /** Goes to the dispatcher at the entry if the local PC is in the page, as long as the budget lasts. */
  #returnWithin(): void {
    this.getLocal(this.#pc);
    this.getLocal(PAGE_VA);
    this.code.u8(W.I64_SUB);
    this.code.u8(W.I64_CONST);
    this.code.s32(~0xffc);
    this.code.u8(W.I64_AND);
    this.code.u8(W.I64_EQZ);
    this.getLocal(this.#budget);
    this.i32Const(0);
    this.code.u8(W.I32_GE_S);
    this.code.u8(W.I32_AND);
    this.#open(W.IF);
    this.getLocal(this.#pc);
    this.#setWanted();
    this.#goTo(0);
    this.#close();
  }

  /** Has the dispatcher at the entry go to the address on the stack, which is in the page. */
  #setWanted(code = this.code): void {
    code.raw([W.I32_WRAP, W.I32_CONST]);
    code.s32(0xffc);
    code.raw([W.I32_AND, W.I32_CONST, 2, W.I32_SHR_U, W.LOCAL_SET]);
    code.u32(this.#wanted);
  }

  /** Leaves for the local PC. */
  #exit(): void {
    if (this.#flags !== FlagState.VARYING) this.#makeWords();
    this.#rememberFlags();
    this.#branchTo(1);
  }

  protected override leave(): void {
    this.#setResult(REGION_LEFT);
    this.#spend(this.#before);
    this.#exitTo(this.#position);
  }

  // Flags: in their words, or in the operands that they are to be made from.

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
    this.#flags = flagState(s.operation, type);
  }

  protected override pushCondition(n: Extract<Val['node'], { k: 'condition' }>): void {
    if (this.#flags === FlagState.VARYING) this.#makeWords();
    if (this.#flags === FlagState.WORDS) {
      super.pushCondition(n);
      return;
    }
    const { body, value } = conditionFrom(this.#flags, n.cond);
    this.lower(body);
    this.push(value);
  }

  /** Makes the words of NZCV, from wherever they wait. */
  #makeWords(): void {
    if (this.#flags === FlagState.VARYING) this.#makeWordsAsRemembered();
    else if (this.#flags !== FlagState.WORDS) this.lower(wordsFrom(this.#flags));
    this.#flags = FlagState.WORDS;
  }

  #makeWordsAsRemembered(): void {
    for (const state of this.#flagStates) {
      this.getLocal(this.#flagsLocal);
      this.i32Const(state);
      this.code.u8(0x46); // i32.eq
      this.#open(W.IF);
      this.lower(wordsFrom(state));
      this.#close();
    }
  }

  /** Says in the local where NZCV are. */
  #rememberFlags(): void {
    if (this.#flags === FlagState.VARYING || this.#flagStates.length === 0) return;
    this.i32Const(this.#flags);
    this.setLocal(this.#flagsLocal);
  }

  #prologue(): void {
    const c = this.body.prologue;
    const load = (type: 'i32' | 'i64', offset: number, local: number): void => {
      c.raw([W.I32_CONST, 0, type === 'i32' ? W.I32_LOAD : W.I64_LOAD, 0]);
      c.u32(STATE + offset);
      c.u8(W.LOCAL_SET);
      c.u32(local);
    };
    const getPc = (): void => c.raw([W.LOCAL_GET, PAGE_VA]);
    if (this.#graph.hasDispatcher) {
      getPc();
      this.#setWanted(c);
    }
    getPc();
    c.u8(W.I64_CONST);
    c.s32(-4096);
    c.raw([W.I64_AND, W.LOCAL_SET, PAGE_VA]);
    load('i32', Offset.BUDGET, this.#budget);
    for (const [offset, word] of this.#words) load(word.type, offset, word.local);
  }

  #epilogue(): void {
    const store = (type: 'i32' | 'i64', offset: number, local: number): void => {
      this.i32Const(0);
      this.getLocal(local);
      this.memoryOp(type === 'i32' ? W.I32_STORE : W.I64_STORE, STATE + offset);
    };
    if (this.#flagStates.length > 0) {
      this.getLocal(this.#flagsLocal);
      this.body.expect(false);
      this.#open(W.IF);
      this.#makeWordsAsRemembered();
      this.#close();
    }
    store('i32', Offset.BUDGET, this.#budget);
    store('i64', Offset.PC, this.#pc);
    for (const [offset, word] of this.#words) if (word.written) store(word.type, offset, word.local);
    if (this.#linkType !== undefined) this.#link(this.#linkType);
    this.getLocal(this.#result);
  }

  /**
   * Goes on in the region that starts at PC, if it has been met since translations changed: looks it up as the interpreter does,
   * which is where the function returns to otherwise.
   */
  #link(type: number): void {
    const c = this.code;
    const jump = this.local('i32');
    this.getLocal(this.#result);
    this.i32Const(REGION_LEFT);
    c.u8(0x47); // i32.ne
    c.u8(W.IF);
    c.u8(W.VOID);
    this.getLocal(this.#result);
    this.memoryOp(W.I32_LOAD, STATE + Offset.TLB_FETCH);
    findRegion(c, this.#pc, jump);
    c.u8(W.IF);
    c.u8(W.VOID);
    this.getLocal(this.#pc);
    this.getLocal(jump);
    this.memoryOp(W.I32_LOAD, JUMP_TABLE + 8);
    c.u8(W.RETURN_CALL_INDIRECT);
    c.u32(type);
    c.u8(0);
    c.u8(W.END);
    c.u8(W.END);
    this.releaseLocals();
  }

  // Operands: everything that the interpreter reads from a record is a constant here.

  protected override stateLocal(offset: number, write: boolean): number | undefined {
    const isRegister = offset < Offset.ZR || offset === Offset.SP;
    const isFlag = offset === Offset.N || offset === Offset.Z || offset === Offset.V || offset === Offset.C;
    if (!isRegister && !isFlag) return undefined;
    let word = this.#words.get(offset);
    if (word === undefined) {
      const type = offset === Offset.C ? 'i32' : 'i64';
      word = { local: this.body.addLocal(type), type, written: false };
      this.#words.set(offset, word);
    }
    if (write) word.written = true;
    return word.local;
  }
  protected override fieldOffset(field: string): number | undefined {
    return this.#instruction.reads[field];
  }
  protected override callHelper(helper: Helper): void {
    if (!MACHINE_HELPERS.has(helper.name)) {
      super.callHelper(helper);
      return;
    }
    // It may ask what time it is, which on the virtual clock is the budget's business, and may end the budget.
    this.i32Const(0);
    this.getLocal(this.#budget);
    this.i32Const(this.#before);
    this.code.u8(W.I32_SUB);
    this.memoryOp(W.I32_STORE, STATE + Offset.BUDGET);
    super.callHelper(helper);
    this.i32Const(0);
    this.memoryOp(W.I32_LOAD, STATE + Offset.BUDGET);
    this.i32Const(this.#before);
    this.code.u8(W.I32_ADD);
    this.setLocal(this.#budget);
  }
  protected override helperIndex(helper: Helper): number {
    return this.#helper(helper);
  }
  protected override memoryFunctions(): MemoryFunctions {
    return this.#memory;
  }
  protected override pushField(type: WasmType, field: string): void {
    const { imm, reads } = this.#instruction;
    if (field === 'imm' && imm !== undefined) this.constant(type, BigInt.asIntN(64, BigInt(imm)));
    else this.constant(type, reads[field]!);
  }
  protected override pushPc(): void {
    this.#pushAddress(this.#position);
  }
  protected override pushX(reg: XOperand, wide: boolean): void {
    const offset = this.#instruction.reads[reg.field]!;
    if (offset === Offset.ZR) {
      this.constant(wide ? 'i64' : 'i32', 0);
      return;
    }
    this.getLocal(this.stateLocal(offset, false)!);
    if (!wide) this.code.u8(W.I32_WRAP);
  }
  protected override storeX(reg: XOperand, value: () => void): void {
    const offset = this.#instruction.writes[reg.field]!;
    value();
    if (offset === Offset.SP && !this.#instruction.movesSpBy16) this.#spAligned = false;
    if (offset === Offset.DISCARD)
      this.code.u8(0x1a); // drop
    else this.setLocal(this.stateLocal(offset, true)!);
  }
  protected override pushVBase(reg: VOperand): void {
    this.i32Const(this.#instruction.reads[reg.field]!);
  }
  protected override pushStateAtBase(field: string): void {
    this.i32Const(this.#instruction.reads[field]!);
  }
}
