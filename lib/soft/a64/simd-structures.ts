import { Offset } from '../cpu/layout.js';
import type { Emitter, Val, VOperand, XOperand } from './emitter.js';
import { type Row, row } from './row.js';

/** Loads and stores of structures: LD1 to LD4, ST1 to ST4, LD1R to LD4R (Arm ARM DDI 0487 C4.1.96). */

/** The registers after Vt, as operands: their offsets in the CPU state (the numbers wrap around at 31). */
const following =
  (n: number) =>
  (f: { Vt: number }): number =>
    Offset.V0 + ((f.Vt + n) & 31) * 16;
const registerList = { v1: following(1), v2: following(2), v3: following(3) };
const registers = (vt: VOperand, count: number): readonly VOperand[] =>
  [
    vt,
    { kind: 'v', field: 'v1' } as const,
    { kind: 'v', field: 'v2' } as const,
    { kind: 'v', field: 'v3' } as const,
  ].slice(0, count);

/**
 * A vector put together from bytes of others, by shuffles.
 * @param pick for each byte: which source, and which byte of it; -1 for a byte that does not matter
 */
function gather(e: Emitter, sources: readonly Val[], pick: readonly (readonly [source: number, byte: number])[]): Val {
  const used = [...new Set(pick.map(([s]) => s).filter((s) => s >= 0))];
  const first = sources[used[0] ?? 0] as Val;
  const second = sources[used[1] ?? used[0] ?? 0] as Val;
  let out = e.shuffle(
    first,
    second,
    pick.map(([s, byte]) => (s === used[0] ? byte : s === used[1] ? 16 + byte : 0)),
  );
  for (const next of used.slice(2)) {
    out = e.shuffle(
      out,
      sources[next] as Val,
      pick.map(([s, byte], i) => (s === next ? 16 + byte : i)),
    );
  }
  return out;
}

interface Multiple {
  readonly name: string;
  readonly opcode: string;
  /** Registers, and elements in a structure. */
  readonly count: number;
  readonly interleave: number;
}
const MULTIPLES: readonly Multiple[] = [
  { name: '1 (one register)', opcode: '0111', count: 1, interleave: 1 },
  { name: '1 (two registers)', opcode: '1010', count: 2, interleave: 1 },
  { name: '1 (three registers)', opcode: '0110', count: 3, interleave: 1 },
  { name: '1 (four registers)', opcode: '0010', count: 4, interleave: 1 },
  { name: '2 (multiple structures)', opcode: '1000', count: 2, interleave: 2 },
  { name: '3 (multiple structures)', opcode: '0100', count: 3, interleave: 3 },
  { name: '4 (multiple structures)', opcode: '0000', count: 4, interleave: 4 },
];

const at = (e: Emitter, base: Val, offset: number): Val => (offset === 0 ? base : e.add(base, e.i64(offset)));

/** The memory of `total` bytes as vectors of 16; the last may be 8 bytes long. */
function loadBlock(e: Emitter, base: Val, total: number): Val[] {
  const out: Val[] = [];
  for (let offset = 0; offset < total; offset += 16) {
    const va = at(e, base, offset);
    out.push(total - offset >= 16 ? e.load(16, va) : e.op('i64x2.splat', e.load(8, va)));
  }
  return out;
}

function storeBlock(e: Emitter, base: Val, total: number, vectors: readonly Val[]): void {
  vectors.forEach((v, i) => {
    const va = at(e, base, i * 16);
    if (total - i * 16 >= 16) e.store(16, va, v);
    else e.store(8, va, e.lane('i64x2.extract_lane', 0, v));
  });
}

/** Where byte `byte` of register `r` is in memory, for structures of `n` elements of `size` bytes. */
const memoryByte = (n: number, size: number, r: number, byte: number): number =>
  (Math.floor(byte / size) * n + r) * size + (byte % size);

