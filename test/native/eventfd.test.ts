import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import type { EventFdHandle, Native } from '#lib/host/native.js';
import { Errno, IoeventfdFlag } from '#lib/kvm/index.js';
import { isa, makeGuest, Run, runToExit } from './guest.ts';
import { addon, describeKvm, handle } from './native.ts';

describeKvm('eventfd through the addon', () => {
  let native: Native;
  let fd: EventFdHandle;
  beforeEach(() => {
    native = addon();
    fd = handle(native.createEventFd());
  });
  afterEach(() => void native.close(fd));

  const nextCount = (): Promise<number> => new Promise((done) => void native.eventFdListen(fd, done));

  test('it counts, and a read takes the count', () => {
    expect(native.eventFdRead(fd)).toBe(0);
    expect(native.eventFdSignal(fd, 1)).toBe(0);
    expect(native.eventFdSignal(fd, 41)).toBe(0);
    expect(native.eventFdRead(fd)).toBe(42);
    expect(native.eventFdRead(fd)).toBe(0);
    for (const n of [0, -1, 1.5, 2 ** 53]) expect(native.eventFdSignal(fd, n)).toBe(-Errno.EINVAL);
  });

  test('a counter that is full refuses', () => {
    for (let i = 0; i < 2048; i++) native.eventFdSignal(fd, Number.MAX_SAFE_INTEGER);
    expect(native.eventFdSignal(fd, Number.MAX_SAFE_INTEGER)).toBe(-Errno.EAGAIN);
  });

  test('the event loop calls the listener with the count taken, also for signals from before', async () => {
    native.eventFdSignal(fd, 3);
    const first = nextCount();
    native.eventFdSignal(fd, 4);
    // What else happens in the loop must not depend on the listener.
    await sleep(1);
    expect(await first).toBe(7);
    expect(native.eventFdRead(fd)).toBe(0);
    const second = nextCount();
    native.eventFdSignal(fd, 1);
    await sleep(1);
    expect(await second).toBe(1);
  });

  test('without its listener, or closed by it, it is quiet', async () => {
    let calls = 0;
    native.eventFdListen(fd, () => void calls++);
    native.eventFdListen(fd, undefined);
    native.eventFdSignal(fd, 5);
    await sleep(5);
    expect(calls).toBe(0);
    expect(native.eventFdRead(fd)).toBe(5);
    native.eventFdListen(fd, () => {
      calls++;
      native.close(fd);
    });
    native.eventFdSignal(fd, 1);
    await sleep(5);
    expect(calls).toBe(1);
    expect(native.eventFdSignal(fd, 1)).toBe(-Errno.EBADF);
    expect(native.eventFdListen(fd, () => {})).toBe(-Errno.EBADF);
  });

  test('only a function listens', () => {
    for (const listener of [null, 1, 'x', {}]) {
      expect(native.eventFdListen(fd, listener as never)).toBe(-Errno.EINVAL);
    }
  });
});

describeKvm('ioeventfd through the addon', () => {
  test('a write that it matches signals and does not exit', async () => {
    const native = addon();
    const { movA, storeA } = isa;
    const { vm, vcpu, run } = makeGuest(native, movA(0x33), storeA(), movA(0x34), storeA(), isa.halt);
    const fd = handle(native.createEventFd());
    expect(native.ioeventfd(vm, fd, isa.device, 1, IoeventfdFlag.DATAMATCH, 0x33n)).toBe(0);
    const heard = new Promise<number>((done) => void native.eventFdListen(fd, done));
    expect(runToExit(native, vcpu)).toBe(0);
    expect(run.getUint8(Run.MMIO_DATA)).toBe(0x34);
    await sleep(1);
    expect(await heard).toBe(1);
    native.close(fd);
  });
});
