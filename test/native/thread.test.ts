import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import type { Handle, Native } from '#lib/host/native.js';
import { Errno } from '#lib/kvm/index.js';
import { addon, describeX64, handle } from './native.ts';
import { Exit, type Guest, HLT, loadAl, makeGuest, movAl, out, Run, SPIN, storeAl } from './x86.ts';

/** jmp to a storeAl() just before. */
const BACK_TO_STORE = [0xeb, 0xfb];

describeX64('a vCPU on its own thread', () => {
  let native: Native;
  const guests: Guest[] = [];
  /** The process must stay while only vCPUs run. */
  let hold: NodeJS.Timeout;
  beforeEach(() => {
    native = addon();
    hold = setInterval(() => {}, 1000);
  });
  afterEach(() => {
    clearInterval(hold);
    for (const { vcpu, vm } of guests.splice(0)) for (const each of [vcpu, vm]) native.close(each);
  });
  const guest = (...code: readonly number[][]): Guest => {
    const made = makeGuest(native, ...code);
    guests.push(made);
    return made;
  };
  /** Starts it, and resolves with `result` at the exit after which `take` says so. */
  const run = ({ vcpu }: Guest, take: (result: number) => boolean): Promise<number> =>
    new Promise((done, failed) => {
      const result = native.vcpuStart(vcpu, (result) => {
        if (take(result)) done(result);
      });
      if (result !== 0) failed(new Error(`vcpuStart: ${result}`));
    });
  const stopAt = (made: Guest, n: number): Promise<number> => {
    let left = n;
    return run(made, () => {
      if (--left > 0) return false;
      native.vcpuStop(made.vcpu);
      return true;
    });
  };

  test('exits come to the listener, and what it answers completes them', async () => {
    const made = guest(movAl(1), storeAl(), loadAl(4), storeAl(8), out(0x42), HLT);
    const seen: unknown[] = [];
    await run(made, () => {
      const reason = made.run.getUint32(Run.EXIT_REASON, true);
      if (reason === Exit.MMIO) {
        const isWrite = made.run.getUint8(Run.MMIO_IS_WRITE) === 1;
        seen.push(isWrite ? made.run.getUint8(Run.MMIO_DATA) : 'read');
        if (!isWrite) made.run.setUint8(Run.MMIO_DATA, 0x77);
      } else {
        seen.push(reason);
      }
      if (reason === Exit.HLT) native.vcpuStop(made.vcpu);
      return reason === Exit.HLT;
    });
    expect(seen).toEqual([1, 'read', 0x77, Exit.IO, Exit.HLT]);
  });

  test('the event loop turns while a guest spins, and while others exit', async () => {
    const spinning = guest(SPIN);
    const exiting = guest(storeAl(), BACK_TO_STORE);
    expect(native.vcpuStart(spinning.vcpu, () => {})).toBe(0);
    const exits = stopAt(exiting, 2000);
    for (let i = 0; i < 20; i++) await turn();
    expect(await exits).toBe(0);
    expect(native.vcpuStop(spinning.vcpu)).toBe(0);
  });

  test('a guest that waits in the kernel for an interrupt is stopped', async () => {
    const made = guest(HLT);
    // A second vCPU of a VM with an irqchip waits for INIT.
    const vm = handle(native.createVm(made.system, 0));
    expect(native.createIrqchip(vm)).toBe(0);
    handle(native.createVcpu(vm, 0));
    const waiting = handle(native.createVcpu(vm, 1));
    let exits = 0;
    expect(native.vcpuStart(waiting, () => void exits++)).toBe(0);
    await turn();
    expect(native.vcpuStop(waiting)).toBe(0);
    native.close(waiting);
    native.close(vm);
    expect(exits).toBe(0);
  });

  test('in the guest a vCPU takes only calls that never wait; stopped, all', async () => {
    const { vcpu } = guest(SPIN);
    const regs = new Uint8Array(144);
    expect(native.vcpuStart(vcpu, () => {})).toBe(0);
    expect(native.vcpuStart(vcpu, () => {})).toBe(-Errno.EBUSY);
    expect(native.vcpuRun(vcpu, 1000)).toBe(-Errno.EBUSY);
    expect(native.getRegs?.(vcpu, regs)).toBe(-Errno.EBUSY);
    expect(native.setSignalMask(vcpu, 0n)).toBe(-Errno.EBUSY);
    expect(native.hasDeviceAttr(vcpu, 0, 0n)).toBe(-Errno.EBUSY);
    expect(native.getStatsFd(vcpu)).toBe(-Errno.EBUSY);
    expect(native.vcpuToken(vcpu)).toBeGreaterThan(0);
    expect(native.setImmediateExit(vcpu, false)).toBe(0);
    expect(native.vcpuStop(vcpu)).toBe(0);
    expect(native.vcpuStop(vcpu)).toBe(0);
    expect(native.getRegs?.(vcpu, regs)).toBe(0);
    // And it runs on this thread again.
    expect(native.vcpuRun(vcpu, 1_000_000)).toBe(1);
  });

  test('in its listener a vCPU takes every call', async () => {
    const made = guest(movAl(0x5a), storeAl(), movAl(0), HLT);
    const regs = new Uint8Array(144);
    const results: (number | undefined)[] = [];
    await run(made, () => {
      results.push(native.getRegs?.(made.vcpu, regs), regs[0], native.vcpuRun(made.vcpu, 1000));
      native.vcpuStop(made.vcpu);
      return true;
    });
    expect(results).toEqual([0, 0x5a, -Errno.EBUSY]);
  });

  test('a kick is told, and the guest goes on', async () => {
    const made = guest(SPIN);
    let kicks = 0;
    const told = run(made, (result) => {
      expect(result).toBe(-Errno.EINTR);
      if (++kicks < 5) native.kick(made.vcpu);
      return kicks === 5;
    });
    native.kick(made.vcpu);
    await told;
    expect(native.vcpuStop(made.vcpu)).toBe(0);
  });

  test('stopped and started at any moment, no exit is lost and none is told twice', async () => {
    // al counts up, and every value is stored.
    const made = guest([0xfe, 0xc0], storeAl(), [0xeb, 0xf9]);
    const seen: number[] = [];
    const listener = (): void => {
      if (made.run.getUint32(Run.EXIT_REASON, true) === Exit.MMIO) seen.push(made.run.getUint8(Run.MMIO_DATA));
      if (seen.length % 7 === 0) {
        native.vcpuStop(made.vcpu);
        if (seen.length % 2 === 0) native.vcpuStart(made.vcpu, listener);
      }
    };
    for (let i = 0; seen.length < 500; i++) {
      expect(native.vcpuStart(made.vcpu, listener)).toBe(0);
      if (i % 3 === 0) await sleep(1);
      else if (i % 3 === 1) await turn();
      native.vcpuStop(made.vcpu);
    }
    expect(seen).toEqual(seen.map((_, i) => (i + 1) & 0xff));
  });

  test('a vCPU and its VM are closed by its own listener', async () => {
    const made = guest(storeAl(), BACK_TO_STORE);
    await run(made, () => {
      expect(native.close(made.vcpu)).toBe(0);
      expect(native.close(made.vm)).toBe(0);
      return true;
    });
    expect(native.vcpuStart(made.vcpu, () => {})).toBe(-Errno.EBADF);
  });

  test('a vCPU is closed while its guest spins', () => {
    const made = guest(SPIN);
    expect(native.vcpuStart(made.vcpu, () => {})).toBe(0);
    expect(native.close(made.vcpu)).toBe(0);
  });

  test('several at once', async () => {
    const many = Array.from({ length: 6 }, () => guest(storeAl(), BACK_TO_STORE));
    expect(await Promise.all(many.map((each, i) => stopAt(each, 50 * (i + 1))))).toEqual(many.map(() => 0));
  });

  test('only a vCPU is started, and only a function listens', () => {
    const { vcpu, vm } = guest(SPIN);
    expect(native.vcpuStart(vm as Handle as never, () => {})).toBe(-Errno.EBADF);
    for (const listener of [undefined, null, {}, 1]) {
      expect(native.vcpuStart(vcpu, listener as never)).toBe(-Errno.EINVAL);
    }
    expect(native.vcpuStop(vcpu)).toBe(0);
  });
});
