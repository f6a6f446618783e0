import type { Emitter, Val, VOperand, XOperand } from './emitter.js';

/**
 * One A64 encoding. The pattern is the encoding as the Arm ARM draws it, bit 31 first, tokens separated by spaces:
 *
 * - `01011`      fixed bits
 * - `sf`, `size:2`   a field that changes the instruction's shape: a plain number in `emit`, one handler for each value
 * - `imm6:6#`    a field that is only data: a {@link Val} (i32) in `emit`
 * - `Rd` `Rn` `Rm` `Ra` `Rs` `Rt` `Rt2`   general-purpose registers, 31 is XZR; `Rn|SP`: 31 is SP
 * - `Vd` `Vn` `Vm` `Va` `Vt` `Vt2`   SIMD&FP registers
 */
export interface Row {
  /** The Arm ARM's name of the encoding: `'ADD (shifted register)'`. */
  readonly name: string;
  readonly pattern: string;
  readonly fields: readonly Field[];
  readonly mask: number;
  readonly value: number;
  /** Whether the fields' values are allocated; others look further and end as UNDEFINED. */
  readonly when: ((f: Readonly<Record<string, number>>) => boolean) | undefined;
  /** The 64-bit constant that `emit` sees as `f.imm`. */
  readonly imm: ((f: Readonly<Record<string, number>>) => bigint | number) | undefined;
  /** Small constants, 0 to 65535, that `emit` sees by their names (i32). */
  readonly ops: Readonly<Record<string, (f: Readonly<Record<string, number>>) => number>>;
  readonly emit: (e: Emitter, f: Readonly<Record<string, number | Val | XOperand | VOperand>>) => void;
  /** The syndrome that a fault of this load or store reports as valid (ISV), where it has one. */
  readonly syndrome: ((f: Readonly<Record<string, number>>) => Syndrome) | undefined;
  /** Ends a straight run of code: a branch, or an instruction that may change where execution goes on. */
  readonly ends: boolean;
}

/** ESR_ELx.ISS of a single-register load or store without write-back (Arm ARM DDI 0487 D24.2.37). */
export interface Syndrome {
  readonly size: 1 | 2 | 4 | 8;
  readonly signExtend: boolean;
  readonly sf: boolean;
  readonly srt: number;
}

export interface Field {
  readonly name: string;
  readonly lsb: number;
  readonly width: number;
  readonly kind: 'static' | 'data' | 'x' | 'sp' | 'v';
}

type Tokens<S extends string> = S extends `${infer A} ${infer B}` ? A | Tokens<B> : S;
type XName = 'Rd' | 'Rn' | 'Rm' | 'Ra' | 'Rs' | 'Rt' | 'Rt2' | 'Rd|SP' | 'Rn|SP' | 'Rm|SP';
type VName = 'Vd' | 'Vn' | 'Vm' | 'Va' | 'Vt' | 'Vt2';
type NameOf<T extends string> = T extends `${'0' | '1' | 'x'}${string}`
  ? never
  : T extends `${infer N}|SP`
    ? N
    : T extends `${infer N}:${string}`
      ? N
      : T;
type TypeOf<T extends string> = T extends XName
  ? XOperand
  : T extends VName
    ? VOperand
    : T extends `${string}#`
      ? Val
      : number;

/** The fields of a pattern as `emit` sees them. */
export type Fields<P extends string> = { readonly [T in Tokens<P> as NameOf<T>]: TypeOf<T> };
/** The fields of a pattern as numbers. */
export type Raw<P extends string> = { readonly [T in Tokens<P> as NameOf<T>]: number };

/** What an instruction's operands may depend on besides its word. */
export interface Place {
  /** 1 in a guarded page (FEAT_BTI), else 0. */
  readonly guarded: number;
}

export interface RowOptions<P extends string, O extends string> {
  when?: (f: Raw<P>) => boolean;
  imm?: (f: Raw<P>) => bigint | number;
  ops?: Readonly<Record<O, (f: Raw<P> & Place) => number>>;
  syndrome?: (f: Raw<P>) => Syndrome;
  ends?: boolean;
}

/** What a token of a pattern says, apart from where it stands; the table has few of them, again and again. */
interface Token extends Omit<Field, 'lsb'> {
  /** Of fixed bits, which have no name. */
  readonly mask: number;
  readonly value: number;
}

