import { VmError } from '../errors.js';
import { type Arm64Image, IMAGE_ALIGN } from './image.js';
import type { Kernel } from './kernel.js';

/** Largest device tree (Linux, Documentation/arch/arm64/booting.rst, 2). */
export const DTB_MAX_SIZE = 2 * 1024 * 1024;
/** The initrd must lie with the kernel in one 1 GiB-aligned window of this size (booting.rst, 4). */
const INITRD_WINDOW = 32 * 1024 ** 3;
const GIB = 1024 ** 3;
/** Where QEMU puts an image that does not say where (`hw/arm/boot.c`, KERNEL64_LOAD_ADDR), from the start of RAM. */
const RAW_OFFSET = 0x8_0000;
/** What it leaves to such an image, from the start of RAM: half of it, at most this. */
const RAW_ROOM = 128 * 1024 * 1024;
const PAGE = 4096;

export interface PlacementInput {
  /** The RAM region that holds everything, guest-physical. */
  ram: { base: number; size: number };
  kernel: Kernel;
  /** Bytes; `undefined` or left out where there is none. */
  initrdSize?: number | undefined;
  /** Bytes. With an initrd the tree must name its place, so give an upper bound first: {@link DTB_MAX_SIZE} always does. */
  dtbSize: number;
}

/** Bytes to be put at a guest-physical address; of `size` bytes, those that `bytes` do not fill are zero. */
export interface Load {
  readonly address: number;
  readonly bytes: Uint8Array;
  readonly size: number;
}

/** Where everything goes, guest-physical. */
export interface Placement {
  /** The boot vCPU's first PC. */
  readonly entry: number;
  readonly kernel: readonly Load[];
  /** The boot vCPU's X0. */
  readonly dtb: number;
  /** `linux,initrd-start` and `linux,initrd-end`. */
  readonly initrd: { readonly start: number; readonly end: number } | undefined;
}

/**
 * Places a kernel, its device tree and its initrd by the arm64 boot protocol: an Image at a 2 MiB-aligned base plus its
 * text_offset, with room for its BSS; the tree above it, 8-byte aligned and within one 2 MiB block; the initrd above that.
 * An ELF program goes where it says, its tree at the start of RAM if that is free (where QEMU's `virt` has it), else above.
 * A raw one goes where QEMU puts it, with half of RAM, at most 128 MiB, to itself.
 *
 * @throws VmError `ERR_KERNEL_TOO_BIG`, `ERR_INITRD_TOO_BIG`, `ERR_DTB_TOO_BIG` what does not fit, and how much memory
 * would do; `ERR_INITRD_EMPTY`; `ERR_KERNEL_PLACEMENT` an ELF segment outside RAM
 */
export function placeBoot(input: PlacementInput): Placement {
  const { ram, kernel, dtbSize } = input;
  const ramEnd = ram.base + ram.size;
  if (dtbSize > DTB_MAX_SIZE) {
    throw new VmError(
      'ERR_DTB_TOO_BIG',
      `device tree: ${dtbSize} bytes are over the boot protocol's limit of ${DTB_MAX_SIZE}`,
    );
  }
  if (input.initrdSize === 0) {
    throw new VmError('ERR_INITRD_EMPTY', 'initrd: it is empty (0 bytes); leave --initrd out to boot without one');
  }
  const { entry, loads } = placeKernel(kernel, ram);
  const kernelEnd = Math.max(...loads.map((load) => load.address + load.size));
  const needed = (end: number) =>
    `it needs ${mebibytes(end - ram.base)} MiB of memory or more, and there are ${mebibytes(ram.size)}`;
  if (kernelEnd > ramEnd) {
    throw new VmError(
      'ERR_KERNEL_TOO_BIG',
      `kernel: it does not fit: with its BSS ${needed(kernelEnd)}; give more (--memory)`,
    );
  }

  const lowest = Math.min(...loads.map((load) => load.address));
  const start = align(ram.base, IMAGE_ALIGN);
  // 2 MiB-aligned and no larger than that, the tree lies within one 2 MiB block.
  const above = kernel.kind === 'raw' ? Math.max(kernelEnd, ram.base + Math.min(ram.size / 2, RAW_ROOM)) : kernelEnd;
  const dtb = kernel.kind === 'elf' && lowest - start >= dtbSize ? start : align(above, IMAGE_ALIGN);
  if (dtb + dtbSize > ramEnd) {
    throw new VmError(
      'ERR_DTB_TOO_BIG',
      `device tree: it does not fit above the kernel: ${needed(dtb + dtbSize)}; give more (--memory)`,
    );
  }

  let initrd: Placement['initrd'];
  if (input.initrdSize !== undefined) {
    const start = align(Math.max(kernelEnd, dtb + dtbSize), PAGE);
    const end = start + input.initrdSize;
    if (end > ramEnd) {
      throw new VmError(
        'ERR_INITRD_TOO_BIG',
        `initrd: its ${input.initrdSize} bytes do not fit above the kernel: ${needed(end)}; give more (--memory)`,
      );
    }
    if (end - Math.floor(lowest / GIB) * GIB > INITRD_WINDOW) {
      throw new VmError(
        'ERR_INITRD_TOO_BIG',
        `initrd: its ${input.initrdSize} bytes do not fit the boot protocol's window of 32 GiB around the kernel`,
      );
    }
    initrd = { start, end };
  }
  return { entry, kernel: loads, dtb, initrd };
}

/** Where an Image goes, guest-physical. */
export const imageAddress = ({ textOffset }: Pick<Arm64Image, 'textOffset'>, ramBase: number): number =>
  align(ramBase, IMAGE_ALIGN) + textOffset;

function placeKernel(kernel: Kernel, ram: PlacementInput['ram']): { entry: number; loads: Load[] } {
  if (kernel.kind === 'image') {
    const address = imageAddress(kernel, ram.base);
    return { entry: address, loads: [{ address, bytes: kernel.bytes, size: kernel.imageSize }] };
  }
  if (kernel.kind === 'raw') {
    const address = ram.base + RAW_OFFSET;
    return { entry: address, loads: [{ address, bytes: kernel.bytes, size: kernel.bytes.length }] };
  }
  for (const segment of kernel.segments) {
    if (segment.address < ram.base || segment.address + segment.size > ram.base + ram.size) {
      throw new VmError(
        'ERR_KERNEL_PLACEMENT',
        `kernel: an ELF segment of ${segment.size} bytes wants to be at physical address 0x${segment.address.toString(16)}; ` +
          `memory is from 0x${ram.base.toString(16)} to 0x${(ram.base + ram.size).toString(16)}: link it there, or give more (--memory)`,
      );
    }
  }
  return { entry: kernel.entry, loads: [...kernel.segments] };
}

function align(value: number, to: number): number {
  return Math.ceil(value / to) * to;
}

function mebibytes(bytes: number): number {
  return Math.ceil((bytes / 1024 / 1024) * 100) / 100;
}
