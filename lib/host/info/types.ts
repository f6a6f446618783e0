import type { CapName } from '../../kvm/index.js';
import type { BootEl, CpuVhe, KernelEl, KvmMode } from './modes.js';
import type { RefusalCause } from './refusal.js';

/**
 * How sure a finding is. `certain`: the kernel said so, or behaves as only this makes it. `likely`: a sign that something else
 * could give, too. `guess`: the likeliest of what nothing tells apart. `none`: nothing says anything.
 */
export type Confidence = 'certain' | 'likely' | 'guess' | 'none';

/** What said so. */
export interface Evidence {
  /** A file, an ioctl, or the kernel's log. */
  readonly source: string;
  /** What it said, in its own words where it has any. */
  readonly said: string;
}

/** A fact about the host, with what it rests on. */
export interface Finding<T> {
  /** `null` where nothing says. */
  readonly value: T | null;
  readonly confidence: Confidence;
  /** What speaks for the value; where the confidence is lowered by a contradiction, also what speaks against it. */
  readonly evidence: readonly Evidence[];
}

/** What of a CPU's feature the host has, and what its guests can have. */
export interface FeatureFindings {
  readonly host: Finding<boolean>;
  readonly guest: Finding<boolean>;
}

/** Why `/dev/kvm` runs no arm64 guests here, and what to do about it. */
export interface Refusal {
  readonly cause: RefusalCause;
  /** One sentence for the user. */
  readonly reason: string;
  /** What would help, as a sentence without its full stop. */
  readonly wayOut: string;
}

/** `/dev/kvm`: whether it can be opened, which says nothing of whose guests it runs, and whether it is of use for arm64 guests. */
export type DeviceFinding = { readonly path: string; readonly opens: boolean } & (
  | { readonly usable: true }
  | ({ readonly usable: false } & Refusal)
);

/** Where the KVM mode comes from: `boot`, because the kernel was not started at EL2; the CPU; or the kernel's command line. */
export type ModeOrigin = 'boot' | 'cpu' | 'command-line';

/**
 * What a host says of itself. Plain data: `elvisor host --json` prints it. Fields are only ever added. On hosts that are not arm64
 * the findings about exception levels have the value `null`.
 */
export interface HostInfo {
  /** As `process.platform`. */
  readonly platform: string;
  /** As `process.arch`. */
  readonly arch: string;
  /** The kernel's release, as `uname -r`. */
  readonly kernel: string;
  /** The exception level that the boot loader started the kernel at; `mixed` where its CPUs were not started alike. */
  readonly bootEl: Finding<BootEl>;
  /** The exception level that the kernel runs at now: EL2 with VHE, else EL1. */
  readonly kernelEl: Finding<KernelEl>;
  readonly kvmMode: Finding<KvmMode>;
  readonly kvmModeFrom: Finding<ModeOrigin>;
  /** What `kvm-arm.mode=` on the kernel's command line asks for, as given there; `null` where it is not there. */
  readonly kvmModeAsked: Finding<string>;
  /** Whether the CPU has VHE (FEAT_VHE); `only`: it cannot run its EL2 without (HCR_EL2.E2H is RES1). */
  readonly cpuVhe: Finding<CpuVhe>;
  /** The host's interrupt controller, as the kernel names it: `GICv3`, `GICv2`, `AIC`. */
  readonly gic: Finding<string>;
  /** The interrupt controllers that KVM can give guests, by their names in the KVM API: `ARM_VGIC_V3`. */
  readonly guestGics: Finding<readonly string[]>;
  /** The size of a guest's physical address space, in bits. */
  readonly ipaBits: Finding<number>;
  /** Bytes. Memory slots are whole pages of this size. */
  readonly pageSize: Finding<number>;
  /** KVM_CHECK_EXTENSION's answers that are not 0, by the names of `Cap`. */
  readonly capabilities: Finding<{ readonly [name in CapName]?: number }>;
  readonly pmu: FeatureFindings;
  readonly sve: FeatureFindings;
  readonly mte: FeatureFindings;
  readonly device: DeviceFinding;
  /** What could have said more but could not be read, with the errno's name: `/dev/kmsg` for users other than root, mostly. */
  readonly unread: readonly { readonly source: string; readonly error: string }[];
}
