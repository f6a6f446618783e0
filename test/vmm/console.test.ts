import { expect, test } from '@jest/globals';
import { nodeScheduler } from '#lib/node/scheduler.js';
import { VmConsole } from '#lib/vmm/console.js';
import { endedInPanic, haltedInPanic } from '#lib/vmm/panic.js';

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
const make = (): VmConsole => new VmConsole('test', nodeScheduler());

test('output is handed on in one piece a flush, and a character split between two stays whole', () => {
  const core = make();
  const seen: string[] = [];
  core.onOutput = (chunk) => seen.push(new TextDecoder('latin1').decode(chunk));
  const euro = bytes('€');
  core.output(euro.subarray(0, 1));
  core.flush();
  core.output(euro.subarray(1));
  core.output(bytes('!'));
  core.flush();
  core.flush();
  expect(seen.map((s) => s.length)).toEqual([1, 3]);
  expect(core.transcript()).toBe('€!');
  expect(core.outputBytes).toBe(4);
});

test('the transcript keeps the last 256 Ki characters, and a match behind what was dropped is found', async () => {
  const core = make();
  for (let i = 0; i < 80; i++) core.output(bytes(String(i).padEnd(10_000, '.')));
  core.output(bytes('END'));
  core.flush();
  expect(core.transcript()).toHaveLength(256 * 1024);
  expect(core.transcript(5)).toBe('..END');
  expect(core.transcript(0)).toBe('');
  expect((await core.waitFor(/E(N)D/))[1]).toBe('N');
});

test('waitFor takes a sticky or global expression for what it says, and leaves it alone', async () => {
  const core = make();
  core.output(bytes('aXbX'));
  core.flush();
  const pattern = /X/gy;
  await core.waitFor(pattern);
  expect((await core.waitFor(pattern)).index).toBe(1);
  expect(pattern.lastIndex).toBe(0);
});

test('input waits for a device, goes on as it takes it, and ends with a hang-up', () => {
  const core = make();
  const got: number[] = [];
  let room = 3;
  let hangUps = 0;
  let taken = 0;
  core.onInputTaken = () => taken++;
  core.write('hello');
  core.write(bytes(' you'));
  core.endInput();
  expect(core.inputBytes).toBe(9);
  core.connect({
    receive(chunk) {
      const count = Math.min(room, chunk.length);
      got.push(...chunk.subarray(0, count));
      room -= count;
      return count;
    },
    resumeTransmit() {},
    hangUp: () => hangUps++,
  });
  expect([new TextDecoder().decode(Uint8Array.from(got)), core.inputBytes, taken, hangUps]).toEqual(['hel', 6, 0, 0]);
  room = 100;
  core.inputReady();
  expect([new TextDecoder().decode(Uint8Array.from(got)), core.inputBytes, taken, hangUps]).toEqual([
    'hello you',
    0,
    1,
    1,
  ]);
});

test('a reader that falls behind holds the device back until it has caught up', () => {
  const core = make();
  let resumed = 0;
  core.connect({ receive: (chunk) => chunk.length, resumeTransmit: () => resumed++ });
  expect(core.output(bytes('a'))).toBe(true);
  core.setFull(true);
  expect(core.output(bytes('b'))).toBe(false);
  core.setFull(false);
  core.setFull(false);
  expect(resumed).toBe(1);
  // What came while it was full is not lost.
  expect(core.transcript()).toBe('ab');
});

test('how a panic is told from a shutdown', () => {
  const panic = 'Kernel panic - not syncing: x\nCall trace:\n';
  expect(endedInPanic(panic)).toBe(true);
  expect(endedInPanic(`${panic}reboot: Power down\n`)).toBe(false);
  expect(endedInPanic(`reboot: Restarting system\n${panic}`)).toBe(true);
  expect(endedInPanic('all is well')).toBe(false);
  expect(haltedInPanic('[ 1.0] ---[ end Kernel panic - not syncing: x ]---\r\n')).toBe(true);
  expect(haltedInPanic('---[ end Kernel panic - not syncing: x ]---\n# ')).toBe(false);
});
