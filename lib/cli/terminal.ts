import type { ReadStream } from 'node:tty';

/** Ctrl-A: the next key is for elvisor. */
const ESCAPE = 0x01;
/** Ctrl-D: end of file to a terminal. */
const EOF = 0x04;
const NEWLINE = 0x0a;
/** Milliseconds between one Ctrl-D and the next. */
const EOF_MS = 300;
const X = 0x78;
const H = 0x68;

const HELP = '\r\nCtrl-A x  leave: the guest is killed\r\nCtrl-A Ctrl-A  send Ctrl-A to the guest\r\n';

/** What {@link Terminal} tells its owner. */
export interface TerminalEvents {
  /** Bytes for the guest. */
  input(bytes: Uint8Array): void;
  /** The user wants out (Ctrl-A x). */
  leave(): void;
  /** Something for the user's eyes only. */
  notice(text: string): void;
}

/**
 * The user's side of a console. On a terminal: raw mode, so that every key, Ctrl-C too, is the guest's, but for what
 * follows Ctrl-A. On a pipe: its bytes as they are. The terminal is put back by `restore()` and at the process's end,
 * however it comes.
 */
export class Terminal {
  readonly #stdin: NodeJS.ReadStream;
  readonly #events: TerminalEvents;
  readonly #sendsEof: boolean;
  #raw = false;
  #escaped = false;
  #lastByte = NEWLINE;
  #eof: NodeJS.Timeout | undefined;
  readonly #onData = (chunk: Buffer | string): void =>
    this.#data(typeof chunk === 'string' ? Buffer.from(chunk) : chunk);
  readonly #onEnd = (): void => this.#end();
  readonly #restore = (): void => this.restore();
  readonly #onContinue = (): void => {
    // Whoever had the terminal while the process was stopped may have changed its mode.
    if (this.#raw) (this.#stdin as ReadStream).setRawMode(true);
  };

  /** @param init.sendsEof the end of a pipe is Ctrl-D to the guest, so that a shell that reads from it ends */
  constructor(init: { stdin: NodeJS.ReadStream; events: TerminalEvents; sendsEof: boolean }) {
    this.#stdin = init.stdin;
    this.#events = init.events;
    this.#sendsEof = init.sendsEof;
  }

  start(): void {
    if (this.#stdin.isTTY) {
      (this.#stdin as ReadStream).setRawMode(true);
      this.#raw = true;
      process.on('exit', this.#restore);
      process.on('SIGCONT', this.#onContinue);
    }
    this.#stdin.on('data', this.#onData);
    this.#stdin.once('end', this.#onEnd);
    // A stdin that cannot be read (closed, a directory) is one that has ended.
    this.#stdin.once('error', this.#onEnd);
  }

  /** Stops and starts reading, where the guest does not keep up. */
  setFlowing(flowing: boolean): void {
    if (flowing) this.#stdin.resume();
    else this.#stdin.pause();
  }

  /** Gives the terminal back. May be called twice. */
  restore(): void {
    clearInterval(this.#eof);
    this.#stdin.off('data', this.#onData);
    this.#stdin.off('end', this.#onEnd);
    this.#stdin.off('error', this.#onEnd);
    // Late errors of a stream that nobody looks at any more are nobody's concern.
    this.#stdin.on('error', () => {});
    this.#stdin.pause();
    if (!this.#raw) return;
    this.#raw = false;
    process.off('exit', this.#restore);
    process.off('SIGCONT', this.#onContinue);
    (this.#stdin as ReadStream).setRawMode(false);
  }

  #data(chunk: Buffer): void {
    if (chunk.length === 0) return;
    this.#lastByte = chunk[chunk.length - 1]!;
    if (!this.#raw) {
      this.#events.input(chunk);
      return;
    }
    const out: number[] = [];
    for (const byte of chunk) {
      if (!this.#escaped) {
        if (byte === ESCAPE) this.#escaped = true;
        else out.push(byte);
        continue;
      }
      this.#escaped = false;
      if (byte === X) {
        this.#events.leave();
        return;
      }
      if (byte === ESCAPE) out.push(ESCAPE);
      else if (byte === H) this.#events.notice(HELP);
    }
    if (out.length > 0) this.#events.input(Uint8Array.from(out));
  }

  #end(): void {
    if (!this.#sendsEof) return;
    if (this.#lastByte !== NEWLINE) this.#events.input(Uint8Array.of(NEWLINE));
    // Ctrl-D means end of file only to who reads the terminal right then: it is said until it is heard.
    this.#eof = setInterval(() => this.#events.input(Uint8Array.of(EOF)), EOF_MS);
  }
}
