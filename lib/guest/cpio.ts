import { VmError } from '../vmm/errors.js';

/** File types in `mode` (Linux, include/uapi/linux/stat.h). */
export const CpioType = {
  FIFO: 0o010000,
  CHAR: 0o020000,
  DIRECTORY: 0o040000,
  BLOCK: 0o060000,
  FILE: 0o100000,
  SYMLINK: 0o120000,
  MASK: 0o170000,
} as const;

/** One entry of a newc archive. */
export interface CpioEntry {
  /** Without a leading slash. */
  readonly name: string;
  /** {@link CpioType} and permissions. */
  readonly mode: number;
  /** A file's contents, or a symbolic link's target. */
  readonly data: Uint8Array;
  readonly uid: number;
  readonly gid: number;
  /** Seconds since 1970. */
  readonly mtime: number;
  /** Of a device node: major and minor number. */
  readonly rdev: readonly [major: number, minor: number];
}

const HEADER_SIZE = 110;
const TRAILER = 'TRAILER!!!';
/** PATH_MAX, with the NUL: the kernel reads no longer name (init/initramfs.c). */
const MAX_NAME = 4096;
const U32 = 0xffff_ffff;

/**
 * A directory entry, with its permissions.
 * @param mode permissions, 0o755 if not given
 */
export function directory(name: string, mode = 0o755): CpioEntry {
  return entry(name, CpioType.DIRECTORY | mode);
}

/** A regular file; text is UTF-8. */
export function file(name: string, data: Uint8Array | string, mode = 0o644): CpioEntry {
  return entry(name, CpioType.FILE | mode, typeof data === 'string' ? new TextEncoder().encode(data) : data);
}

export function symlink(name: string, target: string): CpioEntry {
  return entry(name, CpioType.SYMLINK | 0o777, new TextEncoder().encode(target));
}

export function charDevice(name: string, major: number, minor: number, mode = 0o600): CpioEntry {
  return { ...entry(name, CpioType.CHAR | mode), rdev: [major, minor] };
}

function entry(name: string, mode: number, data: Uint8Array = new Uint8Array(0)): CpioEntry {
  return { name, mode, data, uid: 0, gid: 0, mtime: 0, rdev: [0, 0] };
}

/**
 * Writes a newc archive, which the kernel unpacks as its initramfs (Linux, Documentation/driver-api/early-userspace/buffer-format.rst).
 * Equal entries give equal bytes: inode numbers count from 1, and no time is taken from a clock.
 *
 * @throws VmError `ERR_CPIO_WRITE` a name that is empty, absolute, too long or there twice; a number out of range
 */
export function writeCpio(entries: readonly CpioEntry[]): Uint8Array {
  const seen = new Set<string>();
  const parts: Uint8Array[] = [];
  let size = 0;
  const append = (bytes: Uint8Array): void => {
    parts.push(bytes);
    size += bytes.length;
    const padding = -size & 3;
    if (padding !== 0) {
      parts.push(new Uint8Array(padding));
      size += padding;
    }
  };
  const write = (item: CpioEntry, ino: number): void => {
    const name = new TextEncoder().encode(`${item.name}\0`);
    const links = (item.mode & CpioType.MASK) === CpioType.DIRECTORY ? 2 : 1;
    const [major, minor] = item.rdev;
    const fields = [
      ino,
      item.mode,
      item.uid,
      item.gid,
      links,
      item.mtime,
      item.data.length,
      0,
      0,
      major,
      minor,
      name.length,
      0,
    ];
    let header = '070701';
    for (const field of fields) {
      check(
        Number.isInteger(field) && field >= 0 && field <= U32,
        `${item.name}: ${field} does not fit a field of 32 bits`,
      );
      header += field.toString(16).padStart(8, '0');
    }
    const head = new Uint8Array(HEADER_SIZE + name.length);
    head.set(new TextEncoder().encode(header));
    head.set(name, HEADER_SIZE);
    append(head);
    append(item.data);
  };
  for (const [i, item] of entries.entries()) {
    check(
      item.name !== '' && !item.name.startsWith('/') && !item.name.includes('\0'),
      `${JSON.stringify(item.name)} is no name: it is empty, absolute or holds a NUL`,
    );
    check(item.name !== TRAILER, `${TRAILER} would end the archive`);
    check(new TextEncoder().encode(item.name).length < MAX_NAME, `a name is longer than ${MAX_NAME - 1} bytes`);
    check(!seen.has(item.name), `${JSON.stringify(item.name)} is there twice`);
    seen.add(item.name);
    write(item, i + 1);
  }
  write(entry(TRAILER, 0), 0);
  const archive = new Uint8Array(size);
  let at = 0;
  for (const part of parts) {
    archive.set(part, at);
    at += part.length;
  }
  return archive;
}

function check(holds: boolean, rule: string): asserts holds {
  if (!holds) throw new VmError('ERR_CPIO_WRITE', `cpio: ${rule}`);
}

/**
 * Reads a newc archive (`070701`, or `070702` without checking sums). The bytes may be hostile: every length is checked;
 * contents are views, not copies. Names are given as they are: who writes them to a disk must mind `..`.
 *
 * @throws VmError `ERR_CPIO_FORMAT`, with the offset and the rule that is broken
 */
export function readCpio(archive: Uint8Array): CpioEntry[] {
  const fail = (at: number, rule: string): never => {
    throw new VmError('ERR_CPIO_FORMAT', `cpio: at byte ${at}: ${rule}`);
  };
  const entries: CpioEntry[] = [];
  const decoder = new TextDecoder();
  for (let at = 0; ; ) {
    if (at + HEADER_SIZE > archive.length) fail(at, 'the archive ends without its trailer: it is truncated');
    const header = decoder.decode(archive.subarray(at, at + HEADER_SIZE));
    if (!/^07070[12][0-9A-Fa-f]{104}$/.test(header)) fail(at, 'this is no newc header (070701 and 13 numbers in hex)');
    const field = (index: number) => Number.parseInt(header.slice(6 + 8 * index, 14 + 8 * index), 16);
    const [size, nameSize] = [field(6), field(11)];
    if (nameSize < 1 || nameSize > MAX_NAME) fail(at, `a name of ${nameSize} bytes; 1 to ${MAX_NAME} are allowed`);
    const nameEnd = at + HEADER_SIZE + nameSize;
    if (nameEnd > archive.length) fail(at, "a name reaches over the archive's end");
    if (archive[nameEnd - 1] !== 0) fail(at, 'a name does not end with a NUL');
    const name = decoder.decode(archive.subarray(at + HEADER_SIZE, nameEnd - 1));
    if (name.includes('\0')) fail(at, 'a name holds a NUL');
    if (name === TRAILER) return entries;
    const start = (nameEnd + 3) & ~3;
    if (start + size > archive.length)
      fail(at, `${JSON.stringify(name)}: its ${size} bytes reach over the archive's end`);
    entries.push({
      name,
      mode: field(1),
      data: archive.subarray(start, start + size),
      uid: field(2),
      gid: field(3),
      mtime: field(5),
      rdev: [field(9), field(10)],
    });
    at = (start + size + 3) & ~3;
  }
}
