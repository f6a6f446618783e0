import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { type FdtNode, FdtWriter, parseFdt, readFdt, VmError, writeFdt } from '#lib/vmm/fdt/index.js';

const blob = () =>
  new FdtWriter()
    .reserve(0x1000, 0x1000)
    .node('', (root) =>
      root
        .cells('a', 1)
        .node('n@1', (n) => n.string('b', 'text').node('m', (m) => m.flag('c')))
        .node('n@2'),
    )
    .finish();

function patched(edit: (view: DataView, bytes: Uint8Array) => void): Uint8Array {
  const bytes = blob();
  edit(new DataView(bytes.buffer), bytes);
  return bytes;
}

/** The structure block given word by word, with a name `p` at offset 0 of the strings. */
function structure(...words: number[]): Uint8Array {
  const bytes = new Uint8Array(56 + 4 * words.length + 8);
  const view = new DataView(bytes.buffer);
  const header = [0xd00dfeed, bytes.length, 56, 56 + 4 * words.length, 40, 17, 16, 0, 2, 4 * words.length];
  for (const [i, word] of header.entries()) view.setUint32(4 * i, word);
  for (const [i, word] of words.entries()) view.setUint32(56 + 4 * i, word);
  bytes.set([0x70, 0], 56 + 4 * words.length);
  return bytes;
}

const [BEGIN, END_NODE, PROP, NOP, END] = [1, 2, 3, 4, 9];
const NAME_A = 0x6100_0000;

