import { fc, test as property } from '@fast-check/jest';
import { describe, expect, test } from '@jest/globals';
import { VmError } from '#lib/vmm/errors.js';
import { type MicroVmOptions, parseMemory, resolveOptions } from '#lib/vmm/options.js';

const kernel = new Uint8Array(64);
const resolve = (options: object): unknown => resolveOptions({ kernel, ...options } as MicroVmOptions);

test('the defaults', () => {
  expect(resolve({})).toMatchObject({
    memory: 2 ** 29,
    cpus: 1,
    gic: undefined,
    its: false,
    pmu: false,
    kernelFormat: 'auto',
    console: 'pl011',
    rng: true,
    noReboot: false,
    backend: 'auto',
    clock: 'host',
    codeCache: undefined,
    disks: [],
    ports: [],
  });
});

describe('memory', () => {
  test.each([
    ['256M', 2 ** 28],
    ['1g', 2 ** 30],
    ['1048576', 2 ** 20],
    [' 2048K ', 2 ** 21],
    [2 ** 30, 2 ** 30],
  ])('%p is %i bytes', (value, bytes) => {
    expect(parseMemory(value)).toBe(bytes);
  });

  test.each([
    0,
    -1,
    1,
    1.5,
    Number.NaN,
    Number.POSITIVE_INFINITY,
    2 ** 60,
    '0',
    '1',
    '1T',
    '',
    'lots',
    '-1M',
    '1MB',
    '0x10M',
    '1e9',
    null,
    {},
  ])('%p is refused', (value) => {
    expect(() => parseMemory(value)).toThrow(expect.objectContaining({ code: 'ERR_INVALID_OPTION' }));
  });

  property('whatever is given, the answer is a size of the board or an error that names the option', () => {
    fc.assert(
      fc.property(fc.anything(), (value) => {
        try {
          const bytes = parseMemory(value);
          expect(bytes % 2 ** 20).toBe(0);
          expect(bytes).toBeLessThanOrEqual(255 * 2 ** 30);
        } catch (error) {
          if (!VmError.is(error, 'ERR_INVALID_OPTION')) throw error;
          expect(error.message).toMatch(/^memory: /);
        }
      }),
    );
  });
});

describe('what is refused, by name', () => {
  test.each([
    [{ kernel: undefined }, /kernel: /],
    [{ kernel: '' }, /kernel: expected a path/],
    [{ memoryMiB: 256 }, /unknown option "memoryMiB"/],
    [{ CPUs: 2 }, /unknown option "CPUs"; did you mean cpus\?/],
    [{ cpus: 0 }, /cpus: expected a whole number from 1 to 123, got 0/],
    [{ cpus: 4096 }, /cpus: /],
    [{ cpus: '2' }, /cpus: /],
    [{ gic: 4 }, /gic: expected a whole number from 2 to 3, got 4/],
    [{ gic: 2, cpus: 9 }, /cpus: a GICv2 has at most 8, not 9/],
    [{ hugePages: '3M' }, /hugePages: expected a size of huge pages, such as 2M or 1G, got "3M"/],
    [{ hugePages: true }, /hugePages: expected a size of huge pages/],
    [{ hugePages: 4096 }, /hugePages: expected a size of huge pages/],
    [{ hugePages: '32G' }, /hugePages: expected a size of huge pages/],
    [{ memory: '1500M', hugePages: '1G' }, /hugePages: 1500M of memory are no whole number of pages of "1G"/],
    [{ pmu: 1 }, /pmu: expected true or false, got 1/],
    [{ gic: 2, its: true }, /its: only a GICv3 has one/],
    [{ its: 'yes' }, /its: expected true or false/],
    [{ kernelFormat: 'flat' }, /kernelFormat: expected auto or raw/],
    [{ rng: 1 }, /rng: expected true or false/],
    [{ console: 'vga' }, /console: expected pl011 or hvc0/],
    [{ clock: 'sun' }, /clock: /],
    [{ codeCache: '' }, /codeCache: expected a directory, got ""/],
    [{ codeCache: 1 }, /codeCache: expected a directory, got 1/],
    [{ codeCache: '/tmp', kvm: {} }, /kvm and codeCache exclude each other/],
    [{ backend: 'xen' }, /backend: /],
    [{ timeoutMs: 0 }, /timeoutMs: /],
    [{ signal: {} }, /signal: expected an AbortSignal/],
    [{ cmdline: 'a\0b' }, /cmdline: .*NUL/],
    [{ cmdline: 'x'.repeat(2048) }, /cmdline: 2048 bytes/],
    [{ disks: 'a.img' }, /disks: expected an array/],
    [{ disks: [{ file: 'a' }] }, /unknown key in disks\[0\]: "file"/],
    [{ disks: [{ path: new Uint8Array(1) }] }, /disks\[0\]\.path/],
    [{ disks: Array.from({ length: 32 }, () => ({ path: 'x' })) }, /need more than its 32 virtio slots/],
    [{ ports: ['a', 'a'] }, /ports: "a" is given twice/],
    [{ ports: ['../x'] }, /ports: "..\/x" is no port name/],
    [{ kvm: {}, backend: 'soft' }, /kvm and backend exclude each other/],
  ])('%p', (options, message) => {
    expect(() => resolve(options)).toThrow(message);
  });
});
