// What Linux says of this process: how long the main thread waited for a processor, which pages of memory are there.
import { closeSync, openSync, readFileSync, readSync } from 'node:fs';

const PAGE = 4096;
/** Bit 63 of an entry of pagemap, as a byte of it: the page is present (Documentation/admin-guide/mm/pagemap.rst). */
const PRESENT = 0x80;
const SAMPLE_MS = 5;

/** Milliseconds that the main thread has been ready to run while others had the processors (proc(5), schedstat); 0 elsewhere than on Linux. */
function waitedMs() {
  try {
    return Number(readFileSync(`/proc/self/task/${process.pid}/schedstat`, 'latin1').split(' ')[1]) / 1e6;
  } catch {
    return 0;
  }
}

/**
 * Measures from now on by how much timers are late. The time that the thread waited for a processor is no pause of the program's
 * making, so it is told apart.
 * @returns a function that ends it: `{ pauseMs, withWaitsMs }`, the longest without such time and the longest with it
 */
export function watchPauses() {
  let [pauseMs, withWaitsMs] = [0, 0];
  let [last, waited] = [performance.now(), waitedMs()];
  const timer = setInterval(() => {
    const [now, waitedNow] = [performance.now(), waitedMs()];
    const late = now - last - SAMPLE_MS;
    pauseMs = Math.max(pauseMs, late - (waitedNow - waited));
    withWaitsMs = Math.max(withWaitsMs, late);
    [last, waited] = [now, waitedNow];
  }, SAMPLE_MS);
  timer.unref();
  return () => {
    clearInterval(timer);
    return { pauseMs, withWaitsMs };
  };
}

/**
 * Bytes of a part of the largest mapping, which is a VM's linear memory, that are in memory.
 * @param offset bytes, from the mapping's start
 * @returns `undefined` where the kernel does not tell
 */
export function residentBytes(offset, length) {
  let fd;
  try {
    const mappings = [...readFileSync('/proc/self/maps', 'latin1').matchAll(/^([\da-f]+)-([\da-f]+) rw/gm)]
      .map(([, start, end]) => [Number.parseInt(start, 16), Number.parseInt(end, 16)])
      .sort(([start, end], [otherStart, otherEnd]) => otherEnd - otherStart - (end - start));
    const entries = Buffer.alloc((length / PAGE) * 8);
    fd = openSync('/proc/self/pagemap', 'r');
    readSync(fd, entries, 0, entries.length, ((mappings[0][0] + offset) / PAGE) * 8);
    let pages = 0;
    for (let at = 7; at < entries.length; at += 8) if ((entries[at] & PRESENT) !== 0) pages++;
    return pages * PAGE;
  } catch {
    return undefined;
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}
