import { describe, expect, test } from '@jest/globals';
import { type CpuProfile, formatProfile, ProfileTally } from '#lib/cli/profile.js';
import { SymbolTable } from '#lib/vmm/boot/index.js';

/** A tree of frames, each with the milliseconds that samples found it on top. A frame `wasm:name` is WebAssembly's, `node:name` Node's. */
type Frames = { readonly [name: string]: Frames | number };

function profile(frames: Frames): CpuProfile {
  const nodes: { id: number; callFrame: { functionName: string; url: string }; children: number[] }[] = [];
  const samples: number[] = [];
  const timeDeltas: number[] = [];
  const add = (name: string, below: Frames | number): number => {
    const [, scheme, functionName] = /^(?:(wasm|node):)?(.*)$/s.exec(name)!;
    const url = scheme === undefined ? 'file:///elvisor/dist/x.js' : scheme === 'wasm' ? 'wasm://wasm/1' : 'node:x';
    const node = { id: nodes.length + 1, callFrame: { functionName: functionName!, url }, children: [] as number[] };
    nodes.push(node);
    if (typeof below === 'number') {
      samples.push(node.id);
      timeDeltas.push(below * 1000);
    } else for (const [child, rest] of Object.entries(below)) node.children.push(add(child, rest));
    return node.id;
  };
  add('(root)', frames);
  return { nodes, samples, timeDeltas };
}

const tallied = (...list: Frames[]): ProfileTally => {
  const tally = new ProfileTally();
  for (const frames of list) tally.add(profile(frames));
  return tally;
};

const KERNEL = 'guest EL1 0xffff800008010040 ipa 0x40210040';
const USER = 'guest EL0 0x0000000000400100 ipa 0x40210100';

describe('where the time goes', () => {
  test.each<[string, Frames, string]>([
    ['a region', { '#enterGuest': { 'wasm:interpreter': { [`wasm:${KERNEL}`]: 5 } } }, 'compiled'],
    ['the interpreter', { '#enterGuest': { 'wasm:interpreter': 5 } }, 'interpreting'],
    [
      'a handler out of its loop',
      { '#enterGuest': { 'wasm:interpreter': { 'wasm:interpreter FADD': 5 } } },
      'interpreting',
    ],
    [
      'what generated code calls to compute',
      { '#enterGuest': { 'wasm:interpreter': { aesRound: 5 } } },
      'interpreting',
    ],
    ['the way into generated code', { '#enterGuest': { 'js-to-wasm::': 5 } }, 'interpreting'],
    ['a walk', { '#enterGuest': { 'wasm:interpreter': { loadMiss: { walk: 5 } } } }, 'translating'],
    ['a walk for a region', { '#enterGuest': { [`wasm:${KERNEL}`]: { storeMiss: { walk: 5 } } } }, 'translating'],
    ['a decoder', { '#enterGuest': { 'wasm:interpreter': { decodeMiss: { decode: 5 } } } }, 'decoding'],
    ['instantiating', { '#enterGuest': { tick: { '#receive': 5 } } }, 'compiling'],
    ['an exception', { '#turn': { '#enterGuest': { '#exception': 5 } } }, 'exceptions'],
    ['a device', { '#turn': { handle: { 'node:write': 5 } } }, 'devices'],
    ['a device in the midst of a run', { '#turn': { '#enterGuest': { handle: { write: 5 } } } }, 'devices'],
    ['collecting', { '(garbage collector)': 5 }, 'collecting'],
    ['idle', { '(idle)': 5 }, 'idle'],
    ["Node's own tick", { 'node:tick': { 'node:hot': 5 } }, 'other'],
    ['loading', { '(anonymous)': 5 }, 'other'],
  ])('%s', (_, frames, activity) => {
    expect([...tallied(frames).activities]).toEqual([[activity, 5000]]);
  });

  test('one profile after the other is added up', () => {
    const tally = tallied({ [`wasm:${KERNEL}`]: 5 }, { [`wasm:${KERNEL}`]: 2, [`wasm:${USER}`]: 1 }, { '(idle)': 1 });
    expect(tally.total).toBe(9000);
    expect([...tally.regions]).toEqual([
      [KERNEL, 7000],
      [USER, 1000],
    ]);
  });
});

describe('the report', () => {
  const symbols = new SymbolTable([{ name: 'memcpy', address: 0x4021_0000 }], 0x4030_0000);

  test('names the activities, the functions and the regions', () => {
    const tally = tallied({ [`wasm:${KERNEL}`]: 6, [`wasm:${USER}`]: 2, '(idle)': 2 });
    expect(formatProfile(tally, { title: 'title', symbols, otherThreads: 1500 })).toBe(`title

Where the time of the thread that runs the guest went:
       8.0 ms  80.0 %  compiled guest code
       2.0 ms  20.0 %  idle
      10.0 ms 100.0 %  in all
       1.5 ms          CPU time of other threads: compiling guest code, V8's compilers and collectors

Functions of the guest, of the time in compiled code:
       6.0 ms  75.0 %  memcpy
       2.0 ms  25.0 %  (user space)

Hot regions, by where they start:
       6.0 ms  75.0 %  EL1 0xffff800008010040 ipa 0x40210040  memcpy+0x40
       2.0 ms  25.0 %  EL0 0x0000000000400100 ipa 0x40210100
`);
  });

  test('says so where nothing was compiled', () => {
    const report = formatProfile(tallied({ '(idle)': 1 }), { title: '', symbols: undefined, otherThreads: undefined });
    expect(report).toContain('No guest code was hot enough');
  });

  test('sums up what is behind the thirtieth row', () => {
    const frames = Object.fromEntries(
      Array.from({ length: 40 }, (_, i) => [`wasm:guest EL0 0x${(0x1000 + i * 4).toString(16).padStart(16, '0')}`, 1]),
    );
    const report = formatProfile(tallied(frames), { title: '', symbols: undefined, otherThreads: undefined });
    expect(report.trimEnd().split('\n').at(-1)).toBe('      10.0 ms  25.0 %  in 10 more');
  });
});
