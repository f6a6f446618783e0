import type { Helper, Stmt, Val, VOperand, XOperand } from '../a64/emitter.js';
import { Offset, STATE } from '../cpu/layout.js';
import type { ByteWriter, FunctionBody } from './wasm-module.js';
import type { WasmType } from './wasm-opcodes.js';

/** The WebAssembly opcodes that the lowering writes itself (Core Specification 2.0, 5.4). */
export const W = {
  BLOCK: 0x02,
  LOOP: 0x03,
  IF: 0x04,
  ELSE: 0x05,
  END: 0x0b,
  BR: 0x0c,
  BR_IF: 0x0d,
  BR_TABLE: 0x0e,
  RETURN: 0x0f,
  CALL: 0x10,
  CALL_INDIRECT: 0x11,
  RETURN_CALL_INDIRECT: 0x13,
  SELECT: 0x1b,
  LOCAL_GET: 0x20,
  LOCAL_SET: 0x21,
  LOCAL_TEE: 0x22,
  I32_LOAD: 0x28,
  I64_LOAD: 0x29,
  F32_LOAD: 0x2a,
  F64_LOAD: 0x2b,
  I32_LOAD8_U: 0x2d,
  I32_LOAD16_U: 0x2f,
  I64_LOAD32_U: 0x35,
  I32_STORE: 0x36,
  I64_STORE: 0x37,
  F32_STORE: 0x38,
  F64_STORE: 0x39,
  I32_STORE8: 0x3a,
  I32_STORE16: 0x3b,
  I32_CONST: 0x41,
  I64_CONST: 0x42,
  F32_CONST: 0x43,
  F64_CONST: 0x44,
  I32_EQZ: 0x45,
  I32_EQ: 0x46,
  I32_NE: 0x47,
  I32_LT_S: 0x48,
  I32_LT_U: 0x49,
  I32_GE_S: 0x4e,
  I64_EQZ: 0x50,
  I64_EQ: 0x51,
  I32_ADD: 0x6a,
  I32_SUB: 0x6b,
  I32_AND: 0x71,
  I32_SHL: 0x74,
  I32_SHR_S: 0x75,
  I32_SHR_U: 0x76,
  I64_ADD: 0x7c,
  I64_SUB: 0x7d,
  I64_AND: 0x83,
  I64_OR: 0x84,
  I64_SHR_U: 0x88,
  I32_WRAP: 0xa7,
  I64_EXTEND_U: 0xad,
  VOID: 0x40,
} as const;

/**
 * A load or store table: entries of 16 bytes, and the shift and mask that make an entry's byte offset from an address; behind
 * them what second-level entries of this table have in the low bits of their page's address, where that level's table is, and,
 * where alignment is checked, what entries have in the low bits that only aligned accesses may find, which never get into this
 * level; else zero.
 */
export const TLB_ENTRIES = 2048;
export const TLB_INDEX_SHIFT = 8;
export const TLB_INDEX_MASK = (TLB_ENTRIES - 1) << 4;
export const TLB_KEY = TLB_ENTRIES * 16;
export const TLB_SECOND = TLB_KEY + 4;
export const TLB_ALIGNED_KEY = TLB_KEY + 8;
export const TLB_TABLE_SIZE = TLB_KEY + 16;
/** An entry stands for the last address of its page, so that zeroes stand for none. */
export const TLB_OFFSET_BITS = 0xfff;
/** A second-level table: as many pages as 64 MiB have. */
export const SECOND_ENTRIES = 16384;
export const SECOND_INDEX_MASK = (SECOND_ENTRIES - 1) << 4;

/** Functions that every generated module needs: the slow halves of memory accesses. */
export interface MemoryFunctions {
  /** (va) -> i32: the address in linear memory to load from (SCRATCH where the value was put together there); 0: leave, EXIT is set. */
  readonly load: (bytes: number, unprivileged: boolean) => number;
  /** (va) -> i32: the address to store to (SCRATCH, where the value already is, if the store was done); 0: leave, EXIT is set. */
  readonly store: (bytes: number, unprivileged: boolean) => number;
  /** The same as {@link load} and {@link store}, for who has not looked in the first-level table. */
  readonly find: (kind: 'load' | 'store', bytes: number) => number;
  /**
   * The same as {@link load} and {@link store}, where the state of the vCPU, PC and budget with it, is exact and the instruction
   * is in DETAIL: an access to a device is answered in the call, with what was read in SCRATCH. Registers may have changed.
   */
  readonly device: (kind: 'load' | 'store', bytes: number) => number;
}

