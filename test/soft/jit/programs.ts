import { branches } from '#lib/soft/a64/branches.js';
import { Decoder } from '#lib/soft/a64/decode.js';
import type { Field, Row } from '#lib/soft/a64/row.js';
import { system } from '#lib/soft/a64/system.js';
import { TABLE } from '#lib/soft/a64/table.js';
import type { Random } from '../../a64/random.ts';
import { daifClr, daifSet, hvc, ISB, mrs, msr, NOP, WFE, WFI } from '../a64.ts';
import { REG } from '../bare-metal.ts';
import { CNTV_CVAL_EL0 } from './lockstep.ts';

/**
 * Random programs. Registers have their parts, so that a program runs on whatever it computes:
 *
 * - X0 to X15, V0 to V31 and the flags are data;
 * - X16 and X17 hold the targets of indirect branches;
 * - X19, X20, X21 and SP point into data, and drift with write-back; X22 is a small index, never written;
 * - X23 to X26 count loops;
 * - X27 counts interrupts and X29 is the exception handlers'; X30 is the link register.
 */
export const BASES: readonly number[] = [19, 20, 21];
export const INDEX = 22;
const COUNTERS: readonly number[] = [23, 24, 25, 26];
const LINK = 30;

/** HVC that ends a program. */
export const DONE = 1;
/** HVC of the interrupt handler: the interrupt is to be taken back. */
export const ACKNOWLEDGE = 2;

const decoder = new Decoder(TABLE);
const excluded = new Set<Row>([...branches, ...system]);
const isVector = (r: Row): boolean => r.fields.some((f) => f.kind === 'v');

const rows = TABLE.filter((r) => !excluded.has(r));
/** Everything but branches and system instructions. */
export const COMPILABLE: readonly Row[] = rows;
/** By what they are, so that the many SIMD&FP rows leave room for the others. */
const CLASSES: readonly (readonly Row[])[] = [
  rows.filter((r) => !isVector(r) && !hasBase(r)),
  rows.filter((r) => !isVector(r) && hasBase(r)),
  rows.filter((r) => isVector(r) && hasBase(r)),
  rows.filter((r) => isVector(r) && !hasBase(r)),
];
const CLASS_OF_TEN = [0, 0, 0, 0, 1, 1, 1, 2, 3, 3];

/** An address in Rn|SP; arithmetic on Rn|SP has an Rd too. */
function hasBase(r: Row): boolean {
  return r.fields.some((f) => f.name === 'Rn' && f.kind === 'sp') && !r.fields.some((f) => f.name === 'Rd');
}

function register(random: Random, r: Row, name: string, kind: Field['kind']): number {
  const isBase = name === 'Rn' && hasBase(r);
  if (isBase) return random.pick([...BASES, 31]);
  if (name === 'Rm' && hasBase(r)) return random.below(4) === 0 ? 31 : INDEX;
  // The stack pointer is not for arithmetic. What may be written is data; what is only read may be anything.
  if (name === 'Rd' && kind === 'sp') return random.below(16);
  if (['Rn', 'Rm', 'Ra'].includes(name) && random.below(4) === 0) return random.below(32);
  return random.below(8) === 0 ? 31 : random.below(16);
}

/** An instruction of a row; `undefined` where no fields were found that are allocated. */
export function encode(random: Random, r: Row): number | undefined {
  for (let n = 0; n < TRIES; n++) {
    const word = tryEncode(random, r);
    if (decoder.decode(word) === r) return word;
  }
  return undefined;
}
/** Some rows are special cases, which random fields seldom are. */
const TRIES = 2000;

function tryEncode(random: Random, r: Row): number {
  let word = r.value;
  // Bits that no field and no pattern holds.
  let open = ~r.mask;
  for (const f of r.fields) {
    const ones = f.width === 32 ? -1 : (1 << f.width) - 1;
    let bits = random.u32() & ones;
    if (f.kind === 'x' || f.kind === 'sp') bits = register(random, r, f.name, f.kind);
    // Literals are near.
    else if (f.name === 'imm19') bits = random.below(64) & ones;
    word |= bits << f.lsb;
    open &= ~(ones << f.lsb);
  }
  return (word | (open & random.u32())) >>> 0;
}

