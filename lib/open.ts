/** Both backends, at once at hand. */
import { chooseBackend, type OpenOptions } from './backends.js';
import { openHost } from './host/index.js';
import type { Kvm } from './kvm/index.js';
import { openSoft } from './soft/index.js';
import { connectCompiler } from './thread/compiler-thread.js';

export { type Availability, type OpenOptions, type Probe, probe } from './backends.js';
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

/**
 * Opens a KVM: what opening `/dev/kvm` is.
 * @throws VmError ERR_BACKEND_UNAVAILABLE the backend asked for is not there, with the reason; ERR_INVALID_OPTION
 */
export function open(options: OpenOptions = {}): Kvm {
  if (chooseBackend(options) === 'kvm') return openHost();
  return openSoft({ clock: options.clock, compiler: () => connectCompiler(options.codeCache) });
}
