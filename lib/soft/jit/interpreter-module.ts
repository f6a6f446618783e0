import type { Helper, Stmt } from '../a64/emitter.js';
import type { Row } from '../a64/row.js';
import { MAXIMUM_PAGES } from '../cpu/layout.js';
import { REGION_PARAMS, REGION_RESULTS } from './compiler.js';
import { FLAGS_FUNCTION, FLAGS_SIGNATURE, flagsFunction } from './flags-function.js';
import {
  DECODE,
  emitRow,
  type HandlerContext,
  type HandlerLayout,
  hasSpBase,
  isSpBased,
  MAX_HANDLERS,
  MAX_REGIONS,
  OutOfLineLowering,
  PAGE_END,
  REGION,
  staticsOf,
  UNDEFINED,
} from './handler.js';
import { HOT_HANDLERS } from './hot-handlers.js';
import { LoopLowering } from './interpreter-loop.js';
import { helpersOf, signatureOf } from './linkage.js';
import { W } from './lower.js';
import { addMemoryFunctions, memoryFunctionsAt } from './memory-functions.js';
import type { RawFields } from './operands.js';
import { FunctionBody, ModuleBuilder, type Signature } from './wasm-module.js';
import { Wasm, type WasmModule } from './webassembly.js';

const FIRST_ROW_HANDLER = 4;

/** A handler's number and where its record wants the operands. */
export interface Handler {
  readonly number: number;
  readonly row: Row;
  readonly layout: HandlerLayout;
  /** The branch goes by a distance in records: its target is in the same page. */
  readonly near: boolean;
}

