import type { Helper, Val } from '../a64/emitter.js';
import { ExitCode, Offset, STATE } from '../cpu/layout.js';
import { REGION_LEFT } from './compiler.js';
import { FETCH_MASK, findRegion, JUMP_TABLE, JUMPS_USED, PAGE_HAS_JUMPS } from './fetch-table.js';
import { type HandlerContext, HandlerLowering, RECORD_SHIFT, RECORD_SIZE, REGION } from './handler.js';
import { MACHINE_HELPERS } from './linkage.js';
import { W } from './lower.js';
import type { FunctionBody } from './wasm-module.js';

/** Counters of branches taken, by target: 16 bits each, because they stay in the host's caches the better the smaller they are. */
export const COUNTERS_SIZE = 65536 * 2;
const COUNTER_MASK = COUNTERS_SIZE - 2;
/** From a record to its counter. */
const COUNTER_SHIFT = RECORD_SHIFT - 1;

/** How branches are counted; without, nothing is compiled. */
export interface Counting {
  /** Address of the counters. */
  readonly counters: number;
  /** How many make a target worth compiling: at most 65,535. */
  readonly threshold: number;
  /** Function index. */
  readonly hot: number;
}

/** Labels around the loop that takes the next record, as distances from it: to fetch at the local PC, the same after a look at the budget, out. */
const FETCH = 1;
const BRANCHED = 2;
const LEAVE = 3;

/** Lowers handlers inside the interpreter's loop. */
export class LoopLowering extends HandlerLowering {
  /** Branch depth, from where the handler's own blocks begin, to the loop that takes the next record. */
  nextDepth = 0;
  near = false;
  readonly #start: number;
  readonly #pc: number;
  readonly #btype: number;
  readonly #counting: Counting | undefined;

  /** @param btype PSTATE.BTYPE times 4, on the way from an indirect branch to its target; 0 in every handler */
  constructor(
    body: FunctionBody,
    context: HandlerContext,
    start: number,
    pc: number,
    btype: number,
    counting: Counting | undefined,
  ) {
    super(body, context);
    this.#start = start;
    this.#pc = pc;
    this.#btype = btype;
    this.#counting = counting;
  }

