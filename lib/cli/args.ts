import { parseArgs } from 'node:util';
import { MAX_CPUS } from '../vmm/board.js';
import type { BackendKind, ClockKind, DiskSpec, KernelFormat } from '../vmm/options.js';
import { parseHugePages, parseMemory } from '../vmm/options.js';

/** What the user typed cannot be meant: one line on stderr, status 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

/** Options of `elvisor run` and `elvisor dtb`, as typed. */
export interface RunArgs {
  readonly backend: BackendKind;
  readonly kernel: string | undefined;
  readonly kernelFormat: KernelFormat;
  readonly initrd: string | undefined;
  readonly append: string | undefined;
  readonly dtb: string | undefined;
  /** Bytes. */
  readonly memory: number | undefined;
  /** Bytes of each. */
  readonly hugePages: number | undefined;
  readonly cpus: number | undefined;
  readonly gic: 2 | 3 | undefined;
  readonly its: boolean;
  readonly pmu: boolean;
  readonly disks: readonly DiskSpec[];
  readonly clock: ClockKind;
  /** A directory, or `'none'`; `undefined` for the user's own. */
  readonly codeCache: string | undefined;
  readonly noReboot: boolean;
  readonly timeoutMs: number | undefined;
  readonly quiet: boolean;
  /** `--trace profile[=FILE]`. */
  readonly profile: { readonly file: string | undefined } | undefined;
  /** What follows `--`; `undefined` where there is no `--`. */
  readonly command: readonly string[] | undefined;
}

/** A command line of `elvisor`. */
export type Invocation =
  | { readonly command: 'run'; readonly args: RunArgs }
  | { readonly command: 'dtb'; readonly args: RunArgs }
  | { readonly command: 'demo'; readonly args: RunArgs }
  | { readonly command: 'guest'; readonly action: 'fetch' | 'list' | 'path'; readonly quiet: boolean }
  | { readonly command: 'host'; readonly json: boolean }
  | { readonly command: 'help' }
  | { readonly command: 'version' };

const RUN_OPTIONS = {
  backend: { type: 'string' },
  kernel: { type: 'string' },
  'kernel-format': { type: 'string' },
  initrd: { type: 'string' },
  append: { type: 'string' },
  dtb: { type: 'string' },
  memory: { type: 'string' },
  'huge-pages': { type: 'string' },
  cpus: { type: 'string' },
  gic: { type: 'string' },
  its: { type: 'boolean' },
  pmu: { type: 'boolean' },
  disk: { type: 'string', multiple: true },
  clock: { type: 'string' },
  'code-cache': { type: 'string' },
  'no-reboot': { type: 'boolean' },
  timeout: { type: 'string' },
  trace: { type: 'string' },
  quiet: { type: 'boolean' },
} as const;

/** The options that make sense without a kernel of the user's own. */
const DEMO_OPTIONS: readonly (keyof typeof RUN_OPTIONS)[] = [
  'backend',
  'memory',
  'cpus',
  'clock',
  'code-cache',
  'timeout',
  'trace',
  'quiet',
];

/** The longest timeout that the platform's timers take, in milliseconds. */
const MAX_TIMEOUT_MS = 2 ** 31 - 1;

export const HELP = `Usage: elvisor run [options] [-- COMMAND ARG...]
       elvisor demo
       elvisor host [--json]
       elvisor guest fetch|list|path
       elvisor dtb [run options] > out.dtb
       elvisor --help | --version

Boots an arm64 Linux in a microVM, on this machine's KVM or on the software one.
Without --kernel, that is the default guest: a Debian kernel and busybox, fetched
on first need. With COMMAND, the default guest runs it and elvisor ends with its
status; without, its console is on the terminal (Ctrl-A x leaves).

host says what this machine's KVM is, and how it can tell: boot and kernel exception
level, VHE, nVHE or protected, GIC, what guests can have, and why /dev/kvm cannot be
used where it cannot; and which backend auto takes.

Options of run:
  --backend auto|kvm|soft   which machine runs the guest (auto)
  --kernel FILE             an arm64 Image (raw, gzip, zstd, EFI zboot) or ELF file
  --kernel-format auto|raw  raw: a flat program, at RAM + 512 KiB as under QEMU (auto)
  --initrd FILE             its initial RAM disk
  --append STRING           its command line, given exactly so
  --dtb FILE                a device tree to use instead of the board's own
  --memory SIZE             RAM, such as 256M or 1G (512M)
  --huge-pages SIZE         RAM in huge pages that the host has set aside: 2M, 1G
  --cpus N                  vCPUs, 1 to ${MAX_CPUS} (1)
  --gic 2|3                 the interrupt controller (3, or what the KVM has)
  --its                     with an ITS, for message-signalled interrupts
  --pmu                     with a PMU: perf counts cycles and instructions
  --disk FILE[,ro][,overlay]  a raw disk image; overlay: what is written is forgotten
  --clock host|virtual      virtual: time counted in instructions, every run the same
  --code-cache DIR|none     where the software machine keeps compiled guest code for the
                            next run (in the user's cache directory)
  --no-reboot               end when the guest resets itself
  --timeout SECONDS         end, with status 124, if the guest still runs then
  --trace profile[=FILE]    when the guest has ended, write hot guest code and where
                            time went, to FILE or stderr (software machine only)
  --quiet                   no progress on stderr, and a silent default kernel

Exit status: 0 the guest powered off, or COMMAND's own; 1 the guest panicked or
died; 2 bad usage or input; 3 backend or default guest unavailable; 124 timeout.
`;

