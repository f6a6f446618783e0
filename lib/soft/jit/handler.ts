import { Emitter, type Helper, type Val, type VOperand, type XOperand } from '../a64/emitter.js';
import type { Row } from '../a64/row.js';
import { ExitCode, Offset, STATE } from '../cpu/layout.js';
import { GuestAccessLowering } from './guest-access.js';
import { type MemoryFunctions, W } from './lower.js';
import type { RawFields } from './operands.js';
import type { FunctionBody } from './wasm-module.js';
import type { WasmType } from './wasm-opcodes.js';

/**
 * A handler is one row of the instruction table with its static fields fixed, as a piece of WebAssembly that reads the rest
 * from a decoded record. A record is 16 bytes: u16 handler, then the operands where {@link HandlerLayout} says.
 */
export const RECORD_SIZE = 16;
export const RECORD_SHIFT = 4;

/** Handlers that every record may hold besides the table's. */
export const DECODE = 0;
export const PAGE_END = 1;
export const UNDEFINED = 2;
/** The start of a compiled region: byte 8 of the record holds its place in the table. */
export const REGION = 3;

/** Handlers that can be made while the machine runs. */
export const MAX_HANDLERS = 16384;
/** Compiled regions that can be there at once; the table has them after the handlers. */
export const MAX_REGIONS = 16384;

interface Slot {
  readonly offset: number;
  readonly key: string;
}

/** Where a handler finds its operands in the record. */
export interface HandlerLayout {
  /** The operands, each with its byte offset in the record and its key (see {@link operandReader}). */
  readonly slots: readonly Slot[];
  /** The 64-bit constant is at byte 8. */
  readonly hasImm: boolean;
}

/** Byte offset in a record of a handler's n-th operand: behind the handler's number, two bytes each. */
export const slotOffset = (n: number): number => 2 + n * 2;

/** Hands out the record's bytes to operands in the order in which the handler first uses them. */
class SlotAllocator implements HandlerLayout {
  readonly slots: Slot[] = [];
  readonly hasImm: boolean;
  readonly #row: Row;
  readonly #offsets = new Map<string, number>();

  constructor(row: Row) {
    this.#row = row;
    this.hasImm = row.imm !== undefined;
  }

  at(key: string): number {
    let offset = this.#offsets.get(key);
    if (offset === undefined) {
      offset = slotOffset(this.slots.length);
      if (offset >= (this.hasImm ? 8 : RECORD_SIZE))
        throw new Error(`${this.#row.name} has too many operands for a record`);
      this.#offsets.set(key, offset);
      this.slots.push({ offset, key });
    }
    return offset;
  }
}

/** Key of a handler: the row's static fields of `raw`, in order. */
export function staticsOf(row: Row, raw: RawFields): string {
  let key = '';
  for (const f of row.fields) if (f.kind === 'static') key += `${raw[f.name]},`;
  return key;
}

/**
 * Whether the instruction is a load or store with SP as its base, which must be aligned. Such instructions have handlers of
 * their own, so that others pay nothing for it.
 */
export const isSpBased = (row: Row, raw: RawFields): boolean => raw.Rn === 31 && hasSpBase(row);
/** Loads and stores have x1x0 in bits 28..25. */
export const hasSpBase = (row: Row): boolean =>
  (row.value & 0x0a00_0000) === 0x0800_0000 && row.fields.some((f) => f.name === 'Rn' && f.kind === 'sp');

/** CheckSPAlignment (Arm ARM DDI 0487 J1.1). */
function checkSpAlignment(e: Emitter): void {
  const low = e.and(e.wrap(e.state('i64', Offset.SP)), e.state('i32', Offset.SP_MASK));
  e.if(low, () => e.exit(ExitCode.SP_ALIGNMENT));
}

export const FLAGS = { n: Offset.N, z: Offset.Z, c: Offset.C, v: Offset.V };

