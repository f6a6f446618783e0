import { beforeEach, describe, expect, test } from '@jest/globals';
import { VirtioInput } from '#lib/vmm/devices/virtio/input.js';
import { VirtioDriver } from './driver.ts';

const KEY_A = 30;
const KEY_POWER = 116;
const CONFIG = 0x100;
const EVENT = (type: number, code: number, value: number) => [type, 0, code, 0, value, 0, 0, 0];

let input: VirtioInput;
let driver: VirtioDriver;
beforeEach(() => {
  input = new VirtioInput({ label: 'two keys', keys: [KEY_A, KEY_POWER] });
  driver = new VirtioDriver(input);
});

describe('the configuration space', () => {
  /** As Linux asks: select and subsel, a byte each, then the size and so many bytes. */
  const ask = (select: number, subsel: number): number[] => {
    driver.mmio.write(CONFIG, 1, select);
    driver.mmio.write(CONFIG + 1, 1, subsel);
    const size = driver.mmio.read(CONFIG + 2, 1);
    return Array.from({ length: size }, (_, i) => driver.mmio.read(CONFIG + 8 + i, 1));
  };

  test('says its name, its keys, and of anything else that there is none', () => {
    expect(String.fromCharCode(...ask(0x01, 0))).toBe('two keys');
    expect(ask(0x03, 0)).toEqual([6, 0, 0, 0, 0, 0, 0, 0]);
    const keys = ask(0x11, 1).flatMap((byte, i) =>
      [0, 1, 2, 3, 4, 5, 6, 7].filter((b) => byte & (1 << b)).map((b) => 8 * i + b),
    );
    expect(keys).toEqual([KEY_A, KEY_POWER]);
    for (const [select, subsel] of [
      [0, 0],
      [0x02, 0],
      [0x10, 0],
      [0x11, 0],
      [0x11, 2],
      [0x12, 0],
      [0xff, 0xff],
    ] as const)
      expect([select, subsel, ...ask(select, subsel)]).toEqual([select, subsel]);
  });

  test('takes both bytes in one write; the rest is not the driver’s', () => {
    driver.mmio.write(CONFIG, 4, 0xffff_0111);
    expect(driver.mmio.read(CONFIG + 2, 1)).toBe(15);
    driver.mmio.write(CONFIG + 8, 4, 0xffff_ffff);
    driver.mmio.write(CONFIG + 1000, 4, 0xffff_ffff);
    expect(ask(0x11, 1)).toHaveLength(15);
  });
});

describe('events', () => {
  test('a key that goes down and up, each with its report', () => {
    const [events] = driver.start();
    for (let i = 0; i < 5; i++) events!.add([], [8]);
    events!.kick();
    driver.ram.mark();
    input.setKey(KEY_POWER, true);
    expect(events!.take().map(({ length, data }) => [length, ...data])).toEqual([
      [8, ...EVENT(1, KEY_POWER, 1)],
      [8, ...EVENT(0, 0, 0)],
    ]);
    input.setKey(KEY_POWER, false);
    expect(events!.take().map(({ data }) => [...data])).toEqual([EVENT(1, KEY_POWER, 0), EVENT(0, 0, 0)]);
    expect(driver.ram.unreported()).toEqual([]);
  });

  test('wait for buffers, up to a limit, and are forgotten by a reset', () => {
    const [events] = driver.start();
    for (let i = 0; i < 1000; i++) input.setKey(KEY_A, i % 2 === 0);
    for (let i = 0; i < 64; i++) events!.add([], [8]);
    events!.kick();
    expect(events!.take()).toHaveLength(64);
    input.setKey(KEY_A, true);
    const [again] = driver.start();
    again!.add([], [8]);
    again!.kick();
    expect(again!.take()).toEqual([]);
  });

  test('without a driver there is nobody to tell', () => {
    input.setKey(KEY_A, true);
    const [events] = driver.start();
    events!.add([], [8]);
    events!.kick();
    expect(events!.take()).toEqual([]);
  });

  test('a buffer that is too small breaks it', () => {
    const [events] = driver.start();
    events!.add([], [7]);
    input.setKey(KEY_A, true);
    expect(driver.needsReset).toBe(true);
  });
});

test('status requests are given back', () => {
  const [, status] = driver.start();
  status!.add([Uint8Array.from(EVENT(0x11, 1, 1))], []);
  status!.kick();
  expect(status!.take().map(({ length }) => length)).toEqual([0]);
});
