// What the suite found, as text for a terminal, as tables and a plot for docs/performance.md.
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { geometricMean, markdownTable, median, textTable } from '../common.js';
import { LIMITS } from './rows.js';

const PAGE = fileURLToPath(new URL('../../docs/performance.md', import.meta.url));
const PLOT = fileURLToPath(new URL('../../docs/performance.svg', import.meta.url));

const PICTURE = '![Seconds against guest instructions, elvisor and QEMU](performance.svg)';

const seconds = (ms) => (ms / 1000).toFixed(2);
const mebibytes = (bytes) => `${Math.round(bytes / 2 ** 20)} MiB`;

/**
 * @param rows `{ name, group, what }`, in order
 * @param times milliseconds by row's name and machine: `{ elvisor: [], qemu: [] }`, as many of each as pairs were run
 * @returns a line for each row that ran, the geometric mean of the speeds, and the line with the lowest
 */
export function summarize(rows, times) {
  const lines = rows
    .filter(({ name }) => times.has(name))
    .map((row) => {
      const [elvisor, qemu] = ['elvisor', 'qemu'].map((machine) => median(times.get(row.name)[machine]));
      return { ...row, elvisor, qemu, speed: qemu / elvisor };
    });
  const worst = lines.reduce((least, line) => (line.speed < least.speed ? line : least));
  return { lines, mean: geometricMean(lines.map(({ speed }) => speed)), worst };
}

const cells = ({ name, qemu, elvisor, speed }) => [name, seconds(qemu), seconds(elvisor), speed.toFixed(2)];
const closing = ({ mean, worst }) =>
  `geometric mean ${mean.toFixed(2)}, worst row ${worst.speed.toFixed(2)} (${worst.name})`;
const origin = ({ date, cpu, node, qemu, guest, pairs, measure, state }) =>
  `${date}, ${cpu}, Node ${node}, ${qemu}, ${guest}; ${measure} of ${pairs} ${pairs === 1 ? 'pair' : 'pairs'}; ${state}`;

/** The engine's own figures, each with the most that it may be. */
function figureRows({ figures }) {
  const { start, first, node, excess, touched, pause, pauseWithWaits, compiling } = figures;
  return [
    ['figure', 'measured', 'at most'],
    [`first guest instruction after Node's start (${Math.round(node)} ms)`, `${Math.round(start)} ms`, '60 ms'],
    ['the same at the very first start, before V8 has kept anything', `${Math.round(first)} ms`, ''],
    [`peak memory beyond what the guest touched (${mebibytes(touched)})`, mebibytes(excess), '120 MiB'],
    ['longest time V8 compiled while the event loop waited', `${compiling.toFixed(1)} ms`, '20 ms'],
    ['longest pause of the event loop, for whatever reason', `${pause.toFixed(1)} ms`, ''],
    ['the same with the time that the thread waited for a processor', `${pauseWithWaits.toFixed(1)} ms`, ''],
  ];
}

/** For a terminal. */
export function toText(result) {
  const { summary, linear } = result;
  const parts = [
    origin(result.facts),
    textTable([['row', 'qemu s', 'elvisor s', 'speed'], ...summary.lines.map(cells)]),
    closing(summary),
    textTable(figureRows(result)),
  ];
  if (linear !== undefined) parts.push(textTable(linearRows(linear)));
  return parts.join('\n\n');
}

function linearRows(linear) {
  const rows = linear.map(({ instructions, elvisor, qemu }) => [
    (instructions / 1e9).toFixed(2),
    seconds(qemu),
    seconds(elvisor),
  ]);
  return [['G instructions', 'qemu s', 'elvisor s'], ...rows];
}

/** Replaces what stands between the page's marks for `name`. @throws Error a page without them */
export function replaceSection(page, name, text) {
  const [begin, end] = ['begin', 'end'].map((side) => `<!-- ${name}: ${side} -->`);
  const [from, to] = [page.indexOf(begin), page.indexOf(end)];
  if (from < 0 || to < from) throw new Error(`the page has no ${begin} … ${end}`);
  return `${page.slice(0, from + begin.length)}\n\n${text}\n\n${page.slice(to)}`;
}

