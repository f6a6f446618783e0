import type { Helper, Val, VOperand, XOperand } from '../a64/emitter.js';
import { ExitCode, Offset, STATE } from '../cpu/layout.js';
import { findRegion, JUMP_TABLE } from './fetch-table.js';
import type { SpanAccess } from './guest-access.js';
import type { Instruction } from './instruction.js';
import { FlagState, wantsWords } from './lazy-flags.js';
import { MACHINE_HELPERS } from './linkage.js';
import { type MemoryFunctions, W } from './lower.js';
import { RareExits } from './rare-exits.js';
import { type Block, PAGE_INSTRUCTIONS, type Region } from './region.js';
import { type BlockEdge, type Edge, graphOf, type RegionGraph } from './region-graph.js';
import { planSpans, type SpanPlan } from './span-plan.js';
import { StateLowering } from './state-lowering.js';
import type { FunctionBody } from './wasm-module.js';
import type { WasmType } from './wasm-opcodes.js';
import { type Places, planPlaces } from './word-plan.js';
import { blockWords, namedWord, WORDS } from './word-use.js';

/** Parameters of a region's function: the virtual address of the entry. */
export const REGION_PARAMS = ['i64'] as const satisfies readonly WasmType[];
/** Its result: PSTATE.BTYPE times 4 for the instruction at PC, or this where EXIT is set. */
export const REGION_RESULTS = ['i32'] as const satisfies readonly WasmType[];
export const REGION_LEFT = 4 << 2;

/** The functions that regions call. */
export interface RegionFunctions {
  readonly memory: MemoryFunctions;
  readonly helper: (helper: Helper) => number;
  /** Index of the one that makes NZCV in the state, see flagsFunction. */
  readonly flags: number;
}

/** Local of the virtual address of the page that the code is in, once the prologue has made it of the parameter. */
const PAGE_VA = 0;

/**
 * Compiles a region to a function `(pc: i64)`. Registers and flags are locals inside; at every way out they go back to
 * the state with PC and the budget, so that the state is exact wherever anybody else can see it.
 */
export class RegionLowering extends StateLowering {
  readonly #functions: RegionFunctions;
  /** Where words are at the start of blocks. */
  #placesAt: readonly Places[] = [];
  readonly #linkType: number | undefined;
  readonly #budget: number;
  readonly #pc: number;
  /** Local of PSTATE.BTYPE times 4, where the region has a branch that leaves another than 0. */
  readonly #btype: number;
  #hasBtype = false;
  #graph!: RegionGraph;
  /** Position of the block that a dispatcher is to go to. */
  readonly #wanted: number;
  /** Depth of the label to branch to, by node. */
  readonly #labels = new Map<number, number>();
  /** Labels of those who leave: with EXIT set; for the local PC; the same by a branch; with EXIT set and flags that a local tells of. */
  #left = 0;
  #gone = 0;
  #branched = 0;
  #flagsRemembered = 0;
  #rareExits!: RareExits;
  #block!: Block;
  /** Where the block leads. */
  #edges: readonly Edge[] = [];
  #node = 0;
  /** Position in the page of the instruction that is being lowered, and how many of its block come before it. */
  #position = 0;
  #before = 0;
  #instruction!: Instruction;
  #devices!: ReadonlySet<number>;
  #spans!: SpanPlan;
  #spanLocals: readonly number[] = [];
  /** Accesses to memory that the instruction has had, outside branches of its program. */
  #accesses = 0;
  /** SP was found to be aligned, or moved by a multiple of 16 since. */
  #spAligned = false;

  /** @param linkType function type of regions, where the module can call others through the table */
  constructor(body: FunctionBody, functions: RegionFunctions, linkType: number | undefined) {
    super(body);
    this.#linkType = linkType;
    this.#functions = functions;
    this.#budget = body.addLocal('i32');
    this.#pc = body.addLocal('i64');
    this.#btype = body.addLocal('i32');
    this.#wanted = body.addLocal('i32');
  }

