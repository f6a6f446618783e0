import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import {
  DeviceType,
  type Kvm,
  MpState,
  Reg,
  TARGET_GENERIC_V8,
  TimerAttr,
  type Vcpu,
  VcpuGroup,
  VgicAddr,
  VgicCtrl,
  VgicGroup,
} from '#lib/kvm/index.js';
import { addImm, b, hvc, mov, store } from './asm.ts';
import { backends, onSoftOnly, since, whereGicv3 } from './backends.ts';
import { DEVICE, errnoOf, makeVm, RAM, runToExit, Sysreg } from './machine.ts';

/** The vCPU calls whose answer depends on its state, with what they answer: before KVM_ARM_VCPU_INIT, and after it. */
const CALLS: readonly (readonly [string, (vcpu: Vcpu) => unknown, string, string])[] = [
  ['KVM_RUN', (v) => v.run(0), 'ENOEXEC', 'OK'],
  ['KVM_GET_REG_LIST', (v) => v.getRegList(), 'ENOEXEC', 'OK'],
  ['KVM_GET_ONE_REG', (v) => v.getOneReg(Reg.PC), 'ENOEXEC', 'OK'],
  ['KVM_GET_ONE_REG of none', (v) => v.getOneReg(0n), 'ENOEXEC', 'EINVAL'],
  ['KVM_SET_ONE_REG', (v) => v.setOneReg(Reg.PC, BigInt(RAM)), 'ENOEXEC', 'OK'],
  ['KVM_ARM_VCPU_FINALIZE', (v) => v.finalize(4), 'ENOEXEC', 'EINVAL'],
  ['KVM_GET_VCPU_EVENTS', (v) => v.getVcpuEvents(), 'ENOEXEC', 'OK'],
  ['KVM_SET_VCPU_EVENTS', (v) => v.setVcpuEvents({}), 'ENOEXEC', 'OK'],
  ['KVM_GET_MP_STATE', (v) => v.getMpState(), 'OK', 'OK'],
  ['KVM_SET_MP_STATE', (v) => v.setMpState(MpState.RUNNABLE), 'OK', 'OK'],
  ['KVM_SET_MP_STATE of none', (v) => v.setMpState(1 as 0), 'EINVAL', 'EINVAL'],
  ['KVM_SET_SIGNAL_MASK', (v) => v.setSignalMask(2n ** 64n - 1n), 'OK', 'OK'],
  ['KVM_SET_SIGNAL_MASK of none', (v) => v.setSignalMask(undefined), 'OK', 'OK'],
  ['KVM_SET_GUEST_DEBUG', (v) => v.setGuestDebug({ control: 0 }), 'OK', 'OK'],
  ['KVM_HAS_DEVICE_ATTR', (v) => v.hasDeviceAttr(VcpuGroup.TIMER_CTRL, TimerAttr.VTIMER), 'OK', 'OK'],
  ['KVM_GET_DEVICE_ATTR', (v) => v.getDeviceAttr(VcpuGroup.TIMER_CTRL, TimerAttr.VTIMER), 'OK', 'OK'],
  ['KVM_SET_DEVICE_ATTR of none', (v) => v.setDeviceAttr(99, 0, 0), 'ENXIO', 'ENXIO'],
];
/** What {@link CALLS} leaves out because it changes the state. */
const init = (vcpu: Vcpu): void => vcpu.init(TARGET_GENERIC_V8, 4);

