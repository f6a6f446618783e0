import { spawnSync } from 'node:child_process';
import { expect, test } from '@jest/globals';
import { built } from './built.ts';

/**
 * Mebibytes of the young generation of a process that has made garbage, with a part of it alive, until V8 wants no more of it. Where the
 * limit is asked for, the garbage is made small by small until a flag of V8 has changed, and then like that of the other.
 */
function youngMebibytes(limit: boolean): number {
  const script = `
    import { cachedDataVersionTag, getHeapSpaceStatistics } from 'node:v8';
    import { limitYoungGeneration } from ${built('thread/young-generation.js')};
    const flags = cachedDataVersionTag();
    if (${limit}) limitYoungGeneration();
    const size = () => getHeapSpaceStatistics().find(({ space_name: name }) => name === 'new_space').space_size / 2 ** 20;
    const alive = new Array(4096);
    const work = (turn, objects) => {
      for (let i = 0; i < objects; i++) alive[i & 4095] = { i, of: [turn] };
      return new Promise((resolve) => setTimeout(resolve, 1));
    };
    for (let turn = 0; ${limit} && turn < 1000 && cachedDataVersionTag() === flags; turn++) await work(turn, 2500);
    for (let turn = 0; turn < 100; turn++) await work(turn, 50_000);
    console.log(size());`;
  const { stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8' });
  expect(stderr).toBe('');
  return Number(stdout);
}

test('the young generation stops growing', () => {
  expect(youngMebibytes(false)).toBeGreaterThanOrEqual(16);
  const limited = youngMebibytes(true);
  expect(limited).toBeGreaterThan(1);
  expect(limited).toBeLessThanOrEqual(8);
});
