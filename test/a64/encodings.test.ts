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
import { eachDisassembler, mayBeUndefined } from './disassemblers.ts';
import { Random } from './random.ts';
import { anyWordOf, hex, misfits, wordsOf } from './row-words.ts';

/** The encodings of the table against those of binutils and LLVM. */

const ROWS: readonly Row[] = [
  ...dataProcessingImmediate,
  ...dataProcessingRegister,
  ...branches,
  ...loadStore,
  ...atomics,
  ...simdLoadStore,
];

/** Other names that disassemblers give the encodings of a name. */
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
function fits(r: Row, _word: number, text: string): boolean {
  const [mnemonic = ''] = text.split(' ');
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

describe('the table', () => {
  test('has no row that another hides', () => {
    const random = new Random();
    const decoder = new Decoder(TABLE);
    // A row that none of so many tries decodes to never will be decoded: the rarest, SXTB, is one in 8,192.
    const hidden = ROWS.filter((r) => wordsOf(decoder, r, random, 1, 400_000).length === 0);
    expect(hidden.map((r) => r.name)).toEqual([]);
  });
});

eachDisassembler('encodings against', (disassembler) => {
  const decoder = new Decoder(TABLE);

  test('every integer, branch, load and store row is what it says', () => {
    const random = new Random();
    const cases = ROWS.flatMap((row) => wordsOf(decoder, row, random, 64, 20_000).map((word) => ({ row, word })));
    const wrong = misfits(disassembler, cases, fits);
    expect({ seed: random.seed, wrong }).toEqual({ seed: random.seed, wrong: [] });
  });

  test('what it does not know is not decoded', () => {
    const random = new Random();
    // Near misses: a row's own bits with one flipped, and words of the load/store and data-processing groups.
    const words = Array.from({ length: 60_000 }, () => {
      const r = random.pick(ROWS);
      const word = anyWordOf(r, random);
      return (random.below(4) === 0 ? word : word ^ (1 << random.below(32))) >>> 0;
    });
    const wrong = new Set<string>();
    disassembler.disassemble(words).forEach((text, i) => {
      const r = decoder.decode(words[i]!);
      if (text !== undefined || r === undefined || mayBeUndefined(disassembler, r, words[i]!)) return;
      wrong.add(`${hex(words[i]!)} ${r.name}`);
    });
    expect({ seed: random.seed, wrong: [...wrong] }).toEqual({ seed: random.seed, wrong: [] });
  });
});