/** Reads a command line, program name apart. @throws UsageError */
export function parseCommandLine(argv: readonly string[]): Invocation {
  const [first, ...rest] = argv;
  if (first === undefined) throw new UsageError('no command given; try: elvisor --help');
  switch (first) {
    case '--help':
    case '-h':
    case 'help':
      return { command: 'help' };
    case '--version':
    case '-V':
      return { command: 'version' };
    case 'run':
    case 'dtb':
    case 'demo':
      return runInvocation(first, rest);
    case 'guest':
      return guestInvocation(rest);
    case 'host':
      return hostInvocation(rest);
    default:
      throw new UsageError(
        first.startsWith('-')
          ? `unknown option ${first}; a command comes first: elvisor run ${first}`
          : `unknown command ${JSON.stringify(first)}; there are run, demo, host, guest and dtb`,
      );
  }
}

function guestInvocation(argv: readonly string[]): Invocation {
  const actions = argv.filter((arg) => arg !== '--quiet');
  if (actions.includes('--help') || actions.includes('-h')) return { command: 'help' };
  const [action, extra] = actions;
  if (action !== 'fetch' && action !== 'list' && action !== 'path') {
    throw new UsageError(
      action === undefined
        ? 'guest needs an action: fetch, list or path'
        : `guest: unknown action ${JSON.stringify(action)}; there are fetch, list and path`,
    );
  }
  if (extra !== undefined) throw new UsageError(`guest ${action}: unexpected argument ${JSON.stringify(extra)}`);
  return { command: 'guest', action, quiet: argv.includes('--quiet') };
}

function hostInvocation(argv: readonly string[]): Invocation {
  if (argv.includes('--help') || argv.includes('-h')) return { command: 'help' };
  const extra = argv.find((arg) => arg !== '--json');
  if (extra !== undefined) throw new UsageError(`host: unexpected argument ${JSON.stringify(extra)}; there is --json`);
  return { command: 'host', json: argv.includes('--json') };
}

function runInvocation(command: 'run' | 'dtb' | 'demo', argv: readonly string[]): Invocation {
  const values = new Map<string, string[]>();
  let guestCommand: string[] | undefined;
  const { tokens } = parseArgs({
    args: [...argv],
    options: RUN_OPTIONS,
    strict: false,
    allowPositionals: true,
    tokens: true,
  });
  for (const token of tokens) {
    if (token.kind === 'option-terminator') {
      guestCommand = argv.slice(token.index + 1);
      break;
    }
    if (token.kind === 'positional') {
      throw new UsageError(
        `${command}: unexpected argument ${JSON.stringify(token.value)}${command === 'run' ? '; a command for the guest goes after --' : ''}`,
      );
    }
    const { name, rawName, value } = token;
    if (rawName === '--help' || rawName === '-h') return { command: 'help' };
    const option = (RUN_OPTIONS as Record<string, { type: string; multiple?: boolean }>)[name];
    if (option === undefined || !rawName.startsWith('--')) {
      throw new UsageError(`${command}: unknown option ${rawName}; see elvisor --help`);
    }
    if (command === 'demo' && !DEMO_OPTIONS.includes(name as keyof typeof RUN_OPTIONS)) {
      throw new UsageError(`demo: ${rawName} does not apply to the embedded guest`);
    }
    if (option.type === 'boolean') {
      if (value !== undefined) throw new UsageError(`${command}: ${rawName} takes no value`);
    } else if (value === undefined) {
      throw new UsageError(`${command}: ${rawName} needs a value`);
    }
    const given = values.get(name) ?? [];
    if (given.length > 0 && option.multiple !== true && option.type !== 'boolean') {
      throw new UsageError(`${command}: ${rawName} is given twice`);
    }
    values.set(name, [...given, value ?? '']);
  }
  if (guestCommand !== undefined && command !== 'run') throw new UsageError(`${command}: takes no command after --`);
  if (guestCommand?.length === 0) throw new UsageError('run: -- is there, but no command follows');
  const one = (name: keyof typeof RUN_OPTIONS): string | undefined => values.get(name)?.[0];
  const profile = trace(one('trace'));
  const args: RunArgs = {
    backend: backend(one('backend'), profile !== undefined),
    kernel: path(one('kernel'), '--kernel'),
    kernelFormat: choice(one('kernel-format'), '--kernel-format', ['auto', 'raw']) ?? 'auto',
    initrd: path(one('initrd'), '--initrd'),
    append: one('append'),
    dtb: path(one('dtb'), '--dtb'),
    memory: size(one('memory'), '--memory', parseMemory),
    hugePages: size(one('huge-pages'), '--huge-pages', parseHugePages),
    cpus: cpus(one('cpus')),
    gic: gicVersion(choice(one('gic'), '--gic', ['2', '3'])),
    its: values.has('its'),
    pmu: values.has('pmu'),
    disks: (values.get('disk') ?? []).map(parseDisk),
    clock: choice(one('clock'), '--clock', ['host', 'virtual']) ?? 'host',
    codeCache: path(one('code-cache'), '--code-cache'),
    noReboot: values.has('no-reboot'),
    timeoutMs: timeout(one('timeout')),
    quiet: values.has('quiet'),
    profile,
    command: guestCommand,
  };
  if (args.kernel === undefined && command === 'run') {
    for (const name of ['kernel-format', 'initrd', 'append', 'dtb'] as const) {
      if (values.has(name)) throw new UsageError(`run: --${name} belongs to a kernel of your own; give --kernel too`);
    }
  }
  if (args.kernel !== undefined && guestCommand !== undefined) {
    throw new UsageError('run: a COMMAND runs in the default guest; with --kernel, say in --append what to run');
  }
  return { command, args };
}

