import { Cap, KvmError } from '../../kvm/index.js';
import { checkRingSize } from './dirty-ring.js';
import type { SoftVm } from './vm.js';

/** Bits of KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2. */
export const MANUAL_PROTECT_ENABLE = 1;
const MANUAL_PROTECT_INITIALLY_SET = 2;

/**
 * KVM_ENABLE_CAP (`Documentation/virt/kvm/api.rst` 7).
 * @param argument the first of the four
 * @throws KvmError EINVAL unknown, too late, or not an argument of it; E2BIG a dirty ring that is too large
 */
export function enableCap(vm: SoftVm, cap: number, argument: number | bigint): void {
  const fail = (detail: string): KvmError => new KvmError('EINVAL', 'KVM_ENABLE_CAP', detail);
  const value = Number(argument);
  switch (cap) {
    case Cap.ARM_NISV_TO_USER:
      vm.nisvToUser = true;
      return;
    case Cap.ARM_SYSTEM_SUSPEND:
      vm.systemSuspend = true;
      return;
    case Cap.ARM_WRITABLE_IMP_ID_REGS:
      if (vm.hasVcpus) throw fail('only before the first vCPU');
      vm.implementationIds = true;
      return;
    case Cap.DIRTY_LOG_RING_ACQ_REL:
      checkRingSize(value);
      if (vm.dirtyRingSize > 0) throw fail('the VM has dirty rings');
      if (vm.hasVcpus) throw fail('only before the first vCPU');
      vm.dirtyRingSize = value;
      vm.memslots.hasBitmaps = false;
      return;
    case Cap.DIRTY_LOG_RING_WITH_BITMAP:
      if (vm.dirtyRingSize === 0) throw fail('only where there are dirty rings');
      if (!vm.memslots.isEmpty) throw fail('only before the first memslot');
      vm.memslots.hasBitmaps = true;
      return;
    case Cap.MANUAL_DIRTY_LOG_PROTECT2: {
      const allowed = (value & MANUAL_PROTECT_ENABLE) === 0 ? 0 : MANUAL_PROTECT_ENABLE | MANUAL_PROTECT_INITIALLY_SET;
      if (!Number.isSafeInteger(value) || (value & ~allowed) !== 0) throw fail(`options ${value} are 0, 1 or 3`);
      vm.memslots.manualProtect = value;
      return;
    }
    // There is no stage 2 whose blocks could be split: no chunk size is supported but none.
    case Cap.ARM_EAGER_SPLIT_CHUNK_SIZE:
      if (!vm.memslots.isEmpty) throw fail('only before the first memslot');
      if (value !== 0) throw fail(`a chunk of ${value} bytes is none of KVM_CAP_ARM_SUPPORTED_BLOCK_SIZES`);
      return;
    case Cap.HALT_POLL:
      if (!(Number.isInteger(value) && value >= 0 && value <= 0xffff_ffff)) throw fail('the limit has 32 bits');
      vm.maxHaltPollNs = value;
      return;
    default:
      throw fail(`capability ${cap} can't be enabled`);
  }
}
