import { Wasm } from './webassembly.js';

/** A module with a table of 64-bit indices and a function that tail-calls itself. */
const PROBE = [
  ...[0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00],
  ...[0x01, 0x04, 0x01, 0x60, 0x00, 0x00],
  ...[0x03, 0x02, 0x01, 0x00],
  ...[0x04, 0x04, 0x01, 0x70, 0x04, 0x00],
  ...[0x0a, 0x06, 0x01, 0x04, 0x00, 0x12, 0x00, 0x0b],
];

/**
 * Whether regions call each other through the interpreter's table. An engine must have tail calls; and its instances must share a
 * table that they import, where older ones gave each a copy, of a megabyte in some milliseconds. V8 came to that with the
 * tables of the memory64 proposal.
 */
export const TAIL_CALLS = Wasm.validate(new Uint8Array(PROBE));
