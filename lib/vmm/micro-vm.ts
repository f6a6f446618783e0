import { type Kvm, SystemEvent } from '../kvm/index.js';
import { openImages, type ReadingImages, readImages } from './boot-images.js';
import { aborted, VmConsole } from './console.js';
import type { BlockBackend } from './devices/virtio/blk.js';
import { Emitter } from './emitter.js';
import { VmError } from './errors.js';
import { Machine, type MachineStats } from './machine.js';
import { type MicroVmOptions, type ResolvedOptions, resolveOptions } from './options.js';
import { endedInPanic, haltedInPanic, PANIC_SILENCE_MS, PANIC_WINDOW } from './panic.js';
import type { Platform } from './platform.js';
import { type FillRandom, webRandom } from './random.js';
import type { Cancel, Scheduler } from './scheduler.js';
import { VmMemory } from './vm-memory.js';

/** Where a VM is in its life. `stopped`: the guest has ended; `failed`: the VM could not go on; `closed`: everything is given back. */
export type VmState = 'created' | 'booting' | 'running' | 'paused' | 'stopped' | 'failed' | 'closed';

/**
 * Why a guest is no more. `poweroff` and `reset`: it asked for that (a reset ends it only with `noReboot`); `panic`: its
 * kernel panicked; `killed`: by `kill()`, `stop()`, `close()` or the AbortSignal; `timeout`: `timeoutMs` went by;
 * `failed`: the VM could not go on.
 */
export type VmExitReason = 'poweroff' | 'reset' | 'panic' | 'killed' | 'timeout' | 'failed';

/** How a guest ended. */
export interface VmExit {
  readonly reason: VmExitReason;
  /** One sentence. */
  readonly message: string;
  /** The last of the console, at most 4 Ki characters. */
  readonly consoleTail: string;
  /** What went wrong (`failed`), or the reason of the AbortSignal (`killed`). */
  readonly cause?: unknown;
  /** The counters as they stood at the end. */
  readonly stats: VmStats;
}

/** Counters of a VM. */
export interface VmStats extends MachineStats {
  readonly state: VmState;
  readonly backend: Kvm['backend'];
  readonly clock: 'host' | 'virtual';
  /** Times the guest has reset itself and was booted again. */
  readonly reboots: number;
  /** Milliseconds of the host's clock since `boot()`, up to the guest's end. */
  readonly uptimeMs: number;
  /** Bytes that the guest has put out on its console. */
  readonly consoleBytes: number;
}

/** Events of a {@link MicroVm}. */
export interface MicroVmEvents {
  state: [next: VmState, previous: VmState];
  /** The guest has reset itself, for the `count`th time, and is booted again. */
  reboot: [count: number];
  /** What `exited` resolves to. */
  exit: [exit: VmExit];
}

/** Options of {@link MicroVm.stop}. */
export interface StopOptions {
  /** Milliseconds that the guest has to power itself off before it is killed; 0 kills at once. Default: 10,000. */
  readonly graceMs?: number | undefined;
  /** Aborting it kills at once. */
  readonly signal?: AbortSignal | undefined;
}

/** Options of {@link MicroVm.boot}. */
export interface BootOptions {
  /** Aborting it kills the VM, and rejects the call. */
  readonly signal?: AbortSignal | undefined;
}

/** What {@link prepare} has gathered for a VM. */
export interface Prepared {
  readonly options: ResolvedOptions;
  readonly platform: Platform;
  readonly scheduler: Scheduler;
  readonly kvm: Kvm;
  readonly disks: readonly BlockBackend[];
  readonly consoles: VmConsoles;
  readonly random: FillRandom;
  readonly machine: Machine;
}

/** The byte channels of a VM; they outlive a reboot. */
export interface VmConsoles {
  /** The PL011. */
  readonly serial: VmConsole;
  /** The virtio console, where it was asked for. */
  readonly hvc0: VmConsole | undefined;
  readonly ports: ReadonlyMap<string, VmConsole>;
}

