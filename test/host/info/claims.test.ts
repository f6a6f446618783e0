import { expect, test } from '@jest/globals';
import { weigh } from '#lib/host/info/claims.js';

const claim = <T>(value: T, confidence: 'certain' | 'likely' | 'guess', said = `${value}`) => ({
  value,
  confidence,
  source: 'a file',
  said,
});

test('nobody says anything', () => {
  expect(weigh([])).toEqual({ value: null, confidence: 'none', evidence: [] });
  expect(weigh([undefined])).toEqual({ value: null, confidence: 'none', evidence: [] });
});

test('the strongest claim wins, and weaker ones that agree are evidence', () => {
  expect(
    weigh([claim('a', 'guess'), claim('b', 'certain'), claim('b', 'likely', 'b, too'), claim('a', 'likely')]),
  ).toEqual({
    value: 'b',
    confidence: 'certain',
    evidence: [
      { source: 'a file', said: 'b' },
      { source: 'a file', said: 'b, too' },
    ],
  });
});

test('an equally strong contradiction lowers the confidence, and is told', () => {
  const { value, confidence, evidence } = weigh([claim('a', 'certain'), claim('b', 'certain')]);
  expect([value, confidence]).toEqual(['a', 'likely']);
  expect(evidence.map(({ said }) => said)).toEqual(['a', 'b']);
});

test('false is a value', () => {
  expect(weigh([claim(false, 'likely')])).toMatchObject({ value: false, confidence: 'likely' });
});

test('what is said twice is evidence once', () => {
  expect(weigh([claim(1, 'certain', 'x'), claim(1, 'likely', 'x')]).evidence).toHaveLength(1);
});
