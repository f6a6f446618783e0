import { Readable, type Writable } from 'node:stream';
import {
  EXEC_BYE,
  EXEC_WORD,
  ExecDecoder,
  ExecPort,
  type ExecRequest,
  encodeExecRequest,
} from '../guest/exec-protocol.js';
import { VmError } from '../vmm/errors.js';
import type { VmExit } from '../vmm/micro-vm.js';
import type { MicroVmOptions } from '../vmm/options.js';
import type { ConsoleDuplex } from './console-duplex.js';
import { drain } from './drain.js';
import type { MicroVm } from './micro-vm.js';

/** What {@link guestOptions} makes of a guest. */
export interface GuestUse {
  /** `shell`: a shell on the console (hvc0); `exec`: it waits for {@link execInGuest}. Default: `'shell'`. */
  readonly mode?: 'shell' | 'exec' | undefined;
  /** The kernel keeps quiet on the serial console, panics apart. Default: as the mode likes it. */
  readonly quiet?: boolean | undefined;
}

/**
 * The options that boot a default guest (see `fetchDefaultGuest`): its kernel, its initrd, a command line and the consoles
 * it knows. The kernel's messages go to the PL011 (`vm.serial`), the shell is on hvc0 (`vm.console`).
 */
export function guestOptions(
  guest: { readonly kernel: string; readonly initrd: string },
  use: GuestUse = {},
): Pick<MicroVmOptions, 'kernel' | 'initrd' | 'cmdline' | 'console' | 'ports'> {
  const exec = use.mode === 'exec';
  const words = ['console=ttyAMA0', 'panic=-1'];
  if (use.quiet ?? exec) words.push('quiet');
  if (exec) words.push(EXEC_WORD);
  return {
    kernel: guest.kernel,
    initrd: guest.initrd,
    cmdline: words.join(' '),
    console: 'hvc0',
    ports: exec ? Object.values(ExecPort) : [],
  };
}

/** A command for the default guest, and where its streams go. */
export interface GuestExec extends ExecRequest {
  /** What it reads, then end of file. Nothing if not given. */
  readonly stdin?: Readable | Uint8Array | string | undefined;
  /** Dropped if not given. */
  readonly stdout?: Writable | undefined;
  readonly stderr?: Writable | undefined;
}

/** How a command ended. */
export interface GuestExecResult {
  /** Its exit status, 0 to 255; 128 + n where signal n ended it; `undefined` where the guest ended without telling. */
  readonly status: number | undefined;
  /** How the guest ended after it. */
  readonly exit: VmExit;
}

/**
 * Runs a command in a default guest that was made with `guestOptions(guest, { mode: 'exec' })` and not booted yet: boots
 * it, gives the command its streams, and waits for the guest to power off. All output has been written when it returns.
 * @throws VmError ERR_EXEC_REQUEST, ERR_EXEC_PROTOCOL, and what `boot()` throws
 */
export async function execInGuest(vm: MicroVm, command: GuestExec): Promise<GuestExecResult> {
  const { stdin } = command;
  const request = encodeExecRequest(command);
  const control = port(vm, ExecPort.EXEC);
  const input = port(vm, ExecPort.STDIN);
  const kill = (): void => void vm.kill();
  const drained = [
    drain(port(vm, ExecPort.STDOUT), command.stdout, kill),
    drain(port(vm, ExecPort.STDERR), command.stderr, kill),
  ];
  let status: number | undefined;
  let broken: unknown;
  const decoder = new ExecDecoder();
  control.on('data', (bytes: Buffer) => {
    try {
      for (const event of decoder.push(bytes)) {
        if (event.type === 'ready') {
          control.write(request);
        } else {
          status = event.status;
          control.write(EXEC_BYE);
        }
      }
    } catch (error) {
      broken = error;
      kill();
    }
  });
  // The guest's first line says that it has the port open; what comes before would be thrown away.
  input.once('data', () => {
    input.resume();
    if (stdin instanceof Readable) stdin.pipe(input);
    else input.end(stdin);
  });
  await vm.boot();
  const exit = await vm.exited;
  if (stdin instanceof Readable) stdin.unpipe(input);
  if (broken !== undefined) throw broken;
  await Promise.all(drained);
  return { status, exit };
}

function port(vm: MicroVm, name: string): ConsoleDuplex {
  const found = vm.ports.get(name);
  if (found === undefined) {
    throw new VmError(
      'ERR_EXEC_REQUEST',
      `the VM has no port ${name}; make it with guestOptions(guest, { mode: 'exec' })`,
    );
  }
  return found;
}
