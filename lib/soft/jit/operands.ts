import type { Row } from '../a64/row.js';
import { Offset } from '../cpu/layout.js';

/** The fields of an instruction as numbers. */
export type RawFields = Readonly<Record<string, number>>;

/** Reads one operand of an instruction: for a register, the offset of its word in the CPU state. */
export type OperandReader = (raw: RawFields) => number;

const readers = new WeakMap<Row, Map<string, OperandReader>>();

/**
 * How to read an operand of a row. Its key is a field's name; for registers with `.r` for reading or `.w` for writing, which
 * differ for register 31: it reads as zero, and what is written to it goes nowhere.
 */
export function operandReader(row: Row, key: string): OperandReader {
  let byKey = readers.get(row);
  if (byKey === undefined) {
    byKey = new Map();
    readers.set(row, byKey);
  }
  let reader = byKey.get(key);
  if (reader === undefined) {
    reader = makeReader(row, key);
    byKey.set(key, reader);
  }
  return reader;
}

function makeReader(row: Row, key: string): OperandReader {
  const [name = '', role] = key.split('.');
  // A register that an op names (the next ones of a list) comes as its offset.
  const op = row.ops[name];
  if (op !== undefined) return op;
  if (role === undefined) return (raw) => raw[name]!;
  const kind = row.fields.find((f) => f.name === name)?.kind;
  if (kind === 'v') return (raw) => Offset.V0 + raw[name]! * 16;
  const for31 = kind === 'sp' ? Offset.SP : role === 'r' ? Offset.ZR : Offset.DISCARD;
  return (raw) => (raw[name] === 31 ? for31 : raw[name]! * 8);
}
