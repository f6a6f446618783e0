/** What a shared object (ELF64, little-endian) says of itself: enough of it to judge a prebuilt addon (System V gABI, LSB "Symbol Versioning"). */
export interface Elf {
  /** e_machine: 62 x86-64, 183 AArch64. */
  readonly machine: number;
  /** DT_NEEDED. */
  readonly needed: readonly string[];
  /** Versions that it needs of them, such as `GLIBC_2.17`. */
  readonly versions: readonly string[];
  /** Symbols that it defines for others. */
  readonly exported: readonly string[];
  /** Whether it has its full symbol table. */
  readonly hasSymtab: boolean;
}

const SHT = { SYMTAB: 2, DYNAMIC: 6, DYNSYM: 11, VERNEED: 0x6fff_fffe } as const;
const DT_NEEDED = 1;

interface Section {
  readonly type: number;
  readonly offset: number;
  readonly size: number;
  readonly link: number;
  readonly info: number;
}

/** @throws Error not ELF64, little-endian; RangeError cut short */
export function readElf(bytes: Uint8Array): Elf {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  if (view.getUint32(0, false) !== 0x7f45_4c46 || view.getUint8(4) !== 2 || view.getUint8(5) !== 1) {
    throw new Error('no ELF64 file, little-endian');
  }
  const u16 = (at: number): number => view.getUint16(at, true);
  const u32 = (at: number): number => view.getUint32(at, true);
  const u64 = (at: number): number => Number(view.getBigUint64(at, true));
  const table = u64(40);
  const sections = Array.from({ length: u16(60) }, (_, i): Section => {
    const at = table + i * u16(58);
    return { type: u32(at + 4), offset: u64(at + 24), size: u64(at + 32), link: u32(at + 40), info: u32(at + 44) };
  });
  const text = (strings: Section, offset: number): string => {
    const start = strings.offset + offset;
    return new TextDecoder().decode(bytes.subarray(start, bytes.indexOf(0, start)));
  };
  const ofType = (type: number): { section: Section; strings: Section }[] =>
    sections.filter((s) => s.type === type).map((section) => ({ section, strings: sections[section.link]! }));

  const needed = ofType(SHT.DYNAMIC).flatMap(({ section, strings }) =>
    Array.from({ length: section.size / 16 }, (_, i) => section.offset + i * 16)
      .filter((at) => u64(at) === DT_NEEDED)
      .map((at) => text(strings, u64(at + 8))),
  );
  const versions = ofType(SHT.VERNEED).flatMap(({ section, strings }) => {
    const found: string[] = [];
    for (let i = 0, at = section.offset; i < section.info; i++, at += u32(at + 12)) {
      for (let n = 0, aux = at + u32(at + 8); n < u16(at + 2); n++, aux += u32(aux + 12)) {
        found.push(text(strings, u32(aux + 8)));
      }
    }
    return found;
  });
  const exported = ofType(SHT.DYNSYM).flatMap(({ section, strings }) =>
    Array.from({ length: section.size / 24 }, (_, i) => section.offset + i * 24)
      .filter((at) => u16(at + 6) !== 0)
      .map((at) => text(strings, u32(at))),
  );
  return { machine: u16(18), needed, versions, exported, hasSymtab: ofType(SHT.SYMTAB).length > 0 };
}
