import { Errno, type ErrnoCode, KvmError } from '../kvm/errors.js';

const CODES: ReadonlyMap<number, ErrnoCode> = new Map(
  Object.entries(Errno).map(([code, errno]) => [errno, code as ErrnoCode]),
);

/** The error of a call that answered `-errno`. An errno that no KVM call documents is EIO, with its number in the message. */
export function kvmError(result: number, syscall: string, detail?: string): KvmError {
  const code = CODES.get(-result);
  if (code !== undefined) return new KvmError(code, syscall, detail ?? (code === 'EBADF' ? 'it is closed' : undefined));
  const number = `errno ${-result}`;
  return new KvmError('EIO', syscall, detail === undefined ? number : `${number}: ${detail}`);
}

/** The result of a call that answers a number, thrown where it is an errno. */
export function check(result: number, syscall: string, detail?: string): number {
  if (result < 0) throw kvmError(result, syscall, detail);
  return result;
}

/** The object that a call answers, or its errno, thrown. */
export function checkHandle<T extends object>(result: T | number, syscall: string, detail?: string): T {
  if (typeof result === 'number') throw kvmError(result, syscall, detail);
  return result;
}
