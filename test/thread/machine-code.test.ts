import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { cachedDataVersionTag, setFlagsFromString } from 'node:v8';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { functionsOf, Wasm } from '#lib/soft/index.js';
import { CodeStore } from '#lib/thread/code-store.js';
import { hasMachineCode, Optimizer, withMachineCode } from '#lib/thread/machine-code.js';
import { MachineCodeMaker } from '#lib/thread/machine-code-maker.js';
import { archiveOf } from './archives.ts';
import { built } from './built.ts';

/** V8's machine code of kept modules. */

const onNode = Number(process.versions.node.split('.')[0]);
/** What Node 26 has no way to is left out there. */
const describeWhere = hasMachineCode() ? describe : describe.skip;

test('Node 20 to 24 give machine code away', () => {
  expect(hasMachineCode()).toBe(onNode < 26);
});

let dir = '';
let store: CodeStore;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'elvisor-native-'));
  store = CodeStore.open(dir)!;
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

/** Runs a program that has the store as `store`. @param v8 options of its Node */
function runProgram(rest: string, v8: readonly string[] = []) {
  const program = `
    import { setFlagsFromString } from 'node:v8';
    import { functionsOf, Wasm } from ${built('soft/index.js')};
    import { CodeStore } from ${built('thread/code-store.js')};
    import { withMachineCode } from ${built('thread/machine-code.js')};
    import { nativeFunction, setYoungGrowth } from ${built('thread/v8-flags.js')};
    import { MachineCodeMaker } from ${built('thread/machine-code-maker.js')};
    const store = CodeStore.open(${JSON.stringify(dir)});
    const [{ name }] = await store.parts();
    ${rest}`;
  const { status, stdout, stderr } = spawnSync(process.execPath, [...v8, '--input-type=module', '-e', program], {
    encoding: 'utf8',
    timeout: 60_000,
  });
  return { status, stderr, stdout };
}

const answers = (stdout: string) => ({ status: 0, stderr: '', stdout: `${stdout}\n` });

