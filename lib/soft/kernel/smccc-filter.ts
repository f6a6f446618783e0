import { KvmError, SmcccFilterAction } from '../../kvm/index.js';

/** Ranges that a filter can't take: the Arm Architecture calls (kernel: init_smccc_filter). */
const RESERVED: readonly (readonly [number, number])[] = [
  [0x8000_0000, 0x8000_ffff],
  [0xc000_0000, 0xc000_ffff],
];

interface FilterRange {
  readonly first: number;
  readonly last: number;
  readonly action: number;
}

/** `struct kvm_smccc_filter`: base, nr_functions, action, 15 bytes of padding. */
const FILTER_SIZE = 24;

/** The VM's SMCCC filter (`Documentation/virt/kvm/devices/vm.rst` 6.1). */
export class SmcccFilter {
  readonly #ranges: FilterRange[] = [];

  /**
   * @param frozen a vCPU ran
   * @throws KvmError EFAULT, EINVAL, EBUSY, EEXIST overlapping an earlier or a reserved range
   */
  add(value: Uint8Array, frozen: boolean): void {
    if (value.length < FILTER_SIZE) {
      throw new KvmError('EFAULT', 'KVM_SET_DEVICE_ATTR', `struct kvm_smccc_filter has ${FILTER_SIZE} bytes`);
    }
    const view = new DataView(value.buffer, value.byteOffset, FILTER_SIZE);
    const first = view.getUint32(0, true);
    const last = (first + view.getUint32(4, true) - 1) >>> 0;
    const action = view.getUint8(8);
    for (let i = 9; i < FILTER_SIZE; i++) {
      if (view.getUint8(i) !== 0) throw new KvmError('EINVAL', 'KVM_SET_DEVICE_ATTR', 'the padding is not zero');
    }
    if (last < first || action > SmcccFilterAction.FWD_TO_USER) {
      throw new KvmError('EINVAL', 'KVM_SET_DEVICE_ATTR', 'an empty range, one past 2^32, or an unknown action');
    }
    if (frozen) throw new KvmError('EBUSY', 'KVM_SET_DEVICE_ATTR', 'a vCPU ran');
    const overlaps = (from: number, to: number): boolean => first <= to && from <= last;
    if (RESERVED.some(([from, to]) => overlaps(from, to)) || this.#ranges.some((r) => overlaps(r.first, r.last))) {
      throw new KvmError('EEXIST', 'KVM_SET_DEVICE_ATTR', 'the range overlaps a filtered or reserved one');
    }
    this.#ranges.push({ first, last, action });
  }

  action(fn: number): number {
    for (const range of this.#ranges) if (fn >= range.first && fn <= range.last) return range.action;
    return SmcccFilterAction.HANDLE;
  }
}
