import { Decoder } from '#lib/soft/a64/decode.js';
import { TABLE } from '#lib/soft/a64/table.js';
import { KeptArchive, type NewRegion } from '#lib/soft/index.js';
import { Instructions } from '#lib/soft/jit/instruction.js';
import { compileRegions } from '#lib/soft/jit/region-compiler.js';
import { addImm, RET } from '../soft/a64.ts';

const CODE = new Instructions(new Decoder(TABLE));

/** A region that adds so many times, up to 4,095 to X3. */
export function regionOf(value: number, times = 1): NewRegion {
  const words = [...Array.from({ length: times }, () => addImm(3, 4, value)), RET];
  const page = {
    word: (index: number) => words[index] ?? 0,
    executed: (index: number) => index < words.length,
    isEntry: () => false,
    accessesDevice: () => false,
    guarded: false,
  };
  const { functions, regions } = compileRegions(CODE, [{ page, entry: 0, records: 0, name: '' }], new Set<number>())!;
  const [{ region, body }] = regions as [(typeof regions)[0]];
  return { region, guarded: false, body: body.portable(), importOf: (index) => functions[index]! };
}

/** An archive of regions that add these values. */
export function archiveOf(...values: readonly number[]): KeptArchive {
  const archive = new KeptArchive();
  for (const value of values) archive.add(regionOf(value));
  return archive;
}
