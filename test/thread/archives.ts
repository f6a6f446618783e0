import { KeptArchive, type NewRegion } from '#lib/soft/index.js';
import { addImm, RET } from '../soft/a64.ts';
import * as page from '../soft/jit/page.ts';

/** A region that adds so many times, up to 4,095 to X3. */
export const regionOf = (value: number, times = 1): NewRegion =>
  page.regionOf([...Array.from({ length: times }, () => addImm(3, 4, value)), RET]);

/** An archive of regions that add these values. */
export function archiveOf(...values: readonly number[]): KeptArchive {
  const archive = new KeptArchive();
  for (const value of values) archive.add(regionOf(value));
  return archive;
}
