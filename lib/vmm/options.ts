import type { Kvm } from '../kvm/index.js';
import { MAX_CPUS, MAX_CPUS_GICV2, MAX_RAM, RAM_UNIT, VIRTIO_SLOTS } from './board.js';
import { VmError } from './errors.js';

/** What a kernel, initrd or device tree may be given as: its bytes, or (where there is a file system) where they are. */
export type ImageSource = string | URL | Uint8Array;

/** A disk: where it is and how it may be used. */
export interface DiskSpec {
  /** The raw image. */
  readonly path: string | URL;
  /** The guest may not write. */
  readonly readOnly?: boolean | undefined;
  /** What the guest writes is kept in memory and forgotten at the end; the file stays as it is. */
  readonly overlay?: boolean | undefined;
}

/** Which device is the guest's main console, and so {@link MicroVm.console}. */
export type ConsoleKind = 'pl011' | 'hvc0';

/** How time passes for the guest: with the host's clock, or by instructions executed. */
export type ClockKind = 'host' | 'virtual';

/** What a kernel file is: found out by what is in it, or a flat program that bears no header. */
export type KernelFormat = 'auto' | 'raw';

/** Which machine runs the guest: the kernel's KVM, the software KVM, or the first that is there. */
export type BackendKind = 'auto' | 'kvm' | 'soft';

/** Options of `MicroVm.create`. Unknown keys are refused. */
export interface MicroVmOptions {
  /** An arm64 Linux Image (raw, gzip, zstd, EFI zboot) or an ELF file; anything, with `kernelFormat: 'raw'`. */
  readonly kernel: ImageSource;
  /**
   * `'raw'`: the kernel is a flat program without a header, loaded as it is 512 KiB above the start of RAM, where QEMU's
   * `virt` puts one, and entered at its first byte. Default: `'auto'`, by what is in the file.
   */
  readonly kernelFormat?: KernelFormat | undefined;
  /** The initial RAM disk. */
  readonly initrd?: ImageSource | undefined;
  /** The kernel command line, given to the guest exactly so. Default: empty. */
  readonly cmdline?: string | undefined;
  /** A device tree to use instead of the board's own; its `/chosen` gets the command line and the initrd. */
  readonly dtb?: ImageSource | undefined;
  /** RAM: bytes, or a string such as `'256M'` or `'1G'`; whole mebibytes, 1 MiB to 255 GiB. Default: `'512M'`. */
  readonly memory?: number | string | undefined;
  /**
   * Has RAM in huge pages that this host has set aside (`/sys/kernel/mm/hugepages`), for the guest alone: their size, such as
   * `'2M'` or `'1G'`, of which `memory` is a multiple. The host's KVM only. Default: the host's own pages, which its kernel puts
   * together to huge ones where it can.
   */
  readonly hugePages?: number | string | undefined;
  /** vCPUs, 1 to 123. Default: 1. */
  readonly cpus?: number | undefined;
  /** The interrupt controller: a GICv3, or a GICv2 for guests that know no other (at most eight vCPUs). Default: 3, or 2 where the KVM has no other. */
  readonly gic?: 2 | 3 | undefined;
  /** Whether the GICv3 has an ITS, which turns the MSIs of devices into interrupts (LPIs). Default: `false`. */
  readonly its?: boolean | undefined;
  /** Whether the vCPUs have a PMU: `perf` in the guest counts cycles and instructions. Default: `false`. */
  readonly pmu?: boolean | undefined;
  /** virtio-blk disks, in order: /dev/vda, /dev/vdb … */
  readonly disks?: readonly DiskSpec[] | undefined;
  /** Names of virtio-console ports (`/dev/virtio-ports/NAME` in a guest with udev), found in {@link MicroVm.ports}. */
  readonly ports?: readonly string[] | undefined;
  /** Which console {@link MicroVm.console} is. Default: `'pl011'`. With `'hvc0'` the virtio console is there too. */
  readonly console?: ConsoleKind | undefined;
  /** Whether the guest has a virtio-rng. Default: `true`. */
  readonly rng?: boolean | undefined;
  /** A guest that resets itself ends instead of booting again. Default: `false`. */
  readonly noReboot?: boolean | undefined;
  /** Ends the guest after so many milliseconds of the host's clock, counted from `boot()`. Default: no limit. */
  readonly timeoutMs?: number | undefined;
  /** Default: `'auto'`. */
  readonly backend?: BackendKind | undefined;
  /** Default: `'host'`. */
  readonly clock?: ClockKind | undefined;
  /**
   * A directory where the software KVM keeps what it compiles of guests' code, for the next run to begin with. It is made if it is
   * missing; one that others could write to is not used. Default: nothing is kept. Excludes `kvm`.
   */
  readonly codeCache?: string | undefined;
  /** A KVM to use instead of opening one; it stays open when the VM is closed. Excludes `backend`. */
  readonly kvm?: Kvm | undefined;
  /** Aborting it at any time kills the VM. */
  readonly signal?: AbortSignal | undefined;
}

