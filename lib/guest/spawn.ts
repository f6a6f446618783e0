import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { Readable } from 'node:stream';

/** A program that ended. */
export interface Ran {
  /** Exit status; `null` where a signal ended it. */
  readonly status: number | null;
  readonly stdout: Buffer;
  readonly stderr: string;
}

export interface RunOptions {
  env?: NodeJS.ProcessEnv;
  cwd?: string;
  stdin?: Uint8Array;
  signal?: AbortSignal | undefined;
  /** Called for each line on file descriptor 3, where apt tells its progress. */
  onStatusLine?: (line: string) => void;
}

/**
 * Runs a program to its end. An unsuccessful end is no error here: the caller knows what it means.
 * @throws the spawn error (`code: 'ENOENT'` where there is no such program); the signal's reason when aborted
 */
export async function run(command: string, args: readonly string[], options: RunOptions = {}): Promise<Ran> {
  const { signal, onStatusLine } = options;
  signal?.throwIfAborted();
  return await new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      // What is read from messages must not depend on the user's language.
      env: { ...(options.env ?? process.env), LC_ALL: 'C' },
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
      stdio: ['pipe', 'pipe', 'pipe', onStatusLine === undefined ? 'ignore' : 'pipe'],
    }) as ChildProcessWithoutNullStreams;
    const stdout: Buffer[] = [];
    const stderr: Buffer[] = [];
    child.stdout.on('data', (chunk: Buffer) => stdout.push(chunk));
    child.stderr.on('data', (chunk: Buffer) => stderr.push(chunk));
    // A program that ends without reading its input breaks the pipe; its status says enough.
    child.stdin.on('error', () => {});
    child.stdin.end(options.stdin);
    const status = child.stdio[3];
    if (onStatusLine !== undefined && status instanceof Readable) {
      let rest = '';
      status.setEncoding('utf8');
      status.on('data', (chunk: string) => {
        const lines = (rest + chunk).split('\n');
        rest = lines.pop() ?? '';
        for (const line of lines) onStatusLine(line);
      });
    }
    const abort = (): void => {
      child.kill('SIGTERM');
    };
    signal?.addEventListener('abort', abort, { once: true });
    const settle = (act: () => void): void => {
      signal?.removeEventListener('abort', abort);
      if (signal?.aborted) reject(signal.reason);
      else act();
    };
    child.on('error', (error) => settle(() => reject(error)));
    child.on('close', (code) =>
      settle(() => resolve({ status: code, stdout: Buffer.concat(stdout), stderr: Buffer.concat(stderr).toString() })),
    );
  });
}

/** Whether `error` is {@link run}'s where the program is not installed. */
export function isMissingProgram(error: unknown): boolean {
  const { code, syscall } = (error ?? {}) as { code?: unknown; syscall?: unknown };
  return code === 'ENOENT' && typeof syscall === 'string' && syscall.startsWith('spawn');
}