const SIMD = 0xfd;
const V128_LOAD = 0x00;
const V128_STORE = 0x0b;
const V128_CONST = 0x0c;

/** Lowers an instruction's program into a function body. Where operands live, and how code is left, is the subclass's business. */
export abstract class Lowering {
  protected readonly body: FunctionBody;
  protected readonly code: ByteWriter;
  /** Blocks opened by this lowering and not yet closed: what a branch to an outer label must add. */
  protected depth = 0;
  readonly #free: Record<WasmType, number[]> = { i32: [], i64: [], f32: [], f64: [], v128: [] };
  readonly #taken: [WasmType, number][] = [];
  /** Values and variables of the program that have a local. */
  readonly #placed: { local: number }[] = [];

  constructor(body: FunctionBody) {
    this.body = body;
    this.code = body.code;
  }

  protected abstract helperIndex(helper: Helper): number;
  protected abstract pushField(type: WasmType, field: string): void;
  protected abstract pushPc(): void;
  protected abstract pushX(reg: XOperand, wide: boolean): void;
  protected abstract storeX(reg: XOperand, value: () => void): void;
  /** Pushes an address for a V register access, to be completed by a memory instruction with offset {@link STATE} + `offset`. */
  protected abstract pushVBase(reg: VOperand, write: boolean): void;
  /** Pushes the address for a state word whose offset is a field. */
  protected abstract pushStateAtBase(field: string): void;
  /** Leaves the generated code; EXIT is set. */
  protected abstract leave(): void;
  /** How many branches of the program are open around what is being lowered. */
  protected nesting = 0;
  protected abstract jump(cond: (() => void) | undefined, offset: Val): void;
  /** @param btype pushes PSTATE.BTYPE times 4, where the branch leaves it other than 0 */
  protected abstract jumpTo(target: () => void, btype: (() => void) | undefined): void;

  /** Calls a helper whose arguments are on the stack. */
  protected callHelper(helper: Helper): void {
    this.call(this.helperIndex(helper));
  }

  /** Loads from guest memory, and gives the value its local, or both their own. */
  protected abstract guestLoad(v: Val, n: Extract<Val['node'], { k: 'load' }>): void;
  protected abstract guestStore(s: Extract<Stmt, { k: 'store' }>): void;

  /** The local that holds a word of the state here, where one does. */
  protected stateLocal(_offset: number, _write: boolean): number | undefined {
    return undefined;
  }
  /** The state offset that a decoded field holds, where it is known now. */
  protected fieldOffset(_field: string): number | undefined {
    return undefined;
  }

  /** Sets NZCV to an operation's. */
  protected setFlags(s: Extract<Stmt, { k: 'flags' }>): void {
    this.lower(s.words);
  }
  /** Pushes whether a condition holds. */
  protected pushCondition(n: Extract<Val['node'], { k: 'condition' }>): void {
    this.lower(n.words);
    this.push(n.v);
  }

  /** A local for the rest of this instruction. */
  protected local(type: WasmType): number {
    const index = this.#free[type].pop() ?? this.body.addLocal(type);
    this.#taken.push([type, index]);
    return index;
  }

