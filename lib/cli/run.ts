import { fstatSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { chooseBackend } from '../backends.js';
import { cacheDir } from '../guest/cache-dir.js';
import { drain } from '../node/drain.js';
import { MicroVm } from '../node/micro-vm.js';
import { VmError } from '../vmm/errors.js';
import type { VmExit } from '../vmm/micro-vm.js';
import type { MicroVmOptions } from '../vmm/options.js';
import type { RunArgs } from './args.js';
import { createProgress } from './progress.js';
import { Status } from './status.js';
import { Terminal, type TerminalEvents } from './terminal.js';

/** Signals that end elvisor, and with it the guest, with 128 + their number, as a shell would report it. */
const SIGNALS = { SIGHUP: 1, SIGINT: 2, SIGTERM: 15 } as const;

/** What of a VM's options the command line says directly. */
export function vmOptions(args: RunArgs): Omit<MicroVmOptions, 'kernel'> {
  return {
    backend: args.backend,
    clock: args.clock,
    codeCache: codeCache(args),
    ...(args.memory === undefined ? {} : { memory: args.memory }),
    ...(args.hugePages === undefined ? {} : { hugePages: args.hugePages }),
    ...(args.cpus === undefined ? {} : { cpus: args.cpus }),
    ...(args.gic === undefined ? {} : { gic: args.gic }),
    its: args.its,
    pmu: args.pmu,
    kernelFormat: args.kernelFormat,
    disks: args.disks,
    noReboot: args.noReboot,
    ...(args.timeoutMs === undefined ? {} : { timeoutMs: args.timeoutMs }),
  };
}

/** Where compiled code is kept; not under a profile, which says of all that was compiled where it is in the guest. */
function codeCache({ codeCache, profile }: RunArgs): string | undefined {
  if (codeCache === 'none' || profile !== undefined) return undefined;
  return codeCache ?? join(cacheDir(), 'guest-code');
}

/** `elvisor run`. @returns the exit status */
export async function run(args: RunArgs): Promise<number> {
  if (args.kernel !== undefined) {
    const options = {
      ...vmOptions(args),
      kernel: args.kernel,
      ...(args.initrd === undefined ? {} : { initrd: args.initrd }),
      ...(args.append === undefined ? {} : { cmdline: args.append }),
      ...(args.dtb === undefined ? {} : { dtb: args.dtb }),
    };
    return profiled(args, options, () => runConsole(options, { eof: false }));
  }
  // Before anything is fetched: a backend that is not there is not helped by a guest.
  const chosen: RunArgs = { ...args, backend: chooseBackend({ backend: args.backend, clock: args.clock }) };
  const { fetchGuest } = await import('./guest.js');
  const { guestOptions } = await import('../node/default-guest.js');
  const progress = createProgress(process.stderr, args.quiet);
  let guest: Awaited<ReturnType<typeof fetchGuest>>;
  try {
    guest = await fetchGuest(progress);
  } catch (error) {
    progress.end();
    if (args.command !== undefined || !VmError.is(error) || !error.code.startsWith('ERR_GUEST_')) throw error;
    process.stderr.write(
      `elvisor: ${error.message}\nelvisor: without the default guest, here is the embedded one (give --kernel and --initrd to boot your own)\n`,
    );
    return (await import('./demo.js')).demo(chosen);
  }
  progress.end();
  if (args.command !== undefined) {
    const { command } = args;
    const options = { ...vmOptions(chosen), ...guestOptions(guest, { mode: 'exec' }), noReboot: true };
    return profiled(args, options, () => runCommand(options, command));
  }
  const options = { ...vmOptions(chosen), ...guestOptions(guest, { quiet: args.quiet }) };
  return profiled(args, options, () => runConsole(options, { eof: true }));
}

/** Runs a guest under `--trace profile`, if that was given. */
export async function profiled<T>(
  { profile }: RunArgs,
  booted: Pick<MicroVmOptions, 'kernel' | 'kernelFormat'>,
  guest: () => Promise<T>,
): Promise<T> {
  if (profile === undefined) return guest();
  const trace = await (await import('./trace.js')).startProfile(profile.file);
  const result = await guest();
  await trace.end(booted);
  return result;
}

/**
 * Boots a VM with its console on the user's terminal or pipes.
 * @param options.eof the end of a piped stdin is Ctrl-D to the guest
 */
export async function runConsole(options: MicroVmOptions, { eof }: { readonly eof: boolean }): Promise<number> {
  const vm = await MicroVm.create(options);
  const guard = watchSignals(vm);
  const { stdout, stderr } = process;
  let terminal: Terminal | undefined;
  let left = false;
  let unread = false;
  const readerGone = (): void => {
    unread = true;
    void vm.kill();
  };
  const events: TerminalEvents = {
    input: (bytes) => {
      if (vm.console.write(bytes)) return;
      terminal?.setFlowing(false);
      vm.console.once('drain', () => terminal?.setFlowing(true));
    },
    leave: () => {
      left = true;
      void vm.kill();
    },
    notice: (text) => void stderr.write(text),
  };
  try {
    const outputs = vm.console === vm.serial ? [vm.serial] : [vm.serial, vm.console];
    const ended = outputs.map((output) => drain(output, stdout, readerGone));
    // The guest may end before it is entered; `exited` says how.
    await vm.boot().catch(() => {});
    // Node takes some milliseconds to open stdin: by now the guest has begun. What comes before waits in the pipe or the terminal.
    terminal = new Terminal({ stdin: process.stdin, sendsEof: eof, events });
    terminal.start();
    const exit = await vm.exited;
    await Promise.all(ended);
    terminal.restore();
    if (left) return Status.OK;
    // `elvisor run | head`: whom should a message tell?
    if (unread) return Status.GUEST_DIED;
    return guard.status ?? report(exit);
  } finally {
    terminal?.restore();
    guard.end();
    await vm.close();
  }
}

/** Runs a command in the default guest, with elvisor's own stdin, stdout and stderr. */
async function runCommand(options: MicroVmOptions, argv: readonly string[]): Promise<number> {
  const { execInGuest } = await import('../node/default-guest.js');
  const vm = await MicroVm.create(options);
  const guard = watchSignals(vm);
  const { stdin, stdout, stderr } = process;
  try {
    const input = options.clock === 'virtual' ? (wholeFile() ?? stdin) : stdin;
    const { status, exit } = await execInGuest(vm, { argv, stdin: input, stdout, stderr });
    return guard.status ?? status ?? report(exit);
  } finally {
    stdin.pause();
    guard.end();
    await vm.close();
  }
}

/**
 * Stdin, where it is a regular file: with the virtual clock it is there before the guest asks for it, so that how fast the
 * host reads makes no difference.
 */
function wholeFile(): Uint8Array | undefined {
  try {
    return fstatSync(0).isFile() ? readFileSync(0) : undefined;
  } catch {
    return undefined;
  }
}

/** Says on stderr how a guest ended, where the user could not know. @returns the exit status */
function report(exit: VmExit): number {
  switch (exit.reason) {
    case 'poweroff':
    case 'reset':
      return Status.OK;
    case 'timeout':
      process.stderr.write(`elvisor: ${exit.message}\n`);
      return Status.TIMEOUT;
    default:
      process.stderr.write(`elvisor: ${exit.message}\n`);
      return Status.GUEST_DIED;
  }
}

/** Kills the VM when elvisor is told to end; a second signal ends elvisor as signals do. */
function watchSignals(vm: MicroVm): { readonly status: number | undefined; end(): void } {
  let status: number | undefined;
  const handlers = Object.entries(SIGNALS).map(([name, number]) => {
    const handler = (): void => {
      status = 128 + number;
      void vm.kill();
    };
    process.once(name, handler);
    return [name, handler] as const;
  });
  return {
    get status() {
      return status;
    },
    end() {
      for (const [name, handler] of handlers) process.off(name, handler);
    },
  };
}
