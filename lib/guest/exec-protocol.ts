/**
 * How a COMMAND gets into the default guest, and its output and status out: four named virtio-console ports
 * (virtio 1.2 §5.3), and a few lines on one of them.
 *
 * | port             | guest → host            | host → guest            |
 * |------------------|-------------------------|-------------------------|
 * | `elvisor.exec`   | `ready 1`, `exit N`     | the request, `bye`      |
 * | `elvisor.stdin`  | `ready`                 | the command's stdin     |
 * | `elvisor.stdout` | the command's stdout    |                         |
 * | `elvisor.stderr` | the command's stderr    |                         |
 *
 * 1. The host says PORT_OPEN 1 for each port when the guest says PORT_READY. It sends no data before the guest's
 *    `ready` line on that port: Linux throws away what comes to a port that nobody has open. The guest's write of that
 *    line waits, in turn, until Linux knows that the host has the port open, so that no read takes a port that the host
 *    has not opened yet for one at its end.
 * 2. The host sends the request on `elvisor.exec`: a line `exec 1 BYTES`, then BYTES bytes of sh (see
 *    {@link encodeExecRequest}).
 * 3. The command runs. The host ends its stdin by PORT_OPEN 0 on `elvisor.stdin`: the guest reads what is queued, then
 *    end of file.
 * 4. The guest sends `exit N` (0 to 255; 128+n for a command that signal n ended; 127 not found, 126 not executable or no
 *    such working directory), after all of the command's output. The host takes what is on the other two ports' queues
 *    and answers `bye`; then the guest powers off. It waits {@link BYE_SECONDS} for that and no longer.
 *
 * The kernel command line has the word {@link EXEC_WORD}.
 */
import { VmError } from '../vmm/errors.js';

/** The kernel command line's word that makes the guest's init run a command. */
export const EXEC_WORD = 'elvisor.exec';

/** The ports' names (virtio 1.2 §5.3.6.2, VIRTIO_CONSOLE_PORT_NAME). */
export const ExecPort = {
  EXEC: 'elvisor.exec',
  STDIN: 'elvisor.stdin',
  STDOUT: 'elvisor.stdout',
  STDERR: 'elvisor.stderr',
} as const;

/** Seconds that the guest waits for `bye` before it powers off. */
export const BYE_SECONDS = 10;

/** The host's last line on `elvisor.exec`. */
export const EXEC_BYE: Uint8Array = new TextEncoder().encode('bye\n');

export interface ExecRequest {
  /** The command and its arguments: one string or more, the first not empty, none with a NUL. */
  readonly argv: readonly string[];
  /** Added to the guest's own environment (PATH, HOME, TERM). */
  readonly env?: Readonly<Record<string, string>>;
  /** An absolute path in the guest; `/root` if not given. */
  readonly cwd?: string;
}

/**
 * What the host sends on `elvisor.exec`. The body is sh that sets the working directory, the environment and the
 * positional parameters, every string in single quotes: the guest's shell reads it without interpreting a byte of them.
 *
 * @throws VmError `ERR_EXEC_REQUEST` no command, a NUL in a string, a variable that a shell can't hold
 */
export function encodeExecRequest(request: ExecRequest): Uint8Array {
  const { argv, env = {}, cwd } = request;
  if (argv.length === 0 || argv[0] === '') throw new VmError('ERR_EXEC_REQUEST', 'command: it is empty');
  let body = '';
  if (cwd !== undefined) {
    if (!cwd.startsWith('/'))
      throw new VmError('ERR_EXEC_REQUEST', `command: the working directory ${JSON.stringify(cwd)} is not absolute`);
    body += `cd ${quote(cwd, 'the working directory')} || exit 126\n`;
  }
  for (const [name, value] of Object.entries(env)) {
    if (!/^[A-Za-z_][A-Za-z0-9_]*$/.test(name)) {
      throw new VmError(
        'ERR_EXEC_REQUEST',
        `command: the variable ${JSON.stringify(name)} is no name: A-Z a-z 0-9 _, not a digit first`,
      );
    }
    body += `export ${name}=${quote(value, `the variable ${name}`)}\n`;
  }
  body += `set -- ${argv.map((argument, i) => quote(argument, `argument ${i}`)).join(' ')}\n`;
  const bytes = new TextEncoder().encode(body);
  const head = new TextEncoder().encode(`exec 1 ${bytes.length}\n`);
  const message = new Uint8Array(head.length + bytes.length);
  message.set(head);
  message.set(bytes, head.length);
  return message;
}

function quote(text: string, what: string): string {
  if (text.includes('\0')) throw new VmError('ERR_EXEC_REQUEST', `command: ${what} holds a NUL`);
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

/** A line from the guest on `elvisor.exec`. */
export type ExecEvent = { readonly type: 'ready' } | { readonly type: 'exit'; readonly status: number };

/** Longer than any line of the protocol. */
const MAX_LINE = 64;

/** Reads the guest's side of `elvisor.exec`, in pieces as they come. The guest may be hostile: memory is bounded. */
export class ExecDecoder {
  #line = '';

  /**
   * @returns the events that `bytes` complete
   * @throws VmError `ERR_EXEC_PROTOCOL` a line that the protocol does not know
   */
  push(bytes: Uint8Array): ExecEvent[] {
    const events: ExecEvent[] = [];
    for (const byte of bytes) {
      if (byte !== 0x0a) {
        this.#line += String.fromCharCode(byte);
        if (this.#line.length > MAX_LINE) throw this.#unknown();
        continue;
      }
      const exit = /^exit (0|[1-9][0-9]{0,2})$/.exec(this.#line);
      if (this.#line === 'ready 1') events.push({ type: 'ready' });
      else if (exit !== null && Number(exit[1]) <= 255) events.push({ type: 'exit', status: Number(exit[1]) });
      else throw this.#unknown();
      this.#line = '';
    }
    return events;
  }

  #unknown(): VmError {
    return new VmError(
      'ERR_EXEC_PROTOCOL',
      `guest: it said ${JSON.stringify(this.#line)} on ${ExecPort.EXEC}, which the protocol does not know`,
    );
  }
}
