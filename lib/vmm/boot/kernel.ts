import { VmError } from '../errors.js';
import { type Gunzip, gunzip, isGzip, isZstd, MAX_DECOMPRESSED } from './compress.js';
import { type ElfKernel, isElf, parseElf } from './elf.js';
import { type Arm64Image, isArm64Image, parseArm64Image, startsWith } from './image.js';
import { isZboot, parseZboot } from './zboot.js';

/** A flat program without a header: a bare-metal test, firmware. How much memory it has behind its bytes it does not say. */
export interface RawKernel {
  readonly bytes: Uint8Array;
}

/** A kernel, ready to be placed. */
export type Kernel = (
  | ({ readonly kind: 'image' } & Arm64Image)
  | ({ readonly kind: 'elf' } & ElfKernel)
  | ({ readonly kind: 'raw' } & RawKernel)
) & {
  /** What it was unpacked from, outermost first: `['zboot', 'gzip']`, or empty. */
  readonly wrappers: readonly string[];
};

export interface LoadKernelOptions {
  /** Most bytes that decompressing may give; 1 GiB if not given. The VM's memory is a good choice. */
  limit?: number;
  /** `'raw'`: a flat program, taken as it is whatever it begins with. */
  format?: 'auto' | 'raw';
  /** Inflates gzip in place of `DecompressionStream`. */
  gunzip?: Gunzip;
}

/** gzip in zboot in zstd is deeper than anything that exists; a file that holds itself must end somewhere. */
const MAX_WRAPPERS = 3;

/** Things that are not an arm64 kernel and that people give as one: where the mark is, what it means, what to do. */
const MISTAKES: readonly (readonly [
  code: 'ERR_KERNEL_ARCH' | 'ERR_KERNEL_FORMAT' | 'ERR_KERNEL_COMPRESSION',
  offset: number,
  mark: string,
  is: string,
])[] = [
  ['ERR_KERNEL_ARCH', 0x202, 'HdrS', 'it is an x86 kernel (bzImage); an arm64 kernel is needed'],
  ['ERR_KERNEL_ARCH', 0x38, 'RSC\x05', 'it is a RISC-V kernel; an arm64 kernel is needed'],
  ['ERR_KERNEL_ARCH', 0x24, '\x18\x28\x6f\x01', 'it is a 32-bit Arm kernel (zImage); an arm64 kernel is needed'],
  [
    'ERR_KERNEL_FORMAT',
    0,
    '\x27\x05\x19\x56',
    'it is a U-Boot image (uImage); give the kernel inside it (dumpimage -T kernel)',
  ],
  [
    'ERR_KERNEL_FORMAT',
    0,
    '\xd0\x0d\xfe\xed',
    'it is a device tree or a FIT image; give a device tree with --dtb, or the kernel inside the FIT image',
  ],
  ['ERR_KERNEL_FORMAT', 0, '070701', 'it is an initramfs (cpio); give it with --initrd'],
  ['ERR_KERNEL_FORMAT', 0, '070702', 'it is an initramfs (cpio); give it with --initrd'],
  [
    'ERR_KERNEL_FORMAT',
    0,
    'QFI\xfb',
    'it is a qcow2 disk image; convert it (qemu-img convert -O raw) and give it with --disk',
  ],
  ['ERR_KERNEL_FORMAT', 0x8001, 'CD001', 'it is an ISO image; give the kernel inside it'],
  [
    'ERR_KERNEL_FORMAT',
    0,
    '!<arch>\n',
    'it is a package or an archive (.deb, .a); give the kernel inside it (dpkg-deb -x)',
  ],
  ['ERR_KERNEL_FORMAT', 0, 'ANDROID!', 'it is an Android boot image; give the kernel inside it (unpack_bootimg)'],
  [
    'ERR_KERNEL_COMPRESSION',
    0,
    '\xfd7zXZ\0',
    'it is compressed with xz, which is not unpacked here; unpack it (xz -d)',
  ],
  ['ERR_KERNEL_COMPRESSION', 0, 'BZh', 'it is compressed with bzip2, which is not unpacked here; unpack it (bzip2 -d)'],
  [
    'ERR_KERNEL_COMPRESSION',
    0,
    '\x02\x21\x4c\x18',
    'it is compressed with lz4, which is not unpacked here; unpack it (lz4 -d)',
  ],
  [
    'ERR_KERNEL_COMPRESSION',
    0,
    '\x04\x22\x4d\x18',
    'it is compressed with lz4, which is not unpacked here; unpack it (lz4 -d)',
  ],
  [
    'ERR_KERNEL_COMPRESSION',
    0,
    '\x89LZO\0',
    'it is compressed with lzo, which is not unpacked here; unpack it (lzop -d)',
  ],
  [
    'ERR_KERNEL_COMPRESSION',
    0,
    '\x5d\0\0',
    'it is compressed with lzma, which is not unpacked here; unpack it (xz --format=lzma -d)',
  ],
];