/** {@link MicroVmOptions}, checked, with the defaults filled in. */
export interface ResolvedOptions {
  readonly kernel: ImageSource;
  readonly kernelFormat: KernelFormat;
  readonly initrd: ImageSource | undefined;
  /** As given; `undefined` leaves that of a device tree of the user's own. */
  readonly cmdline: string | undefined;
  readonly dtb: ImageSource | undefined;
  /** Bytes. */
  readonly memory: number;
  /** Bytes of each. */
  readonly hugePages: number | undefined;
  readonly cpus: number;
  /** `undefined`: what the KVM has. */
  readonly gic: 2 | 3 | undefined;
  readonly its: boolean;
  readonly pmu: boolean;
  readonly disks: readonly DiskSpec[];
  readonly ports: readonly string[];
  readonly console: ConsoleKind;
  readonly rng: boolean;
  readonly noReboot: boolean;
  readonly timeoutMs: number | undefined;
  readonly backend: BackendKind;
  readonly clock: ClockKind;
  readonly codeCache: string | undefined;
  readonly kvm: Kvm | undefined;
  readonly signal: AbortSignal | undefined;
}

const UNITS: Readonly<Record<string, number>> = { '': 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30, T: 2 ** 40 };
const MAX_CMDLINE = 2048;
const MAX_TIMEOUT_MS = 2 ** 31 - 1;
/** A port's name travels in a control message and becomes a file name in the guest. */
const PORT_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;

const fail = (message: string): never => {
  throw new VmError('ERR_INVALID_OPTION', message);
};

const show = (value: unknown): string => {
  if (typeof value === 'string') return JSON.stringify(value.length > 80 ? `${value.slice(0, 80)}…` : value);
  if (typeof value === 'object' && value !== null) return Array.isArray(value) ? 'an array' : 'an object';
  return String(value);
};

/** Bytes, given so or as a number with K, M, G or T (powers of 1024); `undefined` for what cannot be read. */
function bytesOf(value: unknown): number | undefined {
  if (typeof value === 'number') return value;
  const match = typeof value === 'string' ? /^(\d{1,15})([KMGT]?)$/i.exec(value.trim()) : null;
  return match === null ? undefined : Number(match[1]) * UNITS[match[2]!.toUpperCase()]!;
}

/**
 * A memory size: bytes, or a number with K, M, G or T (powers of 1024).
 * @throws VmError ERR_INVALID_OPTION what cannot be read, is no whole number of mebibytes, or is not between 1 MiB and 255 GiB
 */
export function parseMemory(value: unknown, name = 'memory'): number {
  const bytes = bytesOf(value);
  if (bytes === undefined) return fail(`${name}: expected a size such as 256M or 1G, got ${show(value)}`);
  const shown = typeof value === 'number' ? `${value} bytes` : show(value);
  if (!Number.isSafeInteger(bytes) || bytes <= 0) {
    return fail(`${name}: ${shown} is no amount of memory; give a size such as 256M or 1G`);
  }
  if (bytes < RAM_UNIT) {
    const meant =
      bytes >= 16 && bytes < 65536 ? `; for mebibytes, write ${bytes}M` : '; give a size such as 256M or 1G';
    return fail(
      `${name}: ${shown} is ${bytes === 1 ? '1 byte' : `${bytes} bytes`}, less than the smallest machine (1M)${meant}`,
    );
  }
  if (bytes > MAX_RAM) return fail(`${name}: ${shown} is more than the board can have (255G)`);
  if (bytes % RAM_UNIT !== 0) return fail(`${name}: ${shown} is no whole number of mebibytes`);
  return bytes;
}

/**
 * A size of huge pages: bytes, or a number with K, M or G.
 * @throws VmError ERR_INVALID_OPTION what is no power of two from 64 KiB to 16 GiB
 */
