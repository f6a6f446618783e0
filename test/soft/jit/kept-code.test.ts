import { afterEach, expect, test } from '@jest/globals';
import { CpuStop } from '#lib/soft/cpu/cpu.js';
import type { SoftMachine } from '#lib/soft/cpu/machine.js';
import {
  type CompileRequest,
  type CompilerReply,
  type CompilerThread,
  CompileServer,
  KeptArchive,
  type NewRegion,
  type RegionRequest,
} from '#lib/soft/index.js';
import { Wasm } from '#lib/soft/jit/webassembly.js';
import { add, b, bne, hvc, movz, NOP, RET, subsImm } from '../a64.ts';
import { BareMetal, DONE } from '../bare-metal.ts';
import { KeptParts } from './late-compiler.ts';

/** Regions of earlier runs: where they are put to use, and where not. */

/** A thread that compiles at once but only keeps, and has the parts that it is given. */
class Keeper implements CompilerThread {
  failed = false;
  readonly regions: NewRegion[] = [];
  readonly requests: RegionRequest[] = [];
  /** The parts that were asked for. */
  readonly wanted: number[] = [];
  /** Whether those that are asked for come at once. */
  answers = true;
  readonly #parts = new KeptParts();
  readonly #replies: CompilerReply[] = [];
  readonly #server = new CompileServer(() => {}, { keep: (region) => this.regions.push(region) });

