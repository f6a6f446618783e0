import type { Row } from '../a64/row.js';
import { Offset } from '../cpu/layout.js';

/** The fields of an instruction as numbers. */
export type RawFields = Readonly<Record<string, number>>;

/** Reads one operand of an instruction: for a register, the offset of its word in the CPU state. */
export type OperandReader = (raw: RawFields) => number;

/** An operand that is a field of the instruction, as a record has it: the field times `scale` and `base` more, but `for31` where it is 31. */
export interface FieldOperand {
  readonly field: string;
  readonly scale: number;
  readonly base: number;
  readonly for31: number | undefined;
}

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
  const operand = fieldOperand(row, key);
  if (operand === undefined) return row.ops[nameIn(key)]!;
  const { field, scale, base, for31 } = operand;
  return (raw) => (raw[field] === 31 && for31 !== undefined ? for31 : raw[field]! * scale + base);
}

const nameIn = (key: string): string => key.split('.', 1)[0]!;

/** What an operand is made of; `undefined` where a function of the row computes it. @param key as for {@link operandReader} */
export function fieldOperand(row: Row, key: string): FieldOperand | undefined {
  const field = nameIn(key);
  // A register that an op names (the next ones of a list) comes as its offset.
  if (row.ops[field] !== undefined) return undefined;
  if (field === key) return { field, scale: 1, base: 0, for31: undefined };
  const kind = row.fields.find((f) => f.name === field)?.kind;
  if (kind === 'v') return { field, scale: 16, base: Offset.V0, for31: undefined };
  const for31 = kind === 'sp' ? Offset.SP : key.endsWith('.r') ? Offset.ZR : Offset.DISCARD;
  return { field, scale: 8, base: 0, for31 };
}