export function parseHugePages(value: unknown, name = 'hugePages'): number {
  const bytes = bytesOf(value);
  const isSize = bytes !== undefined && Number.isInteger(Math.log2(bytes)) && bytes >= 2 ** 16 && bytes <= 2 ** 34;
  return isSize ? bytes : fail(`${name}: expected a size of huge pages, such as 2M or 1G, got ${show(value)}`);
}

/** Checks options and fills in the defaults. @throws VmError ERR_INVALID_OPTION naming the option, the rule, and what it got */
export function resolveOptions(options: MicroVmOptions): ResolvedOptions {
  if (typeof options !== 'object' || options === null) return fail(`options: expected an object, got ${show(options)}`);
  const known: Readonly<Record<keyof MicroVmOptions, true>> = {
    kernel: true,
    kernelFormat: true,
    initrd: true,
    cmdline: true,
    dtb: true,
    memory: true,
    hugePages: true,
    cpus: true,
    gic: true,
    its: true,
    pmu: true,
    disks: true,
    ports: true,
    console: true,
    rng: true,
    noReboot: true,
    timeoutMs: true,
    backend: true,
    clock: true,
    codeCache: true,
    kvm: true,
    signal: true,
  };
  refuseUnknown(options, Object.keys(known), 'option');
  if (options.kvm !== undefined && options.backend !== undefined) fail('kvm and backend exclude each other: give one');
  if (options.kvm !== undefined && options.codeCache !== undefined)
    fail('kvm and codeCache exclude each other: give codeCache to what opens the KVM');
  const resolved: ResolvedOptions = {
    kernel:
      image(options.kernel, 'kernel') ?? fail('kernel: expected a path, a URL or bytes; a microVM needs a kernel'),
    kernelFormat: choice(options.kernelFormat, 'kernelFormat', ['auto', 'raw']) ?? 'auto',
    initrd: image(options.initrd, 'initrd'),
    cmdline: cmdline(options.cmdline),
    dtb: image(options.dtb, 'dtb'),
    memory: options.memory === undefined ? 512 * 2 ** 20 : parseMemory(options.memory),
    hugePages: options.hugePages === undefined ? undefined : parseHugePages(options.hugePages),
    cpus: integer(options.cpus, 'cpus', 1, MAX_CPUS) ?? 1,
    gic: integer(options.gic, 'gic', 2, 3) as 2 | 3 | undefined,
    its: boolean(options.its, 'its') ?? false,
    pmu: boolean(options.pmu, 'pmu') ?? false,
    disks: disks(options.disks),
    ports: ports(options.ports),
    console: choice(options.console, 'console', ['pl011', 'hvc0']) ?? 'pl011',
    rng: boolean(options.rng, 'rng') ?? true,
    noReboot: boolean(options.noReboot, 'noReboot') ?? false,
    timeoutMs: integer(options.timeoutMs, 'timeoutMs', 1, MAX_TIMEOUT_MS),
    backend: choice(options.backend, 'backend', ['auto', 'kvm', 'soft']) ?? 'auto',
    clock: choice(options.clock, 'clock', ['host', 'virtual']) ?? 'host',
    codeCache: directory(options.codeCache, 'codeCache'),
    kvm: options.kvm,
    signal: signalOf(options.signal),
  };
  if (resolved.hugePages !== undefined && resolved.memory % resolved.hugePages !== 0)
    fail(
      `hugePages: ${resolved.memory / 2 ** 20}M of memory are no whole number of pages of ${show(options.hugePages)}`,
    );
  if (virtioDeviceCount(resolved) > VIRTIO_SLOTS)
    fail(
      `disks: ${resolved.disks.length} disks and what else the machine has need more than its ${VIRTIO_SLOTS} virtio slots`,
    );
  if (resolved.gic === 2 && resolved.cpus > MAX_CPUS_GICV2) {
    fail(`cpus: a GICv2 has at most ${MAX_CPUS_GICV2}, not ${resolved.cpus}; leave gic out or give fewer`);
  }
  if (resolved.gic === 2 && resolved.its) fail('its: only a GICv3 has one; leave gic or its out');
  return resolved;
}

/** Whether the machine has a virtio-console. */
export const needsVirtioConsole = (options: Pick<ResolvedOptions, 'console' | 'ports'>): boolean =>
  options.console === 'hvc0' || options.ports.length > 0;

/** virtio devices of a machine: disks, console, rng, and the keyboard that it always has. */
export const virtioDeviceCount = (options: Pick<ResolvedOptions, 'disks' | 'console' | 'ports' | 'rng'>): number =>
  options.disks.length + (needsVirtioConsole(options) ? 1 : 0) + (options.rng ? 1 : 0) + 1;