function loadMultiple(e: Emitter, m: Multiple, q: number, size: number, base: Val, list: readonly VOperand[]): void {
  const bytes = q === 1 ? 16 : 8;
  const block = loadBlock(e, base, bytes * m.count);
  list.forEach((reg, r) => {
    if (m.interleave === 1 && q === 1) {
      e.setV(reg, block[r] as Val);
      return;
    }
    if (m.interleave === 1) {
      e.setScalar(reg, 8, e.lane('i64x2.extract_lane', r & 1, block[r >> 1] as Val));
      return;
    }
    const pick = Array.from({ length: 16 }, (_, byte): [number, number] => {
      if (byte >= bytes) return [-1, 0];
      const from = memoryByte(m.interleave, size, r, byte);
      return [from >> 4, from & 15];
    });
    const value = gather(e, block, pick);
    if (q === 1) e.setV(reg, value);
    else e.setScalar(reg, 8, e.lane('i64x2.extract_lane', 0, value));
  });
}

function storeMultiple(e: Emitter, m: Multiple, q: number, size: number, base: Val, list: readonly VOperand[]): void {
  const bytes = q === 1 ? 16 : 8;
  const total = bytes * m.count;
  const sources = list.map((reg) => e.getV(reg));
  if (m.interleave === 1 && q === 1) {
    storeBlock(e, base, total, sources);
    return;
  }
  // The inverse of where each register's bytes go.
  const origin = new Map<number, [number, number]>();
  for (let r = 0; r < m.count; r++) {
    for (let byte = 0; byte < bytes; byte++) {
      const to = m.interleave === 1 ? r * bytes + byte : memoryByte(m.interleave, size, r, byte);
      origin.set(to, [r, byte]);
    }
  }
  const block: Val[] = [];
  for (let offset = 0; offset < total; offset += 16) {
    block.push(
      gather(
        e,
        sources,
        Array.from({ length: 16 }, (_, i) => origin.get(offset + i) ?? [-1, 0]),
      ),
    );
  }
  storeBlock(e, base, total, block);
}

function multiple(m: Multiple, isStore: boolean): Row[] {
  const name = `${isStore ? 'ST' : 'LD'}${m.name}`;
  const l = isStore ? '0' : '1';
  const transfer = (e: Emitter, f: { Q: number; size: number; Vt: VOperand }, base: Val): void =>
    (isStore ? storeMultiple : loadMultiple)(e, m, f.Q, 1 << f.size, base, registers(f.Vt, m.count));
  const options = {
    // One 64-bit element in a register cannot be interleaved.
    when: (f: { Q: number; size: number }): boolean => m.interleave === 1 || f.Q === 1 || f.size !== 3,
    ops: registerList,
  };
  return [
    row(name, `0 Q 001100 0 ${l as '0'} 0 00000 ${m.opcode as '0000'} size:2 Rn|SP Vt`, options, (e, f) => {
      transfer(e, f, e.getX(f.Rn));
    }),
    row(
      `${name}, post-index by its size`,
      `0 Q 001100 1 ${l as '0'} 0 11111 ${m.opcode as '0000'} size:2 Rn|SP Vt`,
      options,
      (e, f) => {
        const base = e.getX(f.Rn);
        transfer(e, f, base);
        e.setR(f.Rn, e.add(base, e.i64(m.count * (f.Q === 1 ? 16 : 8))));
      },
    ),
    row(
      `${name}, post-index by a register`,
      `0 Q 001100 1 ${l as '0'} 0 Rm ${m.opcode as '0000'} size:2 Rn|SP Vt`,
      options,
      (e, f) => {
        const base = e.getX(f.Rn);
        transfer(e, f, base);
        e.setR(f.Rn, e.add(base, e.getX(f.Rm)));
      },
    ),
  ];
}

interface LaneFields {
  readonly Q: number;
  readonly opcode: number;
  readonly S: number;
  readonly size: number;
}

/** The element size in bytes and the index of a single structure; undefined where it is not allocated. */
function lane(f: LaneFields): { bytes: 1 | 2 | 4 | 8; index: number } | undefined {
  const all = (f.Q << 3) | (f.S << 2) | f.size;
  switch (f.opcode) {
    case 0:
      return { bytes: 1, index: all };
    case 1:
      return (f.size & 1) === 0 ? { bytes: 2, index: all >> 1 } : undefined;
    default:
      if (f.size === 0) return { bytes: 4, index: all >> 2 };
      return f.size === 1 && f.S === 0 ? { bytes: 8, index: f.Q } : undefined;
  }
}

