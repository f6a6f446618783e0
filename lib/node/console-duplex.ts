import { Duplex } from 'node:stream';
import type { VmConsole, WaitForOptions, WaitPattern } from '../vmm/console.js';

/** Output that waits for a reader, in bytes, before the guest has to. */
const HIGH_WATER = 1024 * 1024;
/** Output kept for a reader that has not come yet; the oldest goes first. */
const UNREAD_KEPT = 1024 * 1024;
/** Input that waits for the guest, in bytes, before the writer has to. */
const INPUT_HIGH_WATER = 64 * 1024;

/**
 * A console as a Node stream. Reading gives what the guest puts out, writing is what it reads.
 *
 * Until somebody reads, the last mebibyte of output is kept and the guest goes on. Once somebody does, nothing is lost: a
 * reader that falls a mebibyte behind makes the guest wait. `waitFor` sees all output in either case, and takes none.
 */
export class ConsoleDuplex extends Duplex {
  readonly #core: VmConsole;
  /** Output that the readable side has not asked for yet. */
  #unread: Buffer[] = [];
  #unreadBytes = 0;
  /** The readable side has asked at least once. */
  #read_ = false;
  #wants = false;
  #ended = false;
  #written: (() => void) | undefined;

  /** @internal */
  constructor(core: VmConsole) {
    // A console is open in both directions until the guest ends: `end()` of what is piped in does not end the output.
    super({ allowHalfOpen: true, autoDestroy: true, emitClose: true, readableHighWaterMark: HIGH_WATER });
    this.#core = core;
    core.onOutput = (bytes) => this.#output(bytes);
    core.onEnd = () => {
      this.#ended = true;
      this.#pump();
    };
    core.onInputTaken = () => {
      const done = this.#written;
      this.#written = undefined;
      done?.();
    };
  }

  /** What the guest calls it: `'pl011'`, `'hvc0'`, or the port's name. */
  get name(): string {
    return this.#core.name;
  }

  /**
   * Waits until `pattern` is in the output, that which came before the call included. The next call looks behind the match.
   * Takes nothing from a reader.
   * @throws VmError ERR_TIMEOUT, ERR_ABORTED, or ERR_CONSOLE_ENDED when the guest ended first
   */
  waitFor(pattern: WaitPattern, options?: WaitForOptions): Promise<RegExpMatchArray> {
    return this.#core.waitFor(pattern, options);
  }

  /** The last output, at most `maxChars` characters (256 Ki are kept), as text. */
  transcript(maxChars?: number): string {
    return this.#core.transcript(maxChars);
  }

  /** @internal */
  override _read(): void {
    this.#read_ = true;
    this.#wants = true;
    this.#pump();
  }

  /** @internal */
  override _write(chunk: Buffer, _encoding: BufferEncoding, callback: (error?: Error | null) => void): void {
    this.#core.write(chunk);
    if (this.#core.inputBytes <= INPUT_HIGH_WATER) callback();
    else this.#written = callback;
  }

  /** `end()`: on a named port the guest reads end of file behind what was written; a serial line has no such thing. */
  override _final(callback: (error?: Error | null) => void): void {
    this.#core.endInput();
    callback();
  }

  /** @internal */
  override _destroy(error: Error | null, callback: (error: Error | null) => void): void {
    this.#core.onOutput = undefined;
    this.#core.onInputTaken = undefined;
    this.#unread = [];
    this.#unreadBytes = 0;
    // Nobody will read any more: the guest need not wait.
    this.#core.setFull(false);
    callback(error);
  }

  #output(bytes: Uint8Array): void {
    this.#unread.push(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength));
    this.#unreadBytes += bytes.length;
    this.#pump();
    if (this.#read_) {
      this.#core.setFull(this.#unreadBytes > 0);
      return;
    }
    while (this.#unread.length > 1 && this.#unreadBytes - this.#unread[0]!.length >= UNREAD_KEPT) {
      this.#unreadBytes -= this.#unread.shift()!.length;
    }
  }

  #pump(): void {
    while (this.#wants && this.#unread.length > 0) {
      const chunk = this.#unread.shift()!;
      this.#unreadBytes -= chunk.length;
      this.#wants = this.push(chunk);
    }
    if (this.#unreadBytes === 0) this.#core.setFull(false);
    if (this.#ended && this.#unread.length === 0 && !this.readableEnded) {
      this.#ended = false;
      this.push(null);
      // What is written from now on goes nowhere.
      if (!this.writableEnded) this.end();
    }
  }
}
