import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { atomics } from '#lib/soft/a64/atomics.js';
import { branches } from '#lib/soft/a64/branches.js';
import { dataProcessingImmediate } from '#lib/soft/a64/data-processing-immediate.js';
import { dataProcessingRegister } from '#lib/soft/a64/data-processing-register.js';
import { Decoder } from '#lib/soft/a64/decode.js';
import { loadStore } from '#lib/soft/a64/load-store.js';
import type { Row } from '#lib/soft/a64/row.js';
import { simdLoadStore } from '#lib/soft/a64/simd-load-store.js';
import { TABLE } from '#lib/soft/a64/table.js';
import { Random } from './random.ts';

/** The encodings of the table against those of binutils. */

const OBJDUMP = 'aarch64-linux-gnu-objdump';
const haveObjdump = spawnSync(OBJDUMP, ['--version']).status === 0;

const ROWS: readonly Row[] = [
  ...dataProcessingImmediate,
  ...dataProcessingRegister,
  ...branches,
  ...loadStore,
  ...atomics,
  ...simdLoadStore,
];

/** The mnemonic of each word, or undefined where binutils knows no instruction. */
function disassemble(words: readonly number[]): (string | undefined)[] {
  const directory = mkdtempSync(join(tmpdir(), 'elvisor-objdump-'));
  try {
    const file = join(directory, 'words.bin');
    writeFileSync(file, new Uint8Array(new Uint32Array(words).buffer));
    const { stdout, status, stderr } = spawnSync(OBJDUMP, ['-D', '-z', '-b', 'binary', '-m', 'aarch64', file], {
      maxBuffer: 1 << 30,
      encoding: 'utf8',
    });
    if (status !== 0) throw new Error(`${OBJDUMP} ended with ${status}: ${stderr}`);
    const out: (string | undefined)[] = [];
    for (const line of stdout.split('\n')) {
      const [, word, mnemonic] = /^\s*[0-9a-f]+:\s+([0-9a-f]{8})\s+(\S+)/.exec(line) ?? [];
      if (word === undefined || mnemonic === undefined) continue;
      if (Number.parseInt(word, 16) !== (words[out.length] ?? -1) >>> 0)
        throw new Error(`${OBJDUMP} skipped a word before ${line}`);
      out.push(mnemonic === '.inst' || mnemonic === 'udf' ? undefined : mnemonic);
    }
    if (out.length !== words.length) throw new Error(`${OBJDUMP} gave ${out.length} lines for ${words.length} words`);
    return out;
  } finally {
    rmSync(directory, { recursive: true });
  }
}

/** Other names that binutils gives the encodings of a name. */
const ALIASES: Readonly<Record<string, string>> = {
  ADD: 'add mov',
  ADDS: 'adds cmn',
  SUB: 'sub neg',
  SUBS: 'subs cmp negs',
  AND: 'and',
  ORR: 'orr mov',
  ORN: 'orn mvn',
  ANDS: 'ands tst',
  MOV: 'mov orr',
  MOVN: 'mov movn',
  MOVZ: 'mov movz',
  SBFM: 'sbfm sbfx sbfiz sxtb sxth sxtw asr',
  BFM: 'bfm bfi bfxil bfc',
  UBFM: 'ubfm ubfx ubfiz uxtb uxth lsl lsr',
  UBFX: 'ubfx uxtb uxth ubfiz lsr',
  ROR: 'ror extr',
  ADC: 'adc adcs',
  SBC: 'sbc sbcs ngc ngcs',
  CSEL: 'csel',
  CSET: 'cset',
  CSINC: 'csinc cinc cset',
  CSINV: 'csinv cinv csetm',
  CSNEG: 'csneg cneg',
  REV: 'rev rev32',
  LSLV: 'lsl',
  LSRV: 'lsr',
  ASRV: 'asr',
  RORV: 'ror',
  MADD: 'madd mul',
  MSUB: 'msub mneg',
  SMADDL: 'smaddl smull',
  SMSUBL: 'smsubl smnegl',
  UMADDL: 'umaddl umull',
  UMSUBL: 'umsubl umnegl',
  PRFM: 'prfm',
};

