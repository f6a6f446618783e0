import { VmError } from '../errors.js';

/** Bytes of the arm64 Image header (Linux, Documentation/arch/arm64/booting.rst, 4). */
export const IMAGE_HEADER_SIZE = 64;
const IMAGE_MAGIC_OFFSET = 56;
/** `text_offset` of kernels before 3.17, which leave `image_size` 0. */
const OLD_TEXT_OFFSET = 0x8_0000;
/** The protocol aligns the Image's base to this. */
export const IMAGE_ALIGN = 2 * 1024 * 1024;

/** An arm64 Linux Image (or anything that bears its header), and what its header says. */
export interface Arm64Image {
  /** The file, headers included: it is loaded whole. */
  readonly bytes: Uint8Array;
  /** Where it goes, in bytes from a 2 MiB-aligned base. */
  readonly textOffset: number;
  /** Memory that it occupies from there on, in bytes; more than the file has, for it counts the BSS. */
  readonly imageSize: number;
  /** The page size it was built for, in bytes; `undefined` where it does not say. */
  readonly pageSize: 4096 | 16384 | 65536 | undefined;
}

/** Whether `bytes` bear the arm64 Image's magic number, `ARM\x64`. */
export function isArm64Image(bytes: Uint8Array): boolean {
  return startsWith(bytes, 'ARM\x64', IMAGE_MAGIC_OFFSET);
}

/**
 * Reads an arm64 Image's header.
 * @param size of the file, in bytes, where `bytes` is only its beginning
 * @throws VmError `ERR_KERNEL_EMPTY`, `ERR_KERNEL_TRUNCATED`, `ERR_KERNEL_FORMAT`, `ERR_KERNEL_ENDIAN`
 */
export function parseArm64Image(bytes: Uint8Array, size = bytes.length): Arm64Image {
  if (bytes.length === 0) throw new VmError('ERR_KERNEL_EMPTY', 'kernel: it is empty (0 bytes)');
  if (bytes.length < IMAGE_HEADER_SIZE) {
    throw new VmError(
      'ERR_KERNEL_TRUNCATED',
      `kernel: ${bytes.length} bytes are less than an arm64 Image's header of ${IMAGE_HEADER_SIZE}`,
    );
  }
  if (!isArm64Image(bytes)) {
    throw new VmError('ERR_KERNEL_FORMAT', 'kernel: it is no arm64 Image: the magic number at byte 56 is missing');
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const flags = view.getBigUint64(24, true);
  if ((flags & 1n) !== 0n) {
    throw new VmError(
      'ERR_KERNEL_ENDIAN',
      'kernel: it is a big-endian arm64 Image; only little-endian kernels are booted: build it without CONFIG_CPU_BIG_ENDIAN',
    );
  }
  const headerSize = view.getBigUint64(16, true);
  const textOffset = headerSize === 0n ? OLD_TEXT_OFFSET : Number(view.getBigUint64(8, true));
  if (!Number.isSafeInteger(textOffset) || textOffset % 4 !== 0) {
    throw new VmError(
      'ERR_KERNEL_FORMAT',
      `kernel: the header's text_offset 0x${textOffset.toString(16)} is no address`,
    );
  }
  if (headerSize > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw new VmError('ERR_KERNEL_FORMAT', `kernel: the header's image_size 0x${headerSize.toString(16)} is no size`);
  }
  const needed = peExtent(bytes, view);
  if (needed > size) {
    throw new VmError(
      'ERR_KERNEL_TRUNCATED',
      `kernel: the Image is truncated: its sections reach to byte ${needed}, the file has ${size}; copy or download it again`,
    );
  }
  const pageBits = Number((flags >> 1n) & 3n);
  return {
    bytes,
    textOffset,
    imageSize: Math.max(Number(headerSize), size),
    pageSize: ([undefined, 4096, 16384, 65536] as const)[pageBits],
  };
}

/**
 * Where the file must reach, by the section table of the PE/COFF header that an Image with an EFI stub has: the Image's
 * own header does not tell the file's size. 0 where there is no PE header.
 */
function peExtent(bytes: Uint8Array, view: DataView): number {
  if (!startsWith(bytes, 'MZ', 0)) return 0;
  const pe = view.getUint32(60, true);
  if (pe + 24 > bytes.length || !startsWith(bytes, 'PE\0\0', pe)) return 0;
  const sections = view.getUint16(pe + 6, true);
  const table = pe + 24 + view.getUint16(pe + 20, true);
  let extent = 0;
  for (let i = 0; i < sections; i++) {
    const section = table + 40 * i;
    if (section + 40 > bytes.length) return section + 40;
    // SizeOfRawData and PointerToRawData (PE format, section table).
    extent = Math.max(extent, view.getUint32(section + 20, true) + view.getUint32(section + 16, true));
  }
  return extent;
}

/** Whether the bytes at `offset` are these characters. */
export function startsWith(bytes: Uint8Array, text: string, offset = 0): boolean {
  if (bytes.length < offset + text.length) return false;
  for (let i = 0; i < text.length; i++) if (bytes[offset + i] !== text.charCodeAt(i)) return false;
  return true;
}
