import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { geometricMean, markdownTable, median, textTable } from '../../bench/common.js';
import { MarkReader } from '../../bench/suite/marks.js';
import { plot, replaceSection, summarize, withRelease } from '../../bench/suite/report.js';

describe('numbers', () => {
  test('median: the middle, or the mean of the middle two, of numbers and not of their digits', () => {
    expect(median([10, 9, 1])).toBe(9);
    expect(median([100, 20, 3, 10])).toBe(15);
    expect(() => median([])).toThrow(RangeError);
  });

  test('geometric mean: twice as fast and half as fast is as fast', () => {
    expect(geometricMean([2, 0.5])).toBeCloseTo(1);
    expect(geometricMean([1, 10, 100])).toBeCloseTo(10);
    for (const none of [[], [1, 0], [1, -1], [Number.NaN]]) expect(() => geometricMean(none)).toThrow(RangeError);
  });

  test('a summary has the medians, their speed, the mean and the worst, of the rows that ran', () => {
    const rows = ['a', 'left out', 'b'].map((name) => ({ name, group: 'g', what: '' }));
    const times = new Map([
      ['b', { elvisor: [40, 10, 20], qemu: [10, 10, 10] }],
      ['a', { elvisor: [10, 10, 10], qemu: [80, 90, 10] }],
    ]);
    const { lines, mean, worst } = summarize(rows, times);
    expect(
      lines.map(({ name, elvisor, qemu, speed }: Record<string, unknown>) => [name, elvisor, qemu, speed]),
    ).toEqual([
      ['a', 10, 80, 8],
      ['b', 20, 10, 0.5],
    ]);
    expect(mean).toBeCloseTo(2);
    expect(worst.name).toBe('b');
  });
});

describe('marks', () => {
  const START = '@start r\n';
  const written = '@end other 0\n\xff@don';
  const END = '@end r 3\n';
  const output = 'first\n@done\nlast\n';
  const all = Buffer.from(`noise\r\n@start r2\n${START}${written}${END}${output}@done r\n`, 'latin1');

  test('are found wherever the bytes are cut, each at the time when its last byte came', () => {
    const cuts = fc.uniqueArray(fc.nat(all.length - 1), { maxLength: all.length });
    fc.assert(
      fc.property(cuts, (at) => {
        const reader = new MarkReader('r');
        const ends = [...at.sort((a, b) => a - b), all.length];
        let result: unknown;
        let from = 0;
        for (const end of ends) {
          expect(result).toBeUndefined();
          result = reader.push(all.subarray(from, end), end);
          from = end;
        }
        const when = (mark: string) => ends.find((end) => end >= all.indexOf(mark) + mark.length)!;
        expect(result).toEqual({
          ms: when('@end r ') - when(START),
          status: 3,
          output: output.trimEnd(),
          written: Buffer.from(written, 'latin1'),
        });
      }),
    );
  });

  test('what comes between them in many pieces is kept', () => {
    const reader = new MarkReader('r');
    reader.push(Buffer.from(START), 0);
    const piece = Buffer.alloc(64, 'x');
    const pieces = 20_000;
    for (let i = 0; i < pieces; i++) reader.push(piece, 1);
    const result = reader.push(Buffer.from('@end r 0\n@done r\n'), 2);
    expect(result!.written.length).toBe(pieces * 64);
  });
});

describe('text', () => {
  test('numbers are at the right, words at the left', () => {
    const rows = [
      ['row', 's'],
      ['a', '1.50'],
      ['longer', '12.25'],
    ];
    expect(textTable(rows).split('\n')).toEqual(['row     s', 'a        1.50', 'longer  12.25']);
    expect(
      markdownTable([
        ['a', 'b'],
        ['x|y', '1'],
      ]),
    ).toBe('| a | b |\n|---|---|\n| x\\|y | 1 |');
  });

  test('a section of a page is replaced, the rest kept; a page without it is refused', () => {
    const page = 'before\n<!-- t: begin -->\nold\n<!-- t: end -->\nafter\n';
    const replaced = 'before\n<!-- t: begin -->\n\nnew $& $1\n\n<!-- t: end -->\nafter\n';
    expect(replaceSection(page, 't', 'new $& $1')).toBe(replaced);
    expect(replaceSection(replaced, 't', 'new $& $1')).toBe(replaced);
    expect(() => replaceSection(page, 'u', '')).toThrow('<!-- u: begin -->');
    expect(() => replaceSection('<!-- t: end --><!-- t: begin -->', 't', '')).toThrow('<!-- t: begin -->');
  });

  test('a Node release gets a section of its own, once', () => {
    const page = withRelease('head\n\n## next\n', '24', '## next');
    expect(withRelease(page, '24', '## next')).toBe(page);
    const both = withRelease(page, '26', '## next');
    expect(both.match(/^## .*$/gm)).toEqual(['## Node 24', '## Node 26', '## next']);
    const filled = replaceSection(replaceSection(both, 'node-26 suite', 'newer'), 'node-24 figures', 'older');
    expect(filled.indexOf('older')).toBeLessThan(filled.indexOf('## Node 26'));
    expect(filled.indexOf('newer')).toBeGreaterThan(filled.indexOf('## Node 26'));
    expect(() => withRelease('head', '24', '## next')).toThrow('## next');
  });

  test('the plot has a point for each measurement, ten times the work a decade further', () => {
    const svg = plot([0.1, 1, 10].map((g) => ({ instructions: g * 1e9, elvisor: g * 1000, qemu: g * 2000 })));
    const dots = [...svg.matchAll(/<circle class="elvisor" cx="([\d.]+)" cy="([\d.]+)"/g)].map((m) =>
      m.slice(1).map(Number),
    );
    expect(dots).toHaveLength(3);
    const [a, b, c] = dots as [number[], number[], number[]];
    expect(b[0]! - a[0]!).toBeCloseTo(c[0]! - b[0]!, 0);
    expect(a[1]! - b[1]!).toBeCloseTo(b[1]! - c[1]!, 0);
    expect(b[1]!).toBeLessThan(a[1]!);
  });
});
