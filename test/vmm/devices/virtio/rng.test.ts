import { expect, test } from '@jest/globals';
import { VirtioRng } from '#lib/vmm/devices/virtio/rng.js';
import { VirtioDriver } from './driver.ts';

const counting = () => {
  let next = 0;
  return (into: Uint8Array) => {
    for (let i = 0; i < into.length; i++) into[i] = next++ & 0xff;
  };
};

test('fills what it is given, across buffers, and goes on where it was', () => {
  const driver = new VirtioDriver(new VirtioRng({ getRandomValues: counting() }));
  const [queue] = driver.start();
  queue!.add([], [3, 5]);
  queue!.add([], [2]);
  driver.ram.mark();
  queue!.kick();
  expect(queue!.take().map(({ length, data }) => [length, ...data])).toEqual([
    [8, 0, 1, 2, 3, 4, 5, 6, 7],
    [2, 8, 9],
  ]);
  expect(driver.ram.unreported()).toEqual([]);
});

test('gives at most 4 KiB for a request, and says how much', () => {
  const sizes: number[] = [];
  const driver = new VirtioDriver(new VirtioRng({ getRandomValues: (into) => sizes.push(into.length) }));
  const [queue] = driver.start();
  queue!.add([], [10_000]);
  queue!.kick();
  expect(queue!.take()[0]!.length).toBe(4096);
  expect(sizes).toEqual([4096]);
});

test('works with the platform’s own generator', () => {
  const driver = new VirtioDriver(new VirtioRng({ getRandomValues: (into) => crypto.getRandomValues(into) }));
  const [queue] = driver.start();
  queue!.add([], [64]);
  queue!.kick();
  expect(new Set(queue!.take()[0]!.data).size).toBeGreaterThan(8);
});

test('a request without a writable byte breaks it', () => {
  const driver = new VirtioDriver(new VirtioRng({ getRandomValues: counting() }));
  const [queue] = driver.start();
  queue!.add([Uint8Array.of(1)], []);
  queue!.kick();
  expect(driver.needsReset).toBe(true);
});
