import { afterEach, beforeEach, describe, expect } from '@jest/globals';
import { Cap, type Kvm, MemFlag, Reg, TARGET_GENERIC_V8, type Vcpu, VcpuFeature, type Vm } from '#lib/kvm/index.js';
import { hvc, mov } from './asm.ts';
import { backends, whereProtected } from './backends.ts';
import { errnoOf, RAM, RAM_SIZE, runToExit } from './machine.ts';

/** KVM_VM_TYPE_ARM_PROTECTED, with 40 bits of IPA. */
const PROTECTED = 2 ** 31 + 40;

describe.each(backends)('a protected VM on $name', (backend) => {
  const { open } = backend;
  let kvm: Kvm;
  beforeEach(() => {
    kvm = open();
  });
  afterEach(() => kvm.close());

  function makeProtected(): { vm: Vm; vcpu: Vcpu; bytes: Uint8Array } {
    const vm = kvm.createVm(PROTECTED);
    const memory = vm.createMemory(RAM_SIZE);
    vm.setUserMemoryRegion({ slot: 0, guestPhysAddr: RAM, memorySize: RAM_SIZE, memory });
    const vcpu = vm.createVcpu(0);
    vcpu.init(TARGET_GENERIC_V8, 1 << VcpuFeature.PSCI_0_2);
    vcpu.setOneReg(Reg.PC, BigInt(RAM));
    return { vm, vcpu, bytes: memory.bytes };
  }

  whereProtected(backend, false)('is EINVAL where the hypervisor is not protected', () => {
    expect(errnoOf(() => kvm.createVm(PROTECTED))).toBe('EINVAL');
  });

  /** Has the guest power itself off, which is all that it has to do. */
  function runToOff({ vcpu, bytes }: { vcpu: Vcpu; bytes: Uint8Array }): string {
    new Uint32Array(bytes.buffer, bytes.byteOffset).set([...mov(0, 0x8400_0008), hvc()]);
    return runToExit(vcpu);
  }

  // The software KVM has none.
  if (backend.inTurn) return;

  whereProtected(backend, true)('runs, and powers itself off', () => {
    expect(runToOff(makeProtected())).toBe('system_event 1 0');
  });

  whereProtected(backend, true)('refuses what the hypervisor does not let the host do to it', () => {
    const made = makeProtected();
    const { vm } = made;
    const memory = vm.createMemory(0x1_0000);
    const more = { slot: 1, guestPhysAddr: RAM + RAM_SIZE, memorySize: 0x1_0000, memory };
    const refused: readonly (readonly [string, () => unknown])[] = [
      ['EINVAL', () => vm.setCounterOffset(0n)],
      ['EINVAL', () => vm.getRegWritableMasks()],
      ['EINVAL', () => vm.enableCap(Cap.ARM_NISV_TO_USER)],
      ['EINVAL', () => vm.setDeviceAttr(0, 0, new Uint8Array(24))],
      ['EPERM', () => vm.setUserMemoryRegion({ ...more, flags: MemFlag.LOG_DIRTY_PAGES })],
      ['EPERM', () => vm.setUserMemoryRegion({ ...more, flags: MemFlag.READONLY })],
    ];
    for (const [errno, call] of refused) expect([String(call), errnoOf(call)]).toEqual([String(call), errno]);
    expect(runToOff(made)).toBe('system_event 1 0');
    // Once it has run, its memory is its own.
    expect(errnoOf(() => vm.setUserMemoryRegion({ ...more, slot: 0, guestPhysAddr: RAM, memorySize: 0 }))).toBe(
      'EPERM',
    );
  });
});
