import { expect, test } from '@jest/globals';
import { Decoder } from '#lib/soft/a64/decode.js';
import { TABLE } from '#lib/soft/a64/table.js';
import { eachDisassembler, mayBeUndefined } from './disassemblers.ts';
import { Random } from './random.ts';
import { hex } from './row-words.ts';

/**
 * The whole encoding space, class by class: every value of bits 31..21 and 15..10, which tell nearly all encodings apart, with the
 * rest at random. What binutils or LLVM does not know must be UNDEFINED here, and what it knows must be here, or be of an extension
 * that the ID registers say is not there.
 */

/** Extensions that are not there, by the mnemonics of their instructions. */
const ABSENT: Readonly<Record<string, RegExp>> = {
  FEAT_MTE: /^(setg[pme]t?n?|addg|subg|subps?|irg|gmi|stgp?|stzg|st2g|stz2g|ldg|ldgm|stgm|stzgm|cmpp)\b|^msr tco\b/i,
  FEAT_SM3_SM4: /^(sm3|sm4)/,
  FEAT_I8MM: /^(usdot|sudot|smmla|ummla|usmmla)\b/,
  FEAT_BF16: /^bf(dot|mlal[bt]|mmla|cvt|cvtn2?)\b/,
  FEAT_CSSC: /^(umax|umin|smax|smin|abs|cnt|ctz) [wx]/,
  FEAT_HBC: /^bc\./,
  FEAT_TME: /^(tcancel|tstart|tcommit|ttest)\b/,
  FEAT_LS64: /^(ld64b|st64b|st64bv|st64bv0)\b/,
  FEAT_LSE128_D128_THE: /^(ldclrp|ldsetp|swpp|rcw|sysp|mrrs|msrr|ldiapp|stilp)/,
  FEAT_GCS: /^gcs/,
  FEAT_NMI: /^msr allint\b/,
  FEAT_SME: /^(smstart|smstop|msr svcr)/,
  FEAT_XS: /^dsb \w+nxs$/,
  FEAT_WFxT: /^wf[ei]t x/,
  'debug state': /^(dcps[123]|drps)\b/,
};
/** SVE and SME have classes of their own: 0010 and 0000 in bits 28..25. */
const isScalable = (word: number): boolean => ((word >>> 25) & 0b1101) === 0;
/** What they name though nothing is allocated there: registers and SYSL with op0 of other classes. */
const UNNAMED = /^(msr|mrs) .*\bs0_|^sysl\b/i;
/** FMLAL and FMLSL (vector), whose bit 22 is 0, and which binutils takes for 1 too. */
const FMLAL = /^fml[as]l2? v\d+\.[24]s, v\d+\.[24]h, v\d+\.[24]h$/;
/** Ordered accesses whose Rs and Rt2 should be ones: where they are not, they may be UNDEFINED. */
const ORDERED = /^(stll?r|ldl?ar)[bh]?\b/;
/** Memory copies and sets whose registers are the same, or 31, as they must not be. */
const COPY = /^(cpyf?|set)[pme]/;
const areApart = (word: number): boolean => {
  const [rd, rn, rs] = [word & 31, (word >>> 5) & 31, (word >>> 16) & 31];
  const isSet = ((word >>> 22) & 3) === 3;
  return rd !== rn && rd !== rs && rn !== rs && rd !== 31 && rn !== 31 && (isSet || rs !== 31);
};
/** LDPSW into one register twice, or writing back to one that it loads: UNPREDICTABLE, and UNDEFINED here as binutils has it. */
const LDPSW = /^ldpsw /;
const areLoadedApart = (word: number): boolean => {
  const [rt, rn, rt2] = [word & 31, (word >>> 5) & 31, (word >>> 10) & 31];
  const writesBack = ((word >>> 23) & 1) === 1;
  return rt !== rt2 && !(writesBack && (rt === rn || rt2 === rn) && rn !== 31);
};
const hasOnes = (word: number): boolean => ((word >>> 16) & 31) === 31 && ((word >>> 10) & 31) === 31;

eachDisassembler('the encoding space against', (disassembler) => {
  const decoder = new Decoder(TABLE);

  /** Fails with the words that one has and the other has not. */
  function compare(words: readonly number[], random: Random): void {
    const wrong: string[] = [];
    disassembler.disassemble(words).forEach((text, i) => {
      const word = words[i]!;
      const row = decoder.decode(word);
      if (text === undefined) {
        if (row !== undefined && !mayBeUndefined(disassembler, row, word))
          wrong.push(`${hex(word)} ${row.name}, which is not allocated`);
      } else if (row === undefined) {
        const isKnown =
          isScalable(word) ||
          Object.values(ABSENT).some((absent) => absent.test(text)) ||
          UNNAMED.test(text) ||
          FMLAL.test(text) ||
          (COPY.test(text) && !areApart(word)) ||
          (ORDERED.test(text) && !hasOnes(word)) ||
          (LDPSW.test(text) && !areLoadedApart(word));
        if (!isKnown) wrong.push(`${hex(word)} is not decoded: ${text}`);
      }
    });
    expect({ seed: random.seed, wrong: wrong.slice(0, 20) }).toEqual({ seed: random.seed, wrong: [] });
  }

  test.each(
    Array.from({ length: 8 }, (_, n) => [`0x${(n * 2).toString(16)}…, 0x${(n * 2 + 1).toString(16)}…`, n] as const),
  )('words %s', (_name, part) => {
    const random = new Random();
    const words: number[] = [];
    for (let high = part * 256; high < part * 256 + 256; high++) {
      for (let low = 0; low < 64; low++)
        words.push(((high << 21) | (random.below(32) << 16) | (low << 10) | random.below(1024)) >>> 0);
    }
    compare(words, random);
  });

  test('every row, and every neighbour of it: with one of its fixed bits turned over', () => {
    const random = new Random();
    const words: number[] = [];
    for (const row of TABLE) {
      for (let bit = 0; bit < 32; bit++) {
        const other = ((row.mask >>> bit) & 1) === 0 ? row.value : row.value ^ (1 << bit);
        for (let n = 0; n < 4; n++) words.push(((random.u32() & ~row.mask) | (n === 0 ? row.value : other)) >>> 0);
      }
    }
    compare(words, random);
  });
});
