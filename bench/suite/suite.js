#!/usr/bin/env node
/**
 * The suite: what users run in a guest, elvisor and QEMU in turn on the same machine, with the same kernel, initial RAM disk,
 * disks and memory. Both boot; then each row runs on one and on the other, while the one that waits is idle. The host
 * measures, between two marks on the guest's console. What comes out is checked. speed = QEMU's time / elvisor's, of medians.
 *
 *   node bench/suite/suite.js [ROW...] [--pairs 5] [--node PATH] [--qemu PATH] [--docs] [--linear] [--cpu-time] [--json FILE]
 *                             [--code-cache empty|kept] [--list] [--only elvisor|qemu] ['--node-options=--cpu-prof …']
 *
 * ROW is a row's name or its group's; all if none is given. --linear measures 0.1 to 10 G instructions too. --docs writes
 * docs/performance.md. --code-cache says what elvisor begins with: nothing (as in a first run), or the code that a round before, which
 * is not counted, has compiled and kept (as in later runs). --cpu-time counts the processes' CPU time instead, for a machine that others use as well.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fetchDefaultGuest } from '../../dist/guest/index.js';
import { commandLine } from '../../scripts/command-line.js';
import { facts, median, textTable, wholeNumber } from '../common.js';
import { suiteDisks } from './image.js';
import { Machine } from './machines.js';
import { summarize, toText, writeDocs } from './report.js';
import { LINEAR, makeData, ROWS } from './rows.js';
import { startTimes } from './start.js';

const { values, positionals } = commandLine(import.meta.url, {
  allowPositionals: true,
  options: {
    pairs: { type: 'string', default: '5' },
    node: { type: 'string', default: process.execPath },
    'node-options': { type: 'string', default: '' },
    qemu: { type: 'string', default: 'qemu-system-aarch64' },
    'code-cache': { type: 'string', default: 'empty' },
    only: { type: 'string' },
    docs: { type: 'boolean', default: false },
    linear: { type: 'boolean', default: false },
    'cpu-time': { type: 'boolean', default: false },
    json: { type: 'string' },
    list: { type: 'boolean', default: false },
  },
});
const pairs = wholeNumber('bench', 'pairs', values.pairs, 1);
const machines = values.only === undefined ? ['qemu', 'elvisor'] : [values.only];
const say = (text) => console.error(text);
const fail = (text) => {
  say(`bench: ${text}`);
  process.exit(2);
};
if (values.list) {
  console.log(textTable(ROWS.map(({ name, group, what }) => [name, group, what])));
  process.exit(0);
}
if (values.only !== undefined && !['elvisor', 'qemu'].includes(values.only)) fail('--only is elvisor or qemu');
if (!['empty', 'kept'].includes(values['code-cache'])) fail('--code-cache is empty or kept');
if (values.only !== undefined && values.docs) fail('--docs needs both machines: leave --only out');
const unknown = positionals.filter((word) => !ROWS.some(({ name, group }) => word === name || word === group));
if (unknown.length > 0) fail(`there is no row ${unknown.join(', ')}; --list has them`);
if (positionals.length > 0 && values.docs) fail('--docs is of all rows: give none');
const rows = ROWS.filter(
  ({ name, group }) => positionals.length === 0 || [name, group].some((w) => positionals.includes(w)),
);

const guest = await fetchDefaultGuest();
const disks = await suiteDisks({ say });
const data = makeData();
const thrice = Buffer.concat(new Array(3).fill(data.get('text')));
/** Where code is kept from pair to pair; else each machine has a directory of its own, which is empty. */
const codeCache = values['code-cache'] === 'kept' ? mkdtempSync(join(tmpdir(), 'elvisor-code-')) : undefined;
process.on('exit', () => {
  if (codeCache !== undefined) rmSync(codeCache, { recursive: true, force: true });
});
const parts = {
  guest,
  disks,
  node: values.node,
  nodeOptions: values['node-options'].split(' ').filter((word) => word !== ''),
  qemu: values.qemu,
  codeCache,
};
/** Milliseconds by row and machine. */
const times = new Map();
/** The engine's figures, of each machine that ran. */
const stats = [];