  /** Gives back every local that {@link local} handed out; the program can be lowered again. */
  protected releaseLocals(): void {
    for (const [type, index] of this.#taken) this.#free[type].push(index);
    this.#taken.length = 0;
    for (const holder of this.#placed) holder.local = -1;
    this.#placed.length = 0;
  }

  /** Gives a value or a variable of the program a local. */
  protected place(holder: { readonly type: WasmType; local: number }): number {
    holder.local = this.local(holder.type);
    this.#placed.push(holder);
    return holder.local;
  }

  lower(stmts: readonly Stmt[]): void {
    for (const s of stmts) this.#stmt(s);
  }

  #stmt(s: Stmt): void {
    const c = this.code;
    switch (s.k) {
      case 'def':
        this.#define(s.v);
        return;
      case 'x':
        this.storeX(s.reg, () => this.push(s.v));
        return;
      case 'v':
        this.#storeV(s);
        return;
      case 'state': {
        const local = this.stateLocal(s.offset, true);
        if (local !== undefined) {
          this.push(s.v);
          this.setLocal(local);
          return;
        }
        this.i32Const(0);
        this.push(s.v);
        this.memoryOp(storeOpcode(s.v.type), STATE + s.offset);
        return;
      }
      case 'stateAt': {
        const offset = this.fieldOffset(s.field);
        const local = offset === undefined ? undefined : this.stateLocal(offset, true);
        if (local !== undefined) {
          this.push(s.v);
          this.setLocal(local);
          return;
        }
        this.pushStateAtBase(s.field);
        this.push(s.v);
        this.memoryOp(W.I64_STORE, STATE);
        return;
      }
      case 'flags':
        this.setFlags(s);
        return;
      case 'set':
        this.push(s.v);
        if (s.target.local < 0) this.place(s.target);
        this.setLocal(s.target.local);
        return;
      case 'store':
        this.guestStore(s);
        return;
      case 'if':
        this.push(s.cond);
        if (isRare(s.then) !== isRare(s.otherwise)) this.body.expect(isRare(s.otherwise));
        c.u8(W.IF);
        c.u8(W.VOID);
        this.depth++;
        this.nesting++;
        this.lower(s.then);
        if (s.otherwise.length > 0) {
          c.u8(W.ELSE);
          this.lower(s.otherwise);
        }
        c.u8(W.END);
        this.nesting--;
        this.depth--;
        return;
      case 'call':
        for (const a of s.args) this.push(a);
        this.callHelper(s.helper);
        return;
      case 'checkExit':
        this.i32Const(0);
        this.memoryOp(W.I32_LOAD, STATE + Offset.EXIT);
        this.body.expect(false);
        c.u8(W.IF);
        c.u8(W.VOID);
        this.depth++;
        this.leave();
        c.u8(W.END);
        this.depth--;
        return;
      case 'exit':
        this.i32Const(0);
        this.i32Const(s.code);
        this.memoryOp(W.I32_STORE, STATE + Offset.EXIT);
        if (s.detail !== undefined) {
          this.i32Const(0);
          this.push(s.detail);
          this.memoryOp(W.I32_STORE, STATE + Offset.DETAIL);
        }
        this.leave();
        return;
      case 'jump': {
        const cond = s.cond;
        this.jump(cond === undefined ? undefined : () => this.push(cond), s.offset);
        return;
      }
      case 'jumpTo': {
        const { btype } = s;
        this.jumpTo(() => this.push(s.target), btype === undefined ? undefined : () => this.push(btype));
        return;
      }
    }
  }

  /** Gives a value its local at the place where it was made, if it needs one. */
  #define(v: Val): void {
    const n = v.node;
    const impure =
      n.k === 'x' ||
      n.k === 'v' ||
      n.k === 'state' ||
      n.k === 'stateAt' ||
      n.k === 'var' ||
      n.k === 'load' ||
      n.k === 'call' ||
      n.k === 'condition';
    if (n.k === 'load') {
      this.guestLoad(v, n);
      return;
    }
    if (v.uses === 0 && n.k !== 'call') return;
    if (!impure && v.uses < 2) return;
    this.#compute(v);
    this.setLocal(this.place(v));
  }

  /** Pushes a value. */
  protected push(v: Val): void {
    if (v.local >= 0) this.getLocal(v.local);
    else this.#compute(v);
  }

