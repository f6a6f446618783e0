import type { Helper, Stmt, Val } from '../a64/emitter.js';
import type { HelperTable } from '../a64/helpers.js';
import { fieldsOf, type Row } from '../a64/row.js';
import { ExitCode, Offset, STATE } from '../cpu/layout.js';
import { emitRow, HandlerLowering, type HandlerContext, type HandlerLayout, OutOfLineLowering, RECORD_SHIFT, RECORD_SIZE, staticsOf } from './handler.js';
import { HOT_HANDLERS } from './hot-handlers.js';
import { type MemoryFunctions, W } from './lower.js';
import { FunctionBody, ModuleBuilder } from './wasm-module.js';
import { Wasm, type WasmMemory, type WasmTable } from './webassembly.js';

/** Handlers that every record may hold besides the table's. */
export const DECODE = 0;
export const PAGE_END = 1;
export const UNDEFINED = 2;
const FIRST_ROW_HANDLER = 3;

/** Entries of a fetch table, and the mask that makes an entry's byte offset from PC >> 8. */
export const FETCH_ENTRIES = 256;
const FETCH_MASK = (FETCH_ENTRIES - 1) << 4;
/** Handlers that can be made while the machine runs. */
const TABLE_SIZE = 8192;

/** What the interpreter asks of the machine. Each returns 0 with EXIT set where generated code must leave. */
export interface InterpreterHost {
  /** PC (in the state) has no decoded page in the fetch table: the address of the page's first record. */
  fetchMiss(): number;
  /** The record has not been decoded yet. */
  decodeMiss(record: number): void;
  /** A load that its table does not answer: address to load from. @param info bytes, and 256 for an unprivileged access */
  loadMiss(lo: number, hi: number, info: number): number;
  storeMiss(lo: number, hi: number, info: number): number;
}

/** A handler's number and where its record wants the operands. */
export interface Handler {
  readonly number: number;
  readonly row: Row;
  readonly layout: HandlerLayout;
  /** The branch goes by a distance in records: its target is in the same page. */
  readonly near: boolean;
}

interface InlineHandler {
  readonly row: Row;
  readonly raw: Readonly<Record<string, number>>;
  readonly near: boolean;
  readonly key: string;
}

const containsJump = (stmts: readonly Stmt[]): 'direct' | 'indirect' | undefined => {
  for (const s of stmts) {
    if (s.k === 'jump') return 'direct';
    if (s.k === 'jumpTo') return 'indirect';
    if (s.k === 'if') {
      const inner = containsJump(s.then) ?? containsJump(s.otherwise);
      if (inner !== undefined) return inner;
    }
  }
  return undefined;
};

/** All values of a row's static fields. */
function* staticCombinations(row: Row): Generator<Record<string, number>> {
  const statics = row.fields.filter((f) => f.kind === 'static');
  const total = statics.reduce((n, f) => n * 2 ** f.width, 1);
  for (let n = 0; n < total; n++) {
    const raw: Record<string, number> = {};
    for (const f of row.fields) raw[f.name] = 0;
    let rest = n;
    for (const f of statics) {
      raw[f.name] = rest % 2 ** f.width;
      rest = Math.floor(rest / 2 ** f.width);
    }
    yield raw;
  }
}

/** A handler as {@link HOT_HANDLERS} names it. */
const hotKey = (row: Row, raw: Readonly<Record<string, number>>): string => `${row.name}|${staticsOf(row, raw)}`;
const rowNumbers = new WeakMap<Row, number>();
let nextRowNumber = 0;
/** A row by its identity: rows may share a name, and a special case the pattern of the general one. */
function rowNumber(row: Row): number {
  let n = rowNumbers.get(row);
  if (n === undefined) {
    n = nextRowNumber++;
    rowNumbers.set(row, n);
  }
  return n;
}
const handlerKey = (row: Row, raw: Readonly<Record<string, number>>, near: boolean): string =>
  `${rowNumber(row)}|${staticsOf(row, raw)}${near ? 'near' : ''}`;

/** Lowers handlers inside the interpreter's loop. */
class LoopLowering extends HandlerLowering {
  /** Branch depth, from where the handler's own blocks begin, to the loop that takes the next record. */
  nextDepth = 0;
  near = false;
  readonly #start: number;
  readonly #pc: number;

  constructor(body: FunctionBody, context: HandlerContext, start: number, pc: number) {
    super(body, context);
    this.#start = start;
    this.#pc = pc;
  }

  protected override leave(): void {
    this.code.u8(W.BR);
    this.code.u32(this.nextDepth + 2 + this.depth);
  }

