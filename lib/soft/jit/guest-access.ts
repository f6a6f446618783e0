import type { Stmt, Val } from '../a64/emitter.js';
import { Offset, STATE } from '../cpu/layout.js';
import { Lowering, type MemoryFunctions, TLB_INDEX_MASK, TLB_INDEX_SHIFT, TLB_OFFSET_BITS, W } from './lower.js';
import { TYPE_BYTE } from './wasm-module.js';

export type AccessKind = 'load' | 'store';

interface Access {
  readonly kind: AccessKind;
  /** The local with the virtual address. */
  readonly va: number;
  readonly bytes: number;
  /** It is LDTR's or STTR's. */
  readonly unprivileged: boolean;
}

/** Where an access lies in a span of accesses, see SpanPlan. */
export interface SpanAccess {
  /** i32 local: the linear address of the span's first byte, or 0. */
  readonly local: number;
  /** Bytes of the span. */
  readonly bytes: number;
  readonly offset: number;
  /** Whether the local is still to be set. */
  readonly isFirst: boolean;
}

/** Lowers accesses to guest memory: a look into the translation tables, and a load or store. */
export abstract class GuestAccessLowering extends Lowering {
  protected abstract memoryFunctions(): MemoryFunctions;

  /** Calls the slow half of a memory access, for the address on the stack. What is to be stored is in SCRATCH. */
  protected callMiss(kind: AccessKind, bytes: number, unprivileged: boolean): void {
    this.call(this.memoryFunctions()[kind](bytes, unprivileged));
  }

  /** The span that the access which is lowered next is part of. */
  protected nextSpan(): SpanAccess | undefined {
    return undefined;
  }

  protected override guestLoad(v: Val, n: Extract<Val['node'], { k: 'load' }>): void {
    const va = this.local('i64');
    this.push(n.va);
    this.setLocal(va);
    const offset = this.#pushLinear({ kind: 'load', va, bytes: n.bytes, unprivileged: n.unprivileged });
    if (n.second === undefined) {
      this.loadPart(v.type, n.bytes, offset);
      this.setLocal(this.place(v));
      return;
    }
    const at = this.local('i32');
    this.teeLocal(at);
    this.loadPart(v.type, n.bytes / 2, offset);
    this.setLocal(this.place(v));
    this.getLocal(at);
    this.loadPart(v.type, n.bytes / 2, offset + n.bytes / 2);
    this.setLocal(this.place(n.second));
  }

  protected override guestStore(s: Extract<Stmt, { k: 'store' }>): void {
    const va = this.local('i64');
    this.push(s.va);
    this.setLocal(va);
    const values = (s.second === undefined ? [s.v] : [s.v, s.second]).map((v) => {
      const local = this.local(v.type);
      this.push(v);
      this.setLocal(local);
      return local;
    });
    const bytes = s.bytes / values.length;
    const storeAll = (pushAddress: () => void, offset: number): void => {
      values.forEach((value, i) => {
        pushAddress();
        this.getLocal(value);
        this.storePart(s.v.type, bytes, offset + i * bytes);
      });
    };
    const { bytes: size, unprivileged } = s;
    const offset = this.#pushLinear({ kind: 'store', va, bytes: size, unprivileged }, () => {
      storeAll(() => this.i32Const(0), STATE + Offset.SCRATCH);
    });
    const at = this.local('i32');
    this.setLocal(at);
    storeAll(() => this.getLocal(at), offset);
  }

  /**
   * Pushes where in linear memory an access goes to, less what is returned.
   * @param beforeMiss writes what is stored to SCRATCH, where the slow half of a store wants it
   */
  #pushLinear(access: Access, beforeMiss: () => void = () => {}): number {
    const { kind, va, bytes, unprivileged } = access;
    const span = this.nextSpan();
    if (span === undefined) {
      const entry = this.#ifInTable(access, va, bytes);
      this.#pushFromTable(va, entry);
      this.code.u8(W.ELSE);
      beforeMiss();
      this.getLocal(va);
      this.callMiss(kind, bytes, unprivileged);
      this.#orLeave();
      this.#endIf();
      return 0;
    }
    const { local, offset } = span;
    const slow = (): void => {
      beforeMiss();
      this.getLocal(va);
      this.call(this.memoryFunctions().find(kind, bytes));
      this.#orLeave();
      this.i32Const(offset);
      this.code.u8(W.I32_SUB);
    };
    if (!span.isFirst) {
      this.getLocal(local);
      this.#openIf();
      this.getLocal(local);
      this.code.u8(W.ELSE);
      slow();
      this.#endIf();
      return offset;
    }
    const first = this.local('i64');
    this.getLocal(va);
    if (offset > 0) {
      this.#i64Const(-offset);
      this.code.u8(W.I64_ADD);
    }
    this.setLocal(first);
    const entry = this.#ifInTable(access, first, span.bytes);
    this.#pushFromTable(first, entry);
    this.teeLocal(local);
    this.code.u8(W.ELSE);
    this.i32Const(0);
    this.setLocal(local);
    slow();
    this.#endIf();
    return offset;
  }

  /** Opens an `if` with an address as its result, for where the access's table has a page that holds all of the bytes at an address. */
  #ifInTable({ kind, unprivileged }: Access, va: number, bytes: number): number {
    const c = this.code;
    const entry = this.local('i32');
    this.i32Const(0);
    this.memoryOp(W.I32_LOAD, STATE + TABLES[kind][unprivileged ? 1 : 0]);
    this.getLocal(va);
    c.u8(W.I32_WRAP);
    this.i32Const(TLB_INDEX_SHIFT);
    c.u8(W.I32_SHR_U);
    this.i32Const(TLB_INDEX_MASK);
    c.u8(W.I32_AND);
    c.u8(W.I32_ADD);
    this.teeLocal(entry);
    this.memoryOp(W.I64_LOAD, 0);
    // The page of the last byte: what crosses into the next page never matches.
    this.getLocal(va);
    if (bytes > 1) {
      this.#i64Const(bytes - 1);
      c.u8(W.I64_ADD);
    }
    this.#i64Const(TLB_OFFSET_BITS);
    c.u8(W.I64_OR);
    c.u8(W.I64_EQ);
    this.#openIf();
    return entry;
  }

  #pushFromTable(va: number, entry: number): void {
    this.getLocal(va);
    this.code.u8(W.I32_WRAP);
    this.getLocal(entry);
    this.memoryOp(W.I32_LOAD, 8);
    this.code.u8(W.I32_ADD);
  }

  /** For an address on the stack that is 0 where the access did not succeed. */
  #orLeave(): void {
    const address = this.local('i32');
    this.teeLocal(address);
    this.code.u8(W.I32_EQZ);
    this.body.expect(false);
    this.code.u8(W.IF);
    this.code.u8(W.VOID);
    this.depth++;
    this.leave();
    this.#endIf();
    this.getLocal(address);
  }

  /** Opens an `if` with an address as its result, for a condition that is expected to hold. */
  #openIf(): void {
    this.body.expect(true);
    this.code.u8(W.IF);
    this.code.u8(TYPE_BYTE.i32);
    this.depth++;
  }
  #endIf(): void {
    this.code.u8(W.END);
    this.depth--;
  }

  #i64Const(value: number): void {
    this.code.u8(W.I64_CONST);
    this.code.s32(value);
  }
}

const TABLES = {
  load: [Offset.TLB_LOAD, Offset.TLB_LOAD_EL0],
  store: [Offset.TLB_STORE, Offset.TLB_STORE_EL0],
} as const;