/** Whether binutils' mnemonic is one of the row's. */
function fits(r: Row, mnemonic: string): boolean {
  const names = r.name
    .replace(/\(.*?\)/g, '')
    .split(',')
    .map((n) => n.trim())
    .filter((n) => /^[A-Z][A-Z0-9.]*(cond)?$/.test(n));
  return names.some((name) => {
    if (name === 'B.cond') return mnemonic.startsWith('b.');
    if ((ALIASES[name] ?? name.toLowerCase()).split(' ').includes(mnemonic)) return true;
    const lower = name.toLowerCase();
    // Acquire and release variants of the atomics, and their forms without a result.
    const atomic = /^(cas|casp|swp|ld(?:add|clr|eor|set|[su]max|[su]min))([bh]?)$/.exec(lower);
    if (atomic === null) return false;
    const [, base = '', suffix = ''] = atomic;
    const variants = ['', 'a', 'l', 'al'].map((order) => `${base}${order}${suffix}`);
    return [...variants, ...variants.map((v) => v.replace(/^ld/, 'st'))].includes(mnemonic);
  });
}

const hex = (word: number): string => (word >>> 0).toString(16).padStart(8, '0');

describe('the table', () => {
  test('has no row that another hides', () => {
    const random = new Random();
    const decoder = new Decoder(TABLE);
    // A row that none of so many tries decodes to never will be decoded: the rarest, SXTB, is one in 8,192.
    const hidden = ROWS.filter((r) => {
      for (let i = 0; i < 400_000; i++) {
        const word = ((random.u32() & ~r.mask) | r.value) >>> 0;
        if (decoder.decode(word) === r) return false;
      }
      return true;
    });
    expect(hidden.map((r) => r.name)).toEqual([]);
  });
});

(haveObjdump ? describe : describe.skip)(`encodings against ${OBJDUMP}${haveObjdump ? '' : ' (not installed)'}`, () => {
  const decoder = new Decoder(TABLE);

  test('every integer, branch, load and store row is what binutils says', () => {
    const random = new Random();
    const words: number[] = [];
    const rows: Row[] = [];
    for (const r of ROWS) {
      for (let tries = 0, found = 0; tries < 20_000 && found < 64; tries++) {
        const word = ((random.u32() & ~r.mask) | r.value) >>> 0;
        if (decoder.decode(word) !== r) continue;
        words.push(word);
        rows.push(r);
        found++;
      }
    }
    const wrong = new Set<string>();
    disassemble(words).forEach((mnemonic, i) => {
      const r = rows[i] as Row;
      if (mnemonic === undefined || !fits(r, mnemonic))
        wrong.add(`${hex(words[i]!)} ${r.name}: ${mnemonic ?? 'undefined'}`);
    });
    expect({ seed: random.seed, wrong: [...wrong] }).toEqual({ seed: random.seed, wrong: [] });
  });

  test('what binutils does not know is not decoded', () => {
    const random = new Random();
    // Near misses: a row's own bits with one flipped, and words of the load/store and data-processing groups.
    const words = Array.from({ length: 60_000 }, () => {
      const r = random.pick(ROWS);
      const word = (random.u32() & ~r.mask) | r.value;
      return (random.below(4) === 0 ? word : word ^ (1 << random.below(32))) >>> 0;
    });
    const wrong = new Set<string>();
    disassemble(words).forEach((mnemonic, i) => {
      const r = decoder.decode(words[i]!);
      if (mnemonic === undefined && r !== undefined) wrong.add(`${hex(words[i]!)} ${r.name}`);
    });
    expect({ seed: random.seed, wrong: [...wrong] }).toEqual({ seed: random.seed, wrong: [] });
  });
});
