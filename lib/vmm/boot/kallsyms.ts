import { type KernelSymbol, SymbolTable } from './symbols.js';

/** The digit characters' codes: each is always its own token, for no longer one contains a digit less often than the digit itself. */
const FIRST_DIGIT = 0x30;
const TOKENS = 256;
/** `kallsyms_markers` has the place of each 256th name. */
const MARKED = 256;
/** Longest name (KSYM_NAME_LEN) and most symbols that are believed. */
const MAX_NAME = 512;
const MAX_SYMBOLS = 2 ** 20;
/** What the kernel's first address is a multiple of. */
const LINK_ALIGN = 2 ** 21;
/** What each table is aligned to, in bytes: 8, in Linux 7.3 4. */
const UNITS = [8, 4] as const;
const R_AARCH64_RELATIVE = 0x403;
/** Types of symbols in code (nm): global and local text, weak. */
const CODE = new Set(['T', 't', 'W', 'w']);

/**
 * The symbols that a Linux Image carries for its own backtraces (CONFIG_KALLSYMS; scripts/kallsyms.c writes them). The tables
 * have no header: they are found by their form, and everything found is checked against the rest.
 * @param image the unpacked Image
 * @param address guest-physical address that it is loaded to
 * @returns `undefined` where there are none, or none in a form that is known (that of Linux 6.1 to 7.3)
 */
export function kallsyms(image: Uint8Array, address: number): SymbolTable | undefined {
  const view = new DataView(image.buffer, image.byteOffset, image.byteLength);
  for (const unit of UNITS) {
    const tokens = findTokens(image, view, unit);
    const names = tokens && findNames(image, view, tokens.start, unit);
    const offsets = tokens && names && findOffsets(view, names, tokens.end, unit);
    if (tokens === undefined || names === undefined || offsets === undefined) continue;
    const symbols: KernelSymbol[] = [];
    let at = names.start;
    for (let i = 0; i < names.count; i++) {
      const [length, from] = lengthOf(image, at);
      let name = '';
      for (let k = 0; k < length; k++) name += tokens.text[image[from + k]!]!;
      at = from + length;
      if (CODE.has(name[0]!)) symbols.push({ name: name.slice(1), address: address + offsets(i) });
    }
    return new SymbolTable(symbols, address + image.length);
  }
  return undefined;
}

const align = (n: number, unit: number): number => Math.ceil(n / unit) * unit;

interface Tokens {
  readonly text: readonly string[];
  /** `kallsyms_token_table`'s first byte, and the byte after `kallsyms_token_index`. */
  readonly start: number;
  readonly end: number;
}

/** `kallsyms_token_table`: 256 strings; and after it `kallsyms_token_index`: where each begins, 16 bits each. */
function findTokens(image: Uint8Array, view: DataView, unit: number): Tokens | undefined {
  for (let at = image.indexOf(FIRST_DIGIT); at >= 0; at = image.indexOf(FIRST_DIGIT, at + 1)) {
    if (!areDigits(image, at)) continue;
    let end = at;
    for (let token = FIRST_DIGIT; token < TOKENS && end >= 0; token++) end = image.indexOf(0, end) + 1 || -1;
    const index = align(end, unit);
    if (end < 0 || index + TOKENS * 2 > image.length) continue;
    const start = at - view.getUint16(index + FIRST_DIGIT * 2, true);
    const text = tokenTexts(image, view, start, index, end);
    if (text !== undefined) return { text, start, end: index + TOKENS * 2 };
  }
  return undefined;
}

function areDigits(image: Uint8Array, at: number): boolean {
  for (let digit = 0; digit < 10; digit++) {
    if (image[at + digit * 2] !== FIRST_DIGIT + digit || image[at + digit * 2 + 1] !== 0) return false;
  }
  return true;
}

function tokenTexts(
  image: Uint8Array,
  view: DataView,
  start: number,
  index: number,
  end: number,
): readonly string[] | undefined {
  const texts: string[] = [];
  let next = start;
  for (let token = 0; token < TOKENS; token++) {
    if (start + view.getUint16(index + token * 2, true) !== next) return undefined;
    const nul = image.indexOf(0, next);
    if (nul < 0 || nul >= end || nul - next > MAX_NAME) return undefined;
    texts.push(String.fromCharCode(...image.subarray(next, nul)));
    next = nul + 1;
  }
  return texts;
}

/** A name's length in tokens, and where its tokens are: lengths over 127 take two bytes (since 6.1). */
function lengthOf(image: Uint8Array, at: number): readonly [length: number, from: number] {
  const low = image[at]!;
  return low < 0x80 ? [low, at + 1] : [(low & 0x7f) | (image[at + 1]! << 7), at + 2];
}