/** @throws VmError ERR_INVALID_OPTION for a key that is not in `known` */
export function refuseUnknown(value: object, known: readonly string[], what: string): void {
  for (const key of Object.keys(value)) {
    if (known.includes(key)) continue;
    const near = known.find((k) => k.toLowerCase() === key.toLowerCase());
    fail(
      `unknown ${what} ${show(key)}${near === undefined ? `; there are ${known.join(', ')}` : `; did you mean ${near}?`}`,
    );
  }
}

function image(value: unknown, name: string): ImageSource | undefined {
  if (value === undefined || value instanceof Uint8Array || value instanceof URL) return value;
  // Bytes of another realm (a jest test's, an iframe's) are bytes too.
  if (ArrayBuffer.isView(value)) return new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
  if (typeof value === 'object' && value !== null && 'href' in value) return value as URL;
  if (typeof value === 'string') return value === '' ? fail(`${name}: expected a path, got an empty string`) : value;
  return fail(`${name}: expected a path, a URL or bytes, got ${show(value)}`);
}

function cmdline(value: unknown): string | undefined {
  if (value === undefined) return undefined;
  if (typeof value !== 'string') return fail(`cmdline: expected a string, got ${show(value)}`);
  if (value.includes('\0')) return fail('cmdline: a command line cannot hold a NUL');
  const size = new TextEncoder().encode(value).length;
  if (size >= MAX_CMDLINE)
    return fail(`cmdline: ${size} bytes; an arm64 kernel takes at most ${MAX_CMDLINE - 1} (COMMAND_LINE_SIZE)`);
  return value;
}

function directory(value: unknown, name: string): string | undefined {
  if (value === undefined || (typeof value === 'string' && value !== '')) return value;
  return fail(`${name}: expected a directory, got ${show(value)}`);
}

function integer(value: unknown, name: string, min: number, max: number): number | undefined {
  if (value === undefined) return undefined;
  if (typeof value === 'number' && Number.isInteger(value) && value >= min && value <= max) return value;
  return fail(`${name}: expected a whole number from ${min} to ${max}, got ${show(value)}`);
}

function boolean(value: unknown, name: string): boolean | undefined {
  if (value === undefined || typeof value === 'boolean') return value;
  return fail(`${name}: expected true or false, got ${show(value)}`);
}

function choice<T extends string>(value: unknown, name: string, of: readonly T[]): T | undefined {
  if (value === undefined || of.includes(value as T)) return value as T | undefined;
  return fail(`${name}: expected ${of.join(' or ')}, got ${show(value)}`);
}

function signalOf(value: unknown): AbortSignal | undefined {
  if (value === undefined) return undefined;
  if (typeof value === 'object' && value !== null && 'aborted' in value && 'addEventListener' in value)
    return value as AbortSignal;
  return fail(`signal: expected an AbortSignal, got ${show(value)}`);
}

function disks(value: unknown): readonly DiskSpec[] {
  if (value === undefined) return [];
  if (!Array.isArray(value)) return fail(`disks: expected an array, got ${show(value)}`);
  return value.map((disk: unknown, i) => {
    if (typeof disk !== 'object' || disk === null)
      return fail(`disks[${i}]: expected { path, readOnly?, overlay? }, got ${show(disk)}`);
    refuseUnknown(disk, ['path', 'readOnly', 'overlay'], `key in disks[${i}]:`);
    const spec = disk as DiskSpec;
    const path = image(spec.path, `disks[${i}].path`);
    if (path === undefined || path instanceof Uint8Array) return fail(`disks[${i}].path: expected a path or a URL`);
    const readOnly = boolean(spec.readOnly, `disks[${i}].readOnly`) ?? false;
    const overlay = boolean(spec.overlay, `disks[${i}].overlay`) ?? false;
    return { path, readOnly, overlay };
  });
}

function ports(value: unknown): readonly string[] {
  if (value === undefined) return [];
  if (!Array.isArray(value)) return fail(`ports: expected an array of names, got ${show(value)}`);
  const seen = new Set<string>();
  for (const name of value as unknown[]) {
    if (typeof name !== 'string' || !PORT_NAME.test(name)) {
      return fail(`ports: ${show(name)} is no port name: 1 to 64 of A-Z a-z 0-9 . _ -, not beginning with a sign`);
    }
    if (seen.has(name)) return fail(`ports: ${show(name)} is given twice`);
    seen.add(name);
  }
  return [...seen];
}
