import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { Cap, type Kvm, MpState, Reg, type Vcpu } from '#lib/kvm/index.js';
import { b, hvc, load, loadSigned, mov, movr, smc, store, storePost, WFI } from './asm.ts';
import { backends, since, whereGicv3, whereInTurn, whereSignIsTold } from './backends.ts';
import { DEVICE, describeExit, errnoOf, makeVm, RAM, runInTurn, runToExit, type TestVm } from './machine.ts';

const PSCI = {
  VERSION: 0x84000000,
  CPU_OFF: 0x84000002,
  CPU_ON: 0xc4000003,
  AFFINITY_INFO: 0xc4000004,
  OFF: 0x84000008,
  RESET: 0x84000009,
  FEATURES: 0x8400000a,
  SUSPEND: 0xc400000e,
  RESET2: 0xc4000012,
  OFF2: 0xc4000015,
};
/** Code: calls a function with arguments from constants. */
const call = (fn: number, ...args: (number | bigint)[]): number[] => [
  ...args.flatMap((arg, i) => mov(i + 1, arg)),
  ...mov(0, fn),
  hvc(),
];
const powerOff = call(PSCI.OFF);

type Calls = readonly [number, ...(number | bigint)[]][];

/** What X0 has after each call, as a signed number in hex. */
function answersTo({ vcpu, load: put }: TestVm, calls: Calls): string[] {
  put(RAM, ...calls.flatMap(([fn, ...args]) => [...call(fn, ...args), ...mov(9, DEVICE), store(8, 0, 9)]), powerOff);
  return calls.map(() => {
    const exit = vcpu.run();
    if (exit.reason !== 'mmio') throw new Error(exit.reason);
    const answer = new DataView(exit.data.buffer, exit.data.byteOffset).getBigInt64(0, true);
    return answer.toString(16);
  });
}

/** Code that asks PSCI to stop the VM. */
function stops(kvm: Kvm, code: readonly number[], exit: string): void {
  const { vcpus, load: put } = makeVm(kvm, { vcpus: 2 });
  put(RAM, [...code]);
  expect(runToExit(vcpus[0]!)).toBe(exit);
  expect(vcpus.map((v) => v.getMpState())).toEqual([MpState.STOPPED, MpState.STOPPED]);
  expect(BigInt.asIntN(64, vcpus[0]!.getOneReg(Reg.x(0)))).toBe(-6n);
}

