import { closeSync, constants, fdatasync, fdatasyncSync, fstatSync, openSync, readSync, writeSync } from 'node:fs';
import type { BlockBackend } from '../vmm/devices/virtio/blk.js';
import { overlay } from '../vmm/devices/virtio/overlay.js';

/** What is wrong with a disk image. */
export type DiskErrorCode =
  | 'ERR_DISK_NOT_FOUND'
  | 'ERR_DISK_NOT_A_FILE'
  | 'ERR_DISK_SIZE'
  | 'ERR_DISK_NOT_READABLE'
  | 'ERR_DISK_NOT_WRITABLE'
  | 'ERR_DISK_IO';

/** A disk image that cannot be used, or can no longer be read or written. The message names the file and the way out. */
export class DiskError extends Error {
  override readonly name = 'DiskError';
  readonly code: DiskErrorCode;
  /** The file, as it was given. */
  readonly path: string;

  constructor(code: DiskErrorCode, path: string, detail: string, options?: ErrorOptions) {
    super(`disk ${path}: ${detail}`, options);
    this.code = code;
    this.path = path;
  }
}

/** How a disk image is opened. */
export interface FileDiskOptions {
  /** The guest may not write, and the file need not be writable. Default: `false`. */
  readonly readOnly?: boolean | undefined;
  /** What the guest writes stays in memory and is gone with the disk; the file is only read. Default: `false`. */
  readonly overlay?: boolean | undefined;
  /** The event loop goes on during a flush, which then ends at no time that the guest can foresee. Default: `false`. */
  readonly asyncFlush?: boolean | undefined;
}

/** A raw image file as a disk. */
export interface FileDisk extends BlockBackend {
  close(): void;
}

const SECTOR_SIZE = 512;

/**
 * Opens a raw disk image: a regular file of whole 512-byte sectors.
 * @throws DiskError ERR_DISK_NOT_FOUND, ERR_DISK_NOT_A_FILE (a directory, a device), ERR_DISK_SIZE (empty, or not a multiple
 *   of 512), ERR_DISK_NOT_READABLE, ERR_DISK_NOT_WRITABLE, ERR_DISK_IO
 */
export function openFileDisk(path: string, options: FileDiskOptions = {}): FileDisk {
  const copyOnWrite = options.overlay === true && options.readOnly !== true;
  const readOnly = copyOnWrite || options.readOnly === true;
  const fd = open(path, readOnly);
  try {
    const stat = fstatSync(fd);
    if (stat.isDirectory()) throw isDirectory(path);
    if (!stat.isFile())
      throw new DiskError('ERR_DISK_NOT_A_FILE', path, 'is not a regular file; give a raw disk image');
    if (stat.size === 0) {
      throw new DiskError('ERR_DISK_SIZE', path, 'is empty; make a disk with: truncate -s 1G FILE');
    }
    if (stat.size % SECTOR_SIZE !== 0) {
      const whole = Math.ceil(stat.size / SECTOR_SIZE) * SECTOR_SIZE;
      throw new DiskError(
        'ERR_DISK_SIZE',
        path,
        `its ${stat.size} bytes are not a multiple of ${SECTOR_SIZE}; a raw image has whole sectors: truncate -s ${whole} FILE`,
      );
    }
    const file = new RawFile(path, fd, stat.size, readOnly, options.asyncFlush ?? false);
    return copyOnWrite ? overlay(file) : file;
  } catch (error) {
    closeSync(fd);
    throw error instanceof DiskError ? error : ioError(path, 'cannot be examined', error);
  }
}

class RawFile implements FileDisk {
  readonly path: string;
  readonly capacity: number;
  readonly readOnly: boolean;
  readonly #fd: number;
  readonly #asyncFlush: boolean;
  #flushing = 0;
  #closed = false;

  constructor(path: string, fd: number, capacity: number, readOnly: boolean, asyncFlush: boolean) {
    this.path = path;
    this.#fd = fd;
    this.capacity = capacity;
    this.readOnly = readOnly;
    this.#asyncFlush = asyncFlush;
  }

  read(offset: number, into: Uint8Array): void {
    this.#check(offset, into.length);
    let done = 0;
    while (done < into.length) {
      let count: number;
      try {
        count = readSync(this.#fd, into, done, into.length - done, offset + done);
      } catch (error) {
        throw ioError(this.path, `cannot be read at ${offset + done}`, error);
      }
      if (count === 0) throw new DiskError('ERR_DISK_IO', this.path, 'was truncated while in use');
      done += count;
    }
  }

  write(offset: number, from: Uint8Array): void {
    this.#check(offset, from.length);
    if (this.readOnly) throw new DiskError('ERR_DISK_NOT_WRITABLE', this.path, 'is open for reading only');
    let done = 0;
    while (done < from.length) {
      try {
        done += writeSync(this.#fd, from, done, from.length - done, offset + done);
      } catch (error) {
        throw ioError(this.path, `cannot be written at ${offset + done}`, error);
      }
    }
  }

  flush(): void | Promise<void> {
    this.#check(0, 0);
    if (this.readOnly) return;
    if (!this.#asyncFlush) {
      try {
        fdatasyncSync(this.#fd);
      } catch (error) {
        throw ioError(this.path, 'cannot be flushed', error);
      }
      return;
    }
    this.#flushing++;
    return new Promise((resolve, reject) => {
      fdatasync(this.#fd, (error) => {
        this.#flushing--;
        if (this.#closed) this.#release();
        if (error === null) resolve();
        else reject(ioError(this.path, 'cannot be flushed', error));
      });
    });
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#release();
  }

  /** The descriptor stays until the last flush is through: its number must not be another file's by then. */
  #release(): void {
    if (this.#flushing === 0) closeSync(this.#fd);
  }

  #check(offset: number, length: number): void {
    if (this.#closed) throw new DiskError('ERR_DISK_IO', this.path, 'is closed');
    if (!Number.isSafeInteger(offset) || offset < 0 || offset + length > this.capacity) {
      throw new RangeError(`disk ${this.path}: ${length} bytes at ${offset} do not lie in its ${this.capacity}`);
    }
  }
}

function open(path: string, readOnly: boolean): number {
  try {
    // Without O_NONBLOCK, opening a FIFO would wait for its other end.
    const nonblock = constants.O_NONBLOCK ?? 0;
    return openSync(path, (readOnly ? constants.O_RDONLY : constants.O_RDWR) | nonblock);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    const options = { cause: error };
    switch (code) {
      case 'ENOENT':
      case 'ENOTDIR':
        throw new DiskError('ERR_DISK_NOT_FOUND', path, 'no such file', options);
      case 'EISDIR':
        throw isDirectory(path, options);
      case 'EACCES':
      case 'EPERM':
      case 'EROFS':
      case 'ETXTBSY':
        if (readOnly)
          throw new DiskError('ERR_DISK_NOT_READABLE', path, 'may not be read; check its permissions', options);
        throw new DiskError(
          'ERR_DISK_NOT_WRITABLE',
          path,
          'may not be written; check its permissions, or attach it read-only (ro) or with an overlay (overlay)',
          options,
        );
      default:
        throw ioError(path, 'cannot be opened', error);
    }
  }
}

function isDirectory(path: string, options?: ErrorOptions): DiskError {
  return new DiskError('ERR_DISK_NOT_A_FILE', path, 'is a directory; give a raw disk image', options);
}

function ioError(path: string, what: string, error: unknown): DiskError {
  const code = (error as NodeJS.ErrnoException).code ?? String(error);
  return new DiskError('ERR_DISK_IO', path, `${what} (${code})`, { cause: error });
}
