import type { Writable } from 'node:stream';
import type { ConsoleDuplex } from './console-duplex.js';

/**
 * Writes all that comes out of `from` to `to`, which stays open, until the VM ends; what `to` does not take waits. Without a
 * `to`, or once it is broken (a reader that went away), the rest is dropped.
 * @param onBroken called once, when `to` breaks
 * @returns a promise that resolves when `from` has ended and all of it was handed to `to`
 */
export function drain(from: ConsoleDuplex, to: Writable | undefined, onBroken: () => void): Promise<void> {
  return new Promise((resolve) => {
    from.once('end', resolve);
    from.once('close', resolve);
    if (to === undefined) {
      from.resume();
      return;
    }
    const broken = (): void => {
      // A pipe whose destination fails stops in the middle: the rest has to flow, or the end would never come.
      from.unpipe(to);
      from.resume();
      onBroken();
    };
    if (to.destroyed || to.errored) {
      broken();
      return;
    }
    to.once('error', broken);
    from.once('end', () => to.off('error', broken));
    from.pipe(to, { end: false });
  });
}