interface Names {
  readonly start: number;
  readonly count: number;
}

/** `kallsyms_names`, behind their number `kallsyms_num_syms` and before `kallsyms_markers`, all before the tokens. */
function findNames(image: Uint8Array, view: DataView, tokens: number, unit: number): Names | undefined {
  // Where kallsyms_seqs_of_names is between the markers and the tokens, it has three bytes a symbol.
  const lowest = Math.max(unit, tokens - MAX_SYMBOLS * 4);
  for (let end = tokens & ~3; end > lowest; end -= 4) {
    const markers = markersBefore(view, end, lowest);
    if (markers === undefined) continue;
    const { first, count } = markers;
    const size = view.getUint32(end - 4, true);
    // Of the names' size only the last marker's names are not known, at most 256 of them.
    const top = Math.floor((first - size) / unit) * unit;
    for (let start = top; start > top - MARKED * MAX_NAME && start >= unit; start -= unit) {
      const symbols = view.getUint32(start - unit, true);
      if (Math.ceil(symbols / MARKED) !== count || symbols > MAX_SYMBOLS) continue;
      if (areNames(image, view, start, symbols, first)) return { start, count: symbols };
    }
    end = first + 4;
  }
  return undefined;
}

/** A run of markers that ends before `end`: from 0 on, each by 256 names more than the one before. */
function markersBefore(
  view: DataView,
  end: number,
  lowest: number,
): { readonly first: number; readonly count: number } | undefined {
  for (let at = end - 4; at >= lowest; at -= 4) {
    const here = view.getUint32(at, true);
    const count = (end - at) / 4;
    if (here === 0) return count > 1 ? { first: at, count } : undefined;
    const step = here - view.getUint32(at - 4, true);
    if (step < MARKED * 2 || step > MARKED * MAX_NAME) return undefined;
  }
  return undefined;
}

function areNames(image: Uint8Array, view: DataView, start: number, count: number, markers: number): boolean {
  let at = start;
  for (let i = 0; i < count; i++) {
    if (i % MARKED === 0 && at - start !== view.getUint32(markers + (i / MARKED) * 4, true)) return false;
    const [length, from] = lengthOf(image, at);
    if (length === 0 || length > MAX_NAME) return false;
    at = from + length;
    if (at > markers) return false;
  }
  return markers - at < 8;
}

/** `kallsyms_offsets`: 32 bits each. @returns what tells a symbol's distance from the Image's start */
function findOffsets(
  view: DataView,
  names: Names,
  afterTokens: number,
  unit: number,
): ((i: number) => number) | undefined {
  const size = align(names.count * 4, unit);
  if (unit === 4) {
    // Each is the distance from its own place.
    const start = align(afterTokens, unit);
    const offset = (i: number): number => view.getInt32(start + i * 4, true) + start + i * 4;
    return isRising(view, start, names.count, offset) ? offset : undefined;
  }
  // Since 6.4 kallsyms_offsets and kallsyms_relative_base follow the tokens; before, they stand before kallsyms_num_syms.
  for (const start of [align(afterTokens, unit), names.start - 16 - size]) {
    const offset = (i: number): number => view.getUint32(start + i * 4, true);
    if (!isRising(view, start, names.count, offset)) continue;
    const base = relativeBase(view, start + size);
    return base === undefined ? undefined : (i) => base + offset(i);
  }
  return undefined;
}

function isRising(view: DataView, start: number, count: number, offset: (i: number) => number): boolean {
  if (start < 0 || start + count * 4 + 8 > view.byteLength) return false;
  for (let i = 0, last = 0; i < count; i++) {
    const here = offset(i);
    if (here < last) return false;
    last = here;
  }
  return offset(count - 1) > 0;
}

/**
 * The address that the offsets count from, in bytes from the Image's start, which is linked to 2 MiB. Where the word is zero
 * its value is in a relocation of its own (Elf64_Rela: r_offset, r_info, r_addend).
 */
function relativeBase(view: DataView, at: number): number | undefined {
  const fromStart = (low: number): number => low & (LINK_ALIGN - 1);
  if (view.getBigUint64(at, true) !== 0n) return fromStart(view.getUint32(at, true));
  for (let rela = 0; rela + 24 <= view.byteLength; rela += 8) {
    if (view.getUint32(rela + 8, true) !== R_AARCH64_RELATIVE || view.getUint32(rela + 12, true) !== 0) continue;
    if (fromStart(view.getUint32(rela, true) - at) !== 0 || view.getUint32(rela + 4, true) >>> 16 !== 0xffff) continue;
    const base = Number(view.getBigUint64(rela + 16, true) - view.getBigUint64(rela, true)) + at;
    if (base >= 0 && base < view.byteLength) return base;
  }
  return undefined;
}