type LoadOrStore = (
  e: Emitter,
  f: LaneFields & { readonly size: number },
  base: Val,
  list: readonly VOperand[],
) => void;

const loadLanes: LoadOrStore = (e, f, base, list) => {
  const { bytes, index } = lane(f)!;
  const values = list.map((_, i) => e.load(bytes, at(e, base, i * bytes)));
  list.forEach((reg, i) => {
    e.setElem(reg, bytes, index, values[i] as Val);
  });
};

const storeLanes: LoadOrStore = (e, f, base, list) => {
  const { bytes, index } = lane(f)!;
  list.forEach((reg, i) => {
    e.store(bytes, at(e, base, i * bytes), e.getElem(reg, bytes, index));
  });
};

const SPLAT = ['i8x16.splat', 'i16x8.splat', 'i32x4.splat', 'i64x2.splat'] as const;
const loadReplicated: LoadOrStore = (e, f, base, list) => {
  const bytes = (1 << f.size) as 1 | 2 | 4 | 8;
  const values = list.map((_, i) => e.load(bytes, at(e, base, i * bytes)));
  list.forEach((reg, i) => {
    const all = e.op(SPLAT[f.size] as string, values[i] as Val);
    if (f.Q === 1) e.setV(reg, all);
    else e.setScalar(reg, 8, e.lane('i64x2.extract_lane', 0, all));
  });
};

/** A single structure of `count` elements, in its three addressing forms. */
function structure(count: number, kind: 'LD' | 'ST' | 'LDR'): Row[] {
  const r = count === 2 || count === 4 ? '1' : '0';
  const l = kind === 'ST' ? '0' : '1';
  const transfer = kind === 'LD' ? loadLanes : kind === 'ST' ? storeLanes : loadReplicated;
  const name = kind === 'LDR' ? `LD${count}R` : `${kind}${count} (single structure)`;
  // opcode is `opcode<2:1>`; its bit 0 says, with R, how many elements there are.
  const high = count > 2 ? '1' : '0';
  const sizeOf = (f: LaneFields): number => (kind === 'LDR' ? 1 << f.size : (lane(f)?.bytes ?? 0));
  const options = {
    when: (f: LaneFields): boolean =>
      kind === 'LDR' ? f.opcode === 3 && f.S === 0 : f.opcode !== 3 && lane(f) !== undefined,
    ops: registerList,
  };
  const run = (
    e: Emitter,
    f: LaneFields & { readonly Rn: XOperand; readonly Vt: VOperand },
    advance: ((base: Val) => Val) | undefined,
  ): void => {
    const base = e.getX(f.Rn);
    transfer(e, f, base, registers(f.Vt, count));
    if (advance !== undefined) e.setR(f.Rn, advance(base));
  };
  return [
    row(name, `0 Q 001101 0 ${l as '0'} ${r as '0'} 00000 opcode:2 ${high as '0'} S size:2 Rn|SP Vt`, options, (e, f) =>
      run(e, f, undefined),
    ),
    row(
      `${name}, post-index by its size`,
      `0 Q 001101 1 ${l as '0'} ${r as '0'} 11111 opcode:2 ${high as '0'} S size:2 Rn|SP Vt`,
      options,
      (e, f) => run(e, f, (base) => e.add(base, e.i64(count * sizeOf(f)))),
    ),
    row(
      `${name}, post-index by a register`,
      `0 Q 001101 1 ${l as '0'} ${r as '0'} Rm opcode:2 ${high as '0'} S size:2 Rn|SP Vt`,
      options,
      (e, f) => run(e, f, (base) => e.add(base, e.getX(f.Rm))),
    ),
  ];
}

export const simdStructures: readonly Row[] = [
  ...MULTIPLES.flatMap((m) => [...multiple(m, false), ...multiple(m, true)]),
  ...[1, 2, 3, 4].flatMap((count) => [
    ...structure(count, 'LD'),
    ...structure(count, 'ST'),
    ...structure(count, 'LDR'),
  ]),
];