const TAIL_CHARS = 4096;
const DEFAULT_GRACE_MS = 10_000;

/**
 * Checks the options, opens and reads what they name and builds the machine, kernel loaded: all that can fail before boot.
 * When it fails, nothing stays open.
 * @throws VmError of the option, file or backend that is wrong; ERR_ABORTED
 */
export async function prepare(given: MicroVmOptions, platform: Platform): Promise<Prepared> {
  const options = resolveOptions(given);
  const { signal } = options;
  const check = (): void => {
    if (signal?.aborted === true) throw aborted(signal, 'creating a VM');
  };
  check();
  const scheduler = platform.createScheduler();
  // The machine is built meanwhile.
  const opening = openImages(options, platform);
  opening.catch(() => {});
  const disks: BlockBackend[] = [];
  let kvm: Kvm | undefined;
  let ram: VmMemory | undefined;
  let reading: Promise<ReadingImages> | undefined;
  let machine: Machine | undefined;
  try {
    kvm = options.kvm ?? (await platform.openKvm(options));
    for (const disk of options.disks) {
      if (platform.openDisk === undefined)
        throw new VmError('ERR_INVALID_OPTION', 'disks: there is no file system here');
      disks.push(await platform.openDisk(disk, options.clock));
    }
    check();
    const consoles: VmConsoles = {
      serial: new VmConsole('pl011', scheduler),
      hvc0: options.console === 'hvc0' ? new VmConsole('hvc0', scheduler) : undefined,
      ports: new Map(options.ports.map((name) => [name, new VmConsole(name, scheduler)])),
    };
    const random = platform.random ?? webRandom;
    const parts = { options, platform, scheduler, kvm, disks, consoles, random };
    const opened = await opening;
    ram = new VmMemory(kvm, options);
    // The files are read while the machine is built.
    reading = opened.readInto(ram);
    reading.catch(() => {});
    machine = new Machine(parts, ram);
    const images = await reading;
    machine.load(images);
    await images.read;
    check();
    images.release();
    return { ...parts, machine };
  } catch (error) {
    await reading?.then(({ read }) => read).catch(() => {});
    (machine ?? ram)?.close();
    for (const disk of disks) closeDisk(disk);
    if (options.kvm === undefined) kvm?.close();
    opening.then(({ close }) => close()).catch(() => {});
    throw error;
  }
}

/**
 * A microVM: one guest, from its kernel to its end. It runs on the thread that made it, a few milliseconds at a time
 * between turns of the event loop.
 *
 * Life: `created` → `boot()` → `booting` → `running` ⇄ `paused` → `stopped` or `failed` → `close()` → `closed`. A method
 * called in a state that it does not list throws VmError ERR_VM_STATE.
 *
 * @typeParam Port what a byte channel looks like on this platform
 */
export class MicroVmBase<Port> extends Emitter<MicroVmEvents> {
  /** Resolves when the guest has ended, however it did. Never rejects. */
  readonly exited: Promise<VmExit>;
  /** The guest's main console: the PL011, or hvc0, as the options say. */
  readonly console: Port;
  /** The PL011, whichever is the main console. */
  readonly serial: Port;
  /** The named virtio-console ports. */
  readonly ports: ReadonlyMap<string, Port>;

