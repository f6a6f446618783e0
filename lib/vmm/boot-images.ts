import {
  IMAGE_HEADER_SIZE,
  isArm64Image,
  type Kernel,
  loadKernel,
  type Placement,
  parseArm64Image,
} from './boot/index.js';
import { VmError } from './errors.js';
import type { BootImages } from './machine.js';
import type { ImageSource, ResolvedOptions } from './options.js';
import type { InputFile, Platform } from './platform.js';

/** What a machine starts with, read; `release()` gives back the memory of what was read. */
export type ReadImages = BootImages & { release(): void };

/** Reads, and unpacks, what a machine starts with. @throws VmError of the file or kernel that is wrong */
export async function readImages(options: ResolvedOptions, platform: Platform): Promise<ReadImages> {
  const [file, initrd, dtb] = await Promise.all([
    read(platform, options.kernel, 'kernel'),
    options.initrd === undefined ? undefined : read(platform, options.initrd, 'initrd'),
    options.dtb === undefined ? undefined : read(platform, options.dtb, 'dtb'),
  ]);
  const gunzip = platform.gunzip;
  const kernel = await loadKernel(file, {
    limit: options.memory,
    format: options.kernelFormat,
    ...(gunzip === undefined ? {} : { gunzip }),
  });
  const release = (): void => {
    if (file !== options.kernel) platform.releaseFile?.(file);
    if (initrd !== undefined && initrd !== options.initrd) platform.releaseFile?.(initrd);
  };
  return { kernel, initrd, dtb, release };
}

async function read(platform: Platform, source: ImageSource, what: string): Promise<Uint8Array> {
  if (source instanceof Uint8Array) return source;
  if (platform.readFile === undefined) {
    throw new VmError('ERR_INVALID_OPTION', `${what}: there is no file system here; give the bytes`);
  }
  return platform.readFile(source, what);
}

/** Bytes of a kernel's file to begin with: an Image's headers. */
const HEAD = 4096;

/** A machine's RAM, for what is read into it. */
export interface ImageRam {
  /** Where a kernel and an initrd of so many bytes go. @throws VmError what does not fit */
  place(kernel: Kernel, initrdSize: number | undefined): Placement;
  /** The RAM at a guest-physical address that {@link place} gave. */
  bytesAt(address: number, size: number): Uint8Array;
}

/** Images that are being read into a machine's RAM. */
export type ReadingImages = ReadImages & {
  /** Settled once nothing is written into the RAM any more, which must stay until then. @throws VmError of the file that is wrong */
  readonly read: Promise<void>;
};

/** Images that are there to be read. */
export interface OpenedImages {
  /**
   * Reads what can be into the RAM where it is to be, which spares a copy and the time of it: {@link Machine.load} takes it for being there.
   * Of what is read so, only how long it is, and where it goes, is known at first. @throws VmError of the file or kernel that is wrong
   */
  readInto(ram: ImageRam): Promise<ReadingImages>;
  /** Nothing is read any more. To be called where {@link readInto} was not. */
  close(): void;
}

/**
 * Begins with what a machine starts with while that is being built. An Image that is a file, and its initrd, are opened and wait for
 * the RAM; anything else is read, and unpacked, from now on.
 */
export async function openImages(options: ResolvedOptions, platform: Platform): Promise<OpenedImages> {
  const opened: InputFile[] = [];
  const open = (source: ImageSource | undefined, what: string): InputFile | undefined => {
    if (source === undefined || source instanceof Uint8Array) return undefined;
    const file = platform.openFile?.(source, what);
    if (file !== undefined) opened.push(file);
    return file;
  };
  const close = (): void => {
    for (const file of opened.splice(0)) file.close();
  };
  try {
    const file = options.kernelFormat === 'auto' ? open(options.kernel, 'kernel') : undefined;
    const head = file === undefined ? undefined : await headOf(file);
    if (file === undefined || head === undefined) {
      close();
      const images = readImages(options, platform);
      images.catch(() => {});
      return { readInto: async () => ({ ...(await images), read: Promise.resolve() }), close };
    }
    const kernel: Kernel = { kind: 'image', wrappers: [], ...parseArm64Image(head, file.size) };
    const initrdFile = open(options.initrd, 'initrd');
    const [initrd, dtb] = await Promise.all([
      options.initrd === undefined || initrdFile !== undefined ? undefined : read(platform, options.initrd, 'initrd'),
      options.dtb === undefined ? undefined : read(platform, options.dtb, 'dtb'),
    ]);
    return {
      readInto: async (ram) => {
        try {
          const placement = ram.place(kernel, initrdFile?.size ?? initrd?.length);
          const image = ram.bytesAt(placement.entry, file.size);
          const disk = initrdFile && ram.bytesAt(placement.initrd!.start, initrdFile.size);
          const reading = readBoth(file.read(image, 0), disk && initrdFile?.read(disk, 0)).finally(close);
          // Who waits for it hears of what goes wrong.
          reading.catch(() => {});
          const release = (): void => {
            if (initrd !== undefined && initrd !== options.initrd) platform.releaseFile?.(initrd);
          };
          return { kernel: { ...kernel, bytes: image }, initrd: disk ?? initrd, dtb, release, read: reading };
        } catch (error) {
          close();
          throw error;
        }
      },
      close,
    };
  } catch (error) {
    close();
    throw error;
  }
}

/** Waits for both to their ends, even if one fails: then nobody writes into RAM that may be given back. */
async function readBoth(...reads: readonly (Promise<void> | undefined)[]): Promise<void> {
  for (const end of await Promise.allSettled(reads)) if (end.status === 'rejected') throw end.reason;
}

/** The first bytes of a file, if they are those of an arm64 Image. */
async function headOf(file: InputFile): Promise<Uint8Array | undefined> {
  if (file.size < IMAGE_HEADER_SIZE) return undefined;
  const head = new Uint8Array(Math.min(file.size, HEAD));
  await file.read(head, 0);
  return isArm64Image(head) ? head : undefined;
}
