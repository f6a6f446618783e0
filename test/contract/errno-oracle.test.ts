import { readFileSync } from 'node:fs';
import { describe, expect, test } from '@jest/globals';
import { backends } from './backends.ts';
import { parseRecording, probe } from './errno-oracle.ts';
import { ANY, NOT_ASKED, SOFT } from './known-differences.ts';

const recording = parseRecording(readFileSync(new URL('data/73-a57-def.txt', import.meta.url), 'utf8'));

describe.each(backends)('what a real kernel answered, on $name', ({ open }) => {
  const kvm = open();
  const answers = probe(
    kvm,
    [...recording.keys()].filter((row) => row.startsWith('C ')),
  );
  kvm.close();
  // A row that was asked twice differs twice for the same reason.
  const difference = (row: string) => SOFT.get(row) ?? SOFT.get(row.replace(/#\d+$/, ''));

  test.each([...recording])('%s', (row, recorded) => {
    if (NOT_ASKED.has(row)) return;
    const expected = difference(row)?.answer ?? recorded;
    expect(answers.get(row)).toEqual(expected === ANY ? expect.any(String) : expected);
  });

  test('every difference is one: a row that has become equal leaves the list', () => {
    const stale = [...SOFT].filter(([row, { answer }]) => !recording.has(row) || recording.get(row) === answer);
    expect(stale).toEqual([]);
    expect([...NOT_ASKED.keys()].filter((row) => !recording.has(row))).toEqual([]);
  });

  test('nothing is asked that was not recorded', () => {
    expect([...answers.keys()].filter((row) => !recording.has(row))).toEqual([]);
  });
});
