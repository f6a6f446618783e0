import {
  Cap,
  type CapName,
  DeviceType,
  type ErrnoCode,
  type Kvm,
  KvmError,
  sysregId,
  type Vm,
} from '../../kvm/index.js';
import {
  CONFIG_LINES,
  configFiles,
  FACT_FILES,
  type HostFacts,
  type KvmFacts,
  LOG_LINES,
  type LogFacts,
  type OpenFacts,
  type ReadResult,
} from './facts.js';

/** Where the facts are read. `system.ts` is this machine; a test is any other. */
export interface HostSource {
  readonly platform: string;
  readonly arch: string;
  readonly kernel: string;
  /** Bytes; 0 where it is not known. */
  pageSize(): number;
  /** A file's text, unpacked where its name ends with .gz; '' for a directory. */
  read(path: string): ReadResult;
  /** The places of the kernel's log, best first. */
  readonly logs: readonly { readonly source: string; read(): ReadResult }[];
  /** Opens the device: KVM, or why not. */
  open(device: string): { readonly kvm: Kvm } | Exclude<OpenFacts, { readonly kvm: unknown }>;
}

/** Reads all that says something about the host. Never throws; leaves nothing open. */
export function collectFacts(source: HostSource, device: string): HostFacts {
  const { platform, arch, kernel } = source;
  const opened = source.open(device);
  let open: OpenFacts;
  if ('kvm' in opened) {
    try {
      open = { kvm: askKvm(opened.kvm, arch === 'arm64') };
    } finally {
      opened.kvm.close();
    }
  } else {
    open = opened;
  }
  const files: Record<string, ReadResult> = {};
  if (platform === 'linux') {
    for (const [path, lines] of Object.entries(FACT_FILES)) files[path] = matching(source.read(path), lines);
    for (const path of configFiles(kernel)) {
      files[path] = matching(source.read(path), CONFIG_LINES);
      if ('text' in files[path]) break;
    }
  }
  const { log, logErrors } = readLog(source);
  return { platform, arch, kernel, device, open, pageSize: source.pageSize(), files, log, logErrors };
}

/** The first log that has anything to say; a ring that has wrapped has not. */
function readLog({ logs }: HostSource): { log: LogFacts; logErrors: Record<string, string> } {
  const logErrors: Record<string, string> = {};
  for (const { source, read } of logs) {
    const result = matching(read(), LOG_LINES);
    if ('error' in result) logErrors[source] = result.error;
    else if (result.text !== '') return { log: { source, lines: result.text.split('\n') }, logErrors };
    else logErrors[source] = 'says nothing of how the kernel was booted';
  }
  return { log: undefined, logErrors };
}

function matching(result: ReadResult, lines: RegExp | undefined): ReadResult {
  if ('error' in result) return result;
  // Values of the device tree end with a NUL.
  if (lines === undefined) return { text: result.text.replace(/[\0\s]+$/, '') };
  const kept = new Set(result.text.split('\n').filter((line) => lines.test(line)));
  return { text: [...kept].join('\n') };
}

/** Asks KVM what changes nothing and taints nothing. */
export function askKvm(kvm: Kvm, arm64: boolean): KvmFacts {
  // Not every host can give the 40 bits that a VM has by default.
  const vm = attempt(() => kvm.createVm(arm64 ? kvm.checkExtension(Cap.ARM_VM_IPA_SIZE) : 0));
  try {
    const capabilities = capabilitiesOf(kvm, vm);
    if (!arm64) return { capabilities };
    return {
      capabilities,
      createVm31: answer(() => kvm.createVm(31).close()),
      ...(vm === undefined ? {} : { vgics: vgicsOf(vm), ...mmfr1Of(vm) }),
    };
  } finally {
    vm?.close();
  }
}

/** Some extensions are known to a VM's fd alone (api.rst 4.4, 8.12). */
function capabilitiesOf(kvm: Kvm, vm: Vm | undefined): { [name in CapName]?: number } {
  const capabilities: { [name in CapName]?: number } = {};
  for (const [name, cap] of Object.entries(Cap) as [CapName, number][]) {
    const value = attempt(() => (vm ?? kvm).checkExtension(cap));
    if (value !== undefined && value !== 0) capabilities[name] = value;
  }
  return capabilities;
}

const VGICS = [
  'ARM_VGIC_V2',
  'ARM_VGIC_V3',
  'ARM_VGIC_ITS',
  'ARM_VGIC_V5',
] as const satisfies (keyof typeof DeviceType)[];

function vgicsOf(vm: Vm): string[] {
  return VGICS.filter((name) => attempt(() => vm.testDevice(DeviceType[name])) === true);
}

const ID_AA64MMFR1_EL1 = sysregId(3, 0, 0, 7, 1);

function mmfr1Of(vm: Vm): { mmfr1?: string } {
  const vcpu = attempt(() => vm.createVcpu(0));
  if (vcpu === undefined) return {};
  try {
    const value = attempt(() => {
      vcpu.init(vm.getPreferredTarget().target, 0);
      return vcpu.getOneReg(ID_AA64MMFR1_EL1);
    });
    return value === undefined ? {} : { mmfr1: `0x${value.toString(16)}` };
  } finally {
    vcpu.close();
  }
}

function answer(call: () => void): 'ok' | ErrnoCode {
  try {
    call();
    return 'ok';
  } catch (error) {
    if (!KvmError.is(error)) throw error;
    return error.code;
  }
}

/** The call's result; `undefined` where KVM refuses it. */
function attempt<T>(call: () => T): T | undefined {
  try {
    return call();
  } catch (error) {
    if (!KvmError.is(error)) throw error;
    return undefined;
  }
}
