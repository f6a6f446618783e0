/**
 * How the run loop gives the thread back and gets it again. The run loop never blocks: it runs the guest for a few
 * milliseconds, asks for another turn, and returns to the event loop.
 */
export interface Scheduler {
  /** Calls `turn` at the next turn of the event loop, after pending I/O and timers have had theirs. */
  soon(turn: () => void): Cancel;
  /** Calls `turn` after about `ms` milliseconds. */
  after(ms: number, turn: () => void): Cancel;
  /** Keeps the process alive while nothing is scheduled (a guest that waits for input), until cancelled. */
  hold(): Cancel;
  /** Whether what this scheduler has under way keeps the process alive. */
  setRef(ref: boolean): void;
  /** Milliseconds since some fixed point, never going back. */
  now(): number;
}

/** Takes back what it came from. May be called twice, and after the fact. */
export type Cancel = () => void;