/** System instructions whose effects stay with the program. */
function systemInstruction(random: Random): number {
  const rt = random.below(16);
  switch (random.below(16)) {
    case 0:
      return mrs(rt, REG.FPCR);
    case 1:
      return mrs(rt, REG.FPSR);
    case 2:
      return msr(REG.FPSR, rt);
    case 3:
      return msr(REG.FPCR, rt);
    case 4:
      return mrs(rt, REG.CURRENT_EL);
    case 5:
      return daifSet(2);
    case 6:
      return daifClr(2);
    case 7:
      return ISB;
    case 8:
      return msr(REG.TPIDR_EL0, rt);
    case 9:
      return mrs(rt, REG.TPIDR_EL0);
    case 10:
      return DC_ZVA | random.pick(BASES);
    case 11:
      return DC_CVAU | random.pick(BASES);
    case 12:
      return msr(REG.NZCV, rt);
    case 13:
      return mrs(rt, random.pick([REG.NZCV, REG.CNTVCT_EL0]));
    case 14:
      return random.pick([CLREX, DSB, CFINV, mrs(rt, REG.CTR_EL0), msr(CNTV_CVAL_EL0, rt)]);
    default:
      return NOP;
  }
}
const CLREX = 0xd5033f5f;
const DSB = 0xd5033f9f;
const CFINV = 0xd500401f;
const DC_ZVA = 0xd50b7420;
const DC_CVAU = 0xd50b7b20;

/** Any instruction that is no branch. */
export function instruction(random: Random): number {
  if (random.below(16) === 0) return systemInstruction(random);
  const pool = CLASSES[CLASS_OF_TEN[random.below(10)]!]!;
  for (;;) {
    const word = encode(random, random.pick(pool));
    if (word !== undefined) return word;
  }
}

/** Words, some of which wait for a label's address. */
class Listing {
  readonly words: number[] = [];
  readonly #labels = new Map<number, number>();
  readonly #fixups: { readonly at: number; readonly label: number; readonly patch: (words: number) => number }[] = [];
  #nextLabel = 0;

