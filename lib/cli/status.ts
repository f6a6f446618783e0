import { UsageError } from './args.js';

/** Exit statuses of `elvisor`, besides a command's own and 128 + n for a signal. */
export const Status = { OK: 0, GUEST_DIED: 1, USAGE: 2, UNAVAILABLE: 3, TIMEOUT: 124 } as const;

/** Codes of errors that are neither bad input nor a failure of elvisor: something it needs is not there. */
const UNAVAILABLE = /^ERR_(BACKEND_UNAVAILABLE|GUEST_)/;
/** Codes of errors that say what is wrong with something that the user gave. */
const BAD_INPUT = /^ERR_(INVALID_OPTION|FILE|KERNEL|INITRD|DTB|FDT|DISK|MEMORY|EXEC_REQUEST)/;

/** The status that an error ends elvisor with. */
export function statusOf(error: unknown): number {
  if (error instanceof UsageError) return Status.USAGE;
  const code = codeOf(error);
  if (UNAVAILABLE.test(code)) return Status.UNAVAILABLE;
  return BAD_INPUT.test(code) ? Status.USAGE : Status.GUEST_DIED;
}

function codeOf(error: unknown): string {
  const { code } = (typeof error === 'object' && error !== null ? error : {}) as { code?: unknown };
  return typeof code === 'string' ? code : '';
}

/** What an error looks like to the user: one line, or, where it is a fault of elvisor's own, all there is. */
export function describe(error: unknown): string {
  if (error instanceof UsageError || codeOf(error).startsWith('ERR_')) return (error as Error).message;
  return `internal error: ${error instanceof Error ? error.stack : String(error)}`;
}
