import { describe, expect, test } from '@jest/globals';
import { atomics } from '#lib/soft/a64/atomics.js';
import { branches } from '#lib/soft/a64/branches.js';
import { dataProcessingImmediate } from '#lib/soft/a64/data-processing-immediate.js';
import { dataProcessingRegister } from '#lib/soft/a64/data-processing-register.js';
import { Decoder } from '#lib/soft/a64/decode.js';
import { loadStore } from '#lib/soft/a64/load-store.js';
import { fieldsOf, type Row } from '#lib/soft/a64/row.js';
import { simdLoadStore } from '#lib/soft/a64/simd-load-store.js';
import { TABLE } from '#lib/soft/a64/table.js';
import { cpy, E, M, memset, P } from '../soft/a64.ts';
import {
  type Case,
  differences,
  haveQemu,
  instructionAddress,
  qemuFrom,
  runCases,
  type State,
  WINDOW_SIZE,
  windowAddress,
} from './oracle.ts';
import { Random } from './random.ts';

/** Random instructions on random states: our engine against QEMU, every register, flag and byte of memory. */

/** Cases for each class of rows; `ELVISOR_CASES` asks for more. */
const CASES = Number(process.env.ELVISOR_CASES ?? 10_000);
const BATCH = 10_000;
const decoder = new Decoder(TABLE);

/** A random word of the row, with some fields as given. */
function wordOf(
  random: Random,
  r: Row,
  given: Readonly<Record<string, number>> = {},
  accept?: (f: Record<string, number>) => boolean,
): number {
  for (let tries = 0; tries < 100_000; tries++) {
    let word = (random.u32() & ~r.mask) | r.value;
    // Rows with a condition on their fields are met sooner with plain ones.
    for (const f of r.fields) {
      const mask = ((1 << f.width) - 1) << f.lsb;
      const value =
        given[f.name] ??
        (f.kind !== 'static' && random.below(8) === 0 ? random.pick([0, (1 << f.width) - 1]) : undefined);
      if (value !== undefined) word = (word & ~mask) | ((value << f.lsb) & mask);
    }
    word >>>= 0;
    if (decoder.decode(word) === r && (accept === undefined || accept(fieldsOf(r, word)))) return word;
  }
  throw new Error(`${r.name} was not met in 100,000 tries`);
}

function randomState(random: Random): State {
  const vectors = random.list64(64);
  return {
    x: Array.from({ length: 31 }, () => random.interesting64()),
    sp: random.u64(),
    nzcv: (random.u32() & 0xf000_0000) >>> 0,
    fpcr: 0,
    fpsr: 0,
    v: Array.from({ length: 32 }, (_, n) => (vectors[n * 2 + 1]! << 64n) | vectors[n * 2]!),
    memory: new Uint8Array(random.list64(WINDOW_SIZE / 8).buffer),
  };
}

/** Makes register `n` (31 is SP) hold a value. */
function setBase(state: State, n: number, value: bigint): void {
  if (n === 31) state.sp = BigInt.asUintN(64, value);
  else state.x[n] = BigInt.asUintN(64, value);
}

const isPrefetch = (r: Row): boolean => r.name.startsWith('PRF');

/** What a register-offset address adds to its base. */
function registerOffset(state: State, r: Row, f: Record<string, number>): bigint {
  const m = f.Rm === 31 ? 0n : (state.x[f.Rm ?? 0] ?? 0n);
  const option = f.option ?? 0;
  const extended = option === 2 ? BigInt.asUintN(32, m) : option === 6 ? BigInt.asIntN(32, m) : m;
  const log2 = r.name.endsWith('SIMD&FP, Q)') ? 4 : r.value >>> 30;
  return f.S === 1 ? extended << BigInt(log2) : extended;
}

/** Offset that the instruction adds to its base before it accesses memory. */
function offsetOf(state: State, r: Row, f: Record<string, number>): bigint {
  if (f.option !== undefined && f.Rm !== undefined) return registerOffset(state, r, f);
  if (r.name.includes('post-index')) return 0n;
  const op = r.ops.offset;
  if (op !== undefined) return BigInt.asIntN(16, BigInt(op(f)));
  return r.imm === undefined ? 0n : BigInt(r.imm(f));
}

