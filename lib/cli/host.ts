import { type FeatureFindings, type Finding, type HostInfo, hostInfo, type Probe, probe } from '../backends.js';
import { Status } from './status.js';

/** What `elvisor host --json` prints. Fields are only ever added. */
export interface HostReport extends HostInfo {
  /** Which backends can be used, why not, and which one `auto` takes. */
  readonly backends: Probe;
}

/** `elvisor host`. @returns the exit status */
export function host(json: boolean): number {
  const report: HostReport = { ...hostInfo(), backends: probe() };
  process.stdout.write(json ? `${JSON.stringify(report, undefined, 2)}\n` : formatReport(report));
  return Status.OK;
}

const MODES = {
  vhe: ['VHE', 'The kernel runs at EL2, and is the hypervisor.'],
  nested: ['VHE, nested', 'The kernel runs at EL2, and is the hypervisor; its guests may have an EL2, too.'],
  nvhe: ['nVHE', 'The kernel runs at EL1, and calls a small hypervisor of its own at EL2.'],
  hvhe: ['hVHE', 'The kernel runs at EL1, and calls a small hypervisor of its own at EL2, which uses VHE.'],
  'protected-nvhe': ['protected nVHE', 'The kernel runs at EL1, below a hypervisor (pKVM) that guards guests from it.'],
  'protected-hvhe': [
    'protected hVHE',
    'The kernel runs at EL1, below a hypervisor (pKVM) that uses VHE and guards guests from it.',
  ],
  none: ['none', ''],
} as const;

const ORIGINS = { boot: "the boot loader's level", cpu: 'the CPU', 'command-line': 'the command line' } as const;
const SYSTEMS: { readonly [platform: string]: string } = { linux: 'Linux', darwin: 'macOS', win32: 'Windows' };
const VHE = { no: 'no', yes: 'yes', only: 'yes, and only that' } as const;
const DOUBTS = { certain: '', likely: ', likely', guess: ', a guess', none: '' } as const;

/** Label, value, and what said so. */
type Row = readonly [label: string, value: string, because?: string];

/** The report as a person reads it. */
export function formatReport(report: HostReport): string {
  const { device, backends, capabilities, kvmMode } = report;
  const head: Row[] = [['host', `${report.arch}, ${SYSTEMS[report.platform] ?? report.platform} ${report.kernel}`]];
  if (device.usable) head.push([device.path, 'works']);
  else {
    head.push([device.path, device.opens ? 'opens, but is of no use to arm64 guests' : 'cannot be used']);
    head.push(['', device.reason]);
    head.push(['', device.wayOut]);
  }
  head.push(['backend', `auto takes ${backends.auto}`]);

  const found: (Row | undefined)[] = [
    row('boot EL', report.bootEl, (el) => (el === 'mixed' ? 'not the same for all CPUs' : el)),
    row('kernel EL', report.kernelEl, String),
    row('CPU has VHE', report.cpuVhe, (vhe) => VHE[vhe]),
    row('KVM mode', kvmMode, (mode) => MODES[mode][0]),
    row('mode is from', report.kvmModeFrom, (origin) => ORIGINS[origin]),
    row('GIC', report.gic, String),
    row("guests' GIC", report.guestGics, (gics) => gics.map(gicName).join(', ') || 'none'),
    row("guests' IPA", report.ipaBits, (bits) => `${bits} bits`),
    row('page size', report.pageSize, (bytes) => `${bytes / 1024} KiB`),
    featureRow('PMU', report.pmu),
    featureRow('SVE', report.sve),
    featureRow('MTE', report.mte),
    row('capabilities', capabilities, (named) => `${Object.keys(named).length}, --json names them`),
  ];
  const tail: string[] = [];
  if (kvmMode.value !== null && kvmMode.value !== 'none') tail.push(MODES[kvmMode.value][1]);
  if (report.unread.length > 0) {
    tail.push(`Not read: ${report.unread.map(({ source, error }) => `${source} (${error})`).join(', ')}.`);
  }
  const findings = aligned(found.filter((each) => each !== undefined));
  return [aligned(head), findings, ...tail.map((line) => `${line}\n`)].join('\n');
}

function row<T>(label: string, finding: Finding<T>, show: (value: T) => string): Row | undefined {
  const { value, confidence, evidence } = finding;
  if (value === null) return undefined;
  const [first] = evidence;
  const text = show(value) + DOUBTS[confidence];
  return first === undefined ? [label, text] : [label, text, `${first.said} (${first.source})`];
}

function featureRow(label: string, { host, guest }: FeatureFindings): Row | undefined {
  if (host.value === null && guest.value === null) return undefined;
  const show = ({ value }: Finding<boolean>): string => (value === null ? 'unknown' : value ? 'yes' : 'no');
  const text = `host ${show(host)}, guests ${show(guest)}`;
  const [first] = guest.value === null ? host.evidence : guest.evidence;
  return first === undefined ? [label, text] : [label, text, `${first.said} (${first.source})`];
}

/** `ARM_VGIC_V3` as people say it. */
const gicName = (name: string): string => name.replace(/^ARM_VGIC_/, '').replace(/^V/, 'GICv');

function aligned(rows: readonly Row[]): string {
  const widest = (column: 0 | 1, of: readonly Row[]): number => Math.max(0, ...of.map((each) => each[column].length));
  const labels = widest(0, rows);
  const values = widest(
    1,
    rows.filter(([, , because]) => because !== undefined),
  );
  return rows
    .map(([label, value, because]) => [label.padEnd(labels), because ? value.padEnd(values) : value, because ?? ''])
    .map((cells) => `${cells.join('  ').trimEnd()}\n`)
    .join('');
}