  /** Takes the instructions up to and with this one off the budget; leaves what remains in BUDGET and, if asked, on the stack. */
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
      this.i32Const(0);
      this.memoryOp(W.I32_LOAD, STATE + Offset.BUDGET);
      this.i32Const(0);
      c.u8(W.I32_LT_S);
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
      c.u32(this.nextDepth + 1 + this.depth);
    }
    if (cond !== undefined) {
      c.u8(W.END);
      this.depth--;
    }
  }

  protected override jumpTo(target: () => void): void {
    target();
    this.setLocal(this.#pc);
    this.#account(true);
    this.code.u8(W.BR);
    this.code.u32(this.nextDepth + 1 + this.depth);
  }

  /** The end of a page's records: execution goes on in the next page. */
  pageEnd(): void {
    this.pushPc();
    this.setLocal(this.#pc);
    this.#account(false);
    this.code.u8(W.BR);
    this.code.u32(this.nextDepth + 1);
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
    c.u32(this.nextDepth + 2);
    this.next();
  }

  setExit(code: number): void {
    this.i32Const(0);
    this.i32Const(code);
    this.memoryOp(W.I32_STORE, STATE + Offset.EXIT);
  }

  /** From the local PC to a record, through the fetch table. */
  fetch(fetchMiss: number): void {
    const c = this.code;
    const { rec, pcBase } = this.context;
    const entry = this.local('i32');
    this.i32Const(0);
    this.memoryOp(W.I32_LOAD, STATE + Offset.BUDGET);
    this.i32Const(0);
    c.u8(W.I32_LT_S);
    c.u8(W.IF);
    c.u8(W.VOID);
    this.#storePc();
    this.setExit(ExitCode.BUDGET);
    c.u8(W.RETURN);
    c.u8(W.END);
    this.i32Const(0);
    this.memoryOp(W.I32_LOAD, STATE + Offset.TLB_FETCH);
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
    this.getLocal(this.#pc);
    c.u8(W.I64_CONST);
    c.s32(-4096);
    c.u8(W.I64_AND);
    this.getLocal(rec);
    this.i32Const(2);
    c.u8(W.I32_SHR_U);
    c.u8(W.I64_EXTEND_U);
    c.u8(0x7d); // i64.sub
    this.setLocal(pcBase);
    this.getLocal(rec);
    this.getLocal(this.#pc);
    c.u8(W.I32_WRAP);
    this.i32Const(0xffc);
    c.u8(W.I32_AND);
    this.i32Const(2);
    c.u8(W.I32_SHL);
    c.u8(W.I32_ADD);
    this.teeLocal(rec);
    this.setLocal(this.#start);
  }

  #storePc(): void {
    this.i32Const(0);
    this.getLocal(this.#pc);
    this.memoryOp(W.I64_STORE, STATE + Offset.PC);
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

const MEMORY_SIZES = [1, 2, 4, 8, 16] as const;
const memoryFunctionName = (kind: 'load' | 'store', bytes: number, unprivileged: boolean): string => `${kind}${bytes}${unprivileged ? 'u' : ''}`;

/**
 * The interpreter: a WebAssembly function made from the instruction table. It runs from decoded records, one after the other,
 * through one `br_table`; rows that are rare have functions of their own, made when they are first met.
 */
export class Interpreter {
  readonly #memory: WasmMemory;
  readonly #maximumPages: number;
  readonly #shared: boolean;
  readonly #helpers: HelperTable;
  readonly #handlers = new Map<string, Handler>();
  readonly #imports: Record<string, unknown> = {};
  readonly #table: WasmTable;
  /** What a row's branches are, by row. */
  readonly #jumps = new Map<Row, 'direct' | 'indirect' | undefined>();
  #nextHandler: number;
  /** Runs until something makes it leave; the reason is in the state's EXIT. */
  readonly run: () => void;

  constructor(rows: readonly Row[], memory: WasmMemory, maximumPages: number, shared: boolean, host: InterpreterHost, helpers: HelperTable) {
    this.#memory = memory;
    this.#maximumPages = maximumPages;
    this.#shared = shared;
    this.#helpers = helpers;
    const inline = inlineHandlers(rows, this.#jumps);
    const module = new ModuleBuilder();
    module.importMemory(maximumPages, shared);
    const imports: Record<string, unknown> = { memory };
    const fetchMiss = module.importFunction('fetchMiss', { params: [], results: ['i32'] });
    const decodeMiss = module.importFunction('decodeMiss', { params: ['i32'], results: [] });
    const loadMiss = module.importFunction('loadMiss', { params: ['i32', 'i32', 'i32'], results: ['i32'] });
    const storeMiss = module.importFunction('storeMiss', { params: ['i32', 'i32', 'i32'], results: ['i32'] });
    imports['fetchMiss'] = host.fetchMiss.bind(host);
    imports['decodeMiss'] = host.decodeMiss.bind(host);
    imports['loadMiss'] = host.loadMiss.bind(host);
    imports['storeMiss'] = host.storeMiss.bind(host);
    // The helpers that inline handlers call must be imported before any function is defined.
    const helperIndices = new Map<string, number>();
    for (const h of inline) {
      for (const helper of helpersOf(emitRow(h.row, h.raw).body)) {
        if (helperIndices.has(helper.name)) continue;
        helperIndices.set(helper.name, module.importFunction(helper.name, signatureOf(helper)));
        imports[helper.name] = this.#helper(helper);
      }
    }
    const memoryIndices = new Map<string, number>();
    for (const kind of ['load', 'store'] as const) {
      for (const bytes of MEMORY_SIZES) {
        for (const unprivileged of [false, true]) {
          const name = memoryFunctionName(kind, bytes, unprivileged);
          const body = new FunctionBody(1);
          const c = body.code;
          c.raw([W.LOCAL_GET, 0, W.I32_WRAP, W.LOCAL_GET, 0, W.I64_CONST, 32, W.I64_SHR_U, W.I32_WRAP, W.I32_CONST]);
          c.s32(bytes | (unprivileged ? 256 : 0));
          c.u8(W.CALL);
          c.u32(kind === 'load' ? loadMiss : storeMiss);
          memoryIndices.set(name, module.addFunction({ params: ['i64'], results: ['i32'] }, body, name));
        }
      }
    }
    const memoryFunctions: MemoryFunctions = {
      load: (bytes, unprivileged) => memoryIndices.get(memoryFunctionName('load', bytes, unprivileged))!,
      store: (bytes, unprivileged) => memoryIndices.get(memoryFunctionName('store', bytes, unprivileged))!,
    };
    const outOfLineType = module.type({ params: ['i32', 'i64'], results: ['i32'] });

    const body = new FunctionBody(0);
    const rec = body.addLocal('i32');
    const start = body.addLocal('i32');
    const op = body.addLocal('i32');
    const pcBase = body.addLocal('i64');
    const pc = body.addLocal('i64');
    const l = new LoopLowering(body, { memory: memoryFunctions, helper: (h) => helperIndices.get(h.name)!, rec, pcBase }, start, pc);
    body.code.raw([W.I32_CONST, 0, W.I64_LOAD, 0]);
    body.code.u32(STATE + Offset.PC);
    body.code.u8(W.LOCAL_SET);
    body.code.u32(pc);
    l.openBlock();
    l.openLoop();
    l.fetch(fetchMiss);
    l.openLoop();
    const count = FIRST_ROW_HANDLER + inline.length;
    l.openDispatch(count, op);
    // Blocks close from the inside out: handler i's code stands after the end of block i.
    const open = (i: number): void => {
      l.closeBlock();
      l.nextDepth = count - i;
    };
    open(DECODE);
    l.decode(decodeMiss);
    open(PAGE_END);
    l.pageEnd();
    open(UNDEFINED);
    l.undefinedInstruction();
    inline.forEach((h, i) => {
      const number = FIRST_ROW_HANDLER + i;
      open(number);
      l.near = h.near;
      const layout = l.lowerRow(h.row, h.raw);
      l.next();
      this.#handlers.set(h.key, { number, row: h.row, layout, near: h.near });
    });
    open(count);
    l.outOfLine(outOfLineType, op);
    l.closeBlock(); // loop: next record
    body.code.u8(0x00); // unreachable
    l.closeBlock(); // loop: fetch
    body.code.u8(0x00);
    l.closeBlock(); // leave
    l.commit();
    module.addTable(TABLE_SIZE);
    module.addFunction({ params: [], results: [] }, body, 'run');

    const instance = new Wasm.Instance(new Wasm.Module(module.build()), { e: imports });
    this.run = instance.exports['run'] as () => void;
    this.#table = instance.exports['table'] as WasmTable;
    this.#nextHandler = count;
    for (const name of memoryIndices.keys()) this.#imports[name] = instance.exports[name] as unknown;
  }

  /** The handler of an instruction. @param near whether a direct branch stays in its page */
  handler(row: Row, word: number, near: (imm: number) => boolean): Handler {
    const raw = fieldsOf(row, word);
    const isNear = this.#jumps.get(row) === 'direct' && row.imm !== undefined && near(Number(row.imm(raw)));
    const key = handlerKey(row, raw, isNear);
    let found = this.#handlers.get(key);
    if (found === undefined) {
      found = this.#make(row, raw);
      this.#handlers.set(key, found);
    }
    return found;
  }

  #helper(h: Helper): unknown {
    const f = this.#helpers[h.name];
    if (f === undefined) throw new Error(`no helper is named ${h.name}`);
    return f as unknown;
  }

  /** Makes an out-of-line handler: a module with one function, put into the interpreter's table. */
  #make(row: Row, raw: Readonly<Record<string, number>>): Handler {
    const module = new ModuleBuilder();
    module.importMemory(this.#maximumPages, this.#shared);
    const imports: Record<string, unknown> = { memory: this.#memory };
    const indices = new Map<string, number>();
    const stmts = emitRow(row, raw).body;
    for (const h of helpersOf(stmts)) {
      if (indices.has(h.name)) continue;
      indices.set(h.name, module.importFunction(h.name, signatureOf(h)));
      imports[h.name] = this.#helper(h);
    }
    for (const name of memoryAccesses(stmts)) {
      if (indices.has(name)) continue;
      indices.set(name, module.importFunction(name, { params: ['i64'], results: ['i32'] }));
      imports[name] = this.#imports[name]!;
    }
    const body = new FunctionBody(2);
    const lowering = new OutOfLineLowering(body, {
      memory: {
        load: (bytes, unprivileged) => indices.get(memoryFunctionName('load', bytes, unprivileged))!,
        store: (bytes, unprivileged) => indices.get(memoryFunctionName('store', bytes, unprivileged))!,
      },
      helper: (h) => indices.get(h.name)!,
      rec: 0,
      pcBase: 1,
    });
    const layout = lowering.lowerRow(row, raw);
    body.code.raw([W.I32_CONST, 0]);
    module.addFunction({ params: ['i32', 'i64'], results: ['i32'] }, body, 'handler');
    const instance = new Wasm.Instance(new Wasm.Module(module.build()), { e: imports });
    const number = this.#nextHandler++;
    if (number >= TABLE_SIZE) throw new Error('the interpreter has no room for another handler');
    this.#table.set(number, instance.exports['handler']);
    return { number, row, layout, near: false };
  }
}

/** Branches, which must be part of the loop, and the handlers that programs run most. */
function inlineHandlers(rows: readonly Row[], jumps: Map<Row, 'direct' | 'indirect' | undefined>): InlineHandler[] {
  const hot = new Set(HOT_HANDLERS);
  const names = new Set(HOT_HANDLERS.map((key) => key.slice(0, key.indexOf('|'))));
  const out: InlineHandler[] = [];
  for (const row of rows) {
    if (!row.ends && !names.has(row.name)) continue;
    for (const raw of staticCombinations(row)) {
      // Whether the static fields are allocated may depend on the others, so `when` has no say: what is hot was met.
      const isHot = hot.has(hotKey(row, raw));
      if (!row.ends && !isHot) continue;
      const jump = row.ends ? containsJump(emitRow(row, raw).body) : undefined;
      jumps.set(row, jump);
      const key = handlerKey(row, raw, false);
      if (jump === undefined && !isHot) continue;
      out.push({ row, raw, near: false, key });
      if (jump === 'direct') out.push({ row, raw, near: true, key: handlerKey(row, raw, true) });
    }
  }
  return out;
}

function* walk(stmts: readonly Stmt[]): Generator<Stmt> {
  for (const s of stmts) {
    yield s;
    if (s.k === 'if') {
      yield* walk(s.then);
      yield* walk(s.otherwise);
    }
  }
}

function* helpersOf(stmts: readonly Stmt[]): Generator<Helper> {
  for (const s of walk(stmts)) {
    if (s.k === 'call') yield s.helper;
    else if (s.k === 'def' && s.v.node.k === 'call') yield s.v.node.helper;
  }
}

function* memoryAccesses(stmts: readonly Stmt[]): Generator<string> {
  for (const s of walk(stmts)) {
    if (s.k === 'store') yield memoryFunctionName('store', s.bytes, s.unprivileged);
    else if (s.k === 'def' && s.v.node.k === 'load') yield memoryFunctionName('load', s.v.node.bytes, s.v.node.unprivileged);
  }
}

const signatureOf = (h: Helper) => ({ params: h.params, results: h.result === undefined ? [] : [h.result] });
