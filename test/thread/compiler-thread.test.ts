import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { CpuStop } from '#lib/soft/cpu/cpu.js';
import { createMachine, type SoftMachine } from '#lib/soft/cpu/machine.js';
import { connectCompiler } from '#lib/thread/compiler-thread.js';
import { hasMachineCode } from '#lib/thread/machine-code.js';
import { add, addImm, b, bne, movz, subsImm } from '../soft/a64.ts';
import { built } from './built.ts';

/** The worker that compiles, with real machines. */

const RAM = 0x4000_0000;

/** @param threshold so many branches make a target hot */
function spinning(codeDirectory?: string, threshold = 1): { machine: SoftMachine; run: () => CpuStop } {
  const machine = createMachine({ threshold, compiler: connectCompiler(codeDirectory) }) as SoftMachine;
  const memory = machine.allocate(0x1_0000)!;
  machine.map(RAM, memory.size, memory, 0, false);
  const view = new DataView(memory.bytes.buffer, memory.bytes.byteOffset, memory.size);
  [movz(1, 3), add(0, 0, 1), b(-1)].forEach((word, i) => {
    view.setUint32(i * 4, word, true);
  });
  const cpu = machine.createCpu({ readSysreg: () => undefined, writeSysreg: () => false });
  cpu.setPc(BigInt(RAM));
  return { machine, run: () => cpu.run(1000) };
}

/** Runs until a region of the machine has come, compiled or kept. */
async function compiled(
  { machine, run }: ReturnType<typeof spinning>,
  which: 'regions' | 'reused' = 'regions',
): Promise<void> {
  while (machine.stats[which] === 0) {
    expect(run()).toBe(CpuStop.BUDGET);
    await sleep(1);
  }
}

test('several machines share a worker; it ends with the last, and starts again', async () => {
  const first = spinning();
  const second = spinning();
  await compiled(first);
  first.machine.close();
  await compiled(second);
  second.machine.close();
  const third = spinning();
  await compiled(third);
  third.machine.close();
}, 60_000);

describe('code that is kept', () => {
  let dir = '';
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'elvisor-kept-'));
  });
  afterEach(() => rmSync(dir, { recursive: true, force: true }));

  /** Waits for a file of a kind. */
  const written = async (kind: string): Promise<void> => {
    while (!readdirSync(dir).some((name) => name.includes(`.${kind}`) && !name.endsWith('.tmp'))) await sleep(5);
  };

  test('is used by the next machine, which compiles none, and then as machine code', async () => {
    const first = spinning(dir);
    await compiled(first);
    first.machine.close();
    await written('shapes');
    for (let n = 0; n < 2; n++) {
      // Nothing is hot here.
      const next = spinning(dir, 2 ** 30);
      await compiled(next, 'reused');
      expect(next.machine.stats.regions).toBe(0);
      if (hasMachineCode()) await written('native');
      next.machine.close();
    }
    const none = spinning();
    await compiled(none);
    expect(none.machine.stats.reused).toBe(0);
    none.machine.close();
  }, 60_000);

  test.each([
    ['machine.close();', 'once the machine is closed'],
    ['machine.close(); process.exit();', 'though the process ends at once'],
    ['process.exit();', 'though the machine is not closed'],
  ])(
    'is there at the end: %s',
    (end) => {
      // The worker answers at its leisure: the machine runs until it has.
      const { status, stderr } = runKeeping(`
        const memory = machine.allocate(0x10000);
        machine.map(${RAM}, memory.size, memory, 0, false);
        const code = [${[movz(1, 3), add(0, 0, 1), b(-1)].join()}];
        memory.bytes.set(new Uint8Array(new Uint32Array(code).buffer));
        const cpu = machine.createCpu({ readSysreg: () => undefined, writeSysreg: () => false });
        cpu.setPc(${RAM}n);
        while (machine.stats.regions === 0) {
          cpu.run(1000);
          await new Promise((resolve) => setTimeout(resolve, 1));
        }
        ${end}`);
      expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
      expect(readdirSync(dir).sort()).toEqual([
        expect.stringMatching(/^[0-9a-f]{32}-[0-9a-f]{32}\.code$/),
        expect.stringMatching(/^[0-9a-f]{32}-[0-9a-f]{32}\.shapes$/),
        expect.stringMatching(/^[0-9a-f]{32}-[0-9a-f]{32}\.wasm$/),
      ]);
    },
    60_000,
  );

  const runKeeping = (rest: string) =>
    runMachine(`{ threshold: 1, compiler: connectCompiler(${JSON.stringify(dir)}) }`, rest);
});

test.each(['', 'machine.close();'])(
  'keeps no process alive (%s)',
  (end) => {
    const { status, stderr } = runMachine('{ compiler: connectCompiler() }', end);
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  },
  60_000,
);

test('leaves V8’s flags as they were, whatever it does when the last machine is closed', () => {
  const loops = Array.from({ length: 60 }, () => [
    movz(1, 3),
    ...Array.from({ length: 30 }, (_, n) => addImm(2 + n, 2, 1)),
    subsImm(1, 1, 1),
    bne(-31),
  ]);
  const { status, stdout, stderr } = runProgram(`
    import { cachedDataVersionTag } from 'node:v8';
    const before = cachedDataVersionTag();
    const turn = () => new Promise((resolve) => setTimeout(resolve, 1));
    for (let n = 0; n < 25; n++) {
      const machine = createMachine({ threshold: 1, compiler: connectCompiler() });
      const memory = machine.allocate(0x10000);
      machine.map(${RAM}, memory.size, memory, 0, false);
      memory.bytes.set(new Uint8Array(new Uint32Array([${[...loops.flat(), b(0)].join()}]).buffer));
      const cpu = machine.createCpu({ readSysreg: () => undefined, writeSysreg: () => false });
      cpu.setPc(${RAM}n);
      while (machine.stats.regions <= n) {
        cpu.run(20000);
        await turn();
      }
      machine.close();
    }
    for (let n = 0; n < 5000 && cachedDataVersionTag() !== before; n++) await turn();
    console.log(cachedDataVersionTag() === before);`);
  expect({ status, stdout, stderr }).toEqual({ status: 0, stdout: 'true\n', stderr: '' });
}, 60_000);

/** Runs a program of its own, with a machine. @param options of the machine, in JavaScript, as the rest of the program is */
const runMachine = (options: string, rest: string) => runProgram(`const machine = createMachine(${options}); ${rest}`);

/** Runs a program of its own, which can make machines. */
function runProgram(rest: string) {
  const program = `
    import { createMachine } from ${built('soft/cpu/machine.js')};
    import { connectCompiler } from ${built('thread/compiler-thread.js')};
    ${rest}`;
  return spawnSync(process.execPath, ['--input-type=module', '-e', program], { encoding: 'utf8', timeout: 60_000 });
}