/** `Machine` of a PE header (PE format §2.3.1), for EFI programs that are no arm64 Image. */
const PE_MACHINES: Readonly<Record<number, string>> = {
  332: 'x86 (32-bit)',
  448: 'Arm (32-bit)',
  450: 'Arm (32-bit)',
  20580: 'RISC-V',
  25188: 'LoongArch',
  34404: 'x86-64',
};

/**
 * Finds out what a kernel file is, and unpacks it: a raw arm64 Image, one in gzip, zstd or EFI zboot, or an ELF64 program.
 *
 * @throws VmError `ERR_KERNEL_EMPTY`; `ERR_KERNEL_TRUNCATED`; `ERR_KERNEL_ARCH` for another architecture; `ERR_KERNEL_ENDIAN`
 * big-endian; `ERR_KERNEL_COMPRESSION` corrupt, or a compression that is not unpacked; `ERR_KERNEL_TOO_BIG` over
 * `limit` bytes; `ERR_KERNEL_PLACEMENT`; `ERR_KERNEL_FORMAT` anything else
 */
export async function loadKernel(file: Uint8Array, options: LoadKernelOptions = {}): Promise<Kernel> {
  const limit = options.limit ?? MAX_DECOMPRESSED;
  const wrappers: string[] = [];
  let bytes = file;
  if (options.format === 'raw' && bytes.length > 0) return { kind: 'raw', wrappers, bytes };
  const unpack = async (compression: string, packed: Uint8Array): Promise<Uint8Array> => {
    wrappers.push(compression);
    // Loaded where it is needed: few kernels are packed so.
    if (compression === 'zstd') return (await import('./zstd.js')).unzstd(packed, limit);
    if (compression === 'gzip') {
      if (options.gunzip === undefined) return gunzip(packed, limit);
      return await options.gunzip(packed, limit);
    }
    throw new VmError(
      'ERR_KERNEL_COMPRESSION',
      `kernel: its EFI zboot payload is compressed with ${JSON.stringify(compression)}; only gzip and zstd are unpacked: give the kernel's Image`,
    );
  };
  for (;;) {
    if (bytes.length === 0) {
      throw new VmError(
        'ERR_KERNEL_EMPTY',
        `kernel: ${wrappers.length === 0 ? 'it' : `what the ${wrappers.join(' in ')} holds`} is empty (0 bytes)`,
      );
    }
    if (isArm64Image(bytes)) return { kind: 'image', wrappers, ...parseArm64Image(bytes) };
    if (isElf(bytes)) return { kind: 'elf', wrappers, ...parseElf(bytes) };
    if (wrappers.length >= MAX_WRAPPERS) {
      throw new VmError(
        'ERR_KERNEL_FORMAT',
        `kernel: it is packed more than ${MAX_WRAPPERS} times (${wrappers.join(' in ')})`,
      );
    }
    if (isZboot(bytes)) {
      const { compression, payload } = parseZboot(bytes);
      wrappers.push('zboot');
      bytes = await unpack(compression, payload);
    } else if (isGzip(bytes)) {
      bytes = await unpack('gzip', bytes);
    } else if (isZstd(bytes)) {
      bytes = await unpack('zstd', bytes);
    } else {
      throw refusal(bytes);
    }
  }
}

function refusal(bytes: Uint8Array): VmError {
  for (const [code, offset, mark, is] of MISTAKES) {
    if (startsWith(bytes, mark, offset)) return new VmError(code, `kernel: ${is}`);
  }
  const machine = peMachine(bytes);
  if (machine !== undefined) {
    const name = PE_MACHINES[machine];
    return name === undefined
      ? new VmError('ERR_KERNEL_FORMAT', 'kernel: it is an EFI program, not a Linux Image')
      : new VmError('ERR_KERNEL_ARCH', `kernel: it is an EFI program for ${name}; an arm64 kernel is needed`);
  }
  if (bytes.length < 64) {
    return new VmError(
      'ERR_KERNEL_TRUNCATED',
      `kernel: ${bytes.length} bytes are less than any kernel's header of 64; copy or download it again`,
    );
  }
  return new VmError(
    'ERR_KERNEL_FORMAT',
    'kernel: it is neither an arm64 Image (raw, gzip, zstd, EFI zboot) nor an AArch64 ELF file',
  );
}

function peMachine(bytes: Uint8Array): number | undefined {
  if (!startsWith(bytes, 'MZ') || bytes.length < 64) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const pe = view.getUint32(60, true);
  if (pe + 6 > bytes.length || !startsWith(bytes, 'PE\0\0', pe)) return undefined;
  return view.getUint16(pe + 4, true);
}
