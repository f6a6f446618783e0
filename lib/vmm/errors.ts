/**
 * An error's code. Those of `boot/` are `ERR_KERNEL_*`, `ERR_INITRD_*`, `ERR_DTB_*` and `ERR_MEMORY_*`, those of `fdt/`
 * `ERR_FDT_*`. A code never changes its meaning; a message may.
 */
export type VmErrorCode = `ERR_${string}`;

const BRAND: unique symbol = Symbol.for('elvisor.VmError') as never;

/**
 * What the VMM refuses: an input (kernel, initrd, device tree, disk, option) that breaks a rule. The message names the
 * input, the rule and the way out. Calls that the kernel refuses are `KvmError`s.
 */
export class VmError extends Error {
  override readonly name = 'VmError';
  readonly [BRAND] = true;
  /** Which rule was broken, such as `'ERR_KERNEL_EMPTY'`. */
  readonly code: VmErrorCode;

  constructor(code: VmErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }

  /** Whether `value` is a VmError (with that code, if one is given), also one of another copy of this module or another realm. */
  static is(value: unknown, code?: VmErrorCode): value is VmError {
    return (
      typeof value === 'object' &&
      value !== null &&
      (value as { [BRAND]?: boolean })[BRAND] === true &&
      (code === undefined || (value as VmError).code === code)
    );
  }
}
