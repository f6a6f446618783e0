import { type KernelSymbol, SymbolTable } from './symbols.js';

const PT_LOAD = 1;
const SHT_SYMTAB = 2;
const STT_FUNC = 2;
const SECTION_HEADER_SIZE = 64;
const PROGRAM_HEADER_SIZE = 56;
const SYMBOL_SIZE = 24;

/**
 * The functions that an ELF file's symbol table names, at their guest-physical addresses.
 * @param elf a file that `parseElf` takes
 * @returns `undefined` where it has no symbol table, or one that reaches over the file's end
 */
export function elfSymbols(elf: Uint8Array): SymbolTable | undefined {
  const view = new DataView(elf.buffer, elf.byteOffset, elf.byteLength);
  const quad = (at: number): number => Number(view.getBigUint64(at, true));
  const segments: { readonly virtual: number; readonly physical: number; readonly size: number }[] = [];
  for (let i = 0; i < view.getUint16(56, true); i++) {
    const at = quad(32) + i * view.getUint16(54, true);
    if (at + PROGRAM_HEADER_SIZE > elf.length) return undefined;
    if (view.getUint32(at, true) !== PT_LOAD) continue;
    segments.push({ virtual: quad(at + 16), physical: quad(at + 24), size: quad(at + 40) });
  }
  const [sections, sectionSize, sectionCount] = [quad(40), view.getUint16(58, true), view.getUint16(60, true)];
  const section = (n: number): number | undefined => {
    const at = sections + n * sectionSize;
    return n < sectionCount && sectionSize >= SECTION_HEADER_SIZE && at + SECTION_HEADER_SIZE <= elf.length
      ? at
      : undefined;
  };
  for (let n = 0; n < sectionCount; n++) {
    const at = section(n);
    if (at === undefined) return undefined;
    if (view.getUint32(at + 4, true) !== SHT_SYMTAB) continue;
    const strings = section(view.getUint32(at + 40, true));
    const [from, size] = [quad(at + 24), quad(at + 32)];
    if (strings === undefined || from + size > elf.length) return undefined;
    const texts = elf.subarray(quad(strings + 24), quad(strings + 24) + quad(strings + 32));
    const symbols: KernelSymbol[] = [];
    for (let symbol = from; symbol + SYMBOL_SIZE <= from + size; symbol += SYMBOL_SIZE) {
      if ((view.getUint8(symbol + 4) & 0xf) !== STT_FUNC) continue;
      const value = quad(symbol + 8);
      const home = segments.find((s) => value >= s.virtual && value < s.virtual + s.size);
      const name = textAt(texts, view.getUint32(symbol, true));
      if (home !== undefined && name !== '') symbols.push({ name, address: value - home.virtual + home.physical });
    }
    const end = segments.reduce((top, s) => Math.max(top, s.physical + s.size), 0);
    return symbols.length === 0 ? undefined : new SymbolTable(symbols, end);
  }
  return undefined;
}

function textAt(texts: Uint8Array, at: number): string {
  const end = texts.indexOf(0, at);
  return end < 0 ? '' : String.fromCharCode(...texts.subarray(at, Math.min(end, at + 512)));
}
