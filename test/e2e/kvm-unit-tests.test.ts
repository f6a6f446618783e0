import { spawn } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from '@jest/globals';
import { CLI, scratchDir } from './guest.ts';

/**
 * The arm64 images of kvm-unit-tests, which are not part of this project: ELVISOR_KVM_UNIT_TESTS names a folder that has
 * them (`selftest.flat` …). docs/kvm-unit-tests.md has the results with their reasons.
 */
const images = process.env.ELVISOR_KVM_UNIT_TESTS;
const suite = images === undefined ? describe.skip : describe;
const MINUTES = 60_000;

/** What the images say at their end, before they power off. */
const Status = { pass: 1, fail: 3, skip: 77 } as const;

interface UnitTest {
  readonly image: string;
  readonly args?: string;
  /** vCPUs; 1 if not given. */
  readonly cpus?: number;
  /** Of `elvisor run`, besides. */
  readonly options?: readonly string[];
  /** `'pass'` if not given. */
  readonly result?: keyof typeof Status;
  /** What every check that is skipped says; none is if not given. */
  readonly skips?: RegExp;
  /** Checks that measure the host's load, too: whether they pass is not looked at. */
  readonly timed?: RegExp;
}

const GICV2 = ['--gic', '2'];
const GICV3 = ['--gic', '3'];
const ITS = [...GICV3, '--its'];
const PMU = ['--pmu'];
/** One that counts loads and stores. */
const memAccess = (args: string): UnitTest => ({
  image: 'pmu',
  args,
  options: PMU,
  result: 'skip',
  skips: /event 0x13 is not supported/,
});

/** Each test that the suite's own list has for arm64 and that needs no migration, and those that it leaves out. */
const TESTS: Readonly<Record<string, UnitTest>> = {
  'selftest-setup': { image: 'selftest', args: 'setup smp=2 mem=256', cpus: 2, options: ['--memory', '256M'] },
  'selftest-vectors-kernel': { image: 'selftest', args: 'vectors-kernel' },
  'selftest-vectors-user': { image: 'selftest', args: 'vectors-user' },
  'selftest-smp': { image: 'selftest', args: 'smp', cpus: 4 },
  'pci-test': { image: 'pci-test', result: 'skip' },
  'pmu-cycle-counter': { image: 'pmu', args: 'cycle-counter 1', options: PMU },
  'pmu-event-introspection': { image: 'pmu', args: 'pmu-event-introspection', options: PMU },
  'pmu-event-counter-config': { image: 'pmu', args: 'pmu-event-counter-config', options: PMU },
  'pmu-basic-event-count': { image: 'pmu', args: 'pmu-basic-event-count', options: PMU },
  'pmu-mem-access': memAccess('pmu-mem-access'),
  'pmu-mem-access-reliability': memAccess('pmu-mem-access-reliability'),
  'pmu-sw-incr': { image: 'pmu', args: 'pmu-sw-incr', options: PMU },
  'pmu-chained-counters': { image: 'pmu', args: 'pmu-chained-counters', options: PMU },
  'pmu-chained-sw-incr': { image: 'pmu', args: 'pmu-chained-sw-incr', options: PMU },
  'pmu-chain-promotion': memAccess('pmu-chain-promotion'),
  'pmu-overflow-interrupt': memAccess('pmu-overflow-interrupt'),
  'gicv2-ipi': { image: 'gic', args: 'ipi', cpus: 4, options: GICV2 },
  'gicv2-active': { image: 'gic', args: 'active', cpus: 4, options: GICV2 },
  'gicv2-mmio': { image: 'gic', args: 'mmio', cpus: 4, options: GICV2 },
  'gicv2-mmio-up': { image: 'gic', args: 'mmio', options: GICV2 },
  'gicv2-mmio-3p': { image: 'gic', args: 'mmio', cpus: 3, options: GICV2 },
  'gicv3-ipi': { image: 'gic', args: 'ipi', cpus: 4, options: GICV3 },
  'gicv3-active': { image: 'gic', args: 'active', cpus: 4, options: GICV3 },
  'its-introspection': { image: 'gic', args: 'its-introspection', cpus: 4, options: ITS },
  'its-trigger': { image: 'gic', args: 'its-trigger', cpus: 4, options: ITS },
  psci: { image: 'psci', cpus: 4 },
  timer: { image: 'timer', timed: /latency within 10 ms/ },
  'micro-bench': { image: 'micro-bench', cpus: 2, options: ITS },
  cache: { image: 'cache' },
  'debug-bp': { image: 'debug', args: 'bp' },
  'debug-wp': { image: 'debug', args: 'wp' },
  'debug-sstep': { image: 'debug', args: 'ss' },
  'fpu-context': { image: 'fpu', cpus: 2 },
  'mte-sync': { image: 'mte', args: 'sync', result: 'skip', skips: /No MTE support/ },
  'mte-async': { image: 'mte', args: 'async', result: 'skip', skips: /No MTE support/ },
  'mte-asymm': { image: 'mte', args: 'asymm', result: 'skip', skips: /No MTE support/ },
  pl031: { image: 'pl031' },
  spinlock: { image: 'spinlock-test', cpus: 4 },
};

const scratch = scratchDir();
afterAll(() => scratch.remove());
/** The suite takes a file of variables for its initrd. This one says that CPU_ON from several vCPUs at once is safe here. */
const environment = scratch.file('environment');
writeFileSync(environment, 'ERRATA_6c7a5dce22b3=y\n');

/** Runs an image to its end by the command. */
function run({ image, args = '', cpus = 1, options = [] }: UnitTest): Promise<{ status: number | null; said: string }> {
  const file = join(images!, `${image}.flat`);
  if (!existsSync(file)) throw new Error(`ELVISOR_KVM_UNIT_TESTS: there is no ${file}`);
  const argv = [
    ...['run', '--backend', 'soft', '--kernel', file, '--kernel-format', 'raw', '--initrd', environment],
    ...['--append', args, '--cpus', String(cpus), '--timeout', '300'],
    ...(options.includes('--memory') ? [] : ['--memory', '128M']),
    ...options,
  ];
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [CLI, ...argv], { stdio: ['ignore', 'pipe', 'pipe'] });
    let said = '';
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => (said += chunk.toString()));
    child.on('error', reject);
    child.on('close', (status) => resolve({ status, said }));
  });
}

suite('kvm-unit-tests', () => {
  test.each(Object.entries(TESTS))(
    '%s',
    async (_, unit) => {
      const { status, said } = await run(unit);
      const { result = 'pass', skips = /^$/, timed = /^$/ } = unit;
      const of = (mark: string): string[] => said.split('\n').filter((line) => line.startsWith(mark));
      const late = of('FAIL').filter((line) => timed.test(line));
      expect({ failed: of('FAIL').filter((line) => !late.includes(line)), said }).toEqual({ failed: [], said });
      expect(of('SKIP').filter((line) => !skips.test(line))).toEqual([]);
      expect(said).toContain(`EXIT: STATUS=${Status[late.length > 0 ? 'fail' : result]}\n`);
      expect(status).toBe(0);
    },
    6 * MINUTES,
  );
});
