/** The one file that knows the backends. */
import type { Kvm } from './kvm/index.js';
import { openSoft } from './soft/index.js';
import { VmError } from './vmm/errors.js';
import type { BackendKind, ClockKind } from './vmm/options.js';

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

/** Says which backends are there, and why not. Never throws, opens nothing. */
export function probe(): Probe {
  const soft: Availability =
    'WebAssembly' in globalThis
      ? { available: true }
      : { available: false, reason: 'this JavaScript engine runs without WebAssembly' };
  return {
    kvm: {
      available: false,
      reason: 'this version of elvisor has no native backend for /dev/kvm yet; use the software backend (soft)',
    },
    soft,
    auto: 'soft',
  };
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
  const host = probe();
  const chosen = backend === 'auto' ? host.auto : backend;
  const is = host[chosen];
  if (!is.available) throw new VmError('ERR_BACKEND_UNAVAILABLE', `backend ${chosen} is not available: ${is.reason}`);
  return openSoft({ clock });
}
