import { describe, expect, test } from '@jest/globals';
import { advsimd } from '#lib/soft/a64/advsimd.js';
import { Decoder } from '#lib/soft/a64/decode.js';
import { fieldsOf, type Row } from '#lib/soft/a64/row.js';
import { TABLE } from '#lib/soft/a64/table.js';
import { eachDisassembler } from './disassemblers.ts';
import { Random } from './random.ts';
import { misfits, nearMiss, wordsOf } from './row-words.ts';

/** The encodings of the Advanced SIMD integer and cryptographic rows against those of binutils. */

/** Names that binutils prefers to the encoding's own, some of the time or always. */
const ALIASES: Readonly<Record<string, readonly string[]>> = {
  DUP: ['dup', 'mov'],
  INS: ['mov'],
  UMOV: ['umov', 'mov'],
  NOT: ['mvn'],
  ORR: ['orr', 'mov'],
  SSHLL: ['sshll', 'sshll2', 'sxtl', 'sxtl2'],
  USHLL: ['ushll', 'ushll2', 'uxtl', 'uxtl2'],
};

/** Whether binutils' text is an instruction of the row: the mnemonic, and every register in its place. */
function fits(row: Row, word: number, text: string): boolean {
  const base = /^[A-Z0-9]+/.exec(row.name)?.[0] ?? '';
  const [mnemonic = ''] = text.split(' ');
  const names = ALIASES[base] ?? [base.toLowerCase(), `${base.toLowerCase()}2`];
  if (!names.includes(mnemonic)) return false;
  const scalar = row.name.includes(', scalar');
  const f = fieldsOf(row, word);
  const registers = [...text.matchAll(/\b([bhsdqv])(\d+)\b/g)].map((m) => ({ kind: m[1], number: Number(m[2]) }));
  const general = [...text.matchAll(/\b(?:[wx](\d+)|[wx]zr)\b/g)].map((m) => Number(m[1] ?? 31));
  if (scalar && mnemonic !== 'mov' && registers[0]?.kind === 'v') return false;
  const expected = ['Vd', 'Vn', 'Vm', 'Va'].flatMap((name) => f[name] ?? []);
  const found = registers.map((r) => r.number);
  // A list of table registers shows its first and last.
  if (base === 'TBL' || base === 'TBX') return found[0] === f.Vd && found.at(-1) === f.Vm && found[1] === f.Vn;
  if (base === 'EOR3' || base === 'BCAX') {
    return found.join() === [f.Vd, f.Vn, f.Vm, f.Va].join();
  }
  // MOV names only one source of an ORR that has two alike.
  if (mnemonic === 'mov' && base === 'ORR') expected.pop();
  return found.join() === expected.join() && general.join() === ['Rd', 'Rn'].flatMap((name) => f[name] ?? []).join();
}

/** A row that none of so many words decodes to is hidden. */
const TRIES = 40_000;

describe('Advanced SIMD rows', () => {
  // The whole table: a row must not be hidden by one of another file either.
  const decoder = new Decoder(TABLE);
  const ours = new Set(advsimd);

  test('none is hidden by another', () => {
    const random = new Random();
    const hidden = advsimd.filter((row) => wordsOf(decoder, row, random, 1, TRIES).length === 0).map((row) => row.name);
    expect({ seed: random.seed, hidden }).toEqual({ seed: random.seed, hidden: [] });
  });

  eachDisassembler('against', (disassembler) => {
    test('each is what it says, with its registers', () => {
      const random = new Random();
      const cases = advsimd.flatMap((row) => wordsOf(decoder, row, random, 48, TRIES).map((word) => ({ row, word })));
      const wrong = misfits(disassembler, cases, fits);
      expect({ seed: random.seed, wrong: wrong.slice(0, 20) }).toEqual({ seed: random.seed, wrong: [] });
    });

    test('a word that is not allocated is not decoded', () => {
      const random = new Random();
      const words = Array.from({ length: 60_000 }, () => nearMiss(random.pick(advsimd), random));
      const cases = words.flatMap((word) => {
        const row = decoder.decode(word);
        return row !== undefined && ours.has(row) ? [{ row, word }] : [];
      });
      const wrong = misfits(disassembler, cases, fits);
      expect({ seed: random.seed, wrong: wrong.slice(0, 20) }).toEqual({ seed: random.seed, wrong: [] });
    });
  });
});
