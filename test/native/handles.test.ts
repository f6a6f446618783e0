import { createRequire } from 'node:module';
import { createServer } from 'node:net';
import { fileURLToPath } from 'node:url';
import { types } from 'node:util';
import { MessageChannel } from 'node:worker_threads';
import { fc } from '@fast-check/jest';
import { beforeEach, expect, test } from '@jest/globals';
import type { Handle, Native, VcpuHandle } from '#lib/host/native.js';
import { Errno } from '#lib/kvm/index.js';
import { addon, describeKvm, handle } from './native.ts';

/** Fewer in the emulated machine of the arm64 host lane, which is much slower. */
const RUNS = process.env.ELVISOR_ARM64_HOST === undefined ? 5000 : 500;

type AnyCall = (...args: unknown[]) => unknown;

/** One of each kind. */
function makeAll(native: Native): Record<'system' | 'vm' | 'vcpu' | 'stats' | 'memory' | 'eventfd', Handle> {
  const system = handle(native.openKvm('/dev/kvm'));
  const vm = handle(native.createVm(system, 0));
  return {
    system,
    vm,
    vcpu: handle(native.createVcpu(vm, 0)),
    stats: handle(native.getStatsFd(vm)),
    memory: handle(native.createMemory(native.pageSize(), 0, 0)),
    eventfd: handle(native.createEventFd()),
  };
}

/** Calls whose first argument is a handle, and the kinds that they take. */
const TAKES: Readonly<Record<string, readonly string[]>> = {
  getApiVersion: ['system'],
  getVcpuMmapSize: ['system'],
  checkExtension: ['system', 'vm'],
  createVm: ['system'],
  createIrqchip: ['vm'],
  createVcpu: ['vm'],
  getDirtyLog: ['vm'],
  resetDirtyRings: ['vm'],
  hasDeviceAttr: ['vm', 'vcpu'],
  getStatsFd: ['vm', 'vcpu'],
  readStats: ['stats'],
  vcpuRun: ['vcpu'],
  runArea: ['vcpu'],
  kick: ['vcpu'],
  vcpuToken: ['vcpu'],
  vcpuAnswerReads: ['vcpu'],
  setImmediateExit: ['vcpu'],
  getRegList: ['vcpu'],
  getMpState: ['vcpu'],
  memoryBuffer: ['memory'],
  eventFdRead: ['eventfd'],
  eventFdListen: ['eventfd'],
};