describe('parseFdt', () => {
  test('reads what was written', () => {
    const fdt = parseFdt(blob());
    expect(fdt.reservations).toEqual([{ address: 0x1000n, size: 0x1000n }]);
    expect(fdt.root.children.map((child) => child.name)).toEqual(['n@1', 'n@2']);
    expect(fdt.root.children[0]!.children[0]!.properties.get('c')).toEqual(new Uint8Array(0));
  });

  test('NOPs mean nothing', () => {
    const root = readFdt(structure(NOP, BEGIN, 0, NOP, PROP, 4, 0, 7, NOP, END_NODE, NOP, END));
    expect(root.properties.get('p')).toEqual(Uint8Array.of(0, 0, 0, 7));
  });

  test('a blob that lies at an odd offset of its buffer is read', () => {
    const bytes = blob();
    const shifted = new Uint8Array(bytes.length + 3);
    shifted.set(bytes, 3);
    expect(parseFdt(shifted.subarray(3))).toEqual(parseFdt(bytes));
  });

  test.each<[string, Uint8Array, RegExp]>([
    ['nothing', new Uint8Array(0), /0 bytes are too few/],
    ['another magic', patched((view) => view.setUint32(0, 0xd00dfeee)), /is not d00dfeed.*dtc/],
    ['a truncated blob', blob().subarray(0, 100), /the blob has 100: it is truncated/],
    ['a total below the header', patched((view) => view.setUint32(4, 39)), /does not hold the header/],
    ['version 16', patched((view) => view.setUint32(20, 16)), /version 16 .* is not supported/],
    [
      'version 99, not compatible',
      patched((view) => {
        view.setUint32(20, 99);
        view.setUint32(24, 18);
      }),
      /version 99/,
    ],
    ['an unaligned structure', patched((view) => view.setUint32(8, 73)), /not aligned to 4/],
    ['a structure outside', patched((view) => view.setUint32(8, 0xffff_fff0)), /structure block lies outside/],
    ['a structure size of 4 GiB', patched((view) => view.setUint32(36, 0xffff_fffc)), /structure block lies outside/],
    ['strings outside', patched((view) => view.setUint32(32, 0xffff_ffff)), /strings block lies outside/],
    ['reservations outside', patched((view) => view.setUint32(16, 0x10_0000)), /no end/],
    ['reservations without an end', patched((_view, bytes) => bytes.fill(0xff, 40, 72)), /is no|no end|token|outside/],
    ['no end token', structure(BEGIN, 0, END_NODE), /no end token/],
    ['an unknown token', structure(BEGIN, 0, 5, END_NODE, END), /0x5 is no token/],
    ['an open node', structure(BEGIN, 0, END), /does not end/],
    ['an end too many', structure(BEGIN, 0, END_NODE, END_NODE, END), /did not begin/],
    ['two roots', structure(BEGIN, 0, END_NODE, BEGIN, 0, END_NODE, END), /second root/],
    ['no root', structure(END), /no root/],
    ['a named root', structure(BEGIN, NAME_A, END_NODE, END), /root node's name is not empty/],
    ['an unnamed child', structure(BEGIN, 0, BEGIN, 0, END_NODE, END_NODE, END), /is no node name/],
    [
      'a child twice',
      structure(BEGIN, 0, BEGIN, NAME_A, END_NODE, BEGIN, NAME_A, END_NODE, END_NODE, END),
      /there twice/,
    ],
    ['a property outside', structure(PROP, 0, 0, END), /outside any node/],
    ['a property twice', structure(BEGIN, 0, PROP, 0, 0, PROP, 0, 0, END_NODE, END), /there twice/],
    [
      'a property after a child',
      structure(BEGIN, 0, BEGIN, NAME_A, END_NODE, PROP, 0, 0, END_NODE, END),
      /after a child/,
    ],
    ['a property of 4 GiB', structure(BEGIN, 0, PROP, 0xffff_ffff, 0, END_NODE, END), /reach over/],
    ['a name outside the strings', structure(BEGIN, 0, PROP, 0, 2, END_NODE, END), /outside the strings/],
    ['an empty property name', structure(BEGIN, 0, PROP, 0, 1, END_NODE, END), /no property name/],
    ['a name with a control character', structure(BEGIN, 0x0700_0000, END_NODE, END), /byte 0x7/],
    ['a name without an end', structure(BEGIN, 0x6161_6161), /a name has no end|0x/],
    [
      '65 levels',
      structure(...Array.from({ length: 65 }, (_, i) => [BEGIN, i === 0 ? 0 : NAME_A]).flat(), END),
      /deeper than 64/,
    ],
  ])('refuses %s', (_, bytes, message) => {
    expect(() => parseFdt(bytes)).toThrow(
      expect.objectContaining({ code: 'ERR_FDT_FORMAT', message: expect.stringMatching(message) }),
    );
  });

  test('refuses more than 2 MiB', () => {
    expect(() => parseFdt(new FdtWriter().node('').finish({ padding: 2 * 1024 * 1024 }))).toThrow(/over the limit/);
  });

  test('whatever bytes: a tree or a VmError, and the input is not touched', () => {
    const words = fc.array(
      fc.oneof(
        fc.constantFrom(BEGIN, END_NODE, PROP, NOP, END, 0, 1, 2, 4, NAME_A),
        fc.integer({ min: 0, max: 0xffff_ffff }),
      ),
      { maxLength: 40 },
    );
    const flips = fc
      .array(fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 })), { minLength: 1, maxLength: 8 })
      .map((edits) =>
        patched((_view, bytes) => {
          for (const [at, value] of edits) bytes[at % bytes.length] = value;
        }),
      );
    const hostile = fc.oneof(
      fc.uint8Array({ maxLength: 200 }),
      words.map((list) => structure(...list)),
      flips,
    );
    fc.assert(
      fc.property(hostile, (bytes) => {
        const before = bytes.slice();
        try {
          const fdt = parseFdt(bytes);
          expect(parseFdt(writeFdt(fdt)).root).toEqual(fdt.root);
        } catch (error) {
          if (!VmError.is(error)) throw error;
        }
        expect(bytes).toEqual(before);
      }),
      { numRuns: 2000 },
    );
  });

  test('any tree comes back as it was', () => {
    const name = fc.stringMatching(/^[a-z][a-z0-9,._+-]{0,14}(@[0-9a-f]{1,8})?$/);
    const properties = fc.uniqueArray(
      fc.tuple(fc.stringMatching(/^[a-z#][a-z0-9,._+?-]{0,14}$/), fc.uint8Array({ maxLength: 20 })),
      { selector: ([key]) => key, maxLength: 4 },
    );
    const node = (depth: number): fc.Arbitrary<FdtNode> => {
      const children =
        depth === 0
          ? fc.constant<FdtNode[]>([])
          : fc.uniqueArray(node(depth - 1), { selector: (child) => child.name, maxLength: 3 });
      return fc
        .tuple(name, properties, children)
        .map(([named, list, below]) => ({ name: named, properties: new Map(list), children: below }));
    };
    fc.assert(
      fc.property(node(4), (made) => {
        const root = { ...made, name: '' };
        expect(readFdt(writeFdt({ root }))).toEqual(root);
      }),
      { numRuns: 100 },
    );
  });
});