/** The page with a heading and the marks for a Node release, before `next`, where it has none. */
export function withRelease(page, release, next) {
  const marks = ['suite', 'figures'].map(
    (what) => `<!-- node-${release} ${what}: begin -->\n\n<!-- node-${release} ${what}: end -->`,
  );
  if (page.includes(marks[0].split('\n', 1)[0])) return page;
  const at = page.indexOf(next);
  if (at < 0) throw new Error(`the page has no ${JSON.stringify(next)}`);
  return `${page.slice(0, at)}## Node ${release}\n\n${marks.join('\n\n')}\n\n${page.slice(at)}`;
}

/** Writes what was measured into docs/performance.md, and the plot beside it. What people wrote there stays. */
export function writeDocs(result) {
  const { summary, linear } = result;
  const rows = summary.lines.map((line) => [...cells(line), line.what, LIMITS[line.name] ?? '']);
  const table = markdownTable([['row', 'QEMU, s', 'elvisor, s', 'speed', 'what', 'limited by'], ...rows]);
  const release = result.facts.node.replace(/^v(\d+).*/, '$1');
  let page = withRelease(readFileSync(PAGE, 'utf8'), release, '## Cost grows with work');
  page = replaceSection(page, `node-${release} suite`, `${origin(result.facts)}: ${closing(summary)}.\n\n${table}`);
  page = replaceSection(page, `node-${release} figures`, markdownTable(figureRows(result)));
  if (linear !== undefined) {
    page = replaceSection(
      page,
      'linear',
      `${PICTURE}\n\n${origin(result.facts)}.\n\n${markdownTable(linearRows(linear))}`,
    );
    writeFileSync(PLOT, plot(linear));
  }
  writeFileSync(PAGE, page);
}

/** Seconds against guest instructions, both axes logarithmic: work that costs its share lies on a line of slope one. */
export function plot(linear) {
  const [width, height, left, bottom, top, right] = [640, 400, 60, 50, 20, 20];
  const decades = (values) => [Math.floor(Math.log10(Math.min(...values))), Math.ceil(Math.log10(Math.max(...values)))];
  const scale =
    ([low, high], from, to) =>
    (value) =>
      from + ((Math.log10(value) - low) / (high - low || 1)) * (to - from);
  const [xs, ys] = [
    decades(linear.map(({ instructions }) => instructions / 1e9)),
    decades(linear.flatMap(({ elvisor, qemu }) => [elvisor / 1000, qemu / 1000])),
  ];
  const [x, y] = [scale(xs, left, width - right), scale(ys, height - bottom, top)];
  const steps = ([low, high]) => Array.from({ length: high - low + 1 }, (_, i) => 10 ** (low + i));
  const grid = [
    ...steps(xs).map(
      (v) =>
        `<path class="grid" d="M${x(v)} ${top}V${height - bottom}"/><text x="${x(v)}" y="${height - bottom + 18}" text-anchor="middle">${v}</text>`,
    ),
    ...steps(ys).map(
      (v) =>
        `<path class="grid" d="M${left} ${y(v)}H${width - right}"/><text x="${left - 8}" y="${y(v) + 4}" text-anchor="end">${v}</text>`,
    ),
  ];
  const curve = (machine) => {
    const points = linear.map((point) =>
      [x(point.instructions / 1e9), y(point[machine] / 1000)].map((n) => n.toFixed(1)),
    );
    const dots = points.map(([cx, cy]) => `<circle class="${machine}" cx="${cx}" cy="${cy}" r="3"/>`);
    const [lastX, lastY] = points.at(-1);
    const label = `<text class="${machine}" x="${lastX - 8}" y="${machine === 'elvisor' ? Number(lastY) + 18 : lastY - 8}" text-anchor="end">${machine}</text>`;
    return [`<path class="line ${machine}" d="M${points.map((p) => p.join(' ')).join('L')}"/>`, ...dots, label];
  };
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" role="img" aria-label="Seconds against guest instructions">
<style>text{font:12px sans-serif;fill:#555}.grid{stroke:#ccc}.line{fill:none;stroke-width:2}.elvisor{stroke:#1f6feb}.qemu{stroke:#d1691a}circle.elvisor,text.elvisor{fill:#1f6feb;stroke:none}circle.qemu,text.qemu{fill:#d1691a;stroke:none}</style>
${[...grid, ...curve('qemu'), ...curve('elvisor')].join('\n')}
<text x="${(left + width - right) / 2}" y="${height - 8}" text-anchor="middle">guest instructions, G</text>
<text x="14" y="${top + 8}">s</text>
</svg>
`;
}
