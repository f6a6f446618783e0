/**
 * Flags of V8 that elvisor sets while a program runs. They are the whole process's, V8 tells nobody which values they have, and the
 * machine code that it makes of a module is good only where all of them are what they were: so nobody else sets any.
 */
import { cachedDataVersionTag, setFlagsFromString } from 'node:v8';

/** What all threads of the process know of its flags. */
const Word = {
  /** The tag that V8 had when the process's first thread came here, before it changed any. */
  START: 0,
  /** The growth factor of the young generation that was set; 0: none. */
  GROWTH: 1,
} as const;

/** V8's own growth factor. */
const GROWTH = 2;

let words = new Int32Array(new SharedArrayBuffer(8));
words[Word.START] = cachedDataVersionTag();

/** What a worker gives to {@link adoptFlags}. */
export const sharedFlags = (): SharedArrayBuffer => words.buffer as SharedArrayBuffer;

/** To be called in a worker: its flags are those of the thread that started it. */
export function adoptFlags(shared: SharedArrayBuffer): void {
  words = new Int32Array(shared);
}

/**
 * Names what machine code depends on besides what it was made from: V8's version, the processor's features, and the flags that the
 * process began with.
 */
export const startTag = (): string => (words[Word.START]! >>> 0).toString(16).padStart(8, '0');

const isAsStarted = (): boolean => cachedDataVersionTag() >>> 0 === words[Word.START]! >>> 0;

/** Sets by which factor the young generation grows. */
export function setYoungGrowth(factor: number): void {
  Atomics.store(words, Word.GROWTH, factor);
  setFlagsFromString(`--semi-space-growth-factor=${factor}`);
}

/**
 * Runs a function while all flags are what they were when the process began, so that V8 takes machine code for its own.
 * @returns `undefined` where that can't be: somebody else has changed one
 */
export function withFlagsOfStart<T>(run: () => T): T | undefined {
  if (isAsStarted()) return run();
  if (Atomics.load(words, Word.GROWTH) === 0) return undefined;
  setFlagsFromString(`--semi-space-growth-factor=${GROWTH}`);
  try {
    return isAsStarted() ? run() : undefined;
  } finally {
    setFlagsFromString(`--semi-space-growth-factor=${Atomics.load(words, Word.GROWTH)}`);
  }
}

/** Runs a function while a flag of V8's is set, which is then put back to what it was. */
function withFlag<T>(set: string, unset: string, run: () => T): T {
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

/**
 * Makes a function that calls one of V8's own runtime functions, which JavaScript has no name for.
 * @param body in V8's natives syntax
 * @throws SyntaxError this V8 has no such function; EvalError the process allows no code from strings
 */
export const nativeFunction = (parameters: readonly string[], body: string): ((...values: unknown[]) => unknown) =>
  withFlag(
    '--allow-natives-syntax',
    '--no-allow-natives-syntax',
    () => new Function(...parameters, body) as (...values: unknown[]) => unknown,
  );