  /** Takes PC and PSTATE.BTYPE from the state. */
  begin(): void {
    this.i32Const(0);
    this.memoryOp(W.I64_LOAD, STATE + Offset.PC);
    this.setLocal(this.#pc);
    this.i32Const(0);
    this.memoryOp(W.I32_LOAD, STATE + Offset.BTYPE);
    this.setLocal(this.#btype);
    for (const offset of [Offset.BTYPE, Offset.FETCHED]) {
      this.i32Const(0);
      this.i32Const(0);
      this.memoryOp(W.I32_STORE, STATE + offset);
    }
  }

  /** Counts a branch to the record in `rec`. */
  #countTarget(): void {
    const counting = this.#counting;
    if (counting === undefined) return;
    const c = this.code;
    const at = this.local('i32');
    const count = this.local('i32');
    this.getLocal(this.context.rec);
    this.i32Const(COUNTER_SHIFT);
    c.u8(W.I32_SHR_U);
    this.i32Const(COUNTER_MASK);
    c.u8(W.I32_AND);
    this.teeLocal(at);
    this.getLocal(at);
    this.memoryOp(W.I32_LOAD16_U, counting.counters);
    this.i32Const(1);
    c.u8(W.I32_ADD);
    this.teeLocal(count);
    this.memoryOp(W.I32_STORE16, counting.counters);
    this.getLocal(count);
    this.i32Const(counting.threshold);
    c.u8(0x46); // i32.eq
    this.body.expect(false);
    c.u8(W.IF);
    c.u8(W.VOID);
    this.getLocal(at);
    this.i32Const(0);
    this.memoryOp(W.I32_STORE16, counting.counters);
    this.getLocal(this.context.rec);
    this.call(counting.hot);
    c.u8(W.END);
  }

  protected override leave(): void {
    this.code.u8(W.BR);
    this.code.u32(this.nextDepth + LEAVE + this.depth);
  }

  protected override helperIndex(helper: Helper): number {
    // Called where the call is about to be written. What has been executed must be off the budget, as it is after a region.
    if (MACHINE_HELPERS.has(helper.name)) {
      this.#account(false);
      this.getLocal(this.context.rec);
      this.setLocal(this.#start);
    }
    return super.helperIndex(helper);
  }

  /** Takes the instructions before this one, or through it, off the budget. */
  #account(through: boolean): void {
    const c = this.code;
    this.i32Const(0);
    this.i32Const(0);
    this.memoryOp(W.I32_LOAD, STATE + Offset.BUDGET);
    this.getLocal(this.context.rec);
    this.getLocal(this.#start);
    c.u8(W.I32_SUB);
    this.i32Const(RECORD_SHIFT);
    c.u8(W.I32_SHR_U);
    c.u8(W.I32_SUB);
    if (through) {
      this.i32Const(1);
      c.u8(W.I32_SUB);
    }
    this.memoryOp(W.I32_STORE, STATE + Offset.BUDGET);
  }

  protected override jump(cond: (() => void) | undefined, _offset: Val): void {
    const c = this.code;
    const rec = this.context.rec;
    if (cond !== undefined) {
      cond();
      c.u8(W.IF);
      c.u8(W.VOID);
      this.depth++;
    }
    if (this.near) {
      this.#account(true);
      this.getLocal(rec);
      this.getLocal(rec);
      this.memoryOp(W.I32_LOAD, 8);
      c.u8(W.I32_ADD);
      this.teeLocal(rec);
      this.setLocal(this.#start);
      this.#countTarget();
      this.i32Const(0);
      this.memoryOp(W.I32_LOAD, STATE + Offset.BUDGET);
      this.i32Const(0);
      c.u8(W.I32_LT_S);
      this.body.expect(false);
      c.u8(W.IF);
      c.u8(W.VOID);
      this.depth++;
      this.setExit(ExitCode.BUDGET);
      this.leave();
      c.u8(W.END);
      this.depth--;
      c.u8(W.BR);
      c.u32(this.nextDepth + this.depth);
    } else {
      this.pushPc();
      this.getLocal(rec);
      this.memoryOp(W.I64_LOAD, 8);
      c.u8(W.I64_ADD);
      this.setLocal(this.#pc);
      this.#account(true);
      c.u8(W.BR);
      c.u32(this.nextDepth + BRANCHED + this.depth);
    }
    if (cond !== undefined) {
      c.u8(W.END);
      this.depth--;
    }
  }

  protected override jumpTo(target: () => void, btype: (() => void) | undefined): void {
    target();
    this.setLocal(this.#pc);
    if (btype !== undefined) {
      btype();
      this.setLocal(this.#btype);
    }
    this.#account(true);
    this.code.u8(W.BR);
    this.code.u32(this.nextDepth + BRANCHED + this.depth);
  }

  /** The end of a page's records: execution goes on in the next page. */
  pageEnd(): void {
    this.pushPc();
    this.setLocal(this.#pc);
    this.#account(false);
    this.code.u8(W.BR);
    this.code.u32(this.nextDepth + BRANCHED);
  }

  undefinedInstruction(): void {
    this.setExit(ExitCode.UNDEFINED);
    this.leave();
  }

  decode(decodeMiss: number): void {
    this.getLocal(this.context.rec);
    this.call(decodeMiss);
    this.code.u8(W.BR);
    this.code.u32(this.nextDepth);
  }

  /** Goes on with the next record. */
  next(): void {
    this.getLocal(this.context.rec);
    this.i32Const(RECORD_SIZE);
    this.code.u8(W.I32_ADD);
    this.setLocal(this.context.rec);
    this.code.u8(W.BR);
    this.code.u32(this.nextDepth);
  }

  outOfLine(type: number, op: number): void {
    const c = this.code;
    this.getLocal(this.context.rec);
    this.getLocal(this.context.pcBase);
    this.getLocal(op);
    c.u8(W.CALL_INDIRECT);
    c.u32(type);
    c.u8(0);
    c.u8(W.BR_IF);
    c.u32(this.nextDepth + LEAVE);
    this.next();
  }

  setExit(code: number): void {
    this.i32Const(0);
    this.i32Const(code);
    this.memoryOp(W.I32_STORE, STATE + Offset.EXIT);
  }

  /** Ends the run at the local PC if the budget is spent. */
  checkBudget(): void {
    const c = this.code;
    this.i32Const(0);
    this.memoryOp(W.I32_LOAD, STATE + Offset.BUDGET);
    this.i32Const(0);
    c.u8(W.I32_LT_S);
    this.body.expect(false);
    c.u8(W.IF);
    c.u8(W.VOID);
    this.#storePc();
    this.setExit(ExitCode.BUDGET);
    c.u8(W.RETURN);
    c.u8(W.END);
  }

  /**
   * From the local PC to a record, through the fetch table. Where a region starts there, it runs at once and the next fetch
   * follows: the way from one region to another does not lead through the records. To stand at the head of the FETCH loop.
   * @param regionType function type of regions
   * @param flags the function that makes NZCV of what a region has left: the next region can do without
   */
  fetch(fetchMiss: number, regionType: number, flags: number): void {
    const c = this.code;
    const { rec, pcBase } = this.context;
    const entry = this.local('i32');
    const jump = this.local('i32');
    const table = this.local('i32');
    this.getLocal(this.#btype);
    this.memoryOp(W.I32_LOAD, STATE + Offset.TLB_FETCH);
    this.teeLocal(table);
    findRegion(c, this.#pc, jump);
    this.body.expect(true);
    c.u8(W.IF);
    c.u8(W.VOID);
    this.#runRegion(regionType, flags, () => {
      this.getLocal(jump);
      this.memoryOp(W.I32_LOAD, JUMP_TABLE + 8);
    });
    c.u8(W.BR);
    c.u32(1);
    c.u8(W.END);
    this.#makeFlags(flags);
    this.getLocal(table);
    this.getLocal(this.#pc);
    c.u8(W.I32_WRAP);
    this.i32Const(8);
    c.u8(W.I32_SHR_U);
    this.i32Const(FETCH_MASK);
    c.u8(W.I32_AND);
    c.u8(W.I32_ADD);
    this.teeLocal(entry);
    this.memoryOp(W.I64_LOAD, 0);
    // The low two bits stay in: a misaligned PC never matches.
    this.getLocal(this.#pc);
    c.u8(W.I64_CONST);
    c.s32(~0xffc);
    c.u8(W.I64_AND);
    c.u8(W.I64_EQ);
    this.body.expect(true);
    c.u8(W.IF);
    c.u8(W.VOID);
    this.getLocal(entry);
    this.memoryOp(W.I32_LOAD, 8);
    this.setLocal(rec);
    c.u8(W.ELSE);
    this.#storePc();
    this.call(fetchMiss);
    this.teeLocal(rec);
    c.u8(W.I32_EQZ);
    c.u8(W.IF);
    c.u8(W.VOID);
    c.u8(W.RETURN);
    c.u8(W.END);
    c.u8(W.END);
    this.getLocal(rec);
    this.getLocal(this.#pc);
    c.u8(W.I32_WRAP);
    this.i32Const(0xffc);
    c.u8(W.I32_AND);
    this.i32Const(2);
    c.u8(W.I32_SHL);
    c.u8(W.I32_ADD);
    this.teeLocal(rec);
    this.memoryOp(W.I32_LOAD16_U, 0);
    this.i32Const(REGION);
    c.u8(0x46); // i32.eq
    c.u8(W.IF);
    c.u8(W.VOID);
    this.getLocal(jump);
    this.getLocal(this.#pc);
    this.memoryOp(W.I64_STORE, JUMP_TABLE);
    this.getLocal(jump);
    this.getLocal(rec);
    this.memoryOp(W.I32_LOAD, 8);
    this.memoryOp(W.I32_STORE, JUMP_TABLE + 8);
    this.getLocal(entry);
    this.i32Const(1);
    this.memoryOp(W.I32_STORE, PAGE_HAS_JUMPS);
    this.getLocal(table);
    this.i32Const(1);
    this.memoryOp(W.I32_STORE, JUMPS_USED);
    c.u8(W.BR);
    c.u32(1);
    c.u8(W.END);
    // PC less a quarter of the record's address, which is the same in the whole page.
    this.getLocal(this.#pc);
    this.getLocal(rec);
    this.i32Const(2);
    c.u8(W.I32_SHR_U);
    c.u8(W.I64_EXTEND_U);
    c.u8(0x7d); // i64.sub
    this.setLocal(pcBase);
    this.getLocal(rec);
    this.setLocal(this.#start);
    this.i32Const(0);
    this.getLocal(rec);
    this.getLocal(this.#btype);
    c.u8(W.I32_ADD);
    this.memoryOp(W.I32_STORE, STATE + Offset.FETCHED);
    this.i32Const(0);
    this.setLocal(this.#btype);
    this.#countTarget();
  }

  /** Runs the compiled region that starts here, and goes on from the PC that it leaves. */
  region(type: number, flags: number): void {
    this.#account(false);
    this.pushPc();
    this.setLocal(this.#pc);
    this.#runRegion(type, flags, () => {
      this.getLocal(this.context.rec);
      this.memoryOp(W.I32_LOAD, 8);
    });
    // The region has looked at the budget where it left by a branch.
    this.code.u8(W.BR);
    this.code.u32(this.nextDepth + FETCH);
  }

  /** Runs a region, which starts at the local PC; afterwards that is where it left. @param region pushes its place in the table */
  #runRegion(type: number, flags: number, region: () => void): void {
    const c = this.code;
    this.getLocal(this.#pc);
    region();
    c.u8(W.CALL_INDIRECT);
    c.u32(type);
    c.u8(0);
    this.teeLocal(this.#btype);
    this.i32Const(REGION_LEFT);
    c.u8(0x46); // i32.eq
    this.body.expect(false);
    c.u8(W.IF);
    c.u8(W.VOID);
    this.#makeFlags(flags);
    c.u8(W.RETURN);
    c.u8(W.END);
    this.i32Const(0);
    this.memoryOp(W.I64_LOAD, STATE + Offset.PC);
    this.setLocal(this.#pc);
  }

  /** Makes NZCV, where a region has left what they are made from. */
  #makeFlags(flags: number): void {
    const c = this.code;
    this.i32Const(0);
    this.memoryOp(W.I32_LOAD, STATE + Offset.FLAGS_FROM);
    this.body.expect(false);
    c.u8(W.IF);
    c.u8(W.VOID);
    this.call(flags);
    c.u8(W.END);
  }

  /** Stores the local PC and BTYPE. */
  #storePc(): void {
    this.i32Const(0);
    this.getLocal(this.#pc);
    this.memoryOp(W.I64_STORE, STATE + Offset.PC);
    this.i32Const(0);
    this.getLocal(this.#btype);
    this.memoryOp(W.I32_STORE, STATE + Offset.BTYPE);
  }

  /** The way out: PC of the current record, and the instructions before it off the budget. */
  commit(): void {
    this.i32Const(0);
    this.pushPc();
    this.memoryOp(W.I64_STORE, STATE + Offset.PC);
    this.#account(false);
  }

  openDispatch(count: number, op: number): void {
    const c = this.code;
    for (let i = 0; i <= count; i++) {
      c.u8(W.BLOCK);
      c.u8(W.VOID);
    }
    this.getLocal(this.context.rec);
    this.memoryOp(W.I32_LOAD16_U, 0);
    this.teeLocal(op);
    c.u8(W.BR_TABLE);
    c.u32(count);
    for (let i = 0; i <= count; i++) c.u32(i);
  }

  closeBlock(): void {
    this.code.u8(W.END);
  }
  openLoop(): void {
    this.code.u8(W.LOOP);
    this.code.u8(W.VOID);
  }
  openBlock(): void {
    this.code.u8(W.BLOCK);
    this.code.u8(W.VOID);
  }
}
