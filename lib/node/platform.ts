import { channel } from 'node:diagnostics_channel';
import { close, openSync, read, readFile, statSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { openLazily } from '../backends.js';
import { overlay } from '../vmm/devices/virtio/overlay.js';
import { VmError } from '../vmm/errors.js';
import type { InputFile, Platform } from '../vmm/platform.js';
import { openFileDisk } from './file-disk.js';
import { nodeRandom } from './random.js';
import { nodeScheduler } from './scheduler.js';

/** A kernel, initrd or device tree larger than this would not fit any machine of the board that can be had. */
const MAX_FILE = 4 * 2 ** 30;
/** Bytes that one read asks for at most. */
const MAX_READ = 2 ** 30;

const readAt = promisify(read);
const readWhole = promisify(readFile);

/** A path as `node:fs` takes it. @throws VmError for a URL that is no file's */
export function pathOf(source: string | URL, what: string): string {
  if (typeof source === 'string') return source;
  if (source.protocol !== 'file:') {
    throw new VmError('ERR_INVALID_OPTION', `${what}: ${source.href} is no file: URL; fetch it and give the bytes`);
  }
  return fileURLToPath(source);
}

/** Opens a regular file that the user named. @throws VmError ERR_FILE, naming the file and what is wrong with it */
export function openInput(source: string | URL, what: string): InputFile | undefined {
  const path = pathOf(source, what);
  let fd: number;
  let size: number;
  try {
    const stat = statSync(path);
    if (stat.size > MAX_FILE) throw new VmError('ERR_FILE', `${what}: ${path} is too big (${stat.size} bytes)`);
    if (!stat.isFile() || stat.size === 0) return undefined;
    size = stat.size;
    fd = openSync(path, 'r');
  } catch (error) {
    return refuse(error, path, what);
  }
  return {
    size,
    read: async (into, position) => {
      const count = await fill(fd, into, position).catch((error: unknown) => refuse(error, path, what));
      if (count === into.length) return;
      throw new VmError('ERR_FILE', `${what}: ${path} became shorter while it was read; copy or download it again`);
    },
    close: () => close(fd, () => {}),
  };
}

/** Reads from a position on until `into` is full or the file ends. @returns bytes read */
async function fill(fd: number, into: Uint8Array, position: number): Promise<number> {
  let at = 0;
  while (at < into.length) {
    const { bytesRead } = await readAt(fd, into, at, Math.min(into.length - at, MAX_READ), position + at);
    if (bytesRead === 0) break;
    at += bytesRead;
  }
  return at;
}

/** Reads a file that the user named. @throws VmError ERR_FILE, naming the file and what is wrong with it */
export async function readInput(source: string | URL, what: string): Promise<Uint8Array> {
  const file = openInput(source, what);
  const path = pathOf(source, what);
  // A pipe, or a file of the kernel's that does not say its size.
  if (file === undefined) return readWhole(path).catch((error: unknown) => refuse(error, path, what));
  try {
    const bytes = Buffer.allocUnsafeSlow(file.size);
    await file.read(bytes, 0);
    return bytes;
  } finally {
    file.close();
  }
}

function refuse(error: unknown, path: string, what: string): never {
  if (VmError.is(error)) throw error;
  throw new VmError('ERR_FILE', `${what}: ${describe(error, path)}`, { cause: error });
}

function describe(error: unknown, path: string): string {
  const { code, message } = error as NodeJS.ErrnoException;
  switch (code) {
    case 'ENOENT':
      return `there is no file ${path}`;
    case 'EISDIR':
      return `${path} is a directory, not a file`;
    case 'EACCES':
    case 'EPERM':
      return `${path} may not be read (permission denied)`;
    default:
      return `${path} cannot be read: ${message}`;
  }
}

/** Node, as the VMM sees it. */
export const nodePlatform: Platform = {
  createScheduler: nodeScheduler,
  openKvm: openLazily,
  openFile: openInput,
  readFile: readInput,
  releaseFile: ({ buffer, byteLength }) => {
    // A buffer that moves is a new, young object: the next of the frequent collections takes it. A shared one stays.
    if (buffer instanceof ArrayBuffer && buffer.byteLength === byteLength)
      structuredClone(buffer, { transfer: [buffer] });
  },
  openDisk: (disk, clock) => {
    const path = pathOf(disk.path, 'disk');
    if (disk.overlay === true) return overlay(openFileDisk(path, { readOnly: true }));
    return openFileDisk(path, { readOnly: disk.readOnly, asyncFlush: clock === 'host' });
  },
  gunzip: async (bytes, limit) => {
    // Loaded where it is needed: it takes Node a few milliseconds of each start.
    const { gunzip } = await import('node:zlib');
    return promisify(gunzip)(bytes, { maxOutputLength: limit });
  },
  random: nodeRandom,
  publish: (name, message) => {
    const to = channel(name);
    if (to.hasSubscribers) to.publish(message());
  },
};
