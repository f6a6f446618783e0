/** What Linux prints last when it panics and is not told to reboot (`kernel/panic.c`); after it, nothing comes any more. */
const HALTED = /---\[ end Kernel panic - not syncing: [^\n]*\]---\s*$/;
/** A panic, and none of what an orderly shutdown prints (`kernel/reboot.c`) after it. */
const PANIC = 'Kernel panic - not syncing';
const ORDERLY = /reboot: (?:Power down|Restarting system|System halted)/;

/** Characters of the console's end in which to look: a panic with its register dump and backtrace fits. */
export const PANIC_WINDOW = 16 * 1024;
/** How long a console must have been silent after {@link HALTED}, in milliseconds: a log file that ends so, shown by `cat`, is followed by a prompt. */
export const PANIC_SILENCE_MS = 1000;

/** Whether a console that ends so belongs to a guest that reset or powered off because it panicked. */
export function endedInPanic(tail: string): boolean {
  const at = tail.lastIndexOf(PANIC);
  return at >= 0 && !ORDERLY.test(tail.slice(at));
}

/** Whether a console that ends so belongs to a kernel that has panicked and now spins for ever, unless more follows. */
export const haltedInPanic = (tail: string): boolean => HALTED.test(tail);
