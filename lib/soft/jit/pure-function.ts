import { Emitter, type Val } from '../a64/emitter.js';
import { FLAGS } from './handler.js';
import { Lowering } from './lower.js';
import { FunctionBody, ModuleBuilder } from './wasm-module.js';
import type { WasmType } from './wasm-opcodes.js';
import { Wasm } from './webassembly.js';

/** A function of its arguments alone, or of words of the state: its program may use neither registers nor memory. */
export class PureLowering extends Lowering {
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
  protected override guestLoad = (): never => impure();
  protected override guestStore = (): never => impure();
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

/** A function as {@link emitFunctions} wants it. */
export interface PureFunction {
  readonly params: Readonly<Record<string, 'i32' | 'i64'>>;
  /** The result, from an argument for each of `params`. */
  build(e: Emitter, args: Readonly<Record<string, Val>>): Val;
}

/** Names a function's parameters, so that what builds it sees each of them. @param params each parameter's type */
export const pureFunction = <const P extends PureFunction['params']>(
  params: P,
  build: (e: Emitter, args: { readonly [K in keyof P]: Val }) => Val,
): PureFunction => ({ params, build: build as PureFunction['build'] });

/** Emits a module of functions, by name. */
export function emitFunctions(functions: Readonly<Record<string, PureFunction>>): Uint8Array<ArrayBuffer> {
  const module = new ModuleBuilder();
  for (const [name, f] of Object.entries(functions)) addFunction(module, name, f);
  return module.build();
}

/** The functions of a module that {@link emitFunctions} made; modules of generated code can import them without a way through JavaScript. */
export const instantiateFunctions = (
  module: Uint8Array<ArrayBuffer>,
): Readonly<Record<string, (...args: never[]) => bigint>> =>
  new Wasm.Instance(new Wasm.Module(module), {}).exports as Record<string, (...args: never[]) => bigint>;

function addFunction(module: ModuleBuilder, name: string, { params, build }: PureFunction): void {
  const names = Object.keys(params);
  const e = new Emitter(FLAGS);
  const args = Object.fromEntries(names.map((name) => [name, e.field(params[name]!, name)]));
  const value = build(e, args);
  const body = new FunctionBody(names.length);
  const lowering = new PureLowering(body, names);
  lowering.lower(e.body);
  lowering.result(value);
  module.addFunction({ params: names.map((n) => params[n]!), results: [value.type] }, body, name);
}
