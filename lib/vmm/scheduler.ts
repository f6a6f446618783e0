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

/** A scheduler of web platform parts only, for browsers and Workers: a MessageChannel's messages are not throttled as timers are. */
export function webScheduler(): Scheduler {
  const pending: (() => void)[] = [];
  const { port1, port2 } = new MessageChannel();
  port1.addEventListener('message', () => pending.shift()?.());
  port1.start();
  return {
    soon(turn) {
      let live = true;
      pending.push(() => {
        if (live) turn();
      });
      port2.postMessage(0);
      return () => {
        live = false;
      };
    },
    after(ms, turn) {
      const timer = setTimeout(turn, ms);
      return () => clearTimeout(timer);
    },
    hold: () => () => {},
    setRef: () => {},
    now: () => performance.now(),
  };
}