const tokens = new Map<string, Token>();

function tokenOf(text: string): Token {
  let found = tokens.get(text);
  if (found === undefined) {
    found = parseToken(text);
    tokens.set(text, found);
  }
  return found;
}

function parseToken(text: string): Token {
  if (/^[01x]+$/.test(text)) {
    const mask = Number.parseInt(text.replace(/[01]/g, '1').replace(/x/g, '0'), 2);
    return { name: '', width: text.length, kind: 'static', mask, value: Number.parseInt(text.replace(/x/g, '0'), 2) };
  }
  const [, name = '', sp, width, data] = /^(\w+)(\|SP)?(?::(\d+))?(#)?$/.exec(text) ?? [];
  const register = /^(?:R[dnmast]2?|V[dnmat]2?)$/.test(name);
  const kind = register
    ? name.startsWith('V')
      ? 'v'
      : sp === undefined
        ? 'x'
        : 'sp'
    : data === undefined
      ? 'static'
      : 'data';
  return { name, width: width === undefined ? (register ? 5 : 1) : Number(width), kind, mask: 0, value: 0 };
}

function parse(pattern: string): { fields: Field[]; mask: number; value: number } {
  const fields: Field[] = [];
  let mask = 0;
  let value = 0;
  let bit = 32;
  for (const text of pattern.split(' ')) {
    const token = tokenOf(text);
    bit -= token.width;
    if (token.name === '') {
      mask |= token.mask << bit;
      value |= token.value << bit;
    } else fields.push({ name: token.name, lsb: bit, width: token.width, kind: token.kind });
  }
  if (bit !== 0) throw new Error(`the pattern "${pattern}" has ${32 - bit} bits`);
  return { fields, mask: mask >>> 0, value: value >>> 0 };
}

/** Makes a table row; `emit` sees the pattern's fields by name, `imm` where the options define it, and the `ops`. */
export function row<const P extends string, const O extends string = never>(
  name: string,
  pattern: P,
  options: RowOptions<P, O>,
  emit: (e: Emitter, f: Fields<P> & Readonly<Record<O | 'imm', Val>>) => void,
): Row {
  const { fields, mask, value } = parse(pattern);
  return {
    name,
    pattern,
    fields,
    mask,
    value,
    when: options.when as Row['when'],
    imm: options.imm as Row['imm'],
    ops: (options.ops ?? {}) as Row['ops'],
    emit: emit as unknown as Row['emit'],
    syndrome: options.syndrome as Row['syndrome'],
    ends: options.ends ?? false,
  };
}

/** The fields of `word` as numbers. */
export function fieldsOf(r: Row, word: number): Record<string, number> {
  const out: Record<string, number> = {};
  for (const f of r.fields) out[f.name] = (word >>> f.lsb) & (f.width === 32 ? -1 : (1 << f.width) - 1);
  return out;
}

/** The fields of whatever word is put into it, each read when it is asked for: to look at a word, nothing is made. */
export type WordFields = Readonly<Record<string, number>> & { word: number; guarded: number };

/** By place and width: rows share their fields' readers. */
const fieldReaders = new Map<number, (this: WordFields) => number>();

function fieldReader({ lsb, width }: Field): (this: WordFields) => number {
  const key = lsb * 64 + width;
  let reader = fieldReaders.get(key);
  if (reader === undefined) {
    const mask = width === 32 ? -1 : (1 << width) - 1;
    reader = function () {
      return (this.word >>> lsb) & mask;
    };
    fieldReaders.set(key, reader);
  }
  return reader;
}

/** The fields of words of a row, one at a time, as {@link fieldsOf} gives them. */
export function wordFields(r: Row): WordFields {
  const readers: PropertyDescriptorMap = {};
  for (const f of r.fields) readers[f.name] = { get: fieldReader(f) };
  return Object.assign(Object.create(Object.create(null, readers)), { word: 0, guarded: 0 });
}

/** The word with these fields: the reverse of {@link fieldsOf}. */
export const wordOf = (r: Row, fields: Readonly<Record<string, number>>): number =>
  r.fields.reduce((word, f) => word | (fields[f.name]! << f.lsb), r.value) >>> 0;
