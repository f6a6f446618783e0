import { describe, expect, test } from '@jest/globals';
import { PvtimeAttr, VcpuGroup } from '#lib/kvm/index.js';
import { openSoft } from '#lib/soft/index.js';
import { b, hvc, load, mov, store, WFI } from '../../contract/asm.ts';
import { DEVICE, makeVm, RAM, runToExit } from '../../contract/machine.ts';

const AT = RAM + 0x8000;
const NS_PER_MS = 1_000_000n;

describe('stolen time', () => {
  /** Two vCPUs, the first of which has asked for its stolen time and does `code`; the second spins. */
  function start(...code: number[]) {
    const machine = makeVm(openSoft({ clock: 'virtual' }), { vcpus: 2 });
    const { vcpus, memory, load: put } = machine;
    vcpus[0]!.setDeviceAttr(VcpuGroup.PVTIME_CTRL, PvtimeAttr.IPA, AT);
    put(RAM, mov(0, 0xc500_0021), hvc(), mov(9, DEVICE), store(4, 31, 9), code);
    put(RAM + 0x1000, b(0));
    expect(runToExit(vcpus[0]!)).toBe('write 0x9000000/4 0x0');
    vcpus[1]!.init(5, 4);
    vcpus[1]!.setOneReg(0x6030_0000_0010_0040n, BigInt(RAM + 0x1000));
    const stolen = (): bigint =>
      new DataView(memory.bytes.buffer, memory.bytes.byteOffset).getBigUint64(AT - RAM + 8, true);
    return { ...machine, stolen };
  }

  test('is what others had the thread for while the vCPU had something to execute', () => {
    const { vcpus, stolen } = start(b(0));
    // The exit was answered: nothing is stolen yet, however long that took.
    vcpus[1]!.run(3);
    vcpus[0]!.run(1);
    expect(stolen()).toBe(0n);
    vcpus[1]!.run(5);
    vcpus[1]!.run(5);
    vcpus[0]!.run(1);
    const first = stolen();
    expect(first / NS_PER_MS).toBeGreaterThanOrEqual(9n);
    expect(first / NS_PER_MS).toBeLessThanOrEqual(11n);
    vcpus[0]!.run(1);
    expect(stolen()).toBe(first);
  });

  test('counts from a wake-up, and not while the vCPU waits', () => {
    const { vm, vcpus, stolen } = start(WFI, ...mov(9, DEVICE), load(4, 2, 9));
    expect(vcpus[0]!.run(1)).toMatchObject({ reason: 'intr', idleMs: Number.POSITIVE_INFINITY });
    vcpus[1]!.run(7);
    vm.irqLine(0, true);
    vcpus[1]!.run(2);
    vcpus[0]!.run(1);
    expect(stolen() / NS_PER_MS).toBeGreaterThanOrEqual(1n);
    expect(stolen() / NS_PER_MS).toBeLessThanOrEqual(3n);
  });
});
