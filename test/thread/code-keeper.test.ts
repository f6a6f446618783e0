import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { CodeKeeper } from '#lib/thread/code-keeper.js';
import { CodeStore } from '#lib/thread/code-store.js';
import { regionOf } from './archives.ts';

/** In which parts compiled code is kept. */

let dir = '';
let store: CodeStore;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'elvisor-keeper-'));
  store = CodeStore.open(dir)!;
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

/** How many regions each part has. */
const sizes = async (): Promise<number[]> =>
  (await store.parts()).map(({ name }) => store.archive(name)!.size).sort((a, b) => a - b);

test('what is new since a part was written goes into it, and nothing twice', async () => {
  const keeper = new CodeKeeper(store);
  keeper.save();
  expect(await sizes()).toEqual([]);
  keeper.add(regionOf(1));
  keeper.save();
  expect(await sizes()).toEqual([1]);
  keeper.add(regionOf(2));
  keeper.add(regionOf(1));
  keeper.save();
  expect(await sizes()).toEqual([2]);
  keeper.save();
  expect(await sizes()).toEqual([2]);
});

test('a part that is large enough grows no more, and is announced; the next begins', async () => {
  const announced: string[] = [];
  const keeper = new CodeKeeper(store, (name) => announced.push(name));
  const region = (n: number) => regionOf(n, 500);
  for (let n = 0; announced.length === 0; n++) {
    keeper.add(region(n));
    keeper.save();
  }
  const [part] = await store.parts();
  expect(await store.parts()).toHaveLength(1);
  expect(announced).toEqual([part!.name]);
  const { length } = store.module(part!.name)!.bytes;
  expect(length).toBeGreaterThan(128 * 1024);
  expect(length).toBeLessThan(512 * 1024);
  const whole = store.archive(part!.name)!.size;
  keeper.add(region(0));
  keeper.add(region(4000));
  keeper.save();
  expect(await sizes()).toEqual([1, whole]);
});

test('when there are many small parts, they become one', async () => {
  for (let run = 0; run < 7; run++) {
    expect(await sizes()).toEqual(Array(run < 7 ? run : 1).fill(1));
    const keeper = new CodeKeeper(store);
    keeper.add(regionOf(run));
    keeper.close();
  }
  expect(await sizes()).toEqual([7]);
});

test('two runs that keep the same are found to have, when they become one', async () => {
  for (let run = 0; run < 7; run++) {
    const keeper = new CodeKeeper(store);
    for (let n = 0; n <= run; n++) keeper.add(regionOf(n));
    keeper.close();
  }
  expect(await sizes()).toEqual([7]);
});
