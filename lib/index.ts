/**
 * KVM for Node.js: `MicroVm` boots Linux in one call; `open` gives the KVM below it; `probe` says what is there.
 * @packageDocumentation
 */
export {
  type DefaultGuest,
  type FetchGuestOptions,
  fetchDefaultGuest,
  fetchGuest,
  type GuestFlavour,
  type GuestProgress,
} from './guest/index.js';
export * from './kvm/index.js';
export { ConsoleDuplex } from './node/console-duplex.js';
export {
  execInGuest,
  type GuestExec,
  type GuestExecResult,
  type GuestUse,
  guestOptions,
} from './node/default-guest.js';
export { MicroVm } from './node/micro-vm.js';
export * from './open.js';
export { lowerHelperThreads } from './thread/priority.js';
export { limitYoungGeneration } from './thread/young-generation.js';
export type { WaitForOptions, WaitPattern } from './vmm/console.js';
export { VmError, type VmErrorCode } from './vmm/errors.js';
export type {
  BootOptions,
  MicroVmEvents,
  StopOptions,
  VmExit,
  VmExitReason,
  VmState,
  VmStats,
} from './vmm/micro-vm.js';
export type {
  BackendKind,
  ClockKind,
  ConsoleKind,
  DiskSpec,
  ImageSource,
  KernelFormat,
  MicroVmOptions,
} from './vmm/options.js';
export type { ExitCounts } from './vmm/run-loop.js';
