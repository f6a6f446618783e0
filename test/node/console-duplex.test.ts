import { text } from 'node:stream/consumers';
import { expect, test } from '@jest/globals';
import { ConsoleDuplex } from '#lib/node/console-duplex.js';
import { nodeScheduler } from '#lib/node/scheduler.js';
import { VmConsole } from '#lib/vmm/console.js';

const MIB = 2 ** 20;
const make = (): { core: VmConsole; duplex: ConsoleDuplex } => {
  const core = new VmConsole('test', nodeScheduler());
  return { core, duplex: new ConsoleDuplex(core) };
};
const put = (core: VmConsole, bytes: Uint8Array): boolean => {
  const more = core.output(bytes);
  core.flush();
  return more;
};

test('what came before a reader did is there for it, and the end ends it', async () => {
  const { core, duplex } = make();
  put(core, new TextEncoder().encode('early '));
  const all = text(duplex);
  put(core, new TextEncoder().encode('late'));
  core.end('the guest powered off');
  expect(await all).toBe('early late');
});

test('nobody reads: the guest goes on, and the last mebibyte is kept', async () => {
  const { core, duplex } = make();
  for (let i = 0; i < 64; i++) expect(put(core, new Uint8Array(65536).fill(65 + (i >> 4)))).toBe(true);
  core.end('x');
  const kept = await text(duplex);
  expect(kept.length).toBe(MIB);
  expect(new Set(kept)).toEqual(new Set(['D']));
});

test('a reader that stops makes the guest wait, loses nothing, and does not keep waitFor from seeing', async () => {
  const { core, duplex } = make();
  duplex.read(0);
  let sent = 0;
  while (put(core, new Uint8Array(65536).fill(0x61))) {
    sent += 65536;
    expect(sent).toBeLessThan(4 * MIB);
  }
  put(core, new TextEncoder().encode('needle'));
  await duplex.waitFor('needle');
  core.end('x');
  expect((await text(duplex)).length).toBe(core.outputBytes);
  expect(core.outputBytes).toBeGreaterThan(MIB);
});

test('a reader that is gone does not make the guest wait', () => {
  const { core, duplex } = make();
  duplex.read(0);
  let sent = 0;
  while (put(core, new Uint8Array(65536))) expect(++sent).toBeLessThan(64);
  duplex.destroy();
  expect(put(core, new Uint8Array(65536))).toBe(true);
});

test('a writer waits for the guest, and its end is the guest’s end of file', async () => {
  const { core, duplex } = make();
  let room = 0;
  let hungUp = false;
  core.connect({
    receive: (bytes) => Math.min(bytes.length, room),
    resumeTransmit() {},
    hangUp: () => {
      hungUp = true;
    },
  });
  let written = false;
  duplex.write(new Uint8Array(100_000), () => {
    written = true;
  });
  duplex.end();
  await new Promise((resolve) => setImmediate(resolve));
  expect([written, hungUp]).toEqual([false, false]);
  room = Number.POSITIVE_INFINITY;
  core.inputReady();
  await new Promise((resolve) => setImmediate(resolve));
  expect([written, hungUp, core.inputBytes]).toEqual([true, true, 0]);
});
