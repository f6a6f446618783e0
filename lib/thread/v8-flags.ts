/**
 * Flags of V8 that elvisor sets while a program runs. They are the whole process's, V8 tells nobody which values they have, and what it
 * keeps of a module is good only where all of them are as they were: so nobody else sets any.
 */
import { cachedDataVersionTag, setFlagsFromString } from 'node:v8';

/**
 * Runs a function while a flag of V8's is set, which is put back to what it was.
 * @param set and unset: the flag in either way, such as `--liftoff` and `--no-liftoff`
 */
function withFlag<T>(set: string, unset: string, run: () => T): T {
  // The tag is made of V8's version, the processor's features, and all flags.
  const before = cachedDataVersionTag();
  setFlagsFromString(set);
  if (cachedDataVersionTag() === before) return run();
  try {
    return run();
  } finally {
    setFlagsFromString(unset);
  }
}

/**
 * Runs a function in which modules are compiled whole when they are made. V8 compiles a module's functions when they are first called,
 * unless told otherwise: then it would be the guest's thread that does it, a tenth of its work until init.
 */
export const compilingWhole = <T>(run: () => T): T =>
  withFlag('--no-wasm-lazy-compilation', '--wasm-lazy-compilation', run);
