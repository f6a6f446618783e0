#!/usr/bin/env node
/**
 * Boot to init, elvisor and QEMU in turn: the same kernel, initrd and command line, whole processes, from spawn to the
 * marker on the serial console. Prints the medians and their ratios: what stands alone here are the ratios, because all
 * take turns on the same machine. elvisor is there twice: its first run, with nothing kept, and a later one, which begins with the
 * code that the runs before it have compiled and kept.
 *
 *   node bench/boot.js [--pairs 5] [--node PATH] [--kernel FILE --initrd FILE] [--append STRING] [--marker TEXT]
 *                      [--qemu PATH] [--warmup 2] [--json]
 */
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { fetchDefaultGuest } from '../dist/guest/index.js';
import { commandLine } from '../scripts/command-line.js';
import { median, qemuArgs, wholeNumber } from './common.js';

const { values } = commandLine(import.meta.url, {
  options: {
    pairs: { type: 'string', default: '5' },
    warmup: { type: 'string', default: '2' },
    node: { type: 'string', default: process.execPath },
    qemu: { type: 'string', default: 'qemu-system-aarch64' },
    kernel: { type: 'string' },
    initrd: { type: 'string' },
    append: { type: 'string', default: 'console=ttyAMA0 panic=-1' },
    marker: { type: 'string', default: 'Run /init' },
    json: { type: 'boolean', default: false },
  },
});
const pairs = wholeNumber('bench/boot', 'pairs', values.pairs, 1);
// At least one: it leaves what later runs begin with.
const warmup = wholeNumber('bench/boot', 'warmup', values.warmup, 1);
if ((values.kernel === undefined) !== (values.initrd === undefined)) {
  console.error('bench/boot: --kernel and --initrd come together');
  process.exit(2);
}
const guest =
  values.kernel === undefined ? await fetchDefaultGuest() : { kernel: values.kernel, initrd: values.initrd };

const elvisor = fileURLToPath(new URL('../dist/bundle/cli.js', import.meta.url));
const machine = { kernel: guest.kernel, initrd: guest.initrd, append: values.append };
const image = Object.entries(machine).flatMap(([name, value]) => [`--${name}`, value]);
const temporary = mkdtempSync(join(tmpdir(), 'elvisor-boot-'));
process.on('exit', () => rmSync(temporary, { recursive: true, force: true }));
const run = ['run', '--backend', 'soft', '--memory', '512M', '--no-reboot', ...image];
const withCode = (name) => [values.node, [elvisor, ...run, '--code-cache', join(temporary, name)]];
/** Command lines. */
const contestants = {
  first: () => {
    rmSync(join(temporary, 'first'), { recursive: true, force: true });
    return withCode('first');
  },
  later: () => withCode('later'),
  qemu: () => [values.qemu, qemuArgs(machine)],
};
const NAMES = { first: 'elvisor, first run', later: 'elvisor, later runs', qemu: 'qemu' };

/** Milliseconds from spawn to the marker; then the process is told to end. */
function boot(name) {
  const [command, args] = contestants[name]();
  return new Promise((resolve, reject) => {
    const start = performance.now();
    const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'pipe'] });
    let seen = '';
    let errors = '';
    let time;
    child.stdout.on('data', (chunk) => {
      if (time !== undefined) return;
      seen = (seen + chunk.toString('latin1')).slice(-65536);
      if (!seen.includes(values.marker)) return;
      time = performance.now() - start;
      child.kill();
    });
    child.stderr.on('data', (chunk) => {
      errors += chunk;
    });
    child.on('error', reject);
    child.on('close', (status) => {
      if (time !== undefined) resolve(time);
      else
        reject(
          new Error(
            `${name} ended with ${status} before ${JSON.stringify(values.marker)}:\n${errors}${seen.slice(-2000)}`,
          ),
        );
    });
  });
}

const times = { first: [], later: [], qemu: [] };
const width = Math.max(...Object.values(NAMES).map(({ length }) => length));
try {
  for (let i = -warmup; i < pairs; i++) {
    for (const name of Object.keys(times)) {
      const ms = await boot(name);
      if (i >= 0) times[name].push(ms);
      if (!values.json)
        console.error(
          `${i < 0 ? 'warm-up' : `pair ${i + 1}`}  ${NAMES[name].padEnd(width)} ${(ms / 1000).toFixed(2)} s`,
        );
    }
  }
} catch (error) {
  console.error(`bench/boot: ${error.message}`);
  process.exit(1);
}
const medians = Object.fromEntries(Object.entries(times).map(([name, ms]) => [name, median(ms)]));
const ratios = { first: medians.first / medians.qemu, later: medians.later / medians.qemu };
if (values.json) {
  console.log(JSON.stringify({ pairs, marker: values.marker, times, medians, ratios }));
} else {
  for (const [name, ms] of Object.entries(medians)) {
    const ratio = name === 'qemu' ? '' : `, ${ratios[name].toFixed(2)} of QEMU's`;
    console.log(`${NAMES[name].padEnd(width)} ${(ms / 1000).toFixed(2)} s (median of ${pairs})${ratio}`);
  }
}
