import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { Cap, type Kvm, KvmError } from '#lib/kvm/index.js';
import { backends, whereIpaSizeIsChecked } from './backends.ts';
import { errnoOf } from './machine.ts';

/** Capabilities that are a VM's alone. */
const ASKED_OF_VMS: readonly number[] = [Cap.MSI_DEVID, Cap.ARM_CACHEABLE_PFNMAP_SUPPORTED];

/** A vCPU's statistics, in the kernel's order, and how many values each has. */
const VCPU_STATS: readonly (readonly [string, number])[] = [
  ...['halt_successful_poll', 'halt_attempted_poll', 'halt_poll_invalid', 'halt_wakeup'].map(
    (name) => [name, 1] as const,
  ),
  ...['halt_poll_success_ns', 'halt_poll_fail_ns', 'halt_wait_ns'].map((name) => [name, 1] as const),
  ...['halt_poll_success_hist', 'halt_poll_fail_hist', 'halt_wait_hist'].map((name) => [name, 32] as const),
  ...['blocking', 'hvc_exit_stat', 'wfe_exit_stat', 'wfi_exit_stat'].map((name) => [name, 1] as const),
  ...['mmio_exit_user', 'mmio_exit_kernel', 'signal_exits', 'exits'].map((name) => [name, 1] as const),
];

describe.each(backends)('system on $name', (backend) => {
  const { open, inTurn } = backend;
  let kvm: Kvm;
  beforeEach(() => {
    kvm = open();
  });
  afterEach(() => kvm.close());

  test('the API is version 12', () => {
    expect(kvm.getApiVersion()).toBe(12);
    expect(kvm.getVcpuMmapSize()).toBeGreaterThanOrEqual(4096);
  });

  test('a VM answers the capabilities that the system does', () => {
    const vm = kvm.createVm();
    for (const cap of Object.values(Cap)) {
      if (ASKED_OF_VMS.includes(cap)) {
        // A kernel that is older than the capability says 0 to both.
        if (vm.checkExtension(cap) !== 0) expect(errnoOf(() => kvm.checkExtension(cap))).toBe('EINVAL');
      } else {
        expect(vm.checkExtension(cap)).toBe(kvm.checkExtension(cap));
      }
    }
    expect(kvm.checkExtension(99_999)).toBe(0);
  });

  whereIpaSizeIsChecked(backend)('an IPA size is taken up to what the capability says', () => {
    const most = kvm.checkExtension(Cap.ARM_VM_IPA_SIZE);
    expect(errnoOf(() => kvm.createVm(most).close())).toBe('OK');
    expect(errnoOf(() => kvm.createVm(most + 1))).toBe('EINVAL');
  });

  test('a type that has more than an IPA size is refused', () => {
    const types = [0x100, Number.NaN, -1, 1.5, 2 ** 33];
    expect(types.map((type) => errnoOf(() => kvm.createVm(type)))).toEqual(types.map(() => 'EINVAL'));
  });

  test('a capability that is 0 cannot be enabled', () => {
    const vm = kvm.createVm();
    // Its value is the chunk size, 0 at first, and can be set again.
    const others = Object.values(Cap).filter((cap) => cap !== Cap.ARM_EAGER_SPLIT_CHUNK_SIZE);
    for (const cap of others) {
      if (vm.checkExtension(cap) === 0) expect([cap, errnoOf(() => vm.enableCap(cap))]).toEqual([cap, 'EINVAL']);
    }
  });

  test('a failed call says what failed', () => {
    try {
      kvm.createVm(0x100);
      throw new Error('it did not fail');
    } catch (error) {
      expect(KvmError.is(error, 'EINVAL')).toBe(true);
      expect(error).toMatchObject({ errno: 22, syscall: 'KVM_CREATE_VM' });
      expect((error as Error).message).toContain('256');
    }
  });

  test('a closed system fd is EBADF, and its VMs go on', () => {
    const vm = kvm.createVm();
    kvm.close();
    kvm.close();
    expect(kvm.closed).toBe(true);
    expect(
      [() => kvm.createVm(), () => kvm.getApiVersion(), () => kvm.checkExtension(0), () => kvm.createEventFd()].map(
        errnoOf,
      ),
    ).toEqual(Array(4).fill('EBADF'));
    expect(vm.checkExtension(Cap.IRQCHIP)).toBe(1);
    vm.close();
  });

  test('statistics have the names of the kernel', () => {
    const vm = kvm.createVm();
    const vcpu = vm.createVcpu(0);
    const read = (stats: ReadonlyMap<string, readonly bigint[]>): [string, number][] =>
      [...stats].map(([name, values]) => [name, values.length]);
    expect(read(vcpu.readStats())).toEqual(inTurn ? [...VCPU_STATS, ['instructions', 1]] : VCPU_STATS);
    expect(read(vm.readStats())).toEqual([
      ['remote_tlb_flush', 1],
      ['remote_tlb_flush_requests', 1],
    ]);
  });
});