/** Runs a row's `emit` with these static field values. @param spChecked SP is known to be aligned */
export function emitRow(row: Row, raw: RawFields, spChecked = false): Emitter {
  const e = new Emitter(FLAGS);
  const fields: Record<string, number | Val | XOperand | VOperand> = {};
  let vector = false;
  for (const f of row.fields) {
    if (f.kind === 'static') fields[f.name] = raw[f.name] ?? 0;
    else if (f.kind === 'data') fields[f.name] = e.field('i32', f.name);
    else if (f.kind === 'v') {
      fields[f.name] = { kind: 'v', field: f.name };
      vector = true;
    } else fields[f.name] = { kind: 'x', field: f.name };
  }
  for (const name of Object.keys(row.ops)) fields[name] = e.field('i32', name);
  if (row.imm !== undefined) fields.imm = e.field('i64', 'imm');
  if (vector) e.if(e.state('i32', Offset.FP_TRAP), () => e.exit(ExitCode.FP_TRAP));
  if (!spChecked && isSpBased(row, raw)) checkSpAlignment(e);
  row.emit(e, fields);
  return e;
}

/** What a handler's code needs to know of the module it is put in. */
export interface HandlerContext {
  readonly memory: MemoryFunctions;
  readonly helper: (helper: Helper) => number;
  /** Local indices. */
  readonly rec: number;
  /** i64: PC minus rec / 4. */
  readonly pcBase: number;
}

/** Lowers handlers: operands come from the record that the local `rec` points to. */
export abstract class HandlerLowering extends GuestAccessLowering {
  protected readonly context: HandlerContext;
  protected layout: SlotAllocator | undefined;

  constructor(body: FunctionBody, context: HandlerContext) {
    super(body);
    this.context = context;
  }

  /** Lowers {@link checkSpAlignment} alone. */
  checkSp(): void {
    const e = new Emitter(FLAGS);
    checkSpAlignment(e);
    this.lower(e.body);
    this.releaseLocals();
  }

  /** Lowers a row; returns where its operands are expected. */
  lowerRow(row: Row, raw: RawFields): HandlerLayout {
    const layout = new SlotAllocator(row);
    this.layout = layout;
    this.lower(emitRow(row, raw).body);
    this.releaseLocals();
    return layout;
  }

  protected override helperIndex(helper: Helper): number {
    return this.context.helper(helper);
  }
  protected override memoryFunctions(): MemoryFunctions {
    return this.context.memory;
  }

  #pushSlot(key: string): void {
    this.getLocal(this.context.rec);
    this.memoryOp(W.I32_LOAD16_U, this.layout!.at(key));
  }
  protected override pushField(type: WasmType, field: string): void {
    if (field === 'imm') {
      this.getLocal(this.context.rec);
      this.memoryOp(type === 'i64' ? W.I64_LOAD : W.I32_LOAD, 8);
    } else this.#pushSlot(field);
  }
  protected override pushPc(): void {
    this.getLocal(this.context.pcBase);
    this.getLocal(this.context.rec);
    this.i32Const(2);
    this.code.u8(W.I32_SHR_U);
    this.code.u8(W.I64_EXTEND_U);
    this.code.u8(W.I64_ADD);
  }
  protected override pushX(reg: XOperand, wide: boolean): void {
    this.#pushSlot(`${reg.field}.r`);
    this.memoryOp(wide ? W.I64_LOAD : W.I32_LOAD, STATE + Offset.X);
  }
  protected override storeX(reg: XOperand, value: () => void): void {
    this.#pushSlot(`${reg.field}.w`);
    value();
    this.memoryOp(W.I64_STORE, STATE + Offset.X);
  }
  protected override pushVBase(reg: VOperand): void {
    this.#pushSlot(`${reg.field}.r`);
  }
  protected override pushStateAtBase(field: string): void {
    this.#pushSlot(field);
  }
}

/** A handler as a function of its own, `(rec: i32, pcBase: i64) -> i32`: 0 to go on, 1 to leave. */
export class OutOfLineLowering extends HandlerLowering {
  protected override leave(): void {
    this.i32Const(1);
    this.code.u8(W.RETURN);
  }
  protected override jump(): void {
    throw new Error('a branch is always part of the interpreter loop');
  }
  protected override jumpTo(): void {
    throw new Error('a branch is always part of the interpreter loop');
  }
}