  newLabel(): number {
    return this.#nextLabel++;
  }
  place(label: number): void {
    this.#labels.set(label, this.words.length);
  }
  put(...words: number[]): void {
    for (const w of words) this.words.push(w >>> 0);
  }
  /** @param patch the instruction for a distance in instructions */
  to(label: number, patch: (words: number) => number): void {
    this.#fixups.push({ at: this.words.length, label, patch });
    this.words.push(0);
  }
  finish(): readonly number[] {
    for (const { at, label, patch } of this.#fixups) this.words[at] = patch(this.#labels.get(label)! - at) >>> 0;
    return this.words;
  }
}

const b = (words: number): number => 0x14000000 | (words & 0x3ffffff);
const bl = (words: number): number => 0x94000000 | (words & 0x3ffffff);
const imm19 = (words: number): number => (words & 0x7ffff) << 5;
const bCond =
  (cond: number) =>
  (words: number): number =>
    0x54000000 | imm19(words) | cond;
const adr =
  (rd: number) =>
  (words: number): number =>
    0x10000000 | imm19(words) | rd;
const cbnz =
  (rt: number) =>
  (words: number): number =>
    0xb5000000 | imm19(words) | rt;
const br = (rn: number): number => 0xd61f0000 | (rn << 5);
const blr = (rn: number): number => 0xd63f0000 | (rn << 5);
const ret = (rn = LINK): number => 0xd65f0000 | (rn << 5);
const movz = (rd: number, imm: number): number => 0xd2800000 | (imm << 5) | rd;
const subs = (rd: number, rn: number, imm: number): number => 0xf1000000 | (imm << 10) | (rn << 5) | rd;

/** A conditional branch of any kind. */
function conditional(random: Random): (words: number) => number {
  const rt = random.below(8) === 0 ? 31 : random.below(16);
  const bit = random.below(64);
  const compare = 0x34000000 | (random.below(2) << 31) | (random.below(2) << 24) | rt;
  const test = 0x36000000 | ((bit >> 5) << 31) | (random.below(2) << 24) | ((bit & 31) << 19) | rt;
  switch (random.below(4)) {
    case 0:
      return (words) => compare | imm19(words);
    case 1:
      return (words) => test | ((words & 0x3fff) << 5);
    default:
      return bCond(random.below(16));
  }
}

/** Something that stops or takes an exception. */
function interruption(random: Random): number {
  const imm = random.below(0x1000) << 5;
  switch (random.below(6)) {
    case 0:
    case 1:
      return SVC | imm;
    case 2:
      return random.pick([WFI, WFE, YIELD]);
    case 3:
      return BRK | imm;
    case 4:
      return UDF;
    default:
      return hvc(0x100 + random.below(16));
  }
}
const SVC = 0xd4000001;
const BRK = 0xd4200000;
const UDF = 0x00000000;
const YIELD = 0xd503203f;

export interface Program {
  readonly words: readonly number[];
  /** How far before the end of a page it begins, in instructions; 0 is at the start of one. */
  readonly beforePageEnd: number;
}

const straight = (random: Random, l: Listing, most: number): void => {
  for (let n = random.below(most + 1); n > 0; n--) l.put(instruction(random));
};

const finished = (random: Random, l: Listing): Program => {
  const words = l.finish();
  return { words, beforePageEnd: random.below(3) === 0 ? 1 + random.below(words.length) : 0 };
};

/** Blocks that end in branches to any others, irreducible graphs included. Never ends. */
export function tangle(random: Random): Program {
  const l = new Listing();
  // Now and then more than one region holds.
  const blocks = random.below(16) === 0 ? 150 : 3 + random.below(12);
  const labels = Array.from({ length: blocks }, () => l.newLabel());
  for (const label of labels) {
    l.place(label);
    straight(random, l, 5);
    const target = random.pick(labels);
    const pointer = 16 + random.below(2);
    switch (random.below(16)) {
      case 0:
        l.to(target, b);
        break;
      case 1:
        l.to(target, bl);
        break;
      case 2:
        l.to(target, adr(pointer));
        straight(random, l, 2);
        l.put(random.pick([br, blr, ret])(pointer));
        break;
      case 3:
        l.put(ret());
        break;
      case 4:
        l.put(interruption(random));
        break;
      case 5:
        break;
      default:
        l.to(target, conditional(random));
    }
  }
  l.to(labels[0]!, b);
  return finished(random, l);
}

/** A loop of these instructions, which never ends. */
export function loop(words: readonly number[]): Program {
  return { words: [...words, b(-words.length)], beforePageEnd: 0 };
}

/** Nested loops with exits from the middle, conditions, switches and calls. Ends in HVC #{@link DONE}. */
export function structured(random: Random): Program {
  const l = new Listing();
  const functions: number[] = [];
  statements(random, l, 0, functions, []);
  l.put(hvc(DONE));
  for (const f of functions) {
    l.place(f);
    l.put(STP_LINK);
    straight(random, l, 4);
    const out = l.newLabel();
    l.to(out, conditional(random));
    straight(random, l, 4);
    l.place(out);
    l.put(LDP_LINK, ret());
  }
  return finished(random, l);
}
/** STP X30, XZR, [SP, #-16]! and LDP X30, XZR, [SP], #16. */
const STP_LINK = 0xa9bf7ffe;
const LDP_LINK = 0xa8c17ffe;

/** @param exits labels that a statement may leave for */
function statements(random: Random, l: Listing, depth: number, functions: number[], exits: readonly number[]): void {
  for (let n = 1 + random.below(3); n > 0; n--) {
    straight(random, l, 4);
    switch (random.below(depth === 0 ? 4 : 6)) {
      case 0:
      case 1: {
        const counter = COUNTERS[depth];
        if (counter === undefined) break;
        const head = l.newLabel();
        const next = l.newLabel();
        const end = l.newLabel();
        l.put(movz(counter, 1 + random.below(6)));
        l.place(head);
        statements(random, l, depth + 1, functions, [...exits, next, end]);
        l.place(next);
        l.put(subs(counter, counter, 1));
        l.to(head, random.pick([cbnz(counter), bCond(1), bCond(12)]));
        l.place(end);
        break;
      }
      case 2: {
        const otherwise = l.newLabel();
        const end = l.newLabel();
        l.to(otherwise, conditional(random));
        straight(random, l, 4);
        l.to(end, b);
        l.place(otherwise);
        straight(random, l, 4);
        l.place(end);
        break;
      }
      case 3: {
        if (functions.length < 3) functions.push(l.newLabel());
        const f = random.pick(functions);
        if (random.below(2) === 0) l.to(f, bl);
        else {
          l.to(f, adr(16));
          l.put(blr(16));
        }
        break;
      }
      case 4:
        l.to(random.pick(exits), conditional(random));
        break;
      default:
        l.put(interruption(random));
    }
  }
}
