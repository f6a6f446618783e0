import { spawnSync } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { expect, test } from '@jest/globals';
import { CpuStop } from '#lib/soft/cpu/cpu.js';
import { createMachine, type SoftMachine } from '#lib/soft/cpu/machine.js';
import { connectCompiler } from '#lib/thread/compiler-thread.js';
import { add, b, movz } from '../soft/a64.ts';

/** The worker that compiles, with real machines. */

const RAM = 0x4000_0000;

function spinning(): { machine: SoftMachine; run: () => CpuStop } {
  const machine = createMachine({ threshold: 1, compiler: connectCompiler() }) as SoftMachine;
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

/** Runs until a region of the machine has come. */
async function compiled({ machine, run }: ReturnType<typeof spinning>): Promise<void> {
  while (machine.stats.regions === 0) {
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

test.each(['', 'machine.close();'])(
  'keeps no process alive (%s)',
  (end) => {
    const entry = (path: string): string =>
      JSON.stringify(fileURLToPath(new URL(`../../dist/${path}`, import.meta.url)));
    const program = `
    import { createMachine } from ${entry('soft/cpu/machine.js')};
    import { connectCompiler } from ${entry('thread/compiler-thread.js')};
    const machine = createMachine({ compiler: connectCompiler() });
    ${end}`;
    const { status, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', program], {
      encoding: 'utf8',
      timeout: 60_000,
    });
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  },
  60_000,
);
