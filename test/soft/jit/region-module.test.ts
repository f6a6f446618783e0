import { expect, test } from '@jest/globals';
import { TAIL_CALLS } from '#lib/soft/jit/tail-calls.js';
import { Wasm } from '#lib/soft/jit/webassembly.js';
import { bne, ldp, load, RET, store, stp, subsImm } from '../a64.ts';
import { compile } from './page.ts';

/** The modules that hold compiled regions. */

const IF = 0x04;

/** Reads a module's bytes (WebAssembly Core Specification 2.0, 5.5). */
class Reader {
  at: number;
  readonly #bytes: Uint8Array;
  constructor(bytes: Uint8Array, at = 0) {
    this.#bytes = bytes;
    this.at = at;
  }
  u8(): number {
    return this.#bytes[this.at++]!;
  }
  u32(): number {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = this.u8();
      value |= (byte & 0x7f) << shift;
      if (byte < 0x80) return value >>> 0;
    }
  }
  name(): string {
    const length = this.u32();
    this.at += length;
    return String.fromCharCode(...this.#bytes.subarray(this.at - length, this.at));
  }
}

/** Where the contents of sections begin, in their order; of custom sections behind their names. */
function sections(bytes: Uint8Array): Map<string, number> {
  const found = new Map<string, number>();
  const r = new Reader(bytes, 8);
  while (r.at < bytes.length) {
    const id = r.u8();
    const length = r.u32();
    const end = r.at + length;
    found.set(id === 0 ? r.name() : String(id), r.at);
    r.at = end;
  }
  return found;
}

/** Where the bodies of functions begin. */
function bodies(bytes: Uint8Array, codeSection: number): number[] {
  const r = new Reader(bytes, codeSection);
  return Array.from({ length: r.u32() }, () => {
    const length = r.u32();
    const start = r.at;
    r.at += length;
    return start;
  });
}

const LOOP = [load(8, 1, 0), stp(1, 2, 0), ldp(3, 4, 0), store(4, 3, 0), subsImm(5, 5, 1), bne(-5), RET];

test('every branch hint is at an `if`, and comes before the code', () => {
  const { bytes, imports } = compile(LOOP);
  expect(Wasm.validate(bytes)).toBe(true);
  const found = sections(bytes);
  const names = [...found.keys()];
  expect(names.indexOf('metadata.code.branch_hint')).toBeLessThan(names.indexOf('10'));
  const [start] = bodies(bytes, found.get('10')!);
  const r = new Reader(bytes, found.get('metadata.code.branch_hint')!);
  expect(r.u32()).toBe(1);
  expect(r.u32()).toBe(imports.memoryFunctions.length + imports.helpers.length);
  const hints = Array.from({ length: r.u32() }, () => {
    const offset = r.u32();
    expect(r.u8()).toBe(1);
    return { opcode: bytes[start! + offset], taken: r.u8() };
  });
  expect(hints.filter(({ opcode }) => opcode !== IF)).toEqual([]);
  // Four accesses, each with its table and with a slow half that may fault; the budget
  // where the loop goes back and where the region is left; and the next region, where there may be one.
  expect(hints.filter(({ taken }) => taken === 1)).toHaveLength(4 + (TAIL_CALLS ? 1 : 0));
  expect(hints.filter(({ taken }) => taken === 0)).toHaveLength(4 + 2);
});

test('regions call each other where V8 has tail calls and tables that instances share', () => {
  expect(TAIL_CALLS).toBe(Number.parseInt(process.versions.v8, 10) >= 13);
  const { bytes, imports } = compile(LOOP);
  expect(imports.table).toBe(TAIL_CALLS);
  expect(Wasm.validate(bytes)).toBe(true);
});