  compile(region: Region): void {
    this.#graph = graphOf(region);
    this.#devices = region.devices;
    const { blocks, successors } = this.#graph;
    this.planFlags(
      blocks.map((b) => b?.instructions.map((i) => i.meaning.flags) ?? []),
      successors,
    );
    this.#planWords();
    this.#spans = planSpans(this.#graph, region.devices);
    this.#spanLocals = Array.from({ length: this.#spans.locals }, () => this.body.addLocal('i32'));
    this.#prologue();
    this.#left = this.open(W.BLOCK);
    this.#gone = this.open(W.BLOCK);
    this.#branched = this.open(W.BLOCK);
    this.#flagsRemembered = this.open(W.BLOCK);
    for (const exit of this.#rareExits.list) exit.label = this.open(W.BLOCK);
    this.beginFlags();
    this.words.become(this.#placesAt[0]!);
    this.#tree(0);
    this.code.u8(0x00); // unreachable: every path branches
    for (const exit of this.#rareExits.list.toReversed()) {
      this.close();
      for (const word of exit.stores) this.words.storeWord(word);
      this.#branchTo(exit.next?.label ?? this.#flagsRemembered);
    }
    this.close();
    this.storeFlagsAsRemembered();
    this.#branchTo(this.#left);
    this.close();
    this.#leaveIfSpent();
    this.close();
    this.#goOn();
    this.close();
    this.#storePc();
    this.#storeBudget();
    this.i32Const(REGION_LEFT);
  }

  // Control flow.

  /** Plans where words are at the start of each block. */
  #planWords(): void {
    const { blocks, flow } = this.#graph;
    const words = blocks.map((b, node) => blockWords(b?.instructions ?? [], this.flagsAt[node]!));
    this.#placesAt = planPlaces(flow, words, WORDS);
    this.#rareExits = new RareExits(this.#placesAt);
  }

  protected override nextSpan(): SpanAccess | undefined {
    if (this.nesting > 0) return undefined;
    const place = this.#spans.of(this.#position, this.#accesses++);
    if (place === undefined) return undefined;
    const { span, offset, isFirst } = place;
    return { local: this.#spanLocals[span.local]!, bytes: span.bytes, offset, isFirst };
  }

  #branchTo(label: number): void {
    this.code.u8(W.BR);
    this.code.u32(this.depth - label);
  }

  /** A node and all that it dominates. */
  #tree(node: number): void {
    const { isLoop, merges } = this.#graph.flow;
    if (isLoop[node] === true) {
      this.#labels.set(node, this.open(W.LOOP));
      this.#within(node, merges[node]!);
      this.close();
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
    this.#labels.set(last, this.open(W.BLOCK));
    this.#within(node, rest);
    this.close();
    if (outer === undefined) this.#labels.delete(last);
    else this.#labels.set(last, outer);
    this.#tree(last);
  }

  /** Follows an edge. @param taken by a branch: the place where the budget is looked at, as in the interpreter */
  #follow(e: Edge, taken: boolean): void {
    if (e.kind === 'exit') {
      this.#pushAddress(e.position);
      this.setLocal(this.#pc);
      this.#exit(taken || e.position === PAGE_INSTRUCTIONS);
      return;
    }
    if (taken) {
      this.getLocal(this.#budget);
      this.i32Const(0);
      this.code.u8(W.I32_LT_S);
      this.body.expect(false);
      this.open(W.IF);
      this.#setExit(ExitCode.BUDGET);
      this.#exitRarely(e.position);
      this.close();
    }
    if (e.isDispatched) {
      this.i32Const(e.position);
      this.setLocal(this.#wanted);
    }
    this.#goTo(e.node);
  }

  #goTo(node: number): void {
    if (this.flagsAt[node] === FlagState.VARYING) this.rememberFlags();
    this.words.become(this.#placesAt[node]!);
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
    this.getLocal(this.#wanted);
    this.i32Const(position);
    this.code.u8(comparison);
    this.#if(then);
  }

  /** Code for where what is on the stack is not 0, which goes elsewhere: behind it, all is as before. */
  #if(then: () => void): void {
    const node = this.#node;
    const flags = this.flags;
    const { places } = this.words;
    this.open(W.IF);
    then();
    this.close();
    this.#node = node;
    this.flags = flags;
    this.words.places = places;
  }

  /** Leaves for the local PC. @param branched by a branch or the page's end, where the interpreter looks at the budget */
  #exit(branched: boolean): void {
    this.words.store();
    this.storeFlags();
    this.#branchTo(branched ? this.#branched : this.#gone);
  }

  /** Leaves for a position in the page, on a way that is seldom taken: it shares code with others. */
  #exitRarely(position: number): void {
    this.#pushAddress(position);
    this.setLocal(this.#pc);
    this.rememberFlags();
    const shared = this.#rareExits.of(this.#graph.flow.order[this.#node]!);
    this.words.store(shared?.words);
    this.#branchTo(shared?.label ?? this.#flagsRemembered);
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
    this.flags = this.flagsAt[node]!;
    this.words.places = this.#placesAt[node]!;
    if (block !== undefined) this.#lowerBlock(block, this.#graph.edges[node]!);
    else this.#lowerDispatcher(node);
  }

  #lowerDispatcher(node: number): void {
    const edges = this.#graph.edges[node]!.flatMap((e) => (e.kind === 'block' ? e : []));
    edges.sort((a, b) => a.position - b.position);
    const isEntry = node === 0;
    this.#choose(edges, isEntry);
    // A return to another place in the page.
    if (isEntry) this.#exit(false);
  }

  #lowerBlock(block: Block, edges: readonly Edge[]): void {
    this.#block = block;
    this.#edges = edges;
    this.#spAligned = false;
    block.instructions.forEach((i, n) => {
      this.#position = block.index + n;
      this.#before = n;
      this.#accesses = 0;
      this.#instruction = i;
      const program = this.#spAligned ? i.meaning.spAligned : i.meaning.program;
      this.#spAligned ||= i.isSpBased;
      const { reads, leaves } = i.meaning.flags;
      if (wantsWords(this.flags, reads)) this.makeWords();
      for (const name of i.meaning.words.writesPerhaps) this.keep(namedWord(i, name, 'writes'));
      this.lower(program);
      if (leaves !== undefined) this.flags = leaves;
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
    cond();
    // What follows is other blocks' code, which may use this instruction's locals again.
    this.releaseLocals();
    this.#if(() => this.#follow(edges[0]!, true));
    this.#follow(edges[1]!, false);
  }

  protected override jumpTo(target: () => void, btype: (() => void) | undefined): void {
    this.#spend(this.#block.instructions.length);
    target();
    this.setLocal(this.#pc);
    if (this.#block.end.kind === 'return' && this.#graph.hasDispatcher) this.#returnWithin();
    if (btype !== undefined) {
      btype();
      this.setLocal(this.#btype);
      this.#hasBtype = true;
    }
    this.#exit(true);
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
    this.#if(() => {
      this.getLocal(this.#pc);
      this.#setWanted();
      this.#goTo(0);
    });
  }

  /** Has the dispatcher at the entry go to the address on the stack, which is in the page. */
  #setWanted(): void {
    this.code.u8(W.I32_WRAP);
    this.i32Const(0xffc);
    this.code.u8(W.I32_AND);
    this.i32Const(2);
    this.code.u8(W.I32_SHR_U);
    this.setLocal(this.#wanted);
  }

  protected override leave(): void {
    this.#spend(this.#before);
    this.#exitRarely(this.#position);
  }

  #prologue(): void {
    if (this.#graph.hasDispatcher) {
      this.getLocal(PAGE_VA);
      this.#setWanted();
    }
    this.getLocal(PAGE_VA);
    this.constant('i64', -4096n);
    this.code.u8(W.I64_AND);
    this.setLocal(PAGE_VA);
    this.i32Const(0);
    this.memoryOp(W.I32_LOAD, STATE + Offset.BUDGET);
    this.setLocal(this.#budget);
  }

  /** Leaves with EXIT set if the budget is spent. */
  #leaveIfSpent(): void {
    this.getLocal(this.#budget);
    this.i32Const(0);
    this.code.u8(W.I32_LT_S);
    this.body.expect(false);
    this.open(W.IF);
    if (this.#hasBtype) {
      this.i32Const(0);
      this.getLocal(this.#btype);
      this.memoryOp(W.I32_STORE, STATE + Offset.BTYPE);
    }
    this.#setExit(ExitCode.BUDGET);
    this.#branchTo(this.#left);
    this.close();
  }

  /** Goes on at the local PC, in another region or by the interpreter. */
  #goOn(): void {
    this.#storeBudget();
    if (this.#linkType !== undefined) this.#link(this.#linkType);
    this.#storePc();
    this.#pushBtype();
    this.code.u8(W.RETURN);
  }

  /** PSTATE.BTYPE times 4. */
  #pushBtype(): void {
    if (this.#hasBtype) this.getLocal(this.#btype);
    else this.i32Const(0);
  }

  #storePc(): void {
    this.i32Const(0);
    this.getLocal(this.#pc);
    this.memoryOp(W.I64_STORE, STATE + Offset.PC);
  }
  #storeBudget(): void {
    this.i32Const(0);
    this.getLocal(this.#budget);
    this.memoryOp(W.I32_STORE, STATE + Offset.BUDGET);
  }

  /**
   * Goes on in the region that starts at PC, if it has been met since translations changed: looks it up as the interpreter does,
   * which is where the function returns to otherwise.
   */
  #link(type: number): void {
    const c = this.code;
    const jump = this.local('i32');
    const found = this.local('i64');
    this.#pushBtype();
    this.memoryOp(W.I32_LOAD, STATE + Offset.TLB_FETCH);
    findRegion(c, this.#pc, jump, found);
    this.body.expect(true);
    c.u8(W.IF);
    c.u8(W.VOID);
    this.getLocal(found);
    this.getLocal(jump);
    this.memoryOp(W.I32_LOAD, JUMP_TABLE + 8);
    c.u8(W.RETURN_CALL_INDIRECT);
    c.u32(type);
    c.u8(0);
    c.u8(W.END);
    this.releaseLocals();
  }

  // Operands: everything that the interpreter reads from a record is a constant here.

  protected override fieldOffset(field: string): number | undefined {
    return this.#instruction.reads[field];
  }
  protected override callHelper(helper: Helper): void {
    if (!MACHINE_HELPERS.has(helper.name)) {
      super.callHelper(helper);
      return;
    }
    // It may ask what time it is, which on the virtual clock is the budget's business, and may end the budget.
    this.#storeBudgetBefore();
    super.callHelper(helper);
    this.#loadBudget();
  }

  /** Makes the budget in the state exact: without the instructions before this one. */
  #storeBudgetBefore(): void {
    this.i32Const(0);
    this.getLocal(this.#budget);
    this.i32Const(this.#before);
    this.code.u8(W.I32_SUB);
    this.memoryOp(W.I32_STORE, STATE + Offset.BUDGET);
  }
  #loadBudget(): void {
    this.i32Const(0);
    this.memoryOp(W.I32_LOAD, STATE + Offset.BUDGET);
    this.i32Const(this.#before);
    this.code.u8(W.I32_ADD);
    this.setLocal(this.#budget);
  }

  /** What a device has answered before is put to it with the state where everybody looks for it, so that the region need not be left. */
  protected override callMiss(kind: 'load' | 'store', bytes: number, unprivileged: boolean): void {
    if (unprivileged || !this.#devices.has(this.#position)) {
      super.callMiss(kind, bytes, unprivileged);
      return;
    }
    this.#makeStateExact();
    this.i32Const(0);
    this.i32Const(this.#instruction.word);
    this.memoryOp(W.I32_STORE, STATE + Offset.DETAIL);
    this.call(this.#functions.memory.device(kind, bytes));
    this.#loadBudget();
    this.words.reload();
  }

  /** Writes to the state what others look for there, for code that goes on here: where words and flags are stays as it was. */
  #makeStateExact(): void {
    const { places } = this.words;
    this.words.store();
    this.makeFlagsInState();
    this.words.places = places;
    this.i32Const(0);
    this.pushPc();
    this.memoryOp(W.I64_STORE, STATE + Offset.PC);
    this.#storeBudgetBefore();
  }

  protected override helperIndex(helper: Helper): number {
    return this.#functions.helper(helper);
  }
  protected override memoryFunctions(): MemoryFunctions {
    return this.#functions.memory;
  }
  protected override flagsFunction(): number {
    return this.#functions.flags;
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
    this.pushState('i64', 8, offset);
    if (!wide) this.code.u8(W.I32_WRAP);
  }
  protected override storeX(reg: XOperand, value: () => void): void {
    const offset = this.#instruction.writes[reg.field]!;
    value();
    if (offset === Offset.SP && !this.#instruction.movesSpBy16) this.#spAligned = false;
    if (offset === Offset.DISCARD)
      this.code.u8(0x1a); // drop
    else this.setLocal(this.words.write(offset));
  }
  protected override pushVBase(reg: VOperand): void {
    this.i32Const(this.#instruction.reads[reg.field]!);
  }
  protected override pushStateAtBase(field: string): void {
    this.i32Const(this.#instruction.reads[field]!);
  }
}
