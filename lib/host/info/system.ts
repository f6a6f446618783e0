import { accessSync, closeSync, constants, openSync, readFileSync, readSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { release } from 'node:os';
import type { HostSource } from './collect.js';
import type { ReadResult } from './facts.js';

/** Modules of Node's that only `hostInfo` needs: with them loading elvisor would take some milliseconds more. */
const require = createRequire(import.meta.url);
const childProcess = (): typeof import('node:child_process') => require('node:child_process');
const zlib = (): typeof import('node:zlib') => require('node:zlib');

/**
 * This machine.
 * @param open opens its KVM
 * @param quick starts no other program
 */
export function thisMachine(open: HostSource['open'], { quick = false } = {}): HostSource {
  return {
    platform: process.platform,
    arch: process.arch,
    kernel: release(),
    pageSize,
    read,
    logs: process.platform !== 'linux' ? [] : quick ? [KMSG] : [KMSG, JOURNAL],
    open,
  };
}

/** What access(2) says of using a device: `'ok'`, or the errno's name. */
export function access(path: string): string {
  try {
    accessSync(path, constants.R_OK | constants.W_OK);
    return 'ok';
  } catch (error) {
    return errnoName(error);
  }
}

function read(path: string): ReadResult {
  try {
    if (statSync(path).isDirectory()) return { text: '' };
    const bytes = readFileSync(path);
    return {
      text: (path.endsWith('.gz') ? zlib().gunzipSync(bytes, { maxOutputLength: 16 << 20 }) : bytes).toString(),
    };
  } catch (error) {
    return { error: errnoName(error) };
  }
}

const KMSG = { source: '/dev/kmsg', read: kmsg };
const JOURNAL = { source: 'journalctl -k -b', read: journal };

/** A record has at most 8 KiB (CONSOLE_EXT_LOG_MAX); a ring of the largest size, 32 MiB, has not so many. */
const MAX_RECORDS = 1_000_000;

/** The kernel's ring of messages: a read gives one record, `prio,seq,time,flags;text` (`Documentation/ABI/testing/dev-kmsg`). */
function kmsg(): ReadResult {
  let fd: number;
  try {
    fd = openSync('/dev/kmsg', constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    return { error: errnoName(error) };
  }
  const record = Buffer.alloc(8192);
  const lines: string[] = [];
  try {
    for (let i = 0; i < MAX_RECORDS; i++) {
      try {
        const text = record.toString('utf8', 0, readSync(fd, record));
        // Lines that begin with a blank are the record's dictionary.
        lines.push(text.slice(text.indexOf(';') + 1).split('\n', 1)[0]!);
      } catch (error) {
        const name = errnoName(error);
        // EPIPE: what was next has been overwritten meanwhile. EAGAIN: that was all.
        if (name === 'EPIPE') continue;
        if (name === 'EAGAIN') break;
        return { error: name };
      }
    }
  } finally {
    closeSync(fd);
  }
  return { text: lines.join('\n') };
}

/** For members of the groups that may read the journal. */
function journal(): ReadResult {
  const { status, stdout, error } = childProcess().spawnSync(
    'journalctl',
    ['-k', '-b', '-o', 'cat', '--no-pager', '-q'],
    {
      encoding: 'utf8',
      timeout: 5000,
      maxBuffer: 32 << 20,
      stdio: ['ignore', 'pipe', 'ignore'],
    },
  );
  if (error !== undefined) return { error: errnoName(error) };
  return status === 0 ? { text: stdout } : { error: `status ${status}` };
}

const AT_PAGESZ = 6n;

/** From the auxiliary vector, which the kernel gives every process; 0 where there is none. */
function pageSize(): number {
  try {
    const auxv = readFileSync('/proc/self/auxv');
    for (let at = 0; at + 16 <= auxv.length; at += 16) {
      if (auxv.readBigUInt64LE(at) === AT_PAGESZ) return Number(auxv.readBigUInt64LE(at + 8));
    }
  } catch {}
  return 0;
}

function errnoName(error: unknown): string {
  const { code } = error as NodeJS.ErrnoException;
  return code ?? String(error);
}
