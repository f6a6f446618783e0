import { cachedDataVersionTag, setFlagsFromString } from 'node:v8';
import { afterEach, expect, test } from '@jest/globals';
import { compilingWhole, nativeFunction, setYoungGrowth, startTag, withFlagsOfStart } from '#lib/thread/v8-flags.js';

/** V8's flags, of which a tag tells whether they are as they were. */

const AT_START = cachedDataVersionTag();
afterEach(() => setFlagsFromString('--wasm-lazy-compilation'));

test('modules are compiled whole for as long as a function runs', () => {
  const within = compilingWhole(cachedDataVersionTag);
  expect(within).not.toBe(AT_START);
  expect(cachedDataVersionTag()).toBe(AT_START);
  setFlagsFromString('--no-wasm-lazy-compilation');
  expect(cachedDataVersionTag()).toBe(within);
});

test('though it throws', () => {
  expect(() => compilingWhole(() => JSON.parse('{'))).toThrow(SyntaxError);
  expect(cachedDataVersionTag()).toBe(AT_START);
});

test('and afterwards too, where the user has it so', () => {
  setFlagsFromString('--no-wasm-lazy-compilation');
  const before = cachedDataVersionTag();
  expect(compilingWhole(cachedDataVersionTag)).toBe(before);
  expect(cachedDataVersionTag()).toBe(before);
});

test('what needs the flags of the start has them, and leaves those that were set', () => {
  expect(withFlagsOfStart(startTag)).toBe((AT_START >>> 0).toString(16).padStart(8, '0'));
  for (const factor of [4, 1]) {
    setYoungGrowth(factor);
    const limited = cachedDataVersionTag();
    expect(limited).not.toBe(AT_START);
    expect(withFlagsOfStart(cachedDataVersionTag)).toBe(AT_START);
    expect(() => withFlagsOfStart(() => JSON.parse('{'))).toThrow(SyntaxError);
    expect(cachedDataVersionTag()).toBe(limited);
    // Somebody else's.
    setFlagsFromString('--no-wasm-loop-unrolling');
    expect(withFlagsOfStart(cachedDataVersionTag)).toBeUndefined();
    setFlagsFromString('--wasm-loop-unrolling');
  }
  setYoungGrowth(2);
});

test("V8's own functions are called by name, and the syntax for it is not left to others", () => {
  expect(nativeFunction(['f'], 'return %IsTurboFanFunction(f)')).toBeInstanceOf(Function);
  expect(() => nativeFunction([], 'return %NoSuchFunction()')).toThrow(SyntaxError);
  expect(() => new Function('return %IsTurboFanFunction(0)')).toThrow(SyntaxError);
  expect(cachedDataVersionTag()).toBe(AT_START);
});
