import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { Cap, type DebugExit, GuestDebug, type Kvm, MpState, Reg, sysregIndex, type Vcpu } from '#lib/kvm/index.js';
import { addImm, b, daifClr, ERET, hvc, load, mov, movz, msr, NOP, store, WFI } from './asm.ts';
import { backends, since } from './backends.ts';
import { DEVICE, describeExit, errnoOf, makeVm, RAM, runToExit, Sysreg, VECTORS } from './machine.ts';

const PSCI_VERSION = 0x84000000;
const powerOff = [...mov(0, 0x84000008), hvc()];
const svc = (imm16: number): number => (0xd4000001 | (imm16 << 5)) >>> 0;
const brk = (imm16: number): number => (0xd4200000 | (imm16 << 5)) >>> 0;

const MDSCR = sysregIndex(2, 0, 0, 2, 2);
const BVR0 = sysregIndex(2, 0, 0, 0, 4);
const BCR0 = sysregIndex(2, 0, 0, 0, 5);
const OSLAR = sysregIndex(2, 0, 1, 0, 4);
const SPSR = sysregIndex(3, 0, 4, 0, 0);
const ELR = sysregIndex(3, 0, 4, 0, 1);
const sysreg = (index: number): bigint => 0x6030_0000_0013_0000n | BigInt(index);

/** Exception classes, as from a lower EL: the exception is EL2's. */
const EC = { BREAKPOINT: 0x30, STEP: 0x32, WATCHPOINT: 0x34, BRK: 0x3c } as const;
const SS = 1n << 21n;
const EL1H_MASKED = 0x3c5n;
/** Enabled, EL1 and EL0, all of a word or doubleword. */
const BCR = 0x1e7n;
const WCR = (lsc: bigint): bigint => 1n | (3n << 1n) | (lsc << 3n) | (0xffn << 5n);

const STEP = { control: GuestDebug.ENABLE | GuestDebug.SINGLESTEP };
const HARDWARE = GuestDebug.ENABLE | GuestDebug.USE_HW;

