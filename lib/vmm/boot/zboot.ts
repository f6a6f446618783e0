import { VmError } from '../errors.js';
import { startsWith } from './image.js';

/** The payload of an EFI zboot kernel: a compressed Image behind a small PE program that unpacks it. */
export interface Zboot {
  /** As the header names it: `'gzip'`, `'zstd'`, `'lzma'` … */
  readonly compression: string;
  readonly payload: Uint8Array;
}

const HEADER_SIZE = 64;

/** Whether `bytes` bear the EFI zboot header (Linux, drivers/firmware/efi/libstub/zboot-header.S). */
export function isZboot(bytes: Uint8Array): boolean {
  return startsWith(bytes, 'MZ') && startsWith(bytes, 'zimg', 4);
}

/**
 * Finds the payload of an EFI zboot kernel. Which architecture it is for, its Image says.
 * @throws VmError `ERR_KERNEL_TRUNCATED`
 */
export function parseZboot(bytes: Uint8Array): Zboot {
  if (bytes.length < HEADER_SIZE) {
    throw new VmError(
      'ERR_KERNEL_TRUNCATED',
      `kernel: the EFI zboot header is truncated (${bytes.length} bytes of ${HEADER_SIZE})`,
    );
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const [offset, size] = [view.getUint32(8, true), view.getUint32(12, true)];
  if (offset < HEADER_SIZE || size === 0 || offset + size > bytes.length) {
    throw new VmError(
      'ERR_KERNEL_TRUNCATED',
      `kernel: the EFI zboot payload (${size} bytes at ${offset}) reaches over the file's end (${bytes.length} bytes); copy or download it again`,
    );
  }
  let compression = '';
  for (let at = 24; at < 56 && bytes[at] !== 0; at++) compression += String.fromCharCode(bytes[at]!);
  return { compression, payload: bytes.subarray(offset, offset + size) };
}
