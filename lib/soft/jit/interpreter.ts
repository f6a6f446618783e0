import type { HelperTable } from '../a64/helpers.js';
import type { Row } from '../a64/row.js';
import { emitRow, MAX_HANDLERS } from './handler.js';
import {
  type CountingOptions,
  type Handler,
  handlerKey,
  type InterpreterModule,
  interpreterModule,
  OUT_OF_LINE,
  outOfLineHandler,
} from './interpreter-module.js';
import { helpersOf, type Linkage, LinkedModule, link, memoryAccesses } from './linkage.js';
import type { RawFields } from './operands.js';
import { Wasm, type WasmMemory, type WasmTable } from './webassembly.js';

export { FETCH_ENTRIES, FETCH_TABLE_SIZE, JUMP_TABLE, JUMPS_USED, PAGE_HAS_JUMPS } from './fetch-table.js';
export { DECODE, MAX_REGIONS, PAGE_END, REGION, UNDEFINED } from './handler.js';
export { COUNTERS_SIZE } from './interpreter-loop.js';
export type { Handler } from './interpreter-module.js';

/**
 * What the interpreter asks of the machine. Each returns 0 with EXIT set where generated code must leave. They are plain functions:
 * V8 calls those from WebAssembly without a detour.
 */
export interface InterpreterHost {
  /** PC (in the state) has no decoded page in the fetch table: the address of the page's first record. */
  readonly fetchMiss: () => number;
  /** The record has not been decoded yet. */
  readonly decodeMiss: (record: number) => void;
  /** The record has been branched to so often that it should be compiled. */
  readonly hot: (record: number) => void;
  /** A load that its table does not answer: address to load from. @param info bytes, with UNPRIVILEGED or EXACT */
  readonly loadMiss: (lo: number, hi: number, info: number) => number;
  readonly storeMiss: (lo: number, hi: number, info: number) => number;
}

/**
 * The interpreter: a WebAssembly function made from the instruction table. It runs from decoded records, one after the other,
 * through one `br_table`; rows that are rare have functions of their own, made when they are first met.
 */
export class Interpreter implements Linkage {
  readonly memory: WasmMemory;
  readonly #helpers: HelperTable;
  readonly #handlers: Map<string, Handler>;
  readonly #imports: Record<string, unknown> = {};
  readonly table: WasmTable;
  /** What a row's branches are, by row. */
  readonly #jumps: InterpreterModule['jumps'];
  #nextHandler: number;
  /** Runs until something makes it leave; the reason is in the state's EXIT. */
  readonly run: () => void;

  constructor(
    rows: readonly Row[],
    memory: WasmMemory,
    host: InterpreterHost,
    helpers: HelperTable,
    counting?: CountingOptions,
  ) {
    this.memory = memory;
    this.#helpers = helpers;
    const {
      module,
      handlers,
      jumps,
      helpers: imported,
      memoryFunctions,
      nextHandler,
    } = interpreterModule(rows, counting);
    this.#handlers = new Map(handlers);
    this.#jumps = jumps;
    this.#nextHandler = nextHandler;
    const imports: Record<string, unknown> = {
      memory,
      ...host,
    };
    for (const name of imported) imports[name] = this.helper(name);
    const instance = new Wasm.Instance(module, { e: imports });
    this.run = instance.exports.run as () => void;
    this.table = instance.exports.table as WasmTable;
    for (const name of memoryFunctions) this.#imports[name] = instance.exports[name];
  }

  /** The handler of an instruction. @param near whether a direct branch stays in its page */
  handler(row: Row, raw: RawFields, near: (imm: number) => boolean): Handler {
    const isNear = this.isDirectBranch(row) && near(Number(row.imm!(raw)));
    const key = handlerKey(row, raw, isNear);
    let found = this.#handlers.get(key);
    if (found === undefined) {
      found = this.#make(row, raw);
      this.#handlers.set(key, found);
    }
    return found;
  }

  /** Whether the row branches by a distance: its handler depends on where it stands. */
  isDirectBranch(row: Row): boolean {
    return this.#jumps.get(row) === 'direct' && row.imm !== undefined;
  }

  /** @throws Error no such helper: a mistake in the table */
  helper(name: string): unknown {
    const f = this.#helpers[name];
    if (f === undefined) throw new Error(`no helper is named ${name}`);
    return f as unknown;
  }

  memoryFunction(name: string): unknown {
    return this.#imports[name];
  }

  /** Puts a compiled region's function in its place; `undefined` takes it away. */
  setRegion(number: number, f: unknown): void {
    this.table.set(MAX_HANDLERS + number, f ?? null);
  }

  /** What the record of a region's start holds at byte 8. */
  regionIndex(number: number): number {
    return MAX_HANDLERS + number;
  }

  /** Makes an out-of-line handler: a module with one function, put into the interpreter's table. */
  #make(row: Row, raw: Readonly<Record<string, number>>): Handler {
    const program = emitRow(row, raw).body;
    const module = new LinkedModule();
    module.require(helpersOf(program), memoryAccesses(program));
    const { body, layout } = outOfLineHandler(row, raw, module);
    module.builder.addFunction(OUT_OF_LINE, body, 'handler', `interpreter ${row.name}`);
    const instance = link(new Wasm.Module(module.build()), module.imports, this);
    const number = this.#nextHandler++;
    if (number >= MAX_HANDLERS) throw new Error('the interpreter has no room for another handler');
    this.table.set(number, instance.exports.handler);
    return { number, row, layout, near: false };
  }
}
