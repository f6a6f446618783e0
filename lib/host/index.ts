/** The host kernel's KVM, by the native addon. Importing this loads nothing native; the first call does. */
import { Errno, type Kvm, KvmError } from '../kvm/index.js';
import { check, kvmError } from './call.js';
import { HostKvm } from './host-kvm.js';
import { loadNative, type NativeResult, type SystemHandle } from './native.js';

export { HostVcpu } from './vcpu.js';

const DEV_KVM = '/dev/kvm';
/** KVM_API_VERSION: the kernel has had no other since 2007, and says to refuse one. */
const API_VERSION = 12;
const ESRCH = 3;

/** Where to find what {@link openHost} needs. */
export interface HostOptions {
  /** The device node. Default: `/dev/kvm`. */
  readonly device?: string | undefined;
  /** The addon's file, in place of the package's own. */
  readonly addon?: string | undefined;
}

/** Whether the host's KVM can be used, and if not, why. */
export type HostAvailability =
  | { readonly available: true }
  | {
      readonly available: false;
      /** `addon`: none for this machine; `absent`: no `/dev/kvm`; `permission`: it may not be opened; `unusable`: it is not KVM. */
      readonly cause: 'addon' | 'absent' | 'permission' | 'unusable';
      /** One sentence for the user. */
      readonly reason: string;
    };

/**
 * Opens `/dev/kvm`. Its guests are of the host's architecture: on x64 the calls that are the same on both work, for tests;
 * an arm64 guest needs an arm64 host.
 * @throws KvmError ENOSYS no addon for this machine; ENOENT no `/dev/kvm`; EACCES it may not be opened; ENOTTY it is not
 * KVM; EINVAL an API of another version
 */
export function openHost(options: HostOptions = {}): Kvm {
  const { native, handle } = openDevice(options);
  return new HostKvm(native, handle);
}

/** Whether {@link openHost} would work here. Never throws; what it opens it closes. */
export function probeHost(options: HostOptions = {}): HostAvailability {
  try {
    const { native, handle } = openDevice(options);
    native.close(handle);
    return { available: true };
  } catch (error) {
    if (!KvmError.is(error)) return { available: false, cause: 'unusable', reason: String(error) };
    const called = `${error.syscall}: ${error.code}: `;
    const reason = error.message.startsWith(called) ? error.message.slice(called.length) : error.message;
    return { available: false, cause: CAUSES[error.code] ?? 'unusable', reason };
  }
}

const CAUSES: { readonly [code: string]: 'addon' | 'absent' | 'permission' } = {
  ENOSYS: 'addon',
  ENOENT: 'absent',
  EACCES: 'permission',
  EPERM: 'permission',
};

/**
 * `Vcpu.kick()` from any thread of this process, by the vCPU's {@link HostVcpu.token}.
 * @returns whether the vCPU is still there
 */
export function kickHostVcpu(token: number): boolean {
  const { native } = addon(loadNative());
  const result = native.kickToken(token);
  if (result === -ESRCH) return false;
  check(result, 'tgkill', `token ${token}`);
  return true;
}

function addon(result: NativeResult): Extract<NativeResult, { native: object }> {
  if (result.native === undefined) throw new KvmError('ENOSYS', 'dlopen', result.reason);
  return result;
}

function openDevice({ device = DEV_KVM, addon: file }: HostOptions): {
  native: Extract<NativeResult, { native: object }>['native'];
  handle: SystemHandle;
} {
  const { native } = addon(loadNative(file));
  const handle = native.openKvm(device);
  if (typeof handle === 'number') throw kvmError(handle, 'open', explain(-handle, device));
  const version = native.getApiVersion(handle);
  if (version !== API_VERSION) {
    native.close(handle);
    throw new KvmError('EINVAL', 'KVM_GET_API_VERSION', `${device} speaks version ${version}, not ${API_VERSION}`);
  }
  return { native, handle };
}

/** What an errno of open(2) means here, and the way out. */
function explain(errno: number, device: string): string {
  switch (errno) {
    case Errno.ENOENT:
      return `there is no ${device}: the kernel has no KVM, was started without EL2 or with kvm-arm.mode=none, or this is a container without the device (--device=${device})`;
    case Errno.EACCES:
    case Errno.EPERM:
      return `${device} may not be opened: add the user to the group that owns it (usually kvm), or change the device's permissions`;
    case Errno.ENOTTY:
      return `${device} is not KVM`;
    default:
      return device;
  }
}