  #compute(v: Val): void {
    const c = this.code;
    const n = v.node;
    switch (n.k) {
      case 'const':
        this.constant(v.type, n.value);
        return;
      case 'field':
        this.pushField(v.type, n.field);
        return;
      case 'op':
        for (const a of n.args) this.push(a);
        c.raw(n.op.code);
        if (n.lanes !== undefined) c.raw(n.lanes);
        return;
      case 'select':
        this.push(n.a);
        this.push(n.b);
        this.push(n.cond);
        if (v.type === 'v128') c.raw([0x1c, 0x01, 0x7b]);
        else c.u8(W.SELECT);
        return;
      case 'pc':
        this.pushPc();
        return;
      case 'x':
        this.pushX(n.reg, n.wide);
        return;
      case 'v':
        this.pushVBase(n.reg, false);
        this.loadPart(v.type, n.bytes, STATE + n.offset);
        return;
      case 'vaddr':
        this.pushVBase(n.reg, false);
        this.i32Const(STATE);
        c.u8(W.I32_ADD);
        return;
      case 'state':
        this.pushState(v.type, n.bytes, n.offset);
        return;
      case 'stateAt': {
        const offset = this.fieldOffset(n.field);
        const local = offset === undefined ? undefined : this.stateLocal(offset, false);
        if (local !== undefined) this.getLocal(local);
        else {
          this.pushStateAtBase(n.field);
          this.memoryOp(W.I64_LOAD, STATE);
        }
        return;
      }
      case 'var':
        this.getLocal(n.v.local);
        return;
      case 'call':
        for (const a of n.args) this.push(a);
        this.callHelper(n.helper);
        return;
      case 'condition':
        this.pushCondition(n);
        return;
      case 'load':
      case 'second':
        throw new Error('a load is defined where it stands');
    }
  }

  /** Pushes a word of the state, from its local where it has one here. */
  protected pushState(type: WasmType, bytes: number, offset: number): void {
    const local = this.stateLocal(offset, false);
    if (local !== undefined) this.getLocal(local);
    else {
      this.i32Const(0);
      this.loadPart(type, bytes, STATE + offset);
    }
  }

  protected loadPart(type: WasmType, bytes: number, offset: number): void {
    if (type === 'v128') this.simdMemoryOp(V128_LOAD, offset);
    else if (type === 'i64') this.memoryOp(W.I64_LOAD, offset);
    else if (type === 'f64') this.memoryOp(W.F64_LOAD, offset);
    else if (type === 'f32') this.memoryOp(W.F32_LOAD, offset);
    else this.memoryOp(bytes === 1 ? W.I32_LOAD8_U : bytes === 2 ? W.I32_LOAD16_U : W.I32_LOAD, offset);
  }

  protected storePart(type: WasmType, bytes: number, offset: number): void {
    if (type === 'v128') this.simdMemoryOp(V128_STORE, offset);
    else if (type === 'i32')
      this.memoryOp(bytes === 1 ? W.I32_STORE8 : bytes === 2 ? W.I32_STORE16 : W.I32_STORE, offset);
    else this.memoryOp(storeOpcode(type), offset);
  }

  #storeV(s: Extract<Stmt, { k: 'v' }>): void {
    if (s.clear) {
      this.pushVBase(s.reg, true);
      this.constant('v128', 0n);
      // The value may have been read from this register: it has a local of its own by now, or is pure.
      const value = s.v;
      const keep = this.local(value.type);
      this.push(value);
      this.setLocal(keep);
      this.simdMemoryOp(V128_STORE, STATE);
      this.pushVBase(s.reg, true);
      this.getLocal(keep);
      this.storePart(value.type, s.bytes, STATE + s.offset);
      return;
    }
    this.pushVBase(s.reg, true);
    this.push(s.v);
    this.storePart(s.v.type, s.bytes, STATE + s.offset);
  }

  // Small pieces.

  protected i32Const(value: number): void {
    this.code.u8(W.I32_CONST);
    this.code.s32(value);
  }

  protected constant(type: WasmType, value: bigint | number): void {
    const c = this.code;
    if (type === 'i32') this.i32Const(Number(value));
    else if (type === 'i64') {
      c.u8(W.I64_CONST);
      c.s64(BigInt(value));
    } else if (type === 'f32') {
      c.u8(W.F32_CONST);
      c.raw(new Uint8Array(new Float32Array([Number(value)]).buffer));
    } else if (type === 'f64') {
      c.u8(W.F64_CONST);
      c.raw(new Uint8Array(new Float64Array([Number(value)]).buffer));
    } else {
      c.raw([SIMD, V128_CONST]);
      const wide = BigInt(value);
      c.raw(new Uint8Array(new BigUint64Array([BigInt.asUintN(64, wide), wide >> 64n]).buffer));
    }
  }

  protected getLocal(index: number): void {
    this.code.u8(W.LOCAL_GET);
    this.code.u32(index);
  }
  protected setLocal(index: number): void {
    this.code.u8(W.LOCAL_SET);
    this.code.u32(index);
  }
  protected teeLocal(index: number): void {
    this.code.u8(W.LOCAL_TEE);
    this.code.u32(index);
  }
  protected call(index: number): void {
    this.body.call(index);
  }
  /** A memory instruction with alignment 1 (no hint) and a constant offset. */
  protected memoryOp(opcode: number, offset: number): void {
    this.code.u8(opcode);
    this.code.u8(0);
    this.code.u32(offset);
  }
  protected simdMemoryOp(opcode: number, offset: number): void {
    this.code.u8(SIMD);
    this.code.u8(opcode);
    this.code.u8(0);
    this.code.u32(offset);
  }
}

/** Whether a branch of a program is one that is seldom taken: it leaves, or it calls a helper because the short way was not exact. */
const isRare = (stmts: readonly Stmt[]): boolean =>
  stmts.some((s) => s.k === 'exit' || s.k === 'call' || (s.k === 'def' && s.v.node.k === 'call'));

function storeOpcode(type: WasmType): number {
  switch (type) {
    case 'i32':
      return W.I32_STORE;
    case 'i64':
      return W.I64_STORE;
    case 'f32':
      return W.F32_STORE;
    case 'f64':
      return W.F64_STORE;
    case 'v128':
      throw new Error('v128 state is written through V registers');
  }
}