/** Boots the machines, runs the rows on each in turn, and asks elvisor how it was. */
async function runPair(rows, cpus, order, record) {
  const booted = {};
  try {
    for (const name of order) booted[name] = await Machine.boot(name, { ...parts, cpus });
    const before = await booted.elvisor?.ask('instructions');
    for (const row of rows) {
      const expected = typeof row.expect === 'function' ? row.expect(data) : row.expect;
      const shown = [];
      for (const name of order) {
        const { ms, cpuMs } = await booted[name].run(row, expected, (bytes) => thrice.subarray(0, bytes));
        const time = values['cpu-time'] ? cpuMs : ms;
        record(row, name, time);
        shown.push(`${name} ${(time / 1000).toFixed(2)} s`);
      }
      say(`  ${row.name.padEnd(16)} ${shown.join('  ')}`);
    }
    if (before === undefined) return undefined;
    const instructions = (await booted.elvisor.ask('instructions')) - before;
    return { ...(await booted.elvisor.ask('figures')), instructions };
  } finally {
    await Promise.all(Object.values(booted).map((machine) => machine.close()));
  }
}

function record({ name }, machine, ms) {
  if (!times.has(name)) times.set(name, { elvisor: [], qemu: [] });
  times.get(name)[machine].push(ms);
}

/** Time against guest instructions, which elvisor counts. */
async function runLinear() {
  const points = [];
  for (const row of LINEAR) {
    const point = {};
    // A machine of its own for each, so that none finds what the one before compiled.
    const { instructions } = await runPair([row], 1, machines, (_, name, ms) => {
      point[name] = ms;
    });
    points.push({ ...point, instructions });
  }
  return points;
}

try {
  if (codeCache !== undefined && machines.includes('elvisor')) {
    say('a round that is not counted');
    for (const cpus of new Set(rows.map((row) => row.cpus)))
      await runPair(
        rows.filter((row) => row.cpus === cpus),
        cpus,
        ['elvisor'],
        () => {},
      );
  }
  for (let pair = 0; pair < pairs; pair++) {
    const order = pair % 2 === 0 ? machines : machines.toReversed();
    say(`pair ${pair + 1} of ${pairs}`);
    for (const cpus of new Set(rows.map((row) => row.cpus))) {
      const figures = await runPair(
        rows.filter((row) => row.cpus === cpus),
        cpus,
        order,
        record,
      );
      if (figures !== undefined) stats.push(figures);
    }
  }
  if (machines.length === 1) {
    const medians = [...times].map(([name, time]) => [name, (median(time[machines[0]]) / 1000).toFixed(2)]);
    console.log(textTable([['row', `${machines[0]} s`], ...medians]));
    process.exit(0);
  }
  const { node, first, start } = await startTimes({ guest, node: values.node });
  const most = (pick) => Math.max(...stats.map(pick));
  const largest = stats.reduce((a, b) => (a.peakBytes - a.touchedBytes > b.peakBytes - b.touchedBytes ? a : b));
  const result = {
    facts: {
      ...facts(values),
      guest: guest.description,
      pairs,
      measure: values['cpu-time'] ? 'medians of the CPU time' : 'medians',
      state: codeCache === undefined ? 'first runs, with no code kept' : 'later runs, with the code of one before',
    },
    summary: summarize(rows, times),
    figures: {
      node,
      first,
      start,
      touched: largest.touchedBytes,
      excess: largest.peakBytes - largest.touchedBytes,
      pause: most(({ pauseMs }) => pauseMs),
      pauseWithWaits: most(({ withWaitsMs }) => withWaitsMs),
      compiling: most(({ compilingMs }) => compilingMs),
    },
    linear: values.linear ? await runLinear() : undefined,
  };
  console.log(toText(result));
  if (values.json !== undefined)
    writeFileSync(values.json, `${JSON.stringify({ ...result, times: Object.fromEntries(times) }, undefined, 2)}\n`);
  if (values.docs) writeDocs(result);
  process.exit(0);
} catch (error) {
  say(`bench: ${error.message}`);
  process.exit(1);
}