/** A case of a load or store, its address made to lie in the window. */
function memoryCase(random: Random, r: Row, index: number, align: number): Case {
  const state = randomState(random);
  if (isPrefetch(r)) return { words: [wordOf(random, r)], state };
  if (r.name.includes('literal')) {
    // The literal is in the case's own code.
    return { words: [wordOf(random, r, { imm19: random.below(14) - 6 })], state };
  }
  const accept = (f: Record<string, number>): boolean => {
    // CONSTRAINED UNPREDICTABLE: a loaded register that is also the base written back, or loaded twice.
    const base = f.Rn;
    const writesBack = r.name.includes('-index') && base !== 31;
    if (writesBack && (f.Rt === base || f.Rt2 === base)) return false;
    if (f.Rt2 !== undefined && f.Rt === f.Rt2) return false;
    if (f.Vt2 !== undefined && f.Vt === f.Vt2) return false;
    // The index must not move when the base is set.
    return f.option === undefined || f.Rm !== base || base === 31;
  };
  const word = wordOf(random, r, {}, accept);
  const f = fieldsOf(r, word);
  const offset = 96 + random.below(96 / align) * align;
  const address = BigInt(windowAddress(index) + offset);
  setBase(state, f.Rn ?? 0, address - offsetOf(state, r, f));
  if (r.name.startsWith('CAS') && random.below(2) === 0) {
    // Let the comparison hold.
    const view = new DataView(state.memory.buffer);
    const rs = f.Rs ?? 0;
    const x = (n: number): bigint => (n === 31 ? 0n : (state.x[n] ?? 0n));
    if (r.name.startsWith('CASP (32')) {
      view.setUint32(offset, Number(BigInt.asUintN(32, x(rs))), true);
      view.setUint32(offset + 4, Number(BigInt.asUintN(32, x(rs + 1))), true);
    } else {
      view.setBigUint64(offset, x(rs), true);
      if (r.name.startsWith('CASP')) view.setBigUint64(offset + 8, x(rs + 1), true);
    }
  }
  return { words: [word], state };
}

/** Runs the cases that `prepare` makes on both machines, and fails with what differs and the seed that gives it again. */
function check(prepare: (random: Random) => (index: number) => Case, program?: string): void {
  const random = new Random();
  const wrong: string[] = [];
  try {
    const make = prepare(random);
    for (let done = 0; done < CASES && wrong.length === 0; done += BATCH) {
      const cases = Array.from({ length: Math.min(BATCH, CASES - done) }, (_, i) => make(i));
      const { qemu, engine } = runCases(cases, program);
      cases.forEach((c, i) => {
        const different = differences(engine[i]!, qemu[i]!);
        if (different.length === 0) return;
        const words = c.words.map(
          (w) => `${(w >>> 0).toString(16).padStart(8, '0')} ${decoder.decode(w)?.name ?? 'UNDEFINED'}`,
        );
        wrong.push(`${words.join('; ')}: ${different.slice(0, 3).join(', ')}`);
      });
    }
  } catch (cause) {
    throw new Error(`with ELVISOR_SEED=${random.seed}: ${(cause as Error).message}`, { cause });
  }
  const summary = { ELVISOR_SEED: random.seed, count: wrong.length, wrong: wrong.slice(0, 20) };
  expect(summary).toEqual({ ELVISOR_SEED: random.seed, count: 0, wrong: [] });
}