function trace(value: string | undefined): RunArgs['profile'] {
  if (value === undefined) return undefined;
  const [kind, file] = value.split(/=(.*)/s, 2);
  if (kind !== 'profile' || file === '')
    throw new UsageError(`--trace: expected profile or profile=FILE, got ${JSON.stringify(value)}`);
  return { file };
}

/** A profile is one of the software machine. */
function backend(value: string | undefined, profiled: boolean): BackendKind {
  const given = choice(value, '--backend', ['auto', 'kvm', 'soft']);
  if (!profiled) return given ?? 'auto';
  if (given === 'kvm')
    throw new UsageError(
      '--trace profile looks into the software machine; leave --backend kvm out (perf kvm looks into the kernel)',
    );
  return 'soft';
}

function choice<T extends string>(value: string | undefined, name: string, of: readonly T[]): T | undefined {
  if (value === undefined || of.includes(value as T)) return value as T | undefined;
  throw new UsageError(`${name}: expected ${of.join(', ')}, got ${JSON.stringify(value)}`);
}

function path(value: string | undefined, name: string): string | undefined {
  if (value === '') throw new UsageError(`${name}: expected a file, got an empty string`);
  return value;
}

function size(
  value: string | undefined,
  name: string,
  parse: (value: string, name: string) => number,
): number | undefined {
  if (value === undefined) return undefined;
  try {
    return parse(value, name);
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
}

function cpus(value: string | undefined): number | undefined {
  if (value === undefined) return undefined;
  const count = /^\d{1,9}$/.test(value) ? Number(value) : Number.NaN;
  if (count >= 1 && count <= MAX_CPUS) return count;
  throw new UsageError(`--cpus: expected a number from 1 to ${MAX_CPUS}, got ${JSON.stringify(value)}`);
}

function gicVersion(value: '2' | '3' | undefined): 2 | 3 | undefined {
  if (value === undefined) return undefined;
  return value === '2' ? 2 : 3;
}

function timeout(value: string | undefined): number | undefined {
  if (value === undefined) return undefined;
  const ms = /^\d{1,12}(\.\d{1,9})?$/.test(value) ? Math.ceil(Number(value) * 1000) : Number.NaN;
  if (ms >= 1 && ms <= MAX_TIMEOUT_MS) return ms;
  throw new UsageError(
    `--timeout: expected seconds, more than 0 and at most ${Math.floor(MAX_TIMEOUT_MS / 1000)}, got ${JSON.stringify(value)}`,
  );
}

/** `FILE[,ro][,overlay]`. @throws UsageError */
export function parseDisk(value: string): DiskSpec {
  const [file, ...flags] = value.split(',');
  if (file === undefined || file === '') {
    throw new UsageError(`--disk: ${JSON.stringify(value)} names no file; it is FILE[,ro][,overlay]`);
  }
  for (const [i, flag] of flags.entries()) {
    if (flag !== 'ro' && flag !== 'overlay') {
      throw new UsageError(
        `--disk: ${JSON.stringify(value)}: after the file come ro and overlay, not ${JSON.stringify(flag)} (a file name with a comma cannot be given: link to it)`,
      );
    }
    if (flags.indexOf(flag) !== i) throw new UsageError(`--disk: ${JSON.stringify(value)} says ${flag} twice`);
  }
  return { path: file, readOnly: flags.includes('ro'), overlay: flags.includes('overlay') };
}