/** A handler's instruction, its static fields and whether it branches within its page. */
interface HandlerPlan {
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
export function* staticCombinations(row: Row): Generator<Record<string, number>> {
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
export function rowNumber(row: Row): number {
  let n = rowNumbers.get(row);
  if (n === undefined) {
    n = nextRowNumber++;
    rowNumbers.set(row, n);
  }
  return n;
}
export const handlerKey = (row: Row, raw: Readonly<Record<string, number>>, near: boolean): string =>
  `${rowNumber(row)}|${staticsOf(row, raw)}${near ? 'near' : ''}${isSpBased(row, raw) ? 'sp' : ''}`;

/** How branches are counted, see LoopLowering. */
export interface CountingOptions {
  /** Address of COUNTERS_SIZE bytes. */
  readonly counters: number;
  readonly threshold: number;
}

/** The interpreter's code, and what there is to know of it. It depends on no machine: all machines of a process share it. */
export interface InterpreterCode {
  /** The handlers that it has, by key. */
  readonly handlers: ReadonlyMap<string, Handler>;
  /** What a row's branches are, by row. */
  readonly jumps: ReadonlyMap<Row, 'direct' | 'indirect' | undefined>;
  /** What it imports besides the memory and the machine's own functions. */
  readonly helpers: readonly string[];
  /** What it exports besides `run` and `table`. */
  readonly memoryFunctions: readonly string[];
  /** The first number that no handler has. */
  readonly nextHandler: number;
}

/** {@link InterpreterCode}, compiled. */
export interface InterpreterModule extends InterpreterCode {
  readonly module: WasmModule;
}

const modules = new WeakMap<readonly Row[], Map<string, InterpreterModule>>();

/** The modules for a table, by how they count. */
function modulesOf(rows: readonly Row[]): Map<string, InterpreterModule> {
  let byKey = modules.get(rows);
  if (byKey === undefined) {
    byKey = new Map();
    modules.set(rows, byKey);
  }
  return byKey;
}

const countingKey = (counting: CountingOptions | undefined): string => `${counting?.counters},${counting?.threshold}`;

/** The module for a table, made once. */
export function interpreterModule(rows: readonly Row[], counting: CountingOptions | undefined): InterpreterModule {
  const byKey = modulesOf(rows);
  const key = countingKey(counting);
  let found = byKey.get(key);
  if (found === undefined) {
    const { bytes, ...code } = emitInterpreter(rows, counting);
    found = { ...code, module: new Wasm.Module(bytes) };
    byKey.set(key, found);
  }
  return found;
}

/** Whether {@link interpreterModule} has the module ready. */
export const hasInterpreter = (rows: readonly Row[], counting: CountingOptions): boolean =>
  modulesOf(rows).has(countingKey(counting));

/** Has {@link interpreterModule} answer with code that was emitted earlier. */
export function useInterpreter(
  rows: readonly Row[],
  counting: CountingOptions,
  { bytes, ...code }: InterpreterCode & { readonly bytes: Uint8Array<ArrayBuffer> },
): void {
  modulesOf(rows).set(countingKey(counting), { ...code, module: new Wasm.Module(bytes) });
}

/**
 * Emits the interpreter.
 * @param ahead rows whose handlers it is to have besides those of the loop, as functions in its table: those with all values
 * of the static fields for which `isAllocated`. Others are made when they are first met
 */
export function emitInterpreter(
  rows: readonly Row[],
  counting: CountingOptions | undefined,
  ahead: readonly Row[] = [],
  isAllocated: (row: Row, raw: RawFields) => boolean = () => true,
): InterpreterCode & { readonly bytes: Uint8Array<ArrayBuffer> } {
  const jumps = new Map<Row, 'direct' | 'indirect' | undefined>();
  const handlers = new Map<string, Handler>();
  const helpers: string[] = [];
  const inline = inlineHandlers(rows, jumps);
  const module = new ModuleBuilder();
  module.importMemory(MAXIMUM_PAGES);
  const fetchMiss = module.importFunction('fetchMiss', { params: [], results: ['i32'] });
  const decodeMiss = module.importFunction('decodeMiss', { params: ['i32'], results: [] });
  const loadMiss = module.importFunction('loadMiss', { params: ['i32', 'i32', 'i32'], results: ['i32'] });
  const storeMiss = module.importFunction('storeMiss', { params: ['i32', 'i32', 'i32'], results: ['i32'] });
  const hot = module.importFunction('hot', { params: ['i32'], results: [] });
  const inLoop = new Set(inline.flatMap(({ row, raw, near, key }) => [key, spKey(row, raw, near)]));
  const outOfLine = [...planOutOfLine(ahead, isAllocated)].filter(({ key }) => !inLoop.has(key));
  // The helpers that handlers call must be imported before any function is defined.
  const helperIndices = new Map<string, number>();
  for (const h of [...inline, ...outOfLine]) {
    for (const helper of helpersOf(emitRow(h.row, h.raw).body)) {
      if (helperIndices.has(helper.name)) continue;
      helperIndices.set(helper.name, module.importFunction(helper.name, signatureOf(helper)));
      helpers.push(helper.name);
    }
  }
  const memoryIndices = addMemoryFunctions(module, { load: loadMiss, store: storeMiss });
  const memoryFunctions = memoryFunctionsAt(memoryIndices);
  const flags = module.addFunction(FLAGS_SIGNATURE, flagsFunction(), FLAGS_FUNCTION, FLAGS_FUNCTION);
  const outOfLineType = module.type(OUT_OF_LINE);

  const linked = { memory: memoryFunctions, helper: (h: Helper) => helperIndices.get(h.name)! };
  const body = new FunctionBody(0);
  const rec = body.addLocal('i32');
  const start = body.addLocal('i32');
  const op = body.addLocal('i32');
  const pcBase = body.addLocal('i64');
  const pc = body.addLocal('i64');
  const btype = body.addLocal('i32');
  const l = new LoopLowering(
    body,
    { ...linked, rec, pcBase },
    start,
    pc,
    btype,
    counting === undefined ? undefined : { ...counting, hot },
  );
  l.begin();
  l.openBlock();
  l.openLoop();
  l.checkBudget();
  l.openLoop();
  const regionType = module.type({ params: REGION_PARAMS, results: REGION_RESULTS });
  l.fetch(fetchMiss, regionType, flags);
  l.openLoop();
  const count = FIRST_ROW_HANDLER + inline.reduce((n, h) => n + (hasSpBase(h.row) ? 2 : 1), 0);
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
  open(REGION);
  l.region(regionType, flags);
  let number = FIRST_ROW_HANDLER;
  for (const { row, raw, near, key } of inline) {
    // The handler for SP as the base is a check that goes on into the one for other bases.
    const checked = hasSpBase(row) ? number++ : undefined;
    if (checked !== undefined) {
      open(checked);
      l.checkSp();
    }
    open(number);
    l.near = near;
    const layout = l.lowerRow(row, raw);
    l.next();
    handlers.set(key, { number, row, layout, near });
    if (checked !== undefined) handlers.set(spKey(row, raw, near), { number: checked, row, layout, near });
    number++;
  }
  open(count);
  l.outOfLine(outOfLineType, op);
  l.closeBlock(); // loop: next record
  body.code.u8(0x00); // unreachable
  l.closeBlock(); // loop: fetch
  body.code.u8(0x00);
  l.closeBlock(); // loop: look at the budget and fetch
  body.code.u8(0x00);
  l.closeBlock(); // leave
  l.commit();
  module.addTable(MAX_HANDLERS + MAX_REGIONS);
  module.addFunction({ params: [], results: [] }, body, 'run', 'interpreter');
  const functions = outOfLine.map(({ row, raw, key }, i) => {
    const handler = outOfLineHandler(row, raw, linked);
    handlers.set(key, { number: count + i, row, layout: handler.layout, near: false });
    return module.addFunction(OUT_OF_LINE, handler.body, undefined, `interpreter ${row.name}`);
  });
  if (functions.length > 0) module.fillTable(count, functions);
  return {
    bytes: module.build(),
    handlers,
    jumps,
    helpers,
    memoryFunctions: [...memoryIndices.keys(), FLAGS_FUNCTION],
    nextHandler: count + functions.length,
  };
}

/** Type of a handler that is a function of its own: from the record and PC minus rec / 4 to whether to leave. */
export const OUT_OF_LINE: Signature = { params: ['i32', 'i64'], results: ['i32'] };

/** Makes a handler that is no part of the loop. */
export function outOfLineHandler(
  row: Row,
  raw: RawFields,
  linked: Pick<HandlerContext, 'memory' | 'helper'>,
): { readonly body: FunctionBody; readonly layout: HandlerLayout } {
  const body = new FunctionBody(OUT_OF_LINE.params.length);
  const layout = new OutOfLineLowering(body, { ...linked, rec: 0, pcBase: 1 }).lowerRow(row, raw);
  body.code.raw([W.I32_CONST, 0]);
  return { body, layout };
}

const spKey = (row: Row, raw: RawFields, near: boolean): string => handlerKey(row, { ...raw, Rn: 31 }, near);

/** The handlers of rows that do not branch: for any base, and for SP as the base. */
function* planOutOfLine(
  rows: readonly Row[],
  isAllocated: (row: Row, raw: RawFields) => boolean,
): Generator<HandlerPlan> {
  for (const row of rows) {
    for (const raw of staticCombinations(row)) {
      if (!isAllocated(row, raw) || containsJump(emitRow(row, raw).body) !== undefined) continue;
      yield { row, raw, near: false, key: handlerKey(row, raw, false) };
      if (!hasSpBase(row)) continue;
      const onSp = { ...raw, Rn: 31 };
      yield { row, raw: onSp, near: false, key: handlerKey(row, onSp, false) };
    }
  }
}

/** Branches, which must be part of the loop, and the handlers that programs run most. */
function inlineHandlers(rows: readonly Row[], jumps: Map<Row, 'direct' | 'indirect' | undefined>): HandlerPlan[] {
  const hot = new Set(HOT_HANDLERS);
  const names = new Set(HOT_HANDLERS.map((key) => key.slice(0, key.indexOf('|'))));
  const out: HandlerPlan[] = [];
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
