import { readFileSync } from 'node:fs';
import { describe, expect, test } from '@jest/globals';
import { Cap } from '#lib/kvm/index.js';
import { backends } from './backends.ts';
import { parseRecording, probe } from './errno-oracle.ts';
import { ANY, type Difference, NOT_ASKED, RECORDINGS } from './known-differences.ts';

describe.each(RECORDINGS)('what Linux $name answered', ({ name, file, differences }) => {
  const recording = parseRecording(readFileSync(new URL(`data/${file}`, import.meta.url), 'utf8'));
  // A row that was asked twice differs twice for the same reason.
  const difference = (row: string): Difference | undefined =>
    differences.get(row) ?? differences.get(row.replace(/#\d+$/, ''));

  for (const { name: host, linux } of backends.filter((backend) => !backend.inTurn)) {
    test.skip(`on ${host} (skipped: recorded on ${name}, this is ${linux.join('.')})`, () => {});
  }

  for (const { name: backend, open } of backends.filter(({ inTurn }) => inTurn)) {
    describe(`on ${backend}`, () => {
      const kvm = open();
      const answers = probe(
        kvm,
        [...recording.keys()].filter((row) => row.startsWith('C ')),
      );
      kvm.close();

      test.each([...recording])('%s', (row, recorded) => {
        if (NOT_ASKED.has(row)) return;
        const expected = difference(row)?.answer ?? recorded;
        if (expected !== ANY) expect(answers.get(row)).toBe(expected);
        // One that is equal is no difference, and leaves the list.
        else expect([undefined, recorded]).not.toContain(answers.get(row));
      });

      test('nothing is asked that was not recorded', () => {
        expect([...answers.keys()].filter((row) => !recording.has(row))).toEqual([]);
      });
    });
  }

  test('every capability of the contract was asked for, but those that any kernel has', () => {
    const asked = [...recording.keys()].map((row) => Number(/^C \S+\((\d+)\)$/.exec(row)?.[1]));
    const rest = Object.values(Cap).filter((cap) => !asked.includes(cap));
    expect(rest).toEqual([Cap.DESTROY_MEMORY_REGION_WORKS, Cap.JOIN_MEMORY_REGIONS_WORKS, Cap.INTERNAL_ERROR_DATA]);
    for (const { open } of backends) {
      const kvm = open();
      expect(rest.map((cap) => kvm.checkExtension(cap))).toEqual([1, 1, 1]);
      kvm.close();
    }
  });

  test('every difference is one: a row that has become equal leaves the list', () => {
    const stale = [...differences].filter(([row, { answer }]) => !recording.has(row) || recording.get(row) === answer);
    expect(stale).toEqual([]);
    expect([...NOT_ASKED.keys()].filter((row) => !recording.has(row))).toEqual([]);
  });
});
