import { VmError } from './errors.js';
import type { Cancel, Scheduler } from './scheduler.js';

/** Characters of output that a console remembers for {@link VmConsole.waitFor} and {@link VmConsole.transcript}. */
const TRANSCRIPT_CHARS = 256 * 1024;

/** Limits of `waitFor`. */
export interface WaitForOptions {
  /** Milliseconds of the host's clock after which the wait fails; none if not given. */
  readonly timeoutMs?: number | undefined;
  /** Ends the wait. */
  readonly signal?: AbortSignal | undefined;
}

/** What `waitFor` looks for. */
export type WaitPattern = string | RegExp;

interface Waiter {
  readonly pattern: WaitPattern;
  readonly resolve: (match: RegExpMatchArray) => void;
  readonly reject: (error: Error) => void;
  readonly dispose: () => void;
}

/** The device behind a console. */
export interface ConsoleDevice {
  /** Offers bytes to the guest. @returns how many were taken; for the rest, the device's owner calls {@link VmConsole.inputReady} */
  receive(bytes: Uint8Array): number;
  /** The reader has caught up: the device may put out again. */
  resumeTransmit(): void;
  /** No more input will come: the guest reads end of file. Absent where the line has no such thing. */
  hangUp?(): void;
}

/**
 * One byte channel between host and guest: a serial port, hvc0, or a named port. Output is handed on once a turn of the
 * event loop, not byte by byte, and remembered in a ring, so that `waitFor` never takes bytes from a reader.
 */
export class VmConsole {
  /** What the device is called: `'pl011'`, `'hvc0'`, or the port's name. */
  readonly name: string;
  /** Called with output, coalesced. */
  onOutput: ((bytes: Uint8Array) => void) | undefined;
  /** Called when the guest has taken all input that waited. */
  onInputTaken: (() => void) | undefined;
  /** Called once, when no more output will come. */
  onEnd: (() => void) | undefined;

  readonly #scheduler: Scheduler;
  /** Keeps a character whose bytes come in two pieces whole. */
  readonly #decoder = new TextDecoder();
  /** The last output as text: TRANSCRIPT_CHARS, and up to as many again until it is trimmed. */
  #text = '';
  /** Characters before it were consumed by a `waitFor` that matched: the next one looks behind them. */
  #mark = 0;
  #written = 0;
  #pending: Uint8Array[] = [];
  #pendingBytes = 0;
  /** How many of the pending chunks are in the transcript already. */
  #absorbed = 0;
  #waiters: Waiter[] = [];
  #ended: string | undefined;
  #device: ConsoleDevice | undefined;
  #full = false;
  #input: Uint8Array[] = [];
  #inputBytes = 0;
  #inputEnded = false;

  constructor(name: string, scheduler: Scheduler) {
    this.name = name;
    this.#scheduler = scheduler;
  }

  /** Bytes that the guest has put out so far. */
  get outputBytes(): number {
    return this.#written;
  }

  /** Bytes from the host that the guest has not taken yet. */
  get inputBytes(): number {
    return this.#inputBytes;
  }

