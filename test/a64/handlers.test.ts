import { expect, test } from '@jest/globals';
import { fieldsOf, type Row, wordFields } from '#lib/soft/a64/row.js';
import { TABLE } from '#lib/soft/a64/table.js';
import { SoftMachine } from '#lib/soft/cpu/machine.js';
import { hasSpBase, MAX_HANDLERS, RECORD_SIZE } from '#lib/soft/jit/handler.js';
import { RecordPlan } from '#lib/soft/jit/record-plan.js';
import { Random } from './random.ts';

/** Every instruction that a guest can write can be made into a handler: none is too big for a record, none is forgotten by a lowering. */

const statics = (r: Row) => r.fields.filter((f) => f.kind === 'static');
const combinations = (r: Row): number => statics(r).reduce((n, f) => n * 2 ** f.width, 1);

test('every row, with every value of its static fields, makes a handler', () => {
  const random = new Random();
  const machine = new SoftMachine();
  const { decoder, interpreter } = machine;
  const u16 = new Uint16Array(RECORD_SIZE / 2);
  const u32 = new Uint32Array(u16.buffer);
  const never = new Set<string>();
  let made = 0;
  for (const r of TABLE) {
    let met = false;
    for (let n = 0; n < combinations(r); n++) {
      for (let tries = 0; tries < 32; tries++) {
        let word = (random.u32() & ~r.mask) | r.value;
        let rest = n;
        for (const f of statics(r)) {
          const mask = (2 ** f.width - 1) << f.lsb;
          word = (word & ~mask) | ((rest << f.lsb) & mask);
          rest >>>= f.width;
        }
        word >>>= 0;
        if (decoder.decode(word) !== r) continue;
        const raw = fieldsOf(r, word);
        const handler = interpreter.handler(r, raw, () => false);
        const fields = wordFields(r);
        fields.word = word;
        new RecordPlan(r, handler.layout, false).write(fields, u16, u32, 0);
        met = true;
        made++;
        break;
      }
    }
    if (!met) never.add(r.name);
  }
  machine.close();
  expect(made).toBeGreaterThan(2000);
  // Rare ones are met in encodings.test.ts.
  expect(never.size).toBeLessThan(40);
});

test('the fields of a word are the same, read one by one and made all at once', () => {
  const random = new Random(11);
  for (const r of TABLE) {
    const fields = wordFields(r);
    for (const word of [r.value, (r.value | ~r.mask) >>> 0, ((random.u32() & ~r.mask) | r.value) >>> 0]) {
      fields.word = word;
      for (const [name, value] of Object.entries(fieldsOf(r, word)))
        expect([r.name, fields[name]]).toEqual([r.name, value]);
    }
  }
});

test('a hostile guest cannot use up the room for handlers', () => {
  // Direct branches have a second handler, for targets in the same page; loads and stores one for SP as their base.
  const total = TABLE.reduce((n, r) => n + combinations(r) * (r.ends || hasSpBase(r) ? 2 : 1), 0);
  expect(total).toBeLessThan(MAX_HANDLERS - 256);
});
