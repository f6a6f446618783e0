/** The host kernel's KVM, by the native addon. Importing this loads nothing native; the first call does. */
import { Errno, type ErrnoCode, type Kvm, KvmError } from '../kvm/index.js';
import { check, kvmError } from './call.js';
import { HostKvm } from './host-kvm.js';
import { collectFacts } from './info/collect.js';
import { concludeHost } from './info/conclude.js';
import type { OpenFacts } from './info/facts.js';
import { foreignHost, sentence, whyClosed } from './info/refusal.js';
import { access, thisMachine } from './info/system.js';
import type { HostInfo, Refusal } from './info/types.js';
import { loadNative } from './native.js';

export type { BootEl, CpuVhe, KernelEl, KvmMode } from './info/modes.js';
export type { RefusalCause } from './info/refusal.js';
export type {
  Confidence,
  DeviceFinding,
  Evidence,
  FeatureFindings,
  Finding,
  HostInfo,
  ModeOrigin,
  Refusal,
} from './info/types.js';
export { HostVcpu } from './vcpu.js';

const DEV_KVM = '/dev/kvm';
/** KVM_API_VERSION: the kernel has had no other since 2007, and says to refuse one. */
const API_VERSION = 12;

/** Where to find what {@link openHost} needs. */
export interface HostOptions {
  /** The device node. Default: `/dev/kvm`. */
  readonly device?: string | undefined;
  /** The addon's file, in place of the package's own. */
  readonly addon?: string | undefined;
}

/** Whether the host's KVM can be used, and if not, why. */
export type HostAvailability = { readonly available: true } | ({ readonly available: false } & Refusal);

/**
 * Opens `/dev/kvm`. Its guests are of the host's architecture: on x64 the calls that are the same on both work, for tests;
 * an arm64 guest needs an arm64 host.
 * @throws KvmError ENOSYS no addon for this machine; ENOENT no `/dev/kvm`; EACCES, EPERM it may not be opened; ENOTTY it is
 * not KVM; EINVAL an API of another version. The message says why, and what would help.
 */
export function openHost(options: HostOptions = {}): Kvm {
  const opened = openDevice(options);
  if ('kvm' in opened) return opened.kvm;
  const { code, syscall } = failureOf(opened);
  throw new KvmError(code in Errno ? (code as ErrnoCode) : 'EIO', syscall, sentence(whyNot(opened, options)));
}

/** Whether {@link openHost} would work here. Never throws; what it opens it closes. */
export function probeHost(options: HostOptions = {}): HostAvailability {
  const opened = openDevice(options);
  if (!('kvm' in opened)) return { available: false, ...whyNot(opened, options) };
  opened.kvm.close();
  return { available: true };
}

/** Whether the host's KVM runs arm64 guests. Never throws; what it opens it closes. */
export function probeArm64Host(options: HostOptions = {}): HostAvailability {
  const foreign = foreignHost(process.platform, process.arch);
  return foreign === undefined ? probeHost(options) : { available: false, ...foreign };
}

/**
 * What this host says of itself: at which exception level it was started and runs, what its KVM is and can do, and why
 * `/dev/kvm` can't be used where it can't, each with what said so. Works without root and without the kernel's log, with
 * less confidence. Reads files, asks KVM what changes nothing, and may run journalctl. Never throws; leaves nothing open.
 */
export function hostInfo(options: HostOptions = {}): HostInfo {
  const source = thisMachine(() => openDevice(options));
  return concludeHost(collectFacts(source, options.device ?? DEV_KVM));
}

/**
 * `Vcpu.kick()` from any thread of this process, by the vCPU's {@link HostVcpu.token}.
 * @returns whether the vCPU is still there
 */
export function kickHostVcpu(token: number): boolean {
  const addon = loadNative();
  if (addon.native === undefined) throw new KvmError('ENOSYS', 'dlopen', addon.reason);
  const result = addon.native.kickToken(token);
  if (result === -Errno.ESRCH) return false;
  check(result, 'tgkill', `token ${token}`);
  return true;
}

type Closed = Exclude<OpenFacts, { readonly kvm: unknown }>;

function openDevice({ device = DEV_KVM, addon }: HostOptions): { readonly kvm: Kvm } | Closed {
  const loaded = loadNative(addon);
  if (loaded.native === undefined) return { addon: loaded.reason, access: access(device) };
  const { native } = loaded;
  const handle = native.openKvm(device);
  if (typeof handle === 'number') {
    const { code, message } = kvmError(handle, 'open');
    return {
      error: code,
      message: code === 'ENOTTY' ? `${device} is not KVM` : `${device} can't be opened (${message})`,
    };
  }
  const version = native.getApiVersion(handle);
  if (version === API_VERSION) return { kvm: new HostKvm(native, handle) };
  native.close(handle);
  return { error: 'EINVAL', message: `${device} speaks version ${version} of KVM's API, not ${API_VERSION}` };
}

/** The errno's name, and the call that gave it. */
function failureOf(closed: Closed): { readonly code: string; readonly syscall: string } {
  if ('addon' in closed) {
    return closed.access === 'ok' ? { code: 'ENOSYS', syscall: 'dlopen' } : { code: closed.access, syscall: 'access' };
  }
  return { code: closed.error, syscall: closed.error === 'EINVAL' ? 'KVM_GET_API_VERSION' : 'open' };
}

/** Why it did not open, from what can be read at once. */
function whyNot(closed: Closed, { device = DEV_KVM }: HostOptions): Refusal {
  const source = thisMachine(() => closed, { quick: true });
  return whyClosed(collectFacts(source, device))!;
}
