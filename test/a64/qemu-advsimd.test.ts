import { describe, expect, test } from '@jest/globals';
import { advsimdAcross } from '#lib/soft/a64/advsimd-across.js';
import { advsimdByElement } from '#lib/soft/a64/advsimd-by-element.js';
import { advsimdCopy } from '#lib/soft/a64/advsimd-copy.js';
import { advsimdPermute } from '#lib/soft/a64/advsimd-permute.js';
import { advsimdScalar } from '#lib/soft/a64/advsimd-scalar.js';
import { advsimdShiftImm } from '#lib/soft/a64/advsimd-shift-imm.js';
import { advsimdThreeDifferent } from '#lib/soft/a64/advsimd-three-different.js';
import { advsimdThreeSame } from '#lib/soft/a64/advsimd-three-same.js';
import { advsimdTwoMisc } from '#lib/soft/a64/advsimd-two-misc.js';
import { crypto } from '#lib/soft/a64/crypto.js';
import { Decoder } from '#lib/soft/a64/decode.js';
import type { Row } from '#lib/soft/a64/row.js';
import { TABLE } from '#lib/soft/a64/table.js';
import { type Case, differences, emptyState, haveQemu, runCases } from './oracle.ts';
import { Random } from './random.ts';
import { randomVector } from './simd-operands.ts';

/** Every Advanced SIMD integer and cryptographic row, on random fields and states, against QEMU bit for bit. */

/** Cases for each class of rows; `ELVISOR_CASES` asks for more. */
const CASES = Number(process.env.ELVISOR_CASES ?? 10_000);
const BATCH = 5_000;

const CLASSES: readonly (readonly [string, readonly Row[]])[] = [
  ['copy and modified immediate', advsimdCopy],
  ['extract, permute and table lookup', advsimdPermute],
  ['three same', advsimdThreeSame],
  ['three different', advsimdThreeDifferent],
  ['two-register miscellaneous', advsimdTwoMisc],
  ['across lanes', advsimdAcross],
  ['shift by immediate', advsimdShiftImm],
  ['by element', advsimdByElement],
  ['scalar', advsimdScalar],
  ['cryptography', crypto],
];

(haveQemu ? describe : describe.skip)(
  `Advanced SIMD as QEMU does it${haveQemu ? '' : ' (qemu-aarch64-static is not installed)'}`,
  () => {
    const decoder = new Decoder(TABLE);

    /** A word of the row, with random fields; registers are often the same ones. */
    function randomWord(row: Row, random: Random): number {
      for (let tries = 0; tries < 100_000; tries++) {
        let word = (random.u32() & ~row.mask) | row.value;
        if (random.below(4) === 0) {
          for (const f of row.fields) {
            if (f.kind === 'v') word = (word & ~(31 << f.lsb)) | (random.below(2) << f.lsb);
          }
        }
        if (decoder.decode(word >>> 0) === row) return word >>> 0;
      }
      throw new Error(`${row.name} has no encoding of its own`);
    }

    /** What registers hold comes from a pool: making numbers costs more than running the instructions. */
    function caseMaker(random: Random): (row: Row) => Case {
      const vectors = Array.from({ length: 1000 }, () => randomVector(random));
      const numbers = Array.from({ length: 200 }, () => random.interesting64());
      return (row) => {
        const state = emptyState();
        state.x = state.x.map(() => random.pick(numbers));
        state.sp = random.pick(numbers) & ~15n;
        state.nzcv = (random.u32() & 0xf000_0000) >>> 0;
        state.fpsr = random.pick([0, 1 << 27, 0x1f, 1]);
        state.v = state.v.map(() => random.pick(vectors));
        return { words: [randomWord(row, random)], state };
      };
    }

    test.each(CLASSES)('%s', (_name, rows) => {
      const random = new Random();
      const wrong: string[] = [];
      for (let done = 0; done < CASES && wrong.length === 0; done += BATCH) {
        // Every row in turn, from a place that differs from batch to batch.
        const make = caseMaker(random);
        const cases = Array.from({ length: Math.min(BATCH, CASES - done) }, (_, i) =>
          make(rows[(done + i) % rows.length]!),
        );
        const { qemu, engine } = runCases(cases);
        cases.forEach((c, i) => {
          const found = differences(engine[i]!, qemu[i]!);
          if (found.length === 0 || wrong.length >= 5) return;
          const word = c.words[0]!;
          wrong.push(`${word.toString(16).padStart(8, '0')} ${decoder.decode(word)?.name}: ${found.join('; ')}`);
        });
      }
      expect({ seed: random.seed, wrong }).toEqual({ seed: random.seed, wrong: [] });
    });
  },
);
