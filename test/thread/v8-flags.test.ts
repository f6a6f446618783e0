import { cachedDataVersionTag, setFlagsFromString } from 'node:v8';
import { afterEach, expect, test } from '@jest/globals';
import { compilingWhole } from '#lib/thread/v8-flags.js';

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
