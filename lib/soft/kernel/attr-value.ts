import { KvmError } from '../../kvm/index.js';

/**
 * The `size`-byte integer behind `kvm_device_attr.addr`.
 * @throws KvmError EFAULT none was given, or fewer bytes
 */
export function attrInteger(value: number | bigint | Uint8Array | undefined, size: 4 | 8): bigint {
  if (value === undefined) throw new KvmError('EFAULT', 'KVM_SET_DEVICE_ATTR', 'the attribute needs a value');
  if (value instanceof Uint8Array) {
    if (value.length < size) {
      throw new KvmError('EFAULT', 'KVM_SET_DEVICE_ATTR', `the attribute is ${size} bytes, not ${value.length}`);
    }
    let result = 0n;
    for (let i = size - 1; i >= 0; i--) result = (result << 8n) | BigInt(value[i]!);
    return result;
  }
  if (typeof value === 'number' && !Number.isSafeInteger(value)) {
    throw new KvmError('EINVAL', 'KVM_SET_DEVICE_ATTR', `${value} is not an integer`);
  }
  return BigInt.asUintN(size * 8, BigInt(value));
}
