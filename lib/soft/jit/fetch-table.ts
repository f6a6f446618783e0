import { W } from './lower.js';
import type { ByteWriter } from './wasm-module.js';

/**
 * A fetch table: first where the decoded records of a page are, by page, then which region starts at an address, by address, so
 * that going from region to region touches no record. Entries are 16 bytes: the address, or where there is none, one that is
 * not looked for in that place (all ones; in the first entry 4); then the records or the region; in an entry of a page, whether
 * the second part may have an entry of a page that shares it. The last word says whether the second part has entries at all.
 */
export const FETCH_ENTRIES = 1024;
export const JUMP_ENTRIES = 2048;
/** Byte offsets in the table, and in an entry of a page. */
export const JUMP_TABLE = FETCH_ENTRIES * 16;
export const JUMPS_USED = JUMP_TABLE + JUMP_ENTRIES * 16;
export const PAGE_HAS_JUMPS = 12;
export const FETCH_TABLE_SIZE = JUMPS_USED + 16;
/** Make an entry's byte offset from PC >> 8, and from that and PC << 2: code begins at the same places of many pages. */
export const FETCH_MASK = (FETCH_ENTRIES - 1) << 4;
export const JUMP_MASK = (JUMP_ENTRIES - 1) << 4;

const I32_XOR = 0x73;

/**
 * Looks up in a fetch table, whose linear address is on the stack, which region starts at an address: pushes whether the entry
 * found is the address's, which has the region at {@link JUMP_TABLE} + 8.
 * @param pc local of the address
 * @param jump local that becomes where in the table the entry is
 * @param found local that becomes the entry's address: who uses it spares V8 to load it a second time
 */
export function findRegion(code: ByteWriter, pc: number, jump: number, found?: number): void {
  const local = (opcode: number, index: number): void => {
    code.u8(opcode);
    code.u32(index);
  };
  local(W.LOCAL_GET, pc);
  code.raw([W.I32_WRAP, W.I32_CONST, 2, W.I32_SHL]);
  local(W.LOCAL_GET, pc);
  code.raw([W.I32_WRAP, W.I32_CONST, 8, W.I32_SHR_U, I32_XOR, W.I32_CONST]);
  code.s32(JUMP_MASK);
  code.raw([W.I32_AND, W.I32_ADD]);
  local(W.LOCAL_TEE, jump);
  code.raw([W.I64_LOAD, 0]);
  code.u32(JUMP_TABLE);
  if (found !== undefined) local(W.LOCAL_TEE, found);
  local(W.LOCAL_GET, pc);
  code.u8(W.I64_EQ);
}