describe.each(backends)('vCPU on $name', (backend) => {
  const { open, inTurn } = backend;
  let kvm: Kvm;
  beforeEach(() => {
    kvm = open();
  });
  afterEach(() => kvm.close());

  test('MMIO: writes carry their value, reads take the answer with their width', () => {
    const { vcpu, load: put } = makeVm(kvm);
    const writes = [mov(2, 0x1122334455667788n), store(1, 2, 1, 3), store(2, 2, 1, 2), store(4, 2, 1), store(8, 2, 1)];
    const reads = [load(1, 7, 1), load(2, 4, 1), load(4, 5, 1), load(8, 6, 1)];
    put(RAM, mov(1, DEVICE), ...writes, ...reads, powerOff);
    const exits: string[] = [];
    for (let i = 0; i < 4; i++) exits.push(describeExit(vcpu.run()));
    expect(exits).toEqual([
      'write 0x9000003/1 0x88',
      'write 0x9000002/2 0x7788',
      'write 0x9000000/4 0x55667788',
      'write 0x9000000/8 0x1122334455667788',
    ]);
    for (let i = 0; i < 4; i++) {
      const exit = vcpu.run();
      if (exit.reason !== 'mmio') throw new Error(exit.reason);
      expect(exit.isWrite).toBe(false);
      exit.data.fill(0x80);
    }
    expect(describeExit(vcpu.run())).toBe('system_event 1 0');
    expect([7, 4, 5, 6].map((n) => vcpu.getOneReg(Reg.x(n)))).toEqual([
      0x80n,
      0x8080n,
      0x80808080n,
      0x8080808080808080n,
    ]);
  });

  whereSignIsTold(backend)('MMIO: a load that extends a sign extends that of the answer', () => {
    const { vcpu, load: put } = makeVm(kvm);
    put(RAM, mov(1, DEVICE), loadSigned(1, 4, 1), loadSigned(4, 5, 1), powerOff);
    for (let i = 0; i < 2; i++) {
      const exit = vcpu.run();
      if (exit.reason !== 'mmio') throw new Error(exit.reason);
      exit.data.fill(0x80);
    }
    expect(describeExit(vcpu.run())).toBe('system_event 1 0');
    expect([4, 5].map((n) => vcpu.getOneReg(Reg.x(n)))).toEqual([0xffffffffffffff80n, 0xffffffff80808080n]);
  });

  test('an MMIO read completes at the next run(), also with immediateExit', () => {
    const { vcpu, load: put } = makeVm(kvm);
    put(RAM, mov(1, DEVICE), load(4, 2, 1), powerOff);
    const exit = vcpu.run();
    if (exit.reason !== 'mmio') throw new Error(exit.reason);
    const pc = vcpu.getOneReg(Reg.PC);
    exit.data.set([1, 2, 3, 4]);
    vcpu.immediateExit = true;
    expect(vcpu.run().reason).toBe('intr');
    expect(vcpu.getOneReg(Reg.x(2))).toBe(0x04030201n);
    expect(vcpu.getOneReg(Reg.PC)).toBe(pc + 4n);
    vcpu.immediateExit = false;
    expect(runToExit(vcpu)).toBe('system_event 1 0');
  });

  test('an access without syndrome is ENOSYS, or an exit where the capability is on, and PC stays', () => {
    const { vm, vcpu, load: put } = makeVm(kvm);
    put(RAM, mov(3, DEVICE), storePost(4, 3), powerOff);
    expect(errnoOf(() => vcpu.run())).toBe('ENOSYS');
    vm.enableCap(Cap.ARM_NISV_TO_USER);
    // A translation fault of a store; at which level, the host's page size decides.
    const exit = vcpu.run();
    if (exit.reason !== 'arm_nisv') throw new Error(exit.reason);
    expect([exit.esrIss & ~3n, exit.faultIpa]).toEqual([0x44n, DEVICE]);
    vcpu.setOneReg(Reg.PC, vcpu.getOneReg(Reg.PC) + 4n);
    expect(runToExit(vcpu)).toBe('system_event 1 0');
  });

  test('an external abort can be injected in place of an answer', () => {
    const { vcpu, load: put } = makeVm(kvm);
    put(RAM, mov(1, DEVICE), mov(0, RAM + 0x800), 0xd518c000, load(4, 2, 1), powerOff);
    put(RAM + 0x800 + 0x200, mov(1, DEVICE + 8), store(4, 31, 1));
    expect(describeExit(vcpu.run())).toBe(`read 0x9000000/4`);
    vcpu.setVcpuEvents({ extDabtPending: true });
    expect(describeExit(vcpu.run())).toBe('write 0x9000008/4 0x0');
  });

  test('kick() ends this run() or the next one, once', () => {
    const { vcpu, load: put } = makeVm(kvm);
    put(RAM, b(0));
    vcpu.kick();
    expect(vcpu.run().reason).toBe('intr');
    expect(vcpu.run(1).reason).toBe('intr');
  });

  test('kick() ends run() whatever signals are blocked', () => {
    const { vcpu, load: put } = makeVm(kvm);
    put(RAM, b(0));
    vcpu.setSignalMask(2n ** 64n - 1n);
    vcpu.kick();
    expect(vcpu.run()).toMatchObject({ reason: 'intr', idleMs: undefined });
  });

  test('a quantum ends a guest that spins', () => {
    const { vcpu, load: put } = makeVm(kvm);
    put(RAM, b(0));
    expect(vcpu.run(2)).toMatchObject({ reason: 'intr', idleMs: undefined });
    expect(() => vcpu.run(-1)).toThrow(RangeError);
    expect(() => vcpu.run(Number.NaN)).toThrow(RangeError);
  });

  whereInTurn(backend)('WFI with nothing to come is idle for ever, until a kick', () => {
    const { vm, vcpu, load: put } = makeVm(kvm, { gic: true });
    put(RAM, WFI, powerOff);
    const woken: Vcpu[] = [];
    vm.onRunnable((v) => woken.push(v));
    expect(vcpu.run()).toMatchObject({ reason: 'intr', idleMs: Number.POSITIVE_INFINITY });
    vcpu.kick();
    vcpu.kick();
    expect(woken).toEqual([vcpu]);
    expect(vcpu.run()).toMatchObject({ reason: 'intr', idleMs: undefined });
    expect(vcpu.run()).toMatchObject({ reason: 'intr', idleMs: Number.POSITIVE_INFINITY });
  });

  test('PSCI: affinity, CPU_ON and functions that do not exist', () => {
    const calls: Calls = [
      [PSCI.FEATURES, PSCI.CPU_ON],
      [PSCI.FEATURES, PSCI.SUSPEND],
      [PSCI.FEATURES, 0x8400001f],
      [PSCI.AFFINITY_INFO, 0, 0],
      [PSCI.AFFINITY_INFO, 1, 0],
      [PSCI.AFFINITY_INFO, 2, 0],
      [PSCI.AFFINITY_INFO, 0, 1],
      [PSCI.AFFINITY_INFO, 0, 4],
      [PSCI.CPU_ON, 7, RAM, 0],
      [PSCI.CPU_ON, 0, RAM, 0],
      [PSCI.RESET2, 2],
      [0x84000006],
      [0x8400001e],
      [0xc400001e],
      [0x12345678],
    ];
    expect(answersTo(makeVm(kvm, { vcpus: 2 }), calls)).toEqual([
      '0',
      '-1',
      '-1',
      '0',
      '1',
      '-2',
      '0',
      '-2',
      '-2',
      '-4',
      '-2',
      '2',
      '-1',
      '-1',
      '-1',
    ]);
  });

  test('SMCCC: its version, and the workarounds that it knows', () => {
    const calls: Calls = [[0x80000000], [0x80000001, 0x8000ffff], [0x80000001, 0x80008000], [0x80000001, 0x80007fff]];
    const [version, unknown, ...workarounds] = answersTo(makeVm(kvm), calls);
    expect([version, unknown]).toEqual(['10001', '-1']);
    // Which ones it needs is the processor's.
    for (const answer of workarounds) expect(['-2', '-1', '0', '1']).toContain(answer);
    if (inTurn) expect(workarounds).toEqual(['1', '-2']);
  });

  since(backend, '6.14')('PSCI 1.3 has SYSTEM_OFF2', () => {
    const calls: Calls = [[PSCI.VERSION], [PSCI.FEATURES, PSCI.OFF2], [PSCI.OFF2, 2, 0]];
    expect(answersTo(makeVm(kvm), calls)).toEqual(['10003', '1', '-2']);
  });

  test.each([
    ['SYSTEM_OFF', call(PSCI.OFF), 'system_event 1 0'],
    ['SYSTEM_RESET', call(PSCI.RESET), 'system_event 2 0'],
    ['SYSTEM_RESET2', call(PSCI.RESET2, 0, 0), 'system_event 2 1'],
  ])('PSCI %s is an exit, and every vCPU stops', (_, code, expected) => stops(kvm, code, expected));

  since(backend, '6.14')('PSCI SYSTEM_OFF2 is an exit, and every vCPU stops', () =>
    stops(kvm, call(PSCI.OFF2, 1, 0), 'system_event 1 1'),
  );

  since(backend, '6.4')('PSCI SYSTEM_OFF by SMC is an exit, and every vCPU stops', () =>
    stops(kvm, [...mov(0, PSCI.OFF), smc()], 'system_event 1 0'),
  );

  test('PSCI CPU_SUSPEND waits for an interrupt, whatever state is asked for, and goes on behind the call', () => {
    const { vm, vcpu, load: put } = makeVm(kvm);
    const powerDown = 0x1_0000;
    const tell = [...mov(9, DEVICE), store(8, 0, 9), store(8, 5, 9)];
    const [wide, narrow] = [0xc4000001, 0x84000001].map((fn) => call(fn, powerDown, RAM, 7)) as [number[], number[]];
    put(RAM, mov(5, 0x55), wide, tell, narrow, tell);
    // A host's kernel waits inside KVM_RUN, and a signal ends the wait as an interrupt does.
    if (inTurn) expect(runToExit(vcpu)).toBe('idle for ever');
    vm.irqLine(0, true);
    // The second finds it pending.
    for (let n = 0; n < 2; n++) {
      expect(runToExit(vcpu)).toBe('write 0x9000000/8 0x0');
      expect(runToExit(vcpu)).toBe('write 0x9000000/8 0x55');
    }
  });

  test('PSCI SYSTEM_SUSPEND is an exit where the capability is on', () => {
    const { vm, vcpu, load: put } = makeVm(kvm);
    vm.enableCap(Cap.ARM_SYSTEM_SUSPEND);
    put(RAM, call(PSCI.SUSPEND, RAM, 0), powerOff);
    expect(runToExit(vcpu)).toBe('system_event 5');
    expect(runToExit(vcpu)).toBe('system_event 1 0');
  });

  test('PSCI CPU_ON starts a vCPU where it is told, reset, with its context; CPU_OFF stops it', () => {
    const test = makeVm(kvm, { vcpus: 2 });
    const { vm, vcpus, load: put } = test;
    put(
      RAM,
      call(PSCI.CPU_ON, 1, RAM + 0x400, 0xabcd),
      movr(10, 0),
      call(PSCI.CPU_ON, 1, RAM, 0),
      movr(11, 0),
      WFI,
      b(-1),
    );
    put(RAM + 0x400, mov(1, DEVICE), store(8, 0, 1), call(PSCI.CPU_OFF));
    vcpus[1]!.setOneReg(Reg.x(5), 5n);
    const woken: number[] = [];
    vm.onRunnable((v) => woken.push(v.id));
    expect([runToExit(vcpus[1]!), runToExit(vcpus[0]!)]).toEqual(['idle for ever', 'idle for ever']);
    if (inTurn) expect(woken).toEqual([1]);
    expect(runInTurn(test)).toBe('1: write 0x9000000/8 0xabcd');
    expect(vcpus[1]!.getOneReg(Reg.x(5))).toBe(0n);
    expect(vcpus[0]!.getOneReg(Reg.x(10))).toBe(0n);
    expect(BigInt.asIntN(64, vcpus[0]!.getOneReg(Reg.x(11)))).toBe(-4n);
    expect(runInTurn(test)).toBe('idle for ever');
    expect(vcpus[1]!.getMpState()).toBe(MpState.STOPPED);
  });

  since(backend, '6.4')('an SMCCC filter forwards and denies calls', () => {
    const { vm, vcpu, load: put } = makeVm(kvm);
    vm.setDeviceAttr(0, 0, filter(0xc3000000, 16, 2));
    vm.setDeviceAttr(0, 0, filter(PSCI.VERSION, 1, 1));
    put(RAM, call(0xc3000001), call(PSCI.VERSION), movr(9, 0), mov(0, 0xc300000f), smc(), powerOff);
    expect(describeExit(vcpu.run())).toBe('hypercall 0xc3000001');
    expect(vcpu.getOneReg(Reg.PC)).toBe(BigInt(RAM + 12));
    expect(describeExit(vcpu.run())).toBe('hypercall 0xc300000f smc');
    expect(BigInt.asIntN(64, vcpu.getOneReg(Reg.x(9)))).toBe(-1n);
    expect(runToExit(vcpu)).toBe('system_event 1 0');
  });

  test('a vCPU is reset by init(), keeping its id', () => {
    const { vcpu, load: put } = makeVm(kvm);
    put(RAM, mov(5, 5), powerOff);
    runToExit(vcpu);
    vcpu.init(5, 1 << 2);
    expect(vcpu.getMpState()).toBe(MpState.RUNNABLE);
    expect([Reg.x(5), Reg.PC, Reg.PSTATE].map((id) => vcpu.getOneReg(id))).toEqual([0n, 0n, 0x3c5n]);
  });

  test('an exit is completed after an init(), too', () => {
    const { vcpu, load: put } = makeVm(kvm);
    put(RAM, mov(1, DEVICE), load(4, 2, 1), powerOff);
    const exit = vcpu.run();
    if (exit.reason !== 'mmio') throw new Error(exit.reason);
    exit.data.set([1, 2, 3, 4]);
    vcpu.init(5, 1 << 2);
    vcpu.immediateExit = true;
    expect(vcpu.run().reason).toBe('intr');
    expect([Reg.x(1), Reg.x(2), Reg.PC].map((id) => vcpu.getOneReg(id))).toEqual([0n, 0x04030201n, 4n]);
  });

  test('a suspended vCPU exits with WAKEUP when an interrupt comes', () => {
    const { vm, vcpu } = makeVm(kvm);
    vcpu.setMpState(MpState.SUSPENDED);
    expect(runToExit(vcpu)).toBe('idle for ever');
    vm.irqLine(0, true);
    expect(runToExit(vcpu)).toBe('system_event 4');
  });

  whereGicv3(backend)('everything can be closed twice and in any order, and then is EBADF', () => {
    const { vm, vcpu, memory, gic, load: put } = makeVm(kvm, { gic: true });
    put(RAM, powerOff);
    vm.close();
    vm.close();
    memory.close();
    expect(runToExit(vcpu)).toBe('system_event 1 0');
    gic!.close();
    vcpu.close();
    vcpu.close();
    expect([vm.closed, vcpu.closed, gic!.closed, memory.closed]).toEqual([true, true, true, true]);
    expect([() => vm.createVcpu(3), () => vcpu.run(), () => gic!.hasDeviceAttr(0, 2)].map(errnoOf)).toEqual([
      'EBADF',
      'EBADF',
      'EBADF',
    ]);
  });
});

/** `struct kvm_smccc_filter`. */
function filter(base: number, functions: number, action: number): Uint8Array {
  const bytes = new Uint8Array(24);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, base, true);
  view.setUint32(4, functions, true);
  bytes[8] = action;
  return bytes;
}
