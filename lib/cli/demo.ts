import { demoImage } from '../guest/demo.js';
import type { RunArgs } from './args.js';
import { profiled, runConsole, vmOptions } from './run.js';

/** Enough to see other vCPUs come up. */
const CPUS = 2;
/** The embedded guest is a few kilobytes. */
const MEMORY = '16M';

/** `elvisor demo`: the embedded bare-metal guest, with nothing to fetch. @returns the exit status */
export async function demo(args: RunArgs): Promise<number> {
  const options = { memory: MEMORY, cpus: CPUS, ...vmOptions(args), disks: [], rng: false, kernel: demoImage() };
  return profiled(args, options, () => runConsole(options, { eof: false }));
}
