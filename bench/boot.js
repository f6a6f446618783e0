#!/usr/bin/env node
/**
 * Boot to init, elvisor and QEMU in turn: the same kernel, initrd and command line, whole processes, from spawn to the
 * marker on the serial console. Prints both medians and their ratio: what stands alone here is the ratio, because the two
 * take turns on the same machine.
 *
 *   node bench/boot.js [--pairs 5] [--node PATH] [--kernel FILE --initrd FILE] [--append STRING] [--marker TEXT]
 *                      [--qemu PATH] [--warmup 1] [--json]
 */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { fetchDefaultGuest } from '../dist/guest/index.js';
import { median, qemuArgs, wholeNumber } from './common.js';

const { values } = parseArgs({
  options: {
    pairs: { type: 'string', default: '5' },
    warmup: { type: 'string', default: '1' },
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
const warmup = wholeNumber('bench/boot', 'warmup', values.warmup, 0);
if ((values.kernel === undefined) !== (values.initrd === undefined)) {
  console.error('bench/boot: --kernel and --initrd come together');
  process.exit(2);
}
const guest =
  values.kernel === undefined ? await fetchDefaultGuest() : { kernel: values.kernel, initrd: values.initrd };

const elvisor = fileURLToPath(new URL('../dist/bundle/cli.js', import.meta.url));
const machine = { kernel: guest.kernel, initrd: guest.initrd, append: values.append };
const image = Object.entries(machine).flatMap(([name, value]) => [`--${name}`, value]);
const contestants = {
  elvisor: [values.node, [elvisor, 'run', '--backend', 'soft', '--memory', '512M', '--no-reboot', ...image]],
  qemu: [values.qemu, qemuArgs(machine)],
};

/** Milliseconds from spawn to the marker; the process is killed then. */
function boot(name) {
  const [command, args] = contestants[name];
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
      child.kill('SIGKILL');
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

const times = { elvisor: [], qemu: [] };
try {
  for (let i = -warmup; i < pairs; i++) {
    for (const name of ['elvisor', 'qemu']) {
      const ms = await boot(name);
      if (i >= 0) times[name].push(ms);
      if (!values.json)
        console.error(`${i < 0 ? 'warm-up' : `pair ${i + 1}`}  ${name.padEnd(8)} ${(ms / 1000).toFixed(2)} s`);
    }
  }
} catch (error) {
  console.error(`bench/boot: ${error.message}`);
  process.exit(1);
}
const medians = { elvisor: median(times.elvisor), qemu: median(times.qemu) };
const ratio = medians.elvisor / medians.qemu;
if (values.json) {
  console.log(JSON.stringify({ pairs, marker: values.marker, times, medians, ratio }));
} else {
  const line = (name) => `${name.padEnd(8)} ${(medians[name] / 1000).toFixed(2)} s (median of ${pairs})`;
  console.log(`${line('elvisor')}\n${line('qemu')}\nratio    ${ratio.toFixed(2)}`);
}