  /**
   * Takes guest output from a device; the array is the console's to keep.
   * @returns whether the device may go on; if not, it is told by {@link ConsoleDevice.resumeTransmit}
   */
  output(bytes: Uint8Array): boolean {
    if (this.#ended !== undefined) return true;
    this.#pending.push(bytes);
    this.#pendingBytes += bytes.length;
    this.#written += bytes.length;
    return !this.#full;
  }

  /** The reader of the output has fallen behind, and the guest must wait; or it has caught up. */
  setFull(full: boolean): void {
    if (this.#full === full) return;
    this.#full = full;
    if (!full) this.#device?.resumeTransmit();
  }

  /** Hands out what came since the last flush. Called at the end of each turn of the run loop. */
  flush(): void {
    if (this.#pendingBytes === 0) return;
    this.#absorb();
    const chunks = this.#pending;
    const total = this.#pendingBytes;
    this.#pending = [];
    this.#pendingBytes = 0;
    this.#absorbed = 0;
    if (this.onOutput !== undefined) this.onOutput(chunks.length === 1 ? chunks[0]! : concat(chunks, total));
    if (this.#waiters.length > 0) this.#check();
  }

  /** Sends bytes to the guest. Until the guest takes them they wait; after its end they are dropped. */
  write(data: Uint8Array | string): void {
    const bytes = typeof data === 'string' ? new TextEncoder().encode(data) : data;
    if (bytes.length === 0 || this.#ended !== undefined) return;
    this.#input.push(bytes.slice());
    this.#inputBytes += bytes.length;
    this.inputReady();
  }

  /** No more input will come: once the guest has taken what waits, it reads end of file, where the device has such a thing. */
  endInput(): void {
    this.#inputEnded = true;
    this.inputReady();
  }

  /** Connects the device of a machine; what waits goes to it. */
  connect(device: ConsoleDevice): void {
    this.#device = device;
    this.inputReady();
  }

  /** The machine is gone; another may come. */
  disconnect(): void {
    this.#device = undefined;
  }

  /** Offers the input that waits, as much as the device takes. */
  inputReady(): void {
    while (this.#device !== undefined && this.#input.length > 0) {
      const bytes = this.#input[0]!;
      const taken = this.#device.receive(bytes);
      this.#inputBytes -= taken;
      if (taken < bytes.length) {
        this.#input[0] = bytes.subarray(taken);
        return;
      }
      this.#input.shift();
    }
    if (this.#input.length > 0) return;
    this.onInputTaken?.();
    if (this.#inputEnded) this.#device?.hangUp?.();
  }

  /** The last output, at most `maxChars` characters (256 Ki are kept). Bytes that are no UTF-8 become U+FFFD. */
  transcript(maxChars: number = TRANSCRIPT_CHARS): string {
    this.#absorb();
    const chars = Math.min(maxChars, TRANSCRIPT_CHARS);
    return chars <= 0 ? '' : this.#text.slice(-chars);
  }

  /**
   * Waits until `pattern` is in the output, that which came before the call included, and gives the match. The next call
   * looks behind it. Reading the console takes nothing away from it. The last 256 Ki characters are looked through.
   * @throws VmError ERR_TIMEOUT, ERR_ABORTED, or ERR_CONSOLE_ENDED when the guest ended first
   */
  waitFor(pattern: WaitPattern, options: WaitForOptions = {}): Promise<RegExpMatchArray> {
    const { timeoutMs, signal } = options;
    return new Promise((resolve, reject) => {
      if (signal?.aborted === true) {
        reject(aborted(signal, `waiting for ${show(pattern)}`));
        return;
      }
      let timer: Cancel | undefined;
      const onAbort = (): void => settle(aborted(signal!, `waiting for ${show(pattern)}`));
      const dispose = (): void => {
        timer?.();
        signal?.removeEventListener('abort', onAbort);
        this.#waiters = this.#waiters.filter((w) => w !== waiter);
      };
      const settle = (error: Error): void => {
        dispose();
        reject(error);
      };
      const waiter: Waiter = { pattern, resolve, reject, dispose };
      this.#waiters.push(waiter);
      if (timeoutMs !== undefined) {
        timer = this.#scheduler.after(timeoutMs, () =>
          settle(
            new VmError(
              'ERR_TIMEOUT',
              `${show(pattern)} did not appear on ${this.name} in ${timeoutMs} ms${this.#tail()}`,
            ),
          ),
        );
      }
      signal?.addEventListener('abort', onAbort, { once: true });
      this.#check();
      if (this.#ended !== undefined && this.#waiters.includes(waiter)) settle(this.#endedError(pattern));
    });
  }

  /** No more output will come, for this reason: hands out the rest, and fails who still waits. */
  end(why: string): void {
    if (this.#ended !== undefined) return;
    this.flush();
    this.#ended = why;
    this.#device = undefined;
    this.#input = [];
    this.#inputBytes = 0;
    this.onInputTaken?.();
    for (const waiter of this.#waiters.slice()) {
      waiter.dispose();
      waiter.reject(this.#endedError(waiter.pattern));
    }
    this.onEnd?.();
  }

  #endedError(pattern: WaitPattern): Error {
    return new VmError(
      'ERR_CONSOLE_ENDED',
      `${this.#ended} before ${show(pattern)} appeared on ${this.name}${this.#tail()}`,
    );
  }

  #tail(): string {
    const tail = this.transcript(1024).trimEnd();
    return tail === '' ? '; it said nothing' : `; the last it said:\n${tail}`;
  }

  #check(): void {
    this.#absorb();
    for (const waiter of this.#waiters.slice()) {
      const match = matchOf(this.#text.slice(this.#mark), waiter.pattern);
      if (match === null) continue;
      this.#mark += match.index! + match[0].length;
      waiter.dispose();
      waiter.resolve(match);
    }
  }

  /** Brings the transcript up to date with the pending output. */
  #absorb(): void {
    for (; this.#absorbed < this.#pending.length; this.#absorbed++) {
      this.#text += this.#decoder.decode(this.#pending[this.#absorbed], { stream: true });
    }
    if (this.#text.length <= 2 * TRANSCRIPT_CHARS) return;
    const drop = this.#text.length - TRANSCRIPT_CHARS;
    this.#text = this.#text.slice(drop);
    this.#mark = Math.max(0, this.#mark - drop);
  }
}

const show = (pattern: WaitPattern): string =>
  typeof pattern === 'string' ? JSON.stringify(pattern) : String(pattern);

function matchOf(text: string, pattern: WaitPattern): RegExpMatchArray | null {
  if (typeof pattern !== 'string') return text.match(new RegExp(pattern.source, pattern.flags.replace(/[gy]/g, '')));
  const index = text.indexOf(pattern);
  if (index < 0) return null;
  return Object.assign([pattern] as [string], { index, input: text }) as RegExpMatchArray;
}

function concat(chunks: readonly Uint8Array[], total: number): Uint8Array {
  const out = new Uint8Array(total);
  let at = 0;
  for (const chunk of chunks) {
    out.set(chunk, at);
    at += chunk.length;
  }
  return out;
}

/** The error of a call that its AbortSignal ended. */
export function aborted(signal: AbortSignal, what: string): VmError {
  const error = new VmError('ERR_ABORTED', `aborted while ${what}`, { cause: signal.reason });
  // Callers test `error.name === 'AbortError'`, as they do for fetch() and node:fs.
  Object.defineProperty(error, 'name', { value: 'AbortError', configurable: true });
  return error;
}
