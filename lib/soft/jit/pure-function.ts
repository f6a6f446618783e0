import { Emitter, type Val } from '../a64/emitter.js';
import { FLAGS } from './handler.js';
import { Lowering } from './lower.js';
import { FunctionBody, ModuleBuilder } from './wasm-module.js';
import type { WasmType } from './wasm-opcodes.js';
import { Wasm } from './webassembly.js';

/** A function of its arguments alone: its program may use neither registers, nor state, nor memory. */
class PureLowering extends Lowering {
  readonly #params: readonly string[];

  constructor(body: FunctionBody, params: readonly string[]) {
    super(body);
    this.#params = params;
  }

  result(v: Val): void {
    this.push(v);
  }
  protected override pushField(_type: WasmType, field: string): void {
    this.getLocal(this.#params.indexOf(field));
  }
  protected override helperIndex = (): never => impure();
  protected override memoryFunctions = (): never => impure();
  protected override pushPc = (): never => impure();
  protected override pushX = (): never => impure();
  protected override storeX = (): never => impure();
  protected override pushVBase = (): never => impure();
  protected override pushStateAtBase = (): never => impure();
  protected override leave = (): never => impure();
  protected override jump = (): never => impure();
  protected override jumpTo = (): never => impure();
}

function impure(): never {
  throw new Error('a pure function has its arguments only');
}

/**
 * Compiles what `build` says into a WebAssembly function, which modules of generated code can import without a way through JavaScript.
 * @param params each parameter's type
 */
export function compileFunction<const P extends Readonly<Record<string, 'i32' | 'i64'>>>(
  params: P,
  build: (e: Emitter, args: { readonly [K in keyof P]: Val }) => Val,
): (...args: never[]) => bigint {
  const names = Object.keys(params);
  const e = new Emitter(FLAGS);
  const args = Object.fromEntries(names.map((name) => [name, e.field(params[name]!, name)]));
  const value = build(e, args as { [K in keyof P]: Val });
  const body = new FunctionBody(names.length);
  const lowering = new PureLowering(body, names);
  lowering.lower(e.body);
  lowering.result(value);
  const module = new ModuleBuilder();
  module.addFunction({ params: names.map((name) => params[name]!), results: [value.type] }, body, 'f');
  return new Wasm.Instance(new Wasm.Module(module.build()), {}).exports.f as (...args: never[]) => bigint;
}
