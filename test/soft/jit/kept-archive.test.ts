import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { KeptArchive, type NewRegion, parseKeptModule, parseShapes, serializeKeptModule } from '#lib/soft/index.js';
import { readShape, shapeLength } from '#lib/soft/jit/kept-shape.js';
import { Wasm } from '#lib/soft/jit/webassembly.js';
import { bne, ldp, load, mrs, RET, store, stp, subsImm } from '../a64.ts';
import { REG } from '../bare-metal.ts';
import { regionOf } from './page.ts';

/** What is kept of compiled regions, as bytes of which nobody knows where they have been. */

const LOOP = regionOf([load(8, 1, 0), stp(1, 2, 0), ldp(3, 4, 0), store(4, 3, 0), subsImm(5, 5, 1), bne(-5), RET]);
/** Calls other functions than {@link LOOP}, and one that both call. */
const CLOCK = regionOf([mrs(1, REG.CNTVCT_EL0), load(1, 2, 3), load(8, 1, 0), RET]);
const DEVICE = regionOf([load(4, 1, 2), RET], [0]);

function archiveOf(...regions: readonly NewRegion[]): KeptArchive {
  const archive = new KeptArchive();
  for (const region of regions) expect(archive.add(region)).toBe(true);
  return archive;
}

const ALL = archiveOf(LOOP, CLOCK, DEVICE);
const BYTES = ALL.serialize();

test('what is read is what was written', () => {
  const read = KeptArchive.parse(BYTES.slice())!;
  expect(read.size).toBe(3);
  expect(read.link()).toEqual(ALL.link());
  expect(read.serialize()).toEqual(BYTES);
});

test('its module is one that V8 takes, with the functions as they were compiled', () => {
  const { bytes, imports, shapes } = ALL.link();
  expect(Wasm.validate(bytes)).toBe(true);
  expect(imports.helpers).toEqual(['mrs']);
  expect(imports.memoryFunctions).toEqual(expect.arrayContaining(['load1', 'load8f', 'store4f', 'load16f', 'load4d']));
  const clock = readShape(shapes, shapeLength(shapes, 0));
  expect([...clock.positions]).toEqual([0, 1, 2, 3]);
  expect([...clock.entries]).toEqual([0]);
  const device = readShape(shapes, shapes.length - archiveOf(DEVICE).link().shapes.length);
  expect([...device.devices]).toEqual([0]);
});

test('what is there already is not added', () => {
  const archive = archiveOf(LOOP, CLOCK);
  expect(archive.add(LOOP)).toBe(false);
  expect(archive.add({ ...LOOP, guarded: true })).toBe(true);
  expect(archive.size).toBe(3);
});

test('two archives become one, whatever numbers each has given to what is called', () => {
  const one = archiveOf(LOOP, DEVICE);
  const other = archiveOf(CLOCK, LOOP);
  one.merge(other);
  expect(one.size).toBe(3);
  expect(one.link().bytes).toEqual(archiveOf(LOOP, DEVICE, CLOCK).link().bytes);
  // The other is as it was.
  expect(other.link()).toEqual(archiveOf(CLOCK, LOOP).link());
});

describe('bytes that are something else', () => {
  test('an archive that ends early is none, wherever it ends', () => {
    for (let length = 0; length < BYTES.length; length++) {
      expect(KeptArchive.parse(BYTES.slice(0, length))).toBeUndefined();
    }
  });

  test('nor one with more behind it', () => {
    expect(KeptArchive.parse(new Uint8Array([...BYTES, 0, 0, 0, 0]))).toBeUndefined();
  });

  /** None, or one that can be linked: what its instructions are is for V8 to say. */
  const isHarmless = (bytes: Uint8Array<ArrayBuffer>): void => {
    const read = KeptArchive.parse(bytes);
    if (read === undefined) return;
    const linked = read.link();
    expect(typeof Wasm.validate(linked.bytes)).toBe('boolean');
    areRead(linked.shapes);
  };

  const areRead = (shapes: Uint32Array): void => {
    for (let at = 0; at < shapes.length; at += shapeLength(shapes, at)) {
      const { positions, entries } = readShape(shapes, at);
      expect(Math.max(...positions, ...entries)).toBeLessThan(1024);
    }
  };

  test('a module that is read is the one that was written; one that ends before its code is none', () => {
    const { bytes, imports } = ALL.link();
    const module = serializeKeptModule({ bytes, imports });
    expect(parseKeptModule(module)).toEqual({ bytes, imports });
    for (let end = 0; end < module.length - bytes.length; end++)
      expect(parseKeptModule(module.slice(0, end))).toBeUndefined();
  });

  test('shapes that are read are those that were written; a bit of them turned: none, or some that can be read', () => {
    const { shapes } = ALL.link();
    const whole = new Uint8Array(shapes.buffer);
    expect(parseShapes(whole.slice())).toEqual(shapes);
    for (let end = 1; end < whole.length; end++) {
      const read = parseShapes(whole.slice(0, end));
      if (read !== undefined) areRead(read);
    }
    for (let bit = 0; bit < whole.length * 8; bit++) {
      const bytes = whole.slice();
      bytes[bit >> 3]! ^= 1 << (bit & 7);
      const read = parseShapes(bytes);
      if (read !== undefined) areRead(read);
    }
  });

  test('a bit turned', () => {
    for (let bit = 0; bit < BYTES.length * 8; bit += 3) {
      const bytes = BYTES.slice();
      bytes[bit >> 3]! ^= 1 << (bit & 7);
      isHarmless(bytes);
    }
  });

  test('words replaced', () => {
    const words = BYTES.length >> 2;
    const change = fc.tuple(
      fc.nat(words - 1),
      fc.oneof(fc.nat(2 ** 32 - 1), fc.constantFrom(0, 1, 0x3ff, 0x400, 0xffff_ffff)),
    );
    fc.assert(
      fc.property(fc.array(change, { minLength: 1, maxLength: 4 }), (changes) => {
        const bytes = BYTES.slice();
        const view = new Uint32Array(bytes.buffer);
        for (const [at, value] of changes) view[at] = value;
        isHarmless(bytes);
      }),
      { numRuns: 1000 },
    );
  });

  test('anything at all', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => isHarmless(new Uint8Array(bytes))),
      { numRuns: 300 },
    );
  });
});
