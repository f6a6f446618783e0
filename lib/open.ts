/** The one file that knows the backends. */
import { openHost, probeArm64Host } from './host/index.js';
import type { Kvm } from './kvm/index.js';
import { openSoft } from './soft/index.js';
import { connectCompiler } from './thread/compiler-thread.js';
import { VmError } from './vmm/errors.js';
import type { BackendKind, ClockKind } from './vmm/options.js';

export {
  type BootEl,
  type Confidence,
  type CpuVhe,
  type DeviceFinding,
  type Evidence,
  type FeatureFindings,
  type Finding,
  type HostInfo,
  hostInfo,
  type KernelEl,
  type KvmMode,
  type ModeOrigin,
  type Refusal,
  type RefusalCause,
} from './host/index.js';

export { parseRegionName, type RegionName } from './soft/index.js';

/** Options of {@link open}. */
export interface OpenOptions {
  /** `'kvm'`: the host's; `'soft'`: the software KVM; `'auto'`: the host's where it is there, else the software one. Default: `'auto'`. */
  readonly backend?: BackendKind | undefined;
  /** How time passes for guests of the software KVM. Default: `'host'`. */
  readonly clock?: ClockKind | undefined;
}

/** Whether a backend can be used here, and if not, why. */
export type Availability =
  | { readonly available: true }
  | { readonly available: false /** One sentence for the user. */; readonly reason: string };

/** What {@link probe} found. */
export interface Probe {
  /** The host's KVM. */
  readonly kvm: Availability;
  /** The software KVM. */
  readonly soft: Availability;
  /** What `'auto'` opens. */
  readonly auto: 'kvm' | 'soft';
}

/** Says which backends are there, and why not. Never throws, leaves nothing open. */
export function probe(): Probe {
  const soft: Availability =
    'WebAssembly' in globalThis
      ? { available: true }
      : { available: false, reason: 'this JavaScript engine runs without WebAssembly' };
  const host = probeArm64Host();
  const kvm: Availability = host.available ? host : { available: false, reason: `${host.reason}; ${host.wayOut}` };
  return { kvm, soft, auto: kvm.available ? 'kvm' : 'soft' };
}

/**
 * Opens a KVM: what opening `/dev/kvm` is.
 * @throws VmError ERR_BACKEND_UNAVAILABLE the backend asked for is not there, with the reason; ERR_INVALID_OPTION
 */
export function open(options: OpenOptions = {}): Kvm {
  const { backend = 'auto', clock = 'host' } = options;
  if (backend !== 'auto' && backend !== 'kvm' && backend !== 'soft') {
    throw new VmError('ERR_INVALID_OPTION', `backend: expected auto, kvm or soft, got ${JSON.stringify(backend)}`);
  }
  if (clock !== 'host' && clock !== 'virtual') {
    throw new VmError('ERR_INVALID_OPTION', `clock: expected host or virtual, got ${JSON.stringify(clock)}`);
  }
  if (backend === 'kvm' && clock === 'virtual') {
    throw new VmError(
      'ERR_INVALID_OPTION',
      "clock: a virtual clock is the software backend's (soft); kvm has only host",
    );
  }
  const found = probe();
  // Only the software KVM has a clock that can be anything but the host's.
  const chosen = backend !== 'auto' ? backend : clock === 'virtual' ? 'soft' : found.auto;
  const is = found[chosen];
  if (!is.available) throw new VmError('ERR_BACKEND_UNAVAILABLE', `backend ${chosen} is not available: ${is.reason}`);
  return chosen === 'kvm' ? openHost() : openSoft({ clock, compiler: connectCompiler });
}
