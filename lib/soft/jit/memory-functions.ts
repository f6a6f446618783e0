import { Offset, STATE } from '../cpu/layout.js';
import {
  DEVICE_SIZES,
  deviceFunctionName,
  findFunctionName,
  MEMORY_FUNCTION,
  MEMORY_SIZES,
  memoryFunctionName,
} from './linkage.js';
import {
  type MemoryFunctions,
  SECOND_INDEX_MASK,
  TLB_ALIGNED_KEY,
  TLB_INDEX_MASK,
  TLB_INDEX_SHIFT,
  TLB_KEY,
  TLB_OFFSET_BITS,
  TLB_SECOND,
  W,
} from './lower.js';
import { FunctionBody, type ModuleBuilder } from './wasm-module.js';

const VA = 0;

/** What the imports are told beside the size of an access: it is LDTR's or STTR's; the vCPU's state is exact. */
export const UNPRIVILEGED = 0x100;
export const EXACT = 0x200;

/** Function indices of the imports that know what the tables do not. */
export interface MissFunctions {
  readonly load: number;
  readonly store: number;
}

/**
 * Adds to a module the functions that generated code calls for an access that its first-level table does not answer, and exports
 * them by name. They look in the second level; what they find there goes into the first, but where alignment is checked: then
 * the first level is empty, and an access that is not aligned to its size goes on to the import.
 */
export function addMemoryFunctions(module: ModuleBuilder, miss: MissFunctions): Map<string, number> {
  const indices = new Map<string, number>();
  const add = (name: string, kind: 'load' | 'store', bytes: number, flags: number): void => {
    const body = memoryFunction(kind, bytes, flags, miss[kind]);
    indices.set(name, module.addFunction(MEMORY_FUNCTION, body, name, name));
  };
  for (const kind of ['load', 'store'] as const) {
    for (const bytes of MEMORY_SIZES) {
      for (const unprivileged of [false, true]) {
        add(memoryFunctionName(kind, bytes, unprivileged), kind, bytes, unprivileged ? UNPRIVILEGED : 0);
      }
    }
    for (const bytes of MEMORY_SIZES) {
      const name = findFunctionName(kind, bytes);
      const body = findFunction(kind, bytes, indices.get(memoryFunctionName(kind, bytes, false))!);
      indices.set(name, module.addFunction(MEMORY_FUNCTION, body, name, name));
    }
    for (const bytes of DEVICE_SIZES) add(deviceFunctionName(kind, bytes), kind, bytes, EXACT);
  }
  return indices;
}

/** The memory functions of a module that has them itself. */
export const memoryFunctionsAt = (indices: ReadonlyMap<string, number>): MemoryFunctions => ({
  load: (bytes, unprivileged) => indices.get(memoryFunctionName('load', bytes, unprivileged))!,
  store: (bytes, unprivileged) => indices.get(memoryFunctionName('store', bytes, unprivileged))!,
  find: (kind, bytes) => indices.get(findFunctionName(kind, bytes))!,
  device: (kind, bytes) => indices.get(deviceFunctionName(kind, bytes))!,
});

const TABLES = {
  load: [Offset.TLB_LOAD, Offset.TLB_LOAD_EL0],
  store: [Offset.TLB_STORE, Offset.TLB_STORE_EL0],
} as const;

/** Writes the operations with an operand that these functions are made of. */
function operationsOf({ code: c }: FunctionBody) {
  const i32 = (value: number): void => {
    c.u8(W.I32_CONST);
    c.s32(value);
  };
  const i64 = (value: number): void => {
    c.u8(W.I64_CONST);
    c.s32(value);
  };
  const memory = (opcode: number, offset: number): void => {
    c.raw([opcode, 0]);
    c.u32(offset);
  };
  return { i32, i64, memory };
}

