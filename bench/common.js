// What the benches share: numbers, tables, the two contestants.
import { execFileSync } from 'node:child_process';
import { cpus } from 'node:os';

/** Of an odd count the middle one, of an even count the mean of the middle two. */
export function median(numbers) {
  if (numbers.length === 0) throw new RangeError('median: of no numbers');
  const sorted = [...numbers].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

export function geometricMean(numbers) {
  if (numbers.length === 0 || numbers.some((n) => !(n > 0))) {
    throw new RangeError('geometricMean: of positive numbers, one at least');
  }
  return Math.exp(numbers.reduce((sum, n) => sum + Math.log(n), 0) / numbers.length);
}

/** A whole number from an option. Ends the process with 2 where it is none. */
export function wholeNumber(bench, name, text, min) {
  const value = Number(text);
  if (text.trim() !== '' && Number.isInteger(value) && value >= min) return value;
  console.error(`${bench}: --${name} is a whole number from ${min}, not ${JSON.stringify(text)}`);
  process.exit(2);
}

/** Rows of cells in columns; what looks like a number is at the right. */
export function textTable(rows) {
  const widths = rows[0].map((_, i) => Math.max(...rows.map((row) => row[i].length)));
  const isNumber = (cell) => /^[0-9.]+( s| ms| MiB)?$/.test(cell);
  return rows
    .map((row) =>
      row
        .map((cell, i) => (isNumber(cell) ? cell.padStart(widths[i]) : cell.padEnd(widths[i])))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

/** The same in Markdown; the first row is the head. */
export function markdownTable(rows) {
  const line = (row) => `| ${row.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`;
  return [line(rows[0]), `|${rows[0].map(() => '---|').join('')}`, ...rows.slice(1).map(line)].join('\n');
}

/** QEMU's arguments for the machine that elvisor is compared with; `console` is where the PL011 goes. */
export function qemuArgs({ kernel, initrd, append, memory = '512', cpus = 1 }) {
  const machine = ['-M', 'virt,gic-version=3', '-cpu', 'cortex-a57', '-m', memory, '-smp', String(cpus)];
  const image = ['-kernel', kernel, '-initrd', initrd, '-append', append];
  return [...machine, '-nographic', '-no-reboot', '-nodefaults', '-serial', 'stdio', ...image];
}

/** What was compared, and on what: for the head of a table. */
export function facts({ node = process.execPath, qemu = 'qemu-system-aarch64' } = {}) {
  const first = (command, args) => execFileSync(command, args, { encoding: 'utf8' }).split('\n', 1)[0];
  const models = cpus();
  return {
    date: new Date().toISOString().slice(0, 10),
    cpu: `${models.length} × ${models[0]?.model ?? 'unknown'}`,
    node: first(node, ['--version']),
    qemu: first(qemu, ['--version']),
  };
}
