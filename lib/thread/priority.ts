import { readdirSync, readlinkSync } from 'node:fs';
import { getPriority, setPriority } from 'node:os';

/** How much nicer than it was a thread gets: a third of the share of the thread that runs a guest, where they compete. */
const STEP = 5;
const NICEST = 19;

/** This thread's number. @throws where the kernel is not Linux */
const self = (): number => Number(readlinkSync('/proc/thread-self').split('/').at(-1));

/** Linux keeps a nice value for each thread, and takes a thread's number where POSIX has a process. */
function lower(thread: number): void {
  try {
    setPriority(thread, Math.min(getPriority(thread) + STEP, NICEST));
  } catch {
    // The thread has ended.
  }
}

/** Has the other threads of the process go before this one where there are fewer processors than want to run. On Linux only. */
export function lowerThisThread(): void {
  try {
    lower(self());
  } catch {
    // Without its number it stays as it is.
  }
}

/**
 * Has the threads that V8 optimises and collects garbage on go behind those that run guests. V8 has four, and where there are two
 * processors they take a fifth of the time of a guest that boots. For programs that are there for their VM, as `elvisor run` is: it
 * changes the whole process and cannot be taken back. To be called first: it lowers the nice value of each thread that is there, but
 * not of the main thread, nor of this one. On Linux only; elsewhere it does nothing.
 */
export function lowerHelperThreads(): void {
  try {
    const kept = new Set([process.pid, self()]);
    for (const task of readdirSync('/proc/self/task')) if (!kept.has(Number(task))) lower(Number(task));
  } catch {
    // Without a list of them they stay as they are.
  }
}
