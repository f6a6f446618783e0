import { closeSync, openSync, readSync } from 'node:fs';
import { type FillRandom, webRandom } from '../vmm/random.js';

/** The kernel's generator, where there is one to read: Node takes some 5 ms to load Web Crypto, a twentieth of a start. */
export const nodeRandom: FillRandom = (into) => {
  let fd: number | undefined;
  try {
    fd = openSync('/dev/urandom', 'r');
    if (readSync(fd, into) !== into.length) webRandom(into);
  } catch {
    webRandom(into);
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
};
