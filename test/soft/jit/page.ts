import { Decoder } from '#lib/soft/a64/decode.js';
import { TABLE } from '#lib/soft/a64/table.js';
import type { NewRegion } from '#lib/soft/index.js';
import { Instructions } from '#lib/soft/jit/instruction.js';
import type { PageReader } from '#lib/soft/jit/region.js';
import { type Candidate, type CompiledRegions, compileRegions } from '#lib/soft/jit/region-compiler.js';

/** A page of code without a machine, and what is compiled of it. */

export const code = new Instructions(new Decoder(TABLE));

/** What a page may have besides its words. */
export interface PageOptions {
  /** Positions that a device has answered; none if not given. */
  readonly devices?: readonly number[];
  /** Which of the words have been executed; all if not given. */
  readonly executed?: ((index: number) => boolean) | undefined;
}

/** A page that begins with these words and has been entered nowhere. */
export const pageOf = (
  words: readonly number[],
  { devices = [], executed = () => true }: PageOptions = {},
): PageReader => ({
  guarded: false,
  word: (index) => words[index] ?? 0,
  executed: (index) => index < words.length && executed(index),
  isEntry: () => false,
  accessesDevice: (index) => devices.includes(index),
});

/** Compiles the region that begins with the first word. */
export const compile = (words: readonly number[], devices: readonly number[] = []): CompiledRegions<Candidate> =>
  compileRegions(code, [{ page: pageOf(words, { devices }), entry: 0, records: 0, name: 'region' }], new Set())!;

/** The same, as it is given to who keeps it. */
export function regionOf(words: readonly number[], devices: readonly number[] = []): NewRegion {
  const { functions, regions } = compile(words, devices);
  const [{ region, body }] = regions as [(typeof regions)[0]];
  return { region, guarded: false, body: body.portable(), importOf: (index) => functions[index]! };
}
