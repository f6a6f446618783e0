import { Decoder } from '../a64/decode.js';
import { type Row, wordOf } from '../a64/row.js';
import { TABLE } from '../a64/table.js';
import { type InterpreterImage, interpreterImage, toBase64 } from '../jit/interpreter-image.js';
import type { CountingOptions } from '../jit/interpreter-module.js';
import type { Prebuilt } from '../jit/prebuilt.js';
import { THREAD_COUNTING } from './machine.js';
import { emitPointerAuth } from './pointer-auth.js';

/** Register numbers and the like that are tried in finding out whether static fields are allocated. */
const DATA = [0, 1, 0x1f, 0x3f];

/** Makes what {@link Prebuilt} has. Called where the package's bundle is made. */
export function prebuild(): Prebuilt {
  return { interpreter: prebuildInterpreter(THREAD_COUNTING), pointerAuth: toBase64(emitPointerAuth()) };
}

/** Makes the interpreter, with the handlers of all instructions on general-purpose registers. */
export function prebuildInterpreter(counting: CountingOptions): InterpreterImage {
  const decoder = new Decoder(TABLE);
  /** Whether there is an instruction with these static fields; where it depends on the rest, in those that are tried. */
  const isAllocated = (row: Row, raw: Readonly<Record<string, number>>): boolean =>
    DATA.some((data) => {
      const tried = { ...raw };
      for (const f of row.fields) if (f.kind !== 'static') tried[f.name] = data & ((1 << f.width) - 1);
      return decoder.decode(wordOf(row, tried)) === row;
    });
  const general = TABLE.filter((row) => row.fields.every((f) => f.kind !== 'v'));
  return interpreterImage(TABLE, counting, general, isAllocated);
}
