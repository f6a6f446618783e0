import { VmError } from '../errors.js';
import { startsWith } from './image.js';

/** A program segment to be put into memory. */
export interface ElfSegment {
  /** Guest-physical (`p_paddr`). */
  readonly address: number;
  readonly bytes: Uint8Array;
  /** Memory that it occupies; what `bytes` do not fill is zero. */
  readonly size: number;
}

/** A statically linked ELF64 AArch64 program: a unikernel, an RTOS, a bare-metal test. */
export interface ElfKernel {
  /** Guest-physical. */
  readonly entry: number;
  /** In the order of their addresses, without overlap. */
  readonly segments: readonly ElfSegment[];
}

const EM_AARCH64 = 183;
const PT_LOAD = 1;
const PT_INTERP = 3;
const HEADER_SIZE = 64;
const PROGRAM_HEADER_SIZE = 56;
/** More program headers than any kernel has; a bound on the work that a file can ask for. */
const MAX_PROGRAM_HEADERS = 256;

/** `e_machine` of what people try (ELF specification; Linux, include/uapi/linux/elf-em.h). */
const MACHINES: Readonly<Record<number, string>> = {
  3: 'x86 (32-bit)',
  8: 'MIPS',
  20: 'PowerPC',
  21: 'PowerPC 64',
  22: 's390',
  40: 'Arm (32-bit)',
  62: 'x86-64',
  243: 'RISC-V',
  258: 'LoongArch',
};

export function isElf(bytes: Uint8Array): boolean {
  return startsWith(bytes, '\x7fELF');
}

/**
 * Reads an ELF64 AArch64 file's program headers.
 * @throws VmError `ERR_KERNEL_ARCH`, `ERR_KERNEL_ENDIAN`, `ERR_KERNEL_TRUNCATED`, `ERR_KERNEL_FORMAT`
 */
export function parseElf(bytes: Uint8Array): ElfKernel {
  if (bytes.length < HEADER_SIZE) {
    throw new VmError(
      'ERR_KERNEL_TRUNCATED',
      `kernel: the ELF header is truncated (${bytes.length} bytes of ${HEADER_SIZE})`,
    );
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const littleEndian = bytes[5] === 1;
  const machine = view.getUint16(18, littleEndian);
  if (machine !== EM_AARCH64 || bytes[4] !== 2) {
    const name = MACHINES[machine] ?? (machine === EM_AARCH64 ? '32-bit AArch64 (ILP32)' : `machine ${machine}`);
    throw new VmError('ERR_KERNEL_ARCH', `kernel: it is an ELF file for ${name}; an arm64 (AArch64) kernel is needed`);
  }
  if (!littleEndian) {
    throw new VmError(
      'ERR_KERNEL_ENDIAN',
      'kernel: it is a big-endian ELF file; only little-endian kernels are booted',
    );
  }
  const type = view.getUint16(16, true);
  if (type !== 2 && type !== 3) {
    throw new VmError(
      'ERR_KERNEL_FORMAT',
      `kernel: the ELF file is no program (e_type ${type}): link it to an executable`,
    );
  }
  const entryAddress = view.getBigUint64(24, true);
  const table = Number(view.getBigUint64(32, true));
  const [entrySize, count] = [view.getUint16(54, true), view.getUint16(56, true)];
  if (count === 0)
    throw new VmError('ERR_KERNEL_FORMAT', 'kernel: the ELF file has no program headers: there is nothing to load');
  if (entrySize < PROGRAM_HEADER_SIZE || count > MAX_PROGRAM_HEADERS) {
    throw new VmError(
      'ERR_KERNEL_FORMAT',
      `kernel: the ELF file has ${count} program headers of ${entrySize} bytes; at most ${MAX_PROGRAM_HEADERS}, of ${PROGRAM_HEADER_SIZE} or more`,
    );
  }
  if (table + entrySize * count > bytes.length) {
    throw new VmError(
      'ERR_KERNEL_TRUNCATED',
      `kernel: the ELF file's program headers reach over its end (${bytes.length} bytes); copy or download it again`,
    );
  }
  let entry: number | undefined;
  const segments: ElfSegment[] = [];
  for (let i = 0; i < count; i++) {
    const at = table + entrySize * i;
    const kind = view.getUint32(at, true);
    if (kind === PT_INTERP) {
      throw new VmError('ERR_KERNEL_FORMAT', 'kernel: the ELF file is a dynamically linked user program, not a kernel');
    }
    const quad = (offset: number) => view.getBigUint64(at + offset, true);
    if (kind !== PT_LOAD || quad(40) === 0n) continue;
    const [offset, virtual, physical, fileSize, size] = [quad(8), quad(16), quad(24), quad(32), quad(40)];
    if (fileSize > size)
      throw new VmError('ERR_KERNEL_FORMAT', `kernel: ELF segment ${i} is larger in the file than in memory`);
    if (offset + fileSize > BigInt(bytes.length)) {
      throw new VmError(
        'ERR_KERNEL_TRUNCATED',
        `kernel: ELF segment ${i} reaches over the file's end (${bytes.length} bytes); copy or download it again`,
      );
    }
    if (physical + size > BigInt(Number.MAX_SAFE_INTEGER)) {
      throw new VmError(
        'ERR_KERNEL_PLACEMENT',
        `kernel: ELF segment ${i} wants to be at physical address 0x${physical.toString(16)}, where no machine has memory; give the kernel's Image instead (objcopy -O binary)`,
      );
    }
    if (entryAddress >= virtual && entryAddress < virtual + size) entry = Number(entryAddress - virtual + physical);
    segments.push({
      address: Number(physical),
      bytes: bytes.subarray(Number(offset), Number(offset + fileSize)),
      size: Number(size),
    });
  }
  if (segments.length === 0) throw new VmError('ERR_KERNEL_FORMAT', 'kernel: the ELF file has no segment to load');
  if (entry === undefined || entry % 4 !== 0) {
    throw new VmError(
      'ERR_KERNEL_FORMAT',
      `kernel: the ELF file's entry 0x${entryAddress.toString(16)} is no instruction of its segments`,
    );
  }
  segments.sort((a, b) => a.address - b.address);
  for (const [i, segment] of segments.entries()) {
    const next = segments[i + 1];
    if (next !== undefined && segment.address + segment.size > next.address) {
      throw new VmError('ERR_KERNEL_FORMAT', `kernel: ELF segments overlap at 0x${next.address.toString(16)}`);
    }
  }
  return { entry, segments };
}
