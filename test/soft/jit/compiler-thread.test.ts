import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { CpuStop } from '#lib/soft/cpu/cpu.js';
import type { SoftMachine } from '#lib/soft/cpu/machine.js';
import { add, bne, hvc, movz, subsImm } from '../a64.ts';
import { BareMetal, DONE } from '../bare-metal.ts';
import { LateCompiler } from './late-compiler.ts';

/** Regions that another thread compiles: when they come, and what becomes of those that come too late. */

let compiler: LateCompiler;
let vm: BareMetal;
beforeEach(() => {
  // It compiles and answers when it is told to.
  compiler = new LateCompiler(Number.POSITIVE_INFINITY);
  vm = new BareMetal({ threshold: 1, compiler });
});
afterEach(() => {
  vm.machine.close();
});

const regions = (): number => (vm.machine as SoftMachine).stats.regions;
const LOOPS = 100;
/** X0 = 100 times X1, in a loop. */
const loop = [movz(0, 0), movz(3, LOOPS), add(0, 0, 1), subsImm(3, 3, 1), bne(-2), hvc(DONE)];

function run(at: number, x1: bigint): bigint {
  vm.cpu.setPc(BigInt(at));
  vm.cpu.setX(1, x1);
  while (vm.cpu.run(20) === CpuStop.BUDGET);
  expect(vm.cpu.hvcImmediate).toBe(DONE);
  return vm.cpu.getX(0);
}

/** Starts the machine, and runs the loop until it was asked for. */
function ask(at: number): LateCompiler {
  expect(run(at, 3n)).toBe(300n);
  expect(compiler.requested).toBeGreaterThan(0);
  expect(regions()).toBe(0);
  return compiler;
}

test('regions are used when they have come, and not before', () => {
  const at = vm.place(loop);
  const { requested } = ask(at);
  compiler.compile();
  expect(run(at, 4n)).toBe(400n);
  expect(regions()).toBe(0);
  compiler.answer();
  for (let n = 4n; n < 10n; n++) expect(run(at, n)).toBe(100n * n);
  expect(regions()).toBe(requested);
  expect(compiler.requested).toBe(requested);
});

const TWICE = [movz(0, 0), movz(3, LOOPS), add(0, 0, 1), add(0, 0, 1), subsImm(3, 3, 1), bne(-3), hvc(DONE)];

test.each([
  ['before it was compiled', false],
  ['after it was compiled', true],
])('code that was stored to %s is not replaced by what it was', (_when, compiled) => {
  const at = vm.place(loop);
  const { requested } = ask(at);
  if (compiled) compiler.compile();
  vm.place(TWICE, at);
  // The machine meets the new code first, so that there is something to replace.
  expect(run(at, 3n)).toBe(600n);
  compiler.compile();
  compiler.answer();
  for (let n = 4n; n < 10n; n++) expect(run(at, n)).toBe(200n * n);
  expect(compiler.requested).toBeGreaterThan(requested);
});

test('where the thread dies, the machine compiles by itself what it had asked for', () => {
  const at = vm.place(loop);
  const { requested } = ask(at);
  compiler.failed = true;
  for (let n = 4n; n < 10n; n++) expect(run(at, n)).toBe(100n * n);
  expect(regions()).toBe(requested);
  expect(compiler.requested).toBe(requested);
});

test('the machine closes its thread', () => {
  expect(compiler.closed).toBe(false);
  vm.machine.close();
  expect(compiler.closed).toBe(true);
});
