import { type WasmOp, type WasmType, wasmOp } from '../jit/wasm-opcodes.js';

/**
 * What an instruction's meaning is written in: a small typed program over guest state, built by calling {@link Emitter}.
 * The interpreter and the compiler lower the same program; they differ only in where an operand's value comes from.
 */

/** A general-purpose register field: X or W, with register 31 read as XZR or SP as the field's name says. */
export interface XOperand {
  readonly kind: 'x';
  readonly field: string;
}
/** A SIMD&FP register field. */
export interface VOperand {
  readonly kind: 'v';
  readonly field: string;
}

/** A value: immutable, of one WebAssembly type. */
export class Val {
  readonly type: WasmType;
  readonly node: ValNode;
  /** How many times it is used; the lowering gives a local to what is used more than once. */
  uses = 0;
  /** The local that holds it, once lowered; -1 before. */
  local = -1;

  constructor(type: WasmType, node: ValNode) {
    this.type = type;
    this.node = node;
  }
}

export type ValNode =
  | { readonly k: 'const'; readonly value: bigint | number }
  /** A field that is only known when the instruction is decoded. */
  | { readonly k: 'field'; readonly field: string }
  | { readonly k: 'op'; readonly op: WasmOp; readonly args: readonly Val[]; readonly lanes?: readonly number[] }
  | { readonly k: 'select'; readonly cond: Val; readonly a: Val; readonly b: Val }
  | { readonly k: 'pc' }
  | { readonly k: 'x'; readonly reg: XOperand; readonly wide: boolean }
  /** Part of a V register, from byte `offset`, loaded as the value's type (or `bytes` of it, zero-extended). */
  | { readonly k: 'v'; readonly reg: VOperand; readonly offset: number; readonly bytes: number }
  /** The address (i32) of a V register in linear memory, for helpers that work on it there. */
  | { readonly k: 'vaddr'; readonly reg: VOperand }
  /** A word of the CPU state at a fixed offset. */
  | { readonly k: 'state'; readonly offset: number; readonly bytes: number }
  /** A word of the CPU state whose offset is a decoded field. */
  | { readonly k: 'stateAt'; readonly field: string }
  | { readonly k: 'var'; readonly v: Var }
  /** `bytes` of guest memory; where there is a second value, it is the upper half of them. */
  | {
      readonly k: 'load';
      readonly bytes: number;
      readonly va: Val;
      readonly unprivileged: boolean;
      readonly second?: Val;
    }
  /** The other value of a load of two, which gives it its local. */
  | { readonly k: 'second' }
  | { readonly k: 'call'; readonly helper: Helper; readonly args: readonly Val[] }
  /** ConditionHolds(cond) of the flags as they are here; `v`, after `words`, is what their words say. */
  | { readonly k: 'condition'; readonly cond: number; readonly words: readonly Stmt[]; readonly v: Val };

/** What flags can be told from: an addition, a subtraction, or a logical operation's result alone. */
export type FlagOperation = 'add' | 'sub' | 'logical';

/** A variable: for values that differ by branch. */
export class Var {
  readonly type: WasmType;
  local = -1;
  constructor(type: WasmType) {
    this.type = type;
  }
}

/** A function outside the generated code, imported by name. */
export interface Helper {
  readonly name: string;
  readonly params: readonly WasmType[];
  readonly result?: WasmType;
}