(haveQemu ? describe : describe.skip)(
  `integer instructions against QEMU${haveQemu ? '' : ' (qemu-aarch64-static is not installed)'}`,
  () => {
    test.each([
      ['data processing, immediate', dataProcessingImmediate],
      ['data processing, register', dataProcessingRegister],
    ])('%s', (_name, rows) => {
      check((random) => {
        // Some rows are rarely met by chance, so a word is used with several states.
        const pools = rows.map((r) => Array.from({ length: 48 }, () => wordOf(random, r)));
        return (i) => ({ words: [random.pick(pools[i % rows.length]!)], state: randomState(random) });
      });
    });

    test('branches', () => {
      const rows = branches.filter((r) => !['SVC', 'HVC', 'SMC', 'BRK', 'HLT'].includes(r.name));
      check((random) => (i) => {
        const r = rows[i % rows.length]!;
        const state = randomState(random);
        const distance = random.pick([8, -8]);
        const given = { imm26: distance / 4, imm19: distance / 4, imm14: distance / 4 };
        const word = wordOf(random, r, given, (f) => f.Rn !== 31);
        const { Rn, Rt } = fieldsOf(r, word);
        if (Rn !== undefined) state.x[Rn] = BigInt(instructionAddress(i) + distance);
        // Small values, so that CBZ and TBZ go both ways.
        if (Rt !== undefined && Rt !== 31 && random.below(2) === 0) state.x[Rt] = random.pick([0n, 1n << 32n]);
        // Not taken: add x29, x29, #1.
        return { words: [word, 0x910007bd], state };
      });
    });

    test('loads and stores', () => {
      check((random) => (i) => {
        const r = loadStore[i % loadStore.length]!;
        const ordered = /^(LDA|STL|LDLA)/.test(r.name);
        return memoryCase(random, r, i, ordered ? 8 : 1);
      });
    });

    test('atomics', () => {
      const rows = atomics.filter((r) => !/^(LDX|STX)/.test(r.name));
      check((random) => (i) => {
        const r = rows[i % rows.length]!;
        return memoryCase(random, r, i, r.name.startsWith('CASP') ? 16 : 8);
      });
    });

    test('exclusives', () => {
      const loads = atomics.filter((r) => r.name.startsWith('LDX'));
      check((random) => (i) => {
        const load = loads[i % loads.length]!;
        const store = atomics.find((r) => r.name === load.name.replaceAll('LDA', 'STL').replaceAll('LDX', 'STX'))!;
        const state = randomState(random);
        const [n, t, t2, s, v, v2] = distinct(random, 6) as [number, number, number, number, number, number];
        const loadWord = wordOf(random, load, { Rn: n, Rt: t, Rt2: t2 });
        const storeWord = wordOf(random, store, { Rn: n, Rt: v, Rt2: v2, Rs: s });
        setBase(state, n, BigInt(windowAddress(i) + 96 + random.below(6) * 16));
        // Another store to the place in between (STRB), or a store-exclusive with no load before it.
        const storeByte = (0x39000000 | (n << 5) | v) >>> 0;
        switch (random.below(4)) {
          case 0:
            return { words: [loadWord, storeByte, storeWord], state };
          case 1:
            return { words: [storeWord, loadWord, storeWord, storeWord], state };
          default:
            return { words: [loadWord, storeWord], state };
        }
      });
    });

    // Where its three instructions stop in between is each implementation's choice; and what a copy that only goes forwards makes
    // of an overlap that it would have to go backwards for.
    const withCopies = qemuFrom(9);
    const title = `memory copies and sets${withCopies === undefined ? ' (they need QEMU 9: npm run fetch:oracles)' : ''}`;
    (withCopies === undefined ? test.skip : test)(title, () => {
      check(
        (random) => (i) => {
          const state = randomState(random);
          const kind = random.pick(['CPYF', 'CPY', 'SET'] as const);
          const registers = new Set<number>();
          while (registers.size < 3) registers.add(random.below(30));
          const [rd, rs, rn] = [...registers] as [number, number, number];
          const size = random.pick([0, 1, random.below(16), random.below(100)]);
          const to = random.below(WINDOW_SIZE - size);
          let from = random.below(WINDOW_SIZE - size);
          if (kind === 'CPYF' && from < to && from + size > to) from = to;
          state.x[rd] = BigInt(windowAddress(i) + to);
          if (kind !== 'SET') state.x[rs] = BigInt(windowAddress(i) + from);
          state.x[rn] = BigInt(size);
          const options = random.below(kind === 'SET' ? 4 : 16);
          const value = random.below(8) === 0 ? 31 : rs;
          const word = (stage: number): number =>
            kind === 'SET'
              ? memset(stage, { rd, rs: value, rn, options })
              : cpy(stage, kind === 'CPY', { rd, rs, rn, options });
          return { words: [P, M, E].map(word), state };
        },
        withCopies,
      );
    });

    test('loads and stores of SIMD&FP registers', () => {
      check((random) => (i) => memoryCase(random, simdLoadStore[i % simdLoadStore.length]!, i, 1));
    });
  },
);

/** So many different register numbers, the first of which may be SP. */
function distinct(random: Random, count: number): number[] {
  const out: number[] = [];
  while (out.length < count) {
    const n = random.below(out.length === 0 ? 32 : 31);
    if (!out.includes(n)) out.push(n);
  }
  return out;
}
