/** Which backend there is, and which is taken. Loads neither: the software KVM's code is a megabyte, which a host with KVM never needs. */
import { openHost, probeArm64Host } from './host/index.js';
import type { Kvm } from './kvm/index.js';
import { VmError } from './vmm/errors.js';
import type { BackendKind, ClockKind } from './vmm/options.js';

export { type FeatureFindings, type Finding, type HostInfo, hostInfo } from './host/index.js';

/** Options of `open`. */
export interface OpenOptions {
  /** `'kvm'`: the host's; `'soft'`: the software KVM; `'auto'`: the host's where it is there, else the software one. Default: `'auto'`. */
  readonly backend?: BackendKind | undefined;
  /** How time passes for guests of the software KVM. Default: `'host'`. */
  readonly clock?: ClockKind | undefined;
  /**
   * A directory where the software KVM keeps the code that it compiles, and finds that of earlier runs: what was hot then need not be
   * found hot and compiled again. It is made if it is missing; one that others could write to is not used. Default: nothing is kept.
   */
  readonly codeCache?: string | undefined;
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
  const kvm = probeKvm();
  return { kvm, soft: probeSoft(), auto: kvm.available ? 'kvm' : 'soft' };
}

function probeSoft(): Availability {
  if ('WebAssembly' in globalThis) return { available: true };
  return { available: false, reason: 'this JavaScript engine runs without WebAssembly' };
}

function probeKvm(): Availability {
  const host = probeArm64Host();
  return host.available ? host : { available: false, reason: `${host.reason}; ${host.wayOut}` };
}

/**
 * The backend that `open` takes.
 * @throws VmError ERR_BACKEND_UNAVAILABLE the backend asked for is not there, with the reason; ERR_INVALID_OPTION
 */
export function chooseBackend(options: OpenOptions): 'kvm' | 'soft' {
  const { backend = 'auto', clock = 'host', codeCache } = options;
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
  if (codeCache !== undefined && (typeof codeCache !== 'string' || codeCache === '')) {
    throw new VmError('ERR_INVALID_OPTION', `codeCache: expected a directory, got ${JSON.stringify(codeCache)}`);
  }
  // Only the software KVM has a clock that can be anything but the host's.
  const wanted = backend === 'auto' && clock === 'virtual' ? 'soft' : backend;
  // Loading the addon and asking the device is the host's affair only where its KVM may be taken.
  const kvm = wanted === 'soft' ? undefined : probeKvm();
  const chosen = wanted !== 'auto' ? wanted : kvm?.available === true ? 'kvm' : 'soft';
  const is = chosen === 'kvm' && kvm !== undefined ? kvm : probeSoft();
  if (!is.available) throw new VmError('ERR_BACKEND_UNAVAILABLE', `backend ${chosen} is not available: ${is.reason}`);
  return chosen;
}

/** `open`, which loads the software KVM only where it is what is chosen. @throws VmError as {@link chooseBackend} does */
export async function openLazily(options: OpenOptions): Promise<Kvm> {
  if (chooseBackend(options) === 'kvm') return openHost();
  const [{ openSoft }, { connectCompiler }] = await Promise.all([
    import('./soft/index.js'),
    import('./thread/compiler-thread.js'),
  ]);
  return openSoft({ clock: options.clock, compiler: () => connectCompiler(options.codeCache) });
}
