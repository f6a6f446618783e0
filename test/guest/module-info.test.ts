import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { loadOrder, moduleName, readModuleInfo } from '#lib/guest/module-info.js';
import { VmError } from '#lib/vmm/errors.js';

/** An ELF64 object with the sections .modinfo and .shstrtab. */
function module(modinfo: string, machine = 183): Uint8Array {
  const names = '\0.modinfo\0.shstrtab\0';
  const bytes = new Uint8Array(64 + 3 * 64 + modinfo.length + names.length);
  const view = new DataView(bytes.buffer);
  bytes.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  view.setUint16(18, machine, true);
  view.setBigUint64(40, 64n, true);
  [64, 3, 2].forEach((value, i) => {
    view.setUint16(58 + 2 * i, value, true);
  });
  const section = (index: number, name: number, offset: number, text: string) => {
    view.setUint32(64 + 64 * index, name, true);
    view.setUint32(64 + 64 * index + 4, 1, true);
    view.setBigUint64(64 + 64 * index + 24, BigInt(offset), true);
    view.setBigUint64(64 + 64 * index + 32, BigInt(text.length), true);
    bytes.set(new TextEncoder().encode(text), offset);
  };
  section(1, 1, 256, modinfo);
  section(2, 10, 256 + modinfo.length, names);
  return bytes;
}

describe('readModuleInfo', () => {
  test('dependencies, by the names that the kernel has for them', () => {
    expect(readModuleInfo(module('license=GPL\0depends=virtio,virtio-ring\0name=x\0'), 'x')).toEqual({
      depends: ['virtio', 'virtio_ring'],
    });
    expect(readModuleInfo(module('depends=\0'), 'x')).toEqual({ depends: [] });
  });

  test('refuses what is no arm64 module', () => {
    expect(() => readModuleInfo(new Uint8Array(10), 'a.ko')).toThrow(/kernel module a.ko: it is no ELF64 file/);
    expect(() => readModuleInfo(module('', 62), 'a.ko')).toThrow(/not for arm64/);
  });

  test('whatever bytes: an answer or a VmError', () => {
    const good = module('depends=a,b\0');
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat(good.length - 1), fc.integer({ min: 0, max: 255 })), { maxLength: 5 }),
        fc.option(fc.nat(good.length)),
        (edits, cut) => {
          const bytes = good.slice(0, cut ?? undefined);
          for (const [at, value] of edits) if (at < bytes.length) bytes[at] = value;
          try {
            readModuleInfo(bytes, 'x');
          } catch (error) {
            if (!VmError.is(error, 'ERR_GUEST_MODULE')) throw error;
          }
        },
      ),
      { numRuns: 1000 },
    );
  });
});

describe('loadOrder', () => {
  const graph: Record<string, string[]> = {
    a: ['b', 'c'],
    b: ['c'],
    c: [],
    d: ['built'],
    e: ['gone'],
    f: ['g'],
    g: ['f'],
  };
  const order = (...wanted: string[]) =>
    loadOrder(wanted, new Set(Object.keys(graph)), new Set(['built']), async (name) => ({ depends: graph[name]! }));

  test('what a module depends on comes first, once', async () => {
    expect(await order('a', 'd', 'b')).toEqual(['c', 'b', 'a', 'd']);
  });

  test('what is built in or not there is not loaded', async () => {
    expect(await order('built', 'nowhere', 'c')).toEqual(['c']);
  });

  test('refuses a dependency that is nowhere, and a circle', async () => {
    await expect(order('e')).rejects.toThrow(/kernel module e: it depends on gone/);
    await expect(order('f')).rejects.toThrow(/depends on itself/);
  });

  test('dashes are underscores', async () => {
    expect(moduleName('virtio-rng')).toBe('virtio_rng');
    expect(await loadOrder(['virtio-rng'], new Set(['virtio_rng']), new Set(), async () => ({ depends: [] }))).toEqual([
      'virtio_rng',
    ]);
  });
});