/** @param flags what the import is told beside the size */
function memoryFunction(kind: 'load' | 'store', bytes: number, flags: number, miss: number): FunctionBody {
  const body = new FunctionBody(1);
  const c = body.code;
  const table = body.addLocal('i32');
  const lo = body.addLocal('i32');
  const entry = body.addLocal('i32');
  const page = body.addLocal('i32');
  const get = (local: number): void => c.raw([W.LOCAL_GET, local]);
  const tee = (local: number): void => c.raw([W.LOCAL_TEE, local]);
  const { i32, i64, memory } = operationsOf(body);
  /** Pushes the byte offset of the address's entry. */
  const offset = (mask: number): void => {
    get(lo);
    i32(TLB_INDEX_SHIFT);
    c.u8(W.I32_SHR_U);
    i32(mask);
    c.u8(W.I32_AND);
  };

  get(VA);
  c.raw([W.I32_WRAP, W.LOCAL_SET, lo]);
  i32(0);
  memory(W.I32_LOAD, STATE + TABLES[kind][flags === UNPRIVILEGED ? 1 : 0]);
  tee(table);
  memory(W.I32_LOAD, TLB_SECOND);
  offset(SECOND_INDEX_MASK);
  c.u8(W.I32_ADD);
  tee(entry);
  memory(W.I64_LOAD, 0);
  // As in the first level: the page of the last byte against the entry of the first.
  get(VA);
  i64(bytes - 1);
  c.u8(W.I64_ADD);
  i64(~TLB_OFFSET_BITS);
  c.u8(W.I64_AND);
  get(table);
  memory(W.I64_LOAD32_U, TLB_KEY);
  c.raw([W.I64_OR, W.I64_EQ, W.IF, W.VOID]);

  get(table);
  offset(TLB_INDEX_MASK);
  c.u8(W.I32_ADD);
  tee(table);
  get(VA);
  i64(TLB_OFFSET_BITS);
  c.u8(W.I64_OR);
  memory(W.I64_STORE, 0);
  get(table);
  get(entry);
  memory(W.I32_LOAD, 8);
  tee(page);
  memory(W.I32_STORE, 12);
  get(table);
  get(page);
  get(lo);
  i32(~TLB_OFFSET_BITS);
  c.raw([W.I32_AND, W.I32_SUB]);
  memory(W.I32_STORE, 8);
  get(page);
  get(lo);
  i32(TLB_OFFSET_BITS);
  c.raw([W.I32_AND, W.I32_ADD, W.RETURN, W.END]);

  get(table);
  memory(W.I32_LOAD, TLB_ALIGNED_KEY);
  tee(page);
  c.raw([W.IF, W.VOID]);
  get(lo);
  i32(bytes - 1);
  c.raw([W.I32_AND, W.I32_EQZ, W.IF, W.VOID]);
  get(entry);
  memory(W.I64_LOAD, 0);
  get(VA);
  i64(~TLB_OFFSET_BITS);
  c.u8(W.I64_AND);
  get(page);
  c.raw([W.I64_EXTEND_U, W.I64_OR, W.I64_EQ, W.IF, W.VOID]);
  get(entry);
  memory(W.I32_LOAD, 8);
  get(lo);
  i32(TLB_OFFSET_BITS);
  c.raw([W.I32_AND, W.I32_ADD, W.RETURN, W.END, W.END, W.END]);

  get(lo);
  get(VA);
  i64(32);
  c.raw([W.I64_SHR_U, W.I32_WRAP]);
  i32(bytes | flags);
  c.u8(W.CALL);
  c.u32(miss);
  return body;
}

/** @param slow what answers where the first-level table does not */
function findFunction(kind: 'load' | 'store', bytes: number, slow: number): FunctionBody {
  const body = new FunctionBody(1);
  const c = body.code;
  const entry = body.addLocal('i32');
  const { i32, i64, memory } = operationsOf(body);
  i32(0);
  memory(W.I32_LOAD, STATE + TABLES[kind][0]);
  c.raw([W.LOCAL_GET, VA, W.I32_WRAP]);
  i32(TLB_INDEX_SHIFT);
  c.u8(W.I32_SHR_U);
  i32(TLB_INDEX_MASK);
  c.raw([W.I32_AND, W.I32_ADD, W.LOCAL_TEE, entry]);
  memory(W.I64_LOAD, 0);
  c.raw([W.LOCAL_GET, VA]);
  i64(bytes - 1);
  c.u8(W.I64_ADD);
  i64(TLB_OFFSET_BITS);
  c.raw([W.I64_OR, W.I64_EQ, W.IF, W.VOID]);
  c.raw([W.LOCAL_GET, VA, W.I32_WRAP, W.LOCAL_GET, entry]);
  memory(W.I32_LOAD, 8);
  c.raw([W.I32_ADD, W.RETURN, W.END, W.LOCAL_GET, VA, W.CALL]);
  c.u32(slow);
  return body;
}
