import type { Kvm } from '../kvm/index.js';
import type { Gunzip } from './boot/index.js';
import type { BlockBackend } from './devices/virtio/blk.js';
import type { BackendKind, ClockKind, DiskSpec } from './options.js';
import type { FillRandom } from './random.js';
import type { Scheduler } from './scheduler.js';

/** A file that is open for reading. */
export interface InputFile {
  /** Bytes. */
  readonly size: number;
  /**
   * Fills `into`, which may be shared memory, from a position of the file on, while the caller goes on.
   * @throws VmError ERR_FILE it can't be read, or ends before
   */
  read(into: Uint8Array, position: number): Promise<void>;
  close(): void;
}

/**
 * What the VMM needs from where it runs. `lib/node/` has Node's; a browser's leaves out what browsers do not have, and the
 * options that would need it are refused.
 */
export interface Platform {
  /** A scheduler of one VM's own. */
  createScheduler(): Scheduler;
  /** Opens the KVM that the options ask for. */
  openKvm(options: {
    readonly backend: BackendKind;
    readonly clock: ClockKind;
    readonly codeCache: string | undefined;
  }): Kvm | Promise<Kvm>;
  /**
   * Opens a kernel or an initrd, so that it can be read right into a guest's RAM. `undefined`: it can't be, so {@link readFile} is to
   * read it (a pipe, say).
   */
  openFile?(source: string | URL, what: string): InputFile | undefined;
  /** Reads a kernel, an initrd or a device tree; `what` names it in errors. */
  readFile?(source: string | URL, what: string): Promise<Uint8Array>;
  /** What {@link readFile} gave is not needed any more: its memory can go now, not when it is collected. */
  releaseFile?(bytes: Uint8Array): void;
  /** Opens a disk image. With the virtual clock, its requests must end at no time but the guest's own. */
  openDisk?(spec: DiskSpec, clock: ClockKind): BlockBackend | Promise<BlockBackend>;
  /** Inflates gzip faster than `DecompressionStream` does. */
  readonly gunzip?: Gunzip;
  /** Random bytes; Web Crypto's where not given. */
  readonly random?: FillRandom;
  /** Tells observers (in Node: `node:diagnostics_channel`). */
  publish?(channel: string, message: () => object): void;
}
