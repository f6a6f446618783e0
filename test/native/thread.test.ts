import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import type { Handle, Native } from '#lib/host/native.js';
import { Errno } from '#lib/kvm/index.js';
import { EXIT_MMIO, type Guest, isa, loop, makeGuest, Run } from './guest.ts';
import { addon, describeKvm, handle } from './native.ts';

const { movA, storeA, loadA, halt, spin } = isa;

describeKvm('a vCPU on its own thread', () => {
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
    const made = guest(movA(1), storeA(), loadA(4), storeA(8), halt);
    const seen: unknown[] = [];
    await run(made, () => {
      const reason = made.run.getUint32(Run.EXIT_REASON, true);
      if (reason === EXIT_MMIO) {
        const isWrite = made.run.getUint8(Run.MMIO_IS_WRITE) === 1;
        seen.push(isWrite ? made.run.getUint8(Run.MMIO_DATA) : 'read');
        if (!isWrite) made.run.setUint8(Run.MMIO_DATA, 0x77);
      } else {
        seen.push(reason);
      }
      if (reason === isa.haltExit) native.vcpuStop(made.vcpu);
      return reason === isa.haltExit;
    });
    expect(seen).toEqual([1, 'read', 0x77, isa.haltExit]);
  });

  test('reads of a register that is answered are no exits, until it is another, or none', async () => {
    // Reads the register, tells what it read elsewhere.
    const made = guest(loop(loadA(4), storeA(8)));
    const register = isa.device + 4;
    const seen: (number | string)[] = [];
    const answer = (value: number | undefined): number => native.vcpuAnswerReads(made.vcpu, register, value);
    expect(answer(0x1234_5678)).toBe(0);
    await run(made, () => {
      const isWrite = made.run.getUint8(Run.MMIO_IS_WRITE) === 1;
      if (isWrite) {
        seen.push(made.run.getUint8(Run.MMIO_DATA));
        if (seen.length === 2) expect(answer(0xff00)).toBe(0);
        if (seen.length === 4) expect(answer(undefined)).toBe(0);
      } else {
        seen.push(`read of ${made.run.getUint32(Run.MMIO_LEN, true)}`);
        made.run.setUint8(Run.MMIO_DATA, 0x99);
      }
      if (seen.length < 8) return false;
      native.vcpuStop(made.vcpu);
      return true;
    });
    expect(seen).toEqual([0x78, 0x78, 0, 0, 'read of 1', 0x99, 'read of 1', 0x99]);
  });

  test('only reads of that register are answered, and a guest that does nothing else is stopped', async () => {
    const other = guest(storeA(4), loadA(8), halt);
    expect(native.vcpuAnswerReads(other.vcpu, isa.device + 4, 1)).toBe(0);
    const seen: unknown[] = [];
    await run(other, () => {
      const reason = other.run.getUint32(Run.EXIT_REASON, true);
      const at = other.run.getUint32(Run.MMIO_ADDR, true) - isa.device;
      seen.push(reason === EXIT_MMIO ? [other.run.getUint8(Run.MMIO_IS_WRITE), at] : reason);
      if (reason === isa.haltExit) native.vcpuStop(other.vcpu);
      return reason === isa.haltExit;
    });
    expect(seen).toEqual([[1, 4], [0, 8], isa.haltExit]);

    const polling = guest(loop(loadA(4)));
    let exits = 0;
    expect(native.vcpuAnswerReads(polling.vcpu, isa.device + 4, 1)).toBe(0);
    expect(native.vcpuStart(polling.vcpu, () => void exits++)).toBe(0);
    for (let i = 0; i < 20; i++) await turn();
    expect(native.vcpuStop(polling.vcpu)).toBe(0);
    expect(exits).toBe(0);
    expect(isa.readA(native, polling.vcpu)).toBeGreaterThanOrEqual(0);
  });

  test('what is no register and no value is EINVAL', () => {
    const { vcpu } = guest(halt);
    for (const [address, value] of [
      [-1, 0],
      [0.5, 0],
      [2 ** 53, 0],
      [0, -1],
      [0, 2 ** 32],
      [0, 0.5],
    ] as const) {
      expect([address, value, native.vcpuAnswerReads(vcpu, address, value)]).toEqual([address, value, -Errno.EINVAL]);
    }
  });

  test('the event loop turns while a guest spins, and while others exit', async () => {
    const spinning = guest(spin);
    const exiting = guest(loop(storeA()));
    expect(native.vcpuStart(spinning.vcpu, () => {})).toBe(0);
    const exits = stopAt(exiting, 2000);
    for (let i = 0; i < 20; i++) await turn();
    expect(await exits).toBe(0);
    expect(native.vcpuStop(spinning.vcpu)).toBe(0);
  });

  test('a guest that waits in the kernel for an interrupt is stopped', async () => {
    const vm = handle(native.createVm(handle(native.openKvm('/dev/kvm')), 0));
    const waiting = isa.addWaiting(native, vm);
    let exits = 0;
    expect(native.vcpuStart(waiting, () => void exits++)).toBe(0);
    await turn();
    expect(native.vcpuStop(waiting)).toBe(0);
    native.close(waiting);
    native.close(vm);
    expect(exits).toBe(0);
  });

  test('in the guest a vCPU takes only calls that never wait; stopped, all', async () => {
    const { vcpu } = guest(spin);
    expect(native.vcpuStart(vcpu, () => {})).toBe(0);
    expect(native.vcpuStart(vcpu, () => {})).toBe(-Errno.EBUSY);
    expect(native.vcpuRun(vcpu, 1000)).toBe(-Errno.EBUSY);
    expect(isa.readA(native, vcpu)).toBe(-Errno.EBUSY);
    expect(native.setSignalMask(vcpu, 0n)).toBe(-Errno.EBUSY);
    expect(native.hasDeviceAttr(vcpu, 0, 0n)).toBe(-Errno.EBUSY);
    expect(native.getStatsFd(vcpu)).toBe(-Errno.EBUSY);
    expect(native.vcpuToken(vcpu)).toBeGreaterThan(0);
    expect(native.setImmediateExit(vcpu, false)).toBe(0);
    expect(native.vcpuStop(vcpu)).toBe(0);
    expect(native.vcpuStop(vcpu)).toBe(0);
    expect(isa.readA(native, vcpu)).toBeGreaterThanOrEqual(0);
    // And it runs on this thread again.
    expect(native.vcpuRun(vcpu, 1_000_000)).toBe(1);
  });

  test('in its listener a vCPU takes every call', async () => {
    const made = guest(movA(0x5a), storeA(), movA(0), halt);
    const results: number[] = [];
    await run(made, () => {
      results.push(isa.readA(native, made.vcpu), native.vcpuRun(made.vcpu, 1000));
      native.vcpuStop(made.vcpu);
      return true;
    });
    expect(results).toEqual([0x5a, -Errno.EBUSY]);
  });

  test('a kick is told, and the guest goes on', async () => {
    const made = guest(spin);
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
    // A counts up, and every value is stored.
    const made = guest(loop(isa.countA, storeA()));
    const seen: number[] = [];
    const listener = (): void => {
      if (made.run.getUint32(Run.EXIT_REASON, true) === EXIT_MMIO) seen.push(made.run.getUint8(Run.MMIO_DATA));
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
    const made = guest(loop(storeA()));
    await run(made, () => {
      expect(native.close(made.vcpu)).toBe(0);
      expect(native.close(made.vm)).toBe(0);
      return true;
    });
    expect(native.vcpuStart(made.vcpu, () => {})).toBe(-Errno.EBADF);
  });

  test('a vCPU is closed while its guest spins', () => {
    const made = guest(spin);
    expect(native.vcpuStart(made.vcpu, () => {})).toBe(0);
    expect(native.close(made.vcpu)).toBe(0);
  });

  test('several at once', async () => {
    const many = Array.from({ length: 6 }, () => guest(loop(storeA())));
    expect(await Promise.all(many.map((each, i) => stopAt(each, 50 * (i + 1))))).toEqual(many.map(() => 0));
  });

  test('only a vCPU is started, and only a function listens', () => {
    const { vcpu, vm } = guest(spin);
    expect(native.vcpuStart(vm as Handle as never, () => {})).toBe(-Errno.EBADF);
    for (const listener of [undefined, null, {}, 1]) {
      expect(native.vcpuStart(vcpu, listener as never)).toBe(-Errno.EINVAL);
    }
    expect(native.vcpuStop(vcpu)).toBe(0);
  });
});
