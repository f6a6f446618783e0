import type { Row, WordFields } from '../a64/row.js';
import { type HandlerLayout, RECORD_SIZE } from './handler.js';
import { fieldOperand, type OperandReader, operandReader } from './operands.js';

/** Numbers of an operand in a plan: the last is -1 where register 31 is as any other. */
const STEP = 6;
const OFFSET = 0;
const LSB = 1;
const MASK = 2;
const SCALE = 3;
const BASE = 4;
const FOR_31 = 5;

/** How the operands of a handler's instructions are put into their records, worked out once: a few numbers for each. */
export class RecordPlan {
  readonly #row: Row;
  readonly #hasImm: boolean;
  readonly #near: boolean;
  readonly #operands: Int32Array;
  /** Those that a function of the row computes. */
  readonly #computed: readonly { readonly offset: number; readonly read: OperandReader }[];

  /** @param near a direct branch within its page */
  constructor(row: Row, layout: HandlerLayout, near: boolean) {
    this.#row = row;
    this.#hasImm = layout.hasImm && row.imm !== undefined;
    this.#near = near;
    const operands: number[] = [];
    this.#computed = layout.slots.flatMap(({ offset, key }) => {
      const operand = fieldOperand(row, key);
      if (operand === undefined) return [{ offset, read: operandReader(row, key) }];
      const { lsb, width } = row.fields.find((f) => f.name === operand.field)!;
      operands.push(offset, lsb, (1 << width) - 1, operand.scale, operand.base, operand.for31 ?? -1);
      return [];
    });
    this.#operands = Int32Array.from(operands);
  }

  /** Writes an instruction's operands into a record. @param fields the instruction's @param at byte address of the record */
  write(fields: WordFields, u16: Uint16Array, u32: Uint32Array, at: number): void {
    const operands = this.#operands;
    const { word } = fields;
    for (let n = 0; n < operands.length; n += STEP) {
      const field = (word >>> operands[n + LSB]!) & operands[n + MASK]!;
      const for31 = operands[n + FOR_31]!;
      u16[(at + operands[n + OFFSET]!) >>> 1] =
        field === 31 && for31 >= 0 ? for31 : field * operands[n + SCALE]! + operands[n + BASE]!;
    }
    for (const { offset, read } of this.#computed) u16[(at + offset) >>> 1] = read(fields);
    if (this.#hasImm) this.#writeImm(this.#row.imm!(fields), u32, (at + 8) >>> 2);
  }

  #writeImm(imm: bigint | number, u32: Uint32Array, index: number): void {
    if (this.#near) u32[index] = Number(imm) * (RECORD_SIZE / 4);
    else if (typeof imm === 'number') {
      u32[index] = imm;
      u32[index + 1] = Math.floor(imm / 0x1_0000_0000);
    } else {
      u32[index] = Number(BigInt.asUintN(32, imm));
      u32[index + 1] = Number(BigInt.asUintN(32, imm >> 32n));
    }
  }
}
