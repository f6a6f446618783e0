/** Boots a mode under QEMU and reads what its tests say on the serial console. */
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';

/** A test has a minute of the machine's time, which no host that works needs this long for. */
const SILENCE_MINUTES = 15;
const PREFIX = 'lane: ';

/**
 * @typedef {object} Result
 * @property {string} file
 * @property {string} test
 * @property {'passed' | 'failed' | 'skipped'} status
 * @property {readonly string[]} [errors]
 *
 * @param {object} options
 * @param {string} [options.qemu] the program
 * @param {import('./modes.js').Mode} options.mode
 * @param {number} options.seed of its random numbers
 * @param {string} options.kernel
 * @param {string} options.initrd
 * @param {readonly string[]} options.groups that must come to their end
 * @param {(result: Result) => void} options.onResult
 * @param {((line: string) => void) | undefined} options.onLine all that the machine prints
 * @returns {Promise<void>} when it is off
 */
export async function boot({ qemu = 'qemu-system-aarch64', mode, seed, kernel, initrd, groups, onResult, onLine }) {
  const { board, cpu, append } = mode;
  const args = [
    ...['-M', board, '-cpu', cpu, '-accel', 'tcg', '-smp', '1', '-m', '2048'],
    // Guest time is counted in instructions: a busy host makes no timeout fire, and a run is like the one before.
    ...['-seed', String(seed), '-icount', 'shift=0,sleep=off', '-rtc', 'base=2026-01-01T00:00:00,clock=vm'],
    ...['-display', 'none', '-nodefaults', '-no-reboot', '-serial', 'stdio'],
    ...['-kernel', kernel, '-initrd', initrd],
    ...[
      '-append',
      `console=ttyAMA0 quiet loglevel=1 panic=-1 cryptomgr.notests hugepagesz=2M hugepages=4 ${append}`.trim(),
    ],
  ];
  const child = spawn(qemu, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  // However slow the host is, a machine that gets on says so; one that hangs says nothing.
  let hung = false;
  const watchdog = setTimeout(() => {
    hung = true;
    child.kill('SIGKILL');
  }, SILENCE_MINUTES * 60_000);
  const ended = new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (status, signal) => resolve({ status, signal }));
  });
  let stderr = '';
  child.stderr.on('data', (chunk) => {
    stderr += chunk;
  });
  const left = new Set(groups);
  const tail = [];
  let current;
  for await (const line of createInterface({ input: child.stdout })) {
    onLine?.(line);
    watchdog.refresh();
    tail.push(line);
    if (tail.length > 30) tail.shift();
    if (!line.startsWith(PREFIX)) continue;
    const said = JSON.parse(line.slice(PREFIX.length));
    if (said.start !== undefined) current = said;
    else if (said.test !== undefined) {
      current = undefined;
      onResult(said);
    } else if (said.group !== undefined) {
      left.delete(said.group);
      // A process that was told to end with 0 or 1 has told all its results.
      if (said.status === 0 || said.status === 1) continue;
      onResult({
        file: current?.file ?? said.group,
        test: current?.start ?? 'the process',
        status: 'failed',
        errors: [`the process of ${said.group} ended with ${said.signal ?? said.status}:\n${tail.join('\n')}`],
      });
    }
  }
  const { status, signal } = await ended;
  clearTimeout(watchdog);
  const end = hung ? `said nothing for ${SILENCE_MINUTES} minutes and was ended` : `ended with ${signal ?? status}`;
  for (const group of left) {
    onResult({
      file: current?.file ?? group,
      test: current?.start ?? 'the machine',
      status: 'failed',
      errors: [`the machine ${end} before ${group} was over:\n${stderr}${tail.join('\n')}`],
    });
    current = undefined;
  }
}