describeWhere('machine code', () => {
  const make = (): string => {
    const name = store.add(archiveOf(3, 4, 5))!;
    const maker = new MachineCodeMaker(store);
    maker.want(name);
    while (maker.turn());
    return name;
  };

  const USE = `
    const { bytes, imports } = store.module(name);
    const code = store.machineCode(name);
    const module = code && withMachineCode(bytes, code);
    const areOptimized = (of) =>
      functionsOf(of, imports).map(nativeFunction(['f'], 'return %IsTurboFanFunction(f)'));`;
  const TELL = `${USE} console.log(code !== undefined, module !== undefined);`;

  test('is taken in another process, where nothing is left to compile', () => {
    const name = make();
    expect(runProgram(`${USE} console.log(areOptimized(module));`)).toEqual(answers('[ true, true, true ]'));
    store.setMachineCode(name, undefined);
    expect(runProgram(`${USE} console.log(areOptimized(new Wasm.Module(bytes)));`)).toEqual(
      answers('[ false, false, false ]'),
    );
  });

  test('is taken though the young generation is limited there', () => {
    make();
    expect(runProgram(`setYoungGrowth(4); ${TELL}`)).toEqual(answers('true true'));
  });

  test('is not there where V8 runs with other flags, which have their own', () => {
    make();
    expect(runProgram(TELL, ['--stack-size=900'])).toEqual(answers('false false'));
  });

  test('is not taken where a flag was changed since V8 began', () => {
    make();
    expect(runProgram(`setFlagsFromString('--stack-size=800'); ${TELL}`)).toEqual(answers('true false'));
  });

  test("is not taken where V8's own head of it is another's", () => {
    const name = make();
    const code = store.machineCode(name)!;
    for (let at = 0; at < 16; at++) {
      const changed = code.slice();
      changed[at]! ^= 0x10;
      expect(withMachineCode(store.module(name)!.bytes, changed)).toBeUndefined();
    }
    expect(withMachineCode(store.module(name)!.bytes, code)).toBeDefined();
  });

  test('is not asked for before all functions are optimised: V8 ends the process that does', () => {
    const { bytes, imports } = archiveOf(6, 7).link();
    const module = new Wasm.Module(bytes);
    const optimizer = new Optimizer(module, functionsOf(module, imports));
    expect(optimizer.machineCode()).toBeUndefined();
    expect(optimizer.step()).toBe(true);
    expect(optimizer.machineCode()).toBeUndefined();
    expect(optimizer.step()).toBe(false);
    expect(optimizer.machineCode()!.length).toBeGreaterThan(100);
    expect(new Optimizer(module, []).machineCode()).toBeUndefined();
  });

  test('is not made while a flag is changed', () => {
    const { bytes, imports } = archiveOf(8).link();
    const module = new Wasm.Module(bytes);
    const optimizer = new Optimizer(module, functionsOf(module, imports));
    optimizer.step();
    const before = cachedDataVersionTag();
    setFlagsFromString('--no-wasm-loop-unrolling');
    try {
      expect(cachedDataVersionTag()).not.toBe(before);
      expect(optimizer.machineCode()).toBeUndefined();
    } finally {
      setFlagsFromString('--wasm-loop-unrolling');
    }
    expect(optimizer.machineCode()).toBeDefined();
  });

  test('is whole, or not there, where the process ends while a thread makes it', () => {
    const name = store.add(archiveOf(...Array.from({ length: 20 }, (_, n) => n)))!;
    const { bytes } = store.module(name)!;
    // Makes it again and again, and says so before it does, and before it writes.
    const thread = `
      const { parentPort, workerData } = require('node:worker_threads');
      (async () => {
        const { CodeStore } = await import(${built('thread/code-store.js')});
        const { MachineCodeMaker } = await import(${built('thread/machine-code-maker.js')});
        const { adoptFlags } = await import(${built('thread/v8-flags.js')});
        adoptFlags(workerData);
        const store = CodeStore.open(${JSON.stringify(dir)});
        const write = store.setMachineCode.bind(store);
        store.setMachineCode = (part, code) => {
          parentPort.postMessage('writes');
          write(part, code);
        };
        const maker = new MachineCodeMaker(store);
        for (;;) {
          parentPort.postMessage('makes');
          maker.want(${JSON.stringify(name)});
          while (maker.turn());
        }
      })();`;
    const isThere = [1, 2, 3, 4].map((said) => {
      store.setMachineCode(name, undefined);
      const ended = runProgram(`
        const { Worker } = await import('node:worker_threads');
        const { sharedFlags } = await import(${built('thread/v8-flags.js')});
        const worker = new Worker(${JSON.stringify(thread)}, { eval: true, execArgv: [], workerData: sharedFlags() });
        let said = 0;
        worker.on('message', () => ++said === ${said} && process.exit());`);
      expect(ended).toEqual({ status: 0, stderr: '', stdout: '' });
      const code = store.machineCode(name);
      expect(code === undefined || withMachineCode(bytes, code) !== undefined).toBe(true);
      return code !== undefined;
    });
    // What was made before the process ended is there.
    expect(isThere.slice(2)).toEqual([true, true]);
  });

  test('a process that is debugged makes none', () => {
    store.add(archiveOf(9));
    const program = `
      import { Session } from 'node:inspector/promises';
      const session = new Session();
      session.connect();
      await session.post('Debugger.enable');
      const maker = new MachineCodeMaker(store);
      maker.want(name);
      while (maker.turn());
      console.log(store.machineCode(name) !== undefined);`;
    expect(runProgram(program)).toMatchObject({ status: 0, stderr: '' });
  });

  test('is made of what is there: of a part that has gone, none', () => {
    const maker = new MachineCodeMaker(store);
    const name = store.add(archiveOf(3))!;
    store.remove(name);
    maker.want(name);
    expect(maker.turn()).toBe(false);
    expect(store.machineCode(name)).toBeUndefined();
  });
});
