import type { CapName, ErrnoCode } from '../../kvm/index.js';

/** What reading something gave: its text, or the name of the errno. */
export type ReadResult = { readonly text: string } | { readonly error: string };

/** What KVM answered to the ioctls that change nothing. */
export interface KvmFacts {
  /** KVM_CHECK_EXTENSION's answers that are not 0. */
  readonly capabilities: { readonly [name in CapName]?: number };
  /** What follows is asked on arm64 only. KVM_CREATE_VM with 31 bits of IPA: fewer than any VM may have. */
  readonly createVm31?: 'ok' | ErrnoCode;
  /** The vGICs that KVM_CREATE_DEVICE would make, by the names of `DeviceType`. */
  readonly vgics?: readonly string[];
  /** ID_AA64MMFR1_EL1 of a new vCPU, in hexadecimal. */
  readonly mmfr1?: string;
}

/** What opening `/dev/kvm` gave. */
export type OpenFacts =
  | { readonly kvm: KvmFacts }
  /** No addon, so no ioctl, and why not; `access` is what access(2) said: `'ok'`, or the errno's name. */
  | { readonly addon: string; readonly access: string }
  /** The errno's name. */
  | { readonly error: string; readonly message: string };

/** The kernel's log, as far as it could be read. */
export type LogFacts = { readonly source: string; readonly lines: readonly string[] } | undefined;

/**
 * All that conclusions are drawn from, as it was read: plain data, so that a host can be recorded and its record be a test.
 * Files that are long keep only the lines that matter.
 */
export interface HostFacts {
  readonly platform: string;
  readonly arch: string;
  /** As `uname -r`. */
  readonly kernel: string;
  readonly device: string;
  readonly open: OpenFacts;
  /** Bytes; 0 where it is not known. */
  readonly pageSize: number;
  /** Files by their paths: what they say, or why they can't be read. A directory that is there has the text ''. */
  readonly files: { readonly [path: string]: ReadResult };
  readonly log: LogFacts;
  /** Why the log could not be read from where it was looked for. */
  readonly logErrors: { readonly [source: string]: string };
}

/** The files that say something, and which of their lines do. */
export const FACT_FILES: { readonly [path: string]: RegExp | undefined } = {
  '/proc/cmdline': undefined,
  '/proc/interrupts': /arch_timer|kvm guest/,
  '/proc/misc': /\bkvm$/,
  '/proc/cpuinfo': /^(Features|CPU implementer|CPU part)\s*:/,
  '/proc/device-tree/psci/method': undefined,
  '/sys/module': undefined,
  '/sys/module/kvm': undefined,
  '/sys/bus/event_source/devices/armv8_pmuv3': undefined,
  '/sys/bus/event_source/devices/armv8_pmuv3_0': undefined,
};

/** The lines of the kernel's log that say something. */
export const LOG_LINES =
  /\bkvm\b|Virtualization Host Extensions|VHE for hypervisor|Nested Virtualization|CPU\(s\) started|inconsistent modes|ID_AA64MMFR1_EL1\[11:8\]/i;

/** The file of the kernel's configuration: which there is depends on the distribution. */
export const configFiles = (kernel: string): readonly string[] => [
  '/proc/config.gz',
  `/boot/config-${kernel}`,
  `/lib/modules/${kernel}/config`,
];
export const CONFIG_LINES = /^(CONFIG_KVM=|# CONFIG_KVM is not set)/;