  readonly #parts: Prepared;
  readonly #main: VmConsole;
  readonly #consoles: readonly VmConsole[];
  #machine: Machine;
  #state: VmState = 'created';
  #resolveExited!: (exit: VmExit) => void;
  #exit: VmExit | undefined;
  #ending = false;
  #reboots = 0;
  /** The guest has reset itself, and its machine is not to run any more. */
  #rebooting = false;
  #bootedAt = -1;
  #timeout: Cancel | undefined;
  #grace: Cancel | undefined;
  #panicCheck: Cancel | undefined;
  #seenOutput = 0;
  #onEntered: (() => void) | undefined;
  #closing: Promise<void> | undefined;
  readonly #onAbort = (): void => {
    void this.#end('killed', 'the VM was killed by its AbortSignal', this.#parts.options.signal?.reason);
  };

  /** @internal Use `MicroVm.create`. */
  protected constructor(parts: Prepared, makePort: (core: VmConsole) => Port) {
    super();
    this.#parts = parts;
    this.#machine = parts.machine;
    this.exited = new Promise((resolve) => {
      this.#resolveExited = resolve;
    });
    const { serial, hvc0, ports } = parts.consoles;
    this.serial = makePort(serial);
    this.console = hvc0 === undefined ? this.serial : makePort(hvc0);
    this.ports = new Map([...ports].map(([name, core]) => [name, makePort(core)]));
    this.#main = hvc0 ?? serial;
    this.#consoles = [serial, ...(hvc0 === undefined ? [] : [hvc0]), ...ports.values()];
    this.#listen();
    const { signal } = parts.options;
    signal?.addEventListener('abort', this.#onAbort, { once: true });
    if (signal?.aborted === true) queueMicrotask(this.#onAbort);
  }

  /** Where it is in its life. */
  get state(): VmState {
    return this.#state;
  }

  /** Which backend runs the guest: the kernel's KVM (`'host'`) or the software KVM (`'soft'`). */
  get backend(): Kvm['backend'] {
    return this.#parts.kvm.backend;
  }

  /**
   * Starts the guest. Legal in `created`.
   * @returns a promise that resolves when vCPU 0 has entered the guest
   * @throws VmError ERR_VM_STATE; ERR_ABORTED; ERR_VM_FAILED when the guest could not be entered
   */
  async boot(options: BootOptions = {}): Promise<void> {
    this.#require('boot', 'created');
    const { signal } = options;
    if (signal !== undefined && wasAborted(signal)) throw aborted(signal, 'booting');
    this.#setState('booting');
    this.#bootedAt = this.#parts.scheduler.now();
    const { timeoutMs } = this.#parts.options;
    if (timeoutMs !== undefined) {
      this.#timeout = this.#parts.scheduler.after(timeoutMs, () => {
        void this.#end('timeout', `the guest was still running after ${timeoutMs} ms`);
      });
    }
    const onAbort = (): void => void this.#end('killed', 'the VM was killed while booting', signal?.reason);
    signal?.addEventListener('abort', onAbort, { once: true });
    try {
      const entered = new Promise<true>((resolve) => {
        this.#onEntered = () => resolve(true);
      });
      this.#machine.loop.start();
      const first = await Promise.race([entered, this.exited]);
      if (first === true) return;
      if (signal !== undefined && wasAborted(signal)) throw aborted(signal, 'booting');
      throw new VmError('ERR_VM_FAILED', `the guest ended before it was entered: ${first.message}`, {
        cause: first.cause,
      });
    } finally {
      signal?.removeEventListener('abort', onAbort);
    }
  }

  /** Stops running the guest, until `resume()`. Its clock runs on, if it is the host's. Legal in `running`. @throws VmError ERR_VM_STATE */
  pause(): void {
    this.#require('pause', 'running');
    this.#machine.loop.stop();
    this.#setState('paused');
  }

  /** Runs the guest again. Legal in `paused`. @throws VmError ERR_VM_STATE */
  resume(): void {
    this.#require('resume', 'paused');
    this.#setState('running');
    if (!this.#rebooting) this.#machine.loop.start();
  }

  /**
   * Presses the machine's power key, gives the guest `graceMs` to power itself off, and then kills it: which it was is the
   * exit's reason. The default guest listens; another does where systemd-logind, acpid or the like runs. A paused guest is
   * resumed for it. Legal in every state; where the guest has ended already, it only says how; one that never booted is killed.
   */
  async stop(options: StopOptions = {}): Promise<VmExit> {
    const { graceMs = DEFAULT_GRACE_MS, signal } = options;
    if (typeof graceMs !== 'number' || !(graceMs >= 0)) {
      throw new VmError(
        'ERR_INVALID_OPTION',
        `graceMs: expected a number of milliseconds from 0, got ${String(graceMs)}`,
      );
    }
    if (this.#state === 'created' || graceMs === 0 || signal?.aborted === true) return this.kill();
    if (this.#ending) return this.exited;
    if (this.#state === 'paused') this.resume();
    this.#machine.pressPowerKey();
    this.#grace?.();
    this.#grace = this.#parts.scheduler.after(Math.min(graceMs, 2 ** 31 - 1), () => void this.kill());
    const onAbort = (): void => void this.kill();
    signal?.addEventListener('abort', onAbort, { once: true });
    const exit = await this.exited;
    signal?.removeEventListener('abort', onAbort);
    return exit;
  }

  /** Ends the guest now. Legal in every state; where it has ended already, it only says how. */
  kill(): Promise<VmExit> {
    return this.#end('killed', 'the VM was killed');
  }

  /**
   * Kills the guest if it still runs, and gives back its memory, files and, if the VM opened it, the KVM. Legal in every
   * state, any number of times.
   */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** The VM keeps the process alive (the default). */
  ref(): this {
    this.#parts.scheduler.setRef(true);
    return this;
  }

  /** The VM does not keep the process alive: when nothing else does, the process ends and the guest with it. */
  unref(): this {
    this.#parts.scheduler.setRef(false);
    return this;
  }

  /** Counters, as they stand now or stood at the guest's end. */
  stats(): VmStats {
    return this.#exit === undefined ? this.#stats() : { ...this.#exit.stats, state: this.#state };
  }

  #stats(): VmStats {
    return {
      ...this.#machine.stats(),
      state: this.#state,
      backend: this.backend,
      clock: this.#parts.options.clock,
      reboots: this.#reboots,
      uptimeMs: this.#bootedAt < 0 ? 0 : this.#parts.scheduler.now() - this.#bootedAt,
      consoleBytes: this.#main.outputBytes,
    };
  }

  #require(method: string, ...states: readonly VmState[]): void {
    if (states.includes(this.#state) && !this.#ending) return;
    throw new VmError(
      'ERR_VM_STATE',
      `${method}() needs a VM that is ${states.join(' or ')}; this one is ${this.#state}`,
    );
  }

  #setState(next: VmState): void {
    const previous = this.#state;
    if (previous === next) return;
    this.#state = next;
    this.#parts.platform.publish?.('elvisor:vm:state', () => ({ vm: this, state: next, previous }));
    this.emit('state', next, previous);
  }

  /** Takes what the present machine's run loop reports. */
  #listen(): void {
    const machine = this.#machine;
    machine.events = {
      entered: () => {
        if (this.#state === 'booting' && !this.#ending) this.#setState('running');
        this.#onEntered?.();
      },
      systemEvent: (type) => this.#systemEvent(type),
      failed: (error) => {
        void this.#end('failed', `the VM cannot go on: ${error.message}`, error);
      },
      handOut: () => this.#handOut(),
    };
  }

  #handOut(): void {
    for (const core of this.#consoles) core.flush();
    const { serial, hvc0 } = this.#parts.consoles;
    const seen = serial.outputBytes + (hvc0?.outputBytes ?? 0);
    if (seen === this.#seenOutput) return;
    this.#seenOutput = seen;
    this.#panicCheck?.();
    this.#panicCheck = undefined;
    if (!this.#tails(1024).some(haltedInPanic)) return;
    this.#panicCheck = this.#parts.scheduler.after(PANIC_SILENCE_MS, () => {
      void this.#end('panic', 'the guest kernel panicked');
    });
  }

  #tails(chars: number): string[] {
    const { serial, hvc0 } = this.#parts.consoles;
    return [serial, hvc0].flatMap((core) => (core === undefined ? [] : [core.transcript(chars)]));
  }

  #systemEvent(type: SystemEvent): void {
    if (type === SystemEvent.CRASH || this.#tails(PANIC_WINDOW).some(endedInPanic)) {
      void this.#end('panic', 'the guest kernel panicked');
    } else if (type === SystemEvent.SHUTDOWN) {
      void this.#end('poweroff', 'the guest powered off');
    } else if (this.#parts.options.noReboot) {
      void this.#end('reset', 'the guest reset itself');
    } else {
      // The event came from the run loop of the machine that is to go: let its stack unwind first.
      this.#rebooting = true;
      this.#parts.scheduler.soon(() => void this.#reboot());
    }
  }

  /**
   * A reset is a new machine: nothing of the old one, not a bit of memory, is left in it. Its files are read again, because
   * a running VM does not keep tens of MiB for a reboot that may never be.
   */
  async #reboot(): Promise<void> {
    try {
      const images = await readImages(this.#parts.options, this.#parts.platform);
      if (this.#ending) return;
      for (const core of this.#consoles) core.flush();
      this.#machine.close();
      this.#machine = rebuilt(this.#parts);
      this.#machine.load(images);
      images.release();
    } catch (error) {
      void this.#end('failed', `the VM could not be built again for its reboot: ${(error as Error).message}`, error);
      return;
    }
    this.#rebooting = false;
    this.#reboots++;
    this.#listen();
    this.emit('reboot', this.#reboots);
    if (this.#state === 'running') this.#machine.loop.start();
  }

  #end(reason: VmExitReason, message: string, cause?: unknown): Promise<VmExit> {
    if (this.#ending) return this.exited;
    this.#ending = true;
    this.#parts.options.signal?.removeEventListener('abort', this.#onAbort);
    for (const cancel of [this.#timeout, this.#grace, this.#panicCheck]) cancel?.();
    this.#machine.loop.stop();
    // Called from inside a vCPU's run() (a device's handler, a console listener), the VM must not be closed under it.
    if (this.#machine.loop.inRun) this.#parts.scheduler.soon(() => this.#finish(reason, message, cause));
    else this.#finish(reason, message, cause);
    return this.exited;
  }

  #finish(reason: VmExitReason, message: string, cause: unknown): void {
    const stats = this.#stats();
    this.#machine.close();
    for (const core of this.#consoles) core.end(message);
    const state: VmState = reason === 'failed' ? 'failed' : 'stopped';
    const exit: VmExit = {
      reason,
      message,
      consoleTail: this.#main.transcript(TAIL_CHARS),
      ...(cause === undefined ? {} : { cause }),
      stats: { ...stats, state, consoleBytes: this.#main.outputBytes },
    };
    this.#exit = exit;
    this.#setState(state);
    this.#parts.platform.publish?.('elvisor:vm:exit', () => ({ vm: this, exit }));
    this.#resolveExited(exit);
    this.emit('exit', exit);
  }

  async #close(): Promise<void> {
    await this.#end('killed', 'the VM was closed');
    for (const disk of this.#parts.disks) closeDisk(disk);
    if (this.#parts.options.kvm === undefined) this.#parts.kvm.close();
    this.#setState('closed');
  }
}

/** A machine like one that is gone. */
function rebuilt(parts: Prepared): Machine {
  const ram = new VmMemory(parts.kvm, parts.options);
  try {
    return new Machine(parts, ram);
  } catch (error) {
    ram.close();
    throw error;
  }
}

/** A call, so that the compiler does not think it settled by an earlier look. */
const wasAborted = (signal: AbortSignal | undefined): boolean => signal?.aborted === true;

/** A disk that cannot be closed is no reason to keep the rest open. */
function closeDisk(disk: BlockBackend): void {
  try {
    disk.close?.();
  } catch {}
}