describe.each(backends)('KVM_SET_GUEST_DEBUG on $name', (backend) => {
  const { open } = backend;
  let kvm: Kvm;
  beforeEach(() => {
    kvm = open();
  });
  afterEach(() => kvm.close());

  const pcOf = (vcpu: Vcpu): number => Number(vcpu.getOneReg(Reg.PC));
  function runToDebug(vcpu: Vcpu): DebugExit {
    const exit = vcpu.run();
    if (exit.reason !== 'debug') throw new Error(describeExit(exit));
    return exit;
  }
  /** Runs to a debug exit: exception class, and PC as its distance from RAM's start. */
  function event(vcpu: Vcpu): [ec: number, offset: number] {
    const { hsr } = runToDebug(vcpu);
    return [hsr >>> 26, pcOf(vcpu) - RAM];
  }

  test('the capabilities say what there is', () => {
    expect(kvm.checkExtension(Cap.SET_GUEST_DEBUG)).toBe(1);
    expect(kvm.checkExtension(Cap.SET_GUEST_DEBUG2)).toBe(0x30003);
    expect(kvm.checkExtension(Cap.GUEST_DEBUG_HW_BPS)).toBeGreaterThanOrEqual(2);
    expect(kvm.checkExtension(Cap.GUEST_DEBUG_HW_WPS)).toBeGreaterThanOrEqual(2);
  });

  test('a bit of control without a meaning is EINVAL, and changes nothing; the call needs no KVM_ARM_VCPU_INIT', () => {
    const { vcpu, vm, load: put } = makeVm(kvm);
    put(RAM, NOP, powerOff);
    vcpu.setGuestDebug(STEP);
    for (const control of [4, 0x40000, 1 << 31]) {
      expect(errnoOf(() => vcpu.setGuestDebug({ control: GuestDebug.ENABLE | control }))).toBe('EINVAL');
    }
    expect(errnoOf(() => vcpu.setGuestDebug({ control: HARDWARE, bcr: new Array<bigint>(17).fill(0n) }))).toBe(
      'EINVAL',
    );
    expect(event(vcpu)).toEqual([EC.STEP, 4]);
    vm.createVcpu(1).setGuestDebug(STEP);
  });

  test('single step: each instruction is an exit, whatever PSTATE.D and the guest say', () => {
    const { vcpu, load: put } = makeVm(kvm);
    put(RAM, addImm(1, 31, 0), movz(1, 5), b(2), NOP, addImm(1, 1, 1), powerOff);
    put(RAM, movz(1, 4));
    vcpu.setGuestDebug(STEP);
    const { hsr, far } = runToDebug(vcpu);
    // EC, IL, ISV, and the debug exception's fault status.
    expect([hsr >>> 0, far]).toEqual([((EC.STEP << 26) >>> 0) + 0x0300_0022, 0n]);
    expect([pcOf(vcpu) - RAM, vcpu.getOneReg(Reg.x(1))]).toEqual([4, 4n]);
    expect([event(vcpu), event(vcpu), event(vcpu)]).toEqual([
      [EC.STEP, 8],
      [EC.STEP, 16],
      [EC.STEP, 20],
    ]);
    expect(vcpu.getOneReg(Reg.x(1))).toBe(6n);
    vcpu.setGuestDebug({ control: 0 });
    expect(runToExit(vcpu)).toBe('system_event 1 0');
  });

  test("between two steps PSTATE.SS is the guest's", () => {
    const { vcpu, load: put } = makeVm(kvm);
    put(RAM, NOP, NOP, NOP, powerOff);
    vcpu.setGuestDebug(STEP);
    for (const pstate of [EL1H_MASKED | SS, EL1H_MASKED]) {
      vcpu.setOneReg(Reg.PSTATE, pstate);
      expect(event(vcpu)[0]).toBe(EC.STEP);
      expect(vcpu.getOneReg(Reg.PSTATE)).toBe(pstate);
    }
  });

  since(backend, '7.3')('a step over a device access: its exit, and then the step', () => {
    const { vcpu, load: put } = makeVm(kvm);
    put(RAM, mov(1, DEVICE), load(4, 2, 1), store(4, 2, 1), powerOff);
    const start = mov(1, DEVICE).length * 4;
    vcpu.setOneReg(Reg.x(1), BigInt(DEVICE));
    vcpu.setOneReg(Reg.PC, BigInt(RAM + start));
    vcpu.setGuestDebug(STEP);
    const exit = vcpu.run();
    if (exit.reason !== 'mmio') throw new Error(exit.reason);
    exit.data.set([1, 2, 3, 4]);
    expect(event(vcpu)).toEqual([EC.STEP, start + 4]);
    expect(vcpu.getOneReg(Reg.x(2))).toBe(0x04030201n);
    expect(describeExit(vcpu.run())).toBe('write 0x9000000/4 0x4030201');
    // What completes without entering the guest is not lost.
    vcpu.immediateExit = true;
    expect(vcpu.run().reason).toBe('intr');
    vcpu.immediateExit = false;
    expect(pcOf(vcpu) - RAM).toBe(start + 8);
    expect(event(vcpu)).toEqual([EC.STEP, start + 8]);
    expect(event(vcpu)).toEqual([EC.STEP, start + 12]);
  });

  since(backend, '6.14')('a step over a hypercall that KVM answers', () => {
    const { vcpu, load: put } = makeVm(kvm);
    put(RAM, hvc(), powerOff);
    vcpu.setOneReg(Reg.x(0), BigInt(PSCI_VERSION));
    vcpu.setGuestDebug(STEP);
    expect(event(vcpu)).toEqual([EC.STEP, 4]);
    expect(vcpu.getOneReg(Reg.x(0))).toBe(0x10003n);
  });

  test('a step over WFI with an interrupt pending', () => {
    const { vm, vcpu, load: put } = makeVm(kvm);
    put(RAM, WFI, NOP);
    vm.irqLine(0, true);
    vcpu.setGuestDebug(STEP);
    expect([event(vcpu), event(vcpu)]).toEqual([
      [EC.STEP, 4],
      [EC.STEP, 8],
    ]);
  });

  test('a step into an exception ends at its vector, and one out of it behind ERET', () => {
    const { vcpu, load: put } = makeVm(kvm);
    put(RAM, svc(1), NOP, powerOff);
    put(VECTORS + 0x200, ERET);
    vcpu.setOneReg(sysreg(Sysreg.VBAR_EL1), BigInt(VECTORS));
    vcpu.setGuestDebug(STEP);
    expect(event(vcpu)).toEqual([EC.STEP, VECTORS + 0x200 - RAM]);
    expect(vcpu.getOneReg(Reg.ELR_EL1)).toBe(BigInt(RAM + 4));
    expect(event(vcpu)).toEqual([EC.STEP, 4]);
  });

  test('a step into an interrupt', () => {
    const { vm, vcpu, load: put } = makeVm(kvm);
    put(RAM, daifClr(2), NOP);
    put(VECTORS + 0x280, NOP);
    vcpu.setOneReg(sysreg(Sysreg.VBAR_EL1), BigInt(VECTORS));
    vm.irqLine(0, true);
    vcpu.setGuestDebug(STEP);
    expect(event(vcpu)[0]).toBe(EC.STEP);
    // Unmasked, it is taken before the next instruction.
    if (pcOf(vcpu) === RAM + 4) expect(event(vcpu)[0]).toBe(EC.STEP);
    expect(pcOf(vcpu)).toBe(VECTORS + 0x280);
    expect(vcpu.getOneReg(Reg.ELR_EL1)).toBe(BigInt(RAM + 4));
  });

  test("BRK is the host's while it debugs, and the guest's else", () => {
    const { vcpu, load: put } = makeVm(kvm);
    put(RAM, brk(0x123), powerOff);
    put(VECTORS + 0x200, powerOff);
    vcpu.setOneReg(sysreg(Sysreg.VBAR_EL1), BigInt(VECTORS));
    for (const control of [GuestDebug.ENABLE | GuestDebug.USE_SW_BP, GuestDebug.ENABLE]) {
      vcpu.setGuestDebug({ control });
      const { hsr } = runToDebug(vcpu);
      expect([hsr >>> 0, pcOf(vcpu)]).toEqual([((EC.BRK << 26) >>> 0) + 0x0200_0123, RAM]);
    }
    vcpu.setGuestDebug({ control: 0 });
    expect(runToExit(vcpu)).toBe('system_event 1 0');
    expect(vcpu.getOneReg(Reg.ELR_EL1)).toBe(BigInt(RAM));
  });

  test('a hardware breakpoint stops before its instruction, again and again, until it goes', () => {
    const { vcpu, load: put } = makeVm(kvm);
    put(RAM, NOP, addImm(1, 1, 1), powerOff);
    vcpu.setGuestDebug({ control: HARDWARE, bcr: [0n, BCR], bvr: [0n, BigInt(RAM + 4)] });
    expect([event(vcpu), event(vcpu)]).toEqual([
      [EC.BREAKPOINT, 4],
      [EC.BREAKPOINT, 4],
    ]);
    expect(vcpu.getOneReg(Reg.x(1))).toBe(0n);
    vcpu.setGuestDebug({ control: HARDWARE | GuestDebug.SINGLESTEP });
    expect(event(vcpu)).toEqual([EC.STEP, 8]);
    vcpu.setGuestDebug({ control: HARDWARE, bcr: [BCR], bvr: [BigInt(RAM + 4)] });
    expect(runToExit(vcpu)).toBe('system_event 1 0');
  });

  test('a hardware watchpoint says address and direction, and nothing is done yet', () => {
    const { vcpu, memory, load: put } = makeVm(kvm);
    const data = RAM + 0x8000;
    put(RAM, mov(1, data), load(8, 2, 1), store(8, 1, 1), powerOff);
    const start = mov(1, data).length * 4;
    vcpu.setGuestDebug({ control: HARDWARE, wcr: [WCR(2n)], wvr: [BigInt(data)] });
    const { hsr, far } = runToDebug(vcpu);
    expect([hsr >>> 26, hsr & 0x7f, far, pcOf(vcpu) - RAM]).toEqual([EC.WATCHPOINT, 0x62, BigInt(data), start + 4]);
    expect(memory.bytes[0x8000]).toBe(0);
    vcpu.setOneReg(Reg.PC, BigInt(RAM));
    vcpu.setGuestDebug({ control: HARDWARE, wcr: [0n, WCR(1n)], wvr: [0n, BigInt(data)] });
    const load1 = runToDebug(vcpu);
    expect([load1.hsr & 0x7f, load1.far, pcOf(vcpu) - RAM]).toEqual([0x22, BigInt(data), start]);
    vcpu.setGuestDebug({ control: 0 });
    expect(runToExit(vcpu)).toBe('system_event 1 0');
  });

  test("the guest's own breakpoint rests while the host debugs, and its registers are its own", () => {
    const { vcpu, load: put } = makeVm(kvm);
    const target = RAM + 0x100;
    const arm = [
      ...mov(1, target),
      msr(BVR0, 1),
      ...mov(1, BCR),
      msr(BCR0, 1),
      ...mov(1, (1 << 15) | (1 << 13)),
      msr(MDSCR, 1),
      msr(OSLAR, 31),
      daifClr(8),
      0xd5033fdf,
    ];
    put(RAM, arm, b((target - RAM) / 4 - arm.length));
    put(target, NOP, powerOff);
    put(VECTORS + 0x200, mov(1, DEVICE), store(4, 31, 1));
    vcpu.setOneReg(sysreg(Sysreg.VBAR_EL1), BigInt(VECTORS));
    vcpu.setGuestDebug({ control: HARDWARE, bcr: [BCR], bvr: [BigInt(target + 4)] });
    expect(event(vcpu)).toEqual([EC.BREAKPOINT, target + 4 - RAM]);
    expect(vcpu.getOneReg(sysreg(BVR0))).toBe(BigInt(target));
    vcpu.setOneReg(Reg.PC, BigInt(target));
    vcpu.setGuestDebug({ control: 0 });
    expect(describeExit(vcpu.run())).toBe('write 0x9000000/4 0x0');
    expect(vcpu.getOneReg(Reg.ELR_EL1)).toBe(BigInt(target));
  });

  test("the guest's own software step rests too", () => {
    const { vcpu, load: put } = makeVm(kvm);
    // EL1 steps one instruction at EL0, which is an HVC: UNDEFINED there.
    put(RAM, [
      ...mov(1, RAM + 0x100),
      msr(ELR, 1),
      ...mov(1, SS),
      msr(SPSR, 1),
      movz(1, 1),
      msr(MDSCR, 1),
      msr(OSLAR, 31),
      ERET,
    ]);
    put(RAM + 0x100, NOP, svc(0));
    put(VECTORS + 0x400, powerOff);
    vcpu.setOneReg(sysreg(Sysreg.VBAR_EL1), BigInt(VECTORS));
    vcpu.setGuestDebug({ control: GuestDebug.ENABLE });
    expect(runToExit(vcpu)).toBe('system_event 1 0');
    expect(vcpu.getOneReg(Reg.ELR_EL1)).toBe(BigInt(RAM + 0x108));
    vcpu.setMpState(MpState.RUNNABLE);
    vcpu.setOneReg(Reg.PSTATE, EL1H_MASKED);
    vcpu.setOneReg(Reg.PC, BigInt(RAM));
    vcpu.setGuestDebug({ control: 0 });
    expect(runToExit(vcpu)).toBe('system_event 1 0');
    expect(vcpu.getOneReg(Reg.ELR_EL1)).toBe(BigInt(RAM + 0x104));
  });
});
