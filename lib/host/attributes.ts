import { Errno } from '../kvm/errors.js';
import { check } from './call.js';
import type { AttrHandle, Native } from './native.js';

/** KVM_HAS_DEVICE_ATTR. */
export function hasAttr(native: Native, handle: AttrHandle, group: number, attr: number | bigint): boolean {
  const result = native.hasDeviceAttr(handle, group, BigInt(attr));
  if (result === -Errno.ENXIO) return false;
  check(result, 'KVM_HAS_DEVICE_ATTR');
  return true;
}

/** KVM_SET_DEVICE_ATTR. The kernel takes the four or eight bytes that an integer attribute has from the eight given here: it is little-endian. */
export function setAttr(
  native: Native,
  handle: AttrHandle,
  group: number,
  attr: number | bigint,
  value?: number | bigint | Uint8Array,
): void {
  const payload = value === undefined || value instanceof Uint8Array ? value : integer(value);
  check(
    native.setDeviceAttr(handle, group, BigInt(attr), payload),
    'KVM_SET_DEVICE_ATTR',
    `group ${group}, attr ${attr}`,
  );
}

/** KVM_GET_DEVICE_ATTR. */
export function getAttr(
  native: Native,
  handle: AttrHandle,
  group: number,
  attr: number | bigint,
  value: number | bigint = 0,
): bigint {
  const payload = integer(value);
  check(
    native.getDeviceAttr(handle, group, BigInt(attr), payload),
    'KVM_GET_DEVICE_ATTR',
    `group ${group}, attr ${attr}`,
  );
  return new DataView(payload.buffer).getBigUint64(0, true);
}

function integer(value: number | bigint): Uint8Array<ArrayBuffer> {
  const payload = new Uint8Array(8);
  new DataView(payload.buffer).setBigUint64(0, BigInt(value), true);
  return payload;
}
