import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { beforeEach, expect, test } from '@jest/globals';
import type { Native } from '#lib/host/native.js';
import { Errno } from '#lib/kvm/index.js';
import { EXIT_MMIO, isa, loop, makeGuest, Run, runToExit } from './guest.ts';
import { addon, describeKvm, describeX64, handle } from './native.ts';
import { Io, out } from './x86.ts';

const SECOND = 1_000_000_000;
const TIME_OVER = 1;
/** Fewer in the emulated machine of the arm64 host lane, where making a VM takes long. */
const VMS = process.env.ELVISOR_ARM64_HOST === undefined ? 1000 : 100;

const { movA, movWord, storeA, loadA, storeWord, halt, spin } = isa;

describeKvm('KVM_RUN through the addon', () => {
  let native: Native;
  beforeEach(() => {
    native = addon();
  });

  test('exits are in kvm_run, and an MMIO read takes what is put there', () => {
    const { vcpu, run } = makeGuest(native, movWord(0x11223344), storeWord, loadA(4), storeA(8), halt);
    expect(runToExit(native, vcpu)).toBe(0);
    expect(run.getUint32(Run.EXIT_REASON, true)).toBe(EXIT_MMIO);
    expect(run.getBigUint64(Run.MMIO_ADDR, true)).toBe(BigInt(isa.device));
    expect(run.getUint32(Run.MMIO_LEN, true)).toBe(4);
    expect(run.getUint8(Run.MMIO_IS_WRITE)).toBe(1);
    expect(run.getUint32(Run.MMIO_DATA, true)).toBe(0x11223344);
    expect(runToExit(native, vcpu)).toBe(0);
    expect(run.getUint8(Run.MMIO_IS_WRITE)).toBe(0);
    run.setUint8(Run.MMIO_DATA, 0x77);
    expect(runToExit(native, vcpu)).toBe(0);
    expect(run.getBigUint64(Run.MMIO_ADDR, true)).toBe(BigInt(isa.device + 8));
    expect(run.getUint8(Run.MMIO_DATA)).toBe(0x77);
    expect(runToExit(native, vcpu)).toBe(0);
    expect(run.getUint32(Run.EXIT_REASON, true)).toBe(isa.haltExit);
  });

  test('a guest that never exits comes back when its time is over, and goes on', () => {
    const { vcpu, run } = makeGuest(native, spin, movA(1), storeA());
    expect(native.vcpuRun(vcpu, 0)).toBe(TIME_OVER);
    expect(native.vcpuRun(vcpu, 2_000_000)).toBe(TIME_OVER);
    // More than a heartbeat is never granted.
    expect(native.vcpuRun(vcpu, 3600 * SECOND)).toBe(TIME_OVER);
    // A later deadline than the timer that is set, and then an earlier one.
    expect(native.vcpuRun(vcpu, 10_000_000)).toBe(TIME_OVER);
    expect(native.vcpuRun(vcpu, 1_000_000)).toBe(TIME_OVER);
    expect(isa.leaveSpin(native, vcpu)).toBe(0);
    expect(runToExit(native, vcpu)).toBe(0);
    expect(run.getUint32(Run.EXIT_REASON, true)).toBe(EXIT_MMIO);
  });

  test('a kick before KVM_RUN ends one, and only one', () => {
    const { vcpu } = makeGuest(native, spin);
    expect(native.kick(vcpu)).toBe(0);
    expect(native.kick(vcpu)).toBe(0);
    expect(native.vcpuRun(vcpu, SECOND)).toBe(-Errno.EINTR);
    expect(native.vcpuRun(vcpu, 1_000_000)).toBe(TIME_OVER);
  });

  test('with immediate exit KVM_RUN only completes what is left over', () => {
    const { vcpu, run } = makeGuest(native, loadA(), storeA(), halt);
    expect(runToExit(native, vcpu)).toBe(0);
    run.setUint8(Run.MMIO_DATA, 0x99);
    expect(native.setImmediateExit(vcpu, true)).toBe(0);
    for (let i = 0; i < 3; i++) expect(native.vcpuRun(vcpu, SECOND)).toBe(-Errno.EINTR);
    expect(isa.readA(native, vcpu)).toBe(0x99);
    expect(native.setImmediateExit(vcpu, false)).toBe(0);
    expect(runToExit(native, vcpu)).toBe(0);
    expect(run.getUint8(Run.MMIO_IS_WRITE)).toBe(1);
  });

  test('a mask that blocks every signal does not keep a vCPU from being stopped', () => {
    const { vcpu } = makeGuest(native, spin);
    expect(native.setSignalMask(vcpu, 0xffff_ffff_ffff_ffffn)).toBe(0);
    expect(native.vcpuRun(vcpu, 5_000_000)).toBe(TIME_OVER);
    expect(native.setSignalMask(vcpu, undefined)).toBe(0);
    expect(native.vcpuRun(vcpu, 5_000_000)).toBe(TIME_OVER);
  });

  test('the timer that ends KVM_RUN ends no other call', () => {
    // Where the guest exits before, it stays set, and comes in one of the calls that follow.
    const { system, vcpu } = makeGuest(native, loop(storeA()));
    for (let i = 0; i < VMS; i++) {
      expect(runToExit(native, vcpu)).toBe(0);
      native.close(handle(native.createVm(system, 0)));
    }
  });

  test('several vCPUs run in turn on one thread', () => {
    const guests = [makeGuest(native, spin), makeGuest(native, spin), makeGuest(native, spin)];
    for (let i = 0; i < 5; i++) {
      for (const { vcpu } of guests) expect(native.vcpuRun(vcpu, 1_000_000)).toBe(TIME_OVER);
    }
    native.kick(guests[1]!.vcpu);
    expect(guests.map(({ vcpu }) => native.vcpuRun(vcpu, 1_000_000))).toEqual([TIME_OVER, -Errno.EINTR, TIME_OVER]);
  });

  test('a kick from another thread ends KVM_RUN, again and again', async () => {
    const worker = new Worker(new URL('./spin-worker.mjs', import.meta.url), { workerData: { until: 'kicked' } });
    const messages: unknown[] = [];
    try {
      for (let i = 0; i < 20; i++) {
        const [token] = (await once(worker, 'message')) as [number];
        await new Promise((done) => setTimeout(done, i % 3));
        expect(native.kickToken(token)).toBe(0);
        messages.push((await once(worker, 'message'))[0]);
      }
      expect(new Set(messages)).toEqual(new Set(['intr']));
    } finally {
      await worker.terminate();
    }
  });

  test('the token of a closed vCPU kicks nothing', () => {
    const { vcpu } = makeGuest(native, spin);
    const token = native.vcpuToken(vcpu);
    expect(native.kickToken(token)).toBe(0);
    native.close(vcpu);
    expect(native.kickToken(token)).toBe(-3);
    expect(native.vcpuRun(vcpu, SECOND)).toBe(-Errno.EBADF);
  });

  test('a Worker is terminated while its guest spins', async () => {
    const worker = new Worker(new URL('./spin-worker.mjs', import.meta.url), { workerData: { until: 'terminated' } });
    const [token] = (await once(worker, 'message')) as [number];
    expect(await worker.terminate()).toBe(1);
    // Its environment has closed what it had.
    expect(native.kickToken(token)).toBe(-3);
  });
});

