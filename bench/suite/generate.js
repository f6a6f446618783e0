#!/usr/bin/env node
/**
 * A guest that generates code for ever. `code`: as a JIT does, functions that never were before are written into fresh memory, run
 * often enough to be compiled, and given back. `modules`: a kernel module is loaded and removed. Prints, minute by minute,
 * how fast that goes and how much memory the process has: neither is to slide.
 *
 *   node bench/suite/generate.js [--work code|modules] [--minutes 10] [--node PATH] [--qemu PATH] [--only elvisor|qemu]
 */
import { fetchDefaultGuest } from '../../dist/guest/index.js';
import { commandLine } from '../../scripts/command-line.js';
import { facts, textTable, wholeNumber } from '../common.js';
import { suiteDisks } from './image.js';
import { Machine } from './machines.js';
import { GENERATE, MODULES } from './rows.js';

const MINUTE_MS = 60_000;

const { values } = commandLine(import.meta.url, {
  options: {
    work: { type: 'string', default: 'code' },
    minutes: { type: 'string', default: '10' },
    node: { type: 'string', default: process.execPath },
    qemu: { type: 'string', default: 'qemu-system-aarch64' },
    only: { type: 'string', default: 'elvisor' },
  },
});
const minutes = wholeNumber('bench', 'minutes', values.minutes, 1);
const say = (text) => console.error(text);
if (!['elvisor', 'qemu'].includes(values.only)) {
  say('bench: --only is elvisor or qemu');
  process.exit(2);
}

const row = { code: GENERATE, modules: MODULES }[values.work];
if (row === undefined) {
  say('bench: --work is code or modules');
  process.exit(2);
}

/**
 * Runs the row until a minute is over.
 * @returns its mean time in seconds, the memory that the process has then, and how much of it is not the guest's, where that is known
 */
async function minute(machine) {
  const end = performance.now() + MINUTE_MS;
  let [runs, ms] = [0, 0];
  do {
    ms += (await machine.run(row, row.expect)).ms;
    runs++;
  } while (performance.now() < end);
  const bytes = machine.residentBytes();
  const own = values.only === 'elvisor' ? bytes - (await machine.ask('figures')).touchedBytes : undefined;
  return { seconds: ms / runs / 1000, runs, bytes, own };
}

try {
  const guest = await fetchDefaultGuest();
  const disks = await suiteDisks({ say });
  const { node, qemu } = values;
  const machine = await Machine.boot(values.only, { guest, disks, node, qemu, nodeOptions: [], cpus: 1 });
  const rows = [];
  try {
    const mebibytes = (count) => (count === undefined ? '' : `${Math.round(count / 2 ** 20)} MiB`);
    for (let n = 1; n <= minutes; n++) {
      const { seconds, runs, bytes, own } = await minute(machine);
      rows.push([String(n), String(runs), `${seconds.toFixed(2)} s`, mebibytes(bytes), mebibytes(own)]);
      say(`minute ${rows.at(-1).join('  ')}`);
    }
  } finally {
    await machine.close();
  }
  const { date, cpu, node: version } = facts(values);
  console.log(`${date}, ${cpu}, Node ${version}, ${values.only}; ${row.what}`);
  console.log(textTable([['minute', 'runs', 'each', 'memory', 'without the guest’s'], ...rows]));
  process.exit(0);
} catch (error) {
  say(`bench: ${error.message}`);
  process.exit(1);
}