export type Stmt =
  | { readonly k: 'def'; readonly v: Val }
  | { readonly k: 'x'; readonly reg: XOperand; readonly v: Val }
  /** Writes the value at byte `offset` of a V register; `clear` zeroes the rest of the 128 bits. */
  | {
      readonly k: 'v';
      readonly reg: VOperand;
      readonly offset: number;
      readonly bytes: number;
      readonly v: Val;
      readonly clear: boolean;
    }
  | { readonly k: 'state'; readonly offset: number; readonly v: Val }
  | { readonly k: 'stateAt'; readonly field: string; readonly v: Val }
  /** Sets NZCV to what an operation on `a` and `b` gives, which is what `words` does. */
  | {
      readonly k: 'flags';
      readonly operation: FlagOperation;
      readonly a: Val;
      readonly b: Val;
      readonly words: readonly Stmt[];
    }
  | { readonly k: 'set'; readonly target: Var; readonly v: Val }
  /** `second` goes into the upper half of the bytes. */
  | {
      readonly k: 'store';
      readonly bytes: number;
      readonly va: Val;
      readonly v: Val;
      readonly unprivileged: boolean;
      readonly second?: Val;
    }
  | { readonly k: 'if'; readonly cond: Val; readonly then: readonly Stmt[]; readonly otherwise: readonly Stmt[] }
  | { readonly k: 'call'; readonly helper: Helper; readonly args: readonly Val[] }
  /** Leaves the generated code if the last helper asked for it. */
  | { readonly k: 'checkExit' }
  /** Leaves the generated code for good. PC stays at this instruction. */
  | { readonly k: 'exit'; readonly code: number; readonly detail: Val | undefined }
  /** Continues at PC + offset (direct) or at the target (indirect). */
  | { readonly k: 'jump'; readonly cond: Val | undefined; readonly offset: Val }
  | { readonly k: 'jumpTo'; readonly target: Val; readonly btype: Val | undefined };

const MASK64 = (1n << 64n) - 1n;

/** Folds an operation on constants where it is cheap and common; otherwise `undefined`. */
function fold(name: string, a: bigint, b: bigint): bigint | undefined {
  switch (name) {
    case 'add':
      return a + b;
    case 'sub':
      return a - b;
    case 'mul':
      return a * b;
    case 'and':
      return a & b;
    case 'or':
      return a | b;
    case 'xor':
      return a ^ b;
    default:
      return undefined;
  }
}

/** Bytes of a value type. */
const SIZE: Readonly<Record<WasmType, number>> = { i32: 4, i64: 8, f32: 4, f64: 8, v128: 16 };

/** Offsets of the flag words in the CPU state; the flags' encoding is described at {@link Emitter.setFlags}. */
export interface FlagOffsets {
  readonly n: number;
  readonly z: number;
  readonly c: number;
  readonly v: number;
}

/** Builds the meaning of one instruction. Every method that takes values returns a new one; none changes its arguments. */
export class Emitter {
  /** The finished program. */
  readonly body: Stmt[] = [];
  #block: Stmt[] = this.body;
  readonly #flags: FlagOffsets;

  constructor(flags: FlagOffsets) {
    this.#flags = flags;
  }

