import { Decoder } from '#lib/soft/a64/decode.js';
import type { Helper } from '#lib/soft/a64/emitter.js';
import type { HelperEnv, HelperTable } from '#lib/soft/a64/helpers.js';
import { fieldsOf, type Row, wordFields } from '#lib/soft/a64/row.js';
import { Offset, STATE } from '#lib/soft/cpu/layout.js';
import { type HandlerLayout, OutOfLineLowering, staticsOf } from '#lib/soft/jit/handler.js';
import { RecordPlan } from '#lib/soft/jit/record-plan.js';
import { FunctionBody, ModuleBuilder } from '#lib/soft/jit/wasm-module.js';
import { Wasm } from '#lib/soft/jit/webassembly.js';

/** What an instruction finds: V0..V3, X1, X2 (X0 is all ones), NZCV in bits 31..28, FPCR and FPSR. */
export interface FpCase {
  readonly word: number;
  readonly nzcv: number;
  readonly fpcr: number;
  readonly fpsr: number;
  readonly x1: bigint;
  readonly x2: bigint;
  readonly v: readonly [bigint, bigint, bigint, bigint];
}

/** What it leaves: X0, V0, NZCV and FPSR. */
export interface FpOutcome {
  readonly x0: bigint;
  readonly v0: bigint;
  readonly nzcv: number;
  readonly fpsr: number;
}

interface Compiled {
  readonly row: Row;
  readonly layout: HandlerLayout;
  readonly run: (record: number, pcBase: bigint) => number;
}

const RECORD = 0x8000;

/** Runs single instructions of a table, each lowered to a function of its own, on a state in linear memory. */
export class RowRunner {
  readonly #decoder: Decoder;
  readonly #memory = new Wasm.Memory({ initial: 1, maximum: 1, shared: true });
  readonly #env: HelperEnv;
  readonly #helpers: HelperTable;
  readonly #compiled = new Map<string, Compiled>();
  /** How often each helper was called. */
  readonly calls = new Map<string, number>();

  constructor(rows: readonly Row[], ...factories: readonly ((env: HelperEnv) => HelperTable)[]) {
    this.#decoder = new Decoder(rows);
    const b = this.#memory.buffer;
    this.#env = {
      u8: new Uint8Array(b),
      u32: new Uint32Array(b),
      i32: new Int32Array(b),
      u64: new BigUint64Array(b),
      i64: new BigInt64Array(b),
      f32: new Float32Array(b),
      f64: new Float64Array(b),
      u16: new Uint16Array(b),
    } as HelperEnv;
    const table: Record<string, (...args: never[]) => number | bigint | undefined> = {};
    for (const make of factories) {
      for (const [name, fn] of Object.entries(make(this.#env))) {
        table[name] = (...args) => {
          this.calls.set(name, (this.calls.get(name) ?? 0) + 1);
          return fn(...args);
        };
      }
    }
    this.#helpers = table;
  }

  rowOf(word: number): Row | undefined {
    return this.#decoder.decode(word);
  }

  #compile(word: number): Compiled {
    const row = this.#decoder.decode(word);
    if (row === undefined) throw new Error(`0x${word.toString(16)} is not in the table`);
    const raw = fieldsOf(row, word);
    const key = `${row.name}|${staticsOf(row, raw)}`;
    const known = this.#compiled.get(key);
    if (known !== undefined) return known;
    const imported: Helper[] = [];
    const body = new FunctionBody(2);
    const none = (): never => {
      throw new Error('no memory access expected');
    };
    const lowering = new OutOfLineLowering(body, {
      memory: { load: none, store: none, find: none, device: none },
      helper: (h) => {
        const found = imported.findIndex((i) => i.name === h.name);
        return found >= 0 ? found : imported.push(h) - 1;
      },
      rec: 0,
      pcBase: 1,
    });
    const layout = lowering.lowerRow(row, raw);
    body.code.raw([0x41, 0x00]);
    const builder = new ModuleBuilder();
    builder.importMemory(1);
    for (const h of imported) {
      builder.importFunction(h.name, { params: h.params, results: h.result === undefined ? [] : [h.result] });
    }
    builder.addFunction({ params: ['i32', 'i64'], results: ['i32'] }, body, 'run');
    const instance = new Wasm.Instance(new Wasm.Module(builder.build()), {
      e: { memory: this.#memory, ...this.#helpers },
    });
    const compiled = { row, layout, run: instance.exports.run as Compiled['run'] };
    this.#compiled.set(key, compiled);
    return compiled;
  }

  run(c: FpCase): FpOutcome {
    const { u32, i32, u64, i64 } = this.#env;
    const at = (offset: number): number => STATE + offset;
    const { row, layout, run } = this.#compile(c.word);
    const setV = (n: number, value: bigint): void => {
      u64[at(Offset.V0 + n * 16) / 8] = BigInt.asUintN(64, value);
      u64[at(Offset.V0 + n * 16) / 8 + 1] = value >> 64n;
    };
    c.v.forEach((value, n) => {
      setV(n, value);
    });
    u64[at(Offset.X) / 8] = (1n << 64n) - 1n;
    u64[at(Offset.X) / 8 + 1] = c.x1;
    u64[at(Offset.X) / 8 + 2] = c.x2;
    i64[at(Offset.N) / 8] = BigInt(c.nzcv | 0);
    i64[at(Offset.Z) / 8] = (c.nzcv & 0x4000_0000) === 0 ? 1n : 0n;
    i32[at(Offset.C) / 4] = (c.nzcv >>> 29) & 1;
    i64[at(Offset.V) / 8] = (c.nzcv & 0x1000_0000) === 0 ? 0n : -1n;
    u32[at(Offset.FPCR) / 4] = c.fpcr;
    u32[at(Offset.FPSR) / 4] = c.fpsr;
    const fields = wordFields(row);
    fields.word = c.word;
    new RecordPlan(row, layout, false).write(fields, new Uint16Array(this.#memory.buffer), u32, RECORD);
    run(RECORD, 0n);
    const flag = (set: boolean, bit: number): number => (set ? 1 << bit : 0);
    const nzcv =
      flag((i64[at(Offset.N) / 8] ?? 0n) < 0n, 31) |
      flag(i64[at(Offset.Z) / 8] === 0n, 30) |
      flag(i32[at(Offset.C) / 4] === 1, 29) |
      flag((i64[at(Offset.V) / 8] ?? 0n) < 0n, 28);
    return {
      x0: u64[at(Offset.X) / 8] ?? 0n,
      v0: (u64[at(Offset.V0) / 8] ?? 0n) | ((u64[at(Offset.V0) / 8 + 1] ?? 0n) << 64n),
      nzcv: nzcv >>> 0,
      fpsr: u32[at(Offset.FPSR) / 4] ?? 0,
    };
  }
}
