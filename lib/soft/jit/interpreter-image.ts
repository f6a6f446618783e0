import type { Row } from '../a64/row.js';
import { slotOffset } from './handler.js';
import {
  type CountingOptions,
  emitInterpreter,
  type Handler,
  hasInterpreter,
  rowNumber,
  useInterpreter,
} from './interpreter-module.js';

/** An emitted interpreter as plain data. Rows are named by their place in the table. */
export interface InterpreterImage {
  readonly counting: CountingOptions;
  /** The module, in base64. */
  readonly wasm: string;
  /** Of a handler: its row, the rest of its key, its number, whether it branches within its page, its operands in the order of their slots. */
  readonly handlers: readonly (readonly [
    row: number,
    key: string,
    number: number,
    near: 0 | 1,
    operands: readonly string[],
  ])[];
  readonly jumps: readonly (readonly [row: number, jump: 'direct' | 'indirect' | null])[];
  readonly helpers: readonly string[];
  readonly memoryFunctions: readonly string[];
  readonly nextHandler: number;
}

/** Makes the image of an interpreter; for the arguments see {@link emitInterpreter}. */
export function interpreterImage(
  rows: readonly Row[],
  counting: CountingOptions,
  ...ahead: readonly [ahead: readonly Row[], isAllocated: (row: Row, raw: Readonly<Record<string, number>>) => boolean]
): InterpreterImage {
  const code = emitInterpreter(rows, counting, ...ahead);
  const place = new Map(rows.map((row, i) => [row, i]));
  return {
    counting,
    wasm: toBase64(code.bytes),
    handlers: [...code.handlers].map(([key, { number, row, layout, near }]) => [
      place.get(row)!,
      key.slice(key.indexOf('|')),
      number,
      near ? 1 : 0,
      layout.slots.map((slot) => slot.key),
    ]),
    jumps: [...code.jumps].map(([row, jump]) => [place.get(row)!, jump ?? null]),
    helpers: code.helpers,
    memoryFunctions: code.memoryFunctions,
    nextHandler: code.nextHandler,
  };
}

/** Has machines with this table and way of counting use the image. It must be of the same table. */
export function useInterpreterImage(rows: readonly Row[], image: InterpreterImage): void {
  if (hasInterpreter(rows, image.counting)) return;
  const handlers = new Map<string, Handler>();
  for (const [at, key, number, near, operands] of image.handlers) {
    const row = rows[at]!;
    const slots = operands.map((operand, i) => ({
      key: operand,
      offset: slotOffset(i),
    }));
    const layout = { slots, hasImm: row.imm !== undefined };
    handlers.set(`${rowNumber(row)}${key}`, { number, row, layout, near: near === 1 });
  }
  useInterpreter(rows, image.counting, {
    bytes: fromBase64(image.wasm),
    handlers,
    jumps: new Map(image.jumps.map(([row, jump]) => [rows[row]!, jump ?? undefined])),
    helpers: image.helpers,
    memoryFunctions: image.memoryFunctions,
    nextHandler: image.nextHandler,
  });
}

export function toBase64(bytes: Uint8Array): string {
  let text = '';
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text);
}

export function fromBase64(text: string): Uint8Array<ArrayBuffer> {
  // Node's own, where there is one, takes a fiftieth of the time.
  const { Buffer } = globalThis as { readonly Buffer?: { from(text: string, encoding: 'base64'): Uint8Array } };
  if (Buffer !== undefined) return new Uint8Array(Buffer.from(text, 'base64'));
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}