describeX64('what only x86 has, through the addon', () => {
  test('registers are read and written', () => {
    const native = addon();
    const { vcpu, run } = makeGuest(native, storeA(), halt);
    const regs = new Uint8Array(144);
    expect(native.getRegs?.(vcpu, regs)).toBe(0);
    expect(new DataView(regs.buffer).getBigUint64(128, true)).toBe(0xfff0n);
    regs[0] = 0x5a;
    expect(native.setRegs?.(vcpu, regs)).toBe(0);
    const sregs = new Uint8Array(312);
    expect(native.getSregs?.(vcpu, sregs)).toBe(0);
    expect(new DataView(sregs.buffer).getBigUint64(0, true)).toBe(0xffff_0000n);
    expect(native.setSregs?.(vcpu, sregs)).toBe(0);
    expect(runToExit(native, vcpu)).toBe(0);
    expect(run.getUint8(Run.MMIO_DATA)).toBe(0x5a);
    expect(native.getRegs?.(vcpu, new Uint8Array(143))).toBe(-Errno.EINVAL);
  });

  test('port I/O', () => {
    const native = addon();
    const { vcpu, run } = makeGuest(native, movA(0x77), out(0x42), halt);
    expect(runToExit(native, vcpu)).toBe(0);
    expect(run.getUint32(Run.EXIT_REASON, true)).toBe(Io.EXIT);
    expect(run.getUint8(Number(run.getBigUint64(Io.DATA_OFFSET, true)))).toBe(0x77);
    expect(runToExit(native, vcpu)).toBe(0);
    expect(run.getUint32(Run.EXIT_REASON, true)).toBe(isa.haltExit);
  });
});
