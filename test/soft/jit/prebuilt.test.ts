import { expect, test } from '@jest/globals';
import { Decoder } from '#lib/soft/a64/decode.js';
import { fieldsOf } from '#lib/soft/a64/row.js';
import { TABLE } from '#lib/soft/a64/table.js';
import { SoftMachine, THREAD_COUNTING } from '#lib/soft/cpu/machine.js';
import { prebuild } from '#lib/soft/cpu/prebuild.js';
import { useInterpreterImage } from '#lib/soft/jit/interpreter-image.js';
import { emitInterpreter, type Handler, interpreterModule } from '#lib/soft/jit/interpreter-module.js';
import { LateCompiler } from './late-compiler.ts';

/** What the bundle has ready made; that its handlers do what others do, the machines in lockstep show. */

const described = ({ number, row, near, layout }: Handler) => ({
  number,
  row: TABLE.indexOf(row),
  near,
  hasImm: layout.hasImm,
  operands: layout.slots.map(({ offset, key }) => [offset, key]),
});

test('is the interpreter that a machine with a compiler thread asks for, handlers and all', () => {
  const emitted = emitInterpreter(TABLE, THREAD_COUNTING);
  useInterpreterImage(TABLE, JSON.parse(JSON.stringify(prebuild().interpreter)));
  const loaded = interpreterModule(TABLE, THREAD_COUNTING);
  for (const [key, handler] of emitted.handlers) {
    expect(described(loaded.handlers.get(key)!)).toEqual(described(handler));
  }
  expect(new Map(loaded.jumps)).toEqual(new Map(emitted.jumps));
  expect(loaded.memoryFunctions).toEqual(emitted.memoryFunctions);
  expect(loaded.nextHandler).toBe(loaded.handlers.size + 4);

  // Nothing of an instruction on general-purpose registers is left to be made: STP, MADD, CCMP, MRS, LDXR; LDR with SP.
  const machine = new SoftMachine({ compiler: new LateCompiler(1) });
  const decoder = new Decoder(TABLE);
  const known = new Set(loaded.handlers.values());
  for (const word of [0xa9bf7bfd, 0x1b020c20, 0xfa5f0880, 0xd5384100, 0xc85f7c20, 0xf94003e0]) {
    const row = decoder.decode(word)!;
    expect(known.has(machine.interpreter.handler(row, fieldsOf(row, word), () => true))).toBe(true);
  }
  machine.close();
});