  #def(type: WasmType, node: ValNode): Val {
    const v = new Val(type, node);
    this.#block.push({ k: 'def', v });
    return v;
  }

  #use(...vals: readonly Val[]): void {
    for (const v of vals) v.uses++;
  }

  // Constants and fields.

  i32(value: number): Val {
    return new Val('i32', { k: 'const', value: value | 0 });
  }

  i64(value: bigint | number): Val {
    return new Val('i64', { k: 'const', value: BigInt.asIntN(64, BigInt(value)) });
  }

  f32(value: number): Val {
    return new Val('f32', { k: 'const', value });
  }

  f64(value: number): Val {
    return new Val('f64', { k: 'const', value });
  }

  /** 128-bit constant. */
  v128(value: bigint): Val {
    return new Val('v128', { k: 'const', value: BigInt.asUintN(128, value) });
  }

  /** A decoded field as a value; rows get these ready-made. */
  field(type: 'i32' | 'i64', field: string): Val {
    return new Val(type, { k: 'field', field });
  }

  /** The constant behind a value, if it is one. */
  constant(v: Val): bigint | number | undefined {
    return v.node.k === 'const' ? v.node.value : undefined;
  }

  // Pure operations.

  /** Any pure WebAssembly instruction, by its text-format name: `e.op('i8x16.add', a, b)`. */
  op(name: string, ...args: readonly Val[]): Val {
    return this.#op(name, args);
  }

  /** A SIMD instruction with a lane index: `e.lane('i16x8.extract_lane_u', 3, v)`. */
  lane(name: string, lane: number, ...args: readonly Val[]): Val {
    return this.#op(name, args, [lane]);
  }

  /** i8x16.shuffle: `lanes[i]` 0..15 picks from `a`, 16..31 from `b`. */
  shuffle(a: Val, b: Val, lanes: readonly number[]): Val {
    return this.#op('i8x16.shuffle', [a, b], lanes);
  }

  #op(name: string, args: readonly Val[], lanes?: readonly number[]): Val {
    const op = wasmOp(name);
    if (
      args.length !== op.params.length ||
      args.some((a, i) => a.type !== op.params[i]) ||
      (lanes?.length ?? 0) !== op.lanes
    ) {
      throw new Error(`${name} wants (${op.params.join(', ')}), got (${args.map((a) => a.type).join(', ')})`);
    }
    this.#use(...args);
    return this.#def(op.result, lanes === undefined ? { k: 'op', op, args } : { k: 'op', op, args, lanes });
  }

  #int(name: string, a: Val, b: Val): Val {
    const ca = this.constant(a);
    const cb = this.constant(b);
    if (ca !== undefined && cb !== undefined) {
      const folded = fold(name, BigInt(ca), BigInt(cb));
      if (folded !== undefined)
        return a.type === 'i32' ? this.i32(Number(BigInt.asIntN(32, folded))) : this.i64(folded);
    }
    if (
      cb !== undefined &&
      BigInt(cb) === 0n &&
      (name === 'add' ||
        name === 'sub' ||
        name === 'or' ||
        name === 'xor' ||
        name === 'shl' ||
        name === 'shr_u' ||
        name === 'shr_s')
    ) {
      return a;
    }
    return this.#op(`${a.type}.${name}`, [a, b]);
  }

  add(a: Val, b: Val): Val {
    return this.#int('add', a, b);
  }
  sub(a: Val, b: Val): Val {
    return this.#int('sub', a, b);
  }
  mul(a: Val, b: Val): Val {
    return this.#int('mul', a, b);
  }
  and(a: Val, b: Val): Val {
    return this.#int('and', a, b);
  }
  or(a: Val, b: Val): Val {
    return this.#int('or', a, b);
  }
  xor(a: Val, b: Val): Val {
    return this.#int('xor', a, b);
  }
  /** Bitwise NOT. */
  not(a: Val): Val {
    return this.#int('xor', a, a.type === 'i32' ? this.i32(-1) : this.i64(-1n));
  }
  /** Shifts take the amount modulo the width, as WebAssembly and A64's variable shifts do; the amount has the value's type. */
  shl(a: Val, n: Val): Val {
    return this.#int('shl', a, n);
  }
  shrU(a: Val, n: Val): Val {
    return this.#int('shr_u', a, n);
  }
  shrS(a: Val, n: Val): Val {
    return this.#int('shr_s', a, n);
  }
  rotr(a: Val, n: Val): Val {
    return this.#int('rotr', a, n);
  }
  eqz(a: Val): Val {
    return this.#op(`${a.type}.eqz`, [a]);
  }
  eq(a: Val, b: Val): Val {
    return this.#int('eq', a, b);
  }
  ne(a: Val, b: Val): Val {
    return this.#int('ne', a, b);
  }
  ltU(a: Val, b: Val): Val {
    return this.#int('lt_u', a, b);
  }
  ltS(a: Val, b: Val): Val {
    return this.#int('lt_s', a, b);
  }
  geU(a: Val, b: Val): Val {
    return this.#int('ge_u', a, b);
  }
  geS(a: Val, b: Val): Val {
    return this.#int('ge_s', a, b);
  }
  /** The low 32 bits. */
  wrap(a: Val): Val {
    const c = this.constant(a);
    return c !== undefined ? this.i32(Number(BigInt.asIntN(32, BigInt(c)))) : this.#op('i32.wrap_i64', [a]);
  }
  /** i32 to i64, zero-extended. */
  extU(a: Val): Val {
    const c = this.constant(a);
    return c !== undefined ? this.i64(BigInt.asUintN(32, BigInt(c))) : this.#op('i64.extend_i32_u', [a]);
  }
  /** i32 to i64, sign-extended. */
  extS(a: Val): Val {
    const c = this.constant(a);
    return c !== undefined ? this.i64(BigInt(c)) : this.#op('i64.extend_i32_s', [a]);
  }
  /** `cond` (i32, any non-zero is true) ? a : b. Both are evaluated. */
  select(cond: Val, a: Val, b: Val): Val {
    this.#use(cond, a, b);
    return this.#def(a.type, { k: 'select', cond, a, b });
  }

  // Guest registers.

  /** PC: the address of this instruction. */
  pc(): Val {
    return this.#def('i64', { k: 'pc' });
  }
  /** 64-bit register read. */
  getX(reg: XOperand): Val {
    return this.#def('i64', { k: 'x', reg, wide: true });
  }
  /** 32-bit register read, as i32. */
  getW(reg: XOperand): Val {
    return this.#def('i32', { k: 'x', reg, wide: false });
  }
  /** Reads X as i64 or W as i32. */
  getR(sf: number, reg: XOperand): Val {
    return sf === 1 ? this.getX(reg) : this.getW(reg);
  }
  /** Writes a register: an i64 whole, an i32 zero-extended. */
  setR(reg: XOperand, v: Val): void {
    const wide = v.type === 'i32' ? this.extU(v) : v;
    this.#use(wide);
    this.#block.push({ k: 'x', reg, v: wide });
  }
  /** All 128 bits of a V register. */
  getV(reg: VOperand): Val {
    return this.#def('v128', { k: 'v', reg, offset: 0, bytes: 16 });
  }
  /** Writes all 128 bits. */
  setV(reg: VOperand, v: Val): void {
    this.#use(v);
    this.#block.push({ k: 'v', reg, offset: 0, bytes: 16, v, clear: false });
  }
  /** A part of a V register: `bytes` at `index * bytes`, as i32 (1, 2, 4 bytes, zero-extended), i64 (8), f32 or f64. */
  getElem(reg: VOperand, bytes: 1 | 2 | 4 | 8, index = 0, float = false): Val {
    const type: WasmType = float ? (bytes === 8 ? 'f64' : 'f32') : bytes === 8 ? 'i64' : 'i32';
    return this.#def(type, { k: 'v', reg, offset: index * bytes, bytes });
  }
  /** Writes a scalar of `bytes` at the bottom and zeroes the rest, as every scalar SIMD&FP instruction does. */
  setScalar(reg: VOperand, bytes: 1 | 2 | 4 | 8, v: Val): void {
    this.#use(v);
    this.#block.push({ k: 'v', reg, offset: 0, bytes, v, clear: true });
  }
  /** Writes one element and leaves the rest (INS). */
  setElem(reg: VOperand, bytes: 1 | 2 | 4 | 8, index: number, v: Val): void {
    this.#use(v);
    this.#block.push({ k: 'v', reg, offset: index * bytes, bytes, v, clear: false });
  }

  /** The address of a V register in linear memory (i32), for a helper that reads or writes it there. */
  vAddress(reg: VOperand): Val {
    return this.#def('i32', { k: 'vaddr', reg });
  }

  // CPU state.

  /** A word of the CPU state. */
  state(type: WasmType, offset: number): Val {
    return this.#def(type, { k: 'state', offset, bytes: SIZE[type] });
  }
  setState(offset: number, v: Val): void {
    this.#use(v);
    this.#block.push({ k: 'state', offset, v });
  }
  /** The 64-bit state word at the byte offset that a decoded field holds. */
  stateAt(field: string): Val {
    return this.#def('i64', { k: 'stateAt', field });
  }
  setStateAt(field: string, v: Val): void {
    this.#use(v);
    this.#block.push({ k: 'stateAt', field, v });
  }

  // Flags.

  /**
   * NZCV, each in a word of its own so that a comparison costs four stores and a condition one test:
   * N is the sign of the i64 `n`; Z is `z == 0` (i64); C is the i32 `c`, 0 or 1; V is the sign of the i64 `v`.
   */
  setFlags(n: Val, z: Val, c: Val, v: Val): void {
    this.setState(this.#flags.n, n);
    this.setState(this.#flags.z, z);
    this.setState(this.#flags.c, c);
    this.setState(this.#flags.v, v);
  }
  /**
   * Sets NZCV to those of an operation, all together: `words` does, with {@link setFlags}, and who lowers this may do it when they are
   * wanted. @param b of a logical operation is nobody's concern
   */
  flagsOf(operation: FlagOperation, a: Val, b: Val, words: () => void): void {
    this.#use(a, b);
    this.#block.push({ k: 'flags', operation, a, b, words: this.#collect(words) });
  }
  /** PSTATE.C as i32 0 or 1. */
  carry(): Val {
    return this.state('i32', this.#flags.c);
  }
  /** The whole of NZCV as an i32 in bits 31..28. */
  nzcv(): Val {
    const bit = (v: Val, n: number): Val => this.shl(v, this.i32(n));
    const n = bit(this.ltS(this.state('i64', this.#flags.n), this.i64(0n)), 31);
    const z = bit(this.eqz(this.state('i64', this.#flags.z)), 30);
    const c = bit(this.carry(), 29);
    const v = bit(this.ltS(this.state('i64', this.#flags.v), this.i64(0n)), 28);
    return this.or(this.or(n, z), this.or(c, v));
  }
  /** Sets NZCV from bits 31..28 of an i32. */
  setNzcv(nzcv: Val): void {
    const sign = (shift: number): Val => this.extS(this.shl(nzcv, this.i32(shift)));
    this.setFlags(
      sign(0),
      this.extU(this.and(this.xor(nzcv, this.i32(-1)), this.i32(0x4000_0000))),
      this.and(this.shrU(nzcv, this.i32(29)), this.i32(1)),
      sign(3),
    );
  }
  /** ConditionHolds(cond), as i32 0 or 1 (Arm ARM DDI 0487 J1.3, shared/functions/system/ConditionHolds). */
  condition(cond: number): Val {
    if (cond >= 14) return this.i32(1);
    const held: Val[] = [];
    const words = this.#collect(() => held.push(this.#conditionOfWords(cond)));
    return this.#def('i32', { k: 'condition', cond, words, v: held[0]! });
  }

  #conditionOfWords(cond: number): Val {
    const f = this.#flags;
    const n = (): Val => this.state('i64', f.n);
    const z = (): Val => this.state('i64', f.z);
    const v = (): Val => this.state('i64', f.v);
    const zero = this.i64(0n);
    switch (cond) {
      case 0b0000:
        return this.eqz(z());
      case 0b0001:
        return this.ne(z(), zero);
      case 0b0010:
        return this.carry();
      case 0b0011:
        return this.eqz(this.carry());
      case 0b0100:
        return this.ltS(n(), zero);
      case 0b0101:
        return this.geS(n(), zero);
      case 0b0110:
        return this.ltS(v(), zero);
      case 0b0111:
        return this.geS(v(), zero);
      case 0b1000:
        return this.and(this.carry(), this.ne(z(), zero));
      case 0b1001:
        return this.or(this.eqz(this.carry()), this.eqz(z()));
      case 0b1010:
        return this.geS(this.xor(n(), v()), zero);
      case 0b1011:
        return this.ltS(this.xor(n(), v()), zero);
      case 0b1100:
        return this.and(this.geS(this.xor(n(), v()), zero), this.ne(z(), zero));
      case 0b1101:
        return this.or(this.ltS(this.xor(n(), v()), zero), this.eqz(z()));
      default:
        return this.i32(1);
    }
  }

  // Memory. A fault, or an access that leaves for the kernel half, ends the instruction there: write registers back after the access.

  /** Loads 1, 2 or 4 bytes as i32 (zero-extended), 8 as i64, 16 as v128. @param unprivileged as EL0 does (LDTR) */
  load(bytes: 1 | 2 | 4 | 8 | 16, va: Val, unprivileged = false): Val {
    this.#use(va);
    return this.#def(bytes === 16 ? 'v128' : bytes === 8 ? 'i64' : 'i32', { k: 'load', bytes, va, unprivileged });
  }
  store(bytes: 1 | 2 | 4 | 8 | 16, va: Val, v: Val, unprivileged = false): void {
    this.#use(va, v);
    this.#block.push({ k: 'store', bytes, va, v, unprivileged });
  }
  /**
   * Two values of so many bytes, side by side, translated as one access. They are loaded one by one: a processor can't forward two
   * earlier stores to one load of both, and structures are written field by field.
   */
  loadPair(bytes: 4 | 8, va: Val): [Val, Val] {
    this.#use(va);
    const type = bytes === 8 ? 'i64' : 'i32';
    const second = new Val(type, { k: 'second' });
    return [this.#def(type, { k: 'load', bytes: bytes * 2, va, unprivileged: false, second }), second];
  }
  storePair(bytes: 4 | 8, va: Val, v: Val, second: Val): void {
    this.#use(va, v, second);
    this.#block.push({ k: 'store', bytes: bytes * 2, va, v, unprivileged: false, second });
  }

  // Control inside the instruction.

  /** Runs `then` where `cond` (i32) is not 0, else `otherwise`. Values made inside do not reach out: use a {@link Var}. */
  if(cond: Val, then: () => void, otherwise?: () => void): void {
    this.#use(cond);
    const thenBlock = this.#collect(then);
    const elseBlock = otherwise === undefined ? [] : this.#collect(otherwise);
    // biome-ignore lint/suspicious/noThenProperty: a branch of a statement, which nobody awaits.
    this.#block.push({ k: 'if', cond, then: thenBlock, otherwise: elseBlock });
  }
  /** What is built inside, as a block of its own. */
  #collect(build: () => void): Stmt[] {
    const outer = this.#block;
    const inner: Stmt[] = [];
    this.#block = inner;
    build();
    this.#block = outer;
    return inner;
  }
  /** A variable with a first value. */
  variable(initial: Val): Var {
    const v = new Var(initial.type);
    this.assign(v, initial);
    return v;
  }
  assign(target: Var, v: Val): void {
    this.#use(v);
    this.#block.push({ k: 'set', target, v });
  }
  /** The variable's value now. */
  read(v: Var): Val {
    return this.#def(v.type, { k: 'var', v });
  }

  // Leaving.

  /** Calls a helper; if it may raise an exception or change the machine's course, follow it with {@link checkExit}. */
  call(helper: Helper, ...args: readonly Val[]): Val | undefined {
    this.#use(...args);
    if (helper.result !== undefined) {
      // A call is never dropped or moved: it is defined where it stands.
      return this.#def(helper.result, { k: 'call', helper, args });
    }
    this.#block.push({ k: 'call', helper, args });
    return undefined;
  }
  checkExit(): void {
    this.#block.push({ k: 'checkExit' });
  }
  /** Ends the run with an {@link ExitCode}; PC stays at this instruction. `detail` (i32) goes with it. */
  exit(code: number, detail?: Val): void {
    if (detail !== undefined) this.#use(detail);
    this.#block.push({ k: 'exit', code, detail });
  }
  /** A direct branch to PC + `offset` bytes (i64 field or constant). */
  jump(offset: Val): void {
    this.#block.push({ k: 'jump', cond: undefined, offset });
  }
  /** The same if `cond` (i32) is not 0. Must be the last thing the instruction does. */
  jumpIf(cond: Val, offset: Val): void {
    this.#use(cond);
    this.#block.push({ k: 'jump', cond, offset });
  }
  /**
   * An indirect branch. Must be the last thing the instruction does.
   * @param btype PSTATE.BTYPE that it leaves (i32), times 4; 0 where not given
   */
  jumpTo(target: Val, btype?: Val): void {
    this.#use(target);
    if (btype !== undefined) this.#use(btype);
    this.#block.push({ k: 'jumpTo', target, btype });
  }
}

/** The 64-bit value a bigint stands for, unsigned. */
export const u64 = (value: bigint): bigint => value & MASK64;
