import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, test } from '@jest/globals';

const module = fileURLToPath(new URL('../../dist/thread/young-generation.js', import.meta.url));

/** Mebibytes of the young generation of a process that has made garbage, with a part of it alive, until V8 wants no more of it. */
function youngMebibytes(limit: boolean): number {
  const script = `
    import { getHeapSpaceStatistics } from 'node:v8';
    import { limitYoungGeneration } from ${JSON.stringify(module)};
    if (${limit}) limitYoungGeneration();
    const size = () => getHeapSpaceStatistics().find(({ space_name: name }) => name === 'new_space').space_size / 2 ** 20;
    const alive = new Array(4096);
    for (let turn = 0, seen = 0; turn < 100; turn++) {
      for (let i = 0; i < 50_000; i++) alive[i & 4095] = { i, of: [turn] };
      await new Promise((resolve) => setTimeout(resolve, size() > seen ? 400 : 1));
      seen = size();
    }
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
