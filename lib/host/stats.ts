import { KvmError } from '../kvm/index.js';
import { check, checkHandle } from './call.js';
import type { Native, StatsHandle, VcpuHandle, VmHandle } from './native.js';

const SYSCALL = 'KVM_GET_STATS_FD';
/** `struct kvm_stats_header`: flags, name_size, num_desc, id_offset, desc_offset, data_offset. */
const HEADER_SIZE = 24;
/** `struct kvm_stats_desc` before its name: flags, exponent, size, offset, bucket_size. */
const DESC_SIZE = 16;
/** More than any kernel has; what a kernel says is not taken on trust for an allocation. */
const MAX_DESCRIPTORS = 4096;
const MAX_NAME = 256;
const MAX_VALUES = 4096;

/** KVM_GET_STATS_FD. The handle must be closed. */
export function openStats(native: Native, of: VmHandle | VcpuHandle): StatsHandle {
  return checkHandle(native.getStatsFd(of), SYSCALL);
}

/** What a statistics fd holds: name to values (api.rst 4.133). */
export function readStats(native: Native, handle: StatsHandle): ReadonlyMap<string, readonly bigint[]> {
  const header = read(native, handle, 0, HEADER_SIZE);
  const nameSize = header.getUint32(4, true);
  const count = header.getUint32(8, true);
  if (nameSize > MAX_NAME || count > MAX_DESCRIPTORS) throw new KvmError('EIO', SYSCALL, 'unlikely header');
  const size = DESC_SIZE + nameSize;
  const descriptors = read(native, handle, header.getUint32(16, true), count * size);
  const data = header.getUint32(20, true);
  const stats = new Map<string, readonly bigint[]>();
  for (let at = 0; at < count * size; at += size) {
    const values = descriptors.getUint16(at + 6, true);
    if (values > MAX_VALUES) throw new KvmError('EIO', SYSCALL, 'unlikely descriptor');
    const bytes = new Uint8Array(descriptors.buffer, at + DESC_SIZE, nameSize);
    const end = bytes.indexOf(0);
    const name = new TextDecoder().decode(end < 0 ? bytes : bytes.subarray(0, end));
    const view = read(native, handle, data + descriptors.getUint32(at + 8, true), values * 8);
    stats.set(
      name,
      Array.from({ length: values }, (_, i) => view.getBigUint64(i * 8, true)),
    );
  }
  return stats;
}

function read(native: Native, handle: StatsHandle, offset: number, length: number): DataView<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  for (let done = 0; done < length; ) {
    const count = check(native.readStats(handle, offset + done, bytes.subarray(done)), 'read');
    if (count === 0) throw new KvmError('EIO', 'read', `the statistics end at ${offset + done}`);
    done += count;
  }
  return new DataView(bytes.buffer);
}
