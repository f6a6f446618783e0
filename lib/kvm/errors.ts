/** The errnos that KVM's arm64 calls answer with, by name (Linux, `include/uapi/asm-generic/errno*.h`). */
export const Errno = {
  EPERM: 1,
  ENOENT: 2,
  ESRCH: 3,
  EINTR: 4,
  EIO: 5,
  ENXIO: 6,
  E2BIG: 7,
  ENOEXEC: 8,
  EBADF: 9,
  EAGAIN: 11,
  ENOMEM: 12,
  EACCES: 13,
  EFAULT: 14,
  EBUSY: 16,
  EEXIST: 17,
  ENODEV: 19,
  EINVAL: 22,
  ENFILE: 23,
  EMFILE: 24,
  ENOTTY: 25,
  ENOSPC: 28,
  ENOSYS: 38,
  EOPNOTSUPP: 95,
  ETIMEDOUT: 110,
  ECANCELED: 125,
  EHWPOISON: 133,
} as const;

/** An errno's name, such as `'EEXIST'`. */
export type ErrnoCode = keyof typeof Errno;

const BRAND: unique symbol = Symbol.for('elvisor.KvmError') as never;

/**
 * A KVM call that failed. Both backends throw nothing else for a call that the kernel would refuse, and answer the
 * same mistake with the same `code`.
 */
export class KvmError extends Error {
  override readonly name = 'KvmError';
  readonly [BRAND] = true;
  /** The errno's name. */
  readonly code: ErrnoCode;
  /** The errno as a positive number. */
  readonly errno: number;
  /** The call that failed, by its name in the KVM API: `'KVM_CREATE_VCPU'`. */
  readonly syscall: string;

  constructor(code: ErrnoCode, syscall: string, detail?: string, options?: ErrorOptions) {
    super(`${syscall}: ${code}${detail === undefined ? '' : `: ${detail}`}`, options);
    this.code = code;
    this.errno = Errno[code];
    this.syscall = syscall;
  }

  /** Whether `value` is a KvmError (with that code, if one is given), also one of another copy of this module or another realm. */
  static is(value: unknown, code?: ErrnoCode): value is KvmError {
    return (
      typeof value === 'object' &&
      value !== null &&
      (value as { [BRAND]?: boolean })[BRAND] === true &&
      (code === undefined || (value as KvmError).code === code)
    );
  }
}