describeKvm("the addon's handles", () => {
  let native: Native;
  let call: Readonly<Record<string, AnyCall>>;
  beforeEach(() => {
    native = addon();
    call = native as unknown as Record<string, AnyCall>;
  });

  test('a handle of another kind is EBADF', () => {
    for (const [kind, value] of Object.entries(makeAll(native))) {
      for (const [name, kinds] of Object.entries(TAKES)) {
        if (!kinds.includes(kind)) expect([name, kind, call[name]!(value)]).toEqual([name, kind, -Errno.EBADF]);
      }
    }
  });

  // Not with an object whose prototype is a handle: V8 of Node 24 crashes at Object.create() of any external.
  test('what is no handle is EBADF, an external of somebody else too', () => {
    const { vm } = makeAll(native);
    const server = createServer().listen(0);
    const { _externalStream } = (server as unknown as { _handle: { _externalStream: unknown } })._handle;
    server.close();
    expect(types.isExternal(_externalStream)).toBe(true);
    const impostors = [
      _externalStream,
      undefined,
      null,
      0,
      1n,
      'vm',
      Symbol('vm'),
      {},
      [],
      () => {},
      new Proxy(vm, {}),
      { ...vm },
    ];
    for (const impostor of impostors) {
      for (const name of Object.keys(TAKES)) expect([name, call[name]!(impostor)]).toEqual([name, -Errno.EBADF]);
    }
    for (const name of Object.keys(TAKES)) expect([name, call[name]!()]).toEqual([name, -Errno.EBADF]);
  });

  test('a handle does not get to another thread', () => {
    const { port1, port2 } = new MessageChannel();
    for (const value of Object.values(makeAll(native))) {
      expect(() => port1.postMessage(value)).toThrow(expect.objectContaining({ name: 'DataCloneError' }));
    }
    port1.close();
    port2.close();
  });

  test('a handle of another instance of the addon is EBADF', () => {
    const { path } = createRequire(import.meta.url)('node-gyp-build') as { path(root: string): string };
    const module = { exports: {} as Native };
    process.dlopen(module, path(fileURLToPath(new URL('../../', import.meta.url))));
    const system = handle(native.openKvm('/dev/kvm'));
    expect(module.exports.getApiVersion(system)).toBe(-Errno.EBADF);
    expect(module.exports.close(system)).toBe(-Errno.EBADF);
    expect(native.getApiVersion(system)).toBe(12);
  });

  test('the receiver is of no consequence', () => {
    const { system, vm } = makeAll(native);
    for (const receiver of [undefined, null, 1, {}, vm]) {
      expect(call.getApiVersion!.call(receiver, system)).toBe(12);
    }
  });

  test('a closed handle is EBADF, and closes again', () => {
    const all = makeAll(native);
    for (const value of Object.values(all)) expect(native.close(value)).toBe(0);
    for (const [kind, value] of Object.entries(all)) {
      expect(native.close(value)).toBe(0);
      for (const [name, kinds] of Object.entries(TAKES)) {
        if (kinds.includes(kind)) expect([name, call[name]!(value)]).toEqual([name, -Errno.EBADF]);
      }
    }
  });

  test('a vCPU outlives its closed VM and system fd', () => {
    const { system, vm, vcpu } = makeAll(native);
    native.close(system);
    native.close(vm);
    expect(native.getMpState(vcpu as VcpuHandle)).toBeGreaterThanOrEqual(0);
    expect(typeof native.getStatsFd(vcpu as VcpuHandle)).toBe('object');
    expect(native.close(vcpu)).toBe(0);
  });

  test('a path that is none is refused', () => {
    expect(native.openKvm('')).toBe(-Errno.ENOENT);
    expect(native.openKvm('/nowhere/kvm')).toBe(-Errno.ENOENT);
    expect(native.openKvm('/dev/null')).toBe(-Errno.ENOTTY);
    expect(native.openKvm('/dev/kvm\0')).toBe(-Errno.EINVAL);
    expect(native.openKvm(`/${'x'.repeat(5000)}`)).toBe(-Errno.EINVAL);
    expect(call.openKvm!(7)).toBe(-Errno.EINVAL);
  });

  test('any arguments at all get an answer', () => {
    // Those that would take the machine's memory, or its time, are called with small numbers only, above.
    const names = Object.keys(native).filter((name) => name !== 'createMemory' && name !== 'createGuestMemfd');
    expect(names.length).toBeGreaterThan(50);
    const open = Object.values(makeAll(native));
    // The handles that each function takes; it is given one of them more often than not: beyond lie the checks that matter.
    const aimed = new Map(
      names.map((name) => [name, open.filter((h) => name !== 'close' && call[name]!(h) !== -Errno.EBADF)] as const),
    );
    const closed = Object.values(makeAll(native));
    for (const value of closed) native.close(value);
    const number = fc.oneof(
      fc.integer({ min: -2, max: 40 }),
      fc.integer(),
      fc.double(),
      fc.constantFrom(2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 53 - 1, 2 ** 53, -1),
    );
    const bytes = fc.constantFrom(0, 1, 4, 8, 16, 24, 32, 48, 64, 96, 144, 256, 312, 520, 1536, 4096, 5000);
    const argument = fc.oneof(
      { weight: 3, arbitrary: fc.constantFrom(...open) },
      fc.constantFrom(...closed),
      { weight: 4, arbitrary: number },
      fc.bigInt({ min: -1n, max: 1n << 64n }),
      fc.constantFrom(0n, 1n, 0x6030_0000_0010_0000n, 0xffff_ffff_ffff_ffffn),
      bytes.map((size) => new Uint8Array(size)),
      bytes.map((size) => new Uint8Array(new SharedArrayBuffer(size))),
      bytes.map((size) => new Float64Array(size)),
      bytes.map((size) => new ArrayBuffer(size)),
      fc.boolean(),
      fc.anything(),
    );
    fc.assert(
      fc.property(
        fc.constantFrom(...names),
        fc.array(argument, { maxLength: 8 }),
        fc.option(fc.nat(), { freq: 3 }),
        (name, args, aim) => {
          const handles = aimed.get(name)!;
          if (aim !== null && handles.length > 0) args[0] = handles[aim % handles.length]!;
          if (name === 'close' && open.includes(args[0] as Handle)) return;
          const result = call[name]!(...args);
          expect(['number', 'object']).toContain(typeof result);
          expect(result).not.toBe(null);
        },
      ),
      { numRuns: RUNS },
    );
    // And they are as they were.
    expect(native.getApiVersion(open[0] as never)).toBe(12);
  });
});
