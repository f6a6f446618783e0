import type { Scheduler } from '../vmm/scheduler.js';

/** setTimeout overflows beyond it. */
const MAX_TIMEOUT_MS = 2 ** 31 - 1;

/** What {@link nodeScheduler} has under way and `ref()` can reach. */
interface Refable {
  ref(): unknown;
  unref(): unknown;
}

/** A scheduler on Node's event loop: `setImmediate` lets pending I/O and timers go first, every time. */
export function nodeScheduler(): Scheduler {
  const live = new Set<Refable>();
  let ref = true;
  const track = <T extends Refable>(handle: T): T => {
    live.add(handle);
    if (!ref) handle.unref();
    return handle;
  };
  return {
    soon(turn) {
      const handle = track(
        setImmediate(() => {
          live.delete(handle);
          turn();
        }),
      );
      return () => {
        live.delete(handle);
        clearImmediate(handle);
      };
    },
    after(ms, turn) {
      const handle = track(
        setTimeout(
          () => {
            live.delete(handle);
            turn();
          },
          Math.min(ms, MAX_TIMEOUT_MS),
        ),
      );
      return () => {
        live.delete(handle);
        clearTimeout(handle);
      };
    },
    hold() {
      const handle = track(setInterval(() => {}, MAX_TIMEOUT_MS));
      return () => {
        live.delete(handle);
        clearInterval(handle);
      };
    },
    setRef(next) {
      ref = next;
      for (const handle of live) {
        if (next) handle.ref();
        else handle.unref();
      }
    },
    now: () => performance.now(),
  };
}