describe.each(backends)('every vCPU call in every state on $name', (backend) => {
  const { open } = backend;
  let kvm: Kvm;
  beforeEach(() => {
    kvm = open();
  });
  afterEach(() => kvm.close());

  const answers = (vcpu: Vcpu): [string, string][] => CALLS.map(([name, call]) => [name, errnoOf(() => call(vcpu))]);

  test('not initialised', () => {
    const vcpu = kvm.createVm().createVcpu(0);
    // Older kernels have it from some stable release on ("KVM: arm64: Prevent access to vCPU events before init").
    const [major, minor] = backend.linux;
    const asked = (name: string): boolean => major > 7 || (major === 7 && minor >= 3) || !name.endsWith('_VCPU_EVENTS');
    const expected = CALLS.map(([name, , before]) => [name, before] as const);
    expect(answers(vcpu).filter(([name]) => asked(name))).toEqual(expected.filter(([name]) => asked(name)));
  });

  test('initialised, run, powered off, and reset again', () => {
    const after = CALLS.map(([name, , , answer]) => [name, answer]);
    const { vcpu, load: put } = makeVm(kvm);
    put(RAM, mov(0, 0x8400_0008), hvc(), b(0));
    expect(answers(vcpu)).toEqual(after);
    expect(runToExit(vcpu)).toBe('system_event 1 0');
    expect(vcpu.getMpState()).toBe(MpState.STOPPED);
    vcpu.setMpState(MpState.RUNNABLE);
    expect(answers(vcpu)).toEqual(after);
    init(vcpu);
    expect(answers(vcpu)).toEqual(after);
    expect(errnoOf(() => vcpu.init(TARGET_GENERIC_V8, 0))).toBe('EINVAL');
  });

  whereGicv3(backend)('of a VM that is dead, for good', () => {
    const { vm, vcpu, load: put } = makeVm(kvm);
    put(RAM, b(0));
    vm.createDevice(7);
    expect(errnoOf(() => vcpu.run(0))).toBe('ENXIO');
    for (let i = 0; i < 2; i++) {
      expect(answers(vcpu)).toEqual(CALLS.map(([name]) => [name, 'EIO']));
      expect(errnoOf(() => init(vcpu))).toBe('EIO');
      expect(errnoOf(() => vm.createVcpu(1))).toBe('EIO');
      expect(errnoOf(() => vm.checkExtension(0))).toBe('EIO');
    }
  });

  whereGicv3(backend)('with two timers on one PPI', () => {
    const { vcpu, load: put } = makeVm(kvm, { gic: true });
    put(RAM, b(0));
    vcpu.setDeviceAttr(VcpuGroup.TIMER_CTRL, TimerAttr.VTIMER, 30);
    expect(errnoOf(() => vcpu.run(0))).toBe('EINVAL');
    expect(errnoOf(() => vcpu.getMpState())).toBe('OK');
  });

  test('closed', () => {
    const { vcpu } = makeVm(kvm);
    vcpu.close();
    expect(answers(vcpu)).toEqual(CALLS.map(([name]) => [name, 'EBADF']));
    expect(errnoOf(() => init(vcpu))).toBe('EBADF');
  });

  test('waiting to be started by PSCI: what is set then is set after the reset', () => {
    const { vcpus, load: put } = makeVm(kvm, { vcpus: 2 });
    const [one, two] = vcpus as [Vcpu, Vcpu];
    put(RAM, mov(1, 1), mov(2, RAM + 0x100), mov(3, 77), mov(0, 0xc400_0003), hvc(), mov(0, 0x8400_0008), hvc());
    put(RAM + 0x100, b(0));
    two.setOneReg(Reg.x(5), 5n);
    expect(runToExit(one)).toBe('system_event 1 0');
    // The reset that CPU_ON asked for comes before the look at the registers, and the change stays.
    expect([Reg.x(0), Reg.x(5), Reg.PC].map((id) => two.getOneReg(id))).toEqual([77n, 0n, BigInt(RAM + 0x100)]);
    two.setOneReg(Reg.x(5), 6n);
    two.setMpState(MpState.RUNNABLE);
    two.run(0.1);
    expect([two.getOneReg(Reg.x(5)), two.getOneReg(Reg.PC)]).toEqual([6n, BigInt(RAM + 0x100)]);
  });

  const runsInListeners = onSoftOnly(backend, 'no listener of a kernel is called inside KVM_RUN');

  runsInListeners('running: what the kernel would let wait for the vCPU is done at once, a second run is EBUSY', () => {
    const { vm, vcpu, load: put } = makeVm(kvm);
    // Counts in X5 what its stores to an ioeventfd are.
    put(RAM, mov(9, DEVICE), addImm(5, 5, 1), store(4, 5, 9), b(-2));
    put(RAM + 0x1000, addImm(6, 6, 1), b(-1));
    const seen: Record<number, unknown> = {};
    const acts: Record<number, () => unknown> = {
      100: () => answers(vcpu).filter(([name]) => name !== 'KVM_SET_ONE_REG'),
      200: () => vcpu.setOneReg(Reg.x(5), 1000n),
      300: () => vcpu.getOneReg(Reg.x(5)),
      400: () => [errnoOf(() => vcpu.init(TARGET_GENERIC_V8, 0)), errnoOf(() => vcpu.setMpState(MpState.STOPPED))],
      401: () => init(vcpu),
    };
    let count = 0;
    const fd = kvm.createEventFd();
    fd.onSignal(() => {
      count++;
      const act = acts[count];
      if (act !== undefined) seen[count] = act();
    });
    vm.ioeventfd({ fd, addr: DEVICE, len: 4 });
    // Stopped between two instructions, and gone on with from there.
    expect(vcpu.run()).toMatchObject({ reason: 'intr', idleMs: Number.POSITIVE_INFINITY });
    expect([count, vcpu.getOneReg(Reg.x(5))]).toEqual([400, 1200n]);
    vcpu.setMpState(MpState.RUNNABLE);
    // Reset in the middle, the vCPU starts at address 0, where nothing is: an abort that leads there again.
    while (count < 401) vcpu.run(0.01);
    expect([count, vcpu.getOneReg(Reg.x(5))]).toEqual([401, 0n]);
    const expected = CALLS.filter(([name]) => name !== 'KVM_SET_ONE_REG').map(([name, , , answer]) => [name, answer]);
    expect(seen).toEqual({
      100: expected.map(([name, answer]) => [name, name === 'KVM_RUN' ? 'EBUSY' : answer]),
      200: undefined,
      300: 1100n,
      400: ['EINVAL', 'OK'],
      401: undefined,
    });
  });

  runsInListeners("running: what needs the VM's vCPUs to stand still is EBUSY", () => {
    const { vm, vcpu, gic, load: put } = makeVm(kvm, { gic: true, vcpus: 2 });
    const its = vm.createDevice(DeviceType.ARM_VGIC_ITS);
    its.setDeviceAttr(VgicGroup.ADDR, VgicAddr.ITS, 0x808_0000);
    its.setDeviceAttr(VgicGroup.CTRL, VgicCtrl.INIT);
    const other = vm.createDevice(DeviceType.ARM_VGIC_ITS);
    const calls: Record<string, () => unknown> = {
      counterOffset: () => vm.setCounterOffset(1n),
      distributor: () => gic!.getDeviceAttr(VgicGroup.DIST_REGS, 0),
      redistributor: () => gic!.setDeviceAttr(VgicGroup.REDIST_REGS, 0, 0),
      cpuInterface: () => gic!.getDeviceAttr(VgicGroup.CPU_SYSREGS, Sysreg.ICC_PMR),
      levels: () => gic!.getDeviceAttr(VgicGroup.LEVEL_INFO, 32),
      pendingTables: () => gic!.setDeviceAttr(VgicGroup.CTRL, VgicCtrl.SAVE_PENDING_TABLES),
      itsRegister: () => its.getDeviceAttr(VgicGroup.ITS_REGS, 0),
      itsTables: () => its.setDeviceAttr(VgicGroup.CTRL, VgicCtrl.ITS_SAVE_TABLES),
    };
    const answer = (): [string, string][] => Object.entries(calls).map(([name, call]) => [name, errnoOf(call)]);
    const inside: unknown[] = [];
    const fd = kvm.createEventFd();
    fd.onSignal(() => {
      inside.push(answer());
      vcpu.kick();
    });
    vm.ioeventfd({ fd, addr: DEVICE, len: 4 });
    put(RAM, mov(9, DEVICE), store(4, 31, 9), b(0));
    expect(vcpu.run().reason).toBe('intr');
    expect(inside).toEqual([Object.keys(calls).map((name) => [name, 'EBUSY'])]);
    expect(answer()).toEqual(Object.keys(calls).map((name) => [name, 'OK']));
    other.close();
  });

  // Earlier kernels take it at the next run().
  since(backend, '6.17')('an external abort is taken at once, and the access it is for is over', () => {
    const { vcpu, load: put } = makeVm(kvm);
    put(RAM, mov(1, 0x900_0000), 0xb9400022, b(0));
    expect(runToExit(vcpu)).toBe('read 0x9000000/4');
    vcpu.setOneReg(0x6030_0000_0013_c600n, BigInt(RAM + 0x1000));
    vcpu.setVcpuEvents({ extDabtPending: true });
    expect(vcpu.getOneReg(Reg.PC)).toBe(BigInt(RAM + 0x1200));
    expect(vcpu.getOneReg(Reg.ELR_EL1)).toBe(BigInt(RAM + mov(1, 0x900_0000).length * 4));
    vcpu.immediateExit = true;
    expect(vcpu.run().reason).toBe('intr');
    expect(vcpu.getOneReg(Reg.PC)).toBe(BigInt(RAM + 0x1200));
  });
});