  post(request: CompileRequest): void {
    if ('regions' in request) this.requests.push(...request.regions);
    if ('part' in request) {
      this.wanted.push(request.part);
      if (this.answers) this.send(this.#parts.reply(request.part));
    }
    this.#server.handle(request);
  }
  send(reply: CompilerReply): void {
    this.#replies.push(reply);
  }
  give(...archives: readonly KeptArchive[]): void {
    this.send({ parts: archives.map((archive) => this.#parts.add(archive)) });
  }
  answer(part: number): void {
    this.send(this.#parts.reply(part));
  }
  receive(): CompilerReply | undefined {
    return this.#replies.shift();
  }
  close(): void {}
}

const made: BareMetal[] = [];
afterEach(() => {
  for (const vm of made.splice(0)) vm.machine.close();
});

function create(kept?: KeptArchive): {
  readonly vm: BareMetal;
  readonly thread: Keeper;
  readonly reused: () => number;
} {
  const thread = new Keeper();
  const vm = new BareMetal({ threshold: 1, compiler: thread });
  made.push(vm);
  if (kept !== undefined) thread.give(kept);
  // The first run finds what has come before anything is decoded.
  vm.cpu.setPc(BigInt(vm.place([hvc(DONE)])));
  vm.cpu.run(1);
  return { vm, thread, reused: () => (vm.machine as SoftMachine).stats.reused };
}

/** X0 = 100 times X1, in a loop. */
const LOOP = [movz(0, 0), movz(3, 100), add(0, 0, 1), subsImm(3, 3, 1), bne(-2), hvc(DONE)];
const TWICE = [movz(0, 0), movz(3, 100), add(0, 0, 1), add(0, 0, 1), subsImm(3, 3, 1), bne(-3), hvc(DONE)];

function run(vm: BareMetal, at: number, x1 = 3n): bigint {
  vm.cpu.setPc(BigInt(at));
  vm.cpu.setX(1, x1);
  while (vm.cpu.run(20) === CpuStop.BUDGET);
  expect(vm.cpu.hvcImmediate).toBe(DONE);
  return vm.cpu.getX(0);
}

/** Position of the loop's head in all programs here. */
const HEAD = 2;

/** The region that running a program makes of its loop. */
function loopOf(words: readonly number[]): NewRegion {
  const { vm, thread } = create();
  const at = vm.place(words);
  run(vm, at);
  run(vm, at);
  return thread.regions.find(({ region }) => region.entries[0] === HEAD)!;
}

function keptOf(words: readonly number[]): KeptArchive {
  const archive = new KeptArchive();
  expect(archive.add(loopOf(words))).toBe(true);
  return archive;
}

test('code that is met after they came has them at once, and is not compiled', () => {
  const { vm, thread, reused } = create(keptOf(LOOP));
  const at = vm.place(LOOP);
  expect(reused()).toBe(0);
  expect(run(vm, at, 4n)).toBe(400n);
  expect(run(vm, at, 5n)).toBe(500n);
  expect(reused()).toBe(1);
  expect(thread.requests.map(({ entry }) => entry)).not.toContain(HEAD);
});

test('code that was met before gets them when they come', () => {
  const { vm, thread, reused } = create();
  const at = vm.place(LOOP);
  expect(run(vm, at)).toBe(300n);
  expect(reused()).toBe(0);
  thread.give(keptOf(LOOP));
  expect(run(vm, at, 4n)).toBe(400n);
  expect(reused()).toBe(1);
});

test('a part is asked for once, when a region of it is met, and is used when it has come', () => {
  const { vm, thread, reused } = create();
  thread.answers = false;
  thread.give(keptOf(LOOP), keptOf(TWICE));
  const [loop, again, twice] = [vm.place(LOOP), vm.place(LOOP), vm.place(TWICE)];
  expect(run(vm, loop)).toBe(300n);
  expect(run(vm, again)).toBe(300n);
  expect(thread.wanted).toEqual([0]);
  expect(reused()).toBe(0);
  // Where the code has changed meanwhile it is not.
  vm.place(TWICE, again);
  thread.answer(0);
  expect(run(vm, loop)).toBe(300n);
  expect(reused()).toBe(1);
  expect(run(vm, again)).toBe(600n);
  expect(run(vm, twice)).toBe(600n);
  expect(thread.wanted).toEqual([0, 1]);
  thread.answer(1);
  expect(run(vm, twice)).toBe(600n);
  expect(run(vm, again)).toBe(600n);
  expect(reused()).toBe(3);
});

test('a part that is there no more: what is hot is compiled', () => {
  const { vm, thread, reused } = create();
  thread.answers = false;
  thread.give(keptOf(LOOP));
  const at = vm.place(LOOP);
  expect(run(vm, at)).toBe(300n);
  thread.send({ part: 0, found: undefined });
  expect(run(vm, at)).toBe(300n);
  expect(run(vm, at)).toBe(300n);
  expect(reused()).toBe(0);
  expect(thread.wanted).toEqual([0]);
  expect(thread.requests.map(({ entry }) => entry)).toContain(HEAD);
});

test.each([2, 3, 4])('another instruction %i than they were compiled from: not used', (changed) => {
  const { vm, reused } = create(keptOf(LOOP));
  // Adds, counts and loops as before, but each in another way.
  const other = { 2: 0x8b000020, 3: subsImm(3, 3, 2), 4: bne(-1) }[changed]!;
  const at = vm.place(LOOP.map((word, n) => (n === changed ? other : word)));
  const expected = { 2: 300n, 3: 150n, 4: 3n }[changed];
  expect(run(vm, at)).toBe(expected);
  expect(run(vm, at)).toBe(expected);
  expect(reused()).toBe(0);
});

test('the same instructions elsewhere in the page: not used', () => {
  const { vm, reused } = create(keptOf(LOOP));
  expect(run(vm, vm.place([NOP, ...LOOP]))).toBe(300n);
  expect(reused()).toBe(0);
});

test('the same page at two addresses: used in both, and one can be stored to without the other', () => {
  const { vm, reused } = create(keptOf(LOOP));
  const one = vm.place(LOOP);
  const other = vm.place(LOOP);
  expect(run(vm, one)).toBe(300n);
  expect(run(vm, other)).toBe(300n);
  expect(reused()).toBe(2);
  vm.place(TWICE, one);
  expect(run(vm, one)).toBe(600n);
  expect(run(vm, other)).toBe(300n);
});

test('a page that is stored to loses them, and has them again when it is what it was', () => {
  const { vm, reused } = create(keptOf(LOOP));
  const at = vm.place(LOOP);
  for (let n = 0; n < 3; n++) {
    vm.place(LOOP, at);
    expect(run(vm, at)).toBe(300n);
    expect(reused()).toBe(n + 1);
    vm.place(TWICE, at);
    expect(run(vm, at)).toBe(600n);
  }
});

/** X0 = X1 times 100 through a function in the same page, which is entered where the call returns to as well. */
const CALLING = [
  ...[movz(0, 0), movz(3, 100)],
  0x94000000 | 5, // bl +5
  ...[subsImm(3, 3, 1), bne(-2), b(4), NOP, add(0, 0, 1), RET, hvc(DONE)],
];

test('a region is entered where its calls return to', () => {
  const { vm, thread, reused } = create(keptOf(CALLING));
  const at = vm.place(CALLING);
  for (let n = 1n; n < 4n; n++) expect(run(vm, at, n)).toBe(100n * n);
  expect(reused()).toBe(1);
  const { entries } = loopOf(CALLING).region;
  expect(entries).toEqual([HEAD, HEAD + 1]);
  for (const { entry } of thread.requests) expect(entries).not.toContain(entry);
});

test('what they hold is code that runs, for who compiles beside them', () => {
  const loop = [movz(0, 0), movz(3, 100), add(0, 0, 1), b(2), NOP, subsImm(3, 3, 1), bne(-4), hvc(DONE)];
  const { vm, thread } = create(keptOf(loop));
  const at = vm.place([...loop, movz(0, 0), movz(3, 100), subsImm(4, 4, 1), bne(-1), b(-10)]);
  // Only the kept region knows what is behind its branch.
  expect(run(vm, at)).toBe(300n);
  for (const times of [1n, 50n, 50n]) {
    vm.cpu.setX(4, times);
    expect(run(vm, at + 8 * 4)).toBe(300n);
  }
  const beside = thread.regions.find(({ region }) => region.entries[0] === 10)!;
  expect(beside.region.blocks.map(({ index }) => index)).toContain(5);
});

test('a machine does without what it cannot link', () => {
  const archive = keptOf(LOOP);
  const { imports } = archive.link();
  // It imports a function that no engine has: (import "e" "nothing" (func)).
  const head = [0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00, 0x01, 0x04, 0x01, 0x60, 0x00, 0x00];
  const name = [...'nothing'].map((c) => c.charCodeAt(0));
  const module = new Wasm.Module(new Uint8Array([...head, 0x02, 0x0d, 0x01, 0x01, 0x65, 0x07, ...name, 0x00, 0x00]));
  const { vm, thread, reused } = create();
  thread.answers = false;
  thread.give(archive);
  thread.send({ part: 0, found: { module, imports } });
  expect(run(vm, vm.place(LOOP))).toBe(300n);
  expect(reused()).toBe(0);
});

test('guarded pages have their own', () => {
  const archive = new KeptArchive();
  archive.add({ ...loopOf(LOOP), guarded: true });
  const { vm, reused } = create(archive);
  expect(run(vm, vm.place(LOOP))).toBe(300n);
  expect(reused()).toBe(0);
});
